"""Putting a backup back, while others are connected."""

import contextlib
from dataclasses import replace
from pathlib import Path

from poker_therapist.database import SQLiteLocation
from poker_therapist.errors import DatabaseUnreadable, InvalidInput, SchemaTooNew
from poker_therapist.migrations.backups import time_now
from poker_therapist.migrations.sqlite.backup import TABLES, back_up, explained, patience, read_only
from poker_therapist.migrations.status import State, read_status
from poker_therapist.sqlite_file import find_file, is_there, open_connection


def restore(location: SQLiteLocation, backup: Path) -> Path | None:
    """Put a backup in the place of a database, while others are connected to it.

    Readers go on with what they saw until they read anew. What others write while this runs is replaced too,
    and is not in the backup of what was there: stop writers first.

    Args:
        location: the database; made if it is not there.
        backup: a file that was made by a backup, or is a whole database file.

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
    with explained(source_location), contextlib.closing(read_only(backup)) as source:
        (verdict,) = source.execute("PRAGMA integrity_check(1)").fetchone()
        if verdict != "ok":
            raise DatabaseUnreadable(f"{backup} is damaged ({verdict}): use another backup")
        names = {name for (name,) in source.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")}
        if not names & {*TABLES, "_yoyo_migration"}:
            raise DatabaseUnreadable(
                f"{backup} is a database, but none of Poker Therapist's: correct the path"
            )
        newer = [one.id for one in read_status(source_location).migrations if one.state is State.UNKNOWN]
        if newer:
            raise SchemaTooNew(f"{backup} was made by a later version ({', '.join(newer)}): update the code")
        replaced = _set_aside(location, backup)
        find_file(location.path, create=True)
        with explained(location), contextlib.closing(open_connection(location)) as target:
            sizes = [one.execute("PRAGMA page_size").fetchone() for one in (source, target)]
            if sizes[0] != sizes[1]:  # which a log cannot change; this waits until nobody is connected
                target.execute("PRAGMA journal_mode = DELETE").fetchone()
            source.backup(target, progress=patience(location))
    return replaced


def _set_aside(location: SQLiteLocation, backup: Path) -> Path | None:
    """Keep what a backup replaces: as a backup, or, if it is damaged, as it is."""
    path = location.path
    if not path.exists() or not path.stat().st_size:
        return None
    try:
        return back_up(location, "restore", spare=backup)
    except DatabaseUnreadable:
        damaged = path.with_name(f"{path.name}.{time_now()}.damaged")
        for ending in ("", "-wal", "-shm"):
            part = Path(f"{path}{ending}")
            if part.exists():
                part.rename(f"{damaged}{ending}")
        return damaged
