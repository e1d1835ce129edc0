"""The PostgreSQL half of the atomic backend: one connection, an advisory lock that is polled."""

import time
import weakref
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import psycopg
from psycopg import pq
from yoyo import default_migration_table
from yoyo.backends.core.postgresql import PostgresqlPsycopgBackend

from poker_therapist.compat import override
from poker_therapist.errors import (
    DatabaseBusy,
    DriftUnknown,
    MigrationFailed,
    PokerTherapistError,
    SchemaMissing,
)
from poker_therapist.location import PostgreSQLLocation, command_about, locate
from poker_therapist.migrations.atomic import AtomicBackend
from poker_therapist.migrations.bookkeeping import BOOKKEEPING_SQL
from poker_therapist.migrations.catalog import Catalog
from poker_therapist.migrations.files import OUTSIDE_TRANSACTION, SQLMigration, Statement
from poker_therapist.postgresql.connect import configure, is_lost, open_connection, reason_of, translate_error
from poker_therapist.postgresql.expected import describe_live, expected_schema
from poker_therapist.postgresql.split import COPIES_ROWS, NO_ROWS, split
from poker_therapist.sqlfile import Placeholders, read_queries

_QUERIES = read_queries(Placeholders.POSTGRESQL, BOOKKEEPING_SQL, Path(__file__).with_suffix(".sql"))

# How long a migration may wait for a table: everybody who comes after it waits, too.
TABLE_TIMEOUT = "5s"


class AtomicPostgreSQLBackend(AtomicBackend, PostgresqlPsycopgBackend):
    """`postgresql+atomic://`: what `postgresql+psycopg://` does, safely."""

    split = staticmethod(split)

    def __init__(self, uri: Any, migration_table: str = default_migration_table) -> None:
        """Take yoyo's parsed URL, or a `PostgreSQLLocation`; connect only when something is asked."""
        self.location: PostgreSQLLocation = uri if isinstance(uri, PostgreSQLLocation) else _locate(uri)
        self.migration_table = migration_table
        self.DatabaseError = psycopg.DatabaseError
        self._opened: psycopg.Connection[Any] | None = None
        self._home: str | None = None

    @property
    def connection(self) -> psycopg.Connection[Any]:
        """The one connection, opened when it is first needed."""
        if self._opened is None:
            with self.translating_errors():
                opened = open_connection(self.location)
            weakref.finalize(self, opened.close)
            # What was prepared for a table may not fit it after the next migration.
            opened.prepare_threshold = None
            self._opened = opened
            self._home = self._schema()
            if self._home is None:  # where every table would seem to be missing
                opened.close()
                raise SchemaMissing(
                    f"{self.name} lacks the schema that search_path names, or this role may not use it: "
                    "create it, or grant USAGE on it"
                )
        return self._opened

    def __exit__(self, *error: object) -> None:
        """Close the connection, and let go of the lock with it."""
        if self._opened is not None:
            self._opened.close()

    def exists(self) -> bool:
        """Return that there is a database; where there is none, connecting fails."""
        return self.connection is not None

    def create_database(self) -> None:
        """Make nothing: a database of a server is made by whoever administers it."""

    @contextmanager
    def migration_lock(self) -> Iterator[None]:
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
                    f"wait until that is done, and look with `{command_about(self.location, 'status')}`"
                )
            time.sleep(pause)
            pause = min(pause * 1.5, 0.25)
        try:
            self.query("set_lock_timeout", (TABLE_TIMEOUT,))
            yield
        finally:
            self.rollback()  # what a statement of its own has begun
            if not is_lost(self.connection):
                # What a migration has set, prepared, locked or made for its session ends with it, and so does
                # this lock.
                self.connection.execute("DISCARD ALL")
                configure(self.connection, self.location)

    def is_being_changed(self) -> bool:
        """Return whether somebody migrates right now."""
        ((key,),) = self.query("lock_key_of", (self.migration_table,))
        return bool(self.query("is_locked", (key,))[0][0])

    def _reset_session(self) -> None:
        """Reset, in its transaction, what a migration has set: a role, a search path, timeouts."""
        self.connection.execute("RESET SESSION AUTHORIZATION; RESET ROLE; RESET ALL")
        configure(self.connection, self.location)

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

    @override
    def query(self, name: str, values: Sequence[Any] = ()) -> list[Any]:
        cursor = psycopg.RawCursor(self.connection)
        cursor.execute(_QUERIES[name], values)
        return cursor.fetchall() if cursor.description else []

    @override
    def run(self, migration: SQLMigration, statement: Statement, direction: str) -> None:
        if COPIES_ROWS.match(statement.text):
            raise MigrationFailed(
                f"{migration.place(direction)}:{statement.line}: {NO_ROWS}\n    {statement}",
                migration_id=migration.id,
                file=migration.place(direction),
                line=statement.line,
            )
        try:
            if (cursor := self.connection.execute(statement.text.encode())).description:
                self.show_rows(cursor)
        except psycopg.Error as error:
            position = int(error.diag.statement_position or 1) - 1
            line = statement.line + statement.text.count("\n", 0, position)
            in_words = error.sqlstate is None or error.sqlstate[:2] in ("40", "53", "55", "57", "25")
            reason = str(self.translate_error(error)) if in_words else _detailed(error)
            is_whole = migration.is_transactional(direction)
            if hint := _hint(error, statement.text[position:], is_whole=is_whole):
                reason = f"{reason_of(error)}: {hint}"
            raise MigrationFailed(
                f"{migration.place(direction)}:{line}: {reason}\n    {statement}"
                + (f"\nNothing of {migration.id} was kept." if is_whole else ""),
                migration_id=migration.id,
                file=migration.place(direction),
                line=line,
            ) from error

    @override
    def translate_error(self, error: Exception) -> PokerTherapistError | None:
        return translate_error(error, self.location) if isinstance(error, psycopg.Error) else None

    @override
    def _run_unprotected(self, migration: SQLMigration, statements: list[Statement], direction: str) -> None:
        super()._run_unprotected(migration, statements, direction)
        self._reset_session()

    def _record(self, migration: SQLMigration, mark: bool = True, operation: str = "apply") -> None:
        self._reset_session()  # so that it is recorded where the others are
        super()._record(migration, mark, operation)

    def _unrecord(self, migration: SQLMigration, operation: str = "rollback") -> None:
        self._reset_session()
        super()._unrecord(migration, operation)

    @contextmanager
    def checked(self, migration: SQLMigration, direction: str) -> Iterator[None]:
        """Refuse what only the commit would refuse, so that the message names the migration."""
        yield
        try:
            self.connection.execute("SET CONSTRAINTS ALL IMMEDIATE")
        except psycopg.Error as error:
            raise migration.failure(direction, f"{_detailed(error)}: correct the migration") from error

    @override
    def describe(self, expected: Catalog) -> Catalog:
        return describe_live(self.connection, str(self._schema()), expected)

    @override
    def present(self) -> dict[str, str]:
        # Not in the schema that a migration may have put first.
        return dict(self.query("present", (self._home,)))

    def build(self, migrations: Iterable[SQLMigration]) -> Catalog:
        """Return the schema that migrations build, where nobody sees it and nothing of it stays."""
        built = list(migrations)
        if self._in_transaction:
            with AtomicPostgreSQLBackend(self.location, self.migration_table) as other:
                return other.build(built)
        try:
            return expected_schema(self.connection, self.location, str(self._schema()), built)
        except (psycopg.errors.ReadOnlySqlTransaction, psycopg.errors.InsufficientPrivilege) as error:
            raise DriftUnknown(
                f"drift cannot be judged, for nothing can be built here ({reason_of(error)}): "
                "ask on the primary, as a role that may create a schema"
            ) from error

    def _schema(self) -> str | None:
        schema: str | None = self.query("current_schema")[0][0]
        return schema


def _hint(error: psycopg.Error, there: str, *, is_whole: bool) -> str:
    """Return what to do about an error that many run into; empty if nothing is known of it.

    Args:
        error: what the server said.
        there: the statement from where the server stopped.
        is_whole: whether a transaction holds all of the migration.
    """
    if error.sqlstate == "25001" and is_whole:
        return OUTSIDE_TRANSACTION
    if error.sqlstate == "55P04":
        return "a transaction cannot use the value that it has added: use it in the next migration"
    if error.sqlstate == "42601" and there.startswith("\\"):
        return f"{there.split(maxsplit=1)[0]} is a command of the program psql and no SQL: remove it"
    return ""


def _detailed(error: psycopg.Error) -> str:
    """Return what the server said, with the row that it is about."""
    detail = error.diag.message_detail
    return f"{reason_of(error)} ({detail.rstrip('.')})" if detail else reason_of(error)


def _locate(uri: Any) -> PostgreSQLLocation:
    """Return the place of yoyo's parsed URL."""
    location = locate(url_of(uri))
    assert isinstance(location, PostgreSQLLocation)  # noqa: S101  # for the type
    return location


def url_of(uri: Any) -> str:
    """Return the URL that yoyo has parsed; its own way back gives an empty password where there is none."""
    user = "" if uri.username is None else quote(uri.username, safe="", errors="surrogateescape")
    password = "" if uri.password is None else f":{quote(uri.password, safe='', errors='surrogateescape')}"
    host = f"[{uri.hostname}]" if ":" in (uri.hostname or "") else uri.hostname or ""
    port = f":{uri.port}" if uri.port else ""
    at = "@" if user or password else ""
    query = f"?{urlencode(uri.args, quote_via=quote, errors='surrogateescape')}" if uri.args else ""
    return f"postgresql://{user}{password}{at}{host}{port}/{uri.database or ''}{query}"
