"""The connections of the storage to an SQLite file.

Each thread has its own connection, kept until the thread ends or the database is closed. A forked child
starts without connections. Errors of the driver are translated to errors of this package.
"""

import atexit
import contextlib
import math
import os
import sqlite3
import threading
import time
import weakref
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from poker_therapist.compat import override
from poker_therapist.database import CLOSED, Database, Mode
from poker_therapist.errors import DatabaseBusy, StorageClosed, StorageError
from poker_therapist.location import SQLiteLocation
from poker_therapist.ownership import FAILED, Block
from poker_therapist.sqlfile import Placeholders, read_queries
from poker_therapist.sqlite.connect import (
    enlarge_cache,
    find_file,
    immutable_state,
    open_connection,
    set_journal_mode,
    translate_error,
)
from poker_therapist.sqlite.transaction import (
    Session,
    Transaction,
    require_no_other_writer,
    reset_after_fork,
    writing,
)

_DRIVER_ERRORS = (sqlite3.Error, OverflowError, UnicodeEncodeError)
_Found = TypeVar("_Found")


class _PerThread(threading.local):
    session: Session | None = None


class SQLiteDatabase(Database):
    """An open SQLite file."""

    location: SQLiteLocation
    threads = 4
    writers = 1

    def __init__(self, location: SQLiteLocation, queries: Sequence[Path], *, create: bool) -> None:
        """Check that the file can be opened; create an empty one, readable by its owner alone, if `create`.

        Raises:
            StorageError: there is no such file or folder, or it is no database, or may not be read.
        """
        self.location = location
        self._queries = read_queries(Placeholders.SQLITE, *queries)
        self._closed = False
        self._may_write = False
        self._here = _PerThread()
        self._sessions: weakref.WeakSet[Session] = weakref.WeakSet()
        find_file(location.path, create=create)
        self._path = os.path.realpath(location.path)
        _databases.add(self)
        self._open()

    def _open(self) -> Session:
        """Open a connection for this thread, and keep it unless it may only be used for a single look."""
        if self._closed:
            raise StorageClosed(CLOSED)
        kept = immutable_state(self.location.path) is None
        connection = None
        try:
            connection = open_connection(self.location)
            enlarge_cache(connection)
            if self._may_write and kept:
                set_journal_mode(connection, self.location)
            session = Session(connection)
        except BaseException as error:
            if connection is not None:
                connection.close()
            if isinstance(error, sqlite3.Error):
                raise translate_error(error, self.location) from error
            raise
        self._sessions.add(session)
        if kept:
            self._here.session = session
        if self._closed:  # by another thread
            session.close()
            raise StorageClosed(CLOSED)
        return session

    def _session(self) -> Session:
        """Return this thread's session.

        Raises:
            StorageClosed: the storage is closed.
        """
        if self._closed:
            raise StorageClosed(CLOSED)
        return self._here.session or self._open()

    @override
    def enable_writes(self) -> None:
        self._may_write = True
        session = self._session()
        try:
            set_journal_mode(session.connection, self.location)
        except sqlite3.Error as error:
            raise translate_error(error, self.location) from error

    # Statements

    @override
    def fetch_all(self, query: str, values: Sequence[Any] = ()) -> list[Any]:
        session = self._here.session
        if session is None or session.token is not None:
            return self._read(lambda run: run(self._queries[query], values).fetchall())
        try:  # what `_read` does, without its cost: a tenth of a short read
            with session.lock:
                return session.execute(self._queries[query], values).fetchall()
        except _DRIVER_ERRORS as error:
            self._raise(error, session)

    @override
    def fetch_one(self, query: str, values: Sequence[Any] = ()) -> Any:
        session = self._here.session
        if session is None or session.token is not None:
            return self._read(lambda run: run(self._queries[query], values).fetchone())
        try:
            with session.lock:
                return session.execute(self._queries[query], values).fetchone()
        except _DRIVER_ERRORS as error:
            self._raise(error, session)

    def _read(self, read: Callable[[Callable[..., sqlite3.Cursor]], _Found]) -> _Found:
        session = self._here.session
        if session is None:
            return self._open_and_read(read)
        if session.token is not None:
            self._require_usable(session)
        try:
            with session.lock:
                return read(session.connection.execute)
        except _DRIVER_ERRORS as error:
            self._raise(error, session)

    def _open_and_read(self, read: Callable[[Callable[..., sqlite3.Cursor]], _Found]) -> _Found:
        """Read through a new connection, which is closed again if it takes the file for immutable.

        No process had the file open when that was decided. If one has opened and written it since, the result
        may be of two states, and is read again.
        """
        while True:
            before = immutable_state(self.location.path)
            session = self._open()
            if self._here.session is not None:
                return self._read(read)
            try:
                found = read(session.connection.execute)
            except _DRIVER_ERRORS as error:
                if before == immutable_state(self.location.path):
                    self._raise(error, session)
            else:
                if before == immutable_state(self.location.path):
                    return found
            finally:
                session.close()

    @override
    def execute(self, query: str, values: Sequence[Any] = ()) -> int:
        session = self._here.session or self._open()
        if (token := session.token) is not None and (transaction := session.open_transaction()) is not None:
            transaction.require_usable()
        else:
            token = session.token
        if token is None and writing.transactions:
            require_no_other_writer(self._path, session)
        try:
            with session.lock:
                if session.token is not token:  # rolled back by another thread: this would commit by itself
                    raise StorageError(FAILED)
                changed = session.execute(self._queries[query], values).rowcount
                if changed < 0:  # Python does not count what begins with WITH
                    (changed,) = session.execute("SELECT changes()").fetchone()
        except _DRIVER_ERRORS as error:
            self._raise(error, session)
        if token is not None and (session.token is not token or session.open_transaction() is None):
            raise StorageError(FAILED)  # it was rolled back while the statement ran
        return changed

    # Running it later gains nothing.
    execute_later = execute

    @override
    def execute_many(self, query: str, rows: Sequence[Sequence[Any]]) -> Sequence[int]:
        with self.transaction(Mode.WRITE):
            session = self._session()
            token = session.token
            try:
                with session.lock:
                    # What is kept has the transaction; what is only looked at cannot be written.
                    if session.token is not token or (token is None and self._here.session is session):
                        raise StorageError(FAILED)
                    session.connection.executemany(self._queries[query], rows)
                    (last,) = session.execute("SELECT last_insert_rowid()").fetchone()
            except _DRIVER_ERRORS as error:
                self._raise(error, session)
        # No other connection writes during it, so SQLite numbers the rows one by one.
        return range(last - len(rows) + 1, last + 1)

    @override
    def lock_players(self, users: Collection[int]) -> None:
        """Do nothing: one transaction writes at a time."""

    @override
    def fetch_together(self, calls: Sequence[tuple[str, Sequence[Any]]]) -> list[list[Any]]:
        session = self._here.session or self._open()
        if self._here.session is None:  # a single look is one state
            return self._read(
                lambda run: [run(self._queries[name], values).fetchall() for name, values in calls]
            )
        joined = session.open_transaction() is not None
        with contextlib.nullcontext() if joined else self.transaction(Mode.READ):
            return [self.fetch_all(name, values) for name, values in calls]

    def _require_usable(self, session: Session) -> None:
        transaction = session.open_transaction()
        if transaction is not None:
            transaction.require_usable()

    def _raise(self, error: Exception, session: Session) -> NoReturn:
        if session.token is not None:
            transaction = session.transaction()
            if transaction is not None:
                transaction.note_failure()
        raise translate_error(error, self.location) from error

    # Transactions

    @property
    @override
    def in_transaction(self) -> bool:
        transaction = self._session().open_transaction()
        if transaction is not None:
            transaction.owner.require()
        return transaction is not None

    @override
    def transaction(self, mode: Mode) -> contextlib.AbstractContextManager[None]:
        """Run a block as one transaction; inside another, as a part that can be rolled back by itself.

        One that writes takes the write lock at once: a block that reads first and then writes would otherwise
        find that another connection has written in between.
        """
        return Block(lambda: Transaction(self._session, mode, self.location, self._path))

    # The rest

    @override
    def decode_legacy(self, column: str, stored: Any) -> Any:  # SQLite keeps any type anywhere
        """Return what a column of `legacy_rows` holds; bytes as hexadecimal, infinities by their name."""
        if isinstance(stored, float) and math.isinf(stored):
            return "Infinity" if stored > 0 else "-Infinity"
        return stored.hex() if isinstance(stored, bytes) else stored

    @override
    def scrub_deleted(self) -> None:
        """Leave no trace of deleted rows on disk: neither in unused parts of pages nor in the log.

        Raises:
            DatabaseBusy: another connection read an older snapshot, or wrote, for longer than the timeout.
            DatabaseFull: no disk space is left for the new pages.
            DatabaseUnreadable: the file is damaged.
        """
        deadline = time.monotonic() + self.location.timeout
        try:
            from poker_therapist.sqlite.scrub import scrub, sync_log

            scrub(self.location)
            # SQLite does not wait while another connection moves the log's pages, so this waits.
            while self._read(lambda run: run("PRAGMA wal_checkpoint(TRUNCATE)").fetchone())[0]:
                if time.monotonic() > deadline:
                    raise DatabaseBusy("Another connection still reads an older snapshot.")
                time.sleep(0.005)
            sync_log(self._path)
        except StorageError as error:
            raise error.with_message(
                f"the rows are deleted, but traces are left in {self.location.path}; try again. {error}"
            ) from error

    @override
    def close(self) -> None:
        """Close every thread's connection, as soon as no thread is inside a statement."""
        self._closed = True
        for session in list(self._sessions):
            with session.lock:
                session.close()


_databases: weakref.WeakSet[SQLiteDatabase] = weakref.WeakSet()


def _close_at_exit() -> None:
    """Close the connections of the thread that ends the interpreter; what it still saves opens a new one.

    All other threads are daemons by now. One may be inside a statement, where closing its connection would
    crash the process, or inside a block, the rest of which must not go elsewhere. So theirs are left to them:
    a last transaction is whole or gone all the same, and the next connection to the file tidies up the log.
    """
    for database in list(_databases):
        session = database._here.session
        if session is not None:
            database._here.session = None
            session.roll_back(session.token)
            with session.lock:
                session.close()


atexit.register(_close_at_exit)

# SQLite forbids a forked child to use its parent's connections, and closing one there could take the
# write-ahead log from under the parent. So the child keeps them, untouched, for ever; they are held from
# before the fork, since in the child the threads that held them are gone.
_held_for_fork: list[tuple[_PerThread, list[Session]]] = []
_kept_for_ever: list[object] = []


def _before_fork() -> None:
    _held_for_fork.extend((database._here, list(database._sessions)) for database in list(_databases))


def _after_fork_in_child() -> None:
    for _, sessions in _held_for_fork:
        for session in sessions:
            session.close.detach()
    _kept_for_ever.extend(_held_for_fork)
    _held_for_fork.clear()
    reset_after_fork()
    for database in list(_databases):
        database._here = _PerThread()
        database._sessions = weakref.WeakSet()


if hasattr(os, "register_at_fork"):  # Windows has no fork
    os.register_at_fork(
        before=_before_fork, after_in_parent=_held_for_fork.clear, after_in_child=_after_fork_in_child
    )
