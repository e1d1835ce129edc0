"""PostgreSQL: drift of migrations that another schema would mislead: they are built in a scratch database."""

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from poker_therapist import schema
from poker_therapist.testing import run_killed_at
from tests.helpers.cli import Result, command
from tests.helpers.engines import query, run_sql, with_options
from tests.helpers.postgresql import kill_at, name_of, wait_for_rows
from tests.helpers.project import ServerProject

# {role} is a role of the test's own.
MIGRATIONS = """
CREATE TABLE hands (id INT PRIMARY KEY, player INT REFERENCES app.users (id));
----
DO $$BEGIN IF NOT EXISTS (
    SELECT FROM information_schema.columns WHERE table_name = 'hands' AND column_name = 'note'
) THEN ALTER TABLE hands ADD note TEXT; END IF; END$$;
----
DO $$BEGIN
IF NOT EXISTS (SELECT FROM pg_type WHERE typname = 'mood') THEN CREATE TYPE mood AS ENUM ('calm'); END IF;
END$$;
----
CREATE EXTENSION citext; CREATE TABLE names (name CITEXT UNIQUE);
----
CREATE FUNCTION public.lucky() RETURNS INT LANGUAGE sql SET search_path = public
AS 'SELECT count(*)::INT FROM hands';
DO $$BEGIN IF to_regclass('public.hands') IS NULL THEN DROP TABLE names; END IF; END$$;
----
ALTER TYPE mood ADD VALUE 'tilted';
----
ALTER TABLE hands ADD mood mood DEFAULT 'tilted';
----
CREATE ROLE {role}; COMMENT ON ROLE {role} IS 'reads'; GRANT SELECT ON hands TO {role};
CREATE SCHEMA audit; CREATE TABLE audit.log (hand INT REFERENCES hands);
----
CREATE PUBLICATION news FOR TABLE hands; CREATE RULE quiet AS ON DELETE TO audit.log DO INSTEAD NOTHING;
ALTER TABLE audit.log ENABLE ROW LEVEL SECURITY; CREATE POLICY own ON audit.log USING (hand > 1);
COMMENT ON TABLE hands IS 'all'; REVOKE EXECUTE ON FUNCTION lucky FROM PUBLIC;
----
UPDATE hands SET note = 'a'; UPDATE hands SET note = 'b'; UPDATE hands SET note = 'c';
UPDATE hands SET note = 'd'; UPDATE hands SET note = 'e'; UPDATE hands SET note = 'f';
----
-- transactional: false
CREATE INDEX CONCURRENTLY by_note ON hands (note);
"""
# What somebody does by hand, and what is said of it.
CHANGES = {
    "CREATE OR REPLACE FUNCTION lucky() RETURNS INT LANGUAGE sql AS 'SELECT 1'": "function lucky() is CREATE",
    "GRANT EXECUTE ON FUNCTION lucky TO PUBLIC": "grant to PUBLIC on function lucky() exists",
    "ALTER TYPE mood RENAME VALUE 'calm' TO 'cool'": "type mood is ENUM ('cool', 'tilted'), not",
    "ALTER TABLE audit.log ADD at TIMESTAMP": "column audit.log.at exists, but should not",
    "ALTER POLICY own ON audit.log USING (hand > 2)": "policy own on audit.log is",
    "ALTER TABLE audit.log DISABLE ROW LEVEL SECURITY": "table audit.log is plain, not ROW LEVEL SECURITY",
    "DROP RULE quiet ON audit.log": "rule quiet on audit.log is missing",
    "ALTER PUBLICATION news SET (publish = 'insert')": "publication news is",
    "REVOKE SELECT ON hands FROM {role}": "grant to {role} on table hands is missing (SELECT)",
    "GRANT SELECT (name) ON names TO PUBLIC": "grant to PUBLIC on column name of names exists",
    "GRANT INSERT ON audit.log TO PUBLIC": "grant to PUBLIC on table audit.log exists",
    "COMMENT ON TABLE hands IS 'other'": "comment on table hands is other, not all",
    "COMMENT ON COLUMN hands.id IS 'mine'": "comment on column id of table hands exists, but should not",
    "CREATE RULE mine AS ON DELETE TO hands DO INSTEAD NOTHING": "rule mine on hands exists",
}
# What is an operator's business, or the app's.
HARMLESS = """
    ALTER TABLE hands ENABLE ROW LEVEL SECURITY; CREATE POLICY mine ON hands USING (TRUE);
    GRANT SELECT ON names, hands TO {role}_2; GRANT ALL ON SCHEMA public TO {role}_2;
    ALTER TABLE names OWNER TO {role}_2; ALTER TABLE app.users ADD email TEXT; CREATE EXTENSION hstore;
    CREATE FUNCTION mine() RETURNS INT LANGUAGE sql AS 'SELECT 1';
    CREATE SCHEMA apart; CREATE TABLE apart.t ();
    CREATE PUBLICATION mine FOR TABLE hands; SELECT lucky(); ALTER TABLE hands REPLICA IDENTITY FULL;
"""


@pytest.fixture
def project(tmp_path: Path, postgresql_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[ServerProject]:
    """A project all of whose migrations are applied to a database with tables of the app's."""
    project = ServerProject(tmp_path / "project", postgresql_url)
    role = f"{name_of(postgresql_url)}_role"
    run_sql(
        postgresql_url,
        f"CREATE SCHEMA app; CREATE TABLE app.users (id INT PRIMARY KEY); CREATE ROLE {role}_2",
    )
    for number, text in enumerate(MIGRATIONS.split("----\n"), 1):
        project.write(f"{number:03}_step", text.strip().format(role=role))
    monkeypatch.setattr(schema, "folders_for", lambda _location, _applied: [project.sql])
    try:
        ran = project.yoyo("apply")
        assert ran.returncode == 0, ran
        yield project
    finally:
        run_sql(postgresql_url, f"DROP OWNED BY {role}, {role}_2 CASCADE; DROP ROLE {role}, {role}_2")


def ask(url: str) -> Result:
    return command("status", "--database", url, "--json", folder=Path.cwd())


def left(url: str) -> list[tuple[str]]:
    return query(url, "SELECT datname FROM pg_database WHERE datname ^@ 'poker_therapist_scratch_'")


@pytest.mark.slow
def test_what_asks_or_names_more_than_a_schema_is_judged_in_a_database(project: ServerProject) -> None:
    """Extensions, catalogs, other schemas, roles: no false drift, every true one, and nothing is left."""
    role = f"{name_of(project.url)}_role"
    clean = ask(project.url)
    project.run_sql(HARMLESS.format(role=role))
    harmless = ask(project.url)
    for change in CHANGES:
        project.run_sql(change.format(role=role))
    changed = ask(project.url)

    for ran in (clean, harmless):
        assert (ran.code, ran.json["drift"], ran.json["unjudged"]) == (0, [], "")
    shown = command("status", "-d", project.url, folder=Path.cwd()).out
    missing = [one for one in CHANGES.values() if f"drift: {one.format(role=role)}" not in shown]
    assert (missing, changed.code) == ([], 4)
    assert len(changed.json["drift"]) == len(CHANGES), changed.json["drift"]
    assert left(project.url) == []


@pytest.mark.slow
def test_what_a_killed_status_leaves_the_next_one_drops(project: ServerProject) -> None:
    """Ctrl-C leaves nothing; and what another one uses right now stays."""

    def stopped(how: int) -> int:
        def run() -> None:
            signal.signal(signal.SIGINT, signal.default_int_handler)
            kill_at("CREATE RULE quiet", lambda: signal.raise_signal(how))
            ask_in_process(project.url)

        return run_killed_at(0, run)

    assert stopped(signal.SIGINT) != 0
    assert left(project.url) == []
    assert stopped(signal.SIGKILL) == -signal.SIGKILL
    assert len(left(project.url)) == 1
    ((name,),) = left(project.url)
    wait_for_rows(
        project.url,
        f"SELECT (count(*) = 0)::INT FROM pg_stat_activity WHERE datname = '{name}' "
        f"OR pid::TEXT = split_part('{name}', '_', 4)",
    )
    in_use = query(
        project.url,
        "SELECT 'poker_therapist_scratch_' || pid || '_x' FROM pg_stat_activity "
        "WHERE backend_type = 'checkpointer'",
    )[0][0]
    run_sql(project.url, f"CREATE DATABASE {in_use}")
    try:
        assert ask(project.url).code == 0
        assert left(project.url) == [(in_use,)]
    finally:
        run_sql(project.url, f"DROP DATABASE {in_use}")


def ask_in_process(url: str) -> None:
    """Read the status in this process."""
    from poker_therapist.location import locate

    schema.read_status(locate(url))


WITHOUT_DATABASE = {
    "CREATE TABLE names (name CITEXT, player INT REFERENCES users (id));": "",
    "CREATE TABLE names (name HSTORE);": "",
    """DO $$BEGIN
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'postgres') THEN CREATE ROLE postgres; END IF;
    CREATE EXTENSION IF NOT EXISTS citext; CREATE TABLE names (); END$$;""": "",
    """DO $$BEGIN
    IF NOT EXISTS (SELECT FROM pg_tables WHERE tablename = 'names') THEN CREATE TABLE names (); END IF;
    END$$;""": "001_names.sql:1 queries a catalog, which differs in another schema",
    "CREATE TABLE public.names ();": "names a schema",
}


@pytest.mark.slow
def test_a_role_that_may_make_no_database_is_told_what_a_schema_cannot_show(
    postgresql_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it shows is judged, extensions wherever they are; never "up to date" where it may be otherwise."""
    name = f"{name_of(postgresql_url)}_role"
    session = with_options(postgresql_url, f"options=-c%20role%3D{name}")
    run_sql(
        postgresql_url,
        f"CREATE ROLE {name}; GRANT ALL ON SCHEMA public TO {name}; CREATE EXTENSION citext;"
        f"CREATE SCHEMA apart;"
        f"CREATE EXTENSION hstore SCHEMA apart; GRANT USAGE ON SCHEMA apart TO {name};"
        f"GRANT CREATE ON DATABASE {name_of(postgresql_url)} TO {name};"
        f"CREATE TABLE users (id INT PRIMARY KEY); GRANT ALL ON users TO {name};"
        f"ALTER DATABASE {name_of(postgresql_url)} SET search_path = public, apart",
    )
    found = {}
    try:
        for number, text in enumerate(WITHOUT_DATABASE):
            project = ServerProject(tmp_path / str(number), session)
            project.write("001_names", text, "DROP TABLE names;")
            monkeypatch.setattr(schema, "folders_for", lambda _location, _applied, it=project: [it.sql])
            ran = project.yoyo("apply")
            assert ran.returncode == 0, ran
            found[text] = ask(session)
            run_sql(postgresql_url, "DROP TABLE names")
            assert project.yoyo("unmark").returncode == 0
    finally:
        run_sql(postgresql_url, f"DROP OWNED BY {name} CASCADE; DROP ROLE {name}")

    for text, why in WITHOUT_DATABASE.items():
        judged = found[text]
        assert (judged.code, judged.json["drift"]) == (4 if why else 0, []), (text, judged)
        assert why in judged.json["unjudged"]
        assert bool(why) == ("Run this as a role that may create databases (" in judged.json["unjudged"])
