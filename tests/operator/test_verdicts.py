"""The verdicts of a rehearsal, and what it says of each thing that does not come back."""

import pytest

from poker_therapist.migrations.rehearse import Rehearsed, Verdict
from tests.helpers import verdicts_postgresql as on_postgresql
from tests.helpers import verdicts_sqlite as on_sqlite
from tests.helpers.engines import is_server, per_engine, sqlite_only
from tests.helpers.project import Project
from tests.helpers.rehearsals import Case, rehearsed

MODULES = {"sqlite": on_sqlite, "postgresql": on_postgresql}
# A copy by the server takes longer than a migration: those after which it can go on share one.
SHARING = (Verdict.EXACT, Verdict.SCHEMA_EXACT)
CASES = {
    "sqlite": [(verdict, [name]) for verdict, cases in on_sqlite.CASES.items() for name in cases],
    "postgresql": [
        (verdict, names)
        for verdict, cases in on_postgresql.CASES.items()
        for names in ([[*cases]] if verdict in SHARING else [[name] for name in cases])
    ],
}


@pytest.fixture
def hands(
    project: Project, engine: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Project:
    """A project in whose folder one stands, with a database that no migration has seen."""
    if engine == "postgresql":
        request.getfixturevalue("own_copies")
    project.run_sql(MODULES[engine].HANDS)
    monkeypatch.chdir(project.folder)
    return project


def try_them(project: Project, *cases: Case) -> list[Rehearsed]:
    """Rehearse migrations; what is there is recorded as made by another, which they may take away."""
    setup = ";".join(case.setup for case in cases if case.setup)
    if setup:
        project.run_sql(setup)
    engine = "postgresql" if is_server(project.database) else "sqlite"
    project.write("000_make_hands", MODULES[engine].HANDS + setup)
    assert project.yoyo("mark").returncode == 0
    for number, case in enumerate(cases, 1):
        project.write(f"{number:03}_try_it", case.apply, case.rollback)
    found = rehearsed(project)
    assert found.is_safe == all(one.verdict in SHARING for one in found.migrations)
    assert found.fallback_reason == ""
    return found.migrations


@pytest.mark.slow
@per_engine(CASES)
def test_each_migration_gets_its_verdict_and_each_reason_is_given(
    engine: str, case: tuple[Verdict | None, list[str]], hands: Project
) -> None:
    """Table, column, how many and one example of what is not the same; nothing but that."""
    verdict, names = case
    cases = [MODULES[engine].CASES[verdict][name] for name in names]
    for expected, tried in zip(cases, try_them(hands, *cases), strict=True):
        assert tried.verdict == verdict, tried
        assert len(tried.reasons) == len(expected.reasons), tried.reasons
        for reason, beginning in zip(tried.reasons, expected.reasons, strict=True):
            assert reason.startswith(beginning)
        if expected.changed is not None:
            assert tried.changed == {table: count for table, count in expected.changed.items() if count}
        assert tried.seconds > 0 or verdict is None


SUBTLE: dict[str, tuple[Verdict, Case]] = {
    "one of two equal rows is lost": (
        Verdict.IRREVERSIBLE,
        Case("SELECT 1;", "DELETE FROM notes WHERE rowid = 1;", ("notes: 1 row differs",)),
    ),
    "another type, in a table without a key": (
        Verdict.IRREVERSIBLE,
        Case("UPDATE pots SET size = 1.0;", "SELECT 1;", ("pots: 1 row ",), None,
             "CREATE TABLE pots (size); INSERT INTO pots VALUES (1);"),
    ),
    "another case, where case does not count": (
        Verdict.SCHEMA_EXACT,
        Case("UPDATE players SET name = 'ANN';", "SELECT 1;", ("players.name: 1 value differs",), None,
             "CREATE TABLE players (id INTEGER PRIMARY KEY, name TEXT COLLATE NOCASE);"
             "INSERT INTO players VALUES (1, 'Ann');"),
    ),
    "another key, where case does not count": (
        Verdict.IRREVERSIBLE,
        Case("UPDATE players SET name = 'ANN';", "SELECT 1;", ("players: 1 row ",), None,
             "CREATE TABLE players (name TEXT COLLATE NOCASE PRIMARY KEY) WITHOUT ROWID;"
             "INSERT INTO players VALUES ('Ann');"),
    ),
    "a key that is NULL in two rows": (
        Verdict.EXACT,
        Case("SELECT 1;", "SELECT 1;", (), {}, "CREATE TABLE players (name TEXT PRIMARY KEY, stake REAL);"
             "INSERT INTO players VALUES (NULL, 1.0), (NULL, 2.0);"),
    ),
    "another case, in a table without a key": (
        Verdict.IRREVERSIBLE,
        Case("UPDATE pots SET name = 'RIVER';", "SELECT 1;",
             ("pots: 1 row differs, for example 'river' (only before)",
              "pots: 1 row differs, for example 'RIVER' (only after)"), {"pots": 2},
             "CREATE TABLE pots (name TEXT COLLATE NOCASE); INSERT INTO pots VALUES ('river');"),
    ),
    "other rows under other names": (
        Verdict.IRREVERSIBLE,
        Case("DROP TABLE pots; CREATE TABLE pots (amount TEXT); INSERT INTO pots VALUES ('1');", "SELECT 1;",
             ("pots: 1 row differs, for example 9 (only before)",), {"pots": 2},
             "CREATE TABLE pots (size INTEGER); INSERT INTO pots VALUES (9);"),
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
    "a version that the rollback leaves": (
        Verdict.IRREVERSIBLE,
        Case("PRAGMA user_version = 7;", "SELECT 1;", ("setting user_version is 7, not 0",)),
    ),
    "statistics that the rollback leaves": (
        Verdict.IRREVERSIBLE,
        Case("ANALYZE;", "SELECT 1;", ("setting statistics of ANALYZE is sqlite_stat1, not none",)),
    ),
    "a NULL in a key of two columns": (
        Verdict.IRREVERSIBLE,
        Case("DROP TABLE pots; CREATE TABLE pots (a INTEGER NOT NULL, b INTEGER, PRIMARY KEY (a, b));",
             "DROP TABLE pots; CREATE TABLE pots (a INTEGER, b INTEGER, PRIMARY KEY (a, b));",
             ("column pots.a is INTEGER, not INTEGER NOT NULL",), None,
             "CREATE TABLE pots (a INTEGER NOT NULL, b INTEGER, PRIMARY KEY (a, b));"),
    ),
    "blanks in a type": (
        Verdict.SCHEMA_EXACT,
        Case("DROP TABLE pots; CREATE TABLE pots (a DECIMAL(10,2));",
             "DROP TABLE pots; CREATE TABLE pots (a DECIMAL(10, 2));", (), None,
             "CREATE TABLE pots (a DECIMAL (10,2));"),
    ),
    "a text that is no UTF-8": (
        Verdict.SCHEMA_EXACT,
        Case("UPDATE hands SET note = 'repaired' WHERE id = 1;", "SELECT 1;",
             ("hands.note: 1 value differs, for example 1: ",), None,
             "UPDATE hands SET note = CAST(x'ff' AS TEXT) WHERE id = 1;"),
    ),
}  # fmt: skip


@sqlite_only
@pytest.mark.parametrize("name", SUBTLE)
def test_nothing_that_differs_goes_unseen(name: str, hands: Project) -> None:
    """Not in tables without a key, not under a collation, not in what SQLite's PRAGMAs do not tell."""
    verdict, case = SUBTLE[name]
    (tried,) = try_them(hands, case)

    assert tried.verdict == verdict
    assert [
        reason for reason in case.reasons if not any(one.startswith(reason) for one in tried.reasons)
    ] == []
