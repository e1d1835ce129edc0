"""Restoring a backup of an SQLite file, while others are connected."""

import contextlib
import os
import sqlite3
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from poker_therapist.errors import DatabaseBusy, DatabaseUnreadable, InvalidInput, SchemaTooNew, escaped
from poker_therapist.location import SQLiteLocation, sync_folder, time_for_names
from poker_therapist.migrations.status import State, read_status
from poker_therapist.sqlite.backend import AtomicSQLiteBackend
from poker_therapist.sqlite.backup import back_up, patience, prune, read_only
from poker_therapist.sqlite.connect import (
    find_file,
    integrity_error,
    is_there,
    open_connection,
    translating_errors,
    uri,
)
from poker_therapist.tables import StoredTable


def restore(
    location: SQLiteLocation, backup: Path, sources: Sequence[str], tables: Sequence[StoredTable]
) -> Path | None:
    """Put a backup in the place of a database, while others are connected to it.

    Readers go on with what they saw until they read anew. What others write while this runs is replaced too,
    and is not in the backup of what was there: stop writers first.

    Args:
        location: the database; made if it is not there.
        backup: a file that was made by a backup, or is a whole database file.
        sources: the folders of the migrations that this version of the code knows.
        tables: the tables of which a backup has at least one.

    Returns:
        The backup that was made of what was replaced; None if nothing was there.

    Raises:
        DatabaseUnreadable: the file is no database or damaged, or is none of ours.
        SchemaTooNew: it was made by a later version of the code.
        InvalidInput: it is the database itself.
    """
    find_file(backup, create=False)
    if is_there(location.path):
        find_file(location.path, create=False)
        if location.path.samefile(backup):
            raise InvalidInput(f"{backup} is the database itself: name a backup of it")
    source_location = replace(location, path=backup.absolute())
    with translating_errors(source_location), contextlib.closing(read_only(backup)) as source:
        if damage := integrity_error(source):
            raise DatabaseUnreadable(f"{backup} is damaged ({damage}): use another backup")
        names = {name for (name,) in source.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")}
        if not names & {*(table.name for table in tables), "_yoyo_migration"}:
            raise DatabaseUnreadable(
                f"{backup} is a database, but none of Poker Therapist's: correct the path"
            )
        with AtomicSQLiteBackend(source_location) as backend:
            found = read_status(backend, sources).migrations
        newer = [one.id for one in found if one.state is State.UNKNOWN]
        if newer:
            raise SchemaTooNew(
                f"{backup} was made by a later version ({escaped(', '.join(newer))}): update the code"
            )
        replaced = _keep_replaced(location)
        find_file(location.path, create=True)
        durable = replace(location, synchronous="FULL")
        with translating_errors(location), contextlib.closing(open_connection(durable)) as target:
            sizes = [one.execute("PRAGMA page_size").fetchone() for one in (source, target)]
            if sizes[0] != sizes[1]:  # which a log cannot change; this waits until nobody is connected
                target.execute("PRAGMA journal_mode = DELETE").fetchone()
            source.backup(target, progress=patience(location))
    if replaced and replaced.suffix == ".backup":
        prune(location, replaced, keep=[backup.absolute()])
    return replaced


def _keep_replaced(location: SQLiteLocation) -> Path | None:
    """Keep what a backup replaces: as a backup, or, if it is damaged, as it is."""
    path = location.path
    if not path.exists() or not path.stat().st_size:
        return None
    try:
        return back_up(location, "restore")
    except DatabaseUnreadable:
        _require_nobody_connected(location)
        damaged = path.with_name(f"{path.name}.{time_for_names()}.damaged")
        real = os.path.realpath(path)  # not a link to it
        for ending in ("", "-wal", "-shm"):
            if (part := Path(f"{real}{ending}")).exists():
                part.replace(f"{damaged}{ending}")
        sync_folder(path.parent)
        return damaged


def _require_nobody_connected(location: SQLiteLocation) -> None:
    """Refuse to move a file in which another connection would go on saving.

    Raises:
        DatabaseBusy: somebody is connected to it.
    """
    try:
        # The settings of our connections would read the schema, which may be what is damaged.
        path = uri(Path(os.path.realpath(location.path)), "mode=rw")
        with contextlib.closing(
            sqlite3.connect(path, uri=True, timeout=0, isolation_level=None)
        ) as connection:
            connection.execute("PRAGMA locking_mode = EXCLUSIVE").fetchone()
            connection.execute("BEGIN EXCLUSIVE")
    except sqlite3.Error as error:
        if error.sqlite_errorcode & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            raise DatabaseBusy(
                f"{location.path} is damaged, and a connected program would go on saving into the "
                "damaged file: stop it, then restore again"
            ) from error
