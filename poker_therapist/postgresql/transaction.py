"""A transaction on PostgreSQL, which sends what it saves many rows at a time."""

import contextlib
import hashlib
from collections.abc import Callable, Sequence
from itertools import count, groupby
from operator import itemgetter
from pathlib import Path
from typing import Any

import psycopg
from psycopg import pq

from poker_therapist.database import Mode
from poker_therapist.errors import StorageError
from poker_therapist.ownership import FAILED, Owner, Whole
from poker_therapist.postgresql.connect import is_lost
from poker_therapist.postgresql.pool import Connection, Lease
from poker_therapist.sqlfile import Placeholders, read_queries

_QUERIES = read_queries(Placeholders.POSTGRESQL, Path(__file__).with_name("transaction.sql"))
LOCK_PLAYERS = _QUERIES["lock_players"]
BEGIN_READ = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"
_BEGIN = {
    Mode.READ: BEGIN_READ,
    Mode.WRITE: "BEGIN",
    # A concurrent change is a conflict, not a lost update.
    Mode.READ_THEN_WRITE: "BEGIN ISOLATION LEVEL REPEATABLE READ",
}
# So many saves of a transaction are sent together at most; with more it would be hardly faster. A long value
# is not kept, so that a transaction stays small in memory.
_MOST_PENDING = 500
_LONG = 64 << 10


class Transaction(Whole):
    """A transaction, the connection that it keeps, and the saves that are not sent yet.

    Attributes:
        owner: the thread and task that began it.
        begun: whether the server knows of it: it begins with its first statement.
        pending: the saves that are not sent yet.
        is_whole: false also while it is unknown whether what was pending has arrived.
        is_over: whether nothing may be done in it: before it has begun, and as soon as its end has.
        names: numbers for the savepoints of its parts.
        holder: as of the part that is the whole.
    """

    holder: Callable[[], object]

    def __init__(self, lease: Lease, mode: Mode) -> None:
        self.owner = Owner()
        self._lease = lease
        self.begun = False
        self.pending: list[tuple[str, Sequence[Any]]] = []
        self.is_whole = True
        self.is_over = True
        self.names = count(1)
        self._mode = mode
        self._locked = False

    def acquire(self) -> None:
        """Take a connection from the pool."""
        self._lease.acquire()
        self.is_over = False

    @property
    def connection(self) -> Connection | None:
        """The connection; None before it is acquired and after it is released."""
        return self._lease.connection

    @property
    def live(self) -> Connection:
        """The connection.

        Raises:
            StorageError: the transaction has ended.
        """
        if self.connection is None:
            raise StorageError(FAILED)
        return self.connection

    def begin(self, player: Any) -> None:
        """Begin the transaction with its first statement, which names the player of its rows.

        Transactions that are about one player wait for each other, as all writers do on SQLite, so that none
        of them fails for having read what another was about to change.
        """
        locks = self._mode is Mode.READ_THEN_WRITE
        if locks and self.live.is_pooled:
            self._begin_pooled(lock_key(player))
        else:
            if locks:
                self._locked = True  # or perhaps, if Ctrl-C comes now
                self.live.kept_cursor.execute(_QUERIES["lock_player"], (lock_key(player),), prepare=True)
            self.live.begin(_BEGIN[self._mode])
        self.begun = True

    def _begin_pooled(self, key: int) -> None:
        """Begin a transaction that holds a player's lock and has a snapshot from when it got that.

        A transaction that waited for the lock would have its snapshot from before; so one waits, and another
        then tries. Of two that try at the same moment the later may see too little: it is told so, by
        TransactionConflict, when it writes.
        """
        cursor = self.live.kept_cursor
        while True:
            self.live.begin(_BEGIN[self._mode], sees=False)
            is_locked, self.live.served_by = cursor.execute(_QUERIES["try_player"], (key,)).fetchall()[0]
            if is_locked:
                return
            cursor.execute("ROLLBACK")
            self.live.begin("BEGIN")
            cursor.execute(_QUERIES["wait_for_player"], (key,))
            cursor.execute("COMMIT")

    @property
    def failed(self) -> bool:
        """Whether it can only be rolled back."""
        status = self.live.pgconn.transaction_status
        return not self.is_whole or status == pq.TransactionStatus.INERROR

    def require_usable(self) -> None:
        """Refuse another task than the owner, and a transaction that can only be rolled back.

        Raises:
            StorageError: it is refused; nothing was done.
        """
        self.owner.require()
        if self.failed:
            raise StorageError(FAILED)

    def add(self, sql: str, values: Sequence[Any]) -> bool:
        """Keep a save for later; return whether so much is pending that it should be sent."""
        self.pending.append((sql, values))
        return len(self.pending) >= _MOST_PENDING or any(
            isinstance(value, str) and len(value) > _LONG for value in values
        )

    def send(self) -> None:
        """Send what is pending, in its order and in one round trip."""
        if self.failed:
            raise StorageError(FAILED)
        if not self.pending:
            return
        self.is_whole = False
        rows, self.pending = self.pending, []
        # If the server has ended the session, only a statement by itself learns why.
        if len(rows) == 1 or self.live.has_unread_input():
            for sql, values in rows:
                self.live.kept_cursor.execute(sql, values)
        else:
            self._send_together(rows)
        self.is_whole = True

    def _send_together(self, rows: list[tuple[str, Sequence[Any]]]) -> None:
        trouble: BaseException | None = None
        try:
            with self.live.pipeline():
                # psycopg logs, as a warning, what goes wrong after an error that has left the pipeline.
                try:
                    for sql, run in groupby(rows, itemgetter(0)):
                        self.live.kept_cursor.executemany(sql, [values for _, values in run])
                except BaseException as error:
                    trouble = error
        except Exception as error:  # an IndexError, too, where a signal has cut it short
            trouble = trouble or error
        if trouble is not None:
            raise trouble

    def finish(self, statements: str) -> None:
        """End a part, or all of it; what is still pending is dropped."""
        self.is_whole = False
        self.pending.clear()
        self.live.kept_cursor.execute(statements)
        self.is_whole = True

    def end(self, how: str) -> None:
        """Commit or roll back, and let go of the player, in one round trip."""
        statements = [how] * self.begun + ["SELECT pg_advisory_unlock_all()"] * self._locked
        if statements and not is_lost(self.live):
            self.finish("; ".join(statements))
        self.begun = self._locked = False

    def roll_back(self) -> None:
        """Roll back and release the connection; where that fails the server rolls back, for it is closed."""
        if self.connection is not None:
            with contextlib.suppress(psycopg.Error):
                self.end("ROLLBACK")
            self.release()

    def release(self) -> None:
        """Give the connection back to the pool."""
        self._lease.release()

    def end_elsewhere(self) -> None:
        """Close the connection from another thread, as soon as its own is not inside a statement.

        Its own thread may be about to send it the next one, so no other may get the connection.
        """
        self.is_over = True
        connection = self._lease.connection
        if connection is not None:
            with connection.lock:
                connection.close()
        self._lease.discard()

    def abandon(self) -> None:
        """Let nothing more be done in it, and roll it back."""
        self.is_over = True
        try:
            self.roll_back()
        finally:
            if self._lease.connection is not None or not self._lease.is_over:
                self._lease.discard()


def lock_key(player: Any) -> int:
    """Return the key of a player's lock, unlikely to be any other's."""
    digest = hashlib.blake2b(f"poker-therapist player {player}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, signed=True)
