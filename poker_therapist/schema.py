"""The migrations that this version ships, and a database brought up to date with them.

Opening an up-to-date database compares ids and imports no yoyo. What an operator does with the shipped
migrations (status, rehearse, copy) imports it when it is called.
"""

import os
from collections.abc import Collection, Sequence
from contextlib import closing
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from poker_therapist.database import Database
from poker_therapist.engines import engine_for, open_database
from poker_therapist.errors import SchemaMissing, SchemaOutdated, SchemaTooNew, escaped
from poker_therapist.location import Location, command_about
from poker_therapist.tables import TABLES

if TYPE_CHECKING:
    from poker_therapist.migrations.engine import Progress
    from poker_therapist.migrations.rehearse import Rehearsal
    from poker_therapist.migrations.status import Status

_BOOKKEEPING = Path(__file__).parent / "migrations" / "bookkeeping.sql"


@cache
def migrations_folder(name: str) -> Path:
    """Return a folder of SQL pairs: the wheel's own, in a checkout the top-level one."""
    package = Path(__file__).parent
    installed = package / "sql_migrations"
    return (installed if installed.is_dir() else package.parent / "sql_migrations") / name


def shipped_ids(name: str) -> set[str]:
    """Return the ids of the migrations in a folder that comes with this version."""
    return {
        file.removesuffix(".sql")
        for file in os.listdir(migrations_folder(name))  # noqa: PTH208  # a tenth of the time of paths
        if file.endswith(".sql") and not file.endswith(".rollback.sql")
    }


def folders_for(location: Location, applied: Collection[str]) -> list[Path]:
    """Return the folders whose migrations a database is to have.

    Those of an optional folder belong to a database that has one of them already: the tables of a database
    that is distributed over a cluster.
    """
    folder, *optional = location.folders
    chosen = [folder, *(name for name in optional if shipped_ids(name) & set(applied))]
    return [migrations_folder(name) for name in chosen]


def open_current(location: Location, queries: Sequence[Path] = (), *, migrate: bool) -> Database:
    """Connect to a database and bring its schema up to date.

    Args:
        location: where it is.
        queries: the `.sql` files whose queries will be called.
        migrate: whether to create an SQLite file that does not exist and to apply pending migrations.

    Raises:
        StorageError: the database cannot be opened; its subclasses say why.
        SchemaTooNew: the database has had migrations that this version does not know.
        SchemaOutdated: some are pending and `migrate` is false.
        MigrationError: one failed; the database is as it was before it.
    """
    database = open_database(location, [_BOOKKEEPING, *queries], create=migrate)
    try:
        _bring_up_to_date(database, migrate=migrate)
    except BaseException:
        database.close()
        raise
    return database


def bring_up_to_date(location: Location) -> None:
    """Apply the pending migrations; write nothing where there are none.

    Raises:
        StorageError, SchemaTooNew, MigrationError: as for `open_current`.
    """
    open_current(location, migrate=True).close()


def _bring_up_to_date(database: Database, *, migrate: bool) -> None:
    location = database.location
    applied = _applied_ids(database)
    folders = folders_for(location, applied)
    shipped = set().union(*(shipped_ids(folder.name) for folder in folders))
    if unknown := sorted(_kept_ids(database, applied - shipped)):
        raise SchemaTooNew(
            f"{location.name} is ahead of this version of the code, which does not know "
            f"{escaped(', '.join(unknown))}: update the code, or roll them back with "
            f"`{escaped(command_about(location, 'rollback', '--to', unknown[0]))}`",
            unknown=unknown,
        )
    if pending := sorted(shipped - applied):
        if not migrate:
            raise SchemaOutdated(
                f"{location.name} lacks {', '.join(pending)}: "
                f"run `{command_about(location, 'apply')}`, or open it with migrate=True",
                pending=pending,
            )
        with engine_for(location).backend() as backend:
            backend.apply_migrations(backend.to_apply(backend.read([str(folder) for folder in folders])))
        # SQLite's connection would prepare its first statement for the schema that it has read before.
        _applied_ids(database)


def _applied_ids(database: Database) -> set[str]:
    """Return the ids of the migrations that yoyo's table says have been applied."""
    try:
        return {str(migration_id) for (migration_id,) in database.fetch_all("applied_migrations")}
    except SchemaMissing:
        return set()


def _kept_ids(database: Database, ids: set[str]) -> set[str]:
    """Return which of some migrations are ours: the others are of an app that uses yoyo in the same file."""
    try:
        return ids and {str(kept) for (kept,) in database.fetch_all("kept_ids", ("_yoyo_migration",))} & ids
    except SchemaMissing:
        return set()


def are_shipped(sources: Sequence[str]) -> bool:
    """Return whether folders of migrations are all among those that come with this version."""
    return {Path(source).resolve().parent for source in sources} <= {migrations_folder("").resolve()}


def sources_for(location: Location, given: Sequence[str] = ()) -> list[str]:
    """Return the folders whose migrations a database is to have, asking the database what is applied.

    Args:
        location: where it is.
        given: what an ini file or an operator names. Shipped folders mean those of the database's engine,
            and an optional one if it is named.

    Raises:
        StorageError: the database cannot be read.
    """
    if not are_shipped(given):
        return list(given)
    with engine_for(location).backend() as backend:
        wanted = folders_for(location, backend.applied())
    named = {Path(source).resolve() for source in given}
    optional = [migrations_folder(name) for name in location.folders]
    wanted += [one for one in optional if one not in wanted and one.resolve() in named]
    return [str(folder) for folder in wanted]


def all_sources(location: Location, given: Sequence[str] = ()) -> list[str]:
    """Return every folder whose migrations a database may have, the optional ones last."""
    if not are_shipped(given):
        return list(given)
    return [str(migrations_folder(name)) for name in location.folders]


def read_status(location: Location, sources: Sequence[str] = ()) -> "Status":
    """Compare a database with the shipped migrations, or with those of `sources`; see `migrations.status`."""
    from poker_therapist.migrations import status

    with engine_for(location).backend() as backend:
        return status.read_status(backend, sources_for(location, sources))


def rehearse(
    location: Location,
    *,
    to: str | None = None,
    sources: Sequence[str] = (),
    progress: "Progress | None" = None,
) -> "Rehearsal":
    """Rehearse the shipped migrations, or those of `sources`, on a copy; see `migrations.rehearse`."""
    from poker_therapist.migrations import engine, rehearse

    return rehearse.rehearse(
        engine_for(location),
        sources_for(location, sources),
        to=to,
        progress=progress or engine.no_progress,
    )


def copy(source: Location, target: Location, *, progress: "Progress | None" = None) -> dict[str, int]:
    """Copy everything that is known of all players into an empty database; see `migrations.transfer`.

    The target is migrated first if it has to be.

    Raises:
        SchemaOutdated: the source lacks migrations.
        SchemaTooNew: either database has had migrations that this version does not know.
    """
    from poker_therapist.migrations import engine, transfer

    looked_at = source if source.on_connect else replace(source, on_connect=engine_for(source).limit)
    with closing(open_current(looked_at, migrate=False)):
        pass
    return transfer.copy(
        engine_for(source),
        engine_for(target),
        TABLES,
        sources=sources_for(target),
        prepare=lambda: bring_up_to_date(target),
        progress=progress or engine.no_progress,
    )
