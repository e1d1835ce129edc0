"""The tools of an operator for an SQLite file."""

from collections.abc import Collection, Hashable, Mapping, Sequence
from contextlib import AbstractContextManager, closing
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

from poker_therapist.compat import override
from poker_therapist.errors import StorageError
from poker_therapist.location import SQLiteLocation
from poker_therapist.migrations.engine import BackupFile, Engine, Holding
from poker_therapist.migrations.files import SQLMigration
from poker_therapist.sqlite import backup, rehearsal, restore, transfer
from poker_therapist.sqlite.backend import AtomicSQLiteBackend
from poker_therapist.sqlite.connect import integrity_error, translating_errors
from poker_therapist.tables import StoredTable


@dataclass(frozen=True)
class SQLiteEngine(Engine):
    """The tools for one file."""

    location: SQLiteLocation

    @override
    def backend(self) -> AtomicSQLiteBackend:
        return AtomicSQLiteBackend(self.location)

    @override
    def rehearsal_copy(
        self, files: Mapping[str, SQLMigration]
    ) -> AbstractContextManager[rehearsal.SQLiteRehearsalCopy]:
        return rehearsal.rehearsal_copy(self.location)

    @override
    def save_backup(self, output: Path | None, sources: Sequence[str]) -> Path:
        return backup.save_backup(self.location, output)

    @override
    def list_backups(self, sources: Sequence[str]) -> list[BackupFile]:
        found = (one for one in backup.found_backups(self.location) if not one.unfinished)
        return [self._look_into(one, sources) for one in found]

    def _look_into(self, one: backup.FoundBackup, sources: Sequence[str]) -> BackupFile:
        version = problem = ""
        location = replace(self.location, path=one.path)
        try:
            with translating_errors(location), closing(backup.read_only(one.path)) as copy:
                if damage := integrity_error(copy):
                    problem = f"{one.path} is damaged ({damage})"
            if not problem:
                with AtomicSQLiteBackend(location) as backend:
                    ours = {migration.id for migration in backend.read(sources)}
                    version = max(ours & backend.applied().keys(), default="")
        except StorageError as error:
            problem = str(error)
        made = str(datetime.strptime(one.made, "%Y%m%dT%H%M%S.%fZ"))  # UTC, as the name says
        return BackupFile(one.path, made[:19], one.path.stat().st_size, one.before, version, problem)

    @override
    def restore(self, file: Path, sources: Sequence[str], tables: Sequence[StoredTable]) -> Path | None:
        return restore.restore(self.location, file, sources, tables)

    @override
    def backups_holding(self, owner: int, tables: Sequence[StoredTable]) -> dict[Path, Holding]:
        # What killed commands have left holds players' rows as well.
        backup.remove_unfinished(self.location)
        rehearsal.remove_left(self.location)
        return backup.backups_holding(self.location, owner, tables)

    @override
    def identity(self) -> Hashable:
        return transfer.identity(self.location)

    @override
    def reader(self) -> AbstractContextManager[transfer.SQLiteReader]:
        return transfer.reader(self.location)

    @override
    def writer(self, tables: Sequence[StoredTable]) -> AbstractContextManager[transfer.SQLiteWriter]:
        return transfer.writer(self.location)

    @override
    def drop_created(self, before: Collection[str] | None, sources: Sequence[str]) -> None:
        if before is None:
            transfer.remove(self.location)
            return
        # What is rolled back is empty, and the app's own rows beside it are not touched: no backup for that.
        with AtomicSQLiteBackend(replace(self.location, backups=0)) as backend:
            backend.roll_back_all(sources, keep=before)
