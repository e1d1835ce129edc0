"""Connections to an SQLite file.

Each thread has a connection of its own, kept until the thread or the database ends, and a forked child starts
without any. What the driver raises becomes one of this package's errors.
"""

import contextlib
import os
import sqlite3
import threading
import time
import weakref
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn

from poker_therapist.database import Location
from poker_therapist.errors import (
    DatabaseBusy,
    DatabaseFull,
    DatabaseNotFound,
    DatabaseReadOnly,
    DatabaseUnreadable,
    InvalidInput,
    PokerTherapistError,
    SchemaMissing,
    StorageClosed,
    StorageError,
)


class _Held:
    """A connection, closed when its thread's storage goes or when the database is closed."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self.close = weakref.finalize(self, connection.close)


class _PerThread(threading.local):
    connection: sqlite3.Connection | None = None
    held: _Held | None = None


class SQLiteDatabase:
    """Connections to one SQLite file, and the few ways in which the storage uses them."""

    def __init__(self, location: Location, *, create: bool) -> None:
        """Check that the file can be opened; make an empty one, for its owner alone, if `create`.

        Raises:
            StorageError: there is no such file or folder, or it is no database, or may not be read.
        """
        self.location = location
        self._closed = False
        self._in_use = False
        self._forget_connections()
        find_file(location.path, create=create)
        _databases.add(self)
        self._connect()

    def _forget_connections(self) -> None:
        self._here = _PerThread()
        self._all: weakref.WeakSet[_Held] = weakref.WeakSet()
        self._opening = threading.Lock()

    def _connect(self) -> sqlite3.Connection:
        """Open this thread's connection."""
        if self._closed:
            raise StorageClosed(_CLOSED)
        try:
            connection = open_connection(self.location)
            if self._in_use:
                _use_write_ahead_log(connection, self.location.timeout)
        except sqlite3.Error as error:
            self._raise(error)
        with self._opening:
            self._here.held = _Held(connection)
            self._all.add(self._here.held)
        self._here.connection = connection
        return connection

    def take_into_use(self) -> None:
        """Let this and all later connections write; until then looking at the file changes no byte of it."""
        self._in_use = True
        try:
            _use_write_ahead_log(self._here.connection or self._connect(), self.location.timeout)
        except sqlite3.Error as error:
            self._raise(error)

    def rows(self, sql: str, values: Sequence[Any] = ()) -> list[Any]:
        """Return all rows of a query."""
        connection = self._here.connection or self._connect()
        try:
            return connection.execute(sql, values).fetchall()
        except _DRIVER_ERRORS as error:
            self._raise(error)

    def row(self, sql: str, values: Sequence[Any] = ()) -> Any:
        """Return the first row of a query, None if there is none."""
        connection = self._here.connection or self._connect()
        try:
            return connection.execute(sql, values).fetchone()
        except _DRIVER_ERRORS as error:
            self._raise(error)

    def write(self, sql: str, values: Sequence[Any] = ()) -> int:
        """Run a statement, committed at once outside a transaction; return how many rows it changed."""
        connection = self._here.connection or self._connect()
        try:
            return connection.execute(sql, values).rowcount
        except _DRIVER_ERRORS as error:
            self._raise(error)

    @property
    def in_transaction(self) -> bool:
        """Whether this thread is inside a transaction."""
        return (self._here.connection or self._connect()).in_transaction

    @contextlib.contextmanager
    def transaction(self, mode: str = "IMMEDIATE") -> Iterator[None]:
        """Run a block as one transaction, or, inside another, as a part that can fail by itself.

        IMMEDIATE takes the write lock at once: a block that reads first and then writes would otherwise find
        that somebody else has written in between. DEFERRED is for reading one moment's state.
        """
        connection = self._here.connection or self._connect()
        begin, commit, rollback = (
            ("SAVEPOINT block", "RELEASE block", "ROLLBACK TO block")
            if connection.in_transaction
            else (f"BEGIN {mode}", "COMMIT", "ROLLBACK")
        )
        self.write(begin)
        try:
            yield
            self.write(commit)
        except BaseException:
            # A full disk makes SQLite roll back by itself; a closed connection has nothing left to undo.
            with contextlib.suppress(sqlite3.Error):
                if connection.in_transaction:
                    connection.execute(rollback)
                    if begin == "SAVEPOINT block":
                        connection.execute(commit)
            raise

    def erase_traces(self) -> None:
        """Empty the write-ahead log, so that no older state of a deleted row is left on disk.

        Raises:
            DatabaseBusy: another connection was reading an older state for longer than the timeout.
        """
        busy, _, _ = self.row("PRAGMA wal_checkpoint(TRUNCATE)")
        if busy:
            raise DatabaseBusy(
                f"what was deleted is still in {self.location.path}-wal, which another connection reads: "
                "do it again when that has finished"
            )

    def close(self) -> None:
        """Close every thread's connection; a second time does nothing."""
        self._closed = True
        with self._opening:
            for held in list(self._all):
                held.close()

    def _raise(self, error: Exception) -> NoReturn:
        raise explain(error, self.location) from error


_DRIVER_ERRORS = (sqlite3.Error, OverflowError, UnicodeEncodeError)

# What a fork leaves behind. SQLite forbids a child to use its parent's connections, and closing one there
# could take the write-ahead log from under the parent, so the child keeps them, untouched, for ever.
_databases: weakref.WeakSet[SQLiteDatabase] = weakref.WeakSet()
_left_by_fork: list[object] = []


def _after_fork() -> None:
    for database in list(_databases):
        _left_by_fork.append((database._here, list(database._all)))
        for held in database._all:
            held.close.detach()
        database._forget_connections()


os.register_at_fork(after_in_child=_after_fork)


def find_file(path: Path, *, create: bool) -> None:
    """Make sure that there is a file at `path`, an empty one for its owner alone if `create`."""
    if path.is_dir():
        raise DatabaseNotFound(f"{path} is a folder: name the file of the database in it")
    if not path.parent.is_dir():
        raise DatabaseNotFound(f"there is no folder {path.parent}: make it, or correct the path {path}")
    if path.exists():
        return
    if not create:
        raise DatabaseNotFound(
            f"there is no database {path}: correct the path, or make one with `yoyo apply`"
        )
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    except FileExistsError:  # another process was quicker
        pass
    except OSError as error:
        raise DatabaseReadOnly(
            f"cannot make {path} ({error.strerror}): may you write to its folder?"
        ) from error


def open_connection(location: Location) -> sqlite3.Connection:
    """Return a new connection to an existing file, with the settings of every connection of ours.

    Raises:
        sqlite3.Error: whatever the driver says; `explain` turns it into one of our errors.
    """
    connection = sqlite3.connect(
        location.path.as_uri().replace("file://", "file:", 1) + "?mode=rw",
        uri=True,
        timeout=location.timeout,
        isolation_level=None,
        check_same_thread=False,  # close() comes from another thread; otherwise each has its own
    )
    try:
        connection.execute(f"PRAGMA synchronous = {location.synchronous}")
        connection.execute("PRAGMA foreign_keys = ON")
        connection.execute("PRAGMA secure_delete = ON")
    except BaseException:
        connection.close()
        raise
    return connection


def _use_write_ahead_log(connection: sqlite3.Connection, timeout: float) -> None:
    """Let readers and a writer work at once; kept in the file, so only the first connection writes.

    SQLite does not wait for the lock here as it does elsewhere: of many starters on a new file some fail at
    once, so this waits for them. A database that may not be written stays as it is.
    """
    deadline = time.monotonic() + timeout
    while True:
        try:
            (mode,) = connection.execute("PRAGMA journal_mode").fetchone()
            if mode != "wal":
                connection.execute("PRAGMA journal_mode = WAL").fetchone()
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode == sqlite3.SQLITE_READONLY:
                return
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
            time.sleep(0.005)
        else:
            return


# By SQLite's primary result code; https://sqlite.org/rescode.html
_EXPLANATIONS: dict[int, tuple[type[PokerTherapistError], str]] = {
    sqlite3.SQLITE_BUSY: (
        DatabaseBusy,
        "{path} stayed locked for {timeout:g} seconds: find the program that keeps a transaction open",
    ),
    sqlite3.SQLITE_READONLY: (
        DatabaseReadOnly,
        "{path} may not be written: correct the rights of the file and its folder",
    ),
    sqlite3.SQLITE_FULL: (
        DatabaseFull,
        "there is no room left for {path}: free some; nothing was changed",
    ),
    sqlite3.SQLITE_NOTADB: (
        DatabaseUnreadable,
        "{path} is not an SQLite database: correct the path",
    ),
    sqlite3.SQLITE_CORRUPT: (
        DatabaseUnreadable,
        "{path} is damaged ({reason}): restore a backup",
    ),
    sqlite3.SQLITE_CANTOPEN: (
        DatabaseNotFound,
        "cannot open {path} ({reason}): check the path and the rights of its folder",
    ),
    sqlite3.SQLITE_CONSTRAINT: (
        InvalidInput,
        "the database refused a value ({reason}): correct it",
    ),
    sqlite3.SQLITE_TOOBIG: (
        InvalidInput,
        "a value is larger than a database can hold ({reason}): save it in parts",
    ),
}
_CLOSED = "the storage is closed: open it again with get_pattern_storage()"


def explain(error: Exception, location: Location) -> PokerTherapistError:
    """Return our own error for one that the driver raised about the database at `location`."""
    reason, code = str(error), getattr(error, "sqlite_errorcode", 0) & 0xFF
    if code in _EXPLANATIONS:
        kind, sentence = _EXPLANATIONS[code]
    elif not isinstance(error, sqlite3.Error) or isinstance(error, sqlite3.DataError):
        kind, sentence = InvalidInput, "a value cannot be stored ({reason}): correct it"
    elif "closed database" in reason:
        kind, sentence = StorageClosed, _CLOSED
    elif "no such table" in reason or "no such column" in reason:
        kind, sentence = (
            SchemaMissing,
            "{path} lacks a part of the schema ({reason}): bring it up to date with `yoyo apply`",
        )
    else:
        kind, sentence = StorageError, "{path}: {reason}"
    return kind(sentence.format(path=location.path, reason=reason, timeout=location.timeout))
