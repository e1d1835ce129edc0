"""Backups of an SQLite file, made while others use it."""

import contextlib
import glob
import os
import sqlite3
import stat
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from poker_therapist.errors import DatabaseBusy, DatabaseFull, DatabaseUnreadable, InvalidInput
from poker_therapist.location import SQLiteLocation, time_for_names
from poker_therapist.sqlite.connect import (
    find_file,
    integrity_error,
    kind_of,
    open_connection,
    translating_errors,
    uri,
)
from poker_therapist.tables import StoredTable


def back_up(location: SQLiteLocation, before: str, spare: Path | None = None) -> Path:
    """Copy a database to a file beside it, and return that file's path.

    The copy is of one moment, is checked before it gets its name, and the newest `location.backups` are kept.
    The caller holds the write lock, so no two are made at once.

    Args:
        location: the database.
        before: what it precedes, for its name.
        spare: a backup that is not to be deleted, however old.

    Raises:
        DatabaseFull: there is no room for it; nothing is left of it.
        DatabaseUnreadable: the copy does not pass SQLite's integrity check: the database is damaged.
    """
    path = location.path
    for killed in path.parent.glob(f"{glob.escape(path.name)}.*.backup.part*"):
        killed.unlink(missing_ok=True)
    target = path.with_name(f"{path.name}.{time_for_names()}.before-{before}.backup")
    try:
        _write_whole(location, target)
    except DatabaseFull as error:
        raise DatabaseFull(
            f"there is no room for a backup of {path}, so nothing was changed: make room for "
            f"{path.stat().st_size:,} bytes beside it, or turn backups off with ?backups=0 in the URL"
        ) from error
    others = sorted({*path.parent.glob(f"{glob.escape(path.name)}.*.before-*.backup")} - {target})
    # This one is kept though its name may sort before the others', where the clock was put back.
    for old in others[: max(len(others) + 1 - location.backups, 0)] if location.backups else ():
        if spare is None or not old.samefile(spare):
            old.unlink(missing_ok=True)
    return target


def _write_whole(location: SQLiteLocation, target: Path) -> None:
    """Write a backup that has its name only when it is whole; nothing is left of one that fails."""
    unfinished = target.with_name(f"{target.name}.part")
    try:
        # Nobody but those who may read the database may read its copy. That is written, whether or not the
        # database may be.
        rights = location.path.stat().st_mode & 0o777 | stat.S_IWUSR
        os.close(os.open(unfinished, os.O_CREAT | os.O_TRUNC | os.O_WRONLY, rights))
        with translating_errors(location):
            copy_database(location, unfinished)
        unfinished.replace(target)
    except BaseException as error:
        for ending in ("", "-journal", "-wal", "-shm"):
            Path(f"{unfinished}{ending}").unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise kind_of(error)(f"cannot write {target}: {error.strerror}") from error
        raise


def copy_database(location: SQLiteLocation, target: Path) -> None:
    """Copy a database, as of one moment, while others use it; check the copy and bring it to the disk.

    Raises:
        DatabaseUnreadable: the copy does not pass SQLite's integrity check.
        sqlite3.Error: there is no room, or the file cannot be read.
    """
    with (
        contextlib.closing(open_connection(location)) as source,
        contextlib.closing(sqlite3.connect(target)) as copy,
    ):
        source.backup(copy, progress=patience(location))
        damage = integrity_error(copy)
        # A copy is one file; it becomes what its original was when it is opened for writing.
        copy.execute("PRAGMA journal_mode = DELETE").fetchone()
    if damage:
        raise DatabaseUnreadable(
            f"{location.path} is damaged ({damage}): restore a backup before you change its schema"
        )
    sync(target)


def sync(path: Path) -> None:
    """Bring a file to the disk."""
    with path.open("r+b") as file:  # Windows refuses to do so through a handle that cannot write
        os.fsync(file.fileno())


def patience(location: SQLiteLocation) -> Callable[[int, int, int], None]:
    """Return what ends a copy that another connection's lock holds up for longer than the timeout."""
    deadline = time.monotonic() + location.timeout

    def give_up(status: int, _remaining: int, _total: int) -> None:
        nonlocal deadline
        if status & 0xFF not in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            deadline = time.monotonic() + location.timeout
        elif time.monotonic() > deadline:
            raise DatabaseBusy(
                f"{location.path} stayed locked for {location.timeout:g} seconds: "
                "find the program that keeps a transaction open"
            )

    return give_up


def backups_of(location: SQLiteLocation) -> list[Path]:
    """Return the backups beside a database, oldest first, those made by hand included."""
    return sorted(location.path.parent.glob(f"{glob.escape(location.path.name)}.*.backup"))


def save_backup(location: SQLiteLocation, output: Path | None = None) -> Path:
    """Copy a database to a file, while others use it, and return that file's path.

    Args:
        location: the database.
        output: where to; beside the database and named by the time unless given. Never deleted by us.

    Raises:
        InvalidInput: there is a file at `output` already.
        DatabaseNotFound: there is no database.
        DatabaseFull: there is no room; nothing is left of it.
    """
    find_file(location.path, create=False)
    target = output or location.path.with_name(f"{location.path.name}.{time_for_names()}.backup")
    if target.exists():
        raise InvalidInput(f"{target} is there already: choose another name")
    _write_whole(location, target)
    return target


def backups_holding(
    location: SQLiteLocation, owner: int, tables: Sequence[StoredTable]
) -> dict[Path, bool | None]:
    """Return the backups beside a database with a row of an owner in one of the tables.

    None for a file that cannot be read, which may have one.
    """
    found = {backup: _holds(backup, owner, tables) for backup in backups_of(location)}
    return {backup: holds for backup, holds in found.items() if holds is not False}


def _holds(backup: Path, owner: int, tables: Sequence[StoredTable]) -> bool | None:
    try:
        with contextlib.closing(read_only(backup)) as copy:
            names = [name for (name,) in copy.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")]
            return any(
                copy.execute(
                    f"SELECT 1 FROM {table.name} WHERE {table.owner} = ? LIMIT 1", (owner,)
                ).fetchone()
                for table in tables
                if table.name in names
            )
    except sqlite3.Error:
        return None


def read_only(path: Path) -> sqlite3.Connection:
    """Open a backup to look into it."""
    return sqlite3.connect(uri(path.absolute(), "mode=ro"), uri=True)
