"""PostgreSQL: what a rehearsal sees of a whole database, and what it refuses, for no copy keeps it apart."""

from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from poker_therapist import StorageError
from poker_therapist.migrations.rehearse import Verdict
from poker_therapist.postgresql import rehearsal
from poker_therapist.postgresql.beyond import beyond
from poker_therapist.schema import rehearse
from tests.helpers.engines import query, run_sql, with_options
from tests.helpers.postgresql import name_of, server_location
from tests.helpers.project import ServerProject
from tests.helpers.rehearsals import left_of, rehearsed

pytestmark = pytest.mark.usefixtures("own_copies")

# What is there, what a migration does to it, and how each thing is named that its rollback leaves.
LEFT = """
CREATE FUNCTION lucky() RETURNS INT LANGUAGE sql AS 'SELECT 7'
| CREATE OR REPLACE FUNCTION lucky() RETURNS INT LANGUAGE sql AS 'SELECT 8' | function lucky() is CREATE OR

CREATE TYPE mood AS ENUM ('calm')
| ALTER TYPE mood ADD VALUE IF NOT EXISTS 'tilted' | type mood is ENUM ('calm', 'tilted'), not

CREATE SEQUENCE tickets | ALTER SEQUENCE tickets INCREMENT 2 | sequence tickets is AS bigint INCREMENT 2

CREATE DOMAIN positive AS INT
| ALTER DOMAIN positive SET DEFAULT 1 | type positive is DOMAIN AS integer DEFAULT 1, not

CREATE TABLE hands (id INT PRIMARY KEY)
| ALTER TABLE hands ENABLE ROW LEVEL SECURITY | table hands is ROW LEVEL SECURITY

CREATE POLICY own ON hands USING (id > 1)
| ALTER POLICY own ON hands USING (id > 2) | policy own on hands is

CREATE RULE quiet AS ON DELETE TO hands DO INSTEAD NOTHING
| ALTER TABLE hands DISABLE RULE quiet | rule quiet on hands is

SELECT 1 | GRANT SELECT ON hands TO PUBLIC | grant to PUBLIC on table hands exists, but should not

SELECT 1 | ALTER TABLE hands OWNER TO {role} | owner of table hands is {role}, not

SELECT 1 | COMMENT ON TABLE hands IS 'all' | comment on table hands exists, but should not (all)

CREATE PUBLICATION news | ALTER PUBLICATION news SET (publish = 'insert') | publication news is

CREATE SCHEMA audit
| COMMENT ON SCHEMA audit IS 'a' | comment on schema audit exists, but should not (a)

CREATE TABLE audit.log (id INT PRIMARY KEY) | INSERT INTO audit.log VALUES (7)
| audit.log: 1 row differs, for example '7' (only after)

SELECT 1 | SELECT 1 | applying again it failed: sql/001_change_all.sql:13: duplicate key

CREATE SEQUENCE audit.numbers | SELECT setval('audit.numbers', 9) | audit.numbers.last_value: 1 value differs
"""


@pytest.fixture
def project(tmp_path: Path, postgresql_url: str, monkeypatch: pytest.MonkeyPatch) -> ServerProject:
    """A project in whose folder one stands, with an empty database."""
    project = ServerProject(tmp_path / "project", postgresql_url)
    monkeypatch.chdir(project.folder)
    return project


@pytest.fixture
def role(postgresql_url: str) -> Iterator[str]:
    """A role that is there, and may do nothing."""
    name = f"{name_of(postgresql_url)}_role"
    run_sql(postgresql_url, f"CREATE ROLE {name}")
    yield name
    run_sql(postgresql_url, f"DROP OWNED BY {name} CASCADE; DROP ROLE {name}")


@pytest.mark.slow
def test_whatever_a_rollback_leaves_is_named_and_the_rehearsal_goes_on(
    project: ServerProject, role: str
) -> None:
    """Every kind of object, and rows of other schemas; what comes next is tried on a new copy."""
    setup, changes, reasons = zip(
        *(map(str.strip, part.format(role=role).split("|")) for part in LEFT.split("\n\n")), strict=True
    )
    project.run_sql("; ".join(setup))
    project.write("001_change_all", ";\n".join(changes), "SELECT 1;")
    project.write("002_add", "CREATE TABLE pots (id INT);", "DROP TABLE pots;")
    found = rehearsed(project)
    first, second = found.migrations

    assert [one for one in reasons if not any(told.startswith(one) for told in first.reasons)] == []
    assert len(first.reasons) == len(reasons), first.reasons
    assert (first.verdict, second.verdict, second.reasons) == (Verdict.IRREVERSIBLE, Verdict.EXACT, [])
    assert (found.not_tried, found.is_safe) == ([], False)


REFUSED = {
    "CREATE ROLE {role}_2": "CREATE ROLE has effects outside the database",
    "DROP ROLE {role}": "DROP ROLE has effects outside the database",
    "DO $$BEGIN EXECUTE 'CREATE ' || 'ROLE {role}_2'; END$$": "it changes role",
    "DO $$BEGIN EXECUTE 'COMMENT ON ROLE {role} IS NULL'; END$$": "it changes comments on shared objects",
    "-- transactional: false\nDO $$BEGIN EXECUTE 'DROP ' || 'ROLE {role}'; END$$": "it changes comments",
    "-- transactional: false\nDO $$BEGIN COMMIT; CREATE ROLE {role}_2; END$$": "CREATE ROLE has effects",
    "COPY hands TO '/tmp/{role}'": "COPY to a file or a program has effects outside the database",
}


@pytest.mark.slow
@pytest.mark.parametrize("direction", ["apply", "rollback"])
def test_what_no_copy_keeps_apart_is_not_tried(direction: str, project: ServerProject, role: str) -> None:
    """On a copy of the database and in a scratch schema alike; the rest is named, and nothing is left."""
    no_copy = with_options(project.url, f"options=-c%20role%3D{role}_3")
    run_sql(
        project.url,
        f"CREATE TABLE hands (id INT); CREATE ROLE {role}_3 CREATEROLE IN ROLE pg_write_server_files;"
        f"GRANT ALL ON SCHEMA public TO {role}_3; GRANT {role} TO {role}_3 WITH ADMIN OPTION;"
        f"GRANT CREATE ON DATABASE {name_of(project.url)} TO {role}_3; ALTER TABLE hands OWNER TO {role}_3;"
        f"COMMENT ON ROLE {role} IS 'reads'",
    )
    # Other tests have roles of their own on this server.
    roles = f"SELECT rolname, rolsuper FROM pg_roles WHERE starts_with(rolname, '{role}') ORDER BY 1"
    before = query(project.url, roles)
    try:
        for url in (project.url, no_copy):
            for statement, why in [*REFUSED.items()][: None if direction == "apply" else 3]:
                texts = (statement.format(role=role) + ";", "SELECT 1;")
                project.write("001_reach", *texts[:: 1 if direction == "apply" else -1])
                project.write("002_more", "SELECT 1;", "SELECT 1;")
                if url == no_copy and not statement.startswith(("DO", "COPY", "--")):
                    with pytest.raises(
                        StorageError, match="names a schema, or an object outside schemas, so it"
                    ):
                        rehearse(server_location(url), sources=["sql"])
                    continue
                found = rehearse(server_location(url), sources=["sql"])
                (reason,) = found.migrations[0].reasons

                assert f"this cannot be rehearsed: {why}" in reason
                assert (found.is_safe, bool(found.fallback_reason)) == (False, url == no_copy)
                assert (found.not_tried == ["002_more"]) == (direction == "apply")
        assert query(project.url, roles) == before
        assert left_of(project.url) == []
        assert not Path(f"/tmp/{role}").exists()
    finally:
        run_sql(project.url, f"DROP OWNED BY {role}_3; DROP ROLE {role}_3")


@pytest.mark.slow
def test_a_foreign_table_of_a_copy_is_cut_off(project: ServerProject) -> None:
    """It stands for what has no copy; the original's is not touched."""
    project.run_sql(
        "CREATE EXTENSION file_fdw; CREATE SERVER files FOREIGN DATA WRAPPER file_fdw;"
        "CREATE FOREIGN TABLE far (line TEXT) SERVER files OPTIONS (filename '/dev/null')"
    )
    project.write("001_read", "CREATE TABLE near AS SELECT * FROM far;", "DROP TABLE near;")
    (reason,) = rehearsed(project).migrations[0].reasons

    assert "sql/001_read.sql:1: this cannot be rehearsed: it reads another server or a file" in reason
    assert query(project.url, "SELECT count(*) FROM far") == [(0,)]


@pytest.mark.slow
def test_a_copy_has_the_settings_of_its_original(project: ServerProject) -> None:
    """Its search path above all: the server's template has none of them."""
    project.run_sql("CREATE SCHEMA rex")
    run_sql(project.url, f'ALTER DATABASE {name_of(project.url)} SET search_path = rex, "$user"')
    project.write(
        "001_add", "CREATE TABLE pots (id INT); INSERT INTO rex.pots VALUES (1);", "DROP TABLE rex.pots;"
    )
    (tried,) = rehearsed(project).migrations

    assert (tried.verdict, tried.changed) == (Verdict.EXACT, {"pots": 1})


@pytest.mark.slow
def test_a_scratch_schema_finds_the_extensions_that_are_in_a_schema_of_their_own(
    project: ServerProject, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And what a migration does there to the original's tables, in whatever way, is refused."""
    monkeypatch.setattr(rehearsal, "_PATIENCE", 0.05)
    project.run_sql(
        'CREATE SCHEMA "apart, too"; CREATE EXTENSION citext SCHEMA "apart, too"; CREATE TABLE hands (id INT)'
    )
    run_sql(project.url, f'ALTER DATABASE {name_of(project.url)} SET search_path = public, "apart, too"')
    project.write("001_add_names", "CREATE TABLE names (name CITEXT);", "DROP TABLE names;")
    assert project.yoyo("apply").returncode == 0
    project.run_sql("INSERT INTO names VALUES ('Ann')")
    project.write(
        "002_find", "DELETE FROM names WHERE name = 'ANN'; INSERT INTO names VALUES ('Ann');", "SELECT 1;"
    )
    project.write("003_reach", "DO $$BEGIN EXECUTE 'DELETE FROM pub' || 'lic.hands'; END$$;", "SELECT 1;")
    with psycopg.connect(project.url) as player:
        player.execute("SELECT 1")
        found = rehearsed(project)

    assert found.fallback_reason.startswith("rehearsed in a scratch schema")
    assert [one.verdict for one in found.migrations] == [Verdict.EXACT, None]
    assert "it uses public.hands, which is outside the scratch schema" in found.migrations[1].reasons[0]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("/* a */ create /* b */ user r", "create user"),
        ("ALTER ROLE r IN DATABASE d SET search_path = a", "ALTER ROLE"),
        ("CREATE USER MAPPING FOR PUBLIC SERVER s", ""),
        ("GRANT a TO b", "GRANT"),
        ("REVOKE a FROM b", "REVOKE"),
        ("GRANT SELECT ON t TO b", ""),
        ("GRANT CONNECT ON DATABASE d TO b", "GRANT CONNECT ON"),
        ("ALTER DATABASE d SET work_mem = 1", "ALTER DATABASE"),
        ("CREATE TABLESPACE t LOCATION '/x'", "CREATE TABLESPACE"),
        ("CREATE SUBSCRIPTION s CONNECTION '' PUBLICATION p", "CREATE SUBSCRIPTION"),
        ("ALTER SYSTEM SET work_mem = 1", "ALTER SYSTEM"),
        ("COMMENT ON DATABASE d IS 'a'", "COMMENT ON DATABASE"),
        ("DROP OWNED BY r", "DROP OWNED"),
        ("copy/**/(SELECT 1)\nTO PROGRAM 'x'", "COPY to a file or a program"),
        ("DO $$BEGIN COPY t TO '/x'; END$$", "COPY to a file or a program"),
        ("COPY t FROM '/x'", ""),
        ("SELECT dblink_exec('a', 'b')", "dblink_exec"),
        ("SELECT lo_export(1, '/x')", "lo_export"),
        ("INSERT INTO t SELECT 'CREATE ROLE r; dblink('", ""),
        ("CREATE TABLE users (role TEXT, user_id INT)", ""),
        ("DO $$BEGIN CREATE ROLE r; END$$", ""),
    ],
)
def test_the_text_says_what_reaches_beyond(text: str, found: str) -> None:
    """What a transaction undoes is left to a look at what has changed, where there is one."""
    assert beyond(text, is_undone=True) == found
    assert beyond("DO $$BEGIN CREATE ROLE r; END$$", is_undone=False) == "CREATE ROLE"
