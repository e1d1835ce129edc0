"""What the statements of a rehearsal lock, rewrite, read and change, by pg_locks and the statistics."""

import re
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import psycopg

from poker_therapist.compat import override
from poker_therapist.location import PostgreSQLLocation
from poker_therapist.migrations.catalog import BOOKKEEPING
from poker_therapist.migrations.effects import code
from poker_therapist.migrations.files import SQLMigration, Statement
from poker_therapist.migrations.lock_report import (
    EVERYBODY,
    MAINTENANCE,
    SAME_ROWS,
    WRITERS,
    LockReport,
    StatementReport,
)
from poker_therapist.postgresql.backend import AtomicPostgreSQLBackend
from poker_therapist.postgresql.connect import is_idle, is_lost, open_connection
from poker_therapist.postgresql.locks import fault, locks
from poker_therapist.sqlfile import Placeholders, read_queries

_QUERIES = read_queries(Placeholders.POSTGRESQL, Path(__file__).with_suffix(".sql"))
# What may commit by itself, or begins a transaction of its own.
_OF_ITS_OWN = re.compile(
    r"(?:ABORT|BEGIN|CALL|COMMIT|DO|END|ROLLBACK|START|SAVEPOINT|RELEASE)\b", re.IGNORECASE
)
_WHO_WAITS = {
    "ACCESS EXCLUSIVE": EVERYBODY,
    "EXCLUSIVE": WRITERS,
    "SHARE ROW EXCLUSIVE": WRITERS,
    "SHARE": WRITERS,
    "SHARE UPDATE EXCLUSIVE": MAINTENANCE,
}
_CHANGES = ("inserted", "updated", "deleted")


class ObservedBackend(AtomicPostgreSQLBackend):
    """A backend of a copy that reports what each statement does.

    A second session looks at the locks: it sees the tables that others see, by the names that those know.
    """

    def __init__(self, location: PostgreSQLLocation, report: LockReport) -> None:
        super().__init__(location)
        self.lock_report = report
        self._observer: psycopg.Connection[Any] | None = None
        self._line, self._is_alone = 0, False
        self._names: dict[int, str] = {}
        self._state: dict[int, tuple[int, ...]] | None = None  # of the tables, before the next statement
        self._seen = set[tuple[int, str]]()

    @override
    def __exit__(self, *error: object) -> None:
        super().__exit__(*error)
        if self._observer is not None:
            self._observer.close()
            self._observer = None

    @override
    def run(self, migration: SQLMigration, statement: Statement, direction: str) -> None:
        self._line, self._is_alone = statement.line, not migration.is_transactional(direction)
        super().run(migration, statement, direction)

    @override
    def _execute(self, text: str) -> None:
        line = code(text)
        is_single = self._is_alone and is_idle(self.connection)
        if is_single and not _OF_ITS_OWN.match(line) and not fault(text, is_whole=True):
            with suppress(psycopg.errors.ActiveSqlTransaction):
                self._execute_in_transaction(text)
                return
        if not is_single:
            self._observed(text)
            if is_idle(self.connection):  # by a COMMIT of its own
                self._end()
            return
        start = time.perf_counter()
        super()._execute(text)
        now = time.perf_counter()
        if is_idle(self.connection):  # its locks are gone
            foretold = [(lock.mode, lock.table) for lock in locks(line)]
            self.lock_report.statements.append(
                StatementReport(self._line, now - start, foretold, is_foretold=bool(foretold))
            )
            for mode, table in foretold:
                if mode in _WHO_WAITS:
                    self.lock_report.hold(_WHO_WAITS[mode], table, start)
            self.lock_report.release(now)

    def _execute_in_transaction(self, text: str) -> None:
        before = len(self.lock_report.statements)
        self.connection.execute("BEGIN")
        try:
            self._observed(text)
            self.connection.execute("COMMIT")
        except BaseException:
            if not is_lost(self.connection):
                self.connection.execute("ROLLBACK")
            self._forget(before)
            raise
        self._end()

    def _observed(self, text: str) -> None:
        """Run a statement in its transaction, and note what has changed."""
        if self._state is None:
            self._names = dict(self._look("tables"))
            self._state = self._measure()
        start = time.perf_counter()
        super()._execute(text)
        found = StatementReport(self._line, time.perf_counter() - start)
        self.lock_report.statements.append(found)
        if is_idle(self.connection):
            return
        held = {
            (oid, _in_words(mode)) for oid, mode in self._look("held", self.connection.pgconn.backend_pid)
        }
        for oid, mode in sorted(held - self._seen):
            if name := self._names.get(oid):
                found.locks.append((mode, name))
                if mode in _WHO_WAITS:
                    self.lock_report.hold(_WHO_WAITS[mode], name, start)
        self._seen |= held
        before, self._state = self._state, self._measure()
        for oid, name in self._names.items():
            was, now = before.get(oid), self._state.get(oid)
            if was is None or now is None or was == now:
                continue
            scans, *counts, file, read = (after - one for one, after in zip(was, now, strict=True))
            found.rewritten += [name] if file else []
            found.scanned += [name] if scans > 0 and read > 0 else []
            rows = {how: count for how, count in zip(_CHANGES, counts, strict=True) if count > 0}
            if rows:
                found.rows[name] = rows
            if rows.keys() - {"inserted"}:
                self.lock_report.hold(SAME_ROWS, name, start)

    def _measure(self) -> dict[int, tuple[int, ...]]:
        found = psycopg.RawCursor(self.connection).execute(_QUERIES["counters"], (list(self._names),))
        return {oid: tuple(rest) for oid, *rest in found.fetchall()}

    def _look(self, name: str, *values: Any) -> list[Any]:
        """Ask in the second session; that it cannot be asked must not stop the rehearsal."""
        rows: list[Any] = []
        with suppress(psycopg.Error):
            if self._observer is None or is_lost(self._observer):
                self._observer = open_connection(replace(self.location, timeout=1.0))
            rows = psycopg.RawCursor(self._observer).execute(_QUERIES[name], values).fetchall()
        return [row for row in rows if name != "tables" or not row[1].startswith(BOOKKEEPING)]

    @override
    def commit(self) -> None:
        super().commit()
        self._end()

    @override
    def rollback(self) -> None:
        super().rollback()
        self._forget()

    def _end(self) -> None:
        self.lock_report.release(time.perf_counter())
        self._state = None
        self._seen.clear()

    def _forget(self, keeping: int = 0) -> None:
        if self._state is not None:
            self.lock_report.forget(keeping)
        self._state = None
        self._seen.clear()


def _in_words(mode: str) -> str:
    """Return a mode of pg_locks as SQL names it: AccessExclusiveLock is ACCESS EXCLUSIVE."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", " ", mode.removesuffix("Lock")).upper()
