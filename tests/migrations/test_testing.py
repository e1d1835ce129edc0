"""What `poker_therapist.testing` offers to other projects: checks on PostgreSQL, and a migrated database."""

import fcntl
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from poker_therapist import InvalidInput, MigrationFailed
from poker_therapist.testing import SERVER, PostgreSQLMigrationTests
from poker_therapist.testing.postgresql import PREFIX, PostgreSQLScratch
from tests.helpers.checkout import ROOT
from tests.helpers.databases import Databases
from tests.helpers.engines import query, run_sql

PAIRS = {
    "0001_add_hands": """-- Hands, and what was bet in them.
CREATE TABLE hands (id INTEGER PRIMARY KEY GENERATED ALWAYS AS IDENTITY, note TEXT NOT NULL);
CREATE FUNCTION shout(note TEXT) RETURNS TEXT LANGUAGE sql AS $$ SELECT upper(note); $$;
""",
    "0001_add_hands.rollback": """-- They go.
DROP FUNCTION shout;
DROP TABLE hands;
""",
    "0002_index_notes": """-- They are looked for.
-- transactional: false
-- depends: 0001_add_hands
DROP INDEX CONCURRENTLY IF EXISTS notes;
CREATE INDEX CONCURRENTLY notes ON hands (note);
""",
    "0002_index_notes.rollback": """-- It goes.
DROP INDEX CONCURRENTLY IF EXISTS notes;
""",
}


class Theirs(PostgreSQLMigrationTests):
    """Another project's folder for PostgreSQL."""

    def populate(self, database: str, version: str | None) -> None:
        if version == "0001_add_hands":
            run_sql(database, "INSERT INTO hands (note) VALUES ('river'), ('flop')")


@pytest.fixture
def server(
    databases: Databases, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """The URL of the server, in the variable that names it; one test at a time makes databases there."""
    url = databases.run.open()
    monkeypatch.setenv(SERVER, url)
    # Beside the folders of all workers.
    with (tmp_path_factory.getbasetemp().parent / "server.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield url


@pytest.fixture
def theirs(server: str, tmp_path: Path) -> Theirs:
    """The checks, and a folder for them."""
    folder = tmp_path / "migrations"
    folder.mkdir()
    for name, text in PAIRS.items():
        (folder / f"{name}.sql").write_text(text, encoding="utf-8")
    Theirs.folder = folder
    return Theirs()


def left(server: str) -> list[tuple[str]]:
    """Return the databases of this process's checks."""
    return query(server, f"SELECT datname FROM pg_database WHERE datname ~ '^{PREFIX}[0-9a-f]{{8}}_[0-9]+$'")


@pytest.mark.slow
def test_a_folder_for_postgresql_passes_and_leaves_no_database(
    theirs: Theirs, server: str, tmp_path: Path
) -> None:
    before = left(server)
    theirs.test_every_file_is_half_of_a_pair_and_says_why()
    theirs.test_plain_yoyo_splits_the_statements_as_sqlite_does()
    theirs.test_every_migration_goes_up_and_down_and_up(tmp_path)
    theirs.test_a_kill_at_any_statement_leaves_nothing_to_repair(tmp_path)

    assert set(left(server)) <= set(before)


def edit(theirs: Theirs, name: str, before: str, after: str) -> None:
    file = theirs.folder / f"{name}.sql"
    text = file.read_text(encoding="utf-8")
    assert before in text
    file.write_text(text.replace(before, after), encoding="utf-8")


def test_a_failing_check_names_the_statement_and_the_cause(theirs: Theirs, tmp_path: Path) -> None:
    edit(theirs, "0002_index_notes", "ON hands (note)", "ON hands (size)")
    said = r'migrations/0002_index_notes\.sql:5: column "size" does not exist\n    CREATE INDEX CONCURRENTLY'
    with pytest.raises(AssertionError, match=rf"^0002_index_notes:\napplying it failed: .*{said}"):
        theirs.test_every_migration_goes_up_and_down_and_up(tmp_path)
    with pytest.raises(AssertionError, match=rf"^apply of all migrations failed\n.*{said}"):
        theirs.test_a_kill_at_any_statement_leaves_nothing_to_repair(tmp_path)


def test_a_migration_that_only_the_next_one_needs_fails_with_its_place(
    theirs: Theirs, tmp_path: Path
) -> None:
    edit(theirs, "0001_add_hands", "CREATE TABLE hands", "CREATE TABLES hands")
    with pytest.raises(AssertionError, match=r"0001_add_hands\.sql:2: syntax error at or near .TABLES"):
        theirs.test_every_migration_goes_up_and_down_and_up(tmp_path)


@pytest.mark.slow
def test_a_rollback_that_cannot_be_repeated_is_stuck_after_a_kill(theirs: Theirs, tmp_path: Path) -> None:
    """With the statement before which it was killed, and what stands in the way."""
    edit(theirs, "0002_index_notes", "DROP INDEX CONCURRENTLY IF EXISTS notes;\n", "")
    with pytest.raises(AssertionError) as failed:
        theirs.test_a_kill_at_any_statement_leaves_nothing_to_repair(tmp_path)

    assert "stuck after a kill at statement" in str(failed.value)
    assert '0002_index_notes.sql:4: relation "notes" already exists' in str(failed.value)


@pytest.mark.slow
def test_what_is_done_twice_after_a_kill_shows_as_another_database(theirs: Theirs, tmp_path: Path) -> None:
    edit(theirs, "0002_index_notes", "DROP INDEX", "INSERT INTO hands (note) VALUES ('turn');\nDROP INDEX")
    with pytest.raises(AssertionError, match=ANOTHER):
        theirs.test_a_kill_at_any_statement_leaves_nothing_to_repair(tmp_path)


# With the statement.
ANOTHER = (
    r"^the database differs after a kill at statement \d+ of apply, before\n    DROP INDEX .*\n"
    "the rows of hands differ$"
)


def test_where_rows_cannot_be_put_in_the_version_is_said(theirs: Theirs, tmp_path: Path) -> None:
    edit(theirs, "0001_add_hands", "note TEXT NOT NULL", "notes TEXT NOT NULL")
    edit(theirs, "0002_index_notes", "(note)", "(notes)")
    with pytest.raises(Exception, match='column "note"') as failed:
        theirs.test_every_migration_goes_up_and_down_and_up(tmp_path)

    assert "at version 0001_add_hands" in "".join(failed.value.__notes__)


def test_without_a_server_the_message_says_how_to_name_one(
    theirs: Theirs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(SERVER)
    with pytest.raises(InvalidInput, match=f"set {SERVER}"):
        theirs.test_every_migration_goes_up_and_down_and_up(tmp_path)


@pytest.mark.parametrize("url", ["here.db", "sqlite:///here.db"])
def test_what_names_no_server_is_refused(url: str) -> None:
    with pytest.raises(InvalidInput, match="is no PostgreSQL server"):
        PostgreSQLScratch(url)


def test_what_a_killed_run_has_left_goes_with_the_next(server: str) -> None:
    """Nobody is in it, and its run is not connected."""
    scratch = PostgreSQLScratch(server)
    database = scratch.create()
    scratch._connection.close()
    name = database.partition("?")[0].rpartition("/")[2]
    assert (name,) in left(server)
    other = PostgreSQLScratch(server)
    other.close()

    assert (name,) not in left(server)


CONFTEST = """
import sqlite3
from contextlib import closing
from pathlib import Path

from poker_therapist import get_pattern_storage
from poker_therapist.testing import migrated_database

MADE = Path(__file__).with_name("made.txt")


def one_pattern(database):
    with MADE.open("a") as made:
        made.write(f"{database}\\n")
    with get_pattern_storage(database) as storage:
        storage.save_pattern(7, "tilt", "bad_beat", 1)


def a_hand(database):
    with closing(sqlite3.connect(database)) as connection, connection:
        connection.execute("INSERT INTO hands (note) VALUES ('river')")


file = migrated_database(populate=one_pattern)
url = migrated_database(engine="postgresql", populate=one_pattern)
hands = migrated_database("migrations", populate=a_hand)
broken = migrated_database("broken")
"""
TESTS = """
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from poker_therapist import get_pattern_storage


@pytest.mark.parametrize("time", range(3))
@pytest.mark.parametrize("name", ["file", "url"])
def test_each_test_has_a_database_of_its_own(name: str, time: int, request: pytest.FixtureRequest) -> None:
    database = request.getfixturevalue(name)
    assert isinstance(database, {"file": Path, "url": str}[name])
    with get_pattern_storage(database, migrate=False) as storage:
        assert storage.get_patterns_by_type(7, "tilt").keys() == {"bad_beat"}
        storage.save_pattern(7, "tilt", str(time), 2)


@pytest.mark.parametrize("time", range(2))
def test_a_folder_of_ones_own(hands: Path, time: int) -> None:
    with closing(sqlite3.connect(hands)) as connection, connection:
        connection.execute("INSERT INTO hands (note) VALUES ('flop')")
        assert connection.execute("SELECT note FROM hands").fetchall() == [("river",), ("flop",)]


def test_another(broken: Path) -> None:
    pass
"""


@pytest.mark.slow
def test_each_test_of_a_project_gets_a_copy_of_a_database_that_is_migrated_once(
    server: str, tmp_path: Path
) -> None:
    """In pytest runs of another project, whose server is left as it was."""
    pairs = {
        "migrations/1_hands.sql": "-- Hands.\nCREATE TABLE hands (note TEXT);",
        "broken/1_hands.sql": "-- Hands.\nCREATE TABLE hands (note TEXT);\nINSERT INTO hand VALUES ('x');",
    }
    for name, text in {"conftest.py": CONFTEST, "test_theirs.py": TESTS, **pairs}.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text, encoding="utf-8")
        if name.endswith(".sql"):
            (tmp_path / name).with_name("1_hands.rollback.sql").write_text("-- Gone.\nDROP TABLE hands;")
    before = left(server)
    ran = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-p",
            "no:cacheprovider",
            "-W",
            "error",
            "--rootdir",
            tmp_path,
        ],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )

    assert "8 passed, 1 error" in ran.stdout, ran.stdout + ran.stderr
    assert "broken/1_hands.sql:3: no such table: hand" in ran.stdout
    assert "INSERT INTO hand VALUES ('x')" in ran.stdout
    assert len((tmp_path / "made.txt").read_text().splitlines()) == 2
    assert set(left(server)) <= set(before)


def test_a_migration_that_fails_is_said_with_its_statement(tmp_path: Path) -> None:
    """As the fixture, and a check that migrates by itself, would raise it."""
    from poker_therapist.testing.scratch import SQLiteScratch

    folder = tmp_path / "broken"
    folder.mkdir()
    (folder / "1_x.sql").write_text("-- x\nDROP TABLE hands;")
    (folder / "1_x.rollback.sql").write_text("-- x\n")
    scratch = SQLiteScratch(tmp_path)
    with pytest.raises(MigrationFailed, match=r"1_x\.sql:2: no such table: hands\n    DROP TABLE hands"):
        scratch.migrate(scratch.create(), folder)


def test_importing_the_checks_needs_neither_pytest_nor_a_driver() -> None:
    script = "import sys, poker_therapist.testing; print({'pytest', 'psycopg'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)

    assert done.stdout == "set()\n"
