"""Trying the pending migrations on a copy of a database, there and back and there again.

Nothing is written to the original. The copies lie in a temporary folder beside it, so that there is room if
there is room for the real run, and rows are compared inside SQLite, so that memory stays flat.
"""

import contextlib
import glob
import os
import shutil
import sqlite3
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from enum import StrEnum
from functools import partial
from pathlib import Path

from poker_therapist.database import Location
from poker_therapist.errors import MigrationFailed, PokerTherapistError, StorageError
from poker_therapist.migrations import migrations_folder
from poker_therapist.migrations.backup import copy_database, explained
from poker_therapist.migrations.catalog import describe, differences
from poker_therapist.migrations.compare import RowDifference, Two, stored_sql
from poker_therapist.migrations.files import SQLMigration, read_migrations
from poker_therapist.migrations.sqlite import AtomicSQLiteBackend
from poker_therapist.sqlite_file import find_file


class Verdict(StrEnum):
    """What is left of a database that went up and down again."""

    # Every byte of schema and rows that it had.
    EXACT = "exact"
    # The same schema and the same rows, some with other values.
    SCHEMA_EXACT = "schema-exact"
    # Something else, or no way back.
    IRREVERSIBLE = "irreversible"


@dataclass(slots=True)
class Rehearsed:
    """One migration, there and back.

    Attributes:
        seconds: how long applying it took, on this machine.
        changed: how many rows of each table are not what they were after applying it.
        verdict: what rolling it back gives; None if applying it failed.
        reasons: why the verdict is no better, or what failed.
    """

    id: str
    seconds: float = 0.0
    changed: dict[str, int] = field(default_factory=dict)
    verdict: Verdict | None = None
    reasons: list[str] = field(default_factory=list)


@dataclass(slots=True)
class Rehearsal:
    """All pending migrations, in order; the last may have failed.

    Attributes:
        room: how many bytes the real run needs at most, for its backup, its journal and what it adds.
    """

    migrations: list[Rehearsed]
    room: int

    @property
    def is_safe(self) -> bool:
        """Whether every migration works and going back gives at least the same schema and rows."""
        good = (Verdict.EXACT, Verdict.SCHEMA_EXACT)
        return all(one.verdict in good for one in self.migrations)


Progress = Callable[[str, int, int], None]


def no_progress(doing: str, done: int, total: int) -> None:
    """Show nothing."""


def rehearse(
    location: Location,
    *,
    to: str | None = None,
    sources: list[str] | None = None,
    progress: Progress = no_progress,
) -> Rehearsal:
    """Apply what is pending to a copy, roll it back, compare, and apply it again, one migration at a time.

    Args:
        location: the database; it is read, never written.
        to: the last migration to try, or how its id begins; all pending unless given.
        sources: folders of migrations; those of this version unless given.
        progress: called with what is being done, how much is done and how much there is.

    Raises:
        MigrationError: a file cannot be used, or `to` is not pending.
        StorageError: the database cannot be read, or there is no room for its copies.
    """
    find_file(location.path, create=False)
    with _folder_beside(location) as folder, explained(location):
        work = replace(location, path=folder / "work.db", backups=0)
        copy_database(location, work.path)
        files = read_migrations(sources or [str(migrations_folder("sqlite"))])
        with AtomicSQLiteBackend(work) as backend:
            pending = list(backend.to_apply(files))
            backend.require_unedited(list(files))
        if to is not None:
            ids = [one.id for one in pending]
            named = [one for one in ids if one == to] or [one for one in ids if one.startswith(to)]
            if len(named) != 1:
                raise MigrationFailed(
                    f"{to} is not pending, or is more than one: pending are {', '.join(ids) or 'none'}"
                )
            pending = pending[: ids.index(named[0]) + 1]
        size = work.path.stat().st_size
        done: list[Rehearsed] = []
        room = 0
        for number, migration in enumerate(pending):
            steps = _Steps(work, migration, partial(_tell, progress, number, len(pending)))
            done.append(steps.run())
            room = max(room, steps.room)
            if done[-1].verdict is None:
                break
        return Rehearsal(done, room + size if pending else 0)


@contextlib.contextmanager
def _folder_beside(location: Location) -> Iterator[Path]:
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
        raise StorageError(
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


def _tell(progress: Progress, done: int, total: int, doing: str) -> None:
    progress(doing, done, total)


class _Steps:
    """What is done with one migration, on the copy and on a copy of that from before."""

    def __init__(self, work: Location, migration: SQLMigration, progress: Callable[[str], None]) -> None:
        self.work = work
        self.before = work.path.with_name("before.db")
        self.after = work.path.with_name("after.db")
        self.migration = migration
        self.progress = progress
        self.result = Rehearsed(migration.id)
        self.room = 0

    def run(self) -> Rehearsed:
        shutil.copy(self.work.path, self.before)
        if self._attempt("applying", self._apply):
            shutil.copy(self.work.path, self.after)
            # A journal holds at most every page that there was.
            self.room = max(self.before.stat().st_size, self.after.stat().st_size)
            self.result.changed = dict(self._changed())
            if self._attempt("rolling back", self._roll_back):
                self.progress(f"comparing {self.migration.id}")
                self._judge()
                if not self._attempt("applying again", self._apply):
                    self.result.verdict = Verdict.IRREVERSIBLE
            else:
                self.result.verdict = Verdict.IRREVERSIBLE
            shutil.copy(self.after, self.work.path)
        return self.result

    def _attempt(self, doing: str, action: Callable[[], None]) -> bool:
        self.progress(f"{doing} {self.migration.id}")
        try:
            action()
            with _open(self.work.path) as connection:
                (verdict,) = connection.execute("PRAGMA integrity_check(1)").fetchone()
        except PokerTherapistError as error:
            self.result.reasons.append(f"{doing} it failed: {error}")
            return False
        if verdict != "ok":
            self.result.reasons.append(f"{doing} it damaged the database: {verdict}")
        return bool(verdict == "ok")

    def _apply(self) -> None:
        start = time.perf_counter()
        with AtomicSQLiteBackend(self.work) as backend:
            backend.apply_one(self.migration)
        self.result.seconds = self.result.seconds or time.perf_counter() - start

    def _roll_back(self) -> None:
        with AtomicSQLiteBackend(self.work) as backend:
            backend.rollback_one(self.migration)

    def _changed(self) -> Iterator[tuple[str, int]]:
        """Return how many rows of each table are new, gone or different after applying."""
        with Two(self.before, self.after) as two:
            for table in two.all_tables():
                if count := two.changed_rows(table):
                    yield table, count

    def _judge(self) -> None:
        """Compare what came back with what there was."""
        with _open(self.before) as before, _open(self.work.path) as back:
            schema = differences(describe(before), describe(back))
            texts = [set(stored_sql(connection)) for connection in (before, back)]
        with Two(self.before, self.work.path) as two:
            rows: list[RowDifference] = [part for table in two.shared_tables() for part in two.compare(table)]
            for table in sorted(set(two.all_tables()) - set(two.shared_tables())):
                if count := two.changed_rows(table):
                    self.result.reasons.append(f"{count:,} rows of {table} are gone or left over with it")
        self.result.reasons += [str(part) for part in (*schema, *rows)]
        if schema or any(part.column is None for part in rows):
            self.result.verdict = Verdict.IRREVERSIBLE
        elif rows or texts[0] != texts[1]:
            self.result.verdict = Verdict.SCHEMA_EXACT
            if names := sorted({name for name, _ in texts[0] ^ texts[1]}):
                self.result.reasons.append(f"the SQL text of {', '.join(names)} is laid out differently")
        else:
            self.result.verdict = Verdict.EXACT


def _open(path: Path) -> contextlib.closing[sqlite3.Connection]:
    return contextlib.closing(sqlite3.connect(path, isolation_level=None))
