"""The operator's tools for an SQLite file."""

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from poker_therapist.database import SQLiteLocation
from poker_therapist.migrations.files import SQLMigration
from poker_therapist.migrations.sqlite import backup, bench, restore
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
