"""A transaction on PostgreSQL, which sends what it saves many rows at a time."""

import hashlib
from collections.abc import Sequence
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any

import psycopg
from psycopg import pq

from poker_therapist.database import Mode
from poker_therapist.errors import StorageError
from poker_therapist.postgresql.connect import is_lost
from poker_therapist.postgresql.pool import Connection
from poker_therapist.sqlfile import Placeholders, read_queries

_QUERIES = read_queries(Placeholders.POSTGRESQL, Path(__file__).with_name("transaction.sql"))
_BEGIN = {
    Mode.READ: "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY",
    Mode.WRITE: "BEGIN",
    # What somebody else changes meanwhile is a conflict, not a lost update.
    Mode.READ_THEN_WRITE: "BEGIN ISOLATION LEVEL REPEATABLE READ",
}
# So many saves of a block are sent together at most; with more it would be hardly faster. A long value is
# not kept, so that a block stays small in memory.
_MOST_PENDING = 500
_LONG = 64 << 10


class Transaction:
    """A transaction, the connection that it keeps, and the saves that are not sent yet."""

    def __init__(self, connection: Connection, mode: Mode) -> None:
        self.connection = connection
        self.mode = mode
        self.locked = False
        self.begun = False
        self.pending: list[tuple[str, Sequence[Any]]] = []
        # Not while it is unknown whether what was pending has arrived, or whether a part has ended.
        self.whole = True
        self.depth = 0

    def begin(self, player: Any) -> None:
        """Begin the transaction with its first statement, which says whose rows it is about.

        Blocks that are about one player wait for each other, as all writers do on SQLite, so that none of
        them fails for having read what another was about to change.
        """
        cursor = self.connection.kept_cursor
        if self.mode is Mode.READ_THEN_WRITE:
            self.locked = True  # or perhaps, if Ctrl-C comes now
            cursor.execute(_QUERIES["lock_player"], (_lock_key(player),), prepare=True)
        cursor.execute(_BEGIN[self.mode])
        self.begun = True

    @property
    def failed(self) -> bool:
        """Whether it can only be undone."""
        return not self.whole or self.connection.pgconn.transaction_status == pq.TransactionStatus.INERROR

    def add(self, sql: str, values: Sequence[Any]) -> bool:
        """Keep a save for later; return whether so much is pending that it should be sent."""
        self.pending.append((sql, values))
        return len(self.pending) >= _MOST_PENDING or any(
            isinstance(value, str) and len(value) > _LONG for value in values
        )

    def send(self) -> None:
        """Send what is pending, in its order and in one round trip."""
        if self.failed:
            raise StorageError("the transaction failed and was undone: leave its block, then run it again")
        if not self.pending:
            return
        self.whole = False
        rows, self.pending = self.pending, []
        # If the server has ended the session meanwhile, only a statement by itself hears why.
        if len(rows) == 1 or self.connection.has_unread_input():
            for sql, values in rows:
                self.connection.kept_cursor.execute(sql, values)
        else:
            self._send_together(rows)
        self.whole = True

    def _send_together(self, rows: list[tuple[str, Sequence[Any]]]) -> None:
        trouble: BaseException | None = None
        try:
            with self.connection.pipeline():
                # psycopg logs, as a warning, what goes wrong after an error that has left the pipeline.
                try:
                    for sql, run in groupby(rows, itemgetter(0)):
                        self.connection.kept_cursor.executemany(sql, [values for _, values in run])
                except BaseException as error:
                    trouble = error
        except psycopg.Error as error:
            trouble = trouble or error
        if trouble is not None:
            raise trouble

    def settle(self, statements: str) -> None:
        """End a part, or all of it; what is still pending is dropped."""
        self.whole = False
        self.pending.clear()
        self.connection.kept_cursor.execute(statements)
        self.whole = True

    def end(self, how: str) -> None:
        """Commit or roll back, and let go of the player, in one round trip."""
        statements = [how] * self.begun + ["SELECT pg_advisory_unlock_all()"] * self.locked
        if statements and not is_lost(self.connection):
            self.settle("; ".join(statements))
        self.begun = self.locked = False


def _lock_key(player: Any) -> int:
    """Return the key of a player's lock, which nobody else's is likely to be."""
    digest = hashlib.blake2b(f"poker-therapist player {player}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, signed=True)
