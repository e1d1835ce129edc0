"""The connections of the storage to a PostgreSQL database.

A call acquires a connection from a pool; a transaction keeps one until it ends, and sends what it saves many
rows at a time. A forked child starts without any. What the driver raises becomes an error of this package.
"""

import contextlib
import os
import threading
import weakref
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import psycopg

from poker_therapist.compat import override
from poker_therapist.database import CLOSED, Database, Mode
from poker_therapist.errors import DatabaseUnreachable, StorageClosed, StorageError
from poker_therapist.location import PostgreSQLLocation
from poker_therapist.ownership import Block, Fiber, Part, current_fiber, fiber_of_context, left_elsewhere
from poker_therapist.postgresql.connect import is_lost, reason_of, translate_error, translating_errors
from poker_therapist.postgresql.home import Home, quoted
from poker_therapist.postgresql.pool import Connection, Lease, Pool
from poker_therapist.postgresql.scrub import free_room
from poker_therapist.postgresql.transaction import BEGIN_READ, LOCK_PLAYERS, Transaction, lock_key
from poker_therapist.sqlfile import Placeholders, read_queries
from poker_therapist.tables import LEGACY_ROWS, TABLES
from poker_therapist.values import decode, encode

_Cursor = psycopg.RawCursor[Any]
_Found = TypeVar("_Found")
_DRIVER_ERRORS = (psycopg.Error, OverflowError, UnicodeEncodeError)


class _PerThread(threading.local):
    # Weak: what nobody holds any more has ended. None if this thread has begun none.
    transaction: "weakref.ref[Transaction] | None" = None


class PostgreSQLDatabase(Database):
    """An open PostgreSQL database."""

    location: PostgreSQLLocation
    can_pause = True

    def __init__(self, location: PostgreSQLLocation, queries: Sequence[Path]) -> None:
        """Connect once, so that a wrong address is an error now and not at the first call.

        Raises:
            StorageError: there is no such server or database, or it refuses this user.
        """
        self.location = location
        self.threads = self.writers = location.connections
        self._here = _PerThread()
        # The same for each fiber: fibers share a thread.
        self._of_fibers: weakref.WeakKeyDictionary[Fiber, weakref.ref[Transaction]] = (
            weakref.WeakKeyDictionary()
        )
        self._pool = Pool(location)
        home = self._with_connection(lambda connection: connection.home, reads=False)
        self.home = home or Home(None)
        # Where both engines cannot use the same SQL, this one's own file has it.
        read = read_queries(Placeholders.POSTGRESQL, *queries, Path(__file__).with_name("queries.sql"))
        self._queries = {name: self.home.qualified(query) for name, query in read.items()}
        _databases.add(self)

    # Statements

    @override
    def fetch_all(self, query: str, values: Sequence[Any] = ()) -> list[Any]:
        return self._run(self._queries[query], values, _all, reads=True)

    @override
    def fetch_one(self, query: str, values: Sequence[Any] = ()) -> Any:
        return self._run(self._queries[query], values, _one, reads=True)

    @override
    def execute(self, query: str, values: Sequence[Any] = ()) -> int:
        return int(self._run(self._queries[query], values, _count, reads=False))

    @override
    def execute_later(self, query: str, values: Sequence[Any] = ()) -> None:
        """Run a query as `execute` does; a transaction keeps it, and sends many together."""
        sql = self._queries[query]
        transaction = self._open_transaction()
        if transaction is None:
            self._with_connection(lambda connection: _execute(connection, sql, values, _count), reads=False)
            return
        self._require_usable(transaction)
        if not transaction.begun:
            self._begin(transaction, values)
        if transaction.add(sql, values):
            self._send(transaction)

    @override
    def execute_many(self, query: str, rows: Sequence[Sequence[Any]]) -> Sequence[int]:
        """Run the query for many rows, given the player and the rest as JSON: nothing else is as fast."""
        user, sql = rows[0][0], self._queries[f"{query}_many"]
        values = (user, encode([row[1:] for row in rows]), lock_key(user))
        return [row[0] for row in self._run(sql, values, _returned, reads=False)]

    @override
    def lock_players(self, users: Collection[int]) -> None:
        transaction, in_order = self._open_transaction(), sorted(users)
        if transaction is not None and in_order:
            self._require_usable(transaction)
            if not transaction.begun:
                self._begin(transaction, in_order)
            self._run_in(transaction, LOCK_PLAYERS, ([lock_key(user) for user in in_order],), _all)

    @override
    def fetch_together(self, calls: Sequence[tuple[str, Sequence[Any]]]) -> list[list[Any]]:
        if self._open_transaction() is not None:
            return [self.fetch_all(query, values) for query, values in calls]

        def read(connection: Connection) -> list[list[Any]]:
            cursor = connection.kept_cursor
            connection.begin(BEGIN_READ)
            found = [cursor.execute(self._queries[query], values).fetchall() for query, values in calls]
            cursor.execute("COMMIT")
            return found

        return self._with_connection(read, reads=True)

    def _run(
        self, sql: str, values: Sequence[Any], result: Callable[[_Cursor], _Found], *, reads: bool
    ) -> _Found:
        """Run a statement; one that `reads` once more if its connection is lost meanwhile."""
        if (transaction := self._open_transaction()) is not None:
            return self._run_in(transaction, sql, values, result)
        return self._with_connection(
            lambda connection: _execute(connection, sql, values, result), reads=reads
        )

    def _with_connection(self, action: Callable[[Connection], _Found], *, reads: bool) -> _Found:
        """Do something with a connection of the pool; what `reads` once more if the connection is lost."""
        again = reads
        while True:
            lease = Lease(self._pool)
            try:
                found = action(lease.acquire())
                lease.release()
            except BaseException as error:  # also a signal, wherever it arrived
                lost = lease.connection is not None and is_lost(lease.connection)
                if lease.connection is not None and lease.connection.is_pooled and not lost:
                    with contextlib.suppress(psycopg.Error):
                        lease.connection.rollback()
                lease.release()
                if not isinstance(error, _DRIVER_ERRORS):
                    raise
                if lost and not reads:
                    self._raise_unknown(error)
                if not (lost and again):
                    raise translate_error(error, self.location) from error
                again = False
            else:
                return found

    def _run_in(
        self, transaction: Transaction, sql: str, values: Sequence[Any], result: Callable[[_Cursor], _Found]
    ) -> _Found:
        self._require_usable(transaction)
        if not transaction.begun:
            self._begin(transaction, values)
        self._send(transaction)
        try:
            return result(transaction.live.kept_cursor.execute(sql, values))
        except _DRIVER_ERRORS as error:
            raise translate_error(error, self.location) from error

    def _open_transaction(self) -> Transaction | None:
        """Return the transaction that this thread, or fiber, has begun and not ended."""
        fiber = None if fiber_of_context.get() is None else current_fiber()
        found = self._here.transaction if fiber is None else self._of_fibers.get(fiber)
        if found is None:
            return None
        transaction = found()
        if transaction is not None and (transaction.is_over or transaction.holder() is None):
            transaction.abandon()
        if transaction is None or transaction.connection is None:
            self._set_open_transaction(None)
            return None
        if transaction.innermost is not None:
            transaction.require_parts()
        return transaction

    def _set_open_transaction(self, transaction: Transaction | None) -> None:
        fiber, found = current_fiber(), None if transaction is None else weakref.ref(transaction)
        if fiber is None:
            self._here.transaction = found
        elif found is not None:
            self._of_fibers[fiber] = found
        else:
            self._of_fibers.pop(fiber, None)

    def _require_usable(self, transaction: Transaction) -> None:
        if self._pool.closed:
            raise StorageClosed(CLOSED)
        transaction.owner.require()

    def _begin(self, transaction: Transaction, values: Sequence[Any]) -> None:
        try:
            transaction.begin(values[0] if values else None)
        except _DRIVER_ERRORS as error:
            raise translate_error(error, self.location) from error

    def _send(self, transaction: Transaction) -> None:
        try:
            transaction.send()
        except _DRIVER_ERRORS as error:
            raise translate_error(error, self.location) from error

    def _raise_unknown(self, error: Exception) -> NoReturn:
        raise DatabaseUnreachable(
            f"the connection to {self.location.name} was lost ({reason_of(error)}), and it is not known "
            "whether this was saved: check, then save it again if it is missing"
        ) from error

    # Transactions

    @property
    @override
    def in_transaction(self) -> bool:
        if self._pool.closed:
            raise StorageClosed(CLOSED)
        transaction = self._open_transaction()
        if transaction is not None:
            transaction.owner.require()
        return transaction is not None

    @override
    def transaction(self, mode: Mode) -> contextlib.AbstractContextManager[None]:
        """Run a block as one transaction; inside another, as a part that can be rolled back by itself.

        A block that reads before it writes sees one snapshot. If somebody else changes the same rows before
        it does, it fails with TransactionConflict; nothing of the other's is lost.
        """
        return Block(lambda: _Part(self, mode))

    def _commit(self, transaction: Transaction) -> None:
        if self._pool.closed:
            raise StorageClosed(CLOSED)
        if transaction.begun and is_lost(transaction.live):
            raise DatabaseUnreachable(
                f"the connection to {self.location.name} was lost, so the transaction was "
                "rolled back: run the block again"
            )
        if transaction.failed:
            raise StorageError(
                "a part of the transaction failed, so the whole transaction was rolled back: run the "
                "block again"
            )
        self._send(transaction)
        try:
            transaction.end("COMMIT")
        except psycopg.Error as error:
            if is_lost(transaction.live):
                self._raise_unknown(error)
            raise translate_error(error, self.location) from error

    # The rest

    @override
    def decode_legacy(self, column: str, stored: Any) -> Any:
        if column not in LEGACY_ROWS.any_type or stored is None:
            return stored
        value = decode(stored)
        return next(iter(value.values()), value) if isinstance(value, dict) else value

    @override
    def scrub_deleted(self) -> None:
        """Let new rows overwrite the space of the deleted ones.

        Until they do, the bytes are still there, as they are in the server's log, archives and replicas for
        as long as those are kept: see docs/postgresql.md.
        """
        tables = [quoted(self.home.schema or "public", table.name) for table in TABLES]
        try:
            # https://www.postgresql.org/docs/current/sql-vacuum.html
            self._with_connection(
                lambda connection: free_room(connection, self.location, tables), reads=False
            )
        except StorageError as error:
            raise type(error)(
                f"the rows are deleted, but their space is not freed yet; try again. {error}"
            ) from error

    @override
    def enable_writes(self) -> None:
        """Do nothing: reading a server's database does not change it."""

    @override
    def close(self) -> None:
        """Close all connections; those that are in use are closed when they are released."""
        self._pool.close()


class _Part(Part):
    """A transaction, or a part of the one that is open."""

    _transaction: Transaction | None = None  # also where a signal arrives in __init__

    def __init__(self, database: PostgreSQLDatabase, mode: Mode) -> None:
        self._database = database
        self._mode = mode
        self._is_part = False
        # Empty in a part that began before its transaction did: it is rolled back with what has begun since.
        self._savepoint = ""
        self._has_begun = False
        self.is_over = False

    @override
    def begin(self) -> None:
        with translating_errors(self._database.location):
            self._begin()

    def _begin(self) -> None:
        database = self._database
        if database._pool.closed:
            raise StorageClosed(CLOSED)
        outer = database._open_transaction()
        if outer is None:
            self._transaction = transaction = Transaction(Lease(database._pool), self._mode)
            transaction.holder = self.holder
            database._set_open_transaction(transaction)
            transaction.acquire()
            return
        outer.owner.require()
        self._is_part = True
        self._transaction = outer
        outer.enter_part(self)
        database._send(outer)
        if outer.begun:
            savepoint = f"part_{next(outer.names)}"
            outer.live.kept_cursor.execute(f"SAVEPOINT {savepoint}")
            self._savepoint = savepoint
        self._has_begun = True

    @override
    def end(self, error: BaseException | None) -> None:
        self.is_over = True
        transaction = self._transaction
        if transaction is None or transaction.owner.was_forked():  # a child may leave it, but not end it
            return
        if not self._is_part:
            transaction.is_over = True
        if not transaction.owner.is_here():
            transaction.end_elsewhere()
            if error is None:
                raise left_elsewhere()
            return
        if error is not None:
            self._roll_back()
            return
        with translating_errors(self._database.location):
            transaction.require_parts()
            if not self._is_part:
                self._database._commit(transaction)
                transaction.release()
            else:
                self._keep_part(transaction)

    @override
    def abandon(self) -> None:
        self.is_over = True
        transaction = self._transaction
        if transaction is None or transaction.owner.was_forked():
            return
        if self._is_part:
            self._roll_back()
        else:
            transaction.abandon()

    def __del__(self) -> None:
        """Roll back a part that nobody holds any more; the transaction itself does so for the whole."""
        if self._transaction is None or self.is_over or not self._is_part:
            return
        self._transaction.is_whole = False
        if self._transaction.owner.is_here() and not self._transaction.owner.was_forked():
            self.abandon()

    def _keep_part(self, transaction: Transaction) -> None:
        self._database._send(transaction)
        if self._savepoint:
            transaction.finish(f"RELEASE {self._savepoint}")
        transaction.leave_part(self, is_undone=False)

    def _roll_back(self) -> None:
        transaction = self._transaction
        if transaction is None:
            return
        if not self._is_part:
            transaction.roll_back()
            return
        if self._has_begun and transaction.connection is not None and not is_lost(transaction.connection):
            try:
                if self._savepoint:
                    transaction.finish(f"ROLLBACK TO {self._savepoint}; RELEASE {self._savepoint}")
                else:
                    transaction.end("ROLLBACK")
            except psycopg.Error:  # then all of it can only be rolled back
                transaction.is_whole = False
        transaction.leave_part(self, is_undone=True)


def _execute(
    connection: Connection, sql: str, values: Sequence[Any], result: Callable[[_Cursor], _Found]
) -> _Found:
    """Run a statement by itself."""
    if not connection.is_pooled:
        return result(connection.kept_cursor.execute(sql, values))
    connection.begin("BEGIN")
    found = result(connection.kept_cursor.execute(sql, values))
    connection.kept_cursor.execute("COMMIT")
    return found


def _all(cursor: _Cursor) -> list[Any]:
    return cursor.fetchall()


def _returned(cursor: _Cursor) -> list[Any]:
    return cursor.fetchall() if cursor.description else []


def _one(cursor: _Cursor) -> Any:
    return cursor.fetchone()


def _count(cursor: _Cursor) -> int:
    return cursor.rowcount


# A forked child must not use its parent's connections, so it starts with none. That it drops them does not
# close them: libpq's wrapper knows which process opened one.
_databases: weakref.WeakSet[PostgreSQLDatabase] = weakref.WeakSet()


def _after_fork_in_child() -> None:
    for database in list(_databases):
        closed = database._pool.closed
        database._here = _PerThread()
        home, database._pool = database._pool.home, Pool(database.location)
        database._pool.home = home
        database._pool.closed = closed


if hasattr(os, "register_at_fork"):  # Windows has no fork
    os.register_at_fork(after_in_child=_after_fork_in_child)
