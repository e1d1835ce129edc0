"""Which tables a rollback would drop or empty, by its text."""

from pathlib import Path

import pytest

from poker_therapist.migrations.files import read_migrations
from poker_therapist.migrations.loss import emptied
from poker_therapist.schema import migrations_folder
from tests.helpers.engines import is_server
from tests.helpers.project import Project

EMPTIED = {
    "DROP TABLE hands": ["hands"],
    "drop table if exists Hands cascade": ["Hands"],
    'DROP TABLE "my hands", main.bets': ['"my hands"', "main.bets"],
    "DROP /* DROP TABLE x */ TABLE hands -- , bets": ["hands"],
    "-- why\nDROP TABLE [my hands]": ["[my hands]"],
    "DELETE FROM hands": ["hands"],
    "DELETE FROM hands RETURNING id": ["hands"],
    "DELETE FROM hands WHERE id = 1": ["hands"],
    "DELETE FROM hands USING bets": ["hands"],
    "INSERT INTO kept SELECT * FROM hands; DELETE FROM hands WHERE id = 1": [],
    "TRUNCATE hands, ONLY bets": ["hands", "ONLY", "bets"],
    "TRUNCATE TABLE ONLY public.hands RESTART IDENTITY": ["public.hands"],
    "ALTER TABLE hands RENAME TO old; DROP TABLE old": ["hands"],
    "INSERT INTO kept SELECT * FROM hands; DROP TABLE hands": [],
    "CREATE TABLE kept AS SELECT * FROM hands JOIN bets; DROP TABLE hands; DROP TABLE bets": [],
    "UPDATE hands SET a = kept.a FROM kept; DROP TABLE kept": [],
    "SELECT * FROM hands; DROP TABLE hands": ["hands"],
    "DELETE FROM hands; DROP TABLE hands": ["hands", "hands"],
    "INSERT INTO notes VALUES ('FROM hands'); DROP TABLE hands": ["hands"],
    "ALTER TABLE hands RENAME TO old; CREATE TABLE hands (id); INSERT INTO hands SELECT * FROM old; "
    "DROP TABLE old": [],
    "DROP INDEX hands; DROP VIEW bets; ALTER TABLE x DROP COLUMN y": [],
}


@pytest.mark.parametrize("sql", EMPTIED)
def test_what_a_text_drops_or_empties_is_found(sql: str) -> None:
    """Not what it has copied before."""
    assert [name for name, _ in emptied(sql.split("; "))] == EMPTIED[sql]


@pytest.mark.parametrize("folder", ["sqlite", "postgresql"])
def test_of_the_shipped_rollbacks_only_the_first_drops_what_it_has_not_copied(folder: str) -> None:
    """But for what PostgreSQL's 002 keeps nothing in."""
    found = {
        one.id: [name for name, _ in emptied(each.text for each in one.statements("rollback"))]
        for one in read_migrations([str(Path(migrations_folder(folder)))])
    }
    assert found.pop("001_add_pattern_storage") == ["user_insights", "conversation_context", "user_patterns"]
    assert {name for names in found.values() for name in names} <= {"legacy_rows"}


def test_rows_that_a_condition_selects_are_not_deleted_without_consent(project: Project) -> None:
    """How many it selects is not asked of the database: that would run a part of a text."""
    project.write("001_add_hands", "CREATE TABLE hands (id INTEGER);", "DROP TABLE hands;")
    project.write(
        "002_add_two",
        "-- depends: 001_add_hands\nINSERT INTO hands VALUES (1), (2);",
        "DELETE FROM hands WHERE id > 0;",
    )
    assert project.yoyo("apply").returncode == 0
    project.loses_rows = False

    assert "would delete 2 rows of hands at most, so nothing was changed" in project.refuses("rollback")
    assert project.query("SELECT count(*) FROM hands") == [(2,)]


@pytest.mark.slow
def test_a_table_of_very_many_rows_is_not_counted_to_its_end(two_migrations: Project) -> None:
    two_migrations.yoyo("apply")
    many = {
        False: "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1000003) "
        "SELECT i FROM n",
        True: "SELECT generate_series(1, 1000003)",
    }
    two_migrations.run_sql(f"INSERT INTO bets {many[is_server(str(two_migrations.database))]}")

    two_migrations.loses_rows = False
    assert "would delete 1,000,000 or more rows of bets," in two_migrations.refuses("rollback")
