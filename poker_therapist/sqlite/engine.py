"""The tools of an operator for an SQLite file."""

import sqlite3
from collections.abc import Collection, Hashable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path

from poker_therapist.compat import override
from poker_therapist.location import SQLiteLocation
from poker_therapist.migrations.atomic import AtomicBackend
from poker_therapist.migrations.engine import BackupFile, Engine, Holding
from poker_therapist.migrations.files import SQLMigration
from poker_therapist.sqlite import backup, rehearsal, restore, transfer
from poker_therapist.sqlite.backend import AtomicSQLiteBackend
from poker_therapist.sqlite.connect import find_file, watched
from poker_therapist.sqlite.script import SQLiteScript
from poker_therapist.tables import StoredTable


@dataclass(frozen=True)
class SQLiteEngine(Engine):
    """The tools for one file."""

    location: SQLiteLocation

    @override
    def backend(self) -> AtomicSQLiteBackend:
        return AtomicSQLiteBackend(self.location)

    @override
    def script(self, backend: AtomicBackend) -> SQLiteScript:
        return SQLiteScript(backend)

    @override
    def limit(self, connection: sqlite3.Connection) -> None:
        watched(connection, self.location.path)

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
        backend = self.backend()
        if backend.exists():  # which refuses a path without its folder
            find_file(self.location.path, create=False)
        known = {one.id for one in backend.read(sources)}
        return backup.list_backups(self.location, known, backend.migration_table)

    @override
    def restore(self, file: Path, sources: Sequence[str], tables: Sequence[StoredTable]) -> Path | None:
        return restore.restore(self.location, file, sources, tables)

    @override
    def backups_holding(self, owner: int, tables: Sequence[StoredTable]) -> dict[Path, Holding]:
        left = dict.fromkeys(rehearsal.left_copies(self.location), Holding.LEFT)
        return backup.backups_holding(self.location, owner, tables) | left

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
