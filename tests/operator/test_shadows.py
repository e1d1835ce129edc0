"""PostgreSQL: what another role has put into the schema is called by nobody else (as in CVE-2018-1058).

The role may create there, as in every schema `public` that comes from PostgreSQL 14 or older. What it makes
fits a call better than PostgreSQL's own, or has the name of one of our tables.
"""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import poker_therapist
from poker_therapist import DatabaseUnreadable, get_pattern_storage
from poker_therapist.postgresql.backend import AtomicPostgreSQLBackend
from poker_therapist.sqlfile import Placeholders, read_queries
from tests.helpers.cli import command
from tests.helpers.engines import query, run_sql
from tests.helpers.postgresql import name_of, server_location
from tests.helpers.project import ServerProject


@pytest.fixture(scope="session")
def engine() -> str:
    """This one alone."""
    return "postgresql"


# A function that notes who calls it, for each of these lists of arguments.
FUNCTIONS = {
    "hashtextextended": ["text, integer"],
    "substr": ["varchar, integer, integer", "text, bigint, integer"],
    "format": ["text, name", "text, name, name"],
    "lower": ["name", "varchar"],
    "quote_ident": ["name", "varchar"],
    "count": ["varchar"],
    "coalesce": ["varchar, varchar"],
    "pg_advisory_lock": ["integer"],
    "pg_try_advisory_lock": ["integer", "numeric"],
    "set_config": ["name, text, boolean", "varchar, text, boolean"],
    "to_regclass": ["varchar", "name"],
    "setval": ["text, bigint, boolean", "text, integer, boolean"],
    "pg_get_serial_sequence": ["text, varchar", "varchar, text", "name, name"],
    "concat_ws": ["text, name, text", "text, text, name"],
    "array_to_string": ["name[], text"],
    "max": ["varchar"],
    "octet_length": ["varchar"],
    "jsonb_typeof": ["json"],
    "now": ["integer DEFAULT 1"],
    "citus_is_coordinator": [""],
}
# An operator that does so.
OPERATORS = {
    "=": ["varchar, varchar", "text, varchar", "varchar, text", "name, varchar"],
    "<>": ["varchar, varchar"],
    "||": ["text, name", "name, text", "name, name", "text, varchar"],
    ">=": ["varchar, varchar"],
    "<=": ["varchar, varchar"],
}


def shadows(role: str) -> str:
    """Return the statements by which a role makes all of them."""
    made = ["CREATE TABLE called (by NAME, what TEXT); GRANT ALL ON called TO PUBLIC"]
    body = "LANGUAGE plpgsql AS $$ BEGIN INSERT INTO public.called VALUES (current_user, '{}'); "
    body += "RETURN NULL; END $$"
    for name, several in FUNCTIONS.items():
        for arguments in several:
            result = "BOOLEAN" if "try" in name or "citus" in name else "TEXT"
            made.append(f'CREATE FUNCTION "{name}"({arguments}) RETURNS {result} {body.format(name)}')
    for number, (name, arguments) in enumerate((n, a) for n, several in OPERATORS.items() for a in several):
        left, right = arguments.split(", ")
        result = "TEXT" if name == "||" else "BOOLEAN"
        made.append(f"CREATE FUNCTION op_{number}({arguments}) RETURNS {result} {body.format(name)}")
        made.append(f"CREATE OPERATOR {name} (FUNCTION = op_{number}, LEFTARG = {left}, RIGHTARG = {right})")
    return f"SET ROLE {role}; {'; '.join(made)}; RESET ROLE"


@pytest.fixture
def stranger(postgresql_url: str) -> Iterator[str]:
    """A role that may create in the schema of a database."""
    role = f"stranger_of_{name_of(postgresql_url)}"
    run_sql(postgresql_url, f"CREATE ROLE {role}; GRANT CREATE ON SCHEMA public TO PUBLIC")
    yield role
    run_sql(postgresql_url, f"DROP OWNED BY {role} CASCADE; DROP ROLE {role}")


def called(url: str) -> set[str]:
    return {what for (what,) in query(url, "SELECT what FROM public.called")}


@pytest.mark.slow
@pytest.mark.usefixtures("programs")
def test_nothing_that_another_role_has_made_is_called_by_who_opens_saves_or_looks(
    postgresql_url: str, stranger: str, tmp_path: Path
) -> None:
    get_pattern_storage(postgresql_url).close()
    run_sql(postgresql_url, shadows(stranger))
    run_sql(postgresql_url, "SELECT 'a'::varchar = 'b'::varchar, lower('a'::name)")
    assert called(postgresql_url) == {"=", "lower"}
    run_sql(postgresql_url, "TRUNCATE public.called")
    with get_pattern_storage(postgresql_url) as storage:
        storage.save_pattern(7, "tilt", "bad_beat", 1)
        with storage.transaction():
            storage.save_context(7, "mood", storage.get_pattern(7, "tilt", "bad_beat"), expires_minutes=-1)
        storage.purge_expired()
        assert storage.export_user(7)
        assert storage.forget_user(8)
    back = "rollback --to 005_order_by_id --yes"
    deeds = ["status", "log", "apply", "export 7", "backup --output one.backup", "restore one.backup", back]
    codes = [command(*deed.split(), "--database", postgresql_url, folder=tmp_path).code for deed in deeds]
    assert codes == [4, 0, 0, 0, 0, 0, 1]  # drift is not judged, and no migration is rolled back
    assert command("copy", postgresql_url, "copy.db", folder=tmp_path).code == 0
    drops = "DO $$ DECLARE one TEXT; BEGIN FOR one IN SELECT oid::REGOPERATOR FROM pg_operator WHERE "
    drops += "oprnamespace = 'public'::REGNAMESPACE LOOP EXECUTE 'DROP OPERATOR ' || one; END LOOP; END $$"
    run_sql(postgresql_url, drops)
    for deed in (back, "rehearse", "apply"):  # which the operators would be called by
        ran = command(*deed.split(), "--database", postgresql_url, folder=tmp_path)
        assert ran.code == 0, ran.error
    assert called(postgresql_url) == set()


def test_a_migration_that_would_call_what_another_role_has_made_is_not_run(
    project: ServerProject, stranger: str
) -> None:
    """Of functions, one that the migration names; an operator in any case, for it may be called unnamed."""
    project.run_sql(
        f"SET ROLE {stranger}; CREATE FUNCTION lower(name) RETURNS TEXT LANGUAGE sql AS 'SELECT NULL'"
    )
    project.write("001_add_hands", "CREATE TABLE hands (id INT);", "DROP TABLE hands;")
    assert project.yoyo("apply").returncode == 0
    project.write("002_fill", "-- depends: 001_add_hands\nSELECT Lower(current_user);", "SELECT 1;")
    message = project.refuses("apply")

    assert message.startswith("function public.lower(name) in ")
    assert f" belongs to the role {stranger}, " in message
    assert 'REVOKE CREATE ON SCHEMA "public" FROM PUBLIC' in message
    assert project.applied() == ["001_add_hands"]

    project.run_sql(
        f"DROP FUNCTION lower(name); SET ROLE {stranger}; CREATE OPERATOR >= "
        "(FUNCTION = float8ge, LEFTARG = double precision, RIGHTARG = double precision)"
    )
    assert "operator public.>=(double precision,double precision) in" in project.refuses("apply")

    project.run_sql("DROP OPERATOR public.>= (double precision, double precision)")
    assert project.yoyo("apply").returncode == 0


def test_what_stands_in_the_place_of_the_bookkeeping_is_not_read(postgresql_url: str, stranger: str) -> None:
    """A view would be read with the rights of whoever reads it."""
    run_sql(
        postgresql_url,
        f"""
        SET ROLE {stranger}; CREATE TABLE called (by NAME, what TEXT); GRANT ALL ON called TO PUBLIC;
        CREATE FUNCTION note() RETURNS TEXT LANGUAGE sql AS
            $$ INSERT INTO public.called VALUES (current_user, 'view') RETURNING what $$;
        CREATE VIEW _yoyo_migration AS SELECT note() AS migration_id;
        """,
    )
    with pytest.raises(DatabaseUnreadable, match=r"public\._yoyo_migration in .* is a view or foreign table"):
        get_pattern_storage(postgresql_url)
    assert called(postgresql_url) == set()


@pytest.mark.parametrize("file", sorted(Path(poker_therapist.__file__).parent.rglob("*.sql")), ids=str)
def test_every_function_of_a_statement_of_ours_is_named_with_its_schema(file: Path) -> None:
    if file.parent.name == "sqlite" or "sql_migrations" in file.parts:
        return
    for name, statement in read_queries(Placeholders.POSTGRESQL, file).items():
        called = set(re.findall(r"(?<![\w.])[a-z_]\w*(?=\()", re.sub(r"'[^']*'", "", statement)))
        assert called <= {"any", "cast", "coalesce", "greatest", "least", "nullif"}, name


def test_the_path_is_the_safe_one_again_after_an_error(postgresql_url: str) -> None:
    """What ran with a migration's search path leaves none behind, however it ends."""
    with AtomicPostgreSQLBackend(server_location(postgresql_url)) as backend:
        safe = backend.connection.execute("SHOW search_path").fetchone()
        with pytest.raises(ValueError, match="stop"), backend.migration_names():
            raise ValueError("stop")
        assert backend.connection.execute("SHOW search_path").fetchone() == safe
        assert safe != ('"$user", public',)
