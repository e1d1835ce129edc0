"""The purge that goes with a save never waits for another saver's, and never fails for it."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import psycopg
import pytest

from poker_therapist import PatternStorage, get_pattern_storage
from poker_therapist.storage import context as module
from tests.helpers.clock import Clock
from tests.helpers.engines import postgresql_only, query, with_options

USER = 7
SAVERS, ROUNDS = 8, 40


@pytest.fixture
def always_purging(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_SAVES_PER_PURGE", 1)


@pytest.fixture
def other(migrated: str) -> Iterator[PatternStorage]:
    with get_pattern_storage(migrated) as opened:
        yield opened


def rows(database: str) -> int:
    ((count,),) = query(database, "SELECT count(*) FROM conversation_context")
    return int(count)


@postgresql_only
@pytest.mark.usefixtures("always_purging")
def test_a_save_does_not_wait_for_the_rows_that_another_saver_is_purging(
    migrated: str, storage: PatternStorage
) -> None:
    """If it waited, the other might come to wait for it: each has rows that the other wants."""
    with storage.transaction():
        for number in range(3):
            storage.save_context(USER, "said", number, expires_minutes=-1 - number)
    with (
        closing(psycopg.connect(migrated)) as purging,
        get_pattern_storage(with_options(migrated, "timeout=0.1")) as saver,
    ):
        purging.execute("DELETE FROM conversation_context WHERE context_value::text = '0'")
        saver.save_context(USER, "said", "while the other purges")
        purging.execute("DELETE FROM conversation_context WHERE expires_at < now()")
        purging.commit()

    assert storage.get_context(USER, "said") == ["while the other purges"]
    assert rows(migrated) == 1


@postgresql_only
@pytest.mark.usefixtures("always_purging")
def test_savers_that_purge_the_same_player_at_once_all_save(
    migrated: str, report: Callable[[str], None]
) -> None:
    def save(saver: int) -> None:
        with get_pattern_storage(migrated) as own:
            for number in range(ROUNDS):
                own.save_context(USER, "said", [saver, number])
                with own.transaction():
                    assert own.get_context(USER, "said", limit=1)
                    own.save_context(USER, "gone", [saver, number], expires_minutes=-1)
                    own.save_context(USER, "in a block", [saver, number])

    with ThreadPoolExecutor(SAVERS) as pool:
        list(pool.map(save, range(SAVERS)))

    everything = sorted([saver, number] for saver in range(SAVERS) for number in range(ROUNDS))
    with get_pattern_storage(migrated) as after:
        for key in ("said", "in a block"):
            assert sorted(after.get_context(USER, key)) == everything
    report(f"{SAVERS} savers purged one player {2 * SAVERS * ROUNDS} times: no conflict, nothing lost")


def test_a_block_whose_expired_rows_others_have_purged_meanwhile_is_kept(
    migrated: str,
    engine: str,
    storage: PatternStorage,
    other: PatternStorage,
    clock: Clock,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for number in range(3):
        storage.save_context(USER, "said", number, expires_minutes=1)
    clock.advance(minutes=2)
    monkeypatch.setattr(module, "_SAVES_PER_PURGE", 1)
    with storage.transaction():
        assert storage.get_patterns_by_type(USER, "tilt") == {}  # what it sees is decided now
        if engine == "postgresql":  # on SQLite the other would wait for the block
            other.save_context(USER, "said", "plain")
        storage.save_context(USER, "said", "in a block")

    assert "in a block" in storage.get_context(USER, "said")


def test_what_expires_goes_though_everything_is_saved_in_blocks(
    migrated: str, storage: PatternStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_SAVES_PER_PURGE", 2)
    for number in range(20):
        with storage.transaction():
            storage.save_context(USER, "said", number, expires_minutes=-1)

    assert rows(migrated) <= 4
    assert storage.get_context(USER, "said") == []
