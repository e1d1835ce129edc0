"""Where migrations are rehearsed: copies of an SQLite file.

They lie in a temporary folder beside the original, so that there is room if there is room for the real run.
"""

import contextlib
import os
import re
import shutil
import sqlite3
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from poker_therapist.compat import override
from poker_therapist.location import SQLiteLocation
from poker_therapist.migrations.catalog import Catalog
from poker_therapist.migrations.engine import RehearsalCopy
from poker_therapist.sqlite.backend import AtomicSQLiteBackend
from poker_therapist.sqlite.backup import copy_database
from poker_therapist.sqlite.catalog import Entry, describe, entries
from poker_therapist.sqlite.compare import SQLiteRowComparison, stored_sql
from poker_therapist.sqlite.connect import find_file, integrity_error, kind_of, translating_errors, watched

# In each folder of copies, a database that the rehearsal keeps locked while it runs.
_OWNER = "owner.db"
_FILES = re.compile(r"(owner|work|before|after)\.db(-journal|-wal|-shm|-mj\w+)?")
_SECONDS_TO_BEGIN = 60


@contextlib.contextmanager
def rehearsal_copy(location: SQLiteLocation) -> Iterator["SQLiteRehearsalCopy"]:
    """Copy a database, to try migrations on; the copies go when the block ends."""
    find_file(location.path, create=False)
    with translating_errors(location), _folder_beside(location) as folder:
        work = replace(location, path=folder / "work.db", backups=0)
        copy_database(location, work.path)
        yield SQLiteRehearsalCopy(work)


class SQLiteRehearsalCopy(RehearsalCopy):
    """A copy that migrations change, one from before the last and one from after it."""

    def __init__(self, work: SQLiteLocation) -> None:
        self._location = work
        self._work = work.path
        self._before = work.path.with_name("before.db")
        self._after = work.path.with_name("after.db")
        self._size = self._most = work.path.stat().st_size

    @property
    @override
    def disk_space_needed(self) -> int:
        return self._size + self._most

    @override
    def backend(self) -> AtomicSQLiteBackend:
        backend = AtomicSQLiteBackend(self._location)
        backend.is_rehearsal = True
        return backend

    @override
    def keep_before(self) -> None:
        shutil.copy(self._work, self._before)

    @override
    def keep_after(self) -> None:
        shutil.copy(self._work, self._after)
        self._most = max(self._most, self._after.stat().st_size)

    @override
    def return_to_after(self) -> bool:
        shutil.copy(self._after, self._work)
        return True

    @override
    def integrity_error(self) -> str:
        with _open(self._work) as connection:
            return integrity_error(connection)

    @override
    def schemas(self) -> tuple[Catalog, Catalog]:
        with _open(self._before) as before, _open(self._work) as now:
            same = set(entries(before)) & set(entries(now))

            def is_changed(entry: Entry) -> bool:
                return entry not in same

            return describe(before, is_changed), describe(now, is_changed)

    @override
    def row_comparison(self) -> SQLiteRowComparison:
        return SQLiteRowComparison(self._before, self._work)

    @override
    def texts_laid_out_differently(self) -> list[str]:
        with _open(self._before) as before, _open(self._work) as now:
            texts = [set(stored_sql(connection)) for connection in (before, now)]
        return sorted({name for name, _ in texts[0] ^ texts[1]})


@contextlib.contextmanager
def _folder_beside(location: SQLiteLocation) -> Iterator[Path]:
    """Make a folder for copies, and remove it afterwards; and first what killed rehearsals have left."""
    try:
        for left in left_copies(location):
            with contextlib.suppress(OSError):  # another one removes it, too; or nobody but its owner may
                shutil.rmtree(left)
        with (
            tempfile.TemporaryDirectory(
                prefix=f"{location.path.name}.rehearsal-{os.getpid()}-", dir=_parent(location)
            ) as folder,
            _open(Path(folder, _OWNER)) as lock,
        ):
            lock.execute("BEGIN EXCLUSIVE")
            yield Path(folder)
    except OSError as error:
        raise kind_of(error)(
            f"cannot write copies beside {location.path} ({error.strerror}): make room, or correct the rights"
        ) from error


def left_copies(location: SQLiteLocation) -> list[Path]:
    """Return the folders that killed rehearsals of a database have left, with its players' rows in them."""
    pattern = re.compile(re.escape(location.path.name) + r"\.rehearsal-\d+-\w{8}")
    return [path for path in _parent(location).iterdir() if pattern.fullmatch(path.name) and _is_left(path)]


def _parent(location: SQLiteLocation) -> Path:
    """Return the folder for the copies: the database's, or, where that may not be written, the system's."""
    parent = location.path.parent
    return parent if os.access(parent, os.W_OK) else Path(tempfile.gettempdir())


def _is_left(folder: Path) -> bool:
    """Return whether a folder holds our files and nothing else, and the rehearsal that made it has ended."""
    try:
        return (
            folder.is_dir()
            and not folder.is_symlink()
            and all(_FILES.fullmatch(path.name) and path.is_file() for path in folder.iterdir())
            and not _has_owner(folder)
        )
    except OSError:  # somebody else's, or gone meanwhile
        return False


def _has_owner(folder: Path) -> bool:
    """Return whether the rehearsal that made a folder still runs; its lock goes with its process."""
    if not (folder / "work.db").exists():  # it has just begun, or was killed then
        return time.time() - folder.stat().st_mtime < _SECONDS_TO_BEGIN
    with contextlib.closing(sqlite3.connect(folder / _OWNER, timeout=0, isolation_level=None)) as lock:
        try:
            lock.execute("BEGIN EXCLUSIVE")
        except sqlite3.Error:  # locked, or no database: a file of somebody's
            return True
    return False


def _open(path: Path) -> contextlib.closing[sqlite3.Connection]:
    return contextlib.closing(watched(sqlite3.connect(path, isolation_level=None), path))
