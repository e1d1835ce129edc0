"""PostgreSQL: `poker-therapist rehearse` on a copy by the server, or in a scratch schema; nothing is left."""

import re
import shutil
import signal
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import psycopg
import pytest

from poker_therapist import StorageError
from poker_therapist.engines import engine_for
from poker_therapist.location import locate
from poker_therapist.migrations.rehearse import Verdict
from poker_therapist.postgresql import rehearsal
from poker_therapist.postgresql.backend import AtomicPostgreSQLBackend
from poker_therapist.schema import rehearse
from poker_therapist.testing import run_killed_at
from tests.helpers.cli import command
from tests.helpers.databases import Databases
from tests.helpers.engines import run_sql, with_options
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
from tests.helpers.rehearsals import left_of, rehearsed
from tests.helpers.snapshots import everything
from tests.helpers.verdicts_postgresql import HANDS

# Each copies a database on the server.
pytestmark = [pytest.mark.usefixtures("own_copies"), pytest.mark.slow]


@pytest.fixture
def project(tmp_path: Path, postgresql_url: str, monkeypatch: pytest.MonkeyPatch) -> ServerProject:
    """A project in whose folder one stands, with a database that no migration has seen."""
    project = ServerProject(tmp_path / "project", postgresql_url)
    project.run_sql(HANDS)
    monkeypatch.chdir(project.folder)
    return project


def test_the_project_s_own_migrations_are_rehearsed_with_rows_in_every_table(postgresql_url: str) -> None:
    """From 001 on, as the operator's command tells it, and with nothing left by it."""
    assert migrate(["apply", "-m", "001"], postgresql_url).code == 0
    run_sql(postgresql_url, ROWS)
    before = everything(postgresql_url)
    told = command("rehearse", "-d", postgresql_url, folder=FOLDER)
    machine = command("rehearse", "-d", postgresql_url, "--json", "--to", IDS[1], folder=FOLDER)

    assert (told.code, machine.code) == (0, 0)
    assert [line.split("\t")[:2] for line in told.lines][: len(IDS) - 1] == [
        [name, "exact"] for name in IDS[1:]
    ]
    assert told.lines[-1] == "Every migration can be applied and rolled back."
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
        "rehearsed in a scratch schema, not on a copy of the database: "
        f"other sessions connected to {name_of(project.url)}: \\d+{re.escape(more)}$"
    )


@pytest.fixture(scope="module")
def prepared(databases: Databases, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProject]:
    """Some of HANDS made by migrations, with keys and triggers, and more rows and drift since."""
    with databases.fresh() as url:
        project = ServerProject(tmp_path_factory.mktemp("prepared") / "project", url)
        project.run_sql("CREATE SEQUENCE tickets; SELECT nextval('tickets')")
        _prepare(project)
        yield project


@pytest.fixture
def applied(
    prepared: ServerProject, databases: Databases, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[ServerProject]:
    """A copy of what is prepared, in whose folder one stands."""
    with databases.fresh(name_of(prepared.url)) as url:
        project = ServerProject(tmp_path / "applied", url)
        shutil.copytree(prepared.sql, project.sql, dirs_exist_ok=True)
        monkeypatch.chdir(project.folder)
        yield project


def _prepare(project: ServerProject) -> None:
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
    assert ran.lines[len(IDS) - 2] == (
        "rehearsed in a scratch schema, not on a copy of the database: permission denied to create database"
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

            more = "; the scratch schema lacks the drift that `poker-therapist status` shows"
            assert in_scratch_schema(applied, more).match(found.fallback_reason)
            return
        with pytest.raises(StorageError) as caught:
            rehearsed(applied)

        assert DRIFT[change] in str(caught.value)
        assert "see `poker-therapist status`" in str(caught.value)
        assert "Rehearse while no other session is connected" in str(caught.value)
        assert left_of(applied.url) == []


# What would be done to the original, were it rehearsed in a scratch schema beside it.
REACHING = [
    "UPDATE public.hands SET note = 'gone';",
    'DELETE FROM "public" . a_log;',
    "SET search_path = public; DELETE FROM a_log;",
    "DO $$BEGIN DELETE FROM public.a_log; END$$;",
    "CREATE ROLE poker_therapist_test_role;",
    "CREATE SCHEMA elsewhere;",
]


@pytest.mark.parametrize("direction", ["apply", "rollback"])
def test_what_would_reach_the_original_is_tried_on_a_copy_alone(
    direction: str, applied: ServerProject
) -> None:
    """In a scratch schema it is refused, with its place."""

    def write(name: str, before: str, statement: str) -> None:
        texts = ["SELECT 1;", statement]
        apply, rollback = texts if direction == "rollback" else reversed(texts)
        applied.write(name, f"-- depends: {before}\n{apply}", rollback)

    with somebody_in(applied):
        for statement in REACHING:
            write("004_reach", "003_double", statement)
            place = rf"004_reach(\.rollback)?\.sql:{1 if direction == 'rollback' else 2} names a schema, or"
            with pytest.raises(StorageError, match=place):
                rehearsed(applied)

            assert left_of(applied.url) == []
    names = ["003_double"]
    for statement in REACHING:
        if "ROLE" not in statement:
            names.append(f"{len(names) + 3:03}_reach")
            write(names[-1], names[-2], statement)

    tried = rehearsed(applied).migrations
    assert [one.id for one in tried if one.verdict is not None] == names


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
    assert tried.reasons == ["users.email: 2 values differ, for example '1': 'a' became ''"]


def test_what_was_interrupted_is_rehearsed_as_it_will_be_run(postgresql_url: str) -> None:
    """An index that a stopped 004 has left invalid is no damage by the rehearsal."""
    run = migrate(["apply"], postgresql_url, "CREATE INDEX CONCURRENTLY idx_user_insights_type")
    assert run.code == -signal.SIGKILL
    run_sql(
        postgresql_url,
        "UPDATE pg_index SET indisvalid = FALSE WHERE indexrelid = 'idx_user_patterns_updated'::REGCLASS",
    )
    tried = rehearse(server_location(postgresql_url)).migrations[0]

    assert tried.id == IDS[3]
    assert not any("failed" in reason or "damaged" in reason for reason in tried.reasons), tried.reasons


@pytest.mark.parametrize("mode", ["copy", "scratch schema"])
def test_an_interrupted_or_killed_rehearsal_leaves_nothing_for_long(
    mode: str, applied: ServerProject
) -> None:
    """Ctrl-C cleans up; after a kill the next one does; and one that is running is left alone."""

    def interrupt(doing: str, done: int, total: int) -> None:
        if doing.startswith("comparing"):
            raise KeyboardInterrupt

    def killed() -> None:
        kill_at("count(*) FILTER", kill_itself)
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


def test_migrations_share_a_session_until_it_ends(migrated_postgresql_url: str) -> None:
    """As in a real run; a server may end one that waits for long."""
    seen = []
    with engine_for(locate(migrated_postgresql_url)).rehearsal_copy({}) as work:
        for ends in (False, True, False):
            with work.backend() as backend:
                assert len(backend.applied()) == len(IDS)
                assert isinstance(backend, AtomicPostgreSQLBackend)
                seen.append(backend.connection.info.backend_pid)
            if ends:
                run_sql(migrated_postgresql_url, f"SELECT pg_terminate_backend({seen[-1]}, 10000)")

    assert seen[0] == seen[1] != seen[2]


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
    assert fetched < 2500


def test_tables_that_refer_to_each_other_are_refused_in_a_scratch_schema(applied: ServerProject) -> None:
    """No order fills them; the tables are named, and how to rehearse nevertheless."""
    applied.write(
        "002_a_circle",
        "-- depends: 001_add_hands\n-- out-of-order: true\n"
        "CREATE TABLE pots (id INT PRIMARY KEY, winner INT);\n"
        "CREATE TABLE winners (id INT PRIMARY KEY, pot INT REFERENCES pots);\n"
        "ALTER TABLE pots ADD FOREIGN KEY (winner) REFERENCES winners;",
        "DROP TABLE pots, winners CASCADE;",
    )
    assert applied.yoyo("apply", "-m", "002_a").returncode == 0
    with somebody_in(applied):
        with pytest.raises(StorageError) as caught:
            rehearsed(applied)

        assert re.search(
            "could not be rebuilt for a rehearsal: "
            r"the foreign keys of these tables form a cycle: (pots, winners, pots|winners, pots, winners)\n",
            str(caught.value),
        )
        assert "Rehearse while no other session is connected" in str(caught.value)
        assert left_of(applied.url) == []
    assert rehearsed(applied).fallback_reason == ""
