"""What is in a database, at a path or a URL: schema, rows and the record of migrations, to be compared."""

import re
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import psycopg
from psycopg import sql

from poker_therapist.migrations.compare import quoted
from poker_therapist.postgresql.catalog import describe as describe_postgresql
from poker_therapist.sqlite.catalog import describe as describe_sqlite
from tests.helpers.engines import is_server, query
from tests.helpers.pooler import past

BOOKKEEPING = (
    "yoyo_lock",
    "_yoyo_log",
    "_yoyo_version",
    "_yoyo_migration",
    "_migration_text",
    "_migration_adopted",
)

# What differs from run to run in the record of migrations and in the names of files: a time, a chance id.
_VARIES = re.compile(
    r"datetime\.datetime\([^)]*\)|\d{4}-\d\d-\d\d[ T][-\d:.+Z]+|\d{8}T\d{6}\.\d+Z|"
    r"\b[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f-]{22}\b|(?<=\.part-)\w+"
)

_STORED_SQL = "SELECT type, name, tbl_name, sql FROM sqlite_schema ORDER BY type, name"

_INTERRUPTED = "SELECT migration_id FROM _migration_text WHERE applied_at IS NULL AND apply_sql IS NOT NULL"


class Snapshot(NamedTuple):
    """All of a database that a migration, or a call of the storage, may change."""

    schema: Any
    rows: dict[str, list[Any]]
    applied: list[str]
    # What the next rows' ids follow from.
    counters: list[tuple[Any, ...]]


def everything(database: str | Path, schema: str = "public") -> Snapshot:
    """Return the whole state of a database; of one schema, if it is on a server."""
    if not is_server(database):
        return _everything_on_sqlite(Path(database))
    with psycopg.connect(past(str(database)), autocommit=True) as connection:
        return _everything_on_server(connection, schema)


def _everything_on_server(connection: psycopg.Connection[Any], schema: str = "public") -> Snapshot:
    catalog = describe_postgresql(connection, schema)
    order = {name: list(table.columns) for name, table in catalog.tables.items()}
    rows = {
        table: sorted(
            text
            for (text,) in connection.execute(
                sql.SQL("SELECT CAST(t AS TEXT) FROM {} AS t").format(sql.Identifier(schema, table))
            )
        )
        for table in catalog.tables
    }
    counters = connection.execute(
        "SELECT sequencename, last_value FROM pg_sequences WHERE schemaname = %s ORDER BY 1", [schema]
    ).fetchall()
    return Snapshot((catalog.facts(), order), rows, _applied(connection, schema), counters)


def _everything_on_sqlite(path: Path) -> Snapshot:
    with connect(path) as connection:
        return _everything_there(connection)


def _everything_there(connection: sqlite3.Connection) -> Snapshot:
    """Return the whole state of an SQLite database; to open it again for each query takes longer."""
    catalog = connection.execute(_STORED_SQL).fetchall()
    found = _rows(connection)
    record = []
    if any(name == "_yoyo_migration" for _, name, *_ in catalog):
        record = connection.execute("SELECT migration_id FROM _yoyo_migration ORDER BY 1").fetchall()
    return Snapshot(
        [row for row in catalog if row[2] not in BOOKKEEPING],
        found,
        [name for (name,) in record],
        found.pop("sqlite_sequence", []),
    )


class Left(NamedTuple):
    """All on which it depends what the next command does.

    A command that has succeeded on one database succeeds on another of which this is the same.
    """

    state: Snapshot
    record: list[str]
    files: list[str]
    # The migrations that our record calls interrupted.
    interrupted: list[str]


def left_by(database: str | Path) -> Left:
    """Return what a command has left: rows, the record of migrations, files; asked on one connection."""
    record: list[str] = []
    files: list[str] = []
    if is_server(database):
        found = "SELECT tablename FROM pg_tables"
        opened: Any = psycopg.connect(past(str(database)), autocommit=True)
    else:
        files = sorted(_VARIES.sub("", path.name) for path in Path(database).parent.iterdir())
        found = "SELECT name FROM sqlite_schema WHERE type = 'table'"
        opened = sqlite3.connect(database)
    with closing(opened) as connection:
        names = {name for (name,) in connection.execute(found).fetchall()} & {*BOOKKEEPING}
        for name in sorted(names):
            of_table = connection.execute(f"SELECT * FROM {name}").fetchall()
            record += [f"{name} {', '.join(map(_without_chance, row))}" for row in of_table]
        begun = connection.execute(_INTERRUPTED).fetchall() if "_migration_text" in names else []
        state = (_everything_on_server if is_server(database) else _everything_there)(connection)
    return Left(state, record, files, sorted(name for (name,) in begun))


def _without_chance(value: object) -> str:
    text = repr(value)
    return (
        text if len(text) > 100 else _VARIES.sub("", text)
    )  # a script has neither, and takes long to search


def tables(database: str | Path) -> list[str]:
    """Return the names of the tables that hold data, sorted."""
    found = query(
        database,
        "SELECT tablename FROM pg_tables WHERE schemaname = 'public'"
        if is_server(database)
        else "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite#_%' ESCAPE '#'",
    )
    return sorted(name for (name,) in found if name not in BOOKKEEPING)


def applied(database: str | Path, schema: str = "public") -> list[str]:
    """Return the ids that yoyo's record holds, sorted."""
    if is_server(database):
        with psycopg.connect(past(str(database)), autocommit=True) as connection:
            return _applied(connection, schema)
    if not query(database, "SELECT 1 FROM sqlite_schema WHERE name = '_yoyo_migration'"):
        return []
    return sorted(name for (name,) in query(database, "SELECT migration_id FROM _yoyo_migration"))


def _applied(connection: psycopg.Connection[Any], schema: str) -> list[str]:
    known = "SELECT FROM pg_tables WHERE schemaname = %s AND tablename = '_yoyo_migration'"
    if not connection.execute(known, [schema]).fetchall():
        return []
    record = sql.SQL("SELECT migration_id FROM {}").format(sql.Identifier(schema, "_yoyo_migration"))
    return sorted(name for (name,) in connection.execute(record))


def interrupted(database: str | Path) -> list[str]:
    """Return the migrations that our record calls interrupted."""
    on_server = is_server(database)
    known = "pg_tables WHERE tablename" if on_server else "sqlite_schema WHERE name"
    opened: Any = (
        psycopg.connect(past(str(database)), autocommit=True) if on_server else sqlite3.connect(database)
    )
    with closing(opened) as connection:
        if not connection.execute(f"SELECT 1 FROM {known} = '_migration_text'").fetchall():
            return []
        return sorted(name for (name,) in connection.execute(_INTERRUPTED).fetchall())


def operations(database: str | Path) -> dict[str, int]:
    """Return how often each migration was applied, from yoyo's log."""
    return dict(
        query(database, "SELECT migration_id, count(*) FROM _yoyo_log WHERE operation = 'apply' GROUP BY 1")
    )


def is_whole(database: str | Path) -> bool:
    """Return whether the engine finds nothing wrong with its files, as far as it can be asked."""
    return is_server(database) or query(database, "PRAGMA integrity_check") == [("ok",)]


# SQLite alone


def connect(path: Path) -> closing[sqlite3.Connection]:
    """Open a database as any other program would."""
    return closing(sqlite3.connect(path, isolation_level=None))


def schema(path: Path) -> dict[str, str]:
    """Return what the catalog says of each table, index, trigger and view, and the order of columns."""
    with connect(path) as connection:
        catalog = describe_sqlite(connection)
    order = {f"columns of {name}": ", ".join(table.columns) for name, table in catalog.tables.items()}
    return catalog.facts() | order


def stored_sql(path: Path) -> list[tuple[Any, ...]]:
    """Return the text of everything in the schema."""
    return [row for row in query(path, _STORED_SQL) if row[2] not in BOOKKEEPING]


def rows(path: Path) -> dict[str, list[tuple[Any, ...]]]:
    """Return every row of every table that holds data, counters of ids included."""
    with connect(path) as connection:
        return _rows(connection)


def _rows(connection: sqlite3.Connection) -> dict[str, list[tuple[Any, ...]]]:
    found = connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table' ORDER BY name").fetchall()
    return {
        table: sorted(connection.execute(f"SELECT * FROM {quoted(table)}"), key=repr)
        for (table,) in found
        if table not in BOOKKEEPING
    }
