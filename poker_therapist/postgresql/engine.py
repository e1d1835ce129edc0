"""The operator's tools for a PostgreSQL database."""

from collections.abc import Collection, Hashable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from poker_therapist.database import PostgreSQLLocation
from poker_therapist.migrations.copy import take_back
from poker_therapist.migrations.engine import Bench
from poker_therapist.migrations.files import SQLMigration
from poker_therapist.migrations.postgresql import bench, dump, transfer
from poker_therapist.migrations.postgresql.backend import AtomicPostgreSQLBackend


@dataclass(frozen=True)
class PostgreSQLEngine:
    """The tools for one database."""

    location: PostgreSQLLocation

    def backend(self) -> AtomicPostgreSQLBackend:
        """Return the backend; nothing is opened yet."""
        return AtomicPostgreSQLBackend(self.location)

    def bench(self, files: Mapping[str, SQLMigration]) -> AbstractContextManager[Bench]:
        """Copy the database, or its schema, to try migrations on."""
        return bench.bench(self.location, files)

    def save_backup(self, output: Path | None) -> Path:
        """Dump what is ours to a file while others use it, and return that file's path."""
        return dump.save_backup(self.location, output)

    def restore(self, file: Path) -> Path | None:
        """Put a dump in the place of what is ours; return the dump of what was replaced, if any."""
        return dump.restore(self.location, file)

    def backups_with_player(self, user_id: int) -> dict[Path, bool | None]:  # noqa: ARG002  # of the protocol
        """Return nothing: where the dumps of a server are, this does not know."""
        return {}

    def identity(self) -> Hashable:
        """Return which schema of which database of which server it is, whatever address leads to it."""
        return transfer.identity(self.location)

    def reader(self) -> AbstractContextManager[transfer.PostgreSQLReader]:
        """Open the database to read all of it as of one moment; it is not written."""
        return transfer.reader(self.location)

    def writer(self) -> AbstractContextManager[transfer.PostgreSQLWriter]:
        """Open the database to fill it in one transaction, committed when the block ends well."""
        return transfer.writer(self.location)

    def unmake(self, before: Collection[str] | None) -> None:
        """Take away what we have made in a database where nothing of ours was."""
        with self.backend() as backend:
            take_back(backend, before or ())
