"""Databases as the app's earlier versions wrote them, and the way in which those versions read them back."""

import json
import random
import sqlite3
from collections.abc import Iterable, Sequence
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

TABLES = {
    "user_patterns": """
        CREATE TABLE IF NOT EXISTS user_patterns (
            id INTEGER PRIMARY KEY AUTOINCREMENT, user_id INTEGER NOT NULL,
            pattern_type TEXT NOT NULL, pattern_key TEXT NOT NULL, pattern_value TEXT NOT NULL,
            confidence REAL DEFAULT 1.0,
            created_at TIMESTAMP DEFAULT CURRENT_TIMESTAMP, updated_at TIMESTAMP DEFAULT CURRENT_TIMESTAMP,
            FOREIGN KEY (user_id) REFERENCES users(id), UNIQUE(user_id, pattern_type, pattern_key))""",
    "conversation_context": """
        CREATE TABLE IF NOT EXISTS conversation_context (
            id INTEGER PRIMARY KEY AUTOINCREMENT, user_id INTEGER NOT NULL,
            context_key TEXT NOT NULL, context_value TEXT NOT NULL, session_id TEXT,
            created_at TIMESTAMP DEFAULT CURRENT_TIMESTAMP, expires_at TIMESTAMP,
            FOREIGN KEY (user_id) REFERENCES users(id))""",
    "user_insights": """
        CREATE TABLE IF NOT EXISTS user_insights (
            id INTEGER PRIMARY KEY AUTOINCREMENT, user_id INTEGER NOT NULL,
            insight_type TEXT NOT NULL, insight_data TEXT NOT NULL, importance REAL DEFAULT 0.5,
            created_at TIMESTAMP DEFAULT CURRENT_TIMESTAMP, FOREIGN KEY (user_id) REFERENCES users(id))""",
}
INDEXES = {
    "user_patterns": "CREATE INDEX idx_user_patterns_user_type ON user_patterns(user_id, pattern_type)",
    "conversation_context": (
        "CREATE INDEX idx_conversation_context_user ON conversation_context(user_id, session_id)"
    ),
    "user_insights": "CREATE INDEX idx_user_insights_user ON user_insights(user_id, insight_type)",
}
# Where in a row the value stands.
VALUE_PLACES = {"user_patterns": 4, "conversation_context": 3, "user_insights": 3}
APP_TABLES = """
    CREATE TABLE users (id INTEGER PRIMARY KEY, email TEXT UNIQUE, created_at TIMESTAMP);
    CREATE TABLE messages (
        id INTEGER PRIMARY KEY, user_id INTEGER REFERENCES users(id), role TEXT, content TEXT,
        created_at TIMESTAMP);
    INSERT INTO users VALUES (1, 'ann@example.org', '2026-01-05 18:12:01'), (2, 'bo@example.org', NULL);
    INSERT INTO messages VALUES (1, 1, 'user', 'I was card dead all night', '2026-01-05 18:12:01'),
        (2, 1, 'coach', 'Naïve ♠ question: did you play more hands?', '2026-01-05T18:12:01.5+00:00');
"""

# What was saved, in all three conventions: texts as they were, everything else as JSON, NaN bare.
VALUES: list[Any] = [
    "plays tight",
    "",
    "  two blanks  ",
    'says "fold" \\ and "call"',
    "7.5",
    '"quoted"',
    "null",
    "true",
    '{"looks": "like JSON"}',
    '{"looks": "like JSON"',
    "[1, 2",
    "NaN and Infinity in a sentence",
    "♠ Ünïcödé 🂡 \u2028",
    "line\nbreak\ttab\x07bell",
    "5\x00after a NUL",
    "'; DROP TABLE user_patterns; --",
    "a; b -- c /* d */ $1 %s :name ?",
    7.5,
    -0.0,
    1e300,
    2**70,
    0,
    True,
    None,
    [],
    {},
    ["a", ["b", {"c": [None, 1.5]}]],
    {"bets_up": 1.8, "spots": ["river", "flop"], "note": "NaN", "é": "ü"},
    float("nan"),
    float("inf"),
    float("-inf"),
    {"win_rate": float("nan"), "note": 'a "NaN", quoted \\" NaN', "deep": [[float("-inf")], float("inf")]},
    "NaN",
    "{NaN: 1}",
    "1NaN",
    "-NaN",
]


def write(value: Any) -> str:
    """Return what the earlier app stored for a value."""
    return value if isinstance(value, str) else json.dumps(value)


def read(text: Any) -> Any:
    """Return what the earlier app read: JSON first, the raw text otherwise."""
    try:
        return json.loads(text)
    except (ValueError, TypeError):
        return text


def without_nan(value: Any) -> Any:
    """Return a value with the name of each NaN and infinity in its place, as 002 stores them."""
    if isinstance(value, float) and (value != value or abs(value) == float("inf")):
        return json.dumps(value)
    if isinstance(value, list):
        return [without_nan(item) for item in value]
    if isinstance(value, dict):
        return {key: without_nan(item) for key, item in value.items()}
    return value


def timestamps(count: int) -> list[str]:
    """Return times in the three forms that were written, many of them the same moment in another form."""
    start = datetime(2026, 1, 5, 18, 12, 1, tzinfo=UTC)
    times = []
    for number in range(count):
        moment = start + timedelta(seconds=number // 6, microseconds=(number % 6 // 3) * 123456)
        times.append(
            [
                moment.strftime("%Y-%m-%d %H:%M:%S"),
                moment.isoformat(),
                moment.replace(microsecond=0).isoformat(),
            ][number % 3]
        )
    return times


def make(
    path: Path, *, tables: Iterable[str] = TABLES, indexes: Iterable[str] = INDEXES, rows: int = 108
) -> None:
    """Make a database of the earlier app with so many rows in each table, for users that may not exist."""
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(APP_TABLES)
        for table in tables:
            connection.execute(TABLES[table])
            if table in indexes:
                connection.execute(INDEXES[table])
            _fill(connection, table, rows)
        connection.commit()


def _fill(connection: sqlite3.Connection, table: str, rows: int) -> None:
    chance = random.Random(table)
    times = timestamps(rows)
    # Ids with gaps, and a counter that is ahead of the last row: rows were deleted.
    for number, time in enumerate(times):
        user, text, row_id = number % 7 - 1, write(VALUES[number % len(VALUES)]), 2 * number + 1
        match table:
            case "user_patterns":
                columns: Sequence[Any] = (
                    row_id, user, f"type {number % 4}", f"key {number}", text,
                    chance.random(), time, times[number // 2],
                )  # fmt: skip
            case "conversation_context":
                session, expires = (
                    (None, "s1", "s2")[number % 3],
                    (None, time, "2999-01-01 00:00:00")[number % 3],
                )
                columns = (row_id, user, f"key {number % 5}", text, session, time, expires)
            case _:
                columns = (row_id, user, f"type {number % 4}", text, chance.random(), time)
        connection.execute(f"INSERT INTO {table} VALUES ({','.join('?' * len(columns))})", columns)
    if rows:
        connection.execute("UPDATE sqlite_sequence SET seq = seq + 1000 WHERE name = ?", (table,))


# Rows that the rules of 003 refuse, by table; a tuple each of all columns.
ODD_ROWS: dict[str, list[tuple[Any, ...]]] = {
    "user_patterns": [
        (900001, 3, "tilt", "too sure", "1", 1.7, "2026-01-05 18:12:01", "2026-01-05 18:12:01"),
        (900002, 3, "tilt", "less than nothing", "1", -0.2, "2026-01-05 18:12:01", "2026-01-05 18:12:01"),
        (900003, 3, "tilt", "no confidence", "1", None, "2026-01-05 18:12:01", "2026-01-05 18:12:01"),
        (900004, 3, "tilt", "confidence in words", "1", "high", "2026-01-05 18:12:01", "2026-01-05 18:12:01"),
        (900005, 3, "tilt", "", '"empty key"', 1.0, "2026-01-05 18:12:01", "2026-01-05 18:12:01"),
        (900006, 3, "tilt", "(empty)", '"a real key"', 1.0, "2026-01-05 18:12:01", "2026-01-05 18:12:01"),
        (900007, 3, "", "empty type", "1", 1.0, "2026-01-05 18:12:01", "2026-01-05 18:12:01"),
        (900008, 3, "tilt", b"bytes", "1", 1.0, "2026-01-05 18:12:01", "2026-01-05 18:12:01"),
        (900009, 3, "tilt", "no times", "1", 1.0, None, None),
        (900010, 3, "tilt", "times that are none", "1", 1.0, "yesterday", 1767636721),
        (900011, "player-3", "tilt", "a user that is no number", "NaN", 0.5, "2026-01-05 18:12:01", None),
        (900012, 3, "tilt", "a NaN and too sure", '{"a": NaN}', 2.0, "2026-01-05 18:12:01", "never"),
        (
            900013,
            3,
            "tilt",
            "a value of bytes",
            b"\xff\x00",
            1.0,
            "2026-01-05 18:12:01",
            "2026-01-05 18:12:01",
        ),
    ],
    "conversation_context": [
        (900001, 3, "", "empty key", None, "2026-01-05 18:12:01", None),
        (900002, 3, "topic", "expires some day", "s1", "2026-01-05 18:12:01", "some day"),
        (900003, 3, "topic", "session of bytes", b"s1", None, None),
        (900004, 3.5, "topic", "half a user", None, "2026-01-05 18:12:01", None),
        (900005, 3, b"topic", b"[1]", None, "2026-01-05 18:12:01", "2999-01-01 00:00:00"),
    ],
    "user_insights": [
        (900001, 3, "leak", "1", 9.0, "2026-01-05 18:12:01"),
        (900002, 3, "leak", "1", None, "2026-01-05 18:12:01"),
        (900003, 3, "", "NaN", float("inf"), None),
        (900004, "player-3", "leak", "no number", 0.5, "2026-01-05 18:12:01"),
    ],
}


def add_odd_rows(path: Path) -> None:
    """Add rows that the earlier app could write and the rules of 003 refuse."""
    with closing(sqlite3.connect(path)) as connection:
        for table, rows in ODD_ROWS.items():
            for row in rows:
                connection.execute(f"INSERT INTO {table} VALUES ({','.join('?' * len(row))})", row)
        connection.commit()


def read_all(path: Path) -> dict[str, list[tuple[Any, ...]]]:
    """Return all rows of our tables as the earlier app reads them: by id, values decoded."""
    with closing(sqlite3.connect(path)) as connection:
        return {
            table: [
                (*row[:place], read(row[place]), *row[place + 1 :])
                for row in connection.execute(f"SELECT * FROM {table} ORDER BY id")
            ]
            for table, place in VALUE_PLACES.items()
        }
