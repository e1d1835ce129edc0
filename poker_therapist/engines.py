"""From a location to its engine; the one module that imports both rooms, each when it is needed."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from poker_therapist.database import Database
from poker_therapist.location import Location, SQLiteLocation

if TYPE_CHECKING:  # opening an up-to-date database imports no yoyo
    from poker_therapist.migrations.check import Dialect
    from poker_therapist.migrations.engine import Engine


def dialect_of(folder: str, location: Location) -> "Dialect":
    """Return what judges the text of a migration for the engine of a folder.

    Args:
        folder: its name: that of an engine's, or of an optional one.
        location: whose engine it is otherwise.
    """
    from poker_therapist.migrations.check import Dialect

    if folder == "sqlite" or (folder not in ("postgresql", "citus") and isinstance(location, SQLiteLocation)):
        from poker_therapist.migrations.files import split
        from poker_therapist.sqlite.tokens import fault

        return Dialect(split, fault)
    from poker_therapist.postgresql import locks, split as postgresql  # noqa: I001

    return Dialect(postgresql.split, locks.fault)


def open_database(location: Location, queries: Sequence[Path], *, create: bool) -> Database:
    """Connect to a database.

    Args:
        location: where it is.
        queries: the `.sql` files whose queries will be called.
        create: whether to create an SQLite file that does not exist; a server's databases are never created.

    Raises:
        StorageError: there is no such database, or it cannot be used; the subclass says why.
    """
    if isinstance(location, SQLiteLocation):
        from poker_therapist.sqlite.connections import SQLiteDatabase

        database: Database = SQLiteDatabase(location, queries, create=create)
    else:
        from poker_therapist.postgresql.connections import PostgreSQLDatabase

        database = PostgreSQLDatabase(location, queries)
    if location.slow_ms is not None:
        from poker_therapist.slow import log_slow

        log_slow(database, location.slow_ms)
    return database


def engine_for(location: Location) -> "Engine":
    """Return the tools of an operator for the database at `location`."""
    if isinstance(location, SQLiteLocation):
        from poker_therapist.sqlite.engine import SQLiteEngine

        return SQLiteEngine(location)
    from poker_therapist.postgresql.engine import PostgreSQLEngine

    return PostgreSQLEngine(location)
