"""What migrations build, to be compared with the live schema: in a scratch schema, or in a scratch database.

A schema is enough if the text of a migration uses and creates nothing outside it; it is rolled back with its
transaction, at no cost for the server. For the others a database is created from the server's template and
dropped at the end, which costs a checkpoint.
"""

import contextlib
import re
import uuid
from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import psycopg
from psycopg import conninfo, sql

from poker_therapist.errors import DriftUnknown, MigrationFailed
from poker_therapist.location import PostgreSQLLocation
from poker_therapist.migrations.catalog import Catalog, differences
from poker_therapist.migrations.compare import quoted
from poker_therapist.migrations.files import SQLMigration
from poker_therapist.postgresql.beyond import changes_server
from poker_therapist.postgresql.catalog import describe, describe_all, extension_schemas
from poker_therapist.postgresql.connect import WatchedConnection, configure, open_connection, reason_of
from poker_therapist.postgresql.home import Home, set_path
from poker_therapist.postgresql.scratch import SCRATCH, build, needs_database, require_one_schema, run
from poker_therapist.sqlfile import Placeholders, read_queries

# Not if it is there: then it may have been an operator's, wherever that has put it.
_MAKES_EXTENSION = re.compile(r'\bCREATE\s+EXTENSION\s+(?!IF\b)"?([\w-]+)', re.IGNORECASE)
_QUERIES = read_queries(Placeholders.POSTGRESQL, Path(__file__).with_suffix(".sql"))


def expected_schema(
    connection: psycopg.Connection[Any],
    location: PostgreSQLLocation,
    live: str,
    migrations: Sequence[SQLMigration],
) -> Catalog:
    """Return what migrations build; nothing of it stays.

    Args:
        connection: to the database, in no transaction.
        location: where that is.
        live: its schema.
        migrations: in their order.

    Raises:
        DriftUnknown: they cannot be compared.
        psycopg.Error: nothing can be built here.
    """
    why = needs_database(connection, migrations)
    try:
        if not why:
            with connection.transaction(force_rollback=True):
                return build(connection, live, migrations)
    except MigrationFailed as error:
        why = str(error)
    try:
        with contextlib.ExitStack() as stack:
            try:
                makes = {name for one in migrations for name in _MAKES_EXTENSION.findall(one.apply_sql)}
                scratch = stack.enter_context(_scratch_database(connection, location, live, makes))
            except psycopg.Error as error:
                reason = reason_of(error)
            else:
                try:
                    return _build_there(scratch, connection, location, live, migrations)
                except psycopg.Error as error:
                    raise MigrationFailed(reason_of(error)) from error
    except MigrationFailed as error:
        raise DriftUnknown(f"drift cannot be checked: {error}") from error
    try:
        with connection.transaction(force_rollback=True):
            require_one_schema(connection, migrations, kept=False)
            found = build(connection, live, migrations, is_last_way=True)
        is_right = not differences(found, describe_live(connection, live, found))
    except (MigrationFailed, psycopg.errors.LockNotAvailable) as error:
        why, is_right = str(error), False
    if not is_right:  # it is not known whether drift or the other schema is the cause
        raise DriftUnknown(
            f"drift cannot be checked: {why}\nRun this as a role that may create databases ({reason})"
        )
    return found


def describe_live(connection: psycopg.Connection[Any], live: str, expected: Catalog) -> Catalog:
    """Return the part of the live schemas that another is about."""
    path = extension_schemas(connection)
    others = expected.schemas or ()
    found = describe(connection, live, others=others, path=path, beyond=expected.schemas is not None)
    return found.only(expected.tables.keys(), expected)


@contextlib.contextmanager
def _scratch_database(
    connection: psycopg.Connection[Any], location: PostgreSQLLocation, live: str, but: Collection[str]
) -> Iterator[WatchedConnection]:
    """Make a database like the live one with nothing but its extensions, without some; drop it at the end."""
    for (left,) in _ask(connection, "left_behind", (SCRATCH,)):
        with contextlib.suppress(psycopg.Error):  # another role's
            connection.execute(sql.SQL("DROP DATABASE IF EXISTS {}").format(sql.Identifier(left)))
    # As long as this session lives, it is in use.
    name = f"{SCRATCH}{connection.info.backend_pid}_{uuid.uuid4().hex[:12]}"
    given = conninfo.conninfo_to_dict(location.conninfo)
    there = replace(location, conninfo=conninfo.make_conninfo("", **(given | {"dbname": name})))
    try:
        connection.execute(_ask(connection, "create_database", (name,))[0][0].encode())
        with contextlib.closing(open_connection(there)) as scratch:
            _prepare(scratch, connection, live, but)
        with contextlib.closing(open_connection(there)) as scratch:
            scratch.prepare_threshold = None  # DISCARD ALL forgets what has been prepared
            yield scratch
    finally:
        connection.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))


def _prepare(
    scratch: psycopg.Connection[Any], connection: psycopg.Connection[Any], live: str, but: Collection[str]
) -> None:
    """Give a scratch database the settings, the schema and the extensions of the live one."""
    copy_settings(connection, connection.info.dbname, scratch.info.dbname)
    extensions = [row for row in _ask(connection, "extensions") if row[0] not in but]
    for schema in {live, *(schema for _, schema, _ in extensions)}:
        scratch.execute(sql.SQL("CREATE SCHEMA IF NOT EXISTS {}").format(sql.Identifier(schema)))
    for extension, schema, version in extensions:
        # One that cannot be made again is missed where it is needed.
        with contextlib.suppress(psycopg.Error):
            scratch.execute(
                sql.SQL("CREATE EXTENSION IF NOT EXISTS {} SCHEMA {} VERSION {} CASCADE").format(
                    *map(sql.Identifier, (extension, schema, version))
                )
            )


def copy_settings(connection: psycopg.Connection[Any], original: str, copy: str) -> None:
    """Give a database the settings of another, such as a search path, which are no part of its template."""
    for setting, value in _ask(connection, "settings", (original,)):
        with contextlib.suppress(psycopg.Error), connection.transaction():
            connection.execute("SELECT set_config(%s, %s, TRUE)", (setting, value))
            names = map(sql.Identifier, (copy, setting))
            connection.execute(sql.SQL("ALTER DATABASE {} SET {} FROM CURRENT").format(*names))


def _build_there(
    scratch: WatchedConnection,
    connection: psycopg.Connection[Any],
    location: PostgreSQLLocation,
    live: str,
    migrations: Sequence[SQLMigration],
) -> Catalog:
    """Return what migrations build in a scratch database."""
    home = scratch.home or Home(live)
    path = extension_schemas(connection)
    before = describe_all(scratch, live, path)
    copied: set[str] = set()

    def copy(error: psycopg.Error) -> set[str]:
        return _copy_missing(scratch, connection, live, reason_of(error))

    for migration in migrations:
        with scratch.transaction():
            for statement in migration.split(migration.apply_sql):
                copied |= run(scratch, live, connection, migration, statement, copy)
            if changed := changes_server(scratch, connection):
                raise MigrationFailed(f"{migration.place()} changes {changed} of the server: it is not run")
        scratch.execute("DISCARD ALL")
        configure(scratch, location)
        scratch.execute(set_path(home.path).encode())
    found = describe_all(scratch, live, path)
    found = replace(found, parts=found.parts_since(before))
    return found.only(found.tables.keys() - copied)


def _copy_missing(
    scratch: psycopg.Connection[Any], connection: psycopg.Connection[Any], live: str, reason: str
) -> set[str]:
    """Make the schema or the table that an error names as the live database has it, without rows.

    Returns:
        its name; nothing if the live database has it neither, or it cannot be made.
    """
    found = re.search(r'"([^"]+)"', reason)
    if found is None:
        return set()
    *schemas, name = found[1].split(".")[-2:]
    path = extension_schemas(connection)
    if not schemas and reason.startswith("schema"):
        if _ask(connection, "has_schema", (name,))[0][0]:
            scratch.execute(sql.SQL("CREATE SCHEMA {}").format(sql.Identifier(name)))
            return {f"{name}."}
        return set()
    schema = schemas[0] if schemas else live
    table = describe(connection, schema, path=path).tables.get(name)
    if table is None:
        return set()
    columns = [f"{quoted(column)} {one.type}" for column, one in table.columns.items()]
    keys = [text for text in (table.constraints or {}).values() if text.startswith(("PRIMARY", "UNIQUE"))]
    place = sql.Identifier(schema, name).as_string(scratch)
    with contextlib.suppress(psycopg.Error), scratch.transaction():
        scratch.execute(f"CREATE TABLE {place} ({', '.join([*columns, *keys])})".encode())
        return {name if schema == live else f"{schema}.{name}"}
    return set()


def _ask(connection: psycopg.Connection[Any], query: str, values: Sequence[Any] = ()) -> list[Any]:
    return psycopg.RawCursor(connection).execute(_QUERIES[query], values).fetchall()
