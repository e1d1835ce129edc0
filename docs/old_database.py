"""Creates a database as the app's earlier version wrote it, for the tutorial and for a picture."""

import json
import sqlite3
import sys
from contextlib import closing
from pathlib import Path

SCHEMA = """
CREATE TABLE users (id INTEGER PRIMARY KEY, email TEXT, created_at TIMESTAMP);
CREATE TABLE user_patterns (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    user_id INTEGER NOT NULL,
    pattern_type TEXT NOT NULL,
    pattern_key TEXT NOT NULL,
    pattern_value TEXT NOT NULL,
    confidence REAL DEFAULT 1.0,
    created_at TIMESTAMP DEFAULT CURRENT_TIMESTAMP,
    updated_at TIMESTAMP DEFAULT CURRENT_TIMESTAMP,
    FOREIGN KEY (user_id) REFERENCES users (id),
    UNIQUE (user_id, pattern_type, pattern_key)
);
CREATE TABLE conversation_context (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    user_id INTEGER NOT NULL,
    context_key TEXT NOT NULL,
    context_value TEXT NOT NULL,
    session_id TEXT,
    created_at TIMESTAMP DEFAULT CURRENT_TIMESTAMP,
    expires_at TIMESTAMP,
    FOREIGN KEY (user_id) REFERENCES users (id)
);
CREATE TABLE user_insights (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    user_id INTEGER NOT NULL,
    insight_type TEXT NOT NULL,
    insight_data TEXT NOT NULL,
    importance REAL DEFAULT 0.5,
    created_at TIMESTAMP DEFAULT CURRENT_TIMESTAMP,
    FOREIGN KEY (user_id) REFERENCES users (id)
);
"""
PLAYERS = range(1, 41)
TIMES = ("2026-01-05 18:12:01", "2026-01-05T18:12:01.123456+00:00", "2026-01-05T18:12:01+00:00")


def main() -> None:
    """Create the database at the path that is given; a file that is there already stays as it is."""
    if len(sys.argv) != 2:
        sys.exit(f"usage: {Path(sys.argv[0]).name} PATH")
    path = Path(sys.argv[1])
    if path.exists():
        sys.exit(f"{path} exists already: give the path of a new file")
    create(path)
    print(f"created {path}, with {len(PLAYERS)} players")


def create(path: Path) -> None:
    """Create the three tables of the earlier app beside its own `users`, with some rows of each player."""
    with closing(sqlite3.connect(path)) as database:
        database.executescript(SCHEMA)
        for player in PLAYERS:
            at = TIMES[player % 3]
            database.execute("INSERT INTO users VALUES (?, ?, ?)", (player, f"p{player}@example.org", at))
            database.execute(
                "INSERT INTO user_patterns (user_id, pattern_type, pattern_key, pattern_value, created_at, "
                "updated_at) VALUES (?, 'tilt', 'after_bad_beat', ?, ?, ?)",
                (player, json.dumps({"bets_up": 1 + player / 10}), at, at),
            )
            database.execute(
                "INSERT INTO conversation_context (user_id, context_key, context_value, session_id, "
                "created_at) VALUES (?, 'mood', 'tired', 'monday', ?)",
                (player, at),
            )
            database.execute(
                "INSERT INTO user_insights (user_id, insight_type, insight_data, importance, created_at) "
                "VALUES (?, 'advice', ?, 0.9, ?)",
                (player, json.dumps("Stop after two lost buy-ins."), at),
            )
        database.commit()


if __name__ == "__main__":
    main()
