"""The storage on SQLite, its limit, and what the app's earlier version did."""

import json
import sqlite3
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.report import BEFORE
from benchmarks.works import Entry
from poker_therapist.engines import engine_for
from poker_therapist.location import Location, SQLiteLocation, locate
from poker_therapist.schema import all_sources
from poker_therapist.sqlfile import Placeholders, read_queries
from poker_therapist.sqlite.connect import enlarge_cache, open_connection, set_journal_mode
from poker_therapist.storage import PatternStorage, get_pattern_storage

NAME = "RexVoice.db"
QUERIES_FILE = Path(__file__).parents[1] / "poker_therapist" / "queries.sql"
QUERIES = read_queries(Placeholders.SQLITE, QUERIES_FILE)

# The schema of 0.1.0, in which newest first was by time.
LAST_BEFORE = "004_index_reads"
BY_ID, BY_TIME = "ORDER BY id DESC", "ORDER BY created_at DESC, id DESC"


CONTAINERS = (dict, list, tuple)


def now() -> str:
    """Return this moment as it is stored."""
    return datetime.now(UTC).isoformat(timespec="microseconds")


def to_json(value: Any) -> str:
    """Return the text that the storage keeps, having refused what JSON would not give back equal."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    require_text_keys(value)
    return text


def require_text_keys(value: Any) -> None:
    """Refuse keys that `json` would turn into text."""
    if isinstance(value, dict):
        for key in value:
            if not isinstance(key, str):
                raise TypeError(f"{key!r} is no text")
        value = value.values()
    elif not isinstance(value, (list, tuple)):
        return
    for item in value:
        if isinstance(item, CONTAINERS):
            require_text_keys(item)


class Raw:
    """The limit: what one would write by hand, with one connection that is kept."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self.connection = connection
        self.run = connection.execute
        # Found once, as one would write them where they are used.
        self._save_pattern = QUERIES["save_pattern"]
        self._get_pattern = QUERIES["get_pattern"]
        self._save_context = QUERIES["save_context"]
        self._get_context = QUERIES["get_context"]

    def save_pattern(self, user: int, kind: str, key: str, value: Any) -> None:
        """Upsert."""
        self.run(self._save_pattern, (user, kind, key, to_json(value), 1.0, *[now()] * 2))

    def get_pattern(self, user: int, kind: str, key: str) -> Any:
        """Read by key."""
        row = self.run(self._get_pattern, (user, kind, key)).fetchone()
        return None if row is None else json.loads(row[0])

    def save_context(self, user: int, key: str, value: Any, session: str) -> None:
        """Append."""
        self.run(self._save_context, (user, key, to_json(value), session, now(), None))

    def get_context(self, user: int, key: str, *, limit: int) -> list[Any]:
        """Read the newest."""
        rows = self.run(self._get_context, (user, key, now(), limit)).fetchall()
        return [json.loads(text) for (text,) in rows]

    def count_up(self, user: int, kind: str, key: str) -> None:
        """Add one to a pattern, such that nobody else's one is lost."""
        self.run("BEGIN IMMEDIATE")
        try:
            count = self.get_pattern(user, kind, key) or 0
            self.save_pattern(user, kind, key, count + 1)
        except BaseException:
            self.run("ROLLBACK")
            raise
        self.run("COMMIT")

    def close(self) -> None:
        """Close the connection."""
        self.connection.close()


class ConnectionPerCall:
    """What the app's earlier version did: connect, run, commit and close, all by default."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def _write(self, query: str, values: tuple[Any, ...]) -> None:
        with closing(sqlite3.connect(self.path)) as connection, connection:
            connection.execute(QUERIES[query], values)

    def _read(self, query: str, values: tuple[Any, ...]) -> list[Any]:
        with closing(sqlite3.connect(self.path)) as connection:
            return connection.execute(QUERIES[query], values).fetchall()

    def save_pattern(self, user: int, kind: str, key: str, value: Any) -> None:
        """Upsert."""
        self._write("save_pattern", (user, kind, key, to_json(value), 1.0, *[now()] * 2))

    def get_pattern(self, user: int, kind: str, key: str) -> Any:
        """Read by key."""
        rows = self._read("get_pattern", (user, kind, key))
        return json.loads(rows[0][0]) if rows else None

    def save_context(self, user: int, key: str, value: Any, session: str) -> None:
        """Append."""
        self._write("save_context", (user, key, to_json(value), session, now(), None))

    def get_context(self, user: int, key: str, *, limit: int) -> list[Any]:
        """Read the newest."""
        return [json.loads(text) for (text,) in self._read("get_context", (user, key, now(), limit))]

    def close(self) -> None:
        """Nothing is open."""


class RawBefore(Raw):
    """The same on the schema of 0.1.0, with its query."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        super().__init__(connection)
        self._get_context = self._get_context.replace(BY_ID, BY_TIME)


def migrate_before(location: Location) -> None:
    """Apply the migrations that 0.1.0 had."""
    with engine_for(location).backend() as backend:
        known = backend.read([all_sources(location)[0]])
        backend.apply_migrations(backend.to_apply(known.filter(lambda one: one.id <= LAST_BEFORE)))


def migrated(folder: Path) -> Path:
    """Return a database with our schema in a folder; made there if it is not."""
    path = folder / NAME
    if not path.exists():
        get_pattern_storage(path).close()
    return path


def ours(folder: Path) -> PatternStorage:
    """Open the storage."""
    return get_pattern_storage(migrated(folder))


def connect(path: Path) -> sqlite3.Connection:
    """Open a connection with the settings of the storage."""
    location = SQLiteLocation(path)
    connection = open_connection(location)
    enlarge_cache(connection)
    set_journal_mode(connection, location)
    return connection


def raw(folder: Path) -> Raw:
    """Open a connection to a database with our schema."""
    return Raw(connect(migrated(folder)))


def raw_before(folder: Path) -> Raw:
    """Open a connection to a database with the schema of 0.1.0."""
    path = folder / NAME
    if not path.exists():
        migrate_before(locate(str(path)))
    return RawBefore(connect(path))


def connection_per_call(folder: Path) -> ConnectionPerCall:
    """Take the journal back to SQLite's default."""
    path = migrated(folder)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA journal_mode = DELETE")
    return ConnectionPerCall(path)


ARMS: dict[str, Entry[Path]] = {
    "raw sqlite3": Entry(raw),
    "poker_therapist": Entry(ours),
    BEFORE: Entry(raw_before),
    "connection per call": Entry(connection_per_call, fill=raw),
}
