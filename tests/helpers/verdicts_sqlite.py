"""Migrations to rehearse on SQLite, and what is said of each."""

from poker_therapist.migrations.rehearse import Verdict
from tests.helpers.rehearsals import Case

HANDS = """
    CREATE TABLE hands (id INTEGER PRIMARY KEY AUTOINCREMENT, note TEXT, stake REAL);
    INSERT INTO hands (note, stake) VALUES ('river', 1.5), ('flop', NULL), ('turn', 2.0);
    CREATE TABLE notes (text TEXT);
    INSERT INTO notes VALUES ('a'), ('a'), ('b');
"""

# An index that holds another column than its definition says.
WRONG_INDEX = """
    CREATE INDEX by_note ON hands (note);
    PRAGMA writable_schema = ON;
    UPDATE sqlite_schema SET sql = 'CREATE INDEX by_note ON hands (stake)' WHERE name = 'by_note';
    PRAGMA writable_schema = RESET;
"""

EXACT = {
    "a column": Case("ALTER TABLE hands ADD COLUMN mood TEXT;", "ALTER TABLE hands DROP COLUMN mood;"),
    "a table with rows": Case(
        "CREATE TABLE bets (id INTEGER); INSERT INTO bets VALUES (1), (2);",
        "DROP TABLE bets;",
        (),
        {"bets": 2},
    ),
    "a value applied and rolled back": Case(
        "UPDATE hands SET stake = stake * 2;", "UPDATE hands SET stake = stake / 2;", (), {"hands": 2}
    ),
    "index, view and trigger": Case(
        "CREATE INDEX by_note ON hands (note);\nCREATE VIEW big AS SELECT id FROM hands WHERE stake > 1.6;\n"
        "CREATE TRIGGER noted AFTER INSERT ON hands BEGIN INSERT INTO notes VALUES (new.note); END;",
        "DROP TRIGGER noted;\nDROP VIEW big;\nDROP INDEX by_note;",
    ),
    "outside a transaction": Case(
        "-- transactional: false\nCREATE TABLE IF NOT EXISTS bets (id INTEGER);\nVACUUM;", "DROP TABLE bets;"
    ),
    "nothing at all": Case("", ""),
    "equal rows": Case(
        "DELETE FROM notes WHERE text = 'a';", "INSERT INTO notes VALUES ('a'), ('a');", (), {"notes": 2}
    ),
}
SCHEMA_EXACT = {
    "a value that stays": Case(
        "UPDATE hands SET note = upper(note);",
        "UPDATE hands SET note = lower(note) WHERE id <> 2;",
        ("hands.note: 1 value differs, for example 2: 'flop' became 'FLOP'",),
        {"hands": 3},
    ),
    "two columns": Case(
        "UPDATE hands SET note = note || '!', stake = 0.0;",
        "SELECT 1;",
        (
            "hands.note: 3 values differ, for example 1: 'river' became 'river!'",
            "hands.stake: 3 values differ, for example 1: 1.5 became 0.0",
        ),
        {"hands": 3},
    ),
    "a value of another type": Case(
        "UPDATE hands SET note = CAST(note AS BLOB) WHERE id = 3;",
        "SELECT 1;",
        ("hands.note: 1 value differs, for example 3: 'turn' became b'turn'",),
        {"hands": 1},
    ),
    "a sequence value": Case(
        "INSERT INTO hands (note) VALUES ('preflop');",
        "DELETE FROM hands WHERE note = 'preflop';",
        ("sqlite_sequence.seq: 1 value differs, for example 'hands': 3 became 4",),
        {"hands": 1, "sqlite_sequence": 1},
    ),
    "another layout": Case(
        "ALTER TABLE notes RENAME TO remarks;",
        "ALTER TABLE remarks RENAME TO notes;",
        ("the SQL text of notes is formatted differently",),
        {"notes": 3, "remarks": 3},
    ),
    "a first sequence value": Case(
        "INSERT INTO seats (name) VALUES ('button');",
        "DELETE FROM seats;",
        ("sqlite_sequence.seq: 1 value differs, for example 'seats' (only after)",),
        {"seats": 1, "sqlite_sequence": 1},
        "CREATE TABLE seats (id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT);",
    ),
}
IRREVERSIBLE = {
    "a rollback that fails": Case(
        "CREATE TABLE bets (id INTEGER);",
        "SELECT 1;\nDROP TABLE bet;",
        ("rolling back it failed: sql/001_try_it.rollback.sql:2: no such table: bet",),
    ),
    "rows that are lost": Case(
        "CREATE TABLE bets (id INTEGER);",
        "DROP TABLE bets; DELETE FROM hands WHERE id > 1;",
        ("hands: 2 rows differ, for example 2 (only before)",),
    ),
    "rows that are left over": Case(
        "INSERT INTO hands VALUES (9, 'preflop', 1.0);",
        "UPDATE sqlite_sequence SET seq = 3;",
        ("hands: 1 row differs, for example 9 (only after)", "applying again it failed"),
        {"hands": 1, "sqlite_sequence": 1},
    ),
    "a table with its rows": Case(
        "DROP TABLE notes;",
        "SELECT 1;",
        ("after rollback 3 rows of notes are missing", "table notes is missing", "applying again it failed"),
        {"notes": 3},
    ),
    "a table that stays": Case(
        "CREATE TABLE bets (id INTEGER);",
        "-- nothing",
        ("table bets exists, but should not", "applying again it failed"),
    ),
    "a column that is not given back": Case(
        "ALTER TABLE hands DROP COLUMN stake;",
        "ALTER TABLE hands ADD COLUMN stake INTEGER;",
        (
            "column hands.stake is INTEGER, not REAL",
            "hands.stake: 2 values differ, for example 1: 1.5 became None",
        ),
    ),
    "an index that stays": Case(
        "CREATE INDEX IF NOT EXISTS by_note ON hands (note);",
        "SELECT 1;",
        ("index by_note exists, but should not (on hands (note))",),
    ),
    "a view that stays": Case(
        "CREATE VIEW IF NOT EXISTS big AS SELECT id FROM hands;",
        "SELECT 1;",
        ("view big exists, but should not (CREATE VIEW big AS SELECT id FROM hands)",),
    ),
    "a trigger that stays": Case(
        "CREATE TRIGGER IF NOT EXISTS noted AFTER INSERT ON hands BEGIN SELECT 1; END;",
        "SELECT 1;",
        ("trigger noted exists, but should not (CREATE TRIGGER noted AFTER INSERT ON hands",),
    ),
    "a table that stays with its rows": Case(
        "CREATE TABLE bets (id INTEGER); INSERT INTO bets VALUES (1), (2);",
        "-- nothing",
        (
            "after rollback 2 rows of bets are left over",
            "table bets exists, but should not",
            "applying again it failed",
        ),
        {"bets": 2},
    ),
    "what would damage a database": Case(
        "SELECT 1;",
        WRONG_INDEX,
        ("rolling back it failed: sql/001_try_it.rollback.sql:3: this cannot be rehearsed: it sets PRA",),
    ),
}
FAILED = {
    "a statement": Case(
        "CREATE TABLE bets (id INTEGER);\nDROP TABLE bet;",
        "DROP TABLE bets;",
        ("applying it failed: sql/001_try_it.sql:2: no such table: bet",),
    ),
    "a child without its parent": Case(
        "DELETE FROM hands WHERE id = 2;",
        "SELECT 1;",
        ("applying it failed: sql/001_try_it.sql: row 1 of bets would violate its foreign key to hands",),
        None,
        "CREATE TABLE bets (id INTEGER PRIMARY KEY, hand INTEGER REFERENCES hands (id));"
        "INSERT INTO bets VALUES (1, 2);",
    ),
    "a COMMIT": Case("COMMIT;", "SELECT 1;", ("applying it failed: sql/001_try_it.sql:1: COMMIT would end",)),
    "what would damage a database": Case(
        WRONG_INDEX,
        "SELECT 1;",
        ("applying it failed: sql/001_try_it.sql:3: this cannot be rehearsed: it sets PRAGMA wr",),
    ),
}
CASES = {
    Verdict.EXACT: EXACT,
    Verdict.SCHEMA_EXACT: SCHEMA_EXACT,
    Verdict.IRREVERSIBLE: IRREVERSIBLE,
    None: FAILED,
}
