"""PostgreSQL: `poker-therapist rehearse` on a copy by the server, or in a scratch schema; nothing is left."""

import re
import secrets
import signal
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, NamedTuple

import psycopg
import pytest

from poker_therapist import MigrationEdited, StorageError
from poker_therapist.migrations.rehearse import Rehearsal, Verdict
from poker_therapist.postgresql import rehearsal
from poker_therapist.schema import rehearse
from poker_therapist.testing import run_killed_at
from tests.helpers.cli import command
from tests.helpers.databases import Databases
from tests.helpers.engines import query, run_sql, with_options
from tests.helpers.postgresql import (
    FOLDER,
    IDS,
    ROWS,
    kill_at,
    kill_itself,
    migrate,
    name_of,
    server_location,
    wait_for_rows,
)
from tests.helpers.project import ServerProject
from tests.helpers.snapshots import everything

HANDS = """
    CREATE TABLE hands (id INT GENERATED ALWAYS AS IDENTITY PRIMARY KEY, note TEXT, stake DOUBLE PRECISION);
    INSERT INTO hands (note, stake) VALUES ('river', 1.5), ('flop', NULL), ('turn', 2.0);
    CREATE TABLE notes (text TEXT);
    INSERT INTO notes VALUES ('a'), ('a'), ('b');
    CREATE VIEW big AS SELECT id FROM hands WHERE stake > 1.6;
    CREATE SEQUENCE tickets;
    SELECT nextval('tickets');
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
        "CREATE TABLE bets (id INT); INSERT INTO bets VALUES (1), (2);", "DROP TABLE bets;", (), {"bets": 2}
    ),
    "a value there and back": Case(
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
        "-- transactional: false\nDROP INDEX CONCURRENTLY IF EXISTS by_note;\n"
        "CREATE INDEX CONCURRENTLY by_note ON hands (note);\nVACUUM hands;",
        "DROP INDEX CONCURRENTLY by_note;",
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
}  # fmt: skip
SCHEMA_EXACT = {
    "a value that stays": Case(
        "UPDATE hands SET note = upper(note);",
        "UPDATE hands SET note = lower(note) WHERE id <> 2;",
        ("hands.note: 1 values differ, such as '2': 'flop' became 'FLOP'",),
        {"hands": 3},
    ),
    "the sign of a zero, the layout of JSON": Case(
        "UPDATE odd SET a = 0.0, b = '{\"a\":1}';",
        "SELECT 1;",
        ("odd.a: 1 values differ, such as '1': '-0' became '0'", "odd.b: 1 values differ, such as '1': "),
        {"odd": 1},
        "CREATE TABLE odd (id INT PRIMARY KEY, a FLOAT, b JSON);"
        "INSERT INTO odd VALUES (1, '-0', '{\"a\": 1}')",
    ),
    "where the ids go on": Case(
        "INSERT INTO hands (note) VALUES ('preflop');",
        "DELETE FROM hands WHERE note = 'preflop';",
        ("hands_id_seq.last_value: 1 values differ, such as 3 became 4",),
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
        ("hands: 2 rows are not the same, such as only before: '2'",),
    ),
    "one of two equal rows": Case(
        "SELECT 1;",
        "DELETE FROM notes WHERE ctid = '(0,1)';",
        ("notes: 1 rows are not the same, such as only before: 'a'",),
    ),
    "a table with its rows": Case(
        "DROP TABLE notes;",
        "SELECT 1;",
        ("3 rows of notes are gone", "table notes is missing", "applying again it failed"),
        {"notes": 3},
    ),
    "a table that stays": Case(
        "CREATE TABLE bets (id INT);",
        "-- nothing",
        ("table bets is there and should not be", "applying again it failed"),
    ),
    "a column that is not given back": Case(
        "ALTER TABLE hands DROP COLUMN note;",
        "ALTER TABLE hands ADD COLUMN note VARCHAR(9);",
        (
            "column hands.note is character varying(9), not text",
            "order of columns in hands is id, stake, note, not id, note, stake",
            "hands.note: 3 values differ, such as '1': 'river' became None",
        ),
    ),
    "a constraint of another name": Case(
        "ALTER TABLE hands DROP CONSTRAINT hands_pkey;",
        "ALTER TABLE hands ADD CONSTRAINT mine PRIMARY KEY (id);",
        (
            "constraint hands_pkey of hands is missing",
            "constraint mine of hands is there",
            "applying again it",
        ),
    ),
    "a view that stays": Case(
        "CREATE OR REPLACE VIEW small AS SELECT id FROM hands;",
        "SELECT 1;",
        ("view small is there and should not be (CREATE VIEW small AS SELECT ",),
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
}


def every(*kinds: tuple[Verdict | None, dict[str, Case]]) -> list[object]:
    return [
        pytest.param(verdict, case, id=f"{verdict or 'failed'}: {name}")
        for verdict, cases in kinds
        for name, case in cases.items()
    ]


@pytest.fixture
def project(tmp_path: Path, postgresql_url: str, monkeypatch: pytest.MonkeyPatch) -> ServerProject:
    """A project in whose folder one stands, with a database that no migration has seen."""
    project = ServerProject(tmp_path / "project", postgresql_url)
    project.run_sql(HANDS)
    monkeypatch.chdir(project.folder)
    return project


@pytest.fixture(autouse=True)
def prefix(monkeypatch: pytest.MonkeyPatch, databases: Databases) -> None:
    """What begins the names of this test's copies: others make theirs at the same time."""
    monkeypatch.setattr(rehearsal, "_PREFIX", f"{databases.run.name}_{secrets.token_hex(4)}_")
    # The tests' own sessions of a moment ago may take long to end where much goes on.
    monkeypatch.setattr(rehearsal, "_PATIENCE", 10)


def left_of(url: str) -> list[tuple[str]]:
    """Return what rehearsals have left on the server of a database, and in that."""
    return query(url, f"SELECT datname FROM pg_database WHERE datname ^@ '{rehearsal._PREFIX}'") + query(
        url,
        "SELECT nspname FROM pg_namespace "
        "WHERE nspname NOT IN ('public', 'information_schema') AND nspname !~ '^pg_'",
    )


def rehearsed(project: ServerProject, **options: Any) -> Rehearsal:
    """Rehearse what is pending; the original must be as it was, and nothing be left."""
    before = everything(project.url)
    done = rehearse(server_location(project.url), sources=["sql"], **options)

    assert everything(project.url) == before
    assert left_of(project.url) == []
    return done


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
    verdict: Verdict | None, case: Case, project: ServerProject
) -> None:
    """Table, column, how many and one example of what is not the same; nothing but that."""
    project.run_sql(case.setup)
    project.write("001_try_it", case.apply, case.rollback)
    found = rehearsed(project)
    (tried,) = found.migrations

    assert tried.verdict == verdict, tried
    assert len(tried.reasons) == len(case.reasons), tried.reasons
    for reason, expected in zip(tried.reasons, case.reasons, strict=True):
        assert reason.startswith(expected)
    if case.changed is not None:
        assert tried.changed == {table: count for table, count in case.changed.items() if count}
    assert found.is_safe == (tried.verdict in (Verdict.EXACT, Verdict.SCHEMA_EXACT))
    assert found.fallback_reason == ""
    assert tried.seconds > 0 or verdict is None


def test_the_project_s_own_migrations_are_rehearsed_with_rows_in_every_table(postgresql_url: str) -> None:
    """From 001 on, as the operator's command tells it, and with nothing left by it."""
    assert migrate(["apply", "-m", "001"], postgresql_url).code == 0
    run_sql(postgresql_url, ROWS)
    before = everything(postgresql_url)
    told = command("rehearse", "-d", postgresql_url, folder=FOLDER)
    machine = command("rehearse", "-d", postgresql_url, "--json", folder=FOLDER)

    assert (told.code, machine.code) == (0, 0)
    assert [line.split("\t")[:2] for line in told.lines[:3]] == [[name, "exact"] for name in IDS[1:]]
    assert told.lines[-1] == "Every migration works, and can be taken back."
    assert (machine.json["reason"], machine.json["room_in_bytes"] > 0) == ("", True)
    assert everything(postgresql_url) == before
    assert left_of(postgresql_url) == []


@contextmanager
def somebody_in(project: ServerProject) -> Iterator[None]:
    """Be connected to the database, so that the server does not copy it."""
    with pytest.MonkeyPatch.context() as patched, psycopg.connect(project.url) as player:
        patched.setattr(rehearsal, "_PATIENCE", 0.05)
        player.execute("SELECT 1")
        yield


def in_scratch_schema(project: ServerProject, more: str = "") -> re.Pattern[str]:
    return re.compile(
        "tried in a scratch schema, not on a copy of the database: "
        f"sessions connected to {name_of(project.url)} beside this one: \\d+{re.escape(more)}$"
    )


@pytest.fixture
def applied(project: ServerProject) -> ServerProject:
    """Some of HANDS made by migrations, with keys and triggers, and more rows and drift since."""
    project.run_sql("DROP VIEW big; DROP TABLE hands, notes")
    project.write(
        "001_add_hands",
        "CREATE TABLE hands (id INT GENERATED ALWAYS AS IDENTITY PRIMARY KEY, note TEXT, stake FLOAT);\n"
        "CREATE TABLE bets (id SERIAL, hand INT REFERENCES hands (id), before INT);\n"
        "CREATE TABLE a_log (text TEXT, length INT GENERATED ALWAYS AS (length(text)) STORED);\n"
        "INSERT INTO hands (note) VALUES ('seed');\nINSERT INTO a_log VALUES ('seed');",
        "DROP TABLE a_log, bets, hands;",
    )
    project.write(
        "002_note_hands",
        "-- transactional: false\n-- depends: 001_add_hands\n"
        "CREATE FUNCTION noted() RETURNS TRIGGER LANGUAGE plpgsql AS "
        "$$BEGIN INSERT INTO a_log VALUES (new.note); RETURN new; END$$;\n"
        "CREATE TRIGGER noted AFTER INSERT ON hands FOR EACH ROW EXECUTE FUNCTION noted();\n"
        "CREATE TRIGGER never BEFORE INSERT ON bets FOR EACH ROW EXECUTE FUNCTION noted();\n"
        "ALTER TABLE bets DISABLE TRIGGER never;\n"
        "CREATE INDEX CONCURRENTLY by_note ON hands (note);",
        "DROP TRIGGER noted ON hands; DROP TRIGGER never ON bets; DROP FUNCTION noted; DROP INDEX by_note;",
    )
    assert project.yoyo("apply").returncode == 0
    project.run_sql(
        "INSERT INTO hands (note, stake) VALUES ('river', 'NaN'), ('flop', NULL);"
        "INSERT INTO bets (hand) VALUES (2), (3), (3); SELECT nextval('bets_id_seq')"
    )
    project.write(
        "003_double",
        "-- depends: 002_note_hands\nUPDATE hands SET stake = stake * 2;\n"
        "INSERT INTO hands (note) SELECT 'one of ' || count(*) || ', ' || (SELECT count(*) FROM a_log) "
        "FROM hands;\nINSERT INTO bets (hand) VALUES (4);",
        "DELETE FROM bets WHERE hand = 4;\nDELETE FROM hands WHERE id = 4;\n"
        "DELETE FROM a_log WHERE text LIKE 'one%';\n"
        "SELECT setval('hands_id_seq', 3), setval('bets_id_seq', 4);",
    )
    return project


def test_where_somebody_is_connected_the_rehearsal_is_in_a_scratch_schema(applied: ServerProject) -> None:
    """With the same rows, ids and verdicts, and the reason; the server is not waited for."""
    by_copy = rehearsed(applied)
    with somebody_in(applied):
        by_schema = rehearsed(applied)

    assert by_copy.fallback_reason == ""
    assert in_scratch_schema(applied).match(by_schema.fallback_reason)
    assert [(one.id, one.verdict, one.changed, one.reasons) for one in by_schema.migrations] == [
        ("003_double", Verdict.EXACT, {"a_log": 1, "bets": 1, "hands": 1}, [])
    ]
    assert [(one.id, one.verdict, one.changed, one.reasons) for one in by_copy.migrations] == [
        (one.id, one.verdict, one.changed, one.reasons) for one in by_schema.migrations
    ]


@pytest.fixture
def role(postgresql_url: str) -> Iterator[str]:
    """A role that may make schemas in this database, and no databases."""
    name = f"{name_of(postgresql_url)}_role"
    run_sql(
        postgresql_url,
        f"CREATE ROLE {name}; GRANT ALL ON SCHEMA public TO {name};"
        f"GRANT CREATE ON DATABASE {name_of(postgresql_url)} TO {name}",
    )
    yield name
    run_sql(postgresql_url, f"DROP OWNED BY {name} CASCADE; DROP ROLE {name}")


def test_a_role_that_may_make_no_database_rehearses_in_a_scratch_schema(
    postgresql_url: str, role: str
) -> None:
    """The command says why."""
    url = with_options(postgresql_url, f"options=-c%20role%3D{role}")
    assert migrate(["apply", "-m", "00[12]"], url).code == 0
    run_sql(postgresql_url, ROWS)
    ran = command("rehearse", "-d", url, folder=FOLDER)

    assert ran.code == 0
    assert [line.split("\t")[1] for line in ran.lines[:2]] == ["exact", "exact"]
    assert ran.lines[2] == (
        "tried in a scratch schema, not on a copy of the database: permission denied to create database"
    )
    assert left_of(postgresql_url) == []


def test_a_role_that_may_make_nothing_is_told_so(postgresql_url: str, role: str) -> None:
    assert migrate(["apply", "-m", "001"], postgresql_url).code == 0
    run_sql(
        postgresql_url,
        f"REVOKE CREATE ON DATABASE {name_of(postgresql_url)} FROM {role};"
        f"GRANT SELECT ON ALL TABLES IN SCHEMA public TO {role}",
    )
    with pytest.raises(StorageError, match=f"permission denied for database {name_of(postgresql_url)}"):
        rehearse(server_location(with_options(postgresql_url, f"options=-c%20role%3D{role}")))


DRIFT = {
    "ALTER TABLE hands ALTER stake TYPE TEXT": "rows of hands do not fit the table",
    "ALTER TABLE hands DROP COLUMN stake": "rows of hands do not fit the table",
    "ALTER TABLE bets DROP CONSTRAINT bets_hand_fkey; INSERT INTO bets (hand) VALUES (99)": "rows of bets do",
    "DROP TABLE a_log CASCADE": "rows of a_log do not fit the table",
    "ALTER TABLE hands ADD COLUMN mine TEXT": "",
    "CREATE INDEX mine ON hands (stake)": "",
}


@pytest.mark.parametrize("change", DRIFT)
def test_a_scratch_schema_that_cannot_be_like_the_original_is_refused_or_said(
    change: str, applied: ServerProject
) -> None:
    """What the original has beside what its migrations built would not be tried: the operator is told."""
    applied.run_sql(change)
    with somebody_in(applied):
        if not DRIFT[change]:
            found = rehearsed(applied)

            more = "; the drift that `poker-therapist status` shows is not in it"
            assert in_scratch_schema(applied, more).match(found.fallback_reason)
            return
        with pytest.raises(StorageError) as caught:
            rehearsed(applied)

        assert DRIFT[change] in str(caught.value)
        assert "see `poker-therapist status`" in str(caught.value)
        assert "Rehearse where nobody else is connected" in str(caught.value)
        assert left_of(applied.url) == []


# What would be done to the original, were it tried in a scratch schema beside it.
REACHING = [
    "UPDATE public.hands SET note = 'gone';",
    'DELETE FROM "public" . hands;',
    "SET search_path = public; DELETE FROM hands;",
    "DO $$BEGIN DELETE FROM public.hands; END$$;",
    "CREATE ROLE poker_therapist_test_role;",
    "CREATE SCHEMA elsewhere;",
]


@pytest.mark.parametrize("direction", ["apply", "rollback"])
@pytest.mark.parametrize("statement", REACHING)
def test_what_would_reach_the_original_is_tried_on_a_copy_alone(
    statement: str, direction: str, applied: ServerProject
) -> None:
    """In a scratch schema it is refused, with its place."""
    texts = ("-- depends: 003_double\nSELECT 1;", statement)
    apply, rollback = texts if direction == "rollback" else (texts[0] + statement, "DROP SCHEMA elsewhere")
    applied.write("004_reach", apply, rollback)
    with somebody_in(applied):
        with pytest.raises(StorageError, match=r"004_reach(\.rollback)?\.sql:[12] names a schema, or"):
            rehearsed(applied)

        assert left_of(applied.url) == []
    if "ROLE" not in statement:
        assert [one.id for one in rehearsed(applied).migrations] == ["003_double", "004_reach"]


def test_a_migration_may_use_the_app_s_tables_in_a_scratch_schema_too(applied: ServerProject) -> None:
    """They are copied there, with their rows; what it does not name is not."""
    applied.run_sql(
        "CREATE TABLE users (id SERIAL PRIMARY KEY, email TEXT);"
        "INSERT INTO users (email) VALUES ('a'), ('b');"
        "CREATE TABLE messages (id INT); INSERT INTO messages VALUES (1)"
    )
    applied.write(
        "004_bet_all",
        "-- depends: 003_double\n"
        "INSERT INTO bets (id) SELECT id + 100 FROM users;\nUPDATE users SET email = '';",
        "DELETE FROM bets WHERE id > 100;",
    )
    with somebody_in(applied):
        tried = rehearsed(applied).migrations[1]

    assert tried.changed == {"bets": 2, "users": 2}
    assert tried.reasons == ["users.email: 2 values differ, such as '1': 'a' became ''"]


def test_what_is_being_done_is_told(applied: ServerProject) -> None:
    told: list[tuple[str, int, int]] = []
    rehearsed(applied, progress=lambda *step: told.append(step))
    steps = ("applying", "rolling back", "comparing", "applying again")

    assert told == [(f"{step} 003_double", 0, 1) for step in steps]


def test_what_was_interrupted_is_rehearsed_as_it_will_be_run(postgresql_url: str) -> None:
    """An index that a stopped 004 has left invalid is no damage by the rehearsal."""
    run = migrate(["apply"], postgresql_url, "CREATE INDEX CONCURRENTLY idx_user_insights_type")
    assert run.code == -signal.SIGKILL
    run_sql(
        postgresql_url,
        "UPDATE pg_index SET indisvalid = FALSE WHERE indexrelid = 'idx_user_patterns_updated'::REGCLASS",
    )
    (tried,) = rehearse(server_location(postgresql_url)).migrations

    assert tried.id == IDS[3]
    assert not any("failed" in reason or "damaged" in reason for reason in tried.reasons), tried.reasons


def test_an_edited_file_is_refused_as_the_real_run_would_refuse_it(applied: ServerProject) -> None:
    applied.write("001_add_hands", "CREATE TABLE hands (id TEXT);")
    with pytest.raises(MigrationEdited):
        rehearsed(applied)


@pytest.mark.parametrize("mode", ["copy", "scratch schema"])
def test_an_interrupted_or_killed_rehearsal_leaves_nothing_for_long(
    mode: str, applied: ServerProject
) -> None:
    """Ctrl-C cleans up; after a kill the next one does; and one that is running is left alone."""

    def interrupt(doing: str, done: int, total: int) -> None:
        if doing.startswith("comparing"):
            raise KeyboardInterrupt

    def killed() -> None:
        kill_at("EXCEPT ALL", kill_itself)
        rehearse(server_location(applied.url), sources=["sql"])

    def while_running(doing: str, done: int, total: int) -> None:
        if doing.startswith("comparing"):
            running.extend(left_of(applied.url))
            assert running
            with somebody_in(applied):  # so that the second is in a scratch schema
                rehearse(server_location(applied.url), sources=["sql"])
            rehearse(server_location(applied.url), sources=["sql"])
            assert left_of(applied.url) == running

    running: list[tuple[str]] = []
    with somebody_in(applied) if mode == "scratch schema" else nullcontext():
        with pytest.raises(KeyboardInterrupt):
            rehearse(server_location(applied.url), sources=["sql"], progress=interrupt)
        assert left_of(applied.url) == []

        assert run_killed_at(0, killed) == -signal.SIGKILL
        assert len(left_of(applied.url)) == (1 if mode == "copy" else 2)
        wait_for_rows(
            applied.url,
            "SELECT (count(*) = 0)::INT FROM pg_locks JOIN pg_stat_activity USING (pid) "
            "WHERE locktype = 'advisory' AND application_name = 'poker-therapist'",
        )

        rehearse(server_location(applied.url), sources=["sql"], progress=while_running)
        assert left_of(applied.url) == []


def test_memory_is_the_server_s(applied: ServerProject) -> None:
    """Rows are compared inside it: of a big table hardly one comes here."""
    applied.run_sql("INSERT INTO hands (note) SELECT repeat('x', 1000) FROM generate_series(1, 5000)")
    fetched = 0
    fetchall = psycopg.Cursor.fetchall

    def counted(self: psycopg.Cursor) -> list[Any]:
        nonlocal fetched
        rows = fetchall(self)
        fetched += len(rows)
        return rows

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(psycopg.Cursor, "fetchall", counted)
        done = rehearse(server_location(applied.url), sources=["sql"])

    assert len(done.migrations) == 1
    assert fetched < 1000
