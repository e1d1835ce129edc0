"""PostgreSQL: `poker-therapist status` shows drift, says where nobody can judge it, and writes nothing."""

import signal
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from poker_therapist import schema
from poker_therapist.postgresql import scratch
from poker_therapist.postgresql.backend import AtomicPostgreSQLBackend
from poker_therapist.postgresql.scratch import build
from tests.helpers.cli import Result, command, refused
from tests.helpers.engines import query, run_sql, with_options
from tests.helpers.postgresql import APP_TABLES, IDS, migrate, name_of, server_location, wait_for_rows
from tests.helpers.project import ServerProject


@pytest.fixture
def url(migrated_postgresql_url: str) -> str:
    """An up-to-date database beside which the app has tables of its own."""
    run_sql(migrated_postgresql_url, APP_TABLES)
    return migrated_postgresql_url


def ask(url: str, *options: str) -> Result:
    return command("status", "--database", url, *options, folder=Path.cwd())


def test_a_schema_of_another_name_is_judged_as_public_is(postgresql_url: str) -> None:
    run_sql(postgresql_url, "CREATE SCHEMA rex")
    beside = with_options(postgresql_url, "schema=rex")
    assert migrate(["apply"], beside).code == 0

    assert (ask(beside).code, ask(postgresql_url).code) == (0, 3)

    run_sql(postgresql_url, "DROP INDEX rex.idx_user_insights_newest_of_type")

    assert len(ask(beside, "--json").json["drift"]) == 1


def test_what_is_granted_by_default_since_is_not_missed(url: str) -> None:
    """A scratch schema gets it, and the tables of before do not."""
    name = f"{name_of(url)}_role"
    run_sql(url, f"CREATE ROLE {name}; ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO {name}")
    try:
        ran = ask(url, "--json")
    finally:
        run_sql(url, f"DROP OWNED BY {name}; DROP ROLE {name}")

    assert (ran.code, ran.json["drift"]) == (0, [])


@pytest.fixture
def role(url: str) -> Iterator[str]:
    """A role that may look at every table and make nothing."""
    name = f"{name_of(url)}_role"
    run_sql(url, f"CREATE ROLE {name}; GRANT SELECT ON ALL TABLES IN SCHEMA public TO {name}")
    yield name
    run_sql(url, f"DROP OWNED BY {name}; DROP ROLE {name}")


@pytest.mark.parametrize("setting", ["default_transaction_read_only=on", "role={role}"])
def test_where_nothing_can_be_built_drift_is_not_judged_and_that_is_said(
    setting: str, url: str, role: str
) -> None:
    """A standby, or a role that may not make a schema: it is told why, and never "up to date"."""
    run_sql(url, "ALTER TABLE users ADD COLUMN name TEXT")
    session = with_options(url, f"options=-c%20{setting.format(role=role).replace('=', '%3D')}")
    ran, machine = ask(session), ask(session, "--json")

    assert (ran.code, machine.code) == (4, 4)
    assert ran.lines[-2].startswith("drift cannot be checked, because no schema can be created here (")
    assert ran.lines[-2].endswith("run this on the primary, as a role that may create a schema")
    assert machine.json["unjudged"] == ran.lines[-2]
    assert ran.lines[-1].endswith(": the schema cannot be checked, see above.")
    assert [one["state"] for one in machine.json["migrations"]] == ["applied"] * len(IDS)


def test_a_role_that_may_not_look_is_told_so(url: str, role: str) -> None:
    run_sql(url, f"REVOKE SELECT ON _yoyo_migration FROM {role}")
    message = refused("status", "-d", with_options(url, f"options=-c%20role%3D{role}"), folder=Path.cwd())

    assert "permission denied for table _yoyo_migration: grant this role the privilege" in message


# Applied migrations that need, or name, what is not theirs.
FOREIGN = {
    "reads a table of the app's": ("CREATE TABLE hands AS SELECT id FROM users;", ""),
    "refers to one": ("CREATE TABLE hands (player INT REFERENCES users (id));", ""),
    "adds a column to one": ("CREATE TABLE hands (); ALTER TABLE users ADD COLUMN name TEXT;", "users"),
    "names the schema": ("CREATE TABLE public.hands (id INT);", ""),
    "names it in quotes": ('CREATE TABLE hands (); UPDATE "public" . users SET email = NULL;', ""),
    "sets the search path": ("SET search_path = public; CREATE TABLE hands (id INT);", ""),
    "has transactions of its own": (
        "-- transactional: false\nBEGIN; CREATE TABLE hands (id INT); COMMIT; START TRANSACTION; END;",
        "",
    ),
    "commits in a block": (
        "-- transactional: false\nDO $$BEGIN CREATE TABLE hands (); COMMIT; END$$;",
        "invalid transaction termination",
    ),
    "makes an extension": ("CREATE EXTENSION hstore; CREATE TABLE hands (id HSTORE);", ""),
    "needs a function": ("CREATE TABLE hands (id INT DEFAULT lucky());", "lucky"),
}


@pytest.mark.parametrize("kind", FOREIGN)
def test_an_applied_migration_that_cannot_be_built_again_is_named(
    kind: str, postgresql_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The status of the migrations is told all the same; nothing of the app's is touched, nor locked."""
    statements, drift_unknown_because = FOREIGN[kind]
    if "extension" in kind and not query(
        postgresql_url, "SELECT 1 FROM pg_available_extensions WHERE name = 'hstore'"
    ):
        pytest.skip("this server has no extensions")
    run_sql(postgresql_url, APP_TABLES + "CREATE FUNCTION lucky() RETURNS INT LANGUAGE sql AS 'SELECT 7'")
    project = ServerProject(tmp_path / "project", postgresql_url)
    project.write("001_foreign", statements)
    monkeypatch.setattr(schema, "folders_for", lambda _location, _applied: [project.sql])
    assert project.yoyo("apply").returncode == 0
    before = query(postgresql_url, "SELECT relname, xmin, relfilenode FROM pg_class ORDER BY oid")
    with psycopg.connect(postgresql_url) as player:
        player.execute("UPDATE users SET email = ''")
        ran = ask(with_options(postgresql_url, "timeout=0.5"), "--json")
    text = ran.json["unjudged"]

    assert ran.code == (4 if drift_unknown_because else 0), ran
    assert [one["state"] for one in ran.json["migrations"]] == ["applied"]
    assert ran.json["drift"] == []
    assert bool(text) == bool(drift_unknown_because)
    assert drift_unknown_because in text
    assert text.startswith("drift cannot be checked: ") or not text
    assert query(postgresql_url, "SELECT relname, xmin, relfilenode FROM pg_class ORDER BY oid") == before
    assert query(postgresql_url, "SELECT count(*) FROM pg_namespace WHERE nspname ~ '^poker'") == [(0,)]
    assert query(postgresql_url, "SELECT last_value, is_called FROM users_id_seq") == [(1, True)]


def test_looking_writes_nothing(url: str) -> None:
    """No row of a catalog is another one afterwards, and no lock is left."""
    catalogs = ("pg_class", "pg_attribute", "pg_constraint", "pg_namespace", "pg_index", "_migration_text")
    before = [query(url, f"SELECT ctid, xmin FROM {catalog} ORDER BY 1") for catalog in catalogs]
    for options in ((), ("--json",)):
        assert ask(url, *options).code == 0

    assert [query(url, f"SELECT ctid, xmin FROM {catalog} ORDER BY 1") for catalog in catalogs] == before


def test_two_may_look_at_once(url: str) -> None:
    """Neither waits: what is built again has another name each time."""
    with AtomicPostgreSQLBackend(server_location(url)) as looking:
        looking.begin()
        build(looking.connection, "public", [])
        ran = ask(with_options(url, "timeout=0.5"), "--json")

    assert (ran.code, ran.json["unjudged"]) == (0, "")


def test_a_table_that_is_just_being_migrated_is_not_judged(url: str) -> None:
    """All but the drift is told; for that, somebody who alters a table is waited for, and not for ever."""
    with AtomicPostgreSQLBackend(server_location(url)) as migrating:
        migrating.begin()
        migrating.connection.execute("ALTER TABLE public.user_patterns ADD COLUMN mood TEXT")
        ran = ask(with_options(url, "timeout=0.1"), "--json")

    assert ran.code == 4
    assert [one["state"] for one in ran.json["migrations"]] == ["applied"] * len(IDS)
    assert "is locked (canceling statement due to lock timeout)" in ran.json["unjudged"]


def test_what_somebody_is_applying_is_not_called_interrupted(postgresql_url: str) -> None:
    """Nobody is asked to run again what still runs; once it was stopped, somebody is."""
    run = migrate(["apply"], postgresql_url, "CREATE INDEX CONCURRENTLY idx_user_insights_foremost")
    assert run.code == -signal.SIGKILL
    wait_for_rows(postgresql_url, "SELECT (count(*) = 0)::INT FROM pg_locks WHERE locktype = 'advisory'")
    with AtomicPostgreSQLBackend(server_location(postgresql_url)) as migrating, migrating.migration_lock():
        running = ask(postgresql_url, "--json")
    stopped = ask(postgresql_url, "--json")

    assert (running.code, running.json["migrations"][4]["state"]) == (3, "pending")
    assert (running.json["state"], running.json["unjudged"]) == ("migrating", "")
    assert running.json["migrations"][4]["note"] == "it is being applied or rolled back"
    assert (stopped.code, stopped.json["migrations"][4]["state"]) == (4, "interrupted")


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("COPY (SELECT 1) TO PROGRAM 'touch NEW';", "reads or writes a file of the server"),
        ("copy/**/(SELECT 1)\nTO 'NEW';", "reads or writes a file of the server"),
        ("CREATE TABLE a (b TEXT); COPY a FROM E'/etc/passwd';", "reads or writes a file of the server"),
        ("DO $$BEGIN COPY (SELECT 1) TO 'NEW'; END$$;", "reads or writes a file of the server"),
        ("CREATE TABLE a AS SELECT 1 AS b FROM pg_sleep(100);", "statement timeout"),
    ],
)
def test_a_kept_text_reaches_no_file_of_the_server_and_ends(
    text: str, why: str, migrated_postgresql_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who owns the database can write there what a superuser's `status` would run."""
    monkeypatch.setattr(scratch, "_SECONDS_TO_BUILD", 1)
    kept = text.replace("NEW", str(tmp_path / "new")).replace("'", "''")
    run_sql(
        migrated_postgresql_url,
        "INSERT INTO _yoyo_migration VALUES ('x', '999_x', '2026-01-01');"
        "INSERT INTO _migration_text SELECT '_yoyo_migration', migration_id, applied_at_utc::text, 'x', "
        f"'{kept}', '' FROM _yoyo_migration WHERE migration_id = '999_x'",
    )
    ran = command("status", "-d", migrated_postgresql_url, "--json", folder=tmp_path)

    assert ran.code == 4
    assert why in ran.json["unjudged"]
    assert not (tmp_path / "new").exists()
