"""What a migration may not take away: what no migration has made, and what one has found."""

import re
from pathlib import Path

import pytest

from poker_therapist import MigrationError, MigrationFailed, get_pattern_storage
from poker_therapist.location import locate
from poker_therapist.sqlite.backend import AtomicSQLiteBackend
from tests.helpers import old_app, snapshots
from tests.helpers.engines import is_server, query, run_sql, sqlite_only
from tests.helpers.migrating import FOLDER, IDS, down, up
from tests.helpers.project import Project

HANDS = "CREATE TABLE hands (id INTEGER PRIMARY KEY, note TEXT);"
REBUILD = """
-- depends: 001_add_hands
CREATE TABLE held AS SELECT id, note FROM hands;
DROP TABLE hands;
CREATE TABLE hands (id INTEGER PRIMARY KEY, note TEXT NOT NULL);
INSERT INTO hands SELECT id, note FROM held;
DROP TABLE held;
"""
ADDED = {
    "a column": ("ALTER TABLE hands ADD COLUMN mood TEXT", "column hands.mood"),
    "an index": ("CREATE INDEX by_note ON hands (note)", "index by_note"),
    "a name in quotes": ('CREATE INDEX "By ""note""" ON hands (note)', 'index by "note"'),
    "an indexed column": (
        'ALTER TABLE hands ADD COLUMN "The mood" TEXT; CREATE INDEX "Moods" ON hands ("The mood")',
        "index moods, column hands.the mood",
    ),
}
ADDED_ON_SQLITE = {
    "a trigger": (
        "CREATE TRIGGER noted AFTER INSERT ON hands BEGIN DELETE FROM hands WHERE id = 0; END",
        "trigger noted",
    ),
}


# The same name on another table, which a migration has made.
ADDED_ON_POSTGRESQL = {
    "a trigger": (
        'CREATE TRIGGER "Noted" AFTER INSERT ON hands EXECUTE FUNCTION nothing()',
        "trigger hands.noted",
    ),
}
NOTHING = """
CREATE FUNCTION nothing() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
CREATE TABLE others (id INT);
CREATE TRIGGER "Noted" AFTER INSERT ON others EXECUTE FUNCTION nothing();
"""


@pytest.mark.parametrize("kind", [*ADDED, *ADDED_ON_SQLITE])
@pytest.mark.parametrize("direction", ["apply", "rollback"])
def test_what_somebody_has_added_does_not_vanish_with_a_rebuild(
    kind: str, direction: str, project: Project
) -> None:
    """It is named; once it is dropped by hand the same command goes on."""
    on_server = is_server(project.database)
    statement, name = (ADDED | (ADDED_ON_POSTGRESQL if on_server else ADDED_ON_SQLITE))[kind]
    project.write("001_add_hands", HANDS + (NOTHING if on_server else ""), "DROP TABLE hands;")
    apply, rollback = (REBUILD, "SELECT 1;") if direction == "apply" else ("SELECT 1;", REBUILD)
    project.write("002_rebuild", "-- depends: 001_add_hands\n" + apply, rollback)
    steps = ("apply", "-m", "001") if direction == "apply" else ("apply",)
    assert project.yoyo(*steps).returncode == 0
    project.run_sql(statement)
    before = snapshots.everything(project.database)

    message = project.refuses(direction)

    assert f"would drop {name}, which no migration created" in message
    assert snapshots.everything(project.database) == before
    (statement,) = re.findall(r"drop it yourself \((.*)\), and", message)
    project.run_sql(statement)
    assert project.yoyo(direction).returncode == 0


def test_a_table_of_somebody_else_s_is_not_dropped(project: Project) -> None:
    project.run_sql("CREATE TABLE hats (id INTEGER PRIMARY KEY)")
    project.write("001_add_hands", HANDS + "DROP TABLE hats;")

    assert "would drop table hats, which no migration" in project.refuses("apply")
    assert project.tables() == ["hats"]


def test_what_migrations_have_made_goes_as_they_say(project: Project) -> None:
    """A column of an earlier one, an index, a table under another name."""
    project.write("001_add_hands", HANDS + "CREATE INDEX by_note ON hands (note);", "DROP TABLE hands;")
    project.write(
        "002_drop", "-- depends: 001_add_hands\nDROP INDEX by_note; ALTER TABLE hands DROP COLUMN note;"
    )
    project.write("003_rename", "-- depends: 002_drop\nALTER TABLE hands RENAME TO deals;")
    project.write("004_go", "-- depends: 003_rename\nDROP TABLE deals;")

    assert project.yoyo("apply").returncode == 0
    assert project.tables() == []


def test_a_table_of_the_app_s_with_the_name_of_ours_is_not_taken_for_ours(database_path: Path) -> None:
    run_sql(database_path, "CREATE TABLE user_insights (id INTEGER PRIMARY KEY, user_id INTEGER, text TEXT)")
    before = snapshots.everything(database_path)

    with pytest.raises(MigrationFailed, match="a table user_insights exists that is not ours"):
        get_pattern_storage(database_path)

    assert snapshots.everything(database_path) == before


@pytest.fixture
def adopted(database_path: Path) -> Path:
    old_app.make(database_path)
    up(database_path)
    return database_path


def test_an_adopted_database_is_not_rolled_back_below_its_floor(adopted: Path) -> None:
    """Not by the library; nothing is rolled back where not all of it can be."""
    before = snapshots.everything(adopted)
    with pytest.raises(MigrationError, match="adopted conversation_context, user_insights, user_patterns in"):
        down(adopted, IDS[0])
    assert snapshots.everything(adopted) == before

    down(adopted, IDS[1])
    with AtomicSQLiteBackend(locate(adopted)) as backend:
        (first,) = backend.to_rollback(backend.read([str(FOLDER)]))
        with pytest.raises(MigrationError, match="restore"):
            backend.rollback_one(first)
    assert snapshots.applied(adopted) == [IDS[0]]
    up(adopted)
    assert snapshots.applied(adopted) == IDS


@sqlite_only
def test_what_goes_is_seen_whatever_number_the_schema_has(project: Project) -> None:
    """What was asked before is asked again after a migration, also if that sets the number back."""
    project.write("001_add_hands", HANDS, "DROP TABLE hands;")
    assert project.yoyo("apply").returncode == 0
    project.run_sql("CREATE TABLE notes (id INTEGER)")
    ((number,),) = query(project.database, "PRAGMA schema_version")
    project.write(
        "002_tidy", f"-- depends: 001_add_hands\nDROP TABLE notes; PRAGMA schema_version = {number};"
    )

    assert "would drop table notes, which no migration created" in project.refuses("apply")
    assert project.tables() == ["hands", "notes"]


@pytest.mark.parametrize("command", [("rollback", "--all"), ("reapply", "--all")])
def test_yoyo_neither_rolls_back_nor_reapplies_what_was_adopted(
    command: tuple[str, str], project: Project
) -> None:
    """On either engine, where a migration finds a table that it would make if it was not there."""
    project.run_sql(
        "CREATE TABLE hands (id INTEGER PRIMARY KEY, note TEXT); INSERT INTO hands VALUES (1, 'a')"
    )
    project.write("001_add_hands", HANDS.replace("TABLE", "TABLE IF NOT EXISTS"), "DROP TABLE hands;")
    project.write(
        "002_more", "-- depends: 001_add_hands\nCREATE TABLE more (id INTEGER);", "DROP TABLE more;"
    )
    assert project.yoyo("apply").returncode == 0

    assert "001_add_hands adopted hands in" in project.refuses(*command)
    assert project.tables() == ["hands", "more"]
    assert project.yoyo("rollback").returncode == 0
    assert project.yoyo("rollback").returncode == 1
    assert project.tables() == ["hands"]


def test_what_001_has_made_is_rolled_back(database_path: Path) -> None:
    run_sql(database_path, "CREATE TABLE users (id INTEGER PRIMARY KEY)")
    up(database_path)
    down(database_path, IDS[0])

    assert snapshots.tables(database_path) == ["users"]
