"""Trying the pending migrations on a copy of a database, there and back and there again.

Nothing is written to the original's tables, and rows are compared inside the database, so that memory stays
flat. Each engine has a bench of its own to do that on.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from functools import partial

from poker_therapist.database import Location
from poker_therapist.errors import MigrationFailed, PokerTherapistError
from poker_therapist.migrations import folders_for
from poker_therapist.migrations.engine import Bench, engine_for
from poker_therapist.migrations.files import SQLMigration


class Verdict(StrEnum):
    """What is left of a database that went up and down again."""

    # Every byte of schema and rows that it had.
    EXACT = "exact"
    # The same schema and the same rows, some with other values.
    SCHEMA_EXACT = "schema-exact"
    # Something else, or no way back.
    IRREVERSIBLE = "irreversible"


@dataclass(slots=True)
class Rehearsed:
    """One migration, there and back.

    Attributes:
        seconds: how long applying it took, on this machine.
        changed: how many rows of each table are not what they were after applying it.
        verdict: what rolling it back gives; None if applying it failed.
        reasons: why the verdict is no better, or what failed.
    """

    id: str
    seconds: float = 0.0
    changed: dict[str, int] = field(default_factory=dict)
    verdict: Verdict | None = None
    reasons: list[str] = field(default_factory=list)


@dataclass(slots=True)
class Rehearsal:
    """All pending migrations, in order; the last may have failed.

    Attributes:
        room: how many bytes the real run needs at most, for its backup, its journal and what it adds.
        reason: why the copy was of a lesser kind than it could be, empty if it was not.
    """

    migrations: list[Rehearsed]
    room: int
    reason: str = ""

    @property
    def is_safe(self) -> bool:
        """Whether every migration works and going back gives at least the same schema and rows."""
        good = (Verdict.EXACT, Verdict.SCHEMA_EXACT)
        return all(one.verdict in good for one in self.migrations)


Progress = Callable[[str, int, int], None]


def no_progress(doing: str, done: int, total: int) -> None:
    """Show nothing."""


def rehearse(
    location: Location,
    *,
    to: str | None = None,
    sources: list[str] | None = None,
    progress: Progress = no_progress,
) -> Rehearsal:
    """Apply what is pending to a copy, roll it back, compare, and apply it again, one migration at a time.

    Args:
        location: the database; it is read, never written.
        to: the last migration to try, or how its id begins; all pending unless given.
        sources: folders of migrations; those of this version unless given.
        progress: called with what is being done, how much is done and how much there is.

    Raises:
        MigrationError: a file cannot be used, or `to` is not pending.
        StorageError: the database cannot be read, or there is no room for its copies.
    """
    engine = engine_for(location)
    with engine.backend() as backend:
        folders = sources or [str(folder) for folder in folders_for(location, backend.applied())]
        files = backend.read(folders)
    with engine.bench({one.id: one for one in files}) as bench:
        with bench.backend() as backend:
            pending = list(backend.to_apply(files))
            backend.require_unedited(list(files))
        if to is not None:
            ids = [one.id for one in pending]
            named = [one for one in ids if one == to] or [one for one in ids if one.startswith(to)]
            if len(named) != 1:
                raise MigrationFailed(
                    f"{to} is not pending, or is more than one: pending are {', '.join(ids) or 'none'}"
                )
            pending = pending[: ids.index(named[0]) + 1]
        done: list[Rehearsed] = []
        for number, migration in enumerate(pending):
            steps = _Steps(bench, migration, partial(_tell, progress, number, len(pending)))
            done.append(steps.run())
            if done[-1].verdict is None or not bench.return_to_after():
                break
        return Rehearsal(done, bench.room if pending else 0, bench.reason)


def _tell(progress: Progress, done: int, total: int, doing: str) -> None:
    progress(doing, done, total)


class _Steps:
    """What is done with one migration on the bench."""

    def __init__(self, bench: Bench, migration: SQLMigration, progress: Callable[[str], None]) -> None:
        self.bench = bench
        self.migration = migration
        self.progress = progress
        self.result = Rehearsed(migration.id)

    def run(self) -> Rehearsed:
        """Apply, roll back, compare, apply again; leave the bench as after applying."""
        self.bench.keep_before()
        if self._attempt("applying", self._apply):
            self.bench.keep_after()
            self.result.changed = dict(self.bench.changed_rows())
            if self._attempt("rolling back", self._roll_back):
                self.progress(f"comparing {self.migration.id}")
                self._judge()
                if not self._attempt("applying again", self._apply):
                    self.result.verdict = Verdict.IRREVERSIBLE
            else:
                self.result.verdict = Verdict.IRREVERSIBLE
        return self.result

    def _attempt(self, doing: str, action: Callable[[], None]) -> bool:
        self.progress(f"{doing} {self.migration.id}")
        try:
            action()
            damage = self.bench.damage()
        except PokerTherapistError as error:
            self.result.reasons.append(f"{doing} it failed: {error}")
            return False
        if damage:
            self.result.reasons.append(f"{doing} it damaged the database: {damage}")
        return not damage

    def _apply(self) -> None:
        start = time.perf_counter()
        with self.bench.backend() as backend:
            backend.apply_one(self.migration)
        self.result.seconds = self.result.seconds or time.perf_counter() - start

    def _roll_back(self) -> None:
        with self.bench.backend() as backend:
            backend.rollback_one(self.migration)

    def _judge(self) -> None:
        """Compare what came back with what there was."""
        schema, rows = self.bench.schema_differences(), list(self.bench.row_differences())
        for table, count in self.bench.tables_of_one():
            self.result.reasons.append(f"{count:,} rows of {table} are gone or left over with it")
        self.result.reasons += [str(part) for part in (*schema, *rows)]
        texts = self.bench.texts_laid_out_differently()
        if schema or any(part.column is None for part in rows):
            self.result.verdict = Verdict.IRREVERSIBLE
        elif rows or texts:
            self.result.verdict = Verdict.SCHEMA_EXACT
            if texts:
                self.result.reasons.append(f"the SQL text of {', '.join(texts)} is laid out differently")
        else:
            self.result.verdict = Verdict.EXACT
