"""The PostgreSQL half of the atomic backend: one connection, an advisory lock that is polled."""

import re
import time
import weakref
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import psycopg
import sqlparse
from psycopg import pq
from yoyo import default_migration_table
from yoyo.backends.core.postgresql import PostgresqlPsycopgBackend

from poker_therapist.database import PostgreSQLLocation, locate, read_queries
from poker_therapist.errors import DatabaseBusy, DatabaseReadOnly, MigrationFailed, PokerTherapistError
from poker_therapist.migrations.atomic import QUERIES, AtomicBackend
from poker_therapist.migrations.catalog import Catalog
from poker_therapist.migrations.files import SQLMigration, Statement
from poker_therapist.migrations.postgresql.catalog import describe
from poker_therapist.postgresql_server import explain, is_lost, open_connection, reason_of

_QUERIES = {
    name: sql.replace("?", "$")
    for name, sql in (QUERIES | read_queries(Path(__file__).with_name("backend.sql"))).items()
}

_SCRATCH = "poker_therapist_scratch"

# How long a migration may wait for a table: everybody who comes after it waits, too.
_TABLE_TIMEOUT = "5s"


def split(text: str) -> list[Statement]:
    """Return the statements of a file, as plain yoyo divides it; what dollar signs enclose stays whole."""
    statements, start = [], 0
    for part in sqlparse.split(text):
        begin = text.index(part, start)
        start = begin + len(part)
        code = part[_blank(part) :]
        if code.strip(" \t\r\n;"):
            statements.append(Statement(code.strip(), text.count("\n", 0, start - len(code)) + 1))
    return statements


def _blank(text: str) -> int:
    found = re.match(r"(?:\s|--[^\n]*(?:\n|\Z)|/\*.*?(?:\*/|\Z))*", text, re.DOTALL)
    return found.end() if found else 0


class AtomicPostgreSQLBackend(AtomicBackend, PostgresqlPsycopgBackend):
    """`postgresql+atomic://`: what `postgresql+psycopg://` does, safely."""

    split = staticmethod(split)

    def __init__(self, uri: Any, migration_table: str = default_migration_table) -> None:
        """Take yoyo's parsed URL, or a `PostgreSQLLocation`; connect only when something is asked."""
        self.location: PostgreSQLLocation = uri if isinstance(uri, PostgreSQLLocation) else _locate(uri)
        self.migration_table = migration_table
        self.DatabaseError = psycopg.DatabaseError
        self._opened: psycopg.Connection[Any] | None = None

    @property
    def connection(self) -> psycopg.Connection[Any]:
        """The one connection, opened when it is first needed."""
        if self._opened is None:
            with self.explained():
                self._opened = open_connection(self.location)
            weakref.finalize(self, self._opened.close)
        return self._opened

    def __exit__(self, *error: object) -> None:
        """Close the connection, and let go of the lock with it."""
        if self._opened is not None:
            self._opened.close()

    def exists(self) -> bool:
        """Return that there is a database; where there is none, connecting fails."""
        return self.connection is not None

    def make(self) -> None:
        """Make nothing: a database of a server is made by whoever administers it."""

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Hold an advisory lock, so that no two migrate at once, also where no transaction may.

        It is asked for again and again. A session that waited for it inside a statement would hold a
        snapshot, for which CREATE INDEX CONCURRENTLY of whoever has the lock would wait: a deadlock.
        """
        ((key,),) = self.query("lock_key_of", (self.migration_table,))
        deadline, pause = time.monotonic() + self.location.timeout, 0.005
        while not self.query("try_lock", (key,))[0][0]:
            if time.monotonic() > deadline:
                raise DatabaseBusy(
                    f"somebody else has been migrating {self.name} for {self.location.timeout:g} seconds: "
                    "wait until that is done, and look with `poker-therapist status`"
                )
            time.sleep(pause)
            pause = min(pause * 1.5, 0.25)
        try:
            self.query("set_lock_timeout", (_TABLE_TIMEOUT,))
            yield
        finally:
            if not is_lost(self.connection):
                self.query("reset_timeouts", (f"{self.location.timeout:g}s",))
                self.query("unlock", (key,))

    def begin(self) -> None:
        """Begin a transaction."""
        self.connection.execute("BEGIN")
        self._in_transaction = True

    def commit(self) -> None:
        """Commit the transaction."""
        self._in_transaction = False
        self.connection.execute("COMMIT")

    def rollback(self) -> None:
        """Undo the transaction; one whose connection is lost is undone already."""
        self._in_transaction = False
        if not is_lost(self.connection) and (
            self.connection.pgconn.transaction_status != pq.TransactionStatus.IDLE
        ):
            self.connection.execute("ROLLBACK")

    def list_tables(self, **_unused: Any) -> list[str]:
        """Return the names of all tables, as yoyo asks for them."""
        return [name for (name,) in self.query("all_tables")]

    def query(self, name: str, values: Sequence[Any] = ()) -> list[Any]:
        """Run one of our own queries and return its rows."""
        cursor = psycopg.RawCursor(self.connection)
        cursor.execute(_QUERIES[name], values)
        return cursor.fetchall() if cursor.description else []

    def run(self, migration: SQLMigration, statement: Statement, direction: str) -> None:
        """Run one statement of a migration; raise MigrationFailed, naming its place, if it fails."""
        try:
            self.connection.execute(statement.text.encode())
        except psycopg.Error as error:
            position = error.diag.statement_position
            line = statement.line
            if position and position.isdigit():
                line += statement.text.count("\n", 0, int(position) - 1)
            in_words = error.sqlstate is None or error.sqlstate[:2] in ("40", "53", "55", "57", "25")
            reason = str(self.explain(error)) if in_words else reason_of(error)
            raise MigrationFailed(
                f"{migration.place(direction)}:{line}: {reason}\n    {statement}"
                + (f"\nNothing of {migration.id} was kept." if migration.use_transactions else "")
            ) from error

    def explain(self, error: Exception) -> PokerTherapistError | None:
        """Return our own error for one of the driver's; None if it is no error of the driver's."""
        return explain(error, self.location) if isinstance(error, psycopg.Error) else None

    @contextmanager
    def checked(self, migration: SQLMigration, direction: str) -> Iterator[None]:
        """Refuse what only the commit would refuse, so that the message names the migration."""
        yield
        try:
            self.connection.execute("SET CONSTRAINTS ALL IMMEDIATE")
        except psycopg.Error as error:
            raise MigrationFailed(
                f"{migration.place(direction)}: {reason_of(error)}: correct the migration. "
                f"Nothing of {migration.id} was kept."
            ) from error

    def describe(self) -> Catalog:
        """Return the live schema."""
        return describe(self.connection, self._schema())

    def build(self, migrations: Iterable[SQLMigration]) -> Catalog:
        """Return the schema that migrations build in a scratch schema, which is never committed.

        They find nothing but what they have built themselves, unless they need a table of the app's.
        """
        live, built = self._schema(), list(migrations)
        try:
            try:
                return self._build(built, _SCRATCH)
            except psycopg.errors.UndefinedTable:
                return self._build(built, f"{_SCRATCH}, {live}")
        except (psycopg.errors.ReadOnlySqlTransaction, psycopg.errors.InsufficientPrivilege) as error:
            raise DatabaseReadOnly(
                f"drift cannot be judged, for nothing can be built here ({reason_of(error)}): "
                "ask on the primary, as a role that may create a schema"
            ) from error

    def _build(self, migrations: list[SQLMigration], search_path: str) -> Catalog:
        self.begin()
        try:
            self.query("make_scratch_schema")
            self.query("set_search_path", (search_path,))
            for migration in migrations:
                for statement in migration.split(migration.apply_sql):
                    self._run_in_transaction(migration, statement)
            return describe(self.connection, _SCRATCH)
        finally:
            self.rollback()

    def _run_in_transaction(self, migration: SQLMigration, statement: Statement) -> None:
        """Run a statement as well as can be inside a transaction.

        An index is the same without CONCURRENTLY; what else no transaction may hold (VACUUM) makes no schema.
        """
        text = statement.text
        if not migration.use_transactions:
            text = re.sub(r"(\bINDEX\s+)CONCURRENTLY\b", r"\1", text, flags=re.IGNORECASE)
        self.connection.execute("SAVEPOINT statement")
        try:
            self.connection.execute(text.encode())
        except psycopg.errors.ActiveSqlTransaction:
            self.connection.execute("ROLLBACK TO statement")

    def _schema(self) -> str:
        return str(self.query("current_schema")[0][0])


def _locate(uri: Any) -> PostgreSQLLocation:
    """Return the place of yoyo's parsed URL."""
    location = locate(url_of(uri))
    assert isinstance(location, PostgreSQLLocation)  # noqa: S101  # for the type
    return location


def url_of(uri: Any) -> str:
    """Return the URL that yoyo has parsed; its own way back gives an empty password where there is none."""
    user = "" if uri.username is None else quote(uri.username, safe="")
    password = "" if uri.password is None else f":{quote(uri.password, safe='')}"
    host = f"[{uri.hostname}]" if ":" in (uri.hostname or "") else uri.hostname or ""
    port = f":{uri.port}" if uri.port else ""
    at = "@" if user or password else ""
    query = f"?{urlencode(uri.args, quote_via=quote)}" if uri.args else ""
    return f"postgresql://{user}{password}{at}{host}{port}/{uri.database or ''}{query}"
