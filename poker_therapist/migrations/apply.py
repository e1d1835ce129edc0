"""Applying the pending migrations in the app's own process."""

from poker_therapist.database import Location
from poker_therapist.migrations import migrations_folder
from poker_therapist.migrations.files import read_migrations
from poker_therapist.migrations.sqlite import AtomicSQLiteBackend


def apply_pending(location: Location) -> None:
    """Apply what is pending, as `yoyo apply` does; see docs/MIGRATIONS.md.

    Raises:
        MigrationError: a migration failed and was undone; those before it are applied.
        StorageError: the database cannot be written.
    """
    migrations = read_migrations([str(migrations_folder("sqlite"))])
    with AtomicSQLiteBackend(location) as backend:
        backend.apply_migrations(backend.to_apply(migrations))
