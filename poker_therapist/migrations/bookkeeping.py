"""The bookkeeping tables: those of yoyo, and one with the texts of the applied migrations.

The order of application is that of yoyo's times; each is later than all before it, even if the clock steps
back. Records of plain yoyo or an earlier version may have equal times, or none: there the usual order counts.
"""

import getpass
import socket
import uuid
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence, Set
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from yoyo import internalmigrations
from yoyo.backends.base import DatabaseBackend

from poker_therapist.errors import MigrationError, PokerTherapistError, SchemaTooNew
from poker_therapist.migrations.files import KEPT_IN_DATABASE, AppliedRecord, Split, SQLMigration, split
from poker_therapist.migrations.order import ancestors, in_order, natural

BOOKKEEPING_SQL = Path(__file__).with_suffix(".sql")
_TICK = timedelta(microseconds=1)


class Bookkeeping(DatabaseBackend, ABC):
    """A backend of yoyo's that stores what it applies; an engine adds how to query its database."""

    location: Any  # each engine declares its kind
    split: Split = staticmethod(split)  # where a statement ends, to the engine
    # What was applied, and what interrupted, when it was chosen what to roll back.
    chosen_among: tuple[Collection[str], Collection[str]] | None = None
    unreadable = ""  # what this user has no permission to read
    _known: Sequence[SQLMigration] = ()  # all that were read, because a part of them may depend on another

    @property
    def name(self) -> str:
        """What an operator calls the database."""
        return str(self.location.name)

    @abstractmethod
    def exists(self) -> bool:
        """Return whether there is a database."""

    @abstractmethod
    def query(self, name: str, values: Sequence[Any] = ()) -> list[Any]:
        """Run one of our own queries and return its rows."""

    @abstractmethod
    def translate_error(self, error: Exception) -> PokerTherapistError | None:
        """Return our own error for one of the driver's; None if it is no error of the driver's."""

    def has_table(self, name: str) -> bool:
        """Return whether there is a table; an engine may have a cheaper way to ask for one than for all."""
        return name in self.list_tables()

    @contextmanager
    def one_transaction(self) -> Iterator[None]:
        """Hold the write lock for a block: all of it is committed, or nothing."""
        with self.translating_errors(), self.transaction():
            yield

    @contextmanager
    def migration_names(self) -> Iterator[None]:
        """Let statements of a block name tables as a migration does."""
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

    def applied(self) -> Mapping[str, str]:
        """Return what is applied: ids, and the times that yoyo recorded."""
        sql = self.format_sql(
            "SELECT {quoted.migration_id}, {quoted.applied_at_utc} FROM {0.migration_table_quoted}"
        )
        with self.translating_errors():
            if not self.exists() or not self.has_table(self.migration_table):
                return {}
            return {str(name): str(time) for name, time in self.execute(sql).fetchall()}

    def get_applied_migration_hashes(self) -> list[str]:
        """Return yoyo's hashes of the applied migrations, in the order of application."""
        with self.translating_errors():
            return super().get_applied_migration_hashes() if self.applied() else []

    def records(self) -> Mapping[str, AppliedRecord]:
        """Return what the database has kept of migrations, whether applied or interrupted."""
        with self.translating_errors():
            if not self.exists() or not self.has_table("_migration_text"):
                return {}
            kept = self.query("kept_texts", (self.migration_table,))
        return {name: AppliedRecord(*rest) for name, *rest in kept}

    def interrupted(self) -> set[str]:
        """Return the ids of those that were started and not finished, in either direction."""
        # An earlier version left a record of each hook.
        records = self.records().items()
        return {name for name, text in records if text.is_interrupted and not name.startswith("post-apply")}

    def kept_migrations(self) -> Sequence[SQLMigration]:
        """Return every migration that is applied, or was interrupted, from the texts in the database.

        Plain yoyo stores no texts. An app may use it in the same database.
        """
        applied = self.applied()
        return [
            SQLMigration(name, None, KEPT_IN_DATABASE, text.apply_sql or "", text.rollback_sql, self.split)
            for name, text in self.records().items()
            if text.is_interrupted or (name in applied and text.is_text_of(applied[name]))
        ]

    def require_known(self, chosen: Collection[SQLMigration], applied: Set[str]) -> None:
        """Raise SchemaTooNew if what is to be applied would come beside what is applied and has no file.

        That is, a later one of the same folder: one that depends on what has a file.
        """
        pending = [one.id for one in chosen if one.file is not None and not one.is_hook]
        files = {one.id for one in (*self._known, *chosen) if one.file is not None}
        if pending and (others := applied - files):
            kept = {one.id: one for one in self.kept_migrations()}
            unknown = [name for name in others & kept.keys() if ancestors(kept[name], kept) & files]
            if unknown:
                raise SchemaTooNew.beside(self.name, pending, sorted(unknown, key=natural))

    def history(self, files: Mapping[str, SQLMigration]) -> list[SQLMigration]:
        """Return our applied migrations: from their files, or from the stored texts."""
        known = {**{one.id: one for one in self.kept_migrations()}, **files}
        applied = self.applied()
        found = [known[name] for name in applied.keys() & known.keys()]
        return in_order(found, _by_time(applied, found))

    def adopted(self) -> Mapping[str, list[str]]:
        """Return the tables that each applied migration adopted."""
        found = dict[str, list[str]]()
        with self.translating_errors():
            if self.exists() and self.has_table("_migration_adopted"):
                for name, table in self.query("adopted_tables", (self.migration_table,)):
                    found.setdefault(str(name), []).append(str(table))
        return found

    def in_rollback_order(self, migrations: Iterable[SQLMigration]) -> list[SQLMigration]:
        """Return the applied and interrupted ones of some: interrupted first, then the last applied."""
        applied, interrupted = self.applied(), self.interrupted()
        self.chosen_among = (applied.keys(), interrupted)
        found = [one for one in migrations if one.id in applied or one.id in interrupted]
        time = _by_time(applied, found)
        return in_order(found, lambda name: (name in interrupted, time(name)))[::-1]

    def _prepare(self) -> None:
        """Create yoyo's tables and ours."""
        try:
            if internalmigrations.needs_upgrading(self):
                internalmigrations.upgrade(self)
        except (AssertionError, TypeError) as error:  # raised by yoyo for an unknown version
            raise MigrationError(
                f"{self.version_table} in {self.name} has no version that the installed yoyo knows: "
                "install the yoyo-migrations release that created it, or correct the table"
            ) from error
        self.query("create_texts")

    def _record(self, migration: SQLMigration, mark: bool = True, operation: str = "apply") -> None:
        if mark:
            values = {"migration_hash": migration.hash, "migration_id": migration.id}
            values["when"] = self._time_of(migration, operation)
            self.execute(self.format_sql(self.mark_migration_sql), values)
            if (applied_at := self.applied().get(migration.id)) is None:
                raise MigrationError(
                    f"{self.migration_table} has not stored {migration.id} as text: correct its columns",
                    migration_id=migration.id,
                )
            self._keep(migration, applied_at)
        self.log_migration(migration, operation)

    def _time_of(self, migration: SQLMigration, operation: str) -> datetime:
        """Return the time to record: now, or later, so that it is after all others.

        A marked migration is recorded before those that come after it: the time when it was applied is not
        known, and one is marked again when an edit of its file is accepted.
        """
        times = {name: _read_time(time) for name, time in self.applied().items()}
        known = [time for time in times.values() if time is not None]
        now = datetime.now(UTC).replace(tzinfo=None)
        with suppress(OverflowError):  # a file from elsewhere may record the end of all time
            if operation == "mark" and not migration.out_of_order:
                every = {one.id: one for one in (*self.kept_migrations(), *self._known, migration)}
                ids = [one.id for one in in_order(every.values())]
                after = [times.get(name) for name in ids[ids.index(migration.id) :]]
                if later := [time for time in after if time is not None]:
                    return min(later) - _TICK
            return max([now, *(time + _TICK for time in known)])
        return now

    def _unrecord(self, migration: SQLMigration, operation: str = "rollback") -> None:
        self.unmark_one(migration, log=False)
        self.query("drop_text", (self.migration_table, migration.id))
        if self.has_table("_migration_adopted"):
            self.query("drop_adopted", (self.migration_table, migration.id))
        self.log_migration(migration, operation)

    def _keep(self, one: SQLMigration, applied_at: str | None) -> None:
        texts = (one.checksum, one.apply_sql, one.rollback_sql)
        self.query("keep_text", (self.migration_table, one.id, applied_at, *texts))

    def _keep_adopted(self, migration: SQLMigration, tables: Iterable[str]) -> None:
        for table in tables:
            self.query("create_adopted")
            self.query("keep_adopted", (self.migration_table, migration.id, table))

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


def _by_time(applied: Mapping[str, str], migrations: Iterable[SQLMigration]) -> Callable[[str], Any]:
    """Return a key that sorts ids by when they were applied; by their names unless that is known of all."""
    times = {one.id: _read_time(applied[one.id]) for one in migrations if one.id in applied}
    if None in times.values():
        return natural
    return lambda name: (times.get(name) or datetime.max, natural(name))


def _read_time(text: str) -> datetime | None:
    try:
        time = datetime.fromisoformat(text)
        return time.astimezone(UTC).replace(tzinfo=None) if time.tzinfo else time
    except (ValueError, OverflowError):
        return None
