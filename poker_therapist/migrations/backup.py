"""Backups of an SQLite file, made while others use it."""

import contextlib
import glob
import os
import sqlite3
from datetime import UTC, datetime
from pathlib import Path

from poker_therapist.database import Location
from poker_therapist.errors import DatabaseUnreadable, PokerTherapistError
from poker_therapist.sqlite import explain, open_connection


def back_up(location: Location, before: str) -> Path:
    """Copy a database to a file beside it, and return that file's path.

    The copy is of one moment, is checked before it gets its name, and the newest `location.backups` are kept.
    The caller holds the write lock, so no two are made at once.

    Args:
        location: the database.
        before: what it precedes, for its name.

    Raises:
        DatabaseFull: there is no room for it; nothing is left of it.
        DatabaseUnreadable: the copy does not pass SQLite's integrity check: the database is damaged.
    """
    path = location.path
    time = datetime.now(UTC).strftime("%Y%m%dT%H%M%S.%fZ")
    target = path.with_name(f"{path.name}.{time}.before-{before}.backup")
    unfinished = target.with_name(f"{target.name}.part")
    for killed in path.parent.glob(f"{glob.escape(path.name)}.*.before-*.backup.part*"):
        killed.unlink(missing_ok=True)
    try:
        # Nobody but those who may read the database may read its copy.
        os.close(os.open(unfinished, os.O_CREAT | os.O_EXCL | os.O_WRONLY, path.stat().st_mode & 0o777))
        _copy(location, unfinished)
        unfinished.replace(target)
    except BaseException as error:
        for leftover in (unfinished, Path(f"{unfinished}-journal"), Path(f"{unfinished}-wal")):
            leftover.unlink(missing_ok=True)
        if isinstance(error, OSError | sqlite3.Error):
            raise _without_backup(error, location) from error
        raise
    for old in sorted(path.parent.glob(f"{glob.escape(path.name)}.*.before-*.backup"))[: -location.backups]:
        old.unlink(missing_ok=True)
    return target


def _copy(location: Location, unfinished: Path) -> None:
    with (
        contextlib.closing(open_connection(location)) as source,
        contextlib.closing(sqlite3.connect(unfinished)) as copy,
    ):
        source.backup(copy)
        (verdict,) = copy.execute("PRAGMA integrity_check(1)").fetchone()
        # A copy is one file; it becomes what its original was when it is opened for writing.
        copy.execute("PRAGMA journal_mode = DELETE").fetchone()
    if verdict != "ok":
        raise DatabaseUnreadable(
            f"{location.path} is damaged ({verdict}): restore a backup before you change its schema"
        )
    with unfinished.open("rb") as file:
        os.fsync(file.fileno())


def _without_backup(error: OSError | sqlite3.Error, location: Location) -> PokerTherapistError:
    ours = explain(error, location)
    return type(ours)(
        f"no backup could be made of {location.path} ({error}), so nothing was changed: make room for "
        f"{location.path.stat().st_size:,} bytes beside it, or turn backups off with ?backups=0 in the URL"
    )
