"""The backend that rehearses migrations on a copy, and refuses effects outside that copy."""

import contextlib
import re
from collections.abc import Iterator
from typing import Any, NoReturn

import psycopg
from psycopg import sql
from psycopg.pq import TransactionStatus

from poker_therapist.compat import override
from poker_therapist.errors import MigrationFailed
from poker_therapist.location import PostgreSQLLocation
from poker_therapist.migrations.effects import code
from poker_therapist.migrations.files import SQLMigration, Statement
from poker_therapist.migrations.lock_report import LockReport
from poker_therapist.postgresql.beyond import beyond, changes_server, reached
from poker_therapist.postgresql.lock_report import ObservedBackend

# Those by which something outside the database can be asked.
_WRAPPERS = "SELECT fdwname FROM pg_catalog.pg_foreign_data_wrapper WHERE fdwhandler <> 0"
# What may run code that its text does not show.
_RUNS_CODE = re.compile(r"(?:DO|CALL|SELECT|WITH|INSERT|UPDATE|DELETE|MERGE|EXECUTE)\b", re.IGNORECASE)
_ENDS_TRANSACTION = (psycopg.errors.ActiveSqlTransaction, psycopg.errors.InvalidTransactionTermination)


class _NotInTransaction(Exception):
    """A statement cannot run in a transaction."""


class RehearsalBackend(ObservedBackend):
    """The backend of a copy: it reports locks, and refuses effects outside the copy."""

    def __init__(
        self,
        location: PostgreSQLLocation,
        report: LockReport,
        witness: psycopg.Connection[Any],
        schema: str | None,
        applied: list[SQLMigration],
    ) -> None:
        """Work on the copy at `location`, or in a schema of it alone; add to a list what is applied."""
        super().__init__(location, report)
        self._witness, self._only, self._tried = witness, schema, applied

    @override
    def apply_one(self, migration: SQLMigration, force: bool = False, mark: bool = True) -> None:
        super().apply_one(migration, force, mark)
        if migration not in self._tried:
            self._tried.append(migration)

    @override
    def run(self, migration: SQLMigration, statement: Statement, direction: str) -> None:
        is_undone = migration.is_transactional(direction)
        may_hide = not is_undone and _RUNS_CODE.match(code(statement.text))
        if may_hide and self.connection.info.transaction_status == TransactionStatus.IDLE:
            with contextlib.suppress(_NotInTransaction):
                return self._run_whole(migration, statement, direction)
        if found := beyond(statement.text, is_undone=is_undone):
            self._refuse(migration, direction, f"{found} has effects outside the database", statement)
        try:
            super().run(migration, statement, direction)
        except MigrationFailed as error:
            if "foreign-data wrapper" in str(error) and "has no handler" in str(error):
                self._refuse(migration, direction, "it reads another server or a file", statement)
            raise
        if self._only is None and re.search("EXTENSION|FOREIGN DATA", statement.text, re.IGNORECASE):
            disconnect_servers(self.connection)
        return None

    def _run_whole(self, migration: SQLMigration, statement: Statement, direction: str) -> None:
        """Run what commits by itself in a transaction, which can undo what its text does not show.

        Raises:
            _NotInTransaction: it commits in its middle; nothing was done.
        """
        self.connection.execute("BEGIN")
        try:
            self.run(migration, statement, direction)
            self._require_inside(migration, direction, statement)
            self.connection.execute("COMMIT")
            self._end()
        except MigrationFailed as error:
            if isinstance(error.__cause__, _ENDS_TRANSACTION):
                raise _NotInTransaction from error
            raise
        finally:
            self.rollback()

    @override
    @contextlib.contextmanager
    def checked(self, migration: SQLMigration, direction: str) -> Iterator[None]:
        with super().checked(migration, direction):
            yield
            self._require_inside(migration, direction)

    def _require_inside(
        self, migration: SQLMigration, direction: str, statement: Statement | None = None
    ) -> None:
        """Refuse what the open transaction has changed outside the copy, also if no text shows it."""
        if changed := changes_server(self.connection, self._witness):
            self._refuse(migration, direction, f"it changes {changed} of the server", statement)
        if self._only and (table := reached(self.connection, self._only)):
            why = f"it uses {table}, which is outside the scratch schema"
            self._refuse(migration, direction, why, statement)

    @staticmethod
    def _refuse(
        migration: SQLMigration, direction: str, why: str, statement: Statement | None = None
    ) -> NoReturn:
        line, shown = (f":{statement.line}", f"\n    {statement}") if statement else ("", "")
        place = migration.place(direction)
        raise MigrationFailed(
            f"{place}{line}: this cannot be rehearsed: {why}{shown}",
            migration_id=migration.id,
            file=place,
            line=statement.line if statement else None,
        )


def disconnect_servers(connection: psycopg.Connection[Any]) -> None:
    """Prevent access to the foreign tables of a copy: their data is not copied."""
    wrappers = psycopg.RawCursor(connection).execute(_WRAPPERS).fetchall()
    for (wrapper,) in wrappers:
        with contextlib.suppress(psycopg.errors.InsufficientPrivilege), connection.transaction():
            connection.execute(
                sql.SQL("ALTER FOREIGN DATA WRAPPER {} NO HANDLER").format(sql.Identifier(wrapper))
            )
