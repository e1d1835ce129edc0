"""The connections of the storage to an SQLite file.

Each thread has a connection of its own, kept until the thread or the database ends, and a forked child starts
without any. What the driver raises becomes one of this package's errors.
"""

import contextlib
import math
import os
import sqlite3
import threading
import time
import weakref
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn

from poker_therapist.compat import override
from poker_therapist.database import CLOSED, Database, Mode
from poker_therapist.errors import DatabaseBusy, StorageClosed, StorageError
from poker_therapist.location import SQLiteLocation
from poker_therapist.sqlfile import Placeholders, read_queries
from poker_therapist.sqlite.connect import (
    enlarge_cache,
    find_file,
    open_connection,
    translate_error,
    use_write_ahead_log,
)


class _Held:
    """A connection, closed when its thread ends; whoever closes it earlier takes the lock.

    For closing a connection while a thread is inside one of its statements would crash the process.
    """

    def __init__(self, connection: sqlite3.Connection) -> None:
        self.connection = connection
        self.lock = threading.Lock()
        self.close = weakref.finalize(self, connection.close)


class _PerThread(threading.local):
    connection: sqlite3.Connection | None = None
    held: _Held
    lock: threading.Lock
    in_block = False
    undone = False


class SQLiteDatabase(Database):
    """An open SQLite file."""

    location: SQLiteLocation

    def __init__(self, location: SQLiteLocation, queries: Sequence[Path], *, create: bool) -> None:
        """Check that the file can be opened; create an empty one, readable by its owner alone, if `create`.

        Raises:
            StorageError: there is no such file or folder, or it is no database, or may not be read.
        """
        self.location = location
        self._queries = read_queries(Placeholders.SQLITE, *queries)
        self._closed = False
        self._in_use = False
        self._here = _PerThread()
        self._all: weakref.WeakSet[_Held] = weakref.WeakSet()
        find_file(location.path, create=create)
        _databases.add(self)
        self._connect()

    def _connect(self) -> sqlite3.Connection:
        """Open this thread's connection."""
        if self._closed:
            raise StorageClosed(CLOSED)
        if self._here.undone:
            raise StorageError("the transaction failed and was undone: leave its block, then run it again")
        try:
            connection = open_connection(self.location)
            enlarge_cache(connection)
            if self._in_use:
                use_write_ahead_log(connection, self.location.timeout)
        except sqlite3.Error as error:
            self._raise(error)
        here = self._here
        here.held = _Held(connection)
        here.lock = here.held.lock
        here.connection = connection
        self._all.add(here.held)
        if self._closed:  # by another thread, meanwhile
            here.held.close()
            raise StorageClosed(CLOSED)
        return connection

    @override
    def enable_writes(self) -> None:
        self._in_use = True
        try:
            use_write_ahead_log(self._here.connection or self._connect(), self.location.timeout)
        except sqlite3.Error as error:
            self._raise(error)

    @override
    def fetch_all(self, query: str, values: Sequence[Any] = ()) -> list[Any]:
        connection = self._here.connection or self._connect()
        try:
            with self._here.lock:
                return connection.execute(self._queries[query], values).fetchall()
        except _DRIVER_ERRORS as error:
            self._raise(error)

    @override
    def fetch_one(self, query: str, values: Sequence[Any] = ()) -> Any:
        connection = self._here.connection or self._connect()
        try:
            with self._here.lock:
                return connection.execute(self._queries[query], values).fetchone()
        except _DRIVER_ERRORS as error:
            self._raise(error)

    @override
    def execute(self, query: str, values: Sequence[Any] = ()) -> int:
        connection = self._here.connection or self._connect()
        try:
            with self._here.lock:
                return connection.execute(self._queries[query], values).rowcount
        except _DRIVER_ERRORS as error:
            self._raise(error)

    # Running it later gains nothing.
    execute_later = execute

    def _run(self, statement: str) -> Any:
        """Run one of the statements below, and return its first row."""
        connection = self._here.connection or self._connect()
        try:
            with self._here.lock:
                return connection.execute(statement).fetchone()
        except _DRIVER_ERRORS as error:
            self._raise(error)

    @property
    @override
    def in_transaction(self) -> bool:
        return self._open_connection().in_transaction

    def _open_connection(self) -> sqlite3.Connection:
        """Return this thread's connection; raise StorageClosed if somebody has closed it."""
        return (not self._closed and self._here.connection) or self._connect()

    @override
    @contextlib.contextmanager
    def transaction(self, mode: Mode) -> Iterator[None]:
        """Run a block as one transaction; inside another, as a part that can be rolled back by itself.

        One that writes takes the write lock at once: a block that reads first and then writes would otherwise
        find that somebody else has written in between.
        """
        here, process = self._here, os.getpid()
        connection = self._open_connection()
        outermost = not connection.in_transaction
        begin, commit, rollback = (
            ("BEGIN DEFERRED" if mode is Mode.READ else "BEGIN IMMEDIATE", "COMMIT", "ROLLBACK")
            if outermost
            else ("SAVEPOINT block", "RELEASE block", "ROLLBACK TO block")
        )
        self._run(begin)
        here.in_block = True
        try:
            yield
            if process == os.getpid():  # a forked child may leave the block, but not end it
                self._run(commit)
        except BaseException:
            if process == os.getpid():
                with here.lock:  # nobody closes it between the question and the answer
                    if _is_in_transaction(connection):
                        connection.execute(rollback)
                        if not outermost:
                            connection.execute(commit)
            raise
        finally:
            if outermost and process == os.getpid():
                here.in_block = here.undone = False
                here.connection = connection

    @override
    def decode_legacy(self, column: str, stored: Any) -> Any:
        """Return what a column of `legacy_rows` holds; bytes as hexadecimal, infinities by their name."""
        if isinstance(stored, float) and math.isinf(stored):
            return "Infinity" if stored > 0 else "-Infinity"
        return stored.hex() if isinstance(stored, bytes) else stored

    @override
    def scrub_deleted(self) -> None:
        """Leave no trace of deleted rows on disk: neither in unused parts of pages nor in the log.

        `secure_delete` overwrites a deleted row, but not what was left of it when a page was split, or by a
        program that deleted without it; only VACUUM, which writes every page anew, reaches all of that.

        Raises:
            DatabaseBusy: another connection read an older state, or wrote, for longer than the timeout.
            DatabaseFull: there is no room for the new pages.
        """
        deadline = time.monotonic() + self.location.timeout
        try:
            self._run("VACUUM")
            # SQLite does not wait while another connection moves the log's pages, so this waits.
            while self._run("PRAGMA wal_checkpoint(TRUNCATE)")[0]:
                if time.monotonic() > deadline:
                    self._give_up()
                time.sleep(0.005)
        except StorageError as error:
            raise type(error)(
                f"the rows are deleted, but traces are left in {self.location.path}; do it again. {error}"
            ) from error

    def _give_up(self) -> NoReturn:
        raise DatabaseBusy("Another connection goes on reading an older state.")

    @override
    def close(self) -> None:
        """Close every thread's connection, as soon as no thread is inside a statement."""
        self._closed = True
        for held in list(self._all):
            with held.lock:
                held.close()

    def _raise(self, error: Exception) -> NoReturn:
        here = self._here
        if here.in_block and here.connection and not _is_in_transaction(here.connection):
            # A full disk makes SQLite undo a transaction by itself. What follows in the block must not be
            # committed alone, so it finds no connection.
            here.undone, here.connection = True, None
        raise translate_error(error, self.location) from error


_DRIVER_ERRORS = (sqlite3.Error, OverflowError, UnicodeEncodeError)


def _is_in_transaction(connection: sqlite3.Connection) -> bool:
    try:
        return connection.in_transaction
    except sqlite3.ProgrammingError:  # it has been closed, and what it had not committed is undone
        return False


# SQLite forbids a forked child to use its parent's connections, and closing one there could take the
# write-ahead log from under the parent. So the child keeps them, untouched, for ever; they are held from
# before the fork, since in the child the threads that held them are gone.
_databases: weakref.WeakSet[SQLiteDatabase] = weakref.WeakSet()
_held_for_fork: list[tuple[_PerThread, list[_Held]]] = []
_kept_for_ever: list[object] = []


def _before_fork() -> None:
    _held_for_fork.extend((database._here, list(database._all)) for database in list(_databases))


def _after_fork_in_child() -> None:
    for _, all_held in _held_for_fork:
        for held in all_held:
            held.close.detach()
    _kept_for_ever.extend(_held_for_fork)
    _held_for_fork.clear()
    for database in list(_databases):
        database._here = _PerThread()
        database._all = weakref.WeakSet()


os.register_at_fork(
    before=_before_fork, after_in_parent=_held_for_fork.clear, after_in_child=_after_fork_in_child
)
