"""003 on SQLite, one value at a time: what breaks a constraint is repaired and kept, nothing else is kept."""

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.engines import query
from tests.helpers.migrating import IDS, down, up

BEFORE, NAME = IDS[1], "003_constrain_values"
NOW, NEVER = "2026-01-05T18:12:01.123456+00:00", "1970-01-01T00:00:00.000000+00:00"

GOOD: dict[str, dict[str, Any]] = {
    "user_patterns": {
        "user_id": 7,
        "pattern_type": "tilt",
        "pattern_key": "bad beat",
        "pattern_value": '{"a": 1}',
        "confidence": 0.5,
        "created_at": NOW,
        "updated_at": NOW,
    },
    "conversation_context": {
        "user_id": 7,
        "context_key": "mood",
        "context_value": '"tired"',
        "session_id": "monday",
        "created_at": NOW,
        "expires_at": NOW,
    },
    "user_insights": {
        "user_id": 7,
        "insight_type": "leak",
        "insight_data": "[1, 2]",
        "importance": 0.5,
        "created_at": NOW,
    },
}
# Where legacy_rows keeps a column.
KEPT_IN = {
    "pattern_type": "kind",
    "insight_type": "kind",
    "pattern_key": "item_key",
    "context_key": "item_key",
    "confidence": "score",
    "importance": "score",
}

KEYS = [("", "(empty)"), (b"\xe9\x00", "E900")]
SCORES = [(-0.5, 0.0), (-1, 0.0), (1.5, 1.0), (2, 1.0), ("high", None), (b"1", None)]
TIMES = [("yesterday", NEVER), (b"2026-01-05 18:12:01", NEVER), (0, NEVER)]
# What a column held, and what it holds after; a score without a number becomes the default.
BROKEN: dict[tuple[str, str], list[tuple[Any, Any]]] = {
    ("user_patterns", "pattern_type"): KEYS,
    ("user_patterns", "pattern_key"): KEYS,
    ("user_patterns", "confidence"): [(old, 1.0 if new is None else new) for old, new in SCORES],
    ("user_patterns", "created_at"): TIMES,
    ("user_patterns", "updated_at"): TIMES,
    ("conversation_context", "context_key"): KEYS,
    ("conversation_context", "session_id"): [(b"\xe9\x00", "E900")],
    ("conversation_context", "created_at"): TIMES,
    ("conversation_context", "expires_at"): [(old, None) for old, _ in TIMES],
    ("user_insights", "insight_type"): KEYS,
    ("user_insights", "importance"): [(old, 0.5 if new is None else new) for old, new in SCORES],
    ("user_insights", "created_at"): TIMES,
}
# What breaks no constraint; times get the one form.
SOUND: dict[tuple[str, str], list[tuple[Any, Any]]] = {
    ("user_patterns", "confidence"): [(0, 0.0), (0.0, 0.0), (1, 1.0), (1.0, 1.0)],
    ("user_patterns", "created_at"): [("2026-01-05 18:12:01", "2026-01-05T18:12:01.000000+00:00")],
    ("user_patterns", "updated_at"): [("2026-01-05T18:12:01+00:00", "2026-01-05T18:12:01.000000+00:00")],
    ("conversation_context", "session_id"): [(None, None), ("", "")],
    ("conversation_context", "created_at"): [("2026-01-05 18:12:01", "2026-01-05T18:12:01.000000+00:00")],
    ("conversation_context", "expires_at"): [
        (None, None),
        ("2026-01-05 18:12:01", "2026-01-05T18:12:01.000000+00:00"),
    ],
    ("user_insights", "importance"): [(0, 0.0), (0.0, 0.0), (1, 1.0), (1.0, 1.0)],
    ("user_insights", "created_at"): [("2026-01-05 18:12:01", "2026-01-05T18:12:01.000000+00:00")],
}


def add(connection: sqlite3.Connection, table: str, number: int, **changed: Any) -> None:
    """Add a row that breaks no constraint but in what is changed; its id is its player's too."""
    row = {"id": number} | GOOD[table] | {"user_id": number} | changed
    connection.execute(
        f"INSERT INTO {table} ({', '.join(row)}) VALUES ({', '.join('?' * len(row))})", list(row.values())
    )


@pytest.fixture(scope="module")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database with a row for each of the values, brought to 003."""
    path = tmp_path_factory.mktemp("repairs") / "RexVoice.db"
    up(path, BEFORE)
    with closing(sqlite3.connect(path)) as connection, connection:
        for number, (table, column, old, _, _) in enumerate(ROWS, start=1):
            add(connection, table, number, **{column: old})
    up(path, NAME)
    return path


ROWS = [
    (table, column, old, new, is_kept)
    for cases, is_kept in ((BROKEN, True), (SOUND, False))
    for (table, column), values in cases.items()
    for old, new in values
]


@pytest.mark.parametrize(
    ("number", "row"),
    list(enumerate(ROWS, start=1)),
    ids=[f"{table}.{column} {old!r}" for table, column, old, _, _ in ROWS],
)
def test_a_value_is_repaired_and_kept_only_if_it_breaks_a_constraint(
    number: int, row: tuple[str, str, Any, Any, bool], migrated: Path
) -> None:
    table, column, old, new, is_kept = row
    expected = {"id": number} | GOOD[table] | {"user_id": number, column: new}
    kept = query(
        migrated,
        f"SELECT table_name, {KEPT_IN.get(column, column)} FROM legacy_rows "
        f"WHERE migration_id = '{NAME}' AND user_id = {number}",
    )

    assert query(migrated, f"SELECT {', '.join(expected)} FROM {table} WHERE id = {number}") == [
        tuple(expected.values())
    ]
    assert kept == ([(table, old)] if is_kept else [])


def test_the_rollback_gives_every_value_back(migrated: Path, tmp_path: Path) -> None:
    """What broke a constraint to the letter; what did not, in the one form of times."""
    path = tmp_path / "RexVoice.db"
    path.write_bytes(migrated.read_bytes())
    down(path, NAME)
    for number, (table, column, old, new, is_kept) in enumerate(ROWS, start=1):
        ((found, kind),) = query(
            path, f"SELECT {column}, typeof({column}) FROM {table} WHERE user_id = {number}"
        )
        expected = old if is_kept else new

        assert found == expected, (table, column, old)
        assert (kind == "blob") == isinstance(expected, bytes)


@pytest.mark.parametrize("table", GOOD)
def test_a_row_of_no_player_is_only_kept(table: str, tmp_path: Path) -> None:
    path = tmp_path / "RexVoice.db"
    up(path, BEFORE)
    with closing(sqlite3.connect(path)) as connection, connection:
        add(connection, table, 1)
        add(connection, table, 2, user_id="somebody")
    up(path, NAME)

    assert query(path, f"SELECT id, user_id FROM {table}") == [(1, 1)]
    assert query(path, "SELECT table_name, row_id, user_id FROM legacy_rows") == [(table, 2, "somebody")]
