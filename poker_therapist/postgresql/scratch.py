"""Building a schema again beside the live one: what migrations find there, and what they must not name."""

import re
import uuid
from collections.abc import Collection, Iterable, Sequence
from typing import Any

import psycopg
from psycopg import sql

from poker_therapist.errors import MigrationFailed
from poker_therapist.migrations.catalog import BOOKKEEPING, Catalog, TableMissing
from poker_therapist.migrations.files import SQLMigration, Statement
from poker_therapist.postgresql.catalog import describe
from poker_therapist.postgresql.connect import is_lost, reason_of

# What no schema holds.
_BEYOND = re.compile(
    r"(CREATE|ALTER|DROP)\s+(ACCESS|CAST|DATABASE|EVENT|EXTENSION|FOREIGN\s+DATA|GROUP|LANGUAGE|PUBLICATION|ROLE"
    r"|SCHEMA|SERVER|SUBSCRIPTION|SYSTEM|TABLESPACE|USER)\b",
    re.IGNORECASE,
)

_TO_OR_FROM_FILE = re.compile(
    r"(?:DO\b.*\b)?COPY\b.*\b(?:TO|FROM)\s*(?:PROGRAM\b|E?'|U&'|\$)", re.IGNORECASE | re.DOTALL
)
_SECONDS_TO_BUILD = 30


def require_one_schema(
    connection: psycopg.Connection[Any], migrations: Iterable[SQLMigration], *, kept: bool
) -> None:
    """Raise MigrationFailed for a statement that would change something outside the schema it is tried in.

    Args:
        connection: whose database has the schemas that a statement could name.
        migrations: those to try.
        kept: whether what they do is committed; if not, what is in no schema is undone as well.
    """
    names = connection.execute(
        "SELECT nspname FROM pg_namespace WHERE nspname !~ '^pg_' AND nspname <> 'information_schema'"
    ).fetchall()
    listed = "|".join(re.escape(name) for (name,) in names)
    named = re.compile(rf'(?<![\w$."])"?(?:{listed})"?\s*\.\s*["\w]|\bsearch_path\b', re.IGNORECASE)
    for migration in migrations:
        for direction in ("apply", "rollback") if kept else ("apply",):
            text = migration.apply_sql if direction == "apply" else migration.rollback_sql or ""
            for statement in migration.split(text):
                if (kept and _BEYOND.match(statement.text)) or named.search(statement.text):
                    raise MigrationFailed(
                        f"{migration.place(direction)}:{statement.line} names a schema, or what is in none, "
                        f"so it cannot be tried in another schema\n    {statement}"
                    )


def build(connection: psycopg.Connection[Any], live: str, migrations: Sequence[SQLMigration]) -> Catalog:
    """Return what migrations build in a new schema, inside a transaction that the caller undoes.

    They find nothing but what they have built themselves, and empty copies of tables of the app's.
    """
    scratch = f"poker_therapist_scratch_{uuid.uuid4().hex}"  # so that nobody waits for another
    connection.execute(sql.SQL("CREATE SCHEMA {}").format(sql.Identifier(scratch)))
    connection.execute(sql.SQL("SET LOCAL search_path = {}").format(sql.Identifier(scratch)))
    copied: set[str] = set()
    for migration in migrations:
        for statement in migration.split(migration.apply_sql):
            if _TO_OR_FROM_FILE.match(statement.text):  # which no transaction undoes
                raise MigrationFailed(
                    f"{migration.place()}:{statement.line} reads or writes a file of the server: "
                    f"it is not tried\n    {statement}"
                )
            while error := _try(connection, migration, statement):
                needed = (
                    copy_tables(connection, live, scratch, [reason_of(error)])
                    if isinstance(error, psycopg.errors.UndefinedTable)
                    else set()
                )
                if not needed:
                    if absent := _absent(connection, live, error):
                        raise TableMissing(absent, migration.id) from error
                    raise MigrationFailed(
                        f"{migration.place()}:{statement.line} cannot be run again: {reason_of(error)}"
                    ) from error
                copied |= needed
    found = describe(connection, scratch)
    return found.only(found.tables.keys() - copied)


def _absent(connection: psycopg.Connection[Any], live: str, error: psycopg.Error) -> str:
    """Return the name of what a statement has not found, if the live schema has not got it either."""
    quoted = re.search(r'"([^"]+)"', reason_of(error))
    if quoted is None or not isinstance(error, psycopg.errors.UndefinedTable):
        return ""
    name = sql.Identifier(live, quoted[1]).as_string(connection)
    found = connection.execute("SELECT to_regclass(%s)", (name,)).fetchone()
    return quoted[1] if found == (None,) else ""


def _try(
    connection: psycopg.Connection[Any], migration: SQLMigration, statement: Statement
) -> psycopg.Error | None:
    """Run a statement as well as can be inside a transaction; return why it failed.

    An index is the same without CONCURRENTLY; what else no transaction may hold (VACUUM) makes no schema, and
    a migration's own transactions are part of this one.
    """
    if statement.control:
        return None
    text = statement.text
    if not migration.use_transactions:
        text = re.sub(r"(\bINDEX\s+)CONCURRENTLY\b", r"\1", text, flags=re.IGNORECASE)
    # Each time, for a migration may have set it.
    connection.execute(f"SAVEPOINT statement; SET LOCAL statement_timeout = '{_SECONDS_TO_BUILD}s'")
    try:
        connection.execute(text.encode())
    except psycopg.errors.InsufficientPrivilege:
        raise
    except psycopg.Error as error:
        if is_lost(connection):
            raise
        connection.execute("ROLLBACK TO statement")
        return None if isinstance(error, psycopg.errors.ActiveSqlTransaction) else error
    connection.execute("RELEASE statement")  # each would take memory of the server until the end
    return None


def copy_tables(
    connection: psycopg.Connection[Any],
    live: str,
    scratch: str,
    texts: Iterable[str],
    but: Collection[str] = (),
) -> set[str]:
    """Copy those live tables, without rows, that some texts name and the scratch schema has not.

    Defaults stay behind: with one of them, the ids of the original would count on.

    Returns:
        their names.
    """
    rows = connection.execute(
        "SELECT tablename FROM pg_tables WHERE schemaname = %s "
        "EXCEPT SELECT tablename FROM pg_tables WHERE schemaname = %s",
        (live, scratch),
    ).fetchall()
    words = {word for text in texts for word in re.findall(r"\w+", text)}
    words |= {word.lower() for word in words}
    named = {
        name for (name,) in rows if name in words and name not in but and not name.startswith(BOOKKEEPING)
    }
    for table in sorted(named):
        connection.execute(
            sql.SQL("CREATE TABLE {} (LIKE {} INCLUDING ALL EXCLUDING DEFAULTS)").format(
                sql.Identifier(scratch, table), sql.Identifier(live, table)
            )
        )
    return named
