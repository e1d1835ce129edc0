"""The schema of the tables in a PostgreSQL database, and what can hide them from a session.

A role that may create objects in a schema can create a function or operator there that matches a call better
than PostgreSQL's own, and sessions with that schema on their path would call it. So our own statements name
the schema of each table, and their path has only `pg_catalog`; temporary tables come last.
"""

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import psycopg

from poker_therapist.errors import DatabaseUnreadable, InvalidInput, StorageError, escaped
from poker_therapist.location import PostgreSQLLocation, locate
from poker_therapist.sqlfile import Placeholders, read_queries
from poker_therapist.tables import TABLES

_QUERIES = read_queries(Placeholders.POSTGRESQL, Path(__file__).with_suffix(".sql"))
SAFE_PATH = ("pg_catalog", "pg_temp")
_OURS = tuple(table.name for table in TABLES)
_BOOKKEEPING = ("_yoyo_migration", "_migration_text", "_migration_adopted", "_yoyo_log", "_yoyo_version")
_OF_CITUS = ("pg_dist_partition", "pg_dist_node")
TABLE_NAMES = (*_OURS, *_BOOKKEEPING)
_UNQUALIFIED = re.compile(
    rf"(\b(?:FROM|INTO|JOIN|UPDATE|TABLE(?: IF NOT EXISTS)?) )({'|'.join(TABLE_NAMES)})\b"
)

# Names the server itself, where the app reaches it through a pooler in transaction mode.
MIGRATION_DATABASE = "POKER_THERAPIST_MIGRATION_DATABASE"


@dataclass(frozen=True)
class Home:
    """Where a session finds the tables.

    Attributes:
        schema: theirs; None if there is no schema that they could be in.
        others: the other schemas that a migration finds things in.
        is_distributed: whether Citus has spread them over several servers.
        pid: the number of the server's process that was asked.
    """

    schema: str | None
    others: tuple[str, ...] = ()
    is_distributed: bool = False
    pid: int = 0

    @property
    def path(self) -> tuple[str, ...]:
        """The search path of a migration, whose statements make things in the first schema."""
        return (*((self.schema,) if self.schema else ()), *self.others, "pg_temp")

    def qualified(self, statement: str) -> str:
        """Return a statement of ours with the schema before each of the tables."""
        schema = quoted(self.schema or "public")
        return _UNQUALIFIED.sub(lambda found: f"{found[1]}{schema}.{found[2]}", statement)


def quoted(*names: str) -> str:
    """Return a name, with that of its schema, as a statement has it."""
    return ".".join('"' + name.replace('"', '""') + '"' for name in names)


def set_path(path: Iterable[str], local: str = "") -> str:
    """Return the statement that sets the search path of a session, or of a transaction with `LOCAL `."""
    return f"SET {local}search_path = {', '.join(map(quoted, path))}"


def find_home(connection: psycopg.Connection[Any], location: PostgreSQLLocation) -> Home:
    """Return where the tables are: with their history, wherever along the path that is.

    A connection with a pooler between has been given no settings, and keeps none.

    Raises:
        StorageError: there is more than one history, or it is not to be read here.
    """
    wanted = dict.fromkeys((location.schema, location.schema.lower())) if location.schema else ()
    begin = ["BEGIN READ ONLY", *([set_path(wanted, "LOCAL ")] if wanted else [])]
    begin += ["SELECT pg_catalog.current_schemas(false), pg_catalog.pg_backend_pid()"]
    begin += [set_path(SAFE_PATH, "LOCAL ")]
    cursor = psycopg.RawCursor(connection)
    cursor.execute("; ".join(begin))
    while cursor.description is None and cursor.nextset():
        pass
    ((path, pid),) = cursor.fetchall()
    if wanted:
        path = path[:1]
    try:
        names = (*TABLE_NAMES, *_OF_CITUS)
        asked = {quoted(schema, name): (schema, name) for schema in (*path, "pg_catalog") for name in names}
        found = cursor.execute(_QUERIES["there"], (list(asked),)).fetchall()
        tables = {asked[name]: kind for name, kind in found}
        for (schema, name), kind in tables.items():
            if kind in {"view", "materialized view", "foreign table"} and name in _BOOKKEEPING:
                raise DatabaseUnreadable(
                    f"{escaped(schema)}.{name} in {location.name} is a view or foreign table: drop it"
                )
        of_citus = [one for one in tables if one[1] in _OF_CITUS]
        is_distributed = bool(of_citus) and _is_distributed(cursor, location, of_citus)
    finally:
        connection.rollback()
    holding = [schema for schema in path if any((schema, name) in tables for name in TABLE_NAMES)]
    ours = [
        schema
        for schema in holding
        if (schema, "_yoyo_migration") in tables
        and any((schema, name) in tables for name in (*_OURS, "_migration_text"))
    ]
    if len(ours) > 1:
        ways = " or ".join(f"?schema={schema}" for schema in map(escaped, ours))
        raise StorageError(
            f"{location.name} has Poker Therapist's tables in the schemas {escaped(' and '.join(ours))}: add "
            f"{ways} to the URL, and drop the one that is empty"
        )
    home = next(iter((*ours, *holding, *path)), None)
    return Home(home, tuple(one for one in path if one != home), is_distributed, pid)


def _is_distributed(
    cursor: "psycopg.RawCursor[Any]", location: PostgreSQLLocation, of_citus: Iterable[tuple[str, str]]
) -> bool:
    """Return whether Citus has distributed our tables; what is no superuser's is not Citus's.

    Raises:
        StorageError: this is not the coordinator of its cluster.
    """
    asked = {quoted(*one): one for one in of_citus}
    functions = {f"{quoted(schema, 'citus_is_coordinator')}()": schema for schema, _ in of_citus}
    found = cursor.execute(_QUERIES["of_superusers"], (list(asked), list(functions))).fetchall()
    tables = [asked[name] for (name,) in found if name in asked]
    for function, schema in functions.items():
        if (function,) in found and cursor.execute(f"SELECT {function}".encode()).fetchone() == (False,):
            node = None
            if (schema, "pg_dist_node") in tables:
                nodes = quoted(schema, "pg_dist_node")
                query = f"SELECT nodename, nodeport FROM {nodes} WHERE groupid = 0 LIMIT 1"
                node = cursor.execute(query.encode()).fetchone()
            coordinator = f", {escaped(str(node[0]))}:{node[1]}" if node else ""
            raise StorageError(
                f"{location.name} is a worker of a Citus cluster, where new ids would be out of order: "
                f"connect to the coordinator{coordinator}"
            )
    for schema, name in tables:
        if name == "pg_dist_partition":
            query = (
                f"SELECT count(*) FROM {quoted(schema, name)} AS one INNER JOIN pg_class "
                "ON pg_class.oid = one.logicalrelid WHERE pg_class.relname = ANY($1)"
            )
            ((count,),) = cursor.execute(query.encode(), (list(_OURS),)).fetchall()
            return bool(count)
    return False


def require_no_shadows(
    connection: psycopg.Connection[Any], location: PostgreSQLLocation, path: Iterable[str], text: str
) -> None:
    """Refuse to run statements for which another role has made what they would call unawares.

    Args:
        connection: where they would be run; its path is the safe one.
        location: the database.
        path: the search path that they would have.
        text: the statements.

    Raises:
        StorageError: naming what was made, and by whom.
    """
    schemas = [schema for schema in path if schema != "pg_temp"]
    words = {word.lower() for word in re.findall(r"\w+", text)}
    cursor = psycopg.RawCursor(connection)
    if cursor.execute(_QUERIES["has_functions"]).fetchone() == (False,):
        return
    for name, what, owner in cursor.execute(_QUERIES["shadows"], (schemas, schemas)).fetchall():
        if not name or name in words:
            raise StorageError(
                f"{escaped(what)} in {location.name} belongs to the role {escaped(owner)}, and would be "
                "called instead of PostgreSQL's own: drop it, and revoke that role's right to create in the "
                f"schema (REVOKE CREATE ON SCHEMA {escaped(', '.join(map(quoted, schemas)))} FROM PUBLIC)"
            )


def strangers_among(connection: psycopg.Connection[Any], names: Iterable[tuple[str, str]]) -> list[str]:
    """Return which of some names, each with a schema's, are functions and types of other roles."""
    listed = sorted(map(".".join, names))
    found = psycopg.RawCursor(connection).execute(_QUERIES["strangers"], (listed,)).fetchall()
    return [name for (name,) in found]


def for_migrations(location: PostgreSQLLocation) -> PostgreSQLLocation:
    """Return where a database is migrated and administered, which needs a session.

    Raises:
        InvalidInput: a pooler in transaction mode gives none, and the environment has no direct URL.
    """
    if location.pooler != "transaction":
        return location
    named = os.environ.get(MIGRATION_DATABASE)
    found = locate(named) if named else None
    if isinstance(found, PostgreSQLLocation) and found.pooler != "transaction":
        return replace(found, sources=location.sources, yoyo=location.yoyo, on_connect=location.on_connect)
    raise InvalidInput(
        f"{location.name} is behind a pooler in transaction mode, but migrations and administration need a "
        f"session: give the URL of the server itself with --database, or in {MIGRATION_DATABASE}"
    )
