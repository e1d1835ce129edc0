"""The tools of an operator for a PostgreSQL database."""

from collections.abc import Collection, Hashable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from poker_therapist.compat import override
from poker_therapist.errors import InvalidInput
from poker_therapist.location import PostgreSQLLocation
from poker_therapist.migrations.atomic import AtomicBackend
from poker_therapist.migrations.engine import BackupFile, Engine, Holding
from poker_therapist.migrations.files import SQLMigration
from poker_therapist.migrations.lock_report import Lock
from poker_therapist.postgresql import backup, rehearsal, transfer
from poker_therapist.postgresql.backend import AtomicPostgreSQLBackend
from poker_therapist.postgresql.home import for_migrations
from poker_therapist.postgresql.locks import locks
from poker_therapist.postgresql.script import PostgreSQLScript
from poker_therapist.tables import StoredTable


@dataclass(frozen=True)
class PostgreSQLEngine(Engine):
    """The tools for one database."""

    location: PostgreSQLLocation

    @property
    def _server(self) -> PostgreSQLLocation:
        return for_migrations(self.location)

    @override
    def backend(self) -> AtomicPostgreSQLBackend:
        return AtomicPostgreSQLBackend(self.location)

    @override
    def locks(self, code: str) -> list[Lock]:
        return locks(code)

    @override
    def script(self, backend: AtomicBackend) -> PostgreSQLScript:
        return PostgreSQLScript(backend)

    @override
    def rehearsal_copy(
        self, files: Mapping[str, SQLMigration]
    ) -> AbstractContextManager[rehearsal.PostgreSQLRehearsalCopy]:
        return rehearsal.rehearsal_copy(self._server, files)

    @override
    def save_backup(self, output: Path | None, sources: Sequence[str]) -> Path:
        return backup.save_backup(self._server, output, sources)

    @override
    def list_backups(self, sources: Sequence[str]) -> list[BackupFile]:
        raise InvalidInput("backups of a server are not listed: look in the folder in which you saved them")

    @override
    def restore(self, file: Path, sources: Sequence[str], tables: Sequence[StoredTable]) -> Path | None:
        return backup.restore(self._server, file, sources)

    @override
    def backups_holding(self, owner: int, tables: Sequence[StoredTable]) -> dict[Path, Holding]:
        """Return nothing: the files that were dumped from a server may be anywhere."""
        return {}

    @override
    def identity(self) -> Hashable:
        return transfer.identity(self._server)

    @override
    def reader(self) -> AbstractContextManager[transfer.PostgreSQLReader]:
        return transfer.reader(self._server)

    @override
    def writer(self, tables: Sequence[StoredTable]) -> AbstractContextManager[transfer.PostgreSQLWriter]:
        return transfer.writer(self._server, tables)

    @override
    def drop_created(self, before: Collection[str] | None, sources: Sequence[str]) -> None:
        with self.backend() as backend:
            backend.roll_back_all(sources, keep=before or ())
