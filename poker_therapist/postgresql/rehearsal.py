"""Where migrations are rehearsed: a copy of a PostgreSQL database, or of its schema.

The server itself copies a database, as a template, if no other session is connected and the role may create
databases. Otherwise the tables are built again in a scratch schema of the same database, and their rows are
copied there. Either is dropped at the end; the next rehearsal drops what a killed one has left.
"""

import contextlib
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import Any

import psycopg
from psycopg import conninfo, sql

from poker_therapist.compat import override
from poker_therapist.errors import PokerTherapistError, StorageError
from poker_therapist.location import PostgreSQLLocation
from poker_therapist.migrations.catalog import Catalog, differences
from poker_therapist.migrations.compare import RowDifference, quoted
from poker_therapist.migrations.engine import RehearsalCopy
from poker_therapist.migrations.files import SQLMigration
from poker_therapist.migrations.lock_report import LockReport
from poker_therapist.postgresql.backend import AtomicPostgreSQLBackend
from poker_therapist.postgresql.catalog import describe, describe_all, extension_schemas
from poker_therapist.postgresql.compare import PostgreSQLRowComparison, copy_rows
from poker_therapist.postgresql.connect import is_lost, open_connection, reason_of, translating_errors
from poker_therapist.postgresql.expected import copy_settings
from poker_therapist.postgresql.rehearsal_backend import RehearsalBackend, disconnect_servers
from poker_therapist.postgresql.scratch import copy_tables, require_one_schema
from poker_therapist.sqlfile import Placeholders, read_queries

_QUERIES = read_queries(Placeholders.POSTGRESQL, Path(__file__).with_suffix(".sql"))
_PREFIX = "poker_therapist_rehearsal_"
_BEFORE = "poker_therapist_before_rehearsal"
# Seconds in which a session that was closed a moment ago, such as our own, has ended.
_PATIENCE = 0.5
# Up to so many bytes a database is copied as PostgreSQL sees fit, which also writes each page to its log: a
# larger one would fill that, and every replica and archive with it.
_SMALL = 1 << 28


@contextlib.contextmanager
def rehearsal_copy(
    location: PostgreSQLLocation, files: Mapping[str, SQLMigration]
) -> Iterator["PostgreSQLRehearsalCopy"]:
    """Copy a database to rehearse migrations; the copy is dropped when the block ends."""
    with translating_errors(location):
        with AtomicPostgreSQLBackend(location) as backend:
            schema = backend.schema
            if backend.home.is_distributed:
                raise StorageError(
                    f"{location.name} is distributed by Citus, so it cannot be copied: restore a backup "
                    "into a database without Citus (its tables are plain ones), and rehearse there"
                )
            ((database, _),) = _ask(backend.connection, "database_and_schema")
        with contextlib.closing(PostgreSQLRehearsalCopy(location, database, schema, files)) as copy:
            copy.make()
            yield copy


class PostgreSQLRehearsalCopy(RehearsalCopy):
    """A copy that migrations change, and its rows from before the last."""

    def __init__(
        self, original: PostgreSQLLocation, database: str, schema: str, files: Mapping[str, SQLMigration]
    ) -> None:
        self._original, self._database, self._home, self._files = original, database, schema, files
        self._made = contextlib.ExitStack()
        self._applied: list[SQLMigration] = []
        self._space = 0
        self._kept_rows: dict[str, tuple[str, str]] = {}
        self._described: Catalog | None = None  # unchanged since
        self._opened: RehearsalBackend | None = None

    def make(self) -> None:
        """Copy the database, or, where that cannot be, build its schema again.

        Raises:
            StorageError: neither can be done.
        """
        try:
            self._location = self._made.enter_context(_copied_database(self._original, self._database))
            self.fallback_reason = ""
        except psycopg.Error as error:
            reason = f"rehearsed in a scratch schema, not on a copy of the database: {reason_of(error)}"
            scratch = _scratch_schema(self._original, self._home, self._files, reason)
            self._location, drift = self._made.enter_context(scratch)
            if drift:
                reason += "; the scratch schema lacks the drift that `poker-therapist status` shows"
            self.fallback_reason = reason
        self._connection = self._made.enter_context(contextlib.closing(open_connection(self._location)))
        self._schema = str(_ask(self._connection, "database_and_schema")[0][1])
        if not self.fallback_reason:  # or it would be the original
            disconnect_servers(self._connection)
        self._described = None

    def close(self) -> None:
        """Remove the copy."""
        self._end_session()
        self._made.close()

    @property
    @override
    def disk_space_needed(self) -> int:
        return self._space

    @override
    @contextlib.contextmanager
    def backend(self) -> Iterator[RehearsalBackend]:
        self._described = None
        self.lock_report = self._session().lock_report = LockReport()
        try:
            yield self._session()
        except BaseException:
            self._end_session()
            raise

    def _session(self) -> RehearsalBackend:
        """Return the backend; as in a real run, one session applies all, unless one fails."""
        if self._opened is not None:
            with contextlib.suppress(psycopg.Error):
                self._opened.connection.execute("SELECT 1")
            if is_lost(self._opened.connection):  # as after idle_session_timeout
                self._end_session()
        if self._opened is None:
            only = self._schema if self.fallback_reason else None
            self._opened = RehearsalBackend(
                self._location, LockReport(), self._connection, only, self._applied
            )
        return self._opened

    def _end_session(self) -> None:
        opened, self._opened = self._opened, None
        if opened is not None:
            opened.__exit__()

    @override
    def keep_before(self) -> None:
        self._before = self._describe()
        self._counters = self._read_counters()
        self._invalid = self._invalid_indexes()
        self._size = self._measure()
        target = f"{self._schema}_before" if self.fallback_reason else _BEFORE
        self._kept_rows = copy_rows(self._connection, self._before, target)

    @override
    def keep_after(self) -> None:
        self._space = max(self._space, self._measure() - self._size)
        self._applied_after = self._read_applied()
        self._after = self._describe()

    @override
    def return_to_after(self) -> bool:
        if self._is_as_after():
            return True
        try:  # to copy the original again, and to apply what has been tried, once
            self.close()
            self.make()
            for migration in self._applied:
                with self.backend() as backend:
                    backend.apply_one(migration)
        except PokerTherapistError:
            return False
        return self._is_as_after()

    def _is_as_after(self) -> bool:
        return self._read_applied() == self._applied_after and not differences(self._after, self._describe())

    @override
    def integrity_error(self) -> str:
        found = self._invalid_indexes() - self._invalid
        return f"the index {min(found)} is INVALID" if found else ""

    @override
    def schemas(self) -> tuple[Catalog, Catalog]:
        return self._before, self._describe()

    @override
    def row_comparison(self) -> AbstractContextManager[PostgreSQLRowComparison]:
        return nullcontext(PostgreSQLRowComparison(self._connection, self._kept_rows, self.schemas()))

    @override
    def row_differences(self) -> list[RowDifference]:
        counters = self._read_counters()
        changed = [
            RowDifference(name, "last_value", 1, f"{was or 'none'} became {counters[name] or 'none'}")
            for name, was in self._counters.items()
            if counters.get(name, was) != was
        ]
        return super().row_differences() + changed

    @override
    def refused_queries(self, files: Sequence[Path]) -> dict[str, str]:
        refused = {}
        for name, query in read_queries(Placeholders.POSTGRESQL, *files).items():
            try:
                self._connection.execute(f"PREPARE {_BEFORE} AS {query}".encode())
                self._connection.execute(f"DEALLOCATE {_BEFORE}".encode())
            except psycopg.Error as error:
                if is_lost(self._connection):
                    raise
                refused[name] = reason_of(error)
        return refused

    @override
    def texts_laid_out_differently(self) -> list[str]:
        return []

    def _describe(self) -> Catalog:
        """Return all of a copied database; of a scratch schema that alone, for the rest is the original's."""
        if self._described is None:
            describing = describe if self.fallback_reason else describe_all
            self._described = describing(self._connection, self._schema)
        return self._described

    def _schemas(self) -> list[str]:
        return [self._schema, *(self._describe().schemas or ())]

    def _measure(self) -> int:
        return int(_ask(self._connection, "size", (self._schemas(),))[0][0])

    def _read_counters(self) -> dict[str, int | None]:
        found = _ask(self._connection, "counters", (self._schemas(),))
        return {name if schema == self._schema else f"{schema}.{name}": last for schema, name, last in found}

    def _invalid_indexes(self) -> set[str]:
        return {name for (name,) in _ask(self._connection, "invalid_indexes", (self._schemas(),))}

    def _read_applied(self) -> set[str]:
        return set(self._session().applied())


@contextlib.contextmanager
def _copied_database(location: PostgreSQLLocation, database: str) -> Iterator[PostgreSQLLocation]:
    """Have the server copy a whole database.

    Raises:
        psycopg.Error: another session is connected, or the role may not; nothing was done.
    """
    given = conninfo.conninfo_to_dict(location.conninfo)
    elsewhere = replace(location, conninfo=conninfo.make_conninfo("", **(given | {"dbname": "postgres"})))
    with contextlib.closing(open_connection(replace(elsewhere, schema=None))) as administration:
        for (left,) in _ask(administration, "databases_named", (_PREFIX,)):
            if _ask(administration, "claim", (left,))[0][0]:
                with contextlib.suppress(psycopg.Error):  # another role's
                    _run(administration, "DROP DATABASE IF EXISTS {} WITH (FORCE)", left)
        _require_alone(administration, database)
        name = f"{_PREFIX}{uuid.uuid4().hex[:12]}"
        _ask(administration, "claim", (name,))
        try:
            ((size,),) = _ask(administration, "size_of_database", (database,))
            by_files = size > _SMALL and administration.info.server_version >= 150_000
            strategy = " STRATEGY file_copy" if by_files else ""
            _run(administration, f"CREATE DATABASE {{}} TEMPLATE {{}}{strategy}", name, database)
            copy_settings(administration, database, name)
            yield replace(location, conninfo=conninfo.make_conninfo("", **(given | {"dbname": name})))
        finally:
            _run(administration, "DROP DATABASE IF EXISTS {} WITH (FORCE)", name)


def _require_alone(administration: psycopg.Connection[Any], database: str) -> None:
    """Raise ObjectInUse if others are connected to a database: the server does so after five seconds."""
    deadline = time.monotonic() + _PATIENCE
    while others := _ask(administration, "others", (database,))[0][0]:
        if time.monotonic() > deadline:
            raise psycopg.errors.ObjectInUse(f"other sessions connected to {database}: {others}")
        time.sleep(0.01)


@contextlib.contextmanager
def _scratch_schema(
    location: PostgreSQLLocation, schema: str, files: Mapping[str, SQLMigration], why: str
) -> Iterator[tuple[PostgreSQLLocation, bool]]:
    """Build the tables of the applied migrations in a schema of their own, and copy their rows into it.

    Yields:
        where it is, and whether the original has other tables than those.
    """
    with contextlib.closing(open_connection(location)) as connection:
        for (left,) in _ask(connection, "schemas_named", (_PREFIX,)):
            if _ask(connection, "claim", (left.removesuffix("_before"),))[0][0]:
                with contextlib.suppress(psycopg.Error):  # another role's
                    _run(connection, "DROP SCHEMA IF EXISTS {} CASCADE", left)
        name = f"{_PREFIX}{uuid.uuid4().hex[:12]}"
        _ask(connection, "claim", (name,))
        try:
            there = _in_schema(connection, location, schema, name)
            drift = _fill(connection, location, there, (schema, name), files)
            yield there, drift
        except _Unfit as error:
            raise StorageError(
                f"the schema of {location.name} could not be rebuilt for a rehearsal: {error}\n{why}\n"
                "Rehearse while no other session is connected, as a role that may create databases"
            ) from error
        finally:
            for one in (name, f"{name}_before"):
                _run(connection, "DROP SCHEMA IF EXISTS {} CASCADE", one)


def _in_schema(
    connection: psycopg.Connection[Any], location: PostgreSQLLocation, live: str, scratch: str
) -> PostgreSQLLocation:
    """Return the location of a scratch schema, with what extensions have put into schemas of their own."""
    more = [name for name in extension_schemas(connection) if name != live]
    if location.on_connect is not None or not more:
        return replace(location, schema=scratch)
    path = ",".join(map(quoted, [scratch, *more])).replace("\\", "\\\\").replace(" ", "\\ ")
    given = conninfo.conninfo_to_dict(location.conninfo)
    options = f"{given.get('options') or ''} -c search_path={path}"
    return replace(
        location, schema=None, conninfo=conninfo.make_conninfo("", **(given | {"options": options}))
    )


class _Unfit(Exception):
    """A scratch schema cannot replace a copy of the database."""


def _fill(
    connection: psycopg.Connection[Any],
    location: PostgreSQLLocation,
    there: PostgreSQLLocation,
    schemas: tuple[str, str],
    files: Mapping[str, SQLMigration],
) -> bool:
    """Make a scratch schema that is like the original; return whether the original has other tables."""
    schema, scratch = schemas
    try:
        with (
            AtomicPostgreSQLBackend(location) as live,
            RehearsalBackend(there, LockReport(), connection, scratch, []) as copy,
        ):
            history = live.history(files)
            all_of_them = [*history, *files.values()]
            require_one_schema(connection, all_of_them, kept=True)
            _run(connection, "CREATE SCHEMA {}", scratch)
            expected = live.build(history)
            actual = live.describe(expected)
            texts = [text for one in all_of_them for text in (one.apply_sql, one.rollback_sql or "")]
            copy_tables(connection, schema, scratch, texts, but=set(expected.tables))
            for migration in history:
                copy.apply_one(migration)
    except PokerTherapistError as error:
        raise _Unfit(error) from error
    _copy_rows(connection, schema, scratch)
    return bool(differences(expected, actual))


def _copy_rows(connection: psycopg.Connection[Any], schema: str, scratch: str) -> None:
    """Copy the rows of the tables in both schemas from one snapshot, and the state of their sequences."""
    catalog = describe(connection, scratch)
    with connection.transaction():
        connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        if catalog.tables:  # which have what migrations put there
            every = sql.SQL(", ").join(sql.Identifier(scratch, table) for table in catalog.tables)
            connection.execute(sql.SQL("TRUNCATE {}").format(every))
        triggers = _ask(connection, "triggers", (scratch,))
        for table, trigger, _ in triggers:  # they have seen these rows already
            _run(connection, "ALTER TABLE {}.{} DISABLE TRIGGER {}", scratch, table, trigger)
        for table in _parents_first(catalog):
            columns = [name for (name,) in _ask(connection, "written_columns", (scratch, table))]
            listed = sql.SQL(", ").join(map(sql.Identifier, columns))
            try:
                connection.execute(
                    sql.SQL("INSERT INTO {} ({}) OVERRIDING SYSTEM VALUE SELECT {} FROM ONLY {}").format(
                        sql.Identifier(scratch, table), listed, listed, sql.Identifier(schema, table)
                    )
                )
            except psycopg.Error as error:
                raise _Unfit(
                    f"the rows of {table} do not fit the table that the applied migrations build "
                    f"({reason_of(error)}); see `poker-therapist status`"
                ) from error
        for table, trigger, how in triggers:
            _run(connection, f"ALTER TABLE {{}}.{{}} ENABLE {how} TRIGGER {{}}", scratch, table, trigger)
        for _, name, last in _ask(connection, "counters", ([schema],)):
            _ask(connection, "set_counter", (scratch, name, last))


def _parents_first(catalog: Catalog) -> Iterable[str]:
    """Return the tables, each after those that its rows refer to."""
    parents = {
        name: {key.parent.strip('"') for key in table.foreign_keys} & catalog.tables.keys() - {name}
        for name, table in catalog.tables.items()
    }
    try:
        return list(TopologicalSorter(parents).static_order())
    except CycleError as error:
        raise _Unfit(f"the foreign keys of these tables form a cycle: {', '.join(error.args[1])}") from error


def _ask(connection: psycopg.Connection[Any], query: str, values: Sequence[Any] = ()) -> list[Any]:
    cursor = psycopg.RawCursor(connection)
    return cursor.execute(_QUERIES[query], values).fetchall()


def _run(connection: psycopg.Connection[Any], statement: Any, *names: str) -> None:
    """Run a statement that takes names only."""
    connection.execute(sql.SQL(statement).format(*map(sql.Identifier, names)))
