"""Applying the pending migrations with yoyo, in the app's own process."""

import glob
from urllib.parse import quote

import yoyo

from poker_therapist.database import Location
from poker_therapist.migrations import migrations_folder


def apply_pending(location: Location) -> None:
    """Apply what is pending."""
    with yoyo.get_backend(f"sqlite:///{quote(str(location.path))}") as backend, backend.lock(60):
        backend.apply_migrations(
            backend.to_apply(yoyo.read_migrations(glob.escape(str(migrations_folder("sqlite")))))
        )
