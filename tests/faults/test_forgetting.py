"""A player with very many rows is forgotten while others save: all of it goes, and nothing of theirs."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psycopg
import pytest

from poker_therapist import DatabaseBusy, get_pattern_storage
from tests.helpers.engines import is_server, postgresql_only, query, run_sql, with_options
from tests.helpers.snapshots import is_whole
from tests.helpers.writers import Writer, check

USER, OTHER = 99, 98
# In every text of the forgotten player, and in nobody else's.
MARK = "forget-me"

# Every third number, with whose row it is in and the word in its texts.
NUMBERS = f"""
    WITH RECURSIVE every_third (n) AS (
        SELECT {{first}}
        UNION ALL
        SELECT n + 3 FROM every_third WHERE n + 3 <= {{rows}}
    ),
    number (n, who, word) AS (
        SELECT
            n,
            CASE WHEN n % 10 = 0 THEN {OTHER} ELSE {USER} END,
            CASE WHEN n % 10 = 0 THEN 'keep-it' ELSE '{MARK}' END
        FROM every_third
    )
"""
NOW = "'2026-01-05T18:12:01.000000+00:00'"
# A third of the rows in each table; each tenth is another player's, side by side with the rest.
FILL = {
    "user_patterns": f"""
        (user_id, pattern_type, pattern_key, pattern_value, confidence, created_at, updated_at)
        {NUMBERS} SELECT who, word || (n % 7), word || n, {{json}}, 0.5, {NOW}, {NOW} FROM number""",
    "conversation_context": f"""
        (user_id, context_key, context_value, session_id, created_at)
        {NUMBERS} SELECT who, word || (n % 7), {{json}}, word || (n % 50), {NOW} FROM number""",
    "user_insights": f"""
        (user_id, insight_type, insight_data, importance, created_at)
        {NUMBERS} SELECT who, word || (n % 7), {{json}}, 0.5, {NOW} FROM number""",
}


def fill(database: str, rows: int) -> None:
    text = """'"' || word || n || '"'"""
    json = f"CAST({text} AS JSON)" if is_server(database) else text
    for first, (table, rest) in enumerate(FILL.items(), start=1):
        run_sql(database, f"INSERT INTO {table} {rest.format(first=first, rows=rows, json=json)}")


def rows_of(database: str, user: int) -> list[list[tuple[Any, ...]]]:
    return [query(database, f"SELECT * FROM {table} WHERE user_id = {user} ORDER BY id") for table in FILL]


def marks(database: str) -> int:
    """Return how often the mark stands in the files of a database."""
    files = [Path(f"{database}{ending}") for ending in ("", "-wal", "-shm", "-journal")]
    return sum(file.read_bytes().count(MARK.encode()) for file in files if file.exists())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("engine", "rows"),
    [("sqlite", 1_111_111), ("postgresql", 222_222)],
    indirect=["engine"],
    ids=["sqlite", "postgresql"],
)
def test_a_million_rows_are_forgotten_while_others_save(
    engine: str, rows: int, migrated: str, report: Callable[[str], None]
) -> None:
    """No byte is left in SQLite's files, then or later; who saves waits, and loses nothing."""
    fill(migrated, rows)
    others = rows_of(migrated, OTHER)
    had = marks(migrated)
    writers = [Writer(migrated, player) for player in (1, 2)]
    try:
        for writer in writers:
            writer.wait_for(5)
        with get_pattern_storage(migrated) as storage:
            forgotten = storage.forget_user(USER)
        left = marks(migrated)
        for writer in writers:
            writer.wait_for(200)
        left_later = marks(migrated)
    finally:
        for writer in writers:
            writer.kill()
    acknowledged = {writer.player: writer.reap() for writer in writers}

    deleted = forgotten["user_patterns"] + forgotten["conversation_context"] + forgotten["user_insights"]
    kept = sum(map(len, others))
    assert (deleted, kept) == (rows - (rows - 1) // 10, (rows - 1) // 10)
    assert rows_of(migrated, USER) == [[], [], []]
    assert rows_of(migrated, OTHER) == others
    with get_pattern_storage(migrated) as storage:
        check(storage, acknowledged)
    assert is_whole(migrated)
    assert (left, left_later) == (0, 0)
    assert had > rows or is_server(migrated)
    in_files = "" if is_server(migrated) else f", of {had:,} marks in the files {left + left_later} left"
    report(
        f"{engine}: {deleted:,} rows forgotten{in_files}; {sum(acknowledged.values()):,} commits of others "
        f"meanwhile and {kept:,} rows of theirs from before, all there"
    )


@postgresql_only
def test_many_are_forgotten_at_once_and_nobody_waits_in_a_queue(migrated: str) -> None:
    """Each has a second; who finds another at a table comes back, and none cuts a file off under readers."""
    with get_pattern_storage(with_options(migrated, "timeout=1&connections=12")) as storage:
        for player in range(24):
            storage.save_context(player, "mood", "x" * 20_000)
        with ThreadPoolExecutor(12) as threads:
            counts = list(threads.map(storage.forget_user, range(24)))

    assert [forgotten["conversation_context"] for forgotten in counts] == [1] * 24
    ((size, dead),) = query(
        migrated,
        "SELECT pg_relation_size('conversation_context'), (SELECT count(*) FROM conversation_context)",
    )
    assert (size > 0, dead) == (True, 0)


@postgresql_only
def test_a_table_that_stays_locked_is_said_to_be_deleted_from_and_not_freed(migrated: str) -> None:
    hasty = with_options(migrated, "timeout=0.1")
    with get_pattern_storage(hasty) as storage, psycopg.connect(migrated) as somebody:
        storage.save_context(USER, "mood", "calm")
        somebody.execute("LOCK TABLE conversation_context IN SHARE UPDATE EXCLUSIVE MODE")
        with pytest.raises(
            DatabaseBusy, match=r"the rows are deleted, but .*is still locked after 0.1 seconds"
        ):
            storage.forget_user(USER)
        assert storage.get_context(USER, "mood") == []
        somebody.rollback()
        storage.forget_user(USER)
