"""The operator's tools for an SQLite file."""

from collections.abc import Collection, Hashable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path

from poker_therapist.database import SQLiteLocation
from poker_therapist.migrations.copy import take_back
from poker_therapist.migrations.files import SQLMigration
from poker_therapist.migrations.sqlite import backup, bench, restore, transfer
from poker_therapist.migrations.sqlite.backend import AtomicSQLiteBackend


@dataclass(frozen=True)
class SQLiteEngine:
    """The tools for one file."""

    location: SQLiteLocation

    def backend(self) -> AtomicSQLiteBackend:
        """Return the backend; nothing is opened yet."""
        return AtomicSQLiteBackend(self.location)

    def bench(self, files: Mapping[str, SQLMigration]) -> AbstractContextManager[bench.SQLiteBench]:  # noqa: ARG002
        """Copy the database, to try migrations on."""
        return bench.bench(self.location)

    def save_backup(self, output: Path | None) -> Path:
        """Copy the database to a file while others use it, and return that file's path."""
        return backup.save_backup(self.location, output)

    def restore(self, file: Path) -> Path | None:
        """Put a backup in the place of the database; return the backup of what was replaced, if any."""
        return restore.restore(self.location, file)

    def backups_with_player(self, user_id: int) -> dict[Path, bool | None]:
        """Return the backups beside the file that still hold something about a player."""
        return backup.backups_with_player(self.location, user_id)

    def identity(self) -> Hashable:
        """Return which file it is, whatever links lead to it."""
        return transfer.identity(self.location)

    def reader(self) -> AbstractContextManager[transfer.SQLiteReader]:
        """Open the file to read all of it as of one moment; it is not written."""
        return transfer.reader(self.location)

    def writer(self) -> AbstractContextManager[transfer.SQLiteWriter]:
        """Open the file to fill it in one transaction, committed when the block ends well."""
        return transfer.writer(self.location)

    def unmake(self, before: Collection[str] | None) -> None:
        """Take away what we have made where nothing of ours was: the file, or what is ours in it."""
        if before is None:
            transfer.remove(self.location)
            return
        # What is taken back is empty, and the app's own rows beside it are not touched: no backup for that.
        with AtomicSQLiteBackend(replace(self.location, backups=0)) as backend:
            take_back(backend, before)
