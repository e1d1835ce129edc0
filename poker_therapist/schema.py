"""The migrations that this version ships, and a database brought up to date with them.

Opening an up-to-date database compares ids and imports no yoyo. What an operator does with the shipped
migrations (status, rehearse, copy) imports it when it is called.
"""

import os
from collections.abc import Collection, Sequence
from contextlib import closing, nullcontext
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
    from poker_therapist.migrations.atomic import AtomicBackend
    from poker_therapist.migrations.progress import Progress
    from poker_therapist.migrations.rehearse import Rehearsal
    from poker_therapist.migrations.status import Status

_BOOKKEEPING = Path(__file__).parent / "migrations" / "bookkeeping.sql"
_QUERIES = Path(__file__).with_name("queries.sql")

# What this process has been warned of: databases, and what each has had that this version does not know.
_warned: dict[tuple[str, ...], object] = {}


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


def open_current(
    location: Location, queries: Sequence[Path] = (), *, migrate: bool, knows_all: bool = False
) -> Database:
    """Connect to a database and bring its schema up to date.

    Args:
        location: where it is.
        queries: the `.sql` files whose queries will be called.
        migrate: whether to create an SQLite file that does not exist and to apply pending migrations.
        knows_all: whether to refuse also unknown migrations that declare `-- compatible: true`.

    Raises:
        StorageError: the database cannot be opened; the subclass says why.
        SchemaTooNew: the database has had migrations that this version does not know, and must know.
        SchemaOutdated: some are pending and `migrate` is false.
        MigrationError: one failed; the database is as it was before it.
    """
    database = open_database(location, [_BOOKKEEPING, *queries], create=migrate)
    try:
        _bring_up_to_date(database, migrate=migrate, knows_all=knows_all)
    except BaseException:
        database.close()
        raise
    return database


def bring_up_to_date(location: Location, *, knows_all: bool = False) -> None:
    """Apply the pending migrations; write nothing where there are none.

    Raises:
        StorageError, SchemaTooNew, MigrationError: as for `open_current`.
    """
    open_current(location, migrate=True, knows_all=knows_all).close()


def _bring_up_to_date(database: Database, *, migrate: bool, knows_all: bool) -> None:
    location = database.location
    applied = _applied_ids(database)
    folders = folders_for(location, applied)
    shipped = set().union(*(shipped_ids(folder.name) for folder in folders))
    if unknown := sorted(_kept_ids(database, applied - shipped)):
        _go_on(database, unknown, sorted(shipped - applied), knows_all=knows_all)
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
        if lacking := sorted(shipped - _applied_ids(database)):
            raise SchemaOutdated(
                f"{location.name} lacks {', '.join(lacking)}, which were applied to another database: "
                "correct the address that migrations use",
                pending=lacking,
            )


def _applied_ids(database: Database) -> set[str]:
    """Return the ids of the applied migrations in yoyo's table."""
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


def _go_on(database: Database, unknown: list[str], pending: list[str], *, knows_all: bool) -> None:
    """Warn, once in a process, of applied migrations that this version does not know; or refuse them.

    Raises:
        SchemaTooNew: one of them is not declared compatible; or all of them must be known; or
            others are pending, and their combination with the unknown ones is untested.
    """
    location, ids = database.location, escaped(", ".join(unknown))
    if knows_all or not all(_is_compatible(database, one) for one in unknown):
        raise SchemaTooNew(
            f"{location.name} is ahead of this version of the code, which does not know {ids}: update the "
            f"code. Rolling them back (`{escaped(command_about(location, 'rollback', '--to', unknown[0]))}`) "
            "would delete what the newer version has saved in the tables and columns that they added",
            unknown=unknown,
        )
    if pending:
        raise SchemaTooNew.beside(location.name, pending, unknown)
    mark = object()
    if _warned.setdefault((location.name, *unknown), mark) is mark:
        import logging

        logging.getLogger("poker_therapist").warning(
            "%s has %s, which this version of the code does not know. The code continues, because each "
            "declares `-- compatible: true`; its exports leave out what they added. Update the code",
            *(location.name, ids),
        )


def _is_compatible(database: Database, migration_id: str) -> bool:
    """Return whether the stored header of an applied migration declares it compatible with older code."""
    from poker_therapist.migrations.header import is_compatible

    found = database.fetch_one("kept_header", ("_yoyo_migration", migration_id))
    if found is None or not isinstance(found[2], str):
        return False
    kept_at, applied_at, header = found
    # Of another time: plain yoyo has applied another text since.
    return (kept_at is None or str(kept_at) == str(applied_at)) and is_compatible(header)


def are_shipped(sources: Sequence[str]) -> bool:
    """Return whether folders of migrations are all among those that come with this version."""
    return {Path(source).resolve().parent for source in sources} <= {migrations_folder("").resolve()}


def sources_for(
    location: Location, given: Sequence[str] = (), backend: "AtomicBackend | None" = None
) -> list[str]:
    """Return the folders whose migrations a database is to have, asking the database what is applied.

    Args:
        location: where it is.
        given: what an ini file or an operator names. Shipped folders mean those of the database's engine,
            and an optional one if it is named.
        backend: what asks the database, if there is one.

    Raises:
        StorageError: the database cannot be read.
    """
    if not are_shipped(given):
        return list(given)
    with nullcontext(backend) if backend else engine_for(location).backend() as asked:
        wanted = folders_for(location, asked.applied())
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
        return status.read_status(backend, sources_for(location, sources, backend))


def rehearse(
    location: Location,
    *,
    to: str | None = None,
    sources: Sequence[str] = (),
    progress: "Progress | None" = None,
) -> "Rehearsal":
    """Rehearse the shipped migrations, or those of `sources`, on a copy; see `migrations.rehearse`."""
    from poker_therapist.migrations import rehearse
    from poker_therapist.migrations.progress import no_progress

    return rehearse.rehearse(
        engine_for(location),
        sources_for(location, sources),
        to=to,
        queries=[_QUERIES],
        owners={table.owner for table in TABLES},
        progress=progress or no_progress,
    )


def copy(source: Location, target: Location, *, progress: "Progress | None" = None) -> dict[str, int]:
    """Copy all data of all players into an empty database; see `migrations.transfer`.

    The target is migrated first if migrations are pending.

    Raises:
        SchemaOutdated: the source lacks migrations.
        SchemaTooNew: either database has migrations that this version does not know.
    """
    from poker_therapist.migrations import transfer
    from poker_therapist.migrations.progress import no_progress

    looked_at = source if source.on_connect else replace(source, on_connect=engine_for(source).limit)
    with closing(open_current(looked_at, migrate=False, knows_all=True)):
        pass
    return transfer.copy(
        engine_for(source),
        engine_for(target),
        TABLES,
        sources=sources_for(target),
        prepare=lambda: bring_up_to_date(target, knows_all=True),
        progress=progress or no_progress,
    )
