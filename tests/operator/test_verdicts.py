"""The verdicts of a rehearsal, and what it says of each thing that does not come back."""

from pathlib import Path
from typing import NamedTuple

import pytest

from poker_therapist.location import SQLiteLocation
from poker_therapist.migrations.rehearse import Rehearsed, Verdict
from poker_therapist.schema import rehearse
from tests.helpers.cli import state_of
from tests.helpers.engines import run_sql
from tests.helpers.project import Project

HANDS = """
    CREATE TABLE hands (id INTEGER PRIMARY KEY AUTOINCREMENT, note TEXT, stake REAL);
    INSERT INTO hands (note, stake) VALUES ('river', 1.5), ('flop', NULL), ('turn', 2.0);
    CREATE TABLE notes (text TEXT);
    INSERT INTO notes VALUES ('a'), ('a'), ('b');
"""


class Case(NamedTuple):
    """A migration there and back on HANDS, and what is said of it."""

    apply: str
    rollback: str
    # The first words of each reason.
    reasons: tuple[str, ...] = ()
    changed: dict[str, int] | None = None
    setup: str = ""


EXACT = {
    "a column": Case("ALTER TABLE hands ADD COLUMN mood TEXT;", "ALTER TABLE hands DROP COLUMN mood;"),
    "a table with rows": Case(
        "CREATE TABLE bets (id INTEGER); INSERT INTO bets VALUES (1), (2);",
        "DROP TABLE bets;",
        (),
        {"bets": 2},
    ),
    "a value there and back": Case(
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
}
SCHEMA_EXACT = {
    "a value that stays": Case(
        "UPDATE hands SET note = upper(note);",
        "UPDATE hands SET note = lower(note) WHERE id <> 2;",
        ("hands.note: 1 values differ, such as 2: 'flop' became 'FLOP'",),
        {"hands": 3},
    ),
    "two columns": Case(
        "UPDATE hands SET note = note || '!', stake = 0.0;",
        "SELECT 1;",
        (
            "hands.note: 3 values differ, such as 1: 'river' became 'river!'",
            "hands.stake: 3 values differ, such as 1: 1.5 became 0.0",
        ),
        {"hands": 3},
    ),
    "a value of another type": Case(
        "UPDATE hands SET note = CAST(note AS BLOB) WHERE id = 3;",
        "SELECT 1;",
        ("hands.note: 1 values differ, such as 3: 'turn' became b'turn'",),
        {"hands": 1},
    ),
    "a sequence value": Case(
        "INSERT INTO hands (note) VALUES ('preflop');",
        "DELETE FROM hands WHERE note = 'preflop';",
        ("sqlite_sequence.seq: 1 values differ, such as 'hands': 3 became 4",),
        {"hands": 1, "sqlite_sequence": 1},
    ),
    "another layout": Case(
        "ALTER TABLE notes RENAME TO remarks;",
        "ALTER TABLE remarks RENAME TO notes;",
        ("the SQL text of notes is laid out differently",),
        {"notes": 3, "remarks": 3},
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
        ("hands: 2 rows are not the same, such as only before: 2",),
    ),
    "rows that are left over": Case(
        "INSERT INTO hands VALUES (9, 'preflop', 1.0);",
        "UPDATE sqlite_sequence SET seq = 3;",
        ("hands: 1 rows are not the same, such as only after: 9", "applying again it failed"),
        {"hands": 1, "sqlite_sequence": 1},
    ),
    "a table with its rows": Case(
        "DROP TABLE notes;",
        "SELECT 1;",
        ("3 rows of notes are gone", "table notes is missing", "applying again it failed"),
        {"notes": 3},
    ),
    "a table that stays": Case(
        "CREATE TABLE bets (id INTEGER);",
        "-- nothing",
        ("table bets is there and should not be", "applying again it failed"),
    ),
    "a column that is not given back": Case(
        "ALTER TABLE hands DROP COLUMN stake;",
        "ALTER TABLE hands ADD COLUMN stake INTEGER;",
        (
            "column hands.stake is INTEGER, not REAL",
            "hands.stake: 2 values differ, such as 1: 1.5 became None",
        ),
    ),
    "an index that stays": Case(
        "CREATE INDEX IF NOT EXISTS by_note ON hands (note);",
        "SELECT 1;",
        ("index by_note is there and should not be (on hands (note))",),
    ),
    "a view that stays": Case(
        "CREATE VIEW IF NOT EXISTS big AS SELECT id FROM hands;",
        "SELECT 1;",
        ("view big is there and should not be (CREATE VIEW big AS SELECT id FROM hands)",),
    ),
    "a trigger that stays": Case(
        "CREATE TRIGGER IF NOT EXISTS noted AFTER INSERT ON hands BEGIN SELECT 1; END;",
        "SELECT 1;",
        ("trigger noted is there and should not be (CREATE TRIGGER noted AFTER INSERT ON hands",),
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
        ("applying it failed: sql/001_try_it.sql: row 1 of bets would refer to no row of hands",),
        None,
        "CREATE TABLE bets (id INTEGER PRIMARY KEY, hand INTEGER REFERENCES hands (id));"
        "INSERT INTO bets VALUES (1, 2);",
    ),
    "a COMMIT": Case("COMMIT;", "SELECT 1;", ("applying it failed: sql/001_try_it.sql:1: COMMIT would end",)),
}


def every(*kinds: tuple[Verdict | None, dict[str, Case]]) -> list[object]:
    return [
        pytest.param(verdict, case, id=f"{verdict or 'failed'}: {name}")
        for verdict, cases in kinds
        for name, case in cases.items()
    ]


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """A project in whose folder one stands, with a database that no migration has seen."""
    project = Project(tmp_path / "project")
    run_sql(project.database, HANDS)
    monkeypatch.chdir(project.folder)
    return project


def try_it(project: Project, case: Case) -> Rehearsed:
    """Rehearse one migration; the original must be as it was, and nothing be left beside it."""
    run_sql(project.database, case.setup)
    project.write("001_try_it", case.apply, case.rollback)
    before = state_of(project.folder)
    rehearsal = rehearse(SQLiteLocation(project.database), sources=["sql"])

    assert state_of(project.folder) == before
    (tried,) = rehearsal.migrations
    assert rehearsal.is_safe == (tried.verdict in (Verdict.EXACT, Verdict.SCHEMA_EXACT))
    return tried


@pytest.mark.parametrize(
    ("verdict", "case"),
    every(
        (Verdict.EXACT, EXACT),
        (Verdict.SCHEMA_EXACT, SCHEMA_EXACT),
        (Verdict.IRREVERSIBLE, IRREVERSIBLE),
        (None, FAILED),
    ),
)
def test_each_migration_gets_its_verdict_and_each_reason_is_given(
    verdict: Verdict | None, case: Case, project: Project
) -> None:
    """Table, column, how many and one example of what is not the same; nothing but that."""
    tried = try_it(project, case)

    assert tried.verdict == verdict
    assert len(tried.reasons) == len(case.reasons), tried.reasons
    for reason, expected in zip(tried.reasons, case.reasons, strict=True):
        assert reason.startswith(expected)
    if case.changed is not None:
        assert tried.changed == case.changed
    assert tried.seconds > 0 or verdict is None


# What is easily overlooked, or taken for more or less than it is.
SUBTLE: dict[str, tuple[Verdict, Case]] = {
    "one of two equal rows is lost": (
        Verdict.IRREVERSIBLE,
        Case("SELECT 1;", "DELETE FROM notes WHERE rowid = 1;", ("notes: 1 rows are not the same",)),
    ),
    "another type, in a table without a key": (
        Verdict.IRREVERSIBLE,
        Case("UPDATE pots SET size = 1.0;", "SELECT 1;", ("pots: 1 rows",), None,
             "CREATE TABLE pots (size); INSERT INTO pots VALUES (1);"),
    ),
    "another case, where case does not count": (
        Verdict.SCHEMA_EXACT,
        Case("UPDATE players SET name = 'ANN';", "SELECT 1;", ("players.name: 1 values differ",), None,
             "CREATE TABLE players (id INTEGER PRIMARY KEY, name TEXT COLLATE NOCASE);"
             "INSERT INTO players VALUES (1, 'Ann');"),
    ),
    "another key, where case does not count": (
        Verdict.IRREVERSIBLE,
        Case("UPDATE players SET name = 'ANN';", "SELECT 1;", ("players: 1 rows",), None,
             "CREATE TABLE players (name TEXT COLLATE NOCASE PRIMARY KEY) WITHOUT ROWID;"
             "INSERT INTO players VALUES ('Ann');"),
    ),
    "a table of the same name and nothing else": (
        Verdict.EXACT,
        Case("DROP TABLE pots; CREATE TABLE pots (amount TEXT);",
             "DROP TABLE pots; CREATE TABLE pots (size TEXT);", (), None, "CREATE TABLE pots (size TEXT);"),
    ),
    "columns in another order": (
        Verdict.IRREVERSIBLE,
        Case("ALTER TABLE hands DROP COLUMN note;", "ALTER TABLE hands ADD COLUMN note TEXT;", (), None,
             "UPDATE hands SET note = NULL;"),
    ),
    "another expression in an index": (
        Verdict.IRREVERSIBLE,
        Case("DROP INDEX by_name;", "CREATE INDEX by_name ON hands (upper(note));", (), None,
             "CREATE INDEX by_name ON hands (lower(note));"),
    ),
    "an index for full text, rebuilt": (
        Verdict.EXACT,
        Case("CREATE TABLE bets (id INTEGER);", "DROP TABLE bets;", (), None,
             "CREATE VIRTUAL TABLE words USING fts5 (text); INSERT INTO words VALUES ('river');"),
    ),
    "a text that is no UTF-8": (
        Verdict.SCHEMA_EXACT,
        Case("UPDATE hands SET note = 'mended' WHERE id = 1;", "SELECT 1;",
             ("hands.note: 1 values differ, such as 1: ",), None,
             "UPDATE hands SET note = CAST(x'ff' AS TEXT) WHERE id = 1;"),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", SUBTLE)
def test_nothing_that_differs_goes_unseen(name: str, project: Project) -> None:
    """Not in tables without a key, not under a collation, not in what SQLite's PRAGMAs do not tell."""
    verdict, case = SUBTLE[name]
    tried = try_it(project, case)

    assert tried.verdict == verdict
    assert [
        reason for reason in case.reasons if not any(one.startswith(reason) for one in tried.reasons)
    ] == []
