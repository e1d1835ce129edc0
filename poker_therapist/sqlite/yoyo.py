"""What the `yoyo` command loads for `sqlite+atomic://`."""

from poker_therapist.migrations.yoyo_command import YoyoCommandMixin
from poker_therapist.sqlite.backend import AtomicSQLiteBackend


class SQLiteBackend(YoyoCommandMixin, AtomicSQLiteBackend):
    """The backend as yoyo's entry point names it."""
