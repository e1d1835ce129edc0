"""transaction(): all of a block or none of it."""

import sqlite3
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, nullcontext, suppress

import pytest

from poker_therapist import DatabaseFull, PatternStorage, PokerTherapistError, get_pattern_storage
from poker_therapist.sqlite.connections import SQLiteDatabase
from tests.helpers.engines import fetch_all, run_sql, sqlite_only
from tests.helpers.pooler import engine_or_pooler

engine = engine_or_pooler
USER = 7


class Interrupted(BaseException):
    """Not an Exception, as KeyboardInterrupt is none."""


def save(storage: PatternStorage, *keys: str) -> None:
    for key in keys:
        storage.save_pattern(USER, "t", key, key)


def saved(storage: PatternStorage) -> set[str]:
    return set(storage.get_patterns_by_type(USER, "t"))


def test_a_block_is_kept_when_it_ends(migrated: str, storage: PatternStorage) -> None:
    with storage.transaction():
        save(storage, "a")
        storage.save_context(USER, "topic", "b")
        storage.save_insight(USER, "leak", "c")

    with get_pattern_storage(migrated) as other:
        assert saved(other) == {"a"}
        assert other.get_context(USER, "topic") == ["b"]
        assert other.get_insights(USER)[0]["data"] == "c"


@pytest.mark.parametrize("error", [ValueError, Interrupted])
def test_a_block_that_raises_leaves_nothing(storage: PatternStorage, error: type[BaseException]) -> None:
    save(storage, "before")
    storage.save_context(USER, "topic", "before")
    before = storage.export_user(USER)

    def change_everything_and_raise() -> None:
        with storage.transaction():
            save(storage, "before", "inside")
            storage.save_context(USER, "topic", "inside", expires_minutes=-1)
            storage.save_insight(USER, "leak", "inside")
            storage.clear_user_context(USER)
            storage.purge_expired()
            raise error

    with pytest.raises(error):
        change_everything_and_raise()

    assert storage.export_user(USER) == before
    save(storage, "after")
    assert saved(storage) == {"before", "after"}


def test_a_block_reads_its_own_writes_and_nobody_else_does_before_it_ends(
    migrated: str, storage: PatternStorage
) -> None:
    with get_pattern_storage(migrated) as other:
        with storage.transaction():
            save(storage, "a")
            storage.save_context(USER, "topic", "b")

            assert saved(storage) == set(storage.recall(USER)["patterns"]["t"]) == {"a"}
            assert storage.get_context(USER, "topic") == ["b"]
            assert len(storage.export_user(USER)["patterns"]) == 1
            assert saved(other) == set(other.recall(USER)["patterns"]) == set()
        assert saved(other) == {"a"}


def test_a_block_inside_a_block_is_undone_by_itself(storage: PatternStorage) -> None:
    with storage.transaction():
        save(storage, "outer")
        with suppress(ValueError), storage.transaction():
            save(storage, "inner")
            with storage.transaction():
                save(storage, "innermost")
            raise ValueError
        with storage.transaction():
            save(storage, "second inner")
        save(storage, "end")

    assert saved(storage) == {"outer", "second inner", "end"}


def test_a_block_inside_a_block_is_kept_only_with_the_outer_one(storage: PatternStorage) -> None:
    with suppress(ValueError), storage.transaction():
        with storage.transaction():
            save(storage, "inner")
        raise ValueError

    assert saved(storage) == set()


@sqlite_only
def test_a_block_is_one_commit_and_takes_the_write_lock_at_once(storage: PatternStorage) -> None:
    """A block that reads first and locks later would fail where somebody has written in between."""
    statements: list[str] = []
    assert isinstance(storage._database, SQLiteDatabase)
    session = storage._database._here.session
    assert session is not None
    session.connection.set_trace_callback(statements.append)
    with storage.transaction():
        saved(storage)
        with closing(sqlite3.connect(storage.db_path, timeout=0)) as other, storage.transaction():
            with pytest.raises(sqlite3.OperationalError, match="locked"):
                other.execute("BEGIN IMMEDIATE")
            save(storage, "a", "b")
        storage.save_context(USER, "topic", "purges too")
        storage.clear_user_context(USER)
    session.connection.set_trace_callback(None)

    words = [statement.split()[0] for statement in statements]
    assert statements[0] == "BEGIN IMMEDIATE"
    assert (words.count("BEGIN"), words.count("COMMIT"), statements[-1]) == (1, 1, "COMMIT")


@sqlite_only
@pytest.mark.parametrize("nested", [False, True])
def test_a_block_that_goes_on_after_the_disk_was_full_is_kept_whole_or_not_at_all(
    storage: PatternStorage, nested: bool
) -> None:
    """A full disk can make SQLite undo the whole transaction by itself; no later part may stay alone."""
    save(storage, "before")
    (pages,) = fetch_all(storage, "PRAGMA page_count")[0]
    fetch_all(storage, f"PRAGMA max_page_count = {pages + 2}")[0]
    with suppress(PokerTherapistError), storage.transaction():
        save(storage, "first")
        with pytest.raises(DatabaseFull), storage.transaction() if nested else nullcontext():
            storage.save_insight(USER, "leak", "x" * 100_000)
        save(storage, "last")

    assert saved(storage) in ({"before"}, {"before", "first", "last"})
    assert storage.get_insights(USER) == []


@sqlite_only
def test_a_context_whose_purge_fails_is_not_saved_and_a_block_does_not_purge(migrated: str) -> None:
    with get_pattern_storage(migrated) as other:
        other.save_context(USER, "topic", "expired", expires_minutes=-1)
    run_sql(
        migrated,
        "CREATE TRIGGER refuse BEFORE DELETE ON conversation_context BEGIN SELECT RAISE(ABORT, 'no'); END",
    )
    with get_pattern_storage(migrated) as storage:
        with pytest.raises(PokerTherapistError):
            storage.save_context(USER, "topic", "not saved")
        assert storage.get_context(USER, "topic") == []

    with get_pattern_storage(migrated) as storage:
        with storage.transaction():
            save(storage, "first")
            storage.save_context(USER, "topic", "in a block")
            save(storage, "last")

        assert saved(storage) == {"first", "last"}
        assert storage.get_context(USER, "topic") == ["in a block"]


def test_a_block_of_another_thread_is_not_joined(storage: PatternStorage) -> None:
    """Each thread has its own transaction, so what it rolls back is its own."""
    save(storage, "before")
    with ThreadPoolExecutor(1) as pool, suppress(ValueError), storage.transaction():
        save(storage, "undone")
        seen = pool.submit(saved, storage).result()
        raise ValueError

    assert seen == saved(storage) == {"before"}
