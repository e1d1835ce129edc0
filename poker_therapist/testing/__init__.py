"""Checks for any folder of SQL pairs, ours or yours, and a migrated database for each of your tests.

Subclass `MigrationTests`, or `PostgreSQLMigrationTests`, and let pytest find it:

>>> class TestMigrations(MigrationTests):
...     folder = Path("migrations")
...
...     def populate(self, database: Path, version: str | None) -> None:
...         "Insert rows of every kind that this version of the schema can hold."

`migrated_database` makes a fixture.
"""

import os
import signal
import unittest
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, closing
from functools import partial
from itertools import count, zip_longest
from pathlib import Path
from typing import Any, ClassVar, Generic, Literal

import sqlparse

from poker_therapist.compat import override
from poker_therapist.errors import InvalidInput
from poker_therapist.migrations import files
from poker_therapist.migrations.files import SQLMigration, Statement
from poker_therapist.migrations.rehearse import Verdict, rehearse
from poker_therapist.migrations.scaffold import REASON
from poker_therapist.schema import migrations_folder
from poker_therapist.testing.kills import run_in_child
from poker_therapist.testing.scratch import D, Scratch, SQLiteScratch

SERVER = "POKER_THERAPIST_TEST_POSTGRESQL"


class _Checks(ABC, Generic[D]):
    """The checks that every folder of migrations must pass; each method is one test.

    Attributes:
        folder: where the pairs are.
        irreversible: ids whose rollback loses data; each must declare that in its rollback file.
        queries: the `.sql` files with the named queries of the code, which a migration with
            `-- compatible: true` must not break.
        owners: the columns with the owner of a row: such a migration creates no table with one of them.
    """

    folder: ClassVar[Path]
    irreversible: ClassVar[frozenset[str]] = frozenset()
    queries: ClassVar[Sequence[Path]] = ()
    owners: ClassVar[frozenset[str]] = frozenset()

    @abstractmethod
    def scratch(self, folder: Path) -> AbstractContextManager[Scratch[D]]:
        """Return what creates databases, until the block ends."""

    def split(self, text: str) -> list[Statement]:
        """Return the statements of a file, as the engine sees them."""
        return files.split(text)

    def populate(self, database: D, version: str | None) -> None:
        """Insert rows into a database at a version; None is before the first. Nothing, unless overridden."""

    def migrations(self) -> list[SQLMigration]:
        """Return the migrations, each after those that it depends on."""
        return list(files.read_migrations([str(self.folder)], split=self.split))

    def test_every_file_is_half_of_a_pair_and_says_why(self) -> None:
        """Both files exist, can be read, do not end the transaction, and begin with a reason."""
        for migration in self.migrations():
            for direction in ("apply", "rollback"):
                migration.statements(direction)
                text = _text(migration, direction)
                place = f"{migration.place(direction)}:1"
                assert text.lstrip().startswith("--"), (
                    f"{place}: {migration.id} has no comment at its top: write why the migration exists"
                )
                assert REASON not in text, f"{place}: {migration.id} is an unfilled template: fill it in"

    def test_plain_yoyo_splits_the_statements_as_sqlite_does(self) -> None:
        """So that the migrations also run with yoyo without the atomic backend."""
        for migration in self.migrations():
            for direction in ("apply", "rollback"):
                text = _text(migration, direction)
                ours = self.split(text)
                plain = [one.text for part in sqlparse.split(text) for one in self.split(part)]
                pairs = zip_longest(ours, plain)
                other = next((one for one, alone in pairs if not one or one.text != alone), None)
                assert plain == [one.text for one in ours], (
                    f"plain yoyo would split {migration.id} differently: {migration.place(direction)}:"
                    f"{other.line if other else 'its end'}\n    {other or plain[-1]}"
                )

    def test_every_migration_goes_up_and_down_and_up(self, tmp_path: Path) -> None:
        """On a populated database of each version, as in a rehearsal."""
        with self.scratch(tmp_path) as scratch:
            for place, migration in enumerate(self.migrations()):
                rehearsed = rehearse(
                    scratch.engine(self._at_version(scratch, place)),
                    [str(self.folder)],
                    to=migration.id,
                    queries=self.queries,
                    owners=self.owners,
                ).migrations[-1]
                known = migration.id in self.irreversible
                expected = (Verdict.IRREVERSIBLE,) if known else (Verdict.EXACT, Verdict.SCHEMA_EXACT)
                reasons = [*rehearsed.reasons, *rehearsed.broken_promises]
                if known and not reasons:
                    reasons = ["its rollback loses nothing: remove it from `irreversible`"]

                assert rehearsed.verdict in expected, "\n".join([f"{migration.id}:", *reasons])
                assert not rehearsed.broken_promises, "\n".join(
                    [f"{migration.id} declares `-- compatible: true`, but:", *reasons]
                )

    def test_a_kill_at_any_statement_leaves_nothing_to_repair(self, tmp_path: Path) -> None:
        """Apply all and roll all back, killed before each statement, then run the same again."""
        if not hasattr(os, "fork"):
            raise unittest.SkipTest("this test kills a forked process, and this system cannot fork")
        with self.scratch(tmp_path) as scratch:
            start = self._at_version(scratch, 0)
            end = scratch.copy(start)
            self._do(scratch, end, "apply")
            for direction, original in (("apply", start), ("rollback", end)):
                whole = scratch.copy(original)
                self._do(scratch, whole, direction)
                finished: list[object] = []  # states left by kills: the same has the same end
                for step in count(1):
                    database = scratch.copy(original)
                    migrate = partial(scratch.migrate, database, self.folder, direction)
                    killed = run_in_child(migrate, scratch.watch, step)
                    if killed.code != -signal.SIGKILL:
                        break
                    where = f"after a kill at statement {step} of {direction}, before\n    {killed.said}"
                    if (state := scratch.state(database)) not in finished:
                        self._do(scratch, database, direction, f"the migration is stuck {where}")
                        differences = scratch.differences(whole, database)
                        assert not differences, "\n".join([f"the database differs {where}", *differences])
                        finished.append(state)
                    scratch.drop(database)

                assert killed.code == 0, f"{direction} failed: {killed.said}"
                assert step > 1

    def _do(self, scratch: Scratch[D], database: D, direction: str, otherwise: str = "") -> None:
        """Migrate in a child process; if that fails, report what failed, and why."""
        ended = run_in_child(partial(scratch.migrate, database, self.folder, direction), scratch.watch)
        assert ended.code == 0, f"{otherwise or f'{direction} of all migrations failed'}\n{ended.said}"

    def _at_version(self, scratch: Scratch[D], place: int) -> D:
        """Create a database with the first `place` migrations, populated at each version."""
        database = scratch.create()
        self._populate(database, None)
        for migration in self.migrations()[:place]:
            with scratch.engine(database).backend() as backend:
                backend.apply_one(migration)
            self._populate(database, migration.id)
        return database

    def _populate(self, database: D, version: str | None) -> None:
        try:
            self.populate(database, version)
        except Exception as error:
            error.add_note(f"populating {database} at version {version or 'None, before the first'}")
            raise


class MigrationTests(_Checks[Path]):
    """The checks of a folder for SQLite; `populate` is given a file."""

    @override
    def scratch(self, folder: Path) -> AbstractContextManager[Scratch[Path]]:
        return closing(SQLiteScratch(folder))


class PostgreSQLMigrationTests(_Checks[str]):
    """The checks of a folder for PostgreSQL; `populate` is given the URL of a database.

    Attributes:
        server: the URL of a database of the server, as a role that may create others, which are dropped at
            the end. Unless given, the variable POKER_THERAPIST_TEST_POSTGRESQL has it.
    """

    server: ClassVar[str] = ""

    @override
    def scratch(self, folder: Path) -> AbstractContextManager[Scratch[str]]:
        return closing(_on_server(self.server))

    @override
    def split(self, text: str) -> list[Statement]:
        from poker_therapist.postgresql.split import split

        return split(text)


def migrated_database(
    folder: str | Path | None = None,
    *,
    engine: Literal["sqlite", "postgresql"] = "sqlite",
    server: str = "",
    populate: Callable[[Any], object] | None = None,
) -> Any:
    """Return a pytest fixture: a separate database for each test, with all migrations of a folder.

    They are applied once in a run of pytest; the database of each test is a copy.

    >>> database = migrated_database("migrations")  # in a conftest.py; a test then asks for `database`

    Args:
        folder: the pairs (default: those of this package).
        engine: their engine. A test gets the path of a file, or the URL of a database.
        server: as for `PostgreSQLMigrationTests`.
        populate: called once, with the migrated database, to insert rows for all tests.
    """
    import pytest

    pairs = migrations_folder(engine) if folder is None else Path(folder)
    templates: list[tuple[Scratch[Any], Any]] = []

    @pytest.fixture
    def migrated(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
        if not templates:
            with ExitStack() as stack:
                scratch: Scratch[Any] = (
                    _on_server(server)
                    if engine == "postgresql"
                    else SQLiteScratch(tmp_path_factory.mktemp("migrated"))
                )
                stack.callback(scratch.close)
                template = scratch.create()
                scratch.migrate(template, pairs)
                if populate is not None:
                    populate(template)
                scratch.freeze(template)
                request.config.add_cleanup(stack.pop_all().close)
                templates.append((scratch, template))
        scratch, template = templates[0]
        database = scratch.copy(template)
        yield database
        scratch.drop(database)

    return migrated


def _on_server(server: str) -> Scratch[str]:
    """Return what creates databases on a server.

    Raises:
        InvalidInput: no server is given.
    """
    if not (url := server or os.environ.get(SERVER, "")):
        raise InvalidInput(
            f"no PostgreSQL server is given: set {SERVER}, or `server`, to the URL of one of its databases, "
            "with a role that may create databases"
        )
    from poker_therapist.testing.postgresql import PostgreSQLScratch

    return PostgreSQLScratch(url)


def run_killed_at(step: int, action: Callable[[], Any]) -> int:
    """Run something with SQLite files in a child that is killed before statement `step`; 0 lets it live.

    Returns:
        The child's exit code: 0, 1 if the action raised, minus the signal that ended it.
    """
    return run_in_child(action, SQLiteScratch(Path()).watch, step).code


def _text(migration: SQLMigration, direction: str) -> str:
    return migration.apply_sql if direction == "apply" else migration.rollback_sql or ""
