"""Where migrations are rehearsed: a copy of a PostgreSQL database, or of its schema.

The server itself copies a database, as a template, if nobody else is connected to it and the role may create
databases. Otherwise the tables are built again in a scratch schema of the same database, and their rows are
copied there. Either goes at the end; what a killed rehearsal has left goes with the next.
"""

import contextlib
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import psycopg
from psycopg import conninfo, sql

from poker_therapist.database import PostgreSQLLocation, read_queries
from poker_therapist.errors import PokerTherapistError, StorageError
from poker_therapist.migrations.catalog import Catalog, Difference, RowDifference, differences
from poker_therapist.migrations.files import SQLMigration
from poker_therapist.migrations.postgresql.backend import AtomicPostgreSQLBackend
from poker_therapist.migrations.postgresql.catalog import describe
from poker_therapist.migrations.postgresql.compare import Two
from poker_therapist.postgresql_server import explain, open_connection, reason_of

_QUERIES = {
    name: text.replace("?", "$") for name, text in read_queries(Path(__file__).with_suffix(".sql")).items()
}
_PREFIX = "poker_therapist_rehearsal_"
_BEFORE = "poker_therapist_before_rehearsal"


@contextlib.contextmanager
def bench(location: PostgreSQLLocation, files: Mapping[str, SQLMigration]) -> Iterator["PostgreSQLBench"]:
    """Copy a database, to try migrations on; the copy goes when the block ends."""
    try:
        with contextlib.closing(open_connection(location)) as connection:
            database, schema = _ask(connection, "database_and_schema")[0]
        with contextlib.ExitStack() as stack:
            try:
                copy = stack.enter_context(_copied_database(location, database))
                reason = ""
            except psycopg.Error as error:
                copy = stack.enter_context(_scratch_schema(location, schema, files))
                reason = f"tried in a scratch schema, not on a copy of the database: {reason_of(error)}"
            connection = stack.enter_context(contextlib.closing(open_connection(copy)))
            yield PostgreSQLBench(copy, connection, copy.schema or schema, reason)
    except psycopg.Error as error:
        raise explain(error, location) from error


class PostgreSQLBench:
    """A copy that migrations change, and its rows from before the last."""

    def __init__(
        self, work: PostgreSQLLocation, connection: psycopg.Connection[Any], schema: str, reason: str
    ) -> None:
        self._location = work
        self._connection = connection
        self._schema = schema
        self.reason = reason
        self.room = 0
        self._size = self._measure()
        self._two = Two(connection, _BEFORE if not reason else f"{schema}_before", schema)
        self._before = Catalog()
        self._counters: dict[str, int] = {}
        self._applied_after: set[str] = set()

    def backend(self) -> AtomicPostgreSQLBackend:
        """Open the backend of the copy."""
        return AtomicPostgreSQLBackend(self._location)

    def keep_before(self) -> None:
        """Keep the schema and copy the rows, to compare with later."""
        self._before = describe(self._connection, self._schema)
        self._counters = self._read_counters()
        self._size = self._measure()
        self._two.keep(self._before)

    def keep_after(self) -> None:
        """Note what there is after applying."""
        self.room = max(self.room, self._measure() - self._size)
        self._applied_after = self._read_applied()

    def return_to_after(self) -> bool:
        """Return whether the copy is as it was after applying; it is only changed by whole migrations."""
        return self._read_applied() == self._applied_after

    def damage(self) -> str:
        """Return what is not as it should be inside the copy, an empty text if nothing is."""
        found = _ask(self._connection, "invalid_index", (self._schema,))
        return f"the index {found[0][0]} is not valid" if found else ""

    def changed_rows(self) -> Iterator[tuple[str, int]]:
        """Yield how many rows of each table are new, gone or different after applying."""
        now = describe(self._connection, self._schema)
        for table in sorted(self._before.tables.keys() | now.tables.keys()):
            if count := self._two.changed_rows(table, self._before, now):
                yield table, count

    def schema_differences(self) -> list[Difference]:
        """Return how the schema differs from what it was."""
        return differences(self._before, describe(self._connection, self._schema))

    def row_differences(self) -> Iterator[RowDifference]:
        """Yield how the rows of the tables that were there and are there differ from what they were."""
        now = describe(self._connection, self._schema)
        for table in sorted(self._before.tables.keys() & now.tables.keys()):
            yield from self._two.compare(table, self._before, now)
        counters = self._read_counters()
        for name, was in self._counters.items():
            if counters.get(name) != was:
                yield RowDifference(name, "last_value", 1, f"{was} became {counters.get(name)}")

    def tables_of_one(self) -> Iterator[tuple[str, int]]:
        """Yield the tables with rows that were there or are there, not both, and how many rows."""
        now = describe(self._connection, self._schema)
        for table in sorted(self._before.tables.keys() ^ now.tables.keys()):
            if count := self._two.changed_rows(table, self._before, now):
                yield table, count

    def texts_laid_out_differently(self) -> list[str]:
        """Return nothing: PostgreSQL keeps no text of a table."""
        return []

    def _measure(self) -> int:
        return int(_ask(self._connection, "size", (self._schema,))[0][0])

    def _read_counters(self) -> dict[str, int]:
        return dict(_ask(self._connection, "counters", (self._schema,)))

    def _read_applied(self) -> set[str]:
        with self.backend() as backend:
            return set(backend.applied())


@contextlib.contextmanager
def _copied_database(location: PostgreSQLLocation, database: str) -> Iterator[PostgreSQLLocation]:
    """Have the server copy a whole database.

    Raises:
        psycopg.Error: somebody is connected to it, or the role may not; nothing was done.
    """
    given = conninfo.conninfo_to_dict(location.conninfo)
    elsewhere = replace(location, conninfo=conninfo.make_conninfo("", **(given | {"dbname": "postgres"})))
    with contextlib.closing(open_connection(replace(elsewhere, schema=None))) as administration:
        for (left,) in _ask(administration, "databases_named", (_PREFIX,)):
            if _ask(administration, "claim", (left,))[0][0]:
                _run(administration, "DROP DATABASE IF EXISTS {}", left)
        name = f"{_PREFIX}{uuid.uuid4().hex}"
        _ask(administration, "claim", (name,))
        _run(administration, "CREATE DATABASE {} TEMPLATE {}", name, database)
        try:
            yield replace(location, conninfo=conninfo.make_conninfo("", **(given | {"dbname": name})))
        finally:
            _run(administration, "DROP DATABASE {} WITH (FORCE)", name)


@contextlib.contextmanager
def _scratch_schema(
    location: PostgreSQLLocation, schema: str, files: Mapping[str, SQLMigration]
) -> Iterator[PostgreSQLLocation]:
    """Build the tables of the applied migrations in a schema of their own, and copy their rows into it."""
    with contextlib.closing(open_connection(location)) as connection:
        for (left,) in _ask(connection, "schemas_named", (_PREFIX,)):
            if _ask(connection, "claim", (left.removesuffix("_before"),))[0][0]:
                _run(connection, "DROP SCHEMA IF EXISTS {} CASCADE", left)
        name = f"{_PREFIX}{uuid.uuid4().hex[:20]}"
        _ask(connection, "claim", (name,))
        _run(connection, "CREATE SCHEMA {}", name)
        scratch = replace(location, schema=name)
        try:
            with AtomicPostgreSQLBackend(location) as live, AtomicPostgreSQLBackend(scratch) as copy:
                for migration in live.history(files):
                    copy.apply_one(migration)
            _copy_rows(connection, schema, name)
            yield scratch
        except PokerTherapistError as error:
            raise StorageError(
                f"the tables of {location.name} could not be built again in a scratch schema: {error}\n"
                "Rehearse where nobody else is connected, so that the server can copy the database"
            ) from error
        finally:
            for one in (name, f"{name}_before"):
                _run(connection, "DROP SCHEMA IF EXISTS {} CASCADE", one)


def _copy_rows(connection: psycopg.Connection[Any], schema: str, scratch: str) -> None:
    """Copy the rows of the tables that both schemas have, as of one moment, and where their ids go on."""
    connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
    for table in describe(connection, scratch).tables:
        columns = [name for (name,) in _ask(connection, "written_columns", (scratch, table))]
        listed = sql.SQL(", ").join(map(sql.Identifier, columns))
        connection.execute(
            sql.SQL("INSERT INTO {} ({}) OVERRIDING SYSTEM VALUE SELECT {} FROM {}").format(
                sql.Identifier(scratch, table), listed, listed, sql.Identifier(schema, table)
            )
        )
    for name, last in _ask(connection, "counters", (schema,)):
        _ask(connection, "set_counter", (scratch, name, last))
    connection.execute("COMMIT")


def _ask(connection: psycopg.Connection[Any], query: str, values: Sequence[Any] = ()) -> list[Any]:
    cursor = psycopg.RawCursor(connection)
    return cursor.execute(_QUERIES[query], values).fetchall()


def _run(connection: psycopg.Connection[Any], statement: Any, *names: str) -> None:
    """Run a statement that takes names only."""
    connection.execute(sql.SQL(statement).format(*map(sql.Identifier, names)))
