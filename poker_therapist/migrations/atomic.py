"""A migration is applied whole or not at all: what all engines share.

yoyo runs a migration's statements on one connection and records it on another, under a lock that is a row of
a table. Here one transaction holds everything: the lock, the statements, yoyo's record and ours. Whatever
kills the process, the database undoes what was not committed and nobody holds a lock any more.
docs/MIGRATIONS.md draws the order of events.
"""

import getpass
import logging
import socket
import uuid
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

from yoyo import internalmigrations
from yoyo.backends.base import DatabaseBackend
from yoyo.migrations import MigrationList

from poker_therapist.errors import (
    DatabaseFull,
    DatabaseNotFound,
    MigrationError,
    PokerTherapistError,
    escaped,
)
from poker_therapist.location import command_about, require_own
from poker_therapist.migrations.catalog import BOOKKEEPING, Catalog
from poker_therapist.migrations.files import (
    KEPT_IN_DATABASE,
    AppliedRecord,
    Split,
    SQLMigration,
    Statement,
    read_migrations,
    split,
)
from poker_therapist.migrations.log import record_failure
from poker_therapist.migrations.loss import rows_lost

logger = logging.getLogger("poker_therapist.migrations")

BOOKKEEPING_SQL = Path(__file__).with_name("bookkeeping.sql")


class AtomicBackend(DatabaseBackend, ABC):
    """A backend of yoyo's that changes a database only by whole migrations.

    An engine adds how to find, make and open its database, how to take its write lock, run a statement, check
    what a migration leaves behind and make a backup, and what its driver's errors mean.
    """

    has_transactional_ddl = True
    location: Any  # each engine says of which kind
    split: Split = staticmethod(split)  # where a statement ends, to the engine
    report: Callable[[str], None] = staticmethod(logger.info)  # tells the operator; the yoyo command prints
    room: Callable[[], str] = staticmethod(str)  # returns how much room migrations need, if that is known
    sources: Sequence[str] = ()  # where the migrations were read
    allow_loss: Callable[[dict[str, int], str], None] | None = None  # may refuse what deletes rows
    _known: Sequence[SQLMigration] = ()  # all that yoyo has read, for a part of them may rest on another

    def __enter__(self) -> Self:
        """Return this; unlike yoyo, change nothing for other users of the driver in the process."""
        return self

    def tell_operator(self, message: str) -> None:
        """Report what was done; that nobody can be told must not undo it."""
        with suppress(OSError, ValueError):  # a closed pipe, a console that has not the characters
            self.report(escaped(message, keeping="\n"))

    @property
    def name(self) -> str:
        """What an operator calls the database."""
        return str(self.location.name)

    @abstractmethod
    def exists(self) -> bool:
        """Return whether there is a database."""

    @abstractmethod
    def create_database(self) -> None:
        """Create an empty database if there is none."""

    @abstractmethod
    def query(self, name: str, values: Sequence[Any] = ()) -> list[Any]:
        """Run one of our own queries and return its rows."""

    @abstractmethod
    def run(self, migration: SQLMigration, statement: Statement, direction: str) -> None:
        """Run one statement of a migration; raise MigrationFailed, naming its place, if it fails."""

    @abstractmethod
    def translate_error(self, error: Exception) -> PokerTherapistError | None:
        """Return our own error for one of the driver's; None if it is no error of the driver's."""

    def backup_before(self, migration_id: str) -> str:
        """Return what an operator restores to go back to before a migration."""
        return f"a backup from before {migration_id}"

    def back_up(self, before: str) -> None:
        """Back the database up, once in a run, if it holds data and the engine makes backups of its own."""

    @contextmanager
    def migration_lock(self) -> Iterator[None]:
        """Keep other migrations away for a block, where the lock of a transaction is not enough."""
        yield

    def is_being_changed(self) -> bool:
        """Return whether somebody migrates right now, where that can be seen."""
        return False

    @abstractmethod
    def describe(self, expected: Catalog) -> Catalog:
        """Return the part of the live schema that another is about; the rest of it is the app's."""

    @abstractmethod
    def build(self, migrations: Iterable[SQLMigration]) -> Catalog:
        """Return the schema that migrations build, somewhere that nobody sees."""

    @abstractmethod
    def present(self) -> dict[str, str]:
        """Return what there is, named as `Catalog.names` does, and the SQL that drops each."""

    @abstractmethod
    @contextmanager
    def checked(self, migration: SQLMigration, direction: str) -> Iterator[None]:
        """Refuse what a migration's statements leave broken."""

    def ensure_internal_schema_updated(self) -> None:
        """Write nothing: see `_prepare`."""

    def read(self, sources: Sequence[str], kept: Collection[SQLMigration] = ()) -> MigrationList:
        """Return the migrations of some folders, and those that were kept and have no file."""
        self.sources = sources
        found = read_migrations(sources, kept, self.split)
        require_own(self.location, (one.file.parent for one in found if one.file))
        return found

    def applied(self) -> dict[str, str]:
        """Return what is applied: ids, and the times that yoyo recorded."""
        sql = self.format_sql(
            "SELECT {quoted.migration_id}, {quoted.applied_at_utc} FROM {0.migration_table_quoted}"
        )
        with self.translating_errors():
            if not self.exists() or self.migration_table not in self.list_tables():
                return {}
            return {str(name): str(time) for name, time in self.execute(sql).fetchall()}

    def records(self) -> dict[str, AppliedRecord]:
        """Return what the database has kept of migrations, whether applied or interrupted."""
        with self.translating_errors():
            if not self.exists() or "_migration_text" not in self.list_tables():
                return {}
            kept = self.query("kept_texts", (self.migration_table,))
        return {name: AppliedRecord(*rest) for name, *rest in kept}

    def kept_migrations(self) -> list[SQLMigration]:
        """Return every applied migration as the database has kept it.

        Plain yoyo keeps nothing of what it applies. That may be an app's that uses yoyo in the same database.
        """
        kept = self.records()
        return [
            SQLMigration(
                name, None, KEPT_IN_DATABASE, kept[name].apply_sql or "", kept[name].rollback_sql, self.split
            )
            for name, applied_at in self.applied().items()
            if name in kept and kept[name].is_text_of(applied_at)
        ]

    def history(self, files: Mapping[str, SQLMigration]) -> list[SQLMigration]:
        """Return what is applied of ours, in order: its files, and the kept text of what has none."""
        known = {**{one.id: one for one in self.kept_migrations()}, **files}
        return [known[name] for name in sorted(self.applied().keys() & known.keys())]

    def get_applied_migration_hashes(self) -> list[str]:
        """Return yoyo's hashes of what is applied, in the order in which it was."""
        with self.translating_errors():
            return super().get_applied_migration_hashes() if self.applied() else []

    def to_apply(self, migrations: MigrationList) -> MigrationList:
        """Return what is not applied, in the order of its dependencies."""
        self._known = list(migrations)
        return super().to_apply(migrations)

    def to_rollback(self, migrations: MigrationList) -> MigrationList:
        """Return what is applied, in the order in which it can be rolled back."""
        self._known = list(migrations)
        return super().to_rollback(migrations)

    def require_unedited(self, migrations: Sequence[SQLMigration]) -> None:
        """Raise MigrationEdited for the first whose files are not what was applied."""
        applied, kept = self.applied(), self.records()
        for one in migrations:
            text = kept.get(one.id) if one.file is not None and one.id in applied else None
            if text and text.applied_at == applied[one.id]:
                self.require_text(one, text)

    def require_text(self, one: SQLMigration, kept: AppliedRecord) -> None:
        """Raise MigrationEdited if the files of a migration are not what was kept of it."""
        if kept.checksum is not None:
            words = (("unmark", "-m", f"^{one.id}$"), ("mark", "-m", f"^{one.id}$"))
            ways = (f"`{command_about(self.location, *way, sources=self.sources)}`" for way in words)
            one.require_unedited(
                kept.checksum, kept.apply_sql or "", kept.rollback_sql or "", " and then ".join(ways)
            )

    def apply_migrations(self, migrations: MigrationList, force: bool = False) -> None:
        """Apply some migrations, each by itself; the first that fails ends the run."""
        _refuse_force(force)
        self.require_unedited(self._known)
        if not migrations:
            self.tell_operator("nothing to apply: the database is up to date")
        super().apply_migrations(migrations)

    def apply_migrations_only(self, migrations: MigrationList, force: bool = False) -> None:
        """Apply some migrations, without the hooks that follow them."""
        _refuse_force(force)
        self._in_turn(self.apply_one, migrations, "applied")

    def roll_back_all(self, sources: Sequence[str], keep: Collection[str] = ()) -> None:
        """Roll back every migration of some folders, and drop the bookkeeping tables but those to keep."""
        self.rollback_migrations(self.to_rollback(self.read(sources)))
        with self.one_transaction():
            for table in self.list_tables():
                if table.startswith(BOOKKEEPING) and not table.startswith("sqlite_") and table not in keep:
                    self.execute(f"DROP TABLE {self.quote_identifier(table)}")

    def rollback_migrations(self, migrations: MigrationList, force: bool = False) -> None:
        """Roll some migrations back, each by itself; the first that fails ends the run."""
        _refuse_force(force)
        if not self.exists():
            raise DatabaseNotFound(f"there is no database {self.name}: correct the path")
        self.require_unedited(migrations)
        self._require_way_back(migrations)
        if self.allow_loss and (rows := rows_lost(self, migrations)):
            self.allow_loss(rows, migrations[-1].id)
        if not migrations:
            self.tell_operator("nothing to roll back")
        self._in_turn(self.rollback_one, migrations, "rolled back")

    def _in_turn(self, do: Callable[[SQLMigration], None], migrations: MigrationList, done: str) -> None:
        """Do something with each migration; where one finds no room, say which were done before."""
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
        """Apply one migration, unless another process has done so meanwhile."""
        _refuse_force(force)
        statements = migration.statements("apply")
        if mark:
            migration.statements("rollback")  # what cannot be rolled back is not applied
        self.create_database()
        with self.translating_errors(), self.migration_lock():
            if self._apply_locked(migration, statements, mark):
                self.tell_operator(f"applied {migration.id}")

    def _apply_locked(self, migration: SQLMigration, statements: list[Statement], mark: bool) -> bool:
        with self.one_transaction():
            applied = self.applied()
            if mark and migration.id in applied:
                return False
            if missing := sorted(migration.depends_on - applied.keys()):
                raise MigrationError(
                    f"{migration.id} depends on {', '.join(missing)}, which is not applied: apply that first",
                    migration_id=migration.id,
                )
            self.back_up(f"apply-{migration.id}")
            self._prepare()
            adopted = self._found_tables(migration)
            if migration.use_transactions:
                self._run(migration, statements, "apply")
                self._record(migration, mark)
                for name in adopted if mark else ():
                    self.query("create_adopted")
                    self.query("keep_adopted", (self.migration_table, migration.id, name))
            else:
                self._keep(migration, None)
        if not migration.use_transactions:
            self._run_unprotected(migration, statements, "apply")
            with self.one_transaction():
                if migration.id not in self.applied():
                    self._record(migration, mark)
        return True

    def rollback_one(self, migration: SQLMigration, force: bool = False) -> None:
        """Roll one migration back, unless another process has done so meanwhile."""
        _refuse_force(force)
        self._require_way_back([migration])
        statements = migration.statements("rollback")
        if migration.file is None:
            self.tell_operator(f"{migration.id} has no file here: what the database keeps of it is run")
        with self.translating_errors(), self.migration_lock():
            if self._roll_back_locked(migration, statements):
                self.tell_operator(f"rolled back {migration.id}")

    def _roll_back_locked(self, migration: SQLMigration, statements: list[Statement]) -> bool:
        with self.one_transaction():
            applied = self.applied()
            if migration.id not in applied:
                return False
            dependents = [
                escaped(other.id)
                for other in (*self.kept_migrations(), *self._known)
                if migration.id in other.depends_on and other.id in applied
            ]
            if dependents:
                raise MigrationError(
                    f"{', '.join(sorted(set(dependents)))} depends on {migration.id}: roll that back first, "
                    f"or both with `{command_about(self.location, 'rollback', '--to', migration.id)}`",
                    migration_id=migration.id,
                )
            self.back_up(f"rollback-{migration.id}")
            self._prepare()
            if migration.use_transactions:
                self._run(migration, statements, "rollback")
                self._unrecord(migration)
            else:
                self._keep(migration, None)
        if not migration.use_transactions:
            self._run_unprotected(migration, statements, "rollback")
            with self.one_transaction():
                self._unrecord(migration)
        return True

    @contextmanager
    def one_transaction(self) -> Iterator[None]:
        """Hold the write lock for a block: all of it is committed, or nothing."""
        with self.translating_errors(), self.transaction():
            yield

    @contextmanager
    def translating_errors(self) -> Iterator[None]:
        """Turn the driver's errors into our own."""
        try:
            yield
        except Exception as error:
            if ours := self.translate_error(error):
                raise ours from error
            raise

    def _prepare(self) -> None:
        """Create yoyo's tables and ours."""
        if internalmigrations.needs_upgrading(self):
            internalmigrations.upgrade(self)
        self.query("create_texts")

    def _run(self, migration: SQLMigration, statements: list[Statement], direction: str) -> None:
        before = self.present()
        with self.checked(migration, direction):
            for statement in statements:
                self.run(migration, statement, direction)
        now = self.present()
        if gone := {name: dropping for name, dropping in before.items() if name not in now}:
            self._require_ours(migration, direction, gone)

    def _found_tables(self, migration: SQLMigration) -> list[str]:
        """Return the tables that a migration makes unless they are there; refuse those of another shape."""
        present = self.present()
        there = sorted(migration.names_made(unless_there=True) & present.keys())
        found = [name.removeprefix("table ") for name in there if name.startswith("table ")]
        wanted = self.build([*self.history({}), migration]).names() if found else set()
        for table in found:
            columns = {name for name in wanted if name.startswith(f"column {table}.")}
            if lacking := sorted(columns - present.keys()):
                why = f"a table {table} is there that is not ours (it has no {', '.join(lacking)})"
                raise migration.failure("apply", f"{why}: rename it, or use another database")
        return found

    def _require_ours(self, migration: SQLMigration, direction: str, gone: dict[str, str]) -> None:
        """Refuse to take away what no applied migration has made."""
        history = self.history({one.id: one for one in (*self._known, migration)})
        # Also of one that is not applied: it may have been interrupted.
        made = {name for one in (*history, *self._known) for name in one.names_made()}
        if gone.keys() - made:  # a column, or what has another name since
            with suppress(PokerTherapistError), self.translating_errors():
                made |= self.build(history).names()
        of_tables = tuple(f"{name.replace('table ', 'column ', 1)}." for name in gone)
        if lost := sorted(name for name in gone.keys() - made if not name.startswith(of_tables)):
            lost.sort(key=lambda name: name.startswith("column "))  # after what is made of it
            which, by_hand = escaped(", ".join(lost)), escaped(" ".join(gone[name] for name in lost))
            why = f"this would take away {which}, which no migration has made: if it may go, drop"
            raise migration.failure(direction, f"{why} it yourself ({by_hand}), then run the command again")

    def adopted(self) -> dict[str, list[str]]:
        """Return the tables that each applied migration has found and not made."""
        found = dict[str, list[str]]()
        with self.translating_errors():
            if self.exists() and "_migration_adopted" in self.list_tables():
                for name, table in self.query("adopted_tables", (self.migration_table,)):
                    found.setdefault(name, []).append(table)
        return found

    def _require_way_back(self, migrations: Iterable[SQLMigration]) -> None:
        adopted = self.adopted()
        for migration in migrations:
            if migration.id in adopted:
                found, backup = ", ".join(adopted[migration.id]), self.backup_before(migration.id)
                raise MigrationError(
                    f"{migration.id} found {found} in {self.name}, and its rollback would delete what was "
                    f"there before: restore {backup}",
                    migration_id=migration.id,
                )

    def _run_unprotected(self, migration: SQLMigration, statements: list[Statement], direction: str) -> None:
        """Run statements that no transaction may hold, each by itself."""
        for statement in statements:
            try:
                self.run(migration, statement, direction)
            except MigrationError as error:
                raise MigrationError(
                    f"{error}\n{migration.id} says `-- transactional: false`: what stands before line "
                    f"{statement.line} has been done. Correct it and run the same command again; "
                    "it starts from the first statement",
                    migration_id=migration.id,
                    file=error.file,
                    line=error.line,
                ) from error

    def _record(self, migration: SQLMigration, mark: bool = True, operation: str = "apply") -> None:
        if mark:
            self.mark_one(migration, log=False)
            self._keep(migration, self.applied()[migration.id])
        self.log_migration(migration, operation)

    def _unrecord(self, migration: SQLMigration, operation: str = "rollback") -> None:
        self.unmark_one(migration, log=False)
        self.query("drop_text", (self.migration_table, migration.id))
        if "_migration_adopted" in self.list_tables():
            self.query("drop_adopted", (self.migration_table, migration.id))
        self.log_migration(migration, operation)

    def _keep(self, one: SQLMigration, applied_at: str | None) -> None:
        texts = (one.checksum, one.apply_sql, one.rollback_sql)
        self.query("keep_text", (self.migration_table, one.id, applied_at, *texts))

    def get_log_data(self, migration: Any = None, operation: str = "apply") -> dict[str, Any]:
        """Return a row of yoyo's log, also where the user has no name and the host no domain."""
        user = "unknown"  # in a container without a passwd entry, a service of Windows
        with suppress(KeyError, OSError, ImportError):
            user = getpass.getuser()
        return {
            "id": str(uuid.uuid1()),
            "migration_id": migration and migration.id,
            "migration_hash": migration and migration.hash,
            "username": user,
            "hostname": socket.gethostname(),
            "created_at_utc": datetime.now(UTC).replace(tzinfo=None),
            "operation": operation,
        }


def _refuse_force(force: bool) -> None:
    if force:
        raise MigrationError("--force would keep half of a migration: correct what fails instead")
