"""The log of slow statements: names and milliseconds, never values; nothing unless it is asked for."""

import logging
import re
import sqlite3
from contextlib import closing

import pytest

from poker_therapist import DatabaseBusy, InvalidInput, PatternStorage, get_pattern_storage
from tests.helpers.engines import sqlite_only, with_options

USER = 7
SECRET = "nobody's business"


def use(storage: PatternStorage) -> None:
    storage.save_pattern(USER, SECRET, SECRET, SECRET)
    storage.save_patterns(USER, SECRET, {SECRET: SECRET})
    storage.get_pattern(USER, SECRET, SECRET)
    storage.get_patterns_by_type(USER, SECRET)
    storage.clear_user_patterns(USER)
    storage.recall(USER, SECRET)


def test_a_slow_statement_is_logged_by_name_and_never_with_a_value(
    migrated: str, caplog: pytest.LogCaptureFixture
) -> None:
    with get_pattern_storage(with_options(migrated, "slow_ms=0")) as storage:
        caplog.clear()
        use(storage)
    lines = [record.getMessage() for record in caplog.records]
    names = {re.sub(r"slow statement: (.+) took \d+\.\d ms \(slow_ms is 0\)", r"\1", line) for line in lines}

    assert {record.levelno for record in caplog.records} == {logging.WARNING}
    assert {record.name for record in caplog.records} == {"poker_therapist"}
    assert {"save_pattern", "get_pattern", "get_patterns_by_type", "delete_user_patterns"} <= names
    assert "recall_patterns, context_items_of_session, get_foremost_insights" in names
    assert SECRET not in "".join(lines)


@pytest.mark.parametrize("option", ["timeout=5", "slow_ms=999999"])
def test_nothing_is_logged_otherwise(migrated: str, caplog: pytest.LogCaptureFixture, option: str) -> None:
    with get_pattern_storage(with_options(migrated, option)) as storage:
        use(storage)
        timed = hasattr(storage._database.execute, "__wrapped__")

    assert caplog.records == []
    assert timed == (option != "timeout=5")


def test_all_that_a_block_waits_for_is_logged_once(migrated: str, caplog: pytest.LogCaptureFixture) -> None:
    with get_pattern_storage(with_options(migrated, "slow_ms=0")) as storage:
        caplog.clear()
        storage.recall(USER)
        with storage.transaction():
            storage.save_pattern(USER, SECRET, SECRET, SECRET)
            storage.recall(USER)
        with pytest.raises(ZeroDivisionError), storage.transaction():
            storage.save_pattern(USER, SECRET, SECRET, 1 / 0)
        storage.save_patterns(USER, SECRET, {"k": 1})
        assert storage.clear_user_patterns(USER) == 2
    names = [re.findall("statement: (.+) took", record.getMessage())[0] for record in caplog.records]

    recalled = "recall_patterns, context_items, get_foremost_insights"
    deleted = ["delete_legacy_rows_of_table", "delete_user_patterns"]
    assert names == [
        *[recalled, "BEGIN", "save_pattern", recalled, "COMMIT", "BEGIN", "ROLLBACK", "save_pattern"],
        *["BEGIN", "lock_players", *deleted, "COMMIT"],
    ]


@sqlite_only
def test_a_statement_that_fails_slowly_is_logged(migrated: str, caplog: pytest.LogCaptureFixture) -> None:
    """Waiting for somebody else's lock is a part of it."""
    with (
        get_pattern_storage(with_options(migrated, "slow_ms=50&timeout=0.1")) as storage,
        closing(sqlite3.connect(migrated, isolation_level=None)) as other,
    ):
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(DatabaseBusy):
            storage.save_insight(USER, "leak", SECRET)
        with pytest.raises(DatabaseBusy):
            storage.clear_user_insights(USER)

    assert re.findall("statement: (.+) took", caplog.text) == ["save_insight", "BEGIN"]


@pytest.mark.parametrize("bad", ["", "-1", "fast", "1e3", "nan", "1234567", "\u0665"])
def test_what_is_no_number_of_milliseconds(migrated: str, bad: str) -> None:
    with pytest.raises(
        InvalidInput, match=r"slow_ms=.* in the URL: use a number of milliseconds.* below 1,000,000"
    ):
        get_pattern_storage(with_options(migrated, f"slow_ms={bad}"))
