"""The operator's tools for a PostgreSQL database."""

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from poker_therapist.database import PostgreSQLLocation
from poker_therapist.migrations.engine import Bench
from poker_therapist.migrations.files import SQLMigration
from poker_therapist.migrations.postgresql import bench
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
        """Dump the database to a file while others use it, and return that file's path."""
        raise NotImplementedError

    def restore(self, file: Path) -> Path | None:
        """Put a dump in the place of the database; return the dump of what was replaced, if any."""
        raise NotImplementedError

    def backups_with_player(self, user_id: int) -> dict[Path, bool | None]:  # noqa: ARG002  # of the protocol
        """Return nothing: where the dumps of a server are, this does not know."""
        return {}
