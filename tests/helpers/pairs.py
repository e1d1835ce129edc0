"""Pairs of migration files of a test's own, applied and rolled back in this process on either engine."""

from pathlib import Path

from yoyo import default_migration_table

from poker_therapist.location import SQLiteLocation, locate
from poker_therapist.migrations.atomic import AtomicBackend
from poker_therapist.postgresql.backend import AtomicPostgreSQLBackend
from poker_therapist.sqlite.backend import AtomicSQLiteBackend


class Pairs:
    """A folder of pairs, and the table in which yoyo records them."""

    def __init__(self, folder: Path, database: str, table: str = default_migration_table) -> None:
        folder.mkdir()
        self.folder = folder
        self.location = locate(database)
        self.table = table

    def write(self, name: str, apply: str, rollback: str = "SELECT 1;") -> None:
        """Write a pair."""
        (self.folder / f"{name}.sql").write_text(apply, encoding="utf-8")
        (self.folder / f"{name}.rollback.sql").write_text(rollback, encoding="utf-8")

    def backend(self) -> AtomicBackend:
        """Return a new backend of the database."""
        if isinstance(self.location, SQLiteLocation):
            return AtomicSQLiteBackend(self.location, self.table)
        return AtomicPostgreSQLBackend(self.location, self.table)

    def apply(self) -> list[str]:
        """Apply what is pending; return what the operator is told."""
        told: list[str] = []
        with self.backend() as backend:
            backend.report = told.append
            backend.apply_migrations(backend.to_apply(backend.read([str(self.folder)])))
        return told

    def roll_back(self) -> list[str]:
        """Roll everything back; return what the operator is told."""
        told: list[str] = []
        with self.backend() as backend:
            backend.report = told.append
            backend.rollback_migrations(backend.to_rollback(backend.read([str(self.folder)])))
        return told

    def kept(self) -> list[str]:
        """Return the ids of which the database keeps the texts."""
        with self.backend() as backend:
            return list(backend.records())
