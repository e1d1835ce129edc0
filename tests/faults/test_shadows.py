"""PostgreSQL: what another role has put into the schema is called by nobody else (as in CVE-2018-1058).

The role may create there, as in every schema `public` that comes from PostgreSQL 14 or older. What it makes
fits a call better than PostgreSQL's own, or has the name of one of our tables.
"""

import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from psycopg import sql

from poker_therapist import get_pattern_storage
from tests.helpers.cli import command
from tests.helpers.engines import query, run_sql
from tests.helpers.postgresql import name_of
from tests.helpers.queries import ON_POSTGRESQL

ROOM = Path(__file__).parents[2] / "poker_therapist" / "postgresql"

# A function that notes who calls it, for each of these lists of arguments.
FUNCTIONS = {
    "hashtextextended": ["text, integer"],
    "substr": ["varchar, integer, integer", "text, bigint, integer"],
    "format": ["text, name", "text, name, name", "unknown, name"],
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
    body = "LANGUAGE plpgsql AS $$ BEGIN INSERT INTO public.called VALUES (current_user, '{}'); RETURN NULL; END $$"
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


def test_nothing_that_another_role_has_made_is_called_by_who_opens_saves_or_looks(
    postgresql_url: str, stranger: str, tmp_path: Path
) -> None:
    get_pattern_storage(postgresql_url).close()
    run_sql(postgresql_url, shadows(stranger))
    with pytest.raises(psycopg.errors.RaiseException if False else psycopg.Error):
        run_sql(postgresql_url, "SELECT 'a'::varchar || NULL::name; SELECT 1 / 0")  # the trap is a trap
    assert called(postgresql_url) == set()
    with get_pattern_storage(postgresql_url) as storage:
        storage.save_pattern(7, "tilt", "bad_beat", 1)
        with storage.transaction():
            storage.save_context(7, "mood", storage.get_pattern(7, "tilt", "bad_beat"), expires_minutes=-1)
        storage.purge_expired()
        assert storage.export_user(7)
        assert storage.forget_user(8)
    words = ["--database", postgresql_url]
    for deed in (["status"], ["log"], ["list"], ["apply"], ["export", "7"], ["copy", postgresql_url, "copy.db"]):
        command(*deed, *([] if deed[0] == "copy" else words), folder=tmp_path)
    if shutil.which("pg_dump"):
        command("backup", *words, "--output", "one.backup", folder=tmp_path)
        command("restore", *words, "one.backup", folder=tmp_path)

    assert called(postgresql_url) == set()
