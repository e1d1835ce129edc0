"""Where migrations are rehearsed: copies of an SQLite file.

They lie in a temporary folder beside the original, so that there is room if there is room for the real run.
"""

import contextlib
import glob
import os
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from poker_therapist.database import SQLiteLocation
from poker_therapist.migrations.catalog import Difference, RowDifference, differences
from poker_therapist.migrations.sqlite.backend import AtomicSQLiteBackend
from poker_therapist.migrations.sqlite.backup import copy_database, explained
from poker_therapist.migrations.sqlite.catalog import describe
from poker_therapist.migrations.sqlite.compare import Two, stored_sql
from poker_therapist.sqlite_file import find_file, kind_of


@contextlib.contextmanager
def bench(location: SQLiteLocation) -> Iterator["SQLiteBench"]:
    """Copy a database, to try migrations on; the copies go when the block ends."""
    find_file(location.path, create=False)
    with _folder_beside(location) as folder, explained(location):
        work = replace(location, path=folder / "work.db", backups=0)
        copy_database(location, work.path)
        yield SQLiteBench(work)


class SQLiteBench:
    """A copy that migrations change, one from before the last and one from after it."""

    reason = ""

    def __init__(self, work: SQLiteLocation) -> None:
        self._location = work
        self._work = work.path
        self._before = work.path.with_name("before.db")
        self._after = work.path.with_name("after.db")
        self._size = self._most = work.path.stat().st_size

    @property
    def room(self) -> int:
        """How many bytes the real run needs at most: a backup, and a journal of every page that there was."""
        return self._size + self._most

    def backend(self) -> AtomicSQLiteBackend:
        """Open the backend of the copy."""
        return AtomicSQLiteBackend(self._location)

    def keep_before(self) -> None:
        """Keep what there is, to compare with later."""
        shutil.copy(self._work, self._before)

    def keep_after(self) -> None:
        """Keep what there is after applying, to return to."""
        shutil.copy(self._work, self._after)
        self._most = max(self._most, self._after.stat().st_size)

    def return_to_after(self) -> bool:
        """Return to what `keep_after` kept."""
        shutil.copy(self._after, self._work)
        return True

    def damage(self) -> str:
        """Return what SQLite finds broken, an empty text if nothing is."""
        with _open(self._work) as connection:
            (verdict,) = connection.execute("PRAGMA integrity_check(1)").fetchone()
        return "" if verdict == "ok" else str(verdict)

    def changed_rows(self) -> Iterator[tuple[str, int]]:
        """Yield how many rows of each table are new, gone or different after applying."""
        with Two(self._before, self._after) as two:
            for table in two.all_tables():
                if count := two.changed_rows(table):
                    yield table, count

    def schema_differences(self) -> list[Difference]:
        """Return how the schema differs from what it was."""
        with _open(self._before) as before, _open(self._work) as back:
            return differences(describe(before), describe(back))

    def row_differences(self) -> Iterator[RowDifference]:
        """Yield how the rows of the tables that were there and are there differ from what they were."""
        with Two(self._before, self._work) as two:
            for table in two.shared_tables():
                yield from two.compare(table)

    def tables_of_one(self) -> Iterator[tuple[str, int]]:
        """Yield the tables with rows that were there or are there, not both, and how many rows."""
        with Two(self._before, self._work) as two:
            for table in sorted(set(two.all_tables()) - set(two.shared_tables())):
                if count := two.changed_rows(table):
                    yield table, count

    def texts_laid_out_differently(self) -> list[str]:
        """Return what has another text in the schema, though it may mean the same."""
        with _open(self._before) as before, _open(self._work) as back:
            texts = [set(stored_sql(connection)) for connection in (before, back)]
        return sorted({name for name, _ in texts[0] ^ texts[1]})


@contextlib.contextmanager
def _folder_beside(location: SQLiteLocation) -> Iterator[Path]:
    """Make a folder for copies, and remove it afterwards; and first what killed rehearsals have left."""
    name = f"{location.path.name}.rehearsal-"
    try:
        for left in location.path.parent.glob(f"{glob.escape(name)}*-*"):
            if not _is_running(left.name.removeprefix(name).partition("-")[0]):
                shutil.rmtree(left)
        own = f"{name}{os.getpid()}-"
        with tempfile.TemporaryDirectory(prefix=own, dir=location.path.parent) as folder:
            yield Path(folder)
    except OSError as error:
        raise kind_of(error)(
            f"cannot write copies beside {location.path} ({error.strerror}): make room, or correct the rights"
        ) from error


def _is_running(process: str) -> bool:
    """Return whether there is a process of that number; one that may not be asked is there, too."""
    try:
        os.kill(int(process), 0)
    except (ProcessLookupError, ValueError):
        return False
    except PermissionError:
        return True
    return True


def _open(path: Path) -> contextlib.closing[sqlite3.Connection]:
    return contextlib.closing(sqlite3.connect(path, isolation_level=None))
