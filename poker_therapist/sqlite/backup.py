"""Backups of an SQLite file, made while others use it."""

import contextlib
import glob
import os
import re
import secrets
import sqlite3
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from poker_therapist.errors import DatabaseBusy, DatabaseFull, DatabaseUnreadable, StorageError, counted
from poker_therapist.location import SQLiteLocation
from poker_therapist.migrations.engine import BackupFile, Holding
from poker_therapist.migrations.progress import WATCHER
from poker_therapist.new_files import new_file, private_folders, time_for_names
from poker_therapist.sqlite.connect import (
    find_file,
    immutable_state,
    integrity_error,
    open_connection,
    translate_error,
    uri,
    watched,
)
from poker_therapist.tables import TABLES, StoredTable

_TIME = r"\d{8}T\d{6}\.\d{6}Z"
_BEFORE = r"(?:\.before-((?:apply|rollback)-.+|restore))?"
# How much of a list of backups is checked whole: files up to this size, until so much time has gone.
_BYTES_TO_CHECK, _SECONDS_TO_CHECK = 2**25, 3
_SIZES = ("page_count", "page_size")
# How many pages are copied between two reports of progress.
PAGES = 1_000
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
        damaged: whether it is a part of a damaged database that a restore has replaced.
    """

    path: Path
    made: str
    before: str
    damaged: bool


def found_backups(location: SQLiteLocation) -> list[FoundBackup]:
    """Return our backups of a database, oldest first, and the damaged ones that were replaced."""
    found = []
    for place in _places(location):
        pattern = re.escape(place.name) + rf"\.({_TIME}){_BEFORE}\.(?:backup|(damaged)(?:-wal|-journal)?)"
        with contextlib.suppress(OSError):  # a folder that may be entered and not listed
            for path in place.parent.iterdir():
                match = re.fullmatch(pattern, path.name)
                if match and path.is_file() and not path.is_symlink():
                    found.append(FoundBackup(path, match[1], match[2] or "", bool(match[3])))
    return sorted(found, key=lambda one: one.path.name)


def remove_unfinished(location: SQLiteLocation) -> None:
    """Remove what killed commands have left, and nothing that is being written."""
    _unfinished(location, remove=True)


def _unfinished(location: SQLiteLocation, *, remove: bool = False) -> dict[Path, bool]:
    """Return the folders in which something of a database is made, and if a killed command has left them."""
    found = {}
    for place in _places(location):
        made = rf"(?:{_TIME}{_BEFORE}\.(?:backup|damaged(?:-wal|-journal)?)\.part|scrub)-\w{{8}}"
        found.update(private_folders(place.parent, rf"{re.escape(place.name)}\.{made}", remove=remove))
    return found


def _places(location: SQLiteLocation) -> set[Path]:
    """Return the path of a database, and where it leads as a link: backups may be beside either."""
    return {location.path, Path(os.path.realpath(location.path))}


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
            f"no disk space is left for a backup of {path}, so nothing was changed: free "
            f"{path.stat().st_size:,} bytes beside it, or turn backups off with ?backups=0 in the URL"
        ) from error
    return target


def holds_rows(connection: sqlite3.Connection, table: str) -> bool:
    """Return whether a table has a row, or may have: one of a module that only the app loads."""
    quoted = table.replace('"', '""')
    try:
        return connection.execute(f'SELECT 1 FROM "{quoted}" LIMIT 1').fetchone() is not None
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_ERROR:
            raise
        return True


def prune(location: SQLiteLocation, newest: Path, keep: Collection[Path] = ()) -> None:
    """Delete the oldest backups of those that nobody asked for; `location.backups` of them stay.

    One from before adoption always stays: no rollback gives back what was adopted.

    Args:
        location: the database.
        newest: the last one; where the clock was put back, its name may sort before others'.
        keep: others that stay.
    """
    automatic = [one for one in found_backups(location) if one.before and not one.damaged]
    if sum(one.path != newest for one in automatic) < location.backups:
        return  # there is room for all
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
    for one in [FoundBackup(location.path, "", "", False), *backups]:
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
    with new_file(target) as (unfinished, descriptor):
        try:
            copy_database(location, unfinished, descriptor)
        except sqlite3.Error as error:  # of the two files, only the backup is written
            written = getattr(error, "sqlite_errorcode", 0) in _WRITE_ERRORS
            raise translate_error(error, replace(location, path=target) if written else location) from error
        # Nobody but those who may read the database may read its copy: another group is another.
        original, made = location.path.stat(), os.fstat(descriptor)
        if hasattr(os, "fchmod") and original.st_gid == made.st_gid:
            os.fchmod(descriptor, original.st_mode & 0o666 | 0o600)


def copy_database(location: SQLiteLocation, target: Path, descriptor: int) -> None:
    """Copy a database, as of one moment, while others use it, and check the copy.

    Args:
        location: the database.
        target: an empty file, in a private folder.
        descriptor: of that file. SQLite opens it by its path, which somebody may have changed meanwhile.

    Raises:
        DatabaseUnreadable: the copy does not pass SQLite's integrity check.
        sqlite3.Error: there is no room, or the file cannot be read.
    """
    with (
        contextlib.closing(open_connection(location)) as source,
        contextlib.closing(sqlite3.connect(uri(target, "mode=rw"), uri=True, isolation_level=None)) as copy,
    ):
        copy.execute("PRAGMA locking_mode = EXCLUSIVE").fetchone()
        copy.execute("PRAGMA page_size = {}".format(*source.execute("PRAGMA page_size").fetchone()))
        require_same(copy, target, descriptor)
        hold_snapshot(source)
        source.backup(copy, pages=PAGES, progress=patience(location, f"copying {location.path.name}"))
        if watcher := WATCHER.get():
            watcher(f"checking the copy of {location.path.name}", 0, 0)
        damage = integrity_error(watched(copy, target))
        # A copy is one file; it becomes what its original was when it is opened for writing.
        copy.execute("PRAGMA journal_mode = DELETE").fetchone()
    if damage:
        raise DatabaseUnreadable(
            f"{location.path} is damaged ({damage}): restore a backup before you change its schema"
        )


def require_same(connection: sqlite3.Connection, path: Path, descriptor: int) -> None:
    """Require that a connection is to the empty file of a descriptor, by writing to it.

    Raises:
        StorageError: somebody has put another file in its place; nothing is changed in that.
    """
    mark = secrets.randbits(31)
    try:
        connection.execute("PRAGMA journal_mode = MEMORY").fetchone()  # none has a name
        connection.execute("BEGIN")  # to begin to write would make the first page
        if connection.execute("PRAGMA page_count").fetchone() == (0,):
            connection.execute(f"PRAGMA application_id = {mark}")
            connection.execute("COMMIT")
            os.lseek(descriptor, 68, os.SEEK_SET)  # https://sqlite.org/fileformat.html
            if os.read(descriptor, 4) == mark.to_bytes(4, "big"):
                return
    except sqlite3.DatabaseError as error:
        if error.sqlite_errorcode != sqlite3.SQLITE_NOTADB:
            raise
    raise StorageError(f"another user replaced {path} while it was written: use another folder")


def hold_snapshot(source: sqlite3.Connection) -> None:
    """Begin to read: a backup in steps would begin anew whenever another program has saved meanwhile."""
    source.execute("BEGIN")
    source.execute("SELECT 1 FROM sqlite_schema").fetchall()


def patience(location: SQLiteLocation, doing: str = "") -> Callable[[int, int, int], None]:
    """Return what ends a copy that another connection's lock holds up for longer than the timeout.

    It reports how many pages are copied, if `doing` names the step.
    """
    deadline, watcher = time.monotonic() + location.timeout, WATCHER.get() if doing else None

    def give_up(status: int, remaining: int, total: int) -> None:
        nonlocal deadline
        if watcher:
            watcher(doing, total - remaining, total)
        if status & 0xFF not in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            deadline = time.monotonic() + location.timeout
        elif time.monotonic() > deadline:
            raise DatabaseBusy(
                f"{location.path} is still locked after {counted(location.timeout, 'second')}: "
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
    _write_whole(location, target)
    return target


def list_backups(location: SQLiteLocation, known: Collection[str], migration_table: str) -> list[BackupFile]:
    """Return the finished backups beside a database; large ones are looked into and not checked whole.

    Args:
        location: the database.
        known: the ids of the migrations of ours, for backups that plain yoyo has recorded them in.
        migration_table: where yoyo records them; in a backup of ours it may be another one.
    """
    deadline = time.monotonic() + _SECONDS_TO_CHECK
    listed = []
    for one in found_backups(location):
        if one.damaged:
            continue
        version, readable = None, None
        try:
            size = one.path.stat().st_size
            with contextlib.closing(read_only(one.path)) as copy:
                copy.set_progress_handler(lambda: time.monotonic() > deadline, 10_000)
                version = _schema_version(copy, known, migration_table)
                if size <= _BYTES_TO_CHECK and time.monotonic() < deadline:
                    readable = not integrity_error(copy)
                # Of one that was cut off the first pages may be whole.
                (pages,), (page,) = (copy.execute(f"PRAGMA {name}").fetchone() for name in _SIZES)
                readable = readable if 0 < pages * page <= size else False
        except FileNotFoundError:  # another process has pruned it
            continue
        except sqlite3.Error as error:
            readable = None if error.sqlite_errorcode == sqlite3.SQLITE_INTERRUPT else False
        made_at = re.sub(r"(....)(..)(..)T(..)(..)(..).*", r"\1-\2-\3 \4:\5:\6", one.made)
        listed.append(BackupFile(one.path, made_at, size, one.before, version, readable))
    return listed


def _schema_version(copy: sqlite3.Connection, known: Collection[str], migration_table: str) -> str | None:
    """Return the last migration of ours that is applied in a backup."""
    names = {name for (name,) in copy.execute("SELECT name FROM sqlite_schema")}
    applied, ours, tables = set[str](), set(known), {migration_table}
    if "_migration_text" in names:
        for table, name in copy.execute("SELECT migration_table, migration_id FROM _migration_text"):
            tables.add(table)
            ours.add(name)
    for table in tables & names:
        quoted = table.replace('"', '""')
        applied |= {name for (name,) in copy.execute(f'SELECT migration_id FROM "{quoted}"')}
    return max(applied & ours, default=None)


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
    found = {path: Holding.LEFT if left else Holding.UNKNOWN for path, left in _unfinished(location).items()}
    for path in sorted([*ours, *by_hand]):
        if path in ours and ours[path].damaged:
            found[path] = Holding.LEFT
            continue
        holds = _holds(path, owner, tables)
        if holds is None and path.exists():  # else another process has pruned it
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
    immutable = "" if immutable_state(path) is None else "&immutable=1"  # on a read-only disk, say
    opened = sqlite3.connect(uri(path.absolute(), f"mode=ro{immutable}"), uri=True)
    return watched(opened, path, 64_000_000)
