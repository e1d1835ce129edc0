"""Bringing a database's schema to where the code needs it.

Opening an up-to-date database needs this module alone: it compares ids and imports no yoyo.
"""

import os
from collections.abc import Collection
from functools import cache
from pathlib import Path

from poker_therapist.database import Database, Location, SQLiteLocation, read_queries
from poker_therapist.errors import SchemaMissing, SchemaOutdated, SchemaTooNew

_QUERIES = read_queries(Path(__file__).with_name("bookkeeping.sql"))


@cache
def migrations_folder(engine: str) -> Path:
    """Return the folder of an engine's SQL pairs: the wheel's own, in a checkout the top-level one."""
    package = Path(__file__).parents[1]
    installed = package / "sql_migrations"
    return (installed if installed.is_dir() else package.parent / "sql_migrations") / engine


def shipped_ids(engine: str) -> set[str]:
    """Return the ids of the migrations that come with this version."""
    return {
        name.removesuffix(".sql")
        for name in os.listdir(migrations_folder(engine))  # noqa: PTH208  # a tenth of the time of paths
        if name.endswith(".sql") and not name.endswith(".rollback.sql")
    }


def folders_for(location: Location, applied: Collection[str]) -> list[Path]:
    """Return the folders whose migrations a database is to have.

    One that has been distributed over a cluster is to have the migrations that distribute, too.
    """
    engines = ["sqlite"] if isinstance(location, SQLiteLocation) else ["postgresql"]
    if engines == ["postgresql"] and shipped_ids("citus") & set(applied):
        engines.append("citus")
    return [migrations_folder(engine) for engine in engines]


def bring_up_to_date(database: Database, *, migrate: bool) -> None:
    """Apply the pending migrations, if `migrate`; write nothing where there are none.

    Raises:
        SchemaTooNew: the database has had migrations that this version does not know.
        SchemaOutdated: some are pending and `migrate` is false.
        MigrationError: one failed; the database is as it was before it.
    """
    applied = applied_ids(database)
    folders = folders_for(database.location, applied)
    shipped = set().union(*(shipped_ids(folder.name) for folder in folders))
    if unknown := sorted(applied - shipped):
        raise SchemaTooNew(
            f"{database.location.name} is ahead of this version of the code, which does not know "
            f"{', '.join(unknown)}: update the code, or take them back with "
            f"`{database.location.yoyo} rollback --revision {unknown[0]}`"
        )
    if pending := sorted(shipped - applied):
        if not migrate:
            raise SchemaOutdated(
                f"{database.location.name} lacks {', '.join(pending)}: "
                f"run `{database.location.yoyo} apply`, or open it with migrate=True"
            )
        from poker_therapist.migrations.apply import apply_pending

        apply_pending(database.location, folders)


def applied_ids(database: Database) -> set[str]:
    """Return the ids of the migrations that yoyo's table says have been applied."""
    try:
        return {migration_id for (migration_id,) in database.rows(_QUERIES["applied_migrations"])}
    except SchemaMissing:
        return set()
