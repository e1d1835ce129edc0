"""One thread's connection to an SQLite file, and the transaction that is open on it.

A transaction can end in any way: its block raises, a signal arrives while BEGIN waits, a generator that holds
it is dropped and the garbage collector of another thread finishes it. So the session knows its transaction by
a weak reference and a token. One without references is rolled back, at once or at the session's next use.
"""

import contextlib
import itertools
import sqlite3
import threading
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

from poker_therapist.compat import override
from poker_therapist.database import Mode
from poker_therapist.errors import StorageError
from poker_therapist.location import SQLiteLocation
from poker_therapist.ownership import FAILED, Owner, Part, Whole, left_elsewhere
from poker_therapist.sqlite.connect import immutable_state, translating_errors


class Session:
    """A connection that one thread uses; others use it only to close it or to roll it back.

    Closing a connection while a thread is inside one of its statements would crash the process, so each use
    holds the lock. It is reentrant: a finalizer may run in the middle of a statement of the same thread.

    Attributes:
        connection: the connection.
        execute: its method, kept because looking it up is a part of a short read.
        lock: held while the connection is used.
        token: identifies the open transaction; None if there is none.
        transaction: the open transaction, while a reference to it exists.
        close: closes the connection; called when the session is dropped.
    """

    __slots__ = ("__weakref__", "close", "connection", "execute", "lock", "token", "transaction")

    def __init__(self, connection: sqlite3.Connection) -> None:
        self.connection = connection
        self.execute = connection.execute
        self.lock = threading.RLock()
        self.token: object | None = None
        self.transaction: Callable[[], Transaction | None] = lambda: None
        self.close = weakref.finalize(self, connection.close)
        # While the interpreter ends, a daemon thread may be inside a statement: see `connections`.
        self.close.atexit = False

    def open_transaction(self) -> "Transaction | None":
        """Return the open transaction; roll back one without references, or whose block was left, first."""
        if self.token is None:
            return None
        transaction = self.transaction()
        if transaction is None or transaction.is_over or transaction.holder() is None:
            self.roll_back(self.token)
            return None
        if transaction.innermost is not None:
            transaction.require_parts()
        return transaction

    def roll_back(self, token: object, timeout: float = -1) -> None:
        """Roll back the transaction with a token, if it is still the open one.

        Args:
            token: which transaction.
            timeout: how many seconds to wait for a thread that is inside a statement, -1 for as long as it
                takes; that thread then sees that its transaction has no references, and rolls it back.
        """
        if timeout < 0 or _is_owned(self.lock):
            with self.lock:
                self._roll_back(token)
            return
        try:
            if self.lock.acquire(timeout=timeout):
                self._roll_back(token)
                self.lock.release()
        except BaseException:  # also a signal that arrived right after the lock was acquired
            if _is_owned(self.lock):
                self.lock.release()
            raise

    def _roll_back(self, token: object) -> None:
        if self.token is token:
            with contextlib.suppress(sqlite3.Error):  # closed, which rolls back too
                if self.connection.in_transaction:
                    self.connection.execute("ROLLBACK")
            self.token = None


def _is_owned(lock: Any) -> bool:
    """Return whether this thread holds a reentrant lock; `threading.Condition` asks the same way."""
    return bool(lock._is_owned())


class Transaction(Whole, Part):
    """A transaction; inside another one of the same owner, a part of it that can be rolled back by itself."""

    # Also where a signal arrives in __init__.
    _session: Session | None = None
    _outer: "Transaction | None" = None

    def __init__(
        self, acquire: Callable[[], Session], mode: Mode, location: SQLiteLocation, path: str
    ) -> None:
        """Begin nothing yet.

        Args:
            acquire: returns the session of the thread that calls it.
            mode: what the transaction is for.
            location: the database, for messages.
            path: the file, the same for every name of it.
        """
        self._acquire = acquire
        self._mode = mode
        self._location = location
        self._path = path
        self._token = object()
        self._savepoint = ""
        self._names = itertools.count(1)
        self.owner = Owner()
        # False while it is unknown whether a part has ended, and after SQLite has rolled back by itself.
        self.is_whole = True
        # Whether nothing may be done in it: before it has begun, and as soon as its end has.
        self.is_over = True

    @override
    def begin(self) -> None:
        with translating_errors(self._location):
            self._begin()

    def _begin(self) -> None:
        self.owner = Owner()
        session = self._acquire()
        outer = session.open_transaction()
        if outer is not None:
            outer.require_usable()
            self._outer = outer
            self._session = session
            savepoint = f"part_{next(outer._names)}"
            outer.enter_part(self)
            with session.lock:
                if session.token is not outer._token:  # rolled back by another thread: this would begin one
                    raise StorageError(FAILED)
                session.connection.execute(f"SAVEPOINT {savepoint}")
            self._savepoint = savepoint
            self.is_over = False
            return
        if self._mode is not Mode.READ:
            require_no_other_writer(self._path)
            writing.transactions[self._path] = weakref.ref(self)
        session.transaction = weakref.ref(self)
        session.token = self._token
        self._session = session
        with session.lock:
            session.connection.execute("BEGIN DEFERRED" if self._mode is Mode.READ else "BEGIN IMMEDIATE")
        self.is_over = False

    def require_usable(self) -> None:
        """Refuse another task than the owner, and a transaction that can only be rolled back.

        Raises:
            StorageError: it is refused; nothing was done.
        """
        self.owner.require()
        if not self.is_whole:
            raise StorageError(FAILED)

    def note_failure(self) -> None:
        """Note that a statement failed: after some errors, such as a full disk, SQLite has rolled back."""
        with contextlib.suppress(sqlite3.Error):
            if self._session is not None and self._session.connection.in_transaction:
                return
        self.is_whole = False

    @property
    def is_open(self) -> bool:
        """Whether it has begun and not ended."""
        return self._session is not None and self._session.token is self._token

    @override
    def end(self, error: BaseException | None) -> None:
        self.is_over = True
        if self.owner.was_forked():  # a child may leave the block, but not end it
            return
        if not self.owner.is_here():
            (self._outer or self).abandon()
            if error is None:
                raise left_elsewhere()
            return
        if error is not None:
            self._roll_back()
            return
        with translating_errors(self._location):
            self._commit()

    @override
    def abandon(self) -> None:
        self.is_over = True
        if not self.owner.was_forked():
            self._roll_back()

    def _commit(self) -> None:
        outer, session = self._outer or self, self._session
        outer.require_parts()
        if not outer.is_whole or session is None or session.token is not outer._token:
            raise StorageError(FAILED)
        with session.lock:
            if self._outer is None:
                session.connection.execute("COMMIT")
                session.token = None
            else:
                outer.is_whole = False
                session.connection.execute(f"RELEASE {self._savepoint}")
                outer.leave_part(self, is_undone=False)
                outer.is_whole = True
        if self._outer is None:
            writing.transactions.pop(self._path, None)

    def _roll_back(self) -> None:
        session, outer = self._session, self._outer
        if outer is None:
            found = writing.transactions.get(self._path)
            if found is not None and found() is self:
                del writing.transactions[self._path]
            if session is not None:
                session.roll_back(self._token)
            return
        if session is None or session.token is not outer._token:
            return
        if not self._savepoint:
            outer.leave_part(self, is_undone=True)
            return
        outer.is_whole = False
        with contextlib.suppress(sqlite3.Error), session.lock:
            if session.connection.in_transaction:
                session.connection.execute(f"ROLLBACK TO {self._savepoint}")
                session.connection.execute(f"RELEASE {self._savepoint}")
                outer.leave_part(self, is_undone=True)
                outer.is_whole = True

    def __del__(self) -> None:
        """Roll back a transaction without references, whichever thread drops it."""
        session, outer = self._session, self._outer
        if session is None or self.owner.was_forked() or session.token is not (outer or self)._token:
            return
        if outer is None:
            session.roll_back(self._token, timeout=0)
        elif not self.is_over:
            outer.is_whole = False
            if self.owner.is_here():
                self.abandon()


class _Writing(threading.local):
    """The transactions that write, begun by this thread, by the file that they are in."""

    def __init__(self) -> None:
        self.transactions: dict[str, weakref.ref[Transaction]] = {}


writing = _Writing()


def require_no_other_writer(path: str, session: Session | None = None) -> None:
    """Refuse to wait for a lock that this thread itself holds, through another storage.

    Args:
        path: the file that is to be written.
        session: the session that is to write, whose own transaction is no other one.

    Raises:
        StorageError: so it is; nothing was done.
    """
    found = writing.transactions.get(path)
    other = found() if found else None
    if other is None or not other.is_open or other._session is session:
        return
    if other.is_over:
        other.abandon()
        return
    if immutable_state(Path(path)) is not None:  # nothing is locked: each look is a connection of its own
        return
    raise StorageError(
        f"this thread has an open transaction() in {path} of another storage, and would wait for itself: "
        "end that block first, or use its storage here too"
    )


def reset_after_fork() -> None:
    """Let a forked child begin without the transactions of its parent."""
    writing.transactions = {}
