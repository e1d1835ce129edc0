"""What the `yoyo` command loads for `sqlite+atomic://`."""

from poker_therapist.migrations.command import Manners
from poker_therapist.migrations.sqlite.backend import AtomicSQLiteBackend


class SQLiteBackend(Manners, AtomicSQLiteBackend):
    """The backend as yoyo's entry point names it."""
