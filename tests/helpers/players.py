"""Players with something of every kind, for the commands that are about one of them."""

import re
from pathlib import Path

from poker_therapist import PatternStorage, get_pattern_storage, tables
from tests.helpers.engines import is_server, run_sql

TABLES = tuple(table.name for table in tables.TABLES)

# As a migration leaves them behind for player 7, and one for player 8.
LEGACY_ROWS = """
    INSERT INTO legacy_rows (migration_id, table_name, row_id, user_id, session_id, value)
    VALUES
        ('003_constrain_values', 'user_patterns', 1, 7, NULL, 'old pattern'),
        ('003_constrain_values', 'conversation_context', 2, 7, 'monday', 'old context'),
        ('003_constrain_values', 'conversation_context', 3, 7, NULL, 'old context'),
        ('003_constrain_values', 'user_insights', 4, 7, NULL, 'old insight'),
        ('003_constrain_values', 'user_insights', 5, 8, NULL, 'somebody else')
"""
# PostgreSQL keeps the value as JSON.
LEGACY_ROWS_AS_JSON = re.sub(r"'([^']+)'\)", r"""'"\1"')""", LEGACY_ROWS)


def fill(storage: PatternStorage, user: int) -> None:
    """Save something of every kind for a player."""
    storage.save_pattern(user, "tilt", "after_bad_beat", {"bets_up": 1.8, "note": "♠ naïve"}, confidence=0.7)
    storage.save_pattern(user, "sleep", "hours", [5, None, True])
    storage.save_context(user, "mood", "tired", session_id="monday", expires_minutes=60)
    storage.save_context(user, "mood", "angry")
    storage.save_context(user, "topic", "long ago", expires_minutes=-1)
    storage.save_insight(user, "advice", "Stop after two lost buy-ins.", importance=0.9)


def make(path: Path) -> Path:
    """Make a database, if it is not there, with two players, and rows that a migration had to change."""
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


def add_legacy_rows(database: str | Path) -> None:
    """Leave rows behind as a migration, or the copying of a database, does."""
    run_sql(database, LEGACY_ROWS_AS_JSON if is_server(database) else LEGACY_ROWS)


def legacy_values(storage: PatternStorage, user_id: int) -> list[str]:
    """Return what is kept of a player's rows that a migration had to change."""
    return [row["value"] for row in storage.export_user(user_id)["legacy_rows"]]
