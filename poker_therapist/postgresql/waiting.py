"""The sessions that block a migration, as a second session sees them."""

import re
import threading
import time
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import psycopg

from poker_therapist.errors import escaped
from poker_therapist.location import PostgreSQLLocation
from poker_therapist.migrations.effects import code
from poker_therapist.postgresql.connect import open_connection
from poker_therapist.sqlfile import Placeholders, read_queries

_BLOCKERS = read_queries(Placeholders.POSTGRESQL, Path(__file__).with_suffix(".sql"))["blockers"]
_SECONDS_BETWEEN = 30.0  # until the same sessions are told of again
_WIDEST = 80
_NUMBER = re.compile(r"(?<![\w$])[\d.]+\b")
_OPEN_LITERAL = re.compile(r"'|\$(?!\d)")


class LockWatch(threading.Thread):
    """Finds out which sessions block a session while a block runs, and reports them regularly.

    Attributes:
        found: the sessions for which it has waited last; empty if none was seen.
    """

    def __init__(
        self, location: PostgreSQLLocation, pid: Callable[[], int | None], tell: Callable[[str], None]
    ) -> None:
        """Prepare to look.

        Args:
            location: where the session is.
            pid: returns the server's process of the session; None while there is none.
            tell: called with a message, in another thread.
        """
        super().__init__(daemon=True)
        self.found = ""
        self._location, self._pid, self._tell = location, pid, tell
        self._ended = threading.Event()

    def __enter__(self) -> "LockWatch":
        self.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._ended.set()
        self.join(timeout=1)  # it may be connecting

    def run(self) -> None:
        """Look until the block ends; a failure to look must not stop the migration."""
        with suppress(Exception), closing(open_connection(self._location)) as connection:
            pause, told, last = 0.01, 0.0, set[int]()
            while not self._ended.wait(pause):
                pause = 1.0 if self.found else min(pause * 1.5, 0.1)  # shorter than any wait for a lock
                pid = self._pid()
                rows = pid and psycopg.RawCursor(connection).execute(_BLOCKERS, (pid,)).fetchall()
                if rows:
                    self.found = "; ".join(_described(*row) for row in rows)
                    pids = {row[0] for row in rows}
                    if pids != last or time.monotonic() - told > _SECONDS_BETWEEN:
                        last, told = pids, time.monotonic()
                        self._tell(f"waiting for {self.found}")


def _described(pid: int, *seen: str | None) -> str:
    """Return a session for an operator. Its query may hold a player's values, which are left out."""
    name, state, begun, asked, query = seen
    if not pid:
        return "a prepared transaction (see pg_prepared_xacts)"
    parts: list[Any] = [name, state, begun and f"transaction since {begun}", asked and f"query since {asked}"]
    return escaped(f"session {pid} ({', '.join(filter(None, parts))}): {_without_values(query or '')}")


def _without_values(query: str) -> str:
    literal_free = _OPEN_LITERAL.split(code(query).replace("''", "?"), maxsplit=1)[0]
    line = _NUMBER.sub("?", literal_free)
    return line if len(line) <= _WIDEST else f"{line[: _WIDEST - 3]}..."
