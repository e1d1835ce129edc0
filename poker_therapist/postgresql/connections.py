"""The connections of the storage to a PostgreSQL database.

A call acquires a connection from a pool; a transaction keeps one until it ends, and sends what it saves many
rows at a time. A forked child starts without any. What the driver raises becomes an error of this package.
"""

import contextlib
import os
import threading
import weakref
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn

import psycopg

from poker_therapist.compat import override
from poker_therapist.database import CLOSED, Database, Mode
from poker_therapist.errors import DatabaseUnreachable, StorageClosed, StorageError
from poker_therapist.location import PostgreSQLLocation
from poker_therapist.postgresql.connect import is_lost, reason_of, translate_error
from poker_therapist.postgresql.pool import Connection, Pool
from poker_therapist.postgresql.transaction import Transaction
from poker_therapist.sqlfile import Placeholders, read_queries
from poker_therapist.tables import LEGACY_ROWS, TABLES
from poker_therapist.values import decode

_Cursor = psycopg.RawCursor[Any]
_DRIVER_ERRORS = (psycopg.Error, OverflowError, UnicodeEncodeError)


class _PerThread(threading.local):
    block: Transaction | None = None


class PostgreSQLDatabase(Database):
    """An open PostgreSQL database."""

    location: PostgreSQLLocation

    def __init__(self, location: PostgreSQLLocation, queries: Sequence[Path]) -> None:
        """Connect once, so that a wrong address is an error now and not at the first call.

        Raises:
            StorageError: there is no such server or database, or it refuses this user.
        """
        self.location = location
        self._queries = read_queries(Placeholders.POSTGRESQL, *queries)
        self._here = _PerThread()
        self._pool = Pool(location)
        self._pool.release(self._acquire())
        _databases.add(self)

    def _acquire(self) -> Connection:
        try:
            return self._pool.acquire()
        except _DRIVER_ERRORS as error:
            raise translate_error(error, self.location) from error

    # Statements

    @override
    def fetch_all(self, query: str, values: Sequence[Any] = ()) -> list[Any]:
        return self._run(self._queries[query], values, _all, reads=True)  # type: ignore[no-any-return]  # psycopg's rows are Any

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
        block = self._here.block
        if block is None:
            self._run(sql, values, _count, reads=False)
            return
        if self._pool.closed:
            raise StorageClosed(CLOSED)
        if not block.begun:
            self._begin(block, values)
        if block.add(sql, values):
            self._send(block)

    def _run(self, sql: str, values: Sequence[Any], result: Callable[[_Cursor], Any], *, reads: bool) -> Any:
        """Run a statement; one that `reads` once more if its connection is lost meanwhile."""
        if (block := self._here.block) is not None:
            return self._run_in(block, sql, values, result)
        again = reads
        while True:
            connection = self._acquire()
            try:
                return result(connection.kept_cursor.execute(sql, values))
            except _DRIVER_ERRORS as error:
                if not is_lost(connection):
                    raise translate_error(error, self.location) from error
                if not reads:
                    self._raise_unknown(error)
                if not again:
                    raise translate_error(error, self.location) from error
                again = False
            finally:
                self._pool.release(connection)

    def _run_in(
        self, block: Transaction, sql: str, values: Sequence[Any], result: Callable[[_Cursor], Any]
    ) -> Any:
        if self._pool.closed:
            raise StorageClosed(CLOSED)
        if not block.begun:
            self._begin(block, values)
        self._send(block)
        try:
            return result(block.connection.kept_cursor.execute(sql, values))
        except _DRIVER_ERRORS as error:
            raise translate_error(error, self.location) from error

    def _begin(self, block: Transaction, values: Sequence[Any]) -> None:
        try:
            block.begin(values[0] if values else None)
        except _DRIVER_ERRORS as error:
            raise translate_error(error, self.location) from error

    def _send(self, block: Transaction) -> None:
        try:
            block.send()
        except _DRIVER_ERRORS as error:
            raise translate_error(error, self.location) from error

    def _raise_unknown(self, error: Exception) -> NoReturn:
        raise DatabaseUnreachable(
            f"the connection to {self.location.name} was lost ({reason_of(error)}): "
            "whether this was saved is not known; look, and do it again"
        ) from error

    # Transactions

    @property
    @override
    def in_transaction(self) -> bool:
        if self._pool.closed:
            raise StorageClosed(CLOSED)
        return self._here.block is not None

    @override
    @contextlib.contextmanager
    def transaction(self, mode: Mode) -> Iterator[None]:
        """Run a block as one transaction, or, inside another, as a part that can fail by itself.

        A block that reads before it writes sees one moment's state. If somebody else changes the same rows
        before it does, it fails with TransactionConflict; nothing of the other's is lost.
        """
        if self._pool.closed:
            raise StorageClosed(CLOSED)
        here, process = self._here, os.getpid()
        if here.block is not None:
            with self._part(here.block):
                yield
            return
        block = here.block = Transaction(self._acquire(), mode)
        try:
            yield
            if process == os.getpid():  # a forked child may leave the block, but not end it
                self._commit(block)
        except BaseException:
            if process == os.getpid():
                with contextlib.suppress(psycopg.Error):  # the connection is lost, so it is undone
                    block.end("ROLLBACK")
            raise
        finally:
            if process == os.getpid():
                here.block = None
                self._pool.release(block.connection)

    def _commit(self, block: Transaction) -> None:
        if self._pool.closed:
            raise StorageClosed(CLOSED)
        if block.begun and is_lost(block.connection):
            raise DatabaseUnreachable(
                f"the connection to {self.location.name} was lost, so the block was undone: run it again"
            )
        if block.failed:
            raise StorageError("a part of the transaction failed, so all of it was undone: run it again")
        self._send(block)
        try:
            block.end("COMMIT")
        except psycopg.Error as error:
            if is_lost(block.connection):
                self._raise_unknown(error)
            raise translate_error(error, self.location) from error

    @contextlib.contextmanager
    def _part(self, block: Transaction) -> Iterator[None]:
        """Run a block inside a block, which can fail by itself."""
        process = os.getpid()
        # The first part of a block that has not begun is undone with what has begun since.
        saved = block.begun
        # Named by its depth: the savepoint of a part inside this one is left if its end is interrupted.
        block.depth += 1
        name = f"part_{block.depth}"
        try:
            self._send(block)
            if saved:
                block.connection.kept_cursor.execute(f"SAVEPOINT {name}")
            try:
                yield
                if process == os.getpid():
                    self._send(block)
            except BaseException:
                if process == os.getpid() and not is_lost(block.connection):
                    if saved:
                        block.settle(f"ROLLBACK TO {name}; RELEASE {name}")
                    else:
                        block.end("ROLLBACK")
                raise
            if saved and process == os.getpid():
                block.settle(f"RELEASE {name}")
        except psycopg.Error as error:
            raise translate_error(error, self.location) from error
        finally:
            block.depth -= 1

    # The rest

    @override
    def decode_legacy(self, column: str, stored: Any) -> Any:
        if column not in LEGACY_ROWS.any_type or stored is None:
            return stored
        value = decode(stored)
        return next(iter(value.values())) if isinstance(value, dict) else value

    @override
    def scrub_deleted(self) -> None:
        """Let new rows overwrite the space of the deleted ones.

        Until they do, the bytes are still there, as they are in the server's log, archives and replicas for
        as long as those are kept: see docs/SCALING.md.
        """
        tables = ", ".join(table.name for table in TABLES)
        try:
            # https://www.postgresql.org/docs/current/sql-vacuum.html
            self._run(f"VACUUM {tables}", (), _count, reads=False)
        except StorageError as error:
            raise type(error)(
                f"the rows are deleted, but the room of them is not free yet; do it again. {error}"
            ) from error

    @override
    def enable_writes(self) -> None:
        """Do nothing: reading a server's database does not change it."""

    @override
    def close(self) -> None:
        """Close all connections; those that are in use are closed when they are released."""
        self._pool.close()


def _all(cursor: _Cursor) -> list[Any]:
    return cursor.fetchall()


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
        database._pool = Pool(database.location)
        database._pool.closed = closed


os.register_at_fork(after_in_child=_after_fork_in_child)
