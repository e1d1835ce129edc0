"""Trying the pending migrations on a copy of a database: apply, roll back, apply again.

The original is not written. Rows are compared inside the database, so that memory does not grow with them.
"""

import re
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from functools import partial
from pathlib import Path

from poker_therapist.errors import InvalidInput, PokerTherapistError, counted
from poker_therapist.location import redacted
from poker_therapist.migrations.catalog import Difference, differences
from poker_therapist.migrations.compare import RowDifference, Side
from poker_therapist.migrations.compatible import broken_promises
from poker_therapist.migrations.effects import effects
from poker_therapist.migrations.engine import Engine, RehearsalCopy
from poker_therapist.migrations.files import SQLMigration
from poker_therapist.migrations.lock_report import LockReport
from poker_therapist.migrations.progress import Progress, no_progress

# Statements that cannot change a row: where a migration has no others, none is compared.
_OF_NO_ROWS = re.compile(r"(?:CREATE|DROP)\s+(?:UNIQUE\s+)?(?:INDEX|VIEW)\b|SET\s", re.IGNORECASE)


class Verdict(StrEnum):
    """The state of a database after applying a migration and rolling it back."""

    # Identical in schema and rows.
    EXACT = "exact"
    # The same schema and the same rows, some with other values.
    SCHEMA_EXACT = "schema-exact"
    # It adopted existing tables with their rows: the backup made before it undoes it.
    ADOPTED = "adopted"
    # Something else, or the rollback fails.
    IRREVERSIBLE = "irreversible"
    # It was interrupted before, and what it did to rows is not known.
    UNJUDGED = "not judged"


@dataclass(slots=True)
class Rehearsed:
    """One migration, applied and rolled back.

    Attributes:
        seconds: how long applying it took, on this machine.
        changed: how many rows of each table it changes.
        verdict: what rolling it back gives; None if applying it failed.
        reasons: why the verdict is no better, or what failed.
        broken_promises: why code that does not know it would fail, though it declares the opposite.
        locks: the waits for its locks, by direction: apply and rollback.
    """

    id: str
    seconds: float = 0.0
    changed: dict[str, int] = field(default_factory=dict)
    verdict: Verdict | None = None
    reasons: list[str] = field(default_factory=list)
    broken_promises: list[str] = field(default_factory=list)
    locks: dict[str, LockReport] = field(default_factory=dict)


@dataclass(slots=True)
class Rehearsal:
    """All pending migrations, in order; the last may have failed.

    Attributes:
        disk_space_needed: how many bytes the real run needs at most, for its backup, its journal and what it
            adds.
        fallback_reason: why the copy was of a lesser kind than it could be; empty if it was not.
        not_tried: those that come after one that failed, or after which nothing could be tried.
    """

    migrations: list[Rehearsed]
    disk_space_needed: int
    fallback_reason: str = ""
    not_tried: list[str] = field(default_factory=list)

    @property
    def is_safe(self) -> bool:
        """Whether every migration works, keeps its promise and its rollback restores schema and rows."""
        lesser = (None, Verdict.IRREVERSIBLE, Verdict.UNJUDGED)
        return not self.not_tried and not any(
            one.verdict in lesser or one.broken_promises for one in self.migrations
        )


def rehearse(
    engine: Engine,
    sources: Sequence[str],
    *,
    to: str | None = None,
    queries: Sequence[Path] = (),
    owners: Collection[str] = (),
    progress: Progress = no_progress,
) -> Rehearsal:
    """Apply what is pending to a copy, roll it back, compare, and apply it again, one migration at a time.

    Args:
        engine: the database; it is read, never written.
        sources: folders of migrations.
        to: the last migration to try, or how its id begins; all pending unless given.
        queries: the `.sql` files with the queries of this version, prepared after each migration that
            declares `-- compatible: true`.
        owners: the columns that name the owner of a row.
        progress: called with what is being done, how much is done and how much there is.

    Raises:
        InvalidInput: `to` is not pending.
        MigrationError: a file cannot be used.
        StorageError: the database cannot be read, or there is no room for its copies.
    """
    # Read from the original, whose name is in the messages.
    with engine.backend() as backend:
        files = backend.read(sources)
        pending = list(backend.to_apply(files))
        backend.require_unedited(list(files))
        if to is not None:
            ids = [one.id for one in pending]
            named = [one for one in ids if one == to] or [one for one in ids if one.startswith(to)]
            if len(named) != 1:
                there = ", ".join(ids) or "none"
                what = "matches more than one migration" if named else "is not pending"
                raise InvalidInput(f"{redacted(to) or repr(to)} {what}: the pending ones are {there}")
            pending = pending[: ids.index(named[0]) + 1]
        backend.require_in_order(pending)
        begun = backend.interrupted()
    with engine.rehearsal_copy({one.id: one for one in files}) as work:
        done: list[Rehearsed] = []
        for number, migration in enumerate(pending):
            report = partial(_report, progress, number, len(pending))
            steps = _Steps(work, migration, report)
            if migration.id in begun:
                steps = _StepsToFinish(work, migration, report, {one.id: one for one in files})
            done.append(steps.run(queries, owners))
            if done[-1].verdict is None or not work.return_to_after():
                break
        not_tried = [one.id for one in pending[len(done) :]]
        space = work.disk_space_needed if pending else 0
        return Rehearsal(done, space, work.fallback_reason, not_tried)


def _report(progress: Progress, done: int, total: int, doing: str) -> None:
    progress(doing, done, total)


class _Steps:
    """What is done with one migration on the copy."""

    def __init__(self, copy: RehearsalCopy, migration: SQLMigration, progress: Callable[[str], None]) -> None:
        self.copy = copy
        self.migration = migration
        self.progress = progress
        self.result = Rehearsed(migration.id)

    def run(self, queries: Sequence[Path], owners: Collection[str]) -> Rehearsed:
        """Apply, roll back, compare, apply again; leave the copy as after applying."""
        self.copy.keep_before()
        claims = self.migration.is_compatible
        refused = self.copy.refused_queries(queries) if claims else {}
        if self._attempt("applying", self._apply):
            self.copy.keep_after()
            if claims:
                both = (refused, self.copy.refused_queries(queries))
                self.result.broken_promises = broken_promises(self.copy.schemas(), both, owners)
            self.result.changed = self.copy.changed_rows() if self._can_change_rows() else {}
            with self.copy.backend() as backend:
                found = backend.adopted().get(self.migration.id)
            if found:
                self.result.verdict = Verdict.ADOPTED
                self.result.reasons.append(
                    f"adopted {', '.join(found)}: to undo it, restore the backup made before it"
                )
            elif self._attempt("rolling back", self._roll_back):
                self.progress(f"comparing {self.migration.id}")
                self._judge()
                # Its result was checked the first time.
                if not self._attempt("applying again", self._apply, check=False):
                    self.result.verdict = Verdict.IRREVERSIBLE
            else:
                self.result.verdict = Verdict.IRREVERSIBLE
        return self.result

    def _can_change_rows(self) -> bool:
        texts = (self.migration.apply_sql, self.migration.rollback_sql or "")
        statements = (one for text in texts for one in self.migration.split(text))
        return not all(_OF_NO_ROWS.match(one.text) for one in statements)

    def _attempt(self, doing: str, action: Callable[[], None], *, check: bool = True) -> bool:
        self.progress(f"{doing} {self.migration.id}")
        try:
            action()
            broken = self.copy.integrity_error() if check else ""
        except PokerTherapistError as error:
            self.result.reasons.append(f"{doing} it failed: {error}")
            return False
        if broken:
            self.result.reasons.append(f"{doing} it damaged the database: {broken}")
        return not broken

    def _apply(self) -> None:
        start = time.perf_counter()
        with self.copy.backend() as backend:
            locks = self.copy.lock_report
            backend.apply_one(self.migration)
        self.result.locks.setdefault("apply", locks)
        self.result.seconds = self.result.seconds or time.perf_counter() - start

    def _roll_back(self) -> None:
        with self.copy.backend() as backend:
            self.result.locks["rollback"] = self.copy.lock_report
            backend.rollback_one(self.migration)

    def _judge(self) -> None:
        """Compare the state after rolling back with the state before applying."""
        schema = self._schema_differences()
        rows = self._row_differences()
        for side, table, count in self.copy.tables_on_one_side():
            if side is Side.BEFORE and table.lower() in self._made_before():
                continue
            rows_of = counted(count, f"row of {table} is", f"rows of {table} are")
            how = "missing" if side is Side.BEFORE else "left over"
            self.result.reasons.append(f"after rollback {rows_of} {how}")
        self.result.reasons += [str(part) for part in (*schema, *rows)]
        texts = self._texts_laid_out_differently()
        if schema or any(part.column is None for part in rows):
            self.result.verdict = Verdict.IRREVERSIBLE
        elif rows or texts:
            self.result.verdict = Verdict.SCHEMA_EXACT
            if texts:
                self.result.reasons.append(f"the SQL text of {', '.join(texts)} is formatted differently")
        else:
            self.result.verdict = Verdict.EXACT
        if self.result.verdict is not Verdict.IRREVERSIBLE and (reason := self._unjudged()):
            self.result.reasons.append(reason)
            self.result.verdict = Verdict.UNJUDGED

    def _schema_differences(self) -> list[Difference]:
        """Return how the schema differs from what it was before."""
        return self.copy.schema_differences()

    def _row_differences(self) -> list[RowDifference]:
        """Return how the rows differ from what they were before."""
        return self.copy.row_differences() if self._can_change_rows() else []

    def _texts_laid_out_differently(self) -> list[str]:
        """Return what has the same meaning as before and another SQL text."""
        return self.copy.texts_laid_out_differently()

    def _made_before(self) -> set[str]:
        """Return the tables that an earlier run may have made."""
        return set()

    def _unjudged(self) -> str:
        """Return what of the state before is not known; empty if it was kept."""
        return ""


class _StepsToFinish(_Steps):
    """The same for an interrupted migration: the schema before it is built again."""

    def __init__(
        self,
        copy: RehearsalCopy,
        migration: SQLMigration,
        progress: Callable[[str], None],
        files: Mapping[str, SQLMigration],
    ) -> None:
        super().__init__(copy, migration, progress)
        self.files = files
        self.unknown_because = ""
        self.changes_rows = any(effects(migration.statements("apply")))
        with copy.backend() as backend:
            self.is_in_copy = migration.id in backend.interrupted()

    def _schema_differences(self) -> list[Difference]:
        if not self.is_in_copy:
            return super()._schema_differences()
        with self.copy.backend() as backend:
            try:
                expected = backend.build(backend.history(self.files))
                found = differences(replace(expected, settings={}), backend.describe(expected))
            except PokerTherapistError as error:
                self.unknown_because = f"{error}"
                return []
            made = (self.migration.names_made() & backend.present().keys()) - expected.names()
        made -= {one.about.lower() for one in found}
        return found + [Difference(name, None, "present") for name in sorted(made)]

    def _row_differences(self) -> list[RowDifference]:
        return [] if self.is_in_copy and self.changes_rows else super()._row_differences()

    def _texts_laid_out_differently(self) -> list[str]:
        return [] if self.is_in_copy else super()._texts_laid_out_differently()

    def _made_before(self) -> set[str]:
        made = self.migration.names_made()
        return {name.removeprefix("table ") for name in made if name.startswith("table ")}

    def _unjudged(self) -> str:
        if not self.is_in_copy:
            return (
                "it was interrupted, which a scratch schema cannot reproduce: finishing it was not tried. "
                "Rehearse it while no other session is connected"
            )
        if self.unknown_because:
            return f"it was interrupted, and the schema before it cannot be built: {self.unknown_because}"
        if self.changes_rows:
            return (
                "it was interrupted, and what its first run did to rows is unknown: the rollback was checked "
                "for the schema, but not for the rows"
            )
        return ""
