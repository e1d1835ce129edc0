"""What the `yoyo` command loads for `postgresql+atomic://`."""

import sys

try:
    from poker_therapist.postgresql.backend import AtomicPostgreSQLBackend
except ModuleNotFoundError as error:
    sys.exit(f"yoyo: {error}: install the driver with pip install 'poker-therapist[postgresql]'")

from poker_therapist.migrations.yoyo_command import YoyoCommandMixin


class PostgreSQLBackend(YoyoCommandMixin, AtomicPostgreSQLBackend):
    """The backend as yoyo's entry point names it."""
