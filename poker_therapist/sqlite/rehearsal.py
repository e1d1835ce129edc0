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
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from poker_therapist.compat import override
from poker_therapist.errors import file_error
from poker_therapist.location import SQLiteLocation
from poker_therapist.migrations.catalog import Catalog
from poker_therapist.migrations.engine import RehearsalCopy
from poker_therapist.migrations.files import SQLMigration, Statement
from poker_therapist.migrations.lock_report import WRITERS, LockReport, StatementReport
from poker_therapist.new_files import PrivateFolder, private_folder, private_folders
from poker_therapist.sqlfile import Placeholders, read_queries
from poker_therapist.sqlite.backend import AtomicSQLiteBackend
from poker_therapist.sqlite.backup import copy_database
from poker_therapist.sqlite.catalog import Entry, describe, entries
from poker_therapist.sqlite.compare import SQLiteRowComparison, stored_sql
from poker_therapist.sqlite.connect import find_file, integrity_error, translating_errors, watched

_WORK, _BEFORE, _AFTER = "work.db", "before.db", "after.db"


@contextlib.contextmanager
def rehearsal_copy(location: SQLiteLocation) -> Iterator["SQLiteRehearsalCopy"]:
    """Copy a database, to try migrations on; the copies go when the block ends."""
    find_file(location.path, create=False)
    parent, pattern = _copies(location)
    private_folders(parent, pattern, remove=True)
    try:
        with (
            translating_errors(location),
            private_folder(parent, f"{location.path.name}.rehearsal-") as folder,
        ):
            work = replace(location, path=folder.path / _WORK, backups=0)
            descriptor = folder.create(_WORK)
            try:
                copy_database(location, work.path, descriptor)
            finally:
                os.close(descriptor)
            yield SQLiteRehearsalCopy(work, folder)
    except OSError as error:
        raise file_error(error, f"cannot write copies beside {location.path}") from error


class _ObservedBackend(AtomicSQLiteBackend):
    """A backend of a copy that reports for how long it holds the one write lock that a file has."""

    def __init__(self, location: SQLiteLocation, report: LockReport) -> None:
        super().__init__(location)
        self._report, self._started = report, 0.0

    @override
    def begin(self) -> None:
        super().begin()
        self._started = time.perf_counter()

    @override
    def commit(self) -> None:
        super().commit()
        if self._report.statements:
            self._report.hold(WRITERS, "the database", self._started)
            self._report.release(time.perf_counter())

    @override
    def run(self, migration: SQLMigration, statement: Statement, direction: str) -> None:
        start, before = time.perf_counter(), self._changes()
        super().run(migration, statement, direction)
        now, after = time.perf_counter(), self._changes()
        self._report.statements.append(StatementReport(statement.line, now - start))
        if not self.connection.in_transaction and before != after:  # it has held the lock by itself
            self._report.hold(WRITERS, "the database", start)
            self._report.release(now)


class SQLiteRehearsalCopy(RehearsalCopy):
    """A copy that migrations change, one from before the last and one from after it."""

    def __init__(self, work: SQLiteLocation, folder: PrivateFolder) -> None:
        self._location = work
        self._folder = folder
        self._work = work.path
        self._before = work.path.with_name(_BEFORE)
        self._size = self._most = work.path.stat().st_size

    @property
    @override
    def disk_space_needed(self) -> int:
        return self._size + self._most

    @override
    def backend(self) -> AtomicSQLiteBackend:
        self.lock_report = LockReport()
        backend = _ObservedBackend(self._location, self.lock_report)
        backend.is_rehearsal = True
        return backend

    @override
    def keep_before(self) -> None:
        self._copy(_WORK, _BEFORE)

    @override
    def keep_after(self) -> None:
        self._most = max(self._most, self._copy(_WORK, _AFTER))

    @override
    def return_to_after(self) -> bool:
        self._folder.replace(_AFTER, _WORK)
        return True

    def _copy(self, source: str, target: str) -> int:
        """Copy a file of the folder over another, and return its size."""
        open_ = self._folder.open
        with (
            os.fdopen(open_(source, os.O_RDONLY), "rb") as read,
            os.fdopen(open_(target, os.O_CREAT | os.O_TRUNC | os.O_WRONLY), "wb") as write,
        ):
            shutil.copyfileobj(read, write, 2**20)
            return write.tell()

    @override
    def integrity_error(self) -> str:
        with _open(self._work) as connection:  # no statement can leave an index without a row
            return integrity_error(connection, of_indexes=False)

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
    def refused_queries(self, files: Sequence[Path]) -> dict[str, str]:
        refused = {}
        with _open(self._work) as connection:
            for name, query in read_queries(Placeholders.SQLITE, *files).items():
                try:
                    connection.execute(f"EXPLAIN {query}")
                except sqlite3.ProgrammingError:
                    continue  # it has been prepared, and now its values are missing
                except sqlite3.Error as error:
                    refused[name] = str(error)
        return refused

    @override
    def texts_laid_out_differently(self) -> list[str]:
        with _open(self._before) as before, _open(self._work) as now:
            texts = [set(stored_sql(connection)) for connection in (before, now)]
        return sorted({name for name, _ in texts[0] ^ texts[1]})


def left_copies(location: SQLiteLocation) -> list[Path]:
    """Return the folders that killed rehearsals of a database have left, with its players' rows in them."""
    return [path for path, left in private_folders(*_copies(location)).items() if left]


def _copies(location: SQLiteLocation) -> tuple[Path, str]:
    """Return the folder for the copies, and a pattern of their names.

    It is the database's, or, where that may not be written, the system's.
    """
    parent = location.path.parent
    if not os.access(parent, os.W_OK):
        parent = Path(tempfile.gettempdir())
    return parent, re.escape(location.path.name) + r"\.rehearsal-\w{8}"


def _open(path: Path) -> contextlib.closing[sqlite3.Connection]:
    return contextlib.closing(watched(sqlite3.connect(path, isolation_level=None), path))
