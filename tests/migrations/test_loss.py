"""Which rows and values a rollback would lose, by its text, and how many there are."""

import re
from pathlib import Path

import pytest

from poker_therapist.migrations.effects import losses
from poker_therapist.migrations.files import Statement, read_migrations
from poker_therapist.schema import migrations_folder
from tests.helpers import old_app
from tests.helpers.cli import command
from tests.helpers.engines import is_server, query
from tests.helpers.project import Project

MERGE = "MERGE INTO hands USING bets ON hands.id = bets.id WHEN MATCHED THEN "
REBUILT = (
    "CREATE TABLE made (id); INSERT INTO made SELECT {} FROM hands{}; DROP TABLE hands; "
    "ALTER TABLE made RENAME TO hands"
)
HELD = (
    "CREATE TABLE held AS SELECT {} FROM hands; DROP TABLE hands; CREATE TABLE hands (id); "
    "INSERT INTO hands {}; DROP TABLE held"
)
RENAMED = (
    "ALTER TABLE hands RENAME TO old; CREATE TABLE hands (id); INSERT INTO hands SELECT * FROM old; "
    "DROP TABLE old"
)
# By what is lost: whole tables, a ? behind what a condition selects; columns; what cannot be counted.
LOST = {
    "DROP TABLE hands": ["hands"],
    "drop table if exists Hands cascade": ["Hands"],
    'DROP TABLE "my hands", main.bets': ['"my hands"', "main.bets"],
    "DROP /* DROP TABLE x */ TABLE hands -- , bets": ["hands"],
    "-- why\nDROP TABLE [my hands]": ["[my hands]"],
    'DROP TABLE "it\'s", "x--y", [that\'s]': ['"it\'s"', '"x--y"', "[that's]"],
    "UPDATE hands SET tags = ARRAY['a WHERE b']": ["hands.tags"],
    "DELETE FROM hands": ["hands"],
    "DELETE FROM hands RETURNING id": ["hands"],
    "DELETE FROM hands WHERE id = 1": ["hands ?"],
    "DELETE FROM hands WHERE(id = 1)": ["hands ?"],
    "DELETE FROM hands USING bets": ["hands ?"],
    "WITH a AS (SELECT 1) DELETE FROM hands": ["hands"],
    "WITH a AS (DELETE FROM hands RETURNING *) SELECT * FROM a": ["hands"],
    "WITH a AS (DELETE FROM hands RETURNING *) INSERT INTO bets SELECT * FROM a": [],
    "TRUNCATE hands, ONLY bets": ["hands", "bets"],
    "TRUNCATE TABLE ONLY public.hands RESTART IDENTITY": ["public.hands"],
    "TRUNCATE hands CASCADE": ["hands", "TRUNCATE hands CASCADE"],
    f"{MERGE} DELETE": ["hands ?"],
    f"{MERGE} UPDATE SET a = bets.a; DROP TABLE bets": [],
    "DROP SCHEMA old CASCADE": ["schema old"],
    "DROP SCHEMA old": [],
    "DROP TYPE mood CASCADE": ["DROP TYPE mood CASCADE"],
    "ALTER TYPE spot DROP ATTRIBUTE x": ["ALTER TYPE spot DROP ATTRIBUTE x"],
    "DROP OWNED BY rex": ["DROP OWNED BY rex"],
    "CALL tidy()": ["CALL tidy()"],
    "DO $$ BEGIN DELETE FROM hands; END $$": ["DO"],
    "DO $$ BEGIN PERFORM 1; END $$": [],
    # Copied before, or not
    "INSERT INTO kept SELECT * FROM hands; DROP TABLE hands": [],
    "INSERT INTO kept SELECT * FROM hands; DELETE FROM hands WHERE id = 1": [],
    "INSERT INTO kept SELECT * FROM hands WHERE id = 1; DROP TABLE hands": ["hands ?"],
    "INSERT OR IGNORE INTO kept SELECT * FROM hands; DELETE FROM hands": ["hands ?"],
    "DELETE FROM hands WHERE id = 1; INSERT INTO kept SELECT * FROM hands; DROP TABLE hands": ["hands ?"],
    "CREATE TABLE kept AS TABLE hands; DROP TABLE hands": [],
    "CREATE TABLE kept AS TABLE hands WITH NO DATA; DROP TABLE hands": ["hands"],
    "SELECT * INTO kept FROM hands; DROP TABLE hands": [],
    "CREATE TABLE kept AS SELECT * FROM hands JOIN bets; DROP TABLE hands; DROP TABLE bets": [],
    "CREATE TABLE kept AS SELECT * FROM hands h, bets AS b; DROP TABLE hands; DROP TABLE bets": [],
    "INSERT INTO kept SELECT * FROM bets WHERE id IN (SELECT id FROM hands); DROP TABLE hands": ["hands"],
    "CREATE VIEW kept AS SELECT * FROM hands; DROP TABLE hands": ["hands"],
    "SELECT * FROM hands; DROP TABLE hands": ["hands"],
    "INSERT INTO notes VALUES ('FROM hands'); DROP TABLE hands": ["hands"],
    "UPDATE hands SET a = kept.note FROM kept WHERE hands.id = kept.id; DROP TABLE kept": ["kept.mood"],
    "CREATE TABLE held AS SELECT * FROM hands; DROP TABLE hands; DROP TABLE held": ["hands"],
    "DELETE FROM hands; DROP TABLE hands": ["hands"],
    "ALTER TABLE hands RENAME TO old; DROP TABLE old": ["hands"],
    RENAMED: [],
    "CREATE TABLE held (id); DROP TABLE held": [],
    "CREATE TABLE IF NOT EXISTS hands (id); DROP TABLE hands": ["hands"],
    REBUILT.format("*", ""): [],
    REBUILT.format("*", " WHERE id > 1"): ["hands ?"],
    REBUILT.format("id, note, mood", ""): [],
    HELD.format("*", "SELECT * FROM held"): [],
    HELD.format("id, note, mood", "SELECT * FROM held"): [],
    HELD.format("id, note AS n, mood AS m", "(id, note, mood) SELECT id, n, m FROM held"): [],
    REBUILT.format("id, note", ""): ["hands.mood"],
    REBUILT.format("count(*)", ""): ["hands.id", "hands.mood", "hands.note"],
    HELD.format("*", "SELECT id, note FROM held"): ["hands.mood"],
    HELD.format("id, note", "SELECT * FROM held"): ["hands.mood"],
    # Columns
    "ALTER TABLE hands DROP COLUMN mood": ["hands.mood"],
    'ALTER TABLE ONLY hands DROP IF EXISTS "Mood" CASCADE, DROP CONSTRAINT a': ["hands.mood"],
    "ALTER TABLE hands DROP CONSTRAINT a, DROP b": ["hands.b"],
    "ALTER TABLE hands ADD old TEXT; UPDATE hands SET old = mood; ALTER TABLE hands DROP mood": [],
    "UPDATE hands SET note = 'x' WHERE mood = 1; ALTER TABLE hands DROP mood": ["hands.note ?", "hands.mood"],
    "INSERT INTO kept SELECT id, mood FROM hands; ALTER TABLE hands DROP COLUMN mood": [],
    "ALTER TABLE hands RENAME mood TO old; ALTER TABLE hands DROP COLUMN old": ["hands.mood"],
    "ALTER TABLE hands ADD COLUMN x INT; ALTER TABLE hands DROP COLUMN x": [],
    "ALTER TABLE hands ALTER COLUMN mood DROP NOT NULL": [],
    # Values
    "UPDATE hands SET note = NULL": ["hands.note"],
    "UPDATE ONLY hands AS h SET note = '', mood = upper(mood) WHERE id = 1": ["hands.note ?", "hands.mood ?"],
    "UPDATE hands AS h SET note = h.note, mood = json_quote(mood)": [],
    "UPDATE hands SET note = coalesce(note, ''), mood = '' || mood || ''": [],
    "UPDATE hands SET note = '' FROM kept WHERE kept.id = hands.id": ["hands.note ?"],
    "INSERT INTO hands (id, mood) VALUES (1, 'x') ON CONFLICT (id) DO UPDATE SET mood = mood": [],
    "REPLACE INTO hands VALUES (1, 'x')": ["hands ?"],
    "REPLACE INTO hands SELECT * FROM kept": [],
    "DROP FUNCTION f(text) CASCADE": ["DROP FUNCTION f(text) CASCADE"],
    "CREATE TEMP TABLE held AS SELECT * FROM hands; DROP TABLE hands": ["hands"],
    "UPDATE hands SET (note, mood) = (1, 2)": ["hands.note", "hands.mood"],
    "UPDATE hands SET note = mood": ["hands.note"],
    "UPDATE hands SET mood = note, note = NULL": ["hands.mood"],
    "UPDATE hands SET note = extract(year FROM mood)": ["hands.note"],
    "UPDATE hands SET note = (SELECT note FROM kept WHERE kept.id = hands.id)": [],
    "UPDATE hands SET note = kept.note FROM kept": [],
    "ALTER TABLE hands ALTER mood TYPE int USING mood::int": ["hands.mood ?"],
    "ALTER TABLE hands ALTER mood TYPE varchar(3)": ["hands.mood ?"],
    "ALTER TABLE hands ALTER COLUMN mood SET DATA TYPE text USING mood::text;": [],
    "DROP INDEX hands; DROP VIEW bets; ALTER TABLE x DETACH PARTITION y": [],
}  # fmt: skip
TABLES = ["user_insights", "conversation_context", "user_patterns"]
COLUMNS = ("id", "mood", "note")


def lost(statements: list[Statement]) -> list[str]:
    """Return what is lost, each in a word."""
    found = []
    for one in losses(statements):
        if one.kept:
            found += [f"{one.table}.{name}" for name in COLUMNS if not one.kept.keeps_first(name)]
        else:
            name = f"{one.table}.{one.column}" if one.column else one.table
            name += " ?" * one.is_part
            found.append(name or one.other or f"schema {one.schema}")
    return found


@pytest.mark.parametrize("sql", LOST)
def test_what_a_text_loses_is_found(sql: str) -> None:
    """Not what it has put elsewhere before, and left there."""
    parts = sql.split("; ") if not sql.startswith("DO") else [sql]
    assert lost([Statement(one, 1) for one in parts]) == LOST[sql]


def test_of_the_shipped_rollbacks_only_the_first_loses_players_rows(engine: str) -> None:
    """One after the other, as each by itself."""
    shipped = {
        one.id: one.statements("rollback") for one in read_migrations([str(migrations_folder(engine))])
    }
    each = {name for statements in shipped.values() for name in lost(statements)}
    run = lost([one for name in reversed(shipped) for one in shipped[name]])

    assert {one for one in each if not one.startswith("legacy_rows")} == set(TABLES)
    assert sorted(one for one in run if not one.startswith("legacy_rows")) == sorted(TABLES)


def test_what_the_shipped_migrations_have_kept_is_put_back_without_a_question(database_path: Path) -> None:
    """Rows that they have repaired, on SQLite: all that is known of these is used."""
    old_app.make(database_path)
    command("apply", "-d", database_path, folder=database_path.parent)
    assert query(database_path, "SELECT count(*) FROM legacy_rows") != [(0,)]

    ran = command("rollback", "--to", "002", "-d", database_path, folder=database_path.parent)
    assert (ran.code, ran.error) == (0, "")


HANDS = (
    "CREATE TABLE hands (id INTEGER, mood TEXT, note TEXT);"
    "INSERT INTO hands VALUES (1, 'calm', NULL), (2, 'angry', NULL);"
)
REBUILDS = (
    "CREATE TABLE made (id INTEGER); INSERT INTO made SELECT id FROM hands{}; DROP TABLE hands;"
    "ALTER TABLE made RENAME TO hands;"
)
COUNTED = {
    "ALTER TABLE hands DROP COLUMN mood; ALTER TABLE hands DROP COLUMN note;": "2 values of hands.mood",
    "UPDATE hands SET mood = NULL WHERE id = 1;": "2 values of hands.mood at most",
    "DELETE FROM hands WHERE id = 1; DELETE FROM hands;": "2 rows of hands",
    "DELETE FROM hands WHERE id > 0;": "2 rows of hands at most",
    REBUILDS.format(" WHERE id = 1"): "2 rows of hands at most",
    REBUILDS.format(""): "2 values of hands.mood",
    "UPDATE hands SET mood = NULL; DROP TABLE HANDS;": "2 rows of hands",
    "DROP TABLE IF EXISTS bets; UPDATE hands SET note = 'x'; UPDATE hands SET mood = mood;": "",
}
COUNTED_ON_POSTGRESQL = {
    "ALTER TABLE hands ALTER mood TYPE varchar(4) USING mood::varchar(4);": "2 values of hands.mood at most",
    'ALTER TABLE hands DROP COLUMN "It";': "1 value of hands.It",
    'DROP TABLE "The hands";': "1 row of The hands",
    "DROP TABLE other.bets;": "1 row of other.bets",
    "DROP SCHEMA other CASCADE;": "1 row of other.bets",
    "DO 'BEGIN DELETE FROM hands; END';": "whatever `DO` deletes (not counted)",
}
MORE = (
    'ALTER TABLE hands ADD "It" INTEGER; UPDATE hands SET "It" = 1 WHERE id = 1;'
    'CREATE TABLE "The hands" AS SELECT 1 AS id;'
)
OTHER = "CREATE SCHEMA other; CREATE TABLE other.bets AS SELECT 1 AS id;"


def test_what_is_lost_is_counted(project: Project) -> None:
    """How many a condition selects is not asked of the database: that would run a part of a text."""
    on_server = is_server(project.database)
    about = ("-d", str(project.database), "--sources", "sql")
    for rollback, loss in (COUNTED | (COUNTED_ON_POSTGRESQL if on_server else {})).items():
        if on_server:
            project.run_sql(OTHER)
        project.write("001_add_hands", HANDS + MORE * (rollback in COUNTED_ON_POSTGRESQL), rollback)
        assert command("apply", *about, folder=project.folder).code == 0
        ran = command("rollback", *about, folder=project.folder)
        found = re.search("would delete (.*), so nothing was changed", ran.error)
        assert (found[1] if found else "", ran.code) == (loss, 1 if loss else 0)

        if found:
            assert project.query("SELECT count(*) FROM hands WHERE mood IS NOT NULL") == [(2,)]
            assert command("rollback", "--yes", *about, folder=project.folder).code == 0
        project.run_sql(
            "DROP TABLE IF EXISTS hands;"
            + 'DROP TABLE IF EXISTS "The hands"; DROP SCHEMA IF EXISTS other CASCADE;' * on_server
        )


def test_what_an_unknown_migration_has_added_is_not_lost_without_consent(two_migrations: Project) -> None:
    """Its kept text says what its rollback would drop."""
    project = two_migrations
    last = project.write(
        "003_add_mood",
        "-- depends: 002_add_bets\n-- compatible: true\nALTER TABLE bets ADD COLUMN mood TEXT;",
        "ALTER TABLE bets DROP COLUMN mood;",
    )
    assert project.yoyo("apply").returncode == 0
    project.run_sql("INSERT INTO bets VALUES (1, 'calm')")
    for file in (last, last.with_name("003_add_mood.rollback.sql")):
        file.unlink()
    project.loses_rows = False

    for call in (("rollback",), ("rollback", "--revision", "001"), ("reapply", "--all")):
        assert "would delete 1 " in project.refuses(*call)
    assert project.query("SELECT mood FROM bets") == [("calm",)]
    project.loses_rows = True
    assert project.yoyo("rollback").returncode == 0


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
