"""Migrations to rehearse on PostgreSQL, and what is said of each."""

from poker_therapist.migrations.rehearse import Verdict
from tests.helpers.rehearsals import Case

HANDS = """
    CREATE TABLE hands (id INT GENERATED ALWAYS AS IDENTITY PRIMARY KEY, note TEXT, stake DOUBLE PRECISION);
    INSERT INTO hands (note, stake) VALUES ('river', 1.5), ('flop', NULL), ('turn', 2.0);
    CREATE TABLE notes (text TEXT);
    INSERT INTO notes VALUES ('a'), ('a'), ('b');
    CREATE VIEW big AS SELECT id FROM hands WHERE stake > 1.6;
    CREATE SEQUENCE tickets;
    SELECT nextval('tickets');
"""

PARTS = (
    "CREATE TABLE pots (size INT) PARTITION BY LIST (size);"
    "CREATE TABLE big_pots PARTITION OF pots FOR VALUES IN (9)"
)
# Valid as soon as an index of each partition is attached to it, which the author has forgotten.
NOT_ATTACHED = "CREATE INDEX by_size ON ONLY pots (size);"

EXACT = {
    "a column": Case("ALTER TABLE hands ADD COLUMN mood TEXT;", "ALTER TABLE hands DROP COLUMN mood;"),
    "a table with rows": Case(
        "CREATE TABLE bets (id INT); INSERT INTO bets VALUES (1), (2);", "DROP TABLE bets;", (), {"bets": 2}
    ),
    "a value applied and rolled back": Case(
        "UPDATE hands SET stake = stake * 2;", "UPDATE hands SET stake = stake / 2;", (), {"hands": 2}
    ),
    "index, view, function and trigger": Case(
        "CREATE INDEX by_note ON hands (note); CREATE VIEW small AS SELECT id FROM hands WHERE stake < 1.6;"
        "CREATE FUNCTION noted() RETURNS TRIGGER LANGUAGE plpgsql AS "
        "$$BEGIN INSERT INTO notes VALUES (new.note); RETURN new; END$$;"
        "CREATE TRIGGER noted AFTER INSERT ON hands FOR EACH ROW EXECUTE FUNCTION noted();",
        "DROP TRIGGER noted ON hands; DROP FUNCTION noted; DROP VIEW small; DROP INDEX by_note;",
    ),
    "outside a transaction": Case(
        "-- transactional: false\nDROP INDEX CONCURRENTLY IF EXISTS by_stake;\n"
        "CREATE INDEX CONCURRENTLY by_stake ON hands (stake);\nVACUUM hands;",
        "DROP INDEX CONCURRENTLY by_stake;",
    ),
    "odd values that stay": Case(
        "ALTER TABLE odd ADD COLUMN more INT;", "ALTER TABLE odd DROP COLUMN more;", (), {"odd": 0},
        "CREATE TABLE odd (id INT PRIMARY KEY, a FLOAT, b JSON, c TIMESTAMPTZ, d BYTEA, e NUMERIC, f INT[]);"
        "INSERT INTO odd VALUES (1, 'NaN', '{\"b\": 1, \"a\": \"\\u0000\", \"a\": 1e400}', 'infinity', "
        "'\\x00ff', 'NaN', '{1,NULL}'), (2, '-Infinity', 'null', '2026-01-05 18:12:01.5+09', '', 1.10, '{}'),"
        "(3, '-0', '\" \"', NULL, NULL, 1e-30, NULL)",
    ),
    "an index that was not valid before": Case(
        "SELECT 1;", "SELECT 1;", (), {},
        "CREATE INDEX bad ON notes (text); "
        "UPDATE pg_index SET indisvalid = FALSE WHERE indexrelid = 'bad'::REGCLASS",
    ),
    "nothing at all": Case("", ""),
    "equal rows": Case(
        "DELETE FROM notes WHERE text = 'a';", "INSERT INTO notes VALUES ('a'), ('a');", (), {"notes": 2}
    ),
}  # fmt: skip
SCHEMA_EXACT = {
    "a value that stays": Case(
        "UPDATE hands SET note = upper(note);",
        "UPDATE hands SET note = lower(note) WHERE id <> 2;",
        ("hands.note: 1 value differs, for example '2': 'flop' became 'FLOP'",),
        {"hands": 3},
    ),
    "the sign of a zero, the layout of JSON": Case(
        "UPDATE odd SET a = 0.0, b = '{\"a\":1}';",
        "SELECT 1;",
        (
            "odd.a: 1 value differs, for example '1': '-0' became '0'",
            "odd.b: 1 value differs, for example '1': ",
        ),
        {"odd": 1},
        "CREATE TABLE odd (id INT PRIMARY KEY, a FLOAT, b JSON);"
        "INSERT INTO odd VALUES (1, '-0', '{\"a\": 1}')",
    ),
    "where the ids go on": Case(
        "INSERT INTO hands (note) VALUES ('preflop');",
        "DELETE FROM hands WHERE note = 'preflop';",
        ("hands_id_seq.last_value: 1 value differs, for example 3 became 4",),
        {"hands": 1},
    ),
}
IRREVERSIBLE = {
    "a rollback that fails": Case(
        "CREATE TABLE bets (id INT);",
        "SELECT 1;\nDROP TABLE bet;",
        ('rolling back it failed: sql/001_try_it.rollback.sql:2: table "bet" does not exist',),
    ),
    "rows that are lost": Case(
        "SELECT 1;",
        "DELETE FROM hands WHERE id > 1;",
        ("hands: 2 rows differ, for example '2' (only before)",),
    ),
    "one of two equal rows": Case(
        "SELECT 1;",
        "DELETE FROM notes WHERE ctid = '(0,1)';",
        ("notes: 1 row differs, for example 'a' (only before)",),
    ),
    "a table with its rows": Case(
        "DROP TABLE notes;",
        "SELECT 1;",
        ("after rollback 3 rows of notes are missing", "table notes is missing", "applying again it failed"),
        {"notes": 3},
    ),
    "a table that stays": Case(
        "CREATE TABLE bets (id INT);",
        "-- nothing",
        ("table bets exists, but should not", "applying again it failed"),
    ),
    "a column that is not given back": Case(
        "ALTER TABLE hands DROP COLUMN note;",
        "ALTER TABLE hands ADD COLUMN note VARCHAR(9);",
        (
            "column hands.note is character varying(9), not text",
            "order of columns in hands is id, stake, note, not id, note, stake",
            "hands.note: 3 values differ, for example '1': 'river' became None",
        ),
    ),
    "a constraint of another name": Case(
        "ALTER TABLE hands DROP CONSTRAINT hands_pkey;",
        "ALTER TABLE hands ADD CONSTRAINT mine PRIMARY KEY (id);",
        (
            "constraint hands_pkey of hands is missing",
            "constraint mine of hands exists",
            "applying again it",
        ),
    ),
    "a view that stays": Case(
        "CREATE OR REPLACE VIEW small AS SELECT id FROM hands;",
        "SELECT 1;",
        ("view small exists, but should not (CREATE VIEW small AS SELECT ",),
    ),
    "a table that stays with its rows": Case(
        "CREATE TABLE bets (id INT); INSERT INTO bets VALUES (1), (2);",
        "-- nothing",
        (
            "after rollback 2 rows of bets are left over",
            "table bets exists, but should not",
            "applying again it failed",
        ),
        {"bets": 2},
    ),
    "an equal key that reads otherwise": Case(
        "UPDATE pots SET id = 1.00 WHERE id = 1;",
        "SELECT 1;",
        (
            "pots: 1 row differs, for example '1.0' (only before)",
            "pots: 1 row differs, for example '1.00' (only after)",
        ),
        {"pots": 2},
        "CREATE TABLE pots (id NUMERIC PRIMARY KEY, size INT); INSERT INTO pots VALUES (1.0, 9), (2, 8)",
    ),
    "a key of another type": Case(
        "ALTER TABLE pots ALTER id TYPE TEXT; UPDATE pots SET size = 0 WHERE id = '2';",
        "UPDATE pots SET size = 8 WHERE id = '2'; DELETE FROM pots WHERE id = '1';",
        (
            "column pots.id is text NOT NULL, not integer NOT NULL",
            "pots: 1 row differs, for example '1' (only before)",
        ),
        {"pots": 1},
        "CREATE TABLE pots (id INT PRIMARY KEY, size INT); INSERT INTO pots VALUES (1, 9), (2, 8)",
    ),
    "an index that is not valid": Case(
        "SELECT 1;",
        NOT_ATTACHED,
        ("rolling back it damaged the database: the index by_size is INVALID",),
        {},
        PARTS,
    ),
}
FAILED = {
    "a statement": Case(
        "CREATE TABLE bets (id INT);\nDROP TABLE bet;",
        "DROP TABLE bets;",
        ('applying it failed: sql/001_try_it.sql:2: table "bet" does not exist',),
    ),
    "rows that a rule refuses": Case(
        "ALTER TABLE hands ADD CHECK (stake < 2);",
        "SELECT 1;",
        ('applying it failed: sql/001_try_it.sql:1: check constraint "hands_stake_check" of relation',),
    ),
    "a COMMIT": Case("COMMIT;", "SELECT 1;", ("applying it failed: sql/001_try_it.sql:1: COMMIT would end",)),
    "an index that cannot be built": Case(
        "-- transactional: false\nCREATE UNIQUE INDEX CONCURRENTLY once ON notes (text);",
        "DROP INDEX once;",
        ("applying it failed: sql/001_try_it.sql:2: could not create unique index",),
    ),
    "an index that is not valid": Case(
        NOT_ATTACHED,
        "DROP INDEX by_size;",
        ("applying it damaged the database: the index by_size is INVALID",),
        None,
        PARTS,
    ),
}
CASES = {
    Verdict.EXACT: EXACT,
    Verdict.SCHEMA_EXACT: SCHEMA_EXACT,
    Verdict.IRREVERSIBLE: IRREVERSIBLE,
    None: FAILED,
}
