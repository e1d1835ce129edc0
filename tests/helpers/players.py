"""Players with something of every kind, for the commands that are about one of them."""

from pathlib import Path

from poker_therapist import PatternStorage, get_pattern_storage
from tests.conftest import LEGACY_ROWS
from tests.helpers.engines import run_sql

TABLES = ("user_patterns", "conversation_context", "user_insights", "legacy_rows")


def fill(storage: PatternStorage, user: int) -> None:
    """Save something of every kind for a player."""
    storage.save_pattern(user, "tilt", "after_bad_beat", {"bets_up": 1.8, "note": "♠ naïve"}, confidence=0.7)
    storage.save_pattern(user, "sleep", "hours", [5, None, True])
    storage.save_context(user, "mood", "tired", session_id="monday", expires_minutes=60)
    storage.save_context(user, "mood", "angry")
    storage.save_context(user, "topic", "long ago", expires_minutes=-1)
    storage.save_insight(user, "advice", "Stop after two lost buy-ins.", importance=0.9)


def make(path: Path) -> Path:
    """Make a database with two players, and rows that a migration had to change."""
    with get_pattern_storage(path) as storage:
        fill(storage, 7)
        fill(storage, 8)
    run_sql(path, LEGACY_ROWS)
    return path


def is_known(database: Path, user: int = 7) -> bool:
    """Return whether anything about a player is stored."""
    with get_pattern_storage(database, migrate=False) as storage:
        found = storage.export_user(user)
    return any(found[part] for part in ("patterns", "context", "insights", "legacy_rows"))
