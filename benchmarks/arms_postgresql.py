"""The storage on PostgreSQL, and its limit."""

from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any

import psycopg

from benchmarks.arms_sqlite import BY_ID, BY_TIME, QUERIES_FILE, now, to_json
from benchmarks.report import BEFORE
from benchmarks.works import Entry
from poker_therapist.sqlfile import Placeholders, read_queries
from poker_therapist.storage import get_pattern_storage
from tests.helpers.databases import Databases, begin_run

QUERIES = read_queries(Placeholders.POSTGRESQL, QUERIES_FILE)


class Raw:
    """The limit: one connection and one cursor that are kept, every statement prepared.

    Values come back through psycopg's own reading of JSON.
    """

    def __init__(self, url: str) -> None:
        self.connection = psycopg.connect(url, autocommit=True)
        self.connection.execute("SET TimeZone = 'UTC'")
        self.cursor = psycopg.RawCursor(self.connection)
        self._save_pattern = QUERIES["save_pattern"]
        self._get_pattern = QUERIES["get_pattern"]
        self._save_context = QUERIES["save_context"]
        self._get_context = QUERIES["get_context"]

    def run(self, query: str, values: tuple[Any, ...] = ()) -> "psycopg.RawCursor[Any]":
        """Run a statement, prepared."""
        return self.cursor.execute(query, values, prepare=True)

    def save_pattern(self, user: int, kind: str, key: str, value: Any) -> None:
        """Upsert."""
        self.run(self._save_pattern, (user, kind, key, to_json(value), 1.0, *[now()] * 2))

    def get_pattern(self, user: int, kind: str, key: str) -> Any:
        """Read by key."""
        row = self.run(self._get_pattern, (user, kind, key)).fetchone()
        return None if row is None else row[0]

    def save_context(self, user: int, key: str, value: Any, session: str) -> None:
        """Append."""
        self.run(self._save_context, (user, key, to_json(value), session, now(), None))

    def get_context(self, user: int, key: str, *, limit: int) -> list[Any]:
        """Read the newest."""
        return [found for (found,) in self.run(self._get_context, (user, key, now(), limit)).fetchall()]

    def count_up(self, user: int, kind: str, key: str) -> None:
        """Add one to a pattern that is there, such that nobody else's one is lost."""
        self.cursor.execute("BEGIN")
        try:
            row = self.run(f"{self._get_pattern.rstrip(';')} FOR UPDATE", (user, kind, key)).fetchone()
            self.save_pattern(user, kind, key, (row[0] if row else 0) + 1)
        except BaseException:
            self.cursor.execute("ROLLBACK")
            raise
        self.cursor.execute("COMMIT")

    def close(self) -> None:
        """Close the connection."""
        self.connection.close()


class RawBefore(Raw):
    """The same on the schema of 0.1.0, with its query."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self._get_context = self._get_context.replace(BY_ID, BY_TIME)


def migrate(url: str) -> None:
    """Bring a database up to date."""
    get_pattern_storage(url).close()


@contextmanager
def server() -> Iterator[Databases]:
    """Start a server of our own, or use the one that the environment names, as the tests do."""
    with begin_run() as run, closing(Databases(run)) as databases:
        yield databases


ARMS: dict[str, Entry[str]] = {
    "raw psycopg": Entry(Raw),
    "poker_therapist": Entry(get_pattern_storage),
    BEFORE: Entry(RawBefore),
}
