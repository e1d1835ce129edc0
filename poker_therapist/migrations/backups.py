"""What the backups of both engines have in common."""

from datetime import UTC, datetime


def time_now() -> str:
    """Return this moment as it stands in the names of backups, which it sorts."""
    return datetime.now(UTC).strftime("%Y%m%dT%H%M%S.%fZ")
