"""What is in a database: schema and rows, to be compared."""

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

from poker_therapist.sqlite.catalog import describe

BOOKKEEPING = ("yoyo_lock", "_yoyo_log", "_yoyo_version", "_yoyo_migration", "_migration_text")


def connect(path: Path) -> closing[sqlite3.Connection]:
    """Open a database as any other program would."""
    return closing(sqlite3.connect(path, isolation_level=None))


def tables(connection: sqlite3.Connection) -> list[str]:
    """Return the names of the tables that hold data."""
    names = connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table' ORDER BY name")
    return [name for (name,) in names if name not in BOOKKEEPING]


def schema(path: Path) -> dict[str, str]:
    """Return what the catalog says of each table, index, trigger and view, and the order of columns."""
    with connect(path) as connection:
        catalog = describe(connection)
    order = {f"columns of {name}": ", ".join(table.columns) for name, table in catalog.tables.items()}
    return catalog.facts() | order


def stored_sql(path: Path) -> list[tuple[Any, ...]]:
    """Return the text of everything in the schema."""
    with connect(path) as connection:
        rows = connection.execute("SELECT type, name, tbl_name, sql FROM sqlite_schema ORDER BY type, name")
        return [row for row in rows if row[2] not in BOOKKEEPING]


def rows(path: Path) -> dict[str, list[tuple[Any, ...]]]:
    """Return every row of every table that holds data, counters of ids included."""
    with connect(path) as connection:
        return {
            table: sorted(connection.execute(f"SELECT * FROM {table}").fetchall(), key=repr)
            for table in tables(connection)
        }


def applied(path: Path) -> list[str]:
    """Return the ids that yoyo's record holds, sorted."""
    with connect(path) as connection:
        known = connection.execute("SELECT 1 FROM sqlite_schema WHERE name = '_yoyo_migration'").fetchone()
        names = connection.execute("SELECT migration_id FROM _yoyo_migration") if known else ()
        return sorted(name for (name,) in names)


def everything(path: Path) -> tuple[Any, ...]:
    """Return the whole state that a migration may change: schema, rows and record."""
    return stored_sql(path), rows(path), applied(path)


def is_whole(path: Path) -> bool:
    """Return whether SQLite finds nothing wrong with the file."""
    with connect(path) as connection:
        return bool(connection.execute("PRAGMA integrity_check").fetchone() == ("ok",))
