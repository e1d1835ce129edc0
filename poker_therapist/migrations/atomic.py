"""A migration is applied completely or not at all: the part that all engines share.

yoyo runs a migration's statements on one connection and records it on another, under a lock that is a row of
a table. Here one transaction holds everything: the lock, the statements, yoyo's record and ours. If the
process is killed, the database rolls back what was not committed and releases the lock.
docs/migrations.md draws the order of events.
"""

import logging
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from itertools import islice
from typing import Any, Self

from yoyo.migrations import MigrationList

from poker_therapist.errors import (
    DatabaseFull,
    DatabaseNotFound,
    MigrationError,
    MigrationInterrupted,
    PokerTherapistError,
    counted,
    escaped,
)
from poker_therapist.location import command_about, require_own
from poker_therapist.migrations.bookkeeping import Bookkeeping
from poker_therapist.migrations.catalog import BOOKKEEPING, Catalog
from poker_therapist.migrations.files import (
    AppliedRecord,
    SQLMigration,
    Statement,
    out_of_order,
    read_migrations,
)
from poker_therapist.migrations.log import record_failure
from poker_therapist.migrations.meanwhile import require_consent, say_nothing_to_apply
from poker_therapist.migrations.order import ancestors, forks, in_order, late_comers, natural

logger = logging.getLogger("poker_therapist.migrations")

_MOST_ROWS, _WIDEST = 20, 60


class AtomicBackend(Bookkeeping, ABC):
    """A backend of yoyo's that changes a database only by whole migrations.

    An engine adds how to find, make and open its database, how to take its write lock, run a statement, check
    what a migration leaves behind and make a backup, and what its driver's errors mean.
    """

    has_transactional_ddl = True
    report: Callable[[str], None] = staticmethod(logger.info)  # to the operator; the yoyo command prints
    report_stopped: Callable[[str], None] = staticmethod(logger.warning)  # what a signal left
    shows_rows = False  # whether the rows that a migration selects are reported
    room: Callable[[], str] = staticmethod(str)  # returns the disk space that migrations need, if known
    sources: Sequence[str] = ()  # where the migrations were read
    allow_loss: Callable[..., None] | None = None  # may refuse to delete rows or values
    agreed: Any = None  # what it has allowed, an `Agreed`

    def __enter__(self) -> Self:
        """Return this; unlike yoyo, change nothing for other users of the driver in the process."""
        return self

    def tell_operator(self, message: str) -> None:
        """Report what was done; a failure to print it must not undo it."""
        with suppress(OSError, ValueError):  # a closed pipe, a console without the characters
            self.report(escaped(message, keeping="\n"))

    def show_rows(self, rows: Any) -> None:
        """Print the first rows that a statement returns, and read all: only the last one completes it."""
        columns = rows.description if self.shows_rows else None
        table = [[escaped(str(column[0])) for column in columns or ()]]
        for row in islice(rows, _MOST_ROWS if columns else 0):
            cells = ["NULL" if value is None else escaped(str(value)) for value in row]
            table.append([cell if len(cell) <= _WIDEST else f"{cell[: _WIDEST - 3]}..." for cell in cells])
        more = sum(1 for _ in rows)
        if not columns:
            return
        widths = [max(map(len, column)) for column in zip(*table, strict=True)]
        table.insert(1, ["-" * width for width in widths])
        for row in table:
            cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=True)]
            self.tell_operator(" | ".join(cells).rstrip())
        count = len(table) - 2 + more
        shown = f", the first {_MOST_ROWS} are shown" if more else ""
        self.tell_operator(f"({counted(count, 'row')}{shown})")

    @abstractmethod
    def create_database(self) -> None:
        """Create an empty database if there is none."""

    @abstractmethod
    def run(self, migration: SQLMigration, statement: Statement, direction: str) -> None:
        """Run one statement of a migration; raise MigrationFailed, naming its place, if it fails."""

    def backup_before(self, migration_id: str) -> str:
        """Return what an operator restores to undo a migration."""
        return f"a backup made before {migration_id}"

    def back_up(self, before: str) -> None:
        """Back up the database, once in a run, if it contains data and the engine makes such backups."""

    @contextmanager
    def migration_lock(self) -> Iterator[None]:
        """Exclude other migrations during a block, where the lock of a transaction is not enough."""
        yield

    def is_being_changed(self) -> bool:
        """Return whether a migration is running, as far as that can be seen."""
        return False

    @abstractmethod
    def describe(self, expected: Catalog) -> Catalog:
        """Return the part of the live schema that another one describes; the rest is the app's."""

    @abstractmethod
    def build(self, migrations: Iterable[SQLMigration]) -> Catalog:
        """Return the schema that migrations build, somewhere that no other session sees."""

    @abstractmethod
    def present(self) -> Mapping[str, str]:
        """Return the names of all objects, as in `Catalog.names`, and the SQL that drops each."""

    @abstractmethod
    @contextmanager
    def checked(self, migration: SQLMigration, direction: str) -> Iterator[None]:
        """Refuse a migration whose statements leave broken data."""

    def ensure_internal_schema_updated(self) -> None:
        """Write nothing: see `_prepare`."""

    def read(self, sources: Sequence[str], kept: Collection[SQLMigration] = ()) -> MigrationList:
        """Return the migrations of some folders, and the stored ones that have no file."""
        self.sources = sources
        found = read_migrations(sources, kept, self.split)
        require_own(self.location, (one.file.parent for one in found if one.file))
        self._known = list(found)
        return found

    def to_apply(self, migrations: MigrationList) -> MigrationList:
        """Return the pending migrations in order; interrupted ones that have files come first."""
        self._add_known(migrations)
        applied, interrupted = self.applied(), self.interrupted()
        pending = [one for one in migrations if one.id not in applied and one.file is not None]
        ordered = in_order(pending, lambda name: (name not in interrupted, natural(name)))
        return migrations.replace(ordered)

    def to_rollback(self, migrations: MigrationList) -> MigrationList:
        """Return the interrupted migrations, then the applied ones, the last first."""
        self._add_known(migrations)
        return migrations.replace(self.in_rollback_order(migrations))

    def to_rollback_to(self, migrations: MigrationList, name: str) -> MigrationList:
        """Return an applied or interrupted migration, and before it all that were applied after it."""
        found = self.in_rollback_order(migrations)
        ids = [one.id for one in found]
        return migrations.replace(found[: ids.index(name) + 1] if name in ids else [])

    def _add_known(self, migrations: Iterable[SQLMigration]) -> None:
        self._known = list({one.id: one for one in (*self._known, *migrations)}.values())

    def require_in_order(self, migrations: Collection[SQLMigration], *, again: bool = False) -> None:
        """Raise MigrationOutOfOrder if one of some is late, or one of a fork; SchemaTooNew beside unknown.

        Args:
            migrations: what is to be applied.
            again: it is applied already, and will be rolled back before.
        """
        ids = {one.id for one in migrations}
        applied = self.applied().keys() if ids else set()
        self.require_known(migrations, applied - ids if again else applied)
        done = applied | self.interrupted() if ids else set()
        done = done - ids if again else done
        for late, other in late_comers(self._known, done) if ids else ():
            if late.id in ids:
                how = "applied already" if other.id in applied else "interrupted"
                raise out_of_order(
                    self.location, late, f"{other.place()} comes after {late.place()} and is {how}"
                )
        for first, second in forks(self._known) if ids else ():
            if ids & {first.id, second.id}:
                why = (
                    f"{first.place()} and {second.place()} both depend on "
                    f"{', '.join(sorted(first.depends_on & second.depends_on))}"
                )
                raise out_of_order(self.location, second if second.id in ids else first, why)

    def how_to_finish(self, name: str) -> str:
        """Return what to do about a migration that was interrupted."""
        rollback = f"`{command_about(self.location, 'rollback', '--to', name)}`"
        if name in self.applied():
            return f"its rollback was interrupted; finish it with {rollback}"
        if all(one.file is None for one in self._known if one.id == name):
            return f"it was interrupted; roll it back with {rollback}, or restore its files"
        finish = f"`{command_about(self.location, 'apply', '--to', name)}`"
        return f"it was interrupted; finish it with {finish}, or roll it back with {rollback}"

    def _require_finished(self, migration: SQLMigration, direction: str) -> None:
        """Refuse to skip an interrupted migration, unless one of the two has to be done first."""
        interrupted = self.interrupted()
        if not interrupted or migration.id in interrupted:
            return
        known = {one.id: one for one in (*self.kept_migrations(), *self._known, migration)}
        for name in sorted(interrupted & known.keys(), key=natural):
            pair = (known[name], migration) if direction == "apply" else (migration, known[name])
            if pair[1].id not in ancestors(pair[0], known):
                raise MigrationInterrupted(
                    f"{migration.id} cannot run before {escaped(name)}: {self.how_to_finish(name)}",
                    migration_id=name,
                )

    def require_unedited(self, migrations: Sequence[SQLMigration]) -> None:
        """Raise MigrationEdited for the first whose files differ from what was applied."""
        applied, kept = self.applied(), self.records()
        for one in migrations:
            text = kept.get(one.id) if one.file is not None and one.id in applied else None
            if text and text.applied_at == applied[one.id]:
                self.require_text(one, text)

    def require_text(self, one: SQLMigration, kept: AppliedRecord) -> None:
        """Raise MigrationEdited if the files of a migration differ from its record."""
        if kept.checksum is not None:
            match, folders = ("-m", f"^{re.escape(one.id)}$"), self.location.sources or self.sources
            ways = (
                command_about(self.location, word, *match, sources=folders) for word in ("unmark", "mark")
            )
            accept = " and then ".join(f"`{way}`" for way in ways)
            one.require_unedited(kept.checksum, kept.apply_sql or "", kept.rollback_sql or "", accept)

    def tell_of_missing_files(self) -> None:
        """Report each applied migration that has no file and was read from the database."""
        interrupted = self.interrupted()
        for one in self._known:
            if one.file is None and one.id not in interrupted:
                self.tell_operator(
                    f"{one.id} is applied, but has no file here: the database may be newer than the code"
                )

    def apply_migrations(self, migrations: MigrationList, force: bool = False) -> None:
        """Apply some migrations, one after the other; the first that fails ends the run."""
        _refuse_force(force)
        self.require_unedited(self._known)
        self.require_in_order(migrations)
        if not migrations:
            say_nothing_to_apply(self, self._known)
        super().apply_migrations(migrations)

    def apply_migrations_only(self, migrations: MigrationList, force: bool = False) -> None:
        """Apply some migrations, without the hooks that follow them."""
        _refuse_force(force)
        self._in_turn(self.apply_one, migrations, "applied")

    def roll_back_all(self, sources: Sequence[str], keep: Collection[str] = ()) -> None:
        """Roll back every migration of some folders, and drop the bookkeeping tables but those to keep."""
        found = self.to_rollback(self.read(sources))
        for one in [each for each in found if each.id in self.interrupted()]:
            with suppress(MigrationError):  # its remains are dropped with the tables
                self.rollback_one(one)
            with self.one_transaction():
                self.query("drop_text", (self.migration_table, one.id))
        self.rollback_migrations(self.to_rollback(found))
        with self.one_transaction():
            for table in self.list_tables():
                if table.startswith(BOOKKEEPING) and not table.startswith("sqlite_") and table not in keep:
                    self.execute(f"DROP TABLE {self.quote_identifier(table)}")

    def rollback_migrations(self, migrations: MigrationList, force: bool = False) -> None:
        """Roll back some migrations, one after the other; the first that fails ends the run."""
        _refuse_force(force)
        if not self.exists():
            raise DatabaseNotFound(f"there is no database {self.name}: correct the path")
        self.require_unedited(migrations)
        self._require_way_back(migrations)
        if migrations or self.is_being_changed():
            require_consent(self, migrations)
        if not migrations:
            self.tell_operator("nothing to roll back")
        self._in_turn(self.rollback_one, migrations, "rolled back")

    def _in_turn(self, do: Callable[[SQLMigration], None], migrations: MigrationList, done: str) -> None:
        """Do something with each migration; if the disk is full, report which were done before."""
        for number, migration in enumerate(migrations):
            try:
                do(migration)
            except BaseException as error:
                record_failure(self, migration, "apply" if done == "applied" else "rollback", error)
                if not isinstance(error, PokerTherapistError):
                    raise
                cause = error.__cause__ if isinstance(error.__cause__, Exception) else error
                if not isinstance(self.translate_error(cause) or error, DatabaseFull):
                    raise
                ids = [one.id for one in migrations]
                raise error.left_undone(done, ids[:number], ids[number:], self.room()) from cause

    def apply_one(self, migration: SQLMigration, force: bool = False, mark: bool = True) -> None:
        """Apply one migration, unless a concurrent process has done so."""
        _refuse_force(force)
        statements = migration.statements("apply")
        if mark:
            migration.statements("rollback")  # what cannot be rolled back is not applied
        self.create_database()
        with self.translating_errors(), self.migration_lock():
            done = self._apply_locked(migration, statements, mark)
            self.tell_operator(f"{'' if done else 'a concurrent process has '}applied {migration.id}")

    def _apply_locked(self, migration: SQLMigration, statements: list[Statement], mark: bool) -> bool:
        with self.one_transaction():
            applied = self.applied()
            if mark and migration.id in applied:
                return False
            if mark:
                self._require_finished(migration, "apply")
            if missing := sorted(migration.depends_on - applied.keys()):
                raise MigrationError(
                    f"{migration.id} depends on {', '.join(missing)}, which is not applied: apply it first",
                    migration_id=migration.id,
                )
            self.back_up(f"apply-{migration.id}")
            self._prepare()
            # An interrupted migration may have created these tables itself.
            found = [] if migration.id in self.interrupted() else self._found_tables(migration)
            if migration.use_transactions:
                self._run(migration, statements, "apply")
                self._record(migration, mark)
            elif mark:
                self._keep(migration, None)
            if mark:
                self._keep_adopted(migration, found)
        if not migration.use_transactions:
            self._run_unprotected(migration, statements, "apply")
            with self.one_transaction():
                if migration.id not in self.applied():
                    self._record(migration, mark)
        return True

    def rollback_one(self, migration: SQLMigration, force: bool = False) -> None:
        """Roll one migration back, unless a concurrent process has done so."""
        _refuse_force(force)
        self._require_way_back([migration])
        statements = migration.statements("rollback")
        if migration.file is None:
            self.tell_operator(f"{migration.id} has no file here: the rollback script in the database is run")
        with self.translating_errors(), self.migration_lock():
            done = self._roll_back_locked(migration, statements)
            self.tell_operator(f"rolled back {migration.id}" if done else f"{migration.id} is not applied")

    def _roll_back_locked(self, migration: SQLMigration, statements: list[Statement]) -> bool:
        with self.one_transaction():
            applied = self.applied().keys() | self.interrupted()
            if migration.id not in applied:
                return False
            self._require_finished(migration, "rollback")
            dependents = [
                escaped(other.id)
                for other in (*self.kept_migrations(), *self._known)
                if migration.id in other.depends_on and other.id in applied
            ]
            if dependents:
                raise MigrationError(
                    f"{', '.join(sorted(set(dependents)))} depends on {migration.id}: roll back both "
                    f"with `{command_about(self.location, 'rollback', '--to', migration.id)}`",
                    migration_id=migration.id,
                )
            self.back_up(f"rollback-{migration.id}")
            self._prepare()
            if migration.is_transactional("rollback"):
                from poker_therapist.migrations.measure import measured  # applying needs none of it

                with measured(self, migration, statements):
                    self._run(migration, statements, "rollback")
                self._unrecord(migration)
            else:
                self._keep(migration, None)
        if not migration.is_transactional("rollback"):
            self._run_unprotected(migration, statements, "rollback")
            with self.one_transaction():
                self._unrecord(migration)
        return True

    def _run(self, migration: SQLMigration, statements: list[Statement], direction: str) -> None:
        before = self.present()
        with self.checked(migration, direction):
            for statement in statements:
                self.run(migration, statement, direction)
        if gone := {name: before[name] for name in before.keys() - self.present().keys()}:
            self._require_ours(migration, direction, gone)

    def _found_tables(self, migration: SQLMigration) -> list[str]:
        """Return the existing tables that a migration would create; refuse those with other columns."""
        made = migration.names_made(unless_there=True)
        present = self.present() if made else {}
        found = [name[6:] for name in sorted(made & present.keys()) if name.startswith("table ")]
        wanted = self.build([*self.history({}), migration]).names() if found else set()
        for table in found:
            columns = {name for name in wanted if name.startswith(f"column {table}.")}
            if lacking := sorted(columns - present.keys()):
                why = f"a table {table} exists that is not ours (it has no {', '.join(lacking)})"
                raise migration.failure("apply", f"{why}: rename it, or use another database")
        return found

    def _require_ours(self, migration: SQLMigration, direction: str, gone: dict[str, str]) -> None:
        """Refuse to drop what no applied migration created."""
        history = self.history({one.id: one for one in (*self._known, migration)})
        # Also of one that is not applied: it may have been interrupted.
        made = {name for one in (*history, *self._known) for name in one.names_made()}
        of_tables = tuple(f"{name.replace('table ', 'column ', 1)}." for name in gone)
        lost = sorted(name for name in gone.keys() - made if not name.startswith(of_tables))
        if lost:  # a column, or what has another name since
            with suppress(PokerTherapistError), self.translating_errors():
                built = self.build(history).names()
                lost = [name for name in lost if name not in built]
        if lost:
            lost.sort(key=lambda name: name.startswith("column "))  # after what is made of it
            which, by_hand = escaped(", ".join(lost)), escaped(" ".join(gone[name] for name in lost))
            why = f"this would drop {which}, which no migration created: to allow that, drop"
            raise migration.failure(direction, f"{why} it yourself ({by_hand}), and run the command again")

    def _require_way_back(self, migrations: Iterable[SQLMigration]) -> None:
        adopted = self.adopted()
        for migration in migrations:
            if migration.id in adopted:
                found, backup = ", ".join(adopted[migration.id]), self.backup_before(migration.id)
                raise MigrationError(
                    f"{migration.id} adopted {found} in {self.name}, and its rollback would drop what was "
                    f"there before: restore {backup}",
                    migration_id=migration.id,
                )

    def _run_unprotected(self, migration: SQLMigration, statements: list[Statement], direction: str) -> None:
        """Run statements outside a transaction, one after the other."""
        for statement in statements:
            try:
                self.run(migration, statement, direction)
            except MigrationError as error:
                raise MigrationError(
                    f"{error}\n{migration.id} declares `-- transactional: false`: its statements before line "
                    f"{statement.line} were executed. Correct it and run the same command again; "
                    "it starts at the first statement",
                    migration_id=migration.id,
                    file=error.file,
                    line=error.line,
                ) from error


def _refuse_force(force: bool) -> None:
    if force:
        raise MigrationError("--force would keep a partly applied migration: correct the error instead")
