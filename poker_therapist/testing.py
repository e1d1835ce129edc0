"""Checks for any folder of SQL pairs, ours or yours: subclass `MigrationTests` and let pytest find it.

>>> class TestMigrations(MigrationTests):
...     folder = Path("migrations")
...
...     def populate(self, database: Path, version: str | None) -> None:
...         "Insert rows of every kind that this version of the schema can hold."
"""

import contextlib
import os
import shutil
import signal
import sqlite3
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import sqlparse
from yoyo.migrations import topological_sort

from poker_therapist.location import SQLiteLocation
from poker_therapist.migrations.files import SQLMigration, read_migrations, split
from poker_therapist.migrations.rehearse import Verdict, rehearse
from poker_therapist.migrations.scaffold import REASON
from poker_therapist.sqlite import backend, backup
from poker_therapist.sqlite.backend import AtomicSQLiteBackend
from poker_therapist.sqlite.compare import SQLiteRowComparison, stored_sql
from poker_therapist.sqlite.connect import open_connection
from poker_therapist.sqlite.engine import SQLiteEngine


class MigrationTests:
    """What every folder of migrations must stand; each method is one test.

    Attributes:
        folder: where the pairs are.
        irreversible: ids whose rollback is known to lose something; each must say so in its rollback file.
    """

    folder: ClassVar[Path]
    irreversible: ClassVar[frozenset[str]] = frozenset()

    def populate(self, database: Path, version: str | None) -> None:
        """Insert rows into a database at a version; None is before the first. Nothing, unless overridden."""

    def migrations(self) -> list[SQLMigration]:
        """Return the migrations, each after those that it depends on."""
        files = read_migrations([str(self.folder)])
        return list(topological_sort(files))

    def test_every_file_is_half_of_a_pair_and_says_why(self) -> None:
        """Both halves are there, can be read, leave the transaction alone and open with a reason."""
        for migration in self.migrations():
            for direction in ("apply", "rollback"):
                migration.statements(direction)
            for text in (migration.apply_sql, migration.rollback_sql or ""):
                assert text.lstrip().startswith("--"), f"{migration.id} does not open with its reason"
                assert REASON not in text, f"{migration.id} has not been filled in"

    def test_plain_yoyo_splits_the_statements_as_sqlite_does(self) -> None:
        """So that the migrations also run where somebody uses yoyo without the atomic backend."""
        for migration in self.migrations():
            for text in (migration.apply_sql, migration.rollback_sql or ""):
                ours = [statement.text for statement in split(text)]
                plain = [statement.text for part in sqlparse.split(text) for statement in split(part)]

                assert plain == ours, f"yoyo alone would split {migration.id} in other places"

    def test_every_migration_goes_up_and_down_and_up(self, tmp_path: Path) -> None:
        """On a populated database of each version, as a rehearsal sees it."""
        for place, migration in enumerate(self.migrations()):
            folder = tmp_path / migration.id
            folder.mkdir()
            database = self._at_version(folder / "database.db", place)
            (rehearsed,) = rehearse(
                SQLiteEngine(SQLiteLocation(database)), [str(self.folder)], to=migration.id
            ).migrations
            known = migration.id in self.irreversible
            expected = (Verdict.IRREVERSIBLE,) if known else (Verdict.EXACT, Verdict.SCHEMA_EXACT)

            assert rehearsed.verdict in expected, "\n".join([f"{migration.id}:", *rehearsed.reasons])

    def test_a_kill_at_any_statement_leaves_nothing_to_repair(self, tmp_path: Path) -> None:
        """Applying all and rolling all back, killed before each statement, and then simply run again."""
        start = self._at_version(tmp_path / "start.db", 0)
        end = Path(shutil.copy(start, tmp_path / "end.db"))
        assert run_killed_at(0, partial(self._migrate, end, "apply")) == 0
        for direction, original in (("apply", start), ("rollback", end)):
            whole = Path(shutil.copy(original, tmp_path / f"{direction}.db"))
            assert run_killed_at(0, partial(self._migrate, whole, direction)) == 0
            path, step = tmp_path / "killed.db", 1
            migrate = partial(self._migrate, path, direction)
            shutil.copy(original, path)
            while run_killed_at(step, migrate) == -signal.SIGKILL:
                assert run_killed_at(0, migrate) == 0, (
                    f"stuck after a kill at statement {step} of {direction}"
                )
                assert_same(whole, path)
                shutil.copy(original, path)
                step += 1

            assert step > 1

    def _at_version(self, database: Path, place: int) -> Path:
        """Make a database with the first `place` migrations, populated at each version."""
        migrations = self.migrations()
        with contextlib.closing(sqlite3.connect(database)) as connection:
            connection.execute("VACUUM")  # a file with a header, still empty
        self.populate(database, None)
        with AtomicSQLiteBackend(SQLiteLocation(database, backups=0)) as backend:
            for migration in migrations[:place]:
                backend.apply_one(migration)
                self.populate(database, migration.id)
        return database

    def _migrate(self, database: Path, direction: str) -> None:
        with AtomicSQLiteBackend(SQLiteLocation(database, backups=0)) as backend:
            files = read_migrations([str(self.folder)])
            if direction == "apply":
                backend.apply_migrations(backend.to_apply(files))
            else:
                backend.rollback_migrations(backend.to_rollback(files))


def assert_same(expected: Path, actual: Path) -> None:
    """Assert that two databases have the same schema, to the letter, and the same rows."""
    with SQLiteRowComparison(expected, actual) as rows:
        assert rows.all_tables() == rows.shared_tables()
        assert [str(difference) for difference in rows.differences()] == []
    texts = []
    for path in (expected, actual):
        with contextlib.closing(sqlite3.connect(path)) as connection:
            texts.append(stored_sql(connection))
            assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    assert texts[0] == texts[1]


def run_killed_at(step: int, action: Callable[[], Any]) -> int:
    """Run something in a child that is killed before its SQL statement number `step`; 0 lets it live.

    Returns:
        The child's exit code: 0, 1 if the action raised, minus the signal that ended it.
    """
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    code = 1
    with contextlib.suppress(BaseException):
        kill_at(step)
        action()
        code = 0
    os._exit(code)


# The last are SQLite's own, of the tables behind a PRAGMA.
_READS = ("SELECT", "EXPLAIN", "PRAGMA", "--")


def kill_at(step: int) -> None:
    """Have the migrations' connections count statements, COMMIT included, and die at `step`.

    To die before one that only reads is to die before the next that writes: those are not counted.
    """
    seen = 0

    def count(statement: str) -> None:
        nonlocal seen
        if statement.lstrip().upper().startswith(_READS):
            return
        seen += 1
        if seen == step:
            os.kill(os.getpid(), signal.SIGKILL)

    def traced(location: SQLiteLocation) -> sqlite3.Connection:
        connection = open_connection(location)
        connection.set_trace_callback(count)
        return connection

    for module in (backend, backup):
        module.open_connection = traced  # type: ignore[attr-defined]  # the name that each has imported
