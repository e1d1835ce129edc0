"""Backups of an SQLite file, made while others use it."""

import contextlib
import glob
import os
import re
import sqlite3
import stat
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from poker_therapist.errors import DatabaseBusy, DatabaseFull, DatabaseUnreadable, InvalidInput
from poker_therapist.location import SQLiteLocation, sync_folder, time_for_names
from poker_therapist.migrations.engine import BackupFile, Holding
from poker_therapist.sqlite.connect import (
    find_file,
    integrity_error,
    kind_of,
    open_connection,
    translate_error,
    uri,
    watched,
)
from poker_therapist.tables import TABLES, StoredTable

_SECONDS_TO_BEGIN = 60
_WRITE_ERRORS = (
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_IOERR_WRITE,
    sqlite3.SQLITE_IOERR_FSYNC,
    sqlite3.SQLITE_IOERR_TRUNCATE,
)


@dataclass(frozen=True, slots=True)
class FoundBackup:
    """A file beside a database that has the whole pattern of our names.

    Attributes:
        made: the time in its name.
        before: what it precedes, such as `apply-003_x`; empty if an operator asked for it.
        unfinished: whether it was not finished; it may be being written.
        damaged: whether it is a part of a damaged database that a restore has replaced.
    """

    path: Path
    made: str
    before: str
    unfinished: bool
    damaged: bool


def found_backups(location: SQLiteLocation) -> list[FoundBackup]:
    """Return our backups of a database, oldest first, and those that were not finished."""
    pattern = re.compile(
        re.escape(location.path.name)
        + r"\.(\d{8}T\d{6}\.\d{6}Z)(?:\.before-((?:apply|rollback)-.+|restore))?"
        r"\.(?:backup(\.part(?:-journal|-wal|-shm)?)?|(damaged)(?:-wal|-shm)?)"
    )
    paths: list[Path] = []
    with contextlib.suppress(OSError):  # a folder that may be entered and not listed
        paths = list(location.path.parent.iterdir())
    matches = ((path, pattern.fullmatch(path.name)) for path in paths)
    found = [
        FoundBackup(path, match[1], match[2] or "", bool(match[3]), bool(match[4]))
        for path, match in matches
        if match and path.is_file() and not path.is_symlink()
    ]
    return sorted(found, key=lambda one: one.path.name)


def remove_unfinished(location: SQLiteLocation) -> None:
    """Remove what killed backups have left, and nothing that is being written."""
    for one in found_backups(location):
        if one.unfinished and not _is_being_written(_database_of(one.path)):
            with contextlib.suppress(OSError):  # another one removes it, too, or it is somebody else's
                one.path.unlink()


def _database_of(path: Path) -> Path:
    """Return the file that a journal or log is of, or the file itself."""
    return path.with_name(re.sub(r"(\.part)-(journal|wal|shm)$", r"\1", path.name))


def _is_being_written(path: Path) -> bool:
    """Return whether somebody writes a database file; who writes a backup keeps it locked."""
    try:
        if not path.stat().st_size:
            return time.time() - path.stat().st_mtime < _SECONDS_TO_BEGIN
        with contextlib.closing(sqlite3.connect(path, timeout=0, isolation_level=None)) as connection:
            connection.execute("BEGIN EXCLUSIVE")
    except OSError:
        return False
    except sqlite3.Error as error:
        return getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_BUSY
    return False


def back_up(location: SQLiteLocation, before: str) -> Path:
    """Copy a database to a file beside it, and return that file's path.

    The copy is of one moment, and is checked before it gets its name. The caller holds the write lock, so no
    two are made at once.

    Args:
        location: the database.
        before: what it precedes, for its name.

    Raises:
        DatabaseFull: there is no room for it; nothing is left of it.
        DatabaseUnreadable: the copy does not pass SQLite's integrity check: the database is damaged.
    """
    path = location.path
    remove_unfinished(location)
    target = path.with_name(f"{path.name}.{time_for_names()}.before-{before}.backup")
    try:
        _write_whole(location, target)
    except DatabaseFull as error:
        raise DatabaseFull(
            f"there is no room for a backup of {path}, so nothing was changed: make room for "
            f"{path.stat().st_size:,} bytes beside it, or turn backups off with ?backups=0 in the URL"
        ) from error
    return target


def prune(location: SQLiteLocation, newest: Path, keep: Collection[Path] = ()) -> None:
    """Delete the oldest backups of those that nobody asked for; `location.backups` of them stay.

    One from before adoption always stays: no rollback gives back what was adopted.

    Args:
        location: the database.
        newest: the last one; where the clock was put back, its name may sort before others'.
        keep: others that stay.
    """
    automatic = [one for one in found_backups(location) if one.before and not one.unfinished]
    keep = [*keep, *_from_before_adoption(location, automatic)]
    old = [one.path for one in automatic if one.path not in (newest, *keep)]
    most = location.backups - (newest not in keep)
    for path in old[: max(len(old) - most, 0)] if location.backups else ():
        with contextlib.suppress(OSError):  # the migration has been committed: one too many is no failure
            path.unlink()


def _from_before_adoption(location: SQLiteLocation, backups: Iterable[FoundBackup]) -> set[Path]:
    """Return the backups that precede a migration that adopted tables, or our first, and hold such a table.

    What cannot be read is taken for one.
    """
    adopted, by = {table.name for table in TABLES}, set[str]()
    held = dict[FoundBackup, set[str] | None]()
    for one in [FoundBackup(location.path, "", "", False, False), *backups]:
        held[one] = None
        with contextlib.suppress(sqlite3.Error), contextlib.closing(read_only(one.path)) as copy:
            names = {
                name for (name,) in copy.execute("SELECT lower(name) FROM sqlite_schema WHERE type = 'table'")
            }
            if "_migration_adopted" in names:
                for table, name in copy.execute("SELECT table_name, migration_id FROM _migration_adopted"):
                    adopted.add(table)
                    by.add(f"apply-{name}")
            held[one] = names
    return {
        one.path
        for one, names in held.items()
        if one.before.startswith("apply-")
        and (names is None or (names & adopted and (one.before in by or "_migration_text" not in names)))
    }


def _write_whole(location: SQLiteLocation, target: Path) -> None:
    """Write a backup that has its name only when it is whole; nothing is left of one that fails."""
    unfinished = target.with_name(f"{target.name}.part")
    made = False
    try:
        # Nobody but those who may read the database may read its copy. That is written, whether or not the
        # database may be.
        rights = location.path.stat().st_mode & 0o777 | stat.S_IWUSR
        new = os.O_CREAT | os.O_EXCL | os.O_WRONLY | getattr(os, "O_NOFOLLOW", 0)
        os.close(os.open(unfinished, new, rights))
        made = True
        try:
            copy_database(location, unfinished)
        except sqlite3.Error as error:  # of the two files, only the backup is written
            written = getattr(error, "sqlite_errorcode", 0) in _WRITE_ERRORS
            raise translate_error(error, replace(location, path=target) if written else location) from error
        unfinished.replace(target)
        sync_folder(target.parent)
    except BaseException as error:
        for ending in ("", "-journal", "-wal", "-shm") if made else ():
            Path(f"{unfinished}{ending}").unlink(missing_ok=True)
        if isinstance(error, FileExistsError):
            raise InvalidInput(f"{unfinished} is being written, or was left: remove it") from error
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
        # Between its statements nobody else may take it for what a killed backup has left.
        copy.execute("PRAGMA locking_mode = EXCLUSIVE").fetchone()
        source.backup(copy, progress=patience(location))
        damage = integrity_error(watched(copy, target))
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
    remove_unfinished(location)
    target = output or location.path.with_name(f"{location.path.name}.{time_for_names()}.backup")
    if target.exists():
        raise InvalidInput(f"{target} is there already: choose another name")
    _write_whole(location, target)
    return target


def list_backups(location: SQLiteLocation, known: Collection[str]) -> list[BackupFile]:
    """Return the finished backups beside a database.

    Args:
        location: the database.
        known: the ids of the migrations of ours, for backups that plain yoyo has recorded them in.
    """
    listed = []
    for one in found_backups(location):
        if one.unfinished or one.damaged:
            continue
        version, whole = None, False
        with contextlib.suppress(sqlite3.Error), contextlib.closing(read_only(one.path)) as copy:
            whole = not integrity_error(copy)
            names = {name for (name,) in copy.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")}
            applied, ours = set[str](), set(known)
            if "_yoyo_migration" in names:
                applied = {name for (name,) in copy.execute("SELECT migration_id FROM _yoyo_migration")}
            if "_migration_text" in names:
                ours |= {name for (name,) in copy.execute("SELECT migration_id FROM _migration_text")}
            version = max(applied & ours, default=None)
        made_at = re.sub(r"(....)(..)(..)T(..)(..)(..).*", r"\1-\2-\3 \4:\5:\6", one.made)
        size = one.path.stat().st_size
        listed.append(BackupFile(one.path, made_at, size, one.before, version, whole and size > 0))
    return listed


def backups_holding(
    location: SQLiteLocation, owner: int, tables: Sequence[StoredTable]
) -> dict[Path, Holding]:
    """Return our backups of a database, and what may be others, with a row of an owner in a table.

    Half a backup and a damaged database may hold rows that no query finds.
    """
    ours = {one.path: one for one in found_backups(location)}
    # Kept by hand under another name; but not our backups of a database whose name begins alike.
    of_others = re.compile(re.escape(location.path.name) + r"\..+\.\d{8}T\d{6}\.\d{6}Z(\.before-.+)?\.backup")
    named = location.path.parent.glob(f"{glob.escape(location.path.name)}.*.backup")
    by_hand = [path for path in named if path not in ours and not of_others.fullmatch(path.name)]
    found = {}
    for path in sorted([*ours, *by_hand]):
        if path in ours and (ours[path].damaged or ours[path].unfinished):
            being_written = ours[path].unfinished and _is_being_written(_database_of(path))
            found[path] = Holding.UNKNOWN if being_written else Holding.LEFT
            continue
        holds = _holds(path, owner, tables)
        if holds is None:
            found[path] = Holding.UNKNOWN
        elif holds:
            found[path] = Holding.OURS if path in ours else Holding.OF_OTHERS
    return found


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
    return watched(sqlite3.connect(uri(path.absolute(), "mode=ro"), uri=True), path, 64_000_000)
