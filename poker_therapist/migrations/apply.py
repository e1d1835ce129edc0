"""Applying the pending migrations in the app's own process."""

from collections.abc import Sequence
from pathlib import Path

from poker_therapist.database import Location
from poker_therapist.migrations.engine import engine_for


def apply_pending(location: Location, folders: Sequence[Path]) -> None:
    """Apply what is pending, as `yoyo apply` does; see docs/MIGRATIONS.md.

    Raises:
        MigrationError: a migration failed and was undone; those before it are applied.
        StorageError: the database cannot be written.
    """
    with engine_for(location).backend() as backend:
        backend.apply_migrations(backend.to_apply(backend.read([str(folder) for folder in folders])))
