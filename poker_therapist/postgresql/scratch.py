"""Building a schema again beside the live one: what migrations find there, and what they must not name."""

import re
import uuid
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import replace
from typing import Any

import psycopg
from psycopg import sql

from poker_therapist.errors import MigrationFailed
from poker_therapist.migrations.catalog import BOOKKEEPING, Catalog, TableMissing
from poker_therapist.migrations.files import SQLMigration, Statement
from poker_therapist.postgresql.beyond import beyond, is_of_server, reached
from poker_therapist.postgresql.catalog import describe, extension_schemas
from poker_therapist.postgresql.connect import is_lost, reason_of
from poker_therapist.postgresql.split import COPIES_ROWS, NO_ROWS

# What no schema holds.
_BEYOND = re.compile(
    r"(CREATE|ALTER|DROP)\s+(ACCESS|CAST|DATABASE|EVENT|EXTENSION|FOREIGN\s+DATA|GROUP|LANGUAGE|PUBLICATION|ROLE"
    r"|SCHEMA|SERVER|SUBSCRIPTION|SYSTEM|TABLESPACE|TRANSFORM|USER|DEFAULT\s+PRIVILEGES)\b"
    r"|COMMENT\s+ON\s+(ACCESS|CAST|EVENT|EXTENSION|FOREIGN\s+DATA|LANGUAGE|PUBLICATION|SCHEMA|SERVER)\b"
    r"|(GRANT|REVOKE)\b[^;]*?\bON\s+(SCHEMA|LANGUAGE|FOREIGN)\b|IMPORT\s+FOREIGN\b|SECURITY\s+LABEL\b",
    re.IGNORECASE,
)

_TO_OR_FROM_FILE = re.compile(
    r"(?:DO\b.*\b)?COPY\b.*\b(?:TO|FROM)\s*(?:PROGRAM\b|E?'|U&'|\$)", re.IGNORECASE | re.DOTALL
)
# What asks the server what there is, or where.
_ASKS = re.compile(
    r"\b(?:information_schema|search_path|to_reg\w+|current_schemas|pg_(?!(?:catalog|roles|authid|user|database|"
    r"tablespace|settings|sleep|notify|trgm|typeof|size_pretty|column_size|backend_pid|is_in_recovery|locks|"
    r"(?:available_)?extensions?|(?:try_)?advisory_\w+|stat_\w+)\b)[a-z]\w*)\b",
    re.IGNORECASE,
)
_MAKES_TABLE = re.compile(r'\bCREATE\s+(?:\w+\s+)*?TABLE\s+(?:IF\s+NOT\s+EXISTS\s+)?"?(\w+)', re.IGNORECASE)
# What may have been made before, as the live database has it.
_MADE_BEFORE = re.compile(r"CREATE\s+(?:EXTENSION|SCHEMA)\b", re.IGNORECASE)
_MISSING = (psycopg.errors.UndefinedTable, psycopg.errors.InvalidSchemaName)
_DUPLICATE = (psycopg.errors.DuplicateObject, psycopg.errors.DuplicateSchema)
_SECONDS_TO_BUILD = 30
SCRATCH = "poker_therapist_scratch_"


def require_one_schema(
    connection: psycopg.Connection[Any], migrations: Iterable[SQLMigration], *, kept: bool
) -> None:
    """Raise MigrationFailed for a statement that would change something outside the schema it is tried in.

    Args:
        connection: whose database has the schemas that a statement could name.
        migrations: those to try.
        kept: whether their changes are committed; if not, those outside schemas are rolled back, too.
    """
    listed = "|".join(map(re.escape, _schemas(connection)))
    named = re.compile(rf'(?<![\w$."])"?(?:{listed})"?\s*\.\s*["\w]|\bsearch_path\b', re.IGNORECASE)
    for migration in migrations:
        for direction in ("apply", "rollback") if kept else ("apply",):
            text = migration.apply_sql if direction == "apply" else migration.rollback_sql or ""
            for statement in migration.split(text):
                if (kept and _BEYOND.match(statement.text)) or named.search(statement.text):
                    raise MigrationFailed(
                        f"{migration.place(direction)}:{statement.line} names a schema, or an object outside "
                        f"schemas, so it cannot run in another schema\n    {statement}"
                    )


def _schemas(connection: psycopg.Connection[Any]) -> list[str]:
    names = connection.execute(
        "SELECT nspname FROM pg_namespace WHERE nspname !~ '^pg_' AND nspname <> 'information_schema'"
    ).fetchall()
    return [name for (name,) in names]


def needs_database(connection: psycopg.Connection[Any], migrations: Iterable[SQLMigration]) -> str:
    """Return why a schema of another name may not show what migrations build; empty if it does."""
    names = "|".join(map(re.escape, _schemas(connection)))
    named = re.compile(
        rf"""(?<![\w$.])["']?(?:{names})["']?\s*\.|'(?:{names})'|\bSCHEMA\s+"?(?:{names})\b""", re.I
    )
    for migration in migrations:
        for one in migration.split(migration.apply_sql):
            if is_of_server(one.text):
                continue
            if _BEYOND.match(one.text) or _ASKS.search(one.text) or named.search(one.text):
                return (
                    f"{migration.place()}:{one.line} names a schema, queries a catalog, or creates an object "
                    f"outside schemas, so another schema does not show what it builds\n    {one}"
                )
    return ""


def build(
    connection: psycopg.Connection[Any],
    live: str,
    migrations: Sequence[SQLMigration],
    *,
    is_last_way: bool = False,
) -> Catalog:
    """Return what migrations build in a new schema, inside a transaction that the caller rolls back.

    They find only what they have built themselves, the schemas of extensions, and empty copies of the app's
    tables.

    Args:
        connection: where the live schema is.
        live: its name.
        migrations: in their order.
        is_last_way: whether there is no database to build them in: then what extensions have put into the
            live schema is found as well, and whatever would touch a table there ends it.
    """
    scratch = f"{SCRATCH}{uuid.uuid4().hex}"  # so that sessions do not wait for each other
    path = extension_schemas(connection)
    connection.execute(sql.SQL("CREATE SCHEMA {}").format(sql.Identifier(scratch)))
    seen = [name for name in path if is_last_way or name != live]
    set_path = sql.SQL("SET LOCAL search_path = {}").format(
        sql.SQL(", ").join(map(sql.Identifier, [scratch, *seen]))
    )
    connection.execute(set_path)
    copied: set[str] = set()

    def copy(error: psycopg.Error) -> set[str]:
        return copy_tables(connection, live, scratch, [reason_of(error)])

    for migration in migrations:
        for statement in migration.split(migration.apply_sql):
            if is_last_way:
                if _ASKS.search(statement.text) and not is_of_server(statement.text):
                    raise MigrationFailed(
                        f"{migration.place()}:{statement.line} queries a catalog, which differs in another "
                        f"schema\n    {statement}"
                    )
                connection.execute("SET LOCAL lock_timeout = '50ms'")  # others could queue behind it
                made = set(_MAKES_TABLE.findall(statement.text))
                copied |= copy_tables(connection, live, scratch, [statement.text], but=made)
            copied |= run(connection, live, connection, migration, statement, copy)
            if is_last_way:
                _require_inside(connection, scratch)
    _require_inside(connection, scratch)
    found = describe(connection, scratch, path=path)
    found = found.only(found.tables.keys() - copied)
    if connection.execute("SELECT 1 FROM pg_catalog.pg_default_acl").fetchone():
        # What is granted on what is new, the live schema need not have had when it was.
        grants = {name for name in found.parts if name.startswith("grant ")}
        found = replace(found, parts={name: found.parts[name] for name in found.parts.keys() - grants})
    return found


def _require_inside(connection: psycopg.Connection[Any], scratch: str) -> None:
    if table := reached(connection, scratch):
        raise MigrationFailed(f"in another schema the migrations would use {table}, so they are not run")


def run(  # noqa: PLR0917  # both sides, and what is to be run
    connection: psycopg.Connection[Any],
    live: str,
    live_connection: psycopg.Connection[Any],
    migration: SQLMigration,
    statement: Statement,
    copy: Callable[[psycopg.Error], set[str]],
) -> set[str]:
    """Run one statement of a migration where it is built again, in a transaction.

    Args:
        connection: where to run it.
        live: the live schema.
        live_connection: where that is.
        migration: whose statement it is.
        statement: the one.
        copy: copies what is missing according to an error, and returns the names of the tables.

    Returns:
        the names of the live tables that had to be copied first.
    """
    if is_of_server(statement.text):  # it has been done for all databases
        return set()
    if _TO_OR_FROM_FILE.match(statement.text):  # which no transaction undoes
        raise MigrationFailed(
            f"{migration.place()}:{statement.line} reads or writes a file of the server, "
            f"so it is not run\n    {statement}"
        )
    if COPIES_ROWS.match(statement.text):
        raise MigrationFailed(f"{migration.place()}:{statement.line}: {NO_ROWS}\n    {statement}")
    if found := beyond(statement.text, is_undone=True):
        raise MigrationFailed(
            f"{migration.place()}:{statement.line}: {found} has effects outside the database: it is not run"
            f"\n    {statement}"
        )
    copied = set[str]()
    while error := _try(connection, migration, statement):
        needed = copy(error) if isinstance(error, _MISSING) else set()
        if not needed:
            if absent := _absent(live_connection, live, error):
                raise TableMissing(absent, migration.id) from error
            raise MigrationFailed(
                f"{migration.place()}:{statement.line} cannot be run again: {reason_of(error)}"
            ) from error
        copied |= needed
    return copied


def _absent(connection: psycopg.Connection[Any], live: str, error: psycopg.Error) -> str:
    """Return the name of what a statement has not found, if the live schema has not got it either."""
    quoted = re.search(r'"([^"]+)"', reason_of(error))
    if quoted is None or not isinstance(error, psycopg.errors.UndefinedTable):
        return ""
    parts = quoted[1].split(".")[-2:]
    name = sql.Identifier(*([live] if len(parts) == 1 else []), *parts).as_string(connection)
    found = connection.execute("SELECT to_regclass(%s)", (name,)).fetchone()
    return quoted[1] if found == (None,) else ""


def _try(
    connection: psycopg.Connection[Any], migration: SQLMigration, statement: Statement
) -> psycopg.Error | None:
    """Run a statement as well as can be inside a transaction; return why it failed.

    An index is the same without CONCURRENTLY; other statements that cannot run in a transaction (VACUUM)
    do not change the schema, and a migration's own transactions are part of this one.
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
        is_there = isinstance(error, _DUPLICATE) and _MADE_BEFORE.match(text)
        is_outside = isinstance(error, psycopg.errors.ActiveSqlTransaction)
        return None if is_there or is_outside else error
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
