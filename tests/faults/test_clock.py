"""The clock is put back by an hour: newest first is by id, and nothing that has expired returns.

`created_at` and `updated_at` are what the app's own clock said. An expiry is a moment of that clock, which
does not go back for an open storage: what is saved with one lives longer meanwhile, never shorter.
"""

import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from poker_therapist import PatternStorage, get_pattern_storage
from tests.helpers import old_app, snapshots
from tests.helpers.clock import Clock
from tests.helpers.migrating import IDS

USER, OTHER = 7, 8


def save(storage: PatternStorage, number: int) -> None:
    """Save a number in each of the three tables."""
    storage.save_pattern(USER, "number", str(number), number)
    storage.save_context(USER, "number", number, "monday")
    storage.save_insight(USER, "number", number)


def patterns(storage: PatternStorage) -> list[list[int]]:
    """Return the numbers as both ways of reading patterns order them."""
    return [
        [row["value"] for row in storage.get_patterns_by_type(USER, "number").values()],
        [row["value"] for row in storage.recall(USER)["patterns"].get("number", {}).values()],
    ]


def orders(storage: PatternStorage) -> list[list[int]]:
    """Return the numbers as every way of reading context and insights orders them."""
    recalled = storage.recall(USER, context_limit=None, insight_limit=None)
    exported = storage.export_user(USER)
    return [
        storage.get_context(USER, "number"),
        storage.get_context(USER, "number", "monday"),
        [row["value"] for row in recalled["context"]],
        [row["value"] for row in storage.recall(USER, "monday", context_limit=None)["context"]],
        [row["data"] for row in storage.get_insights(USER)],
        [row["data"] for row in storage.get_insights(USER, "number")],
        [row["data"] for row in recalled["insights"]],
        [row["value"] for row in reversed(exported["context"])],
        [row["value"] for row in reversed(exported["insights"])],
    ]


def test_what_was_said_last_comes_first_whatever_the_clock_says(
    engine: str, storage: PatternStorage, clock: Clock, report: Callable[[str], None]
) -> None:
    """Saved at 18:12, :22, :32, :42; put back by an hour; at 17:52, 18:02, :12, :22; and at last at 18:52."""
    for number in range(4):
        save(storage, number)
        clock.advance(minutes=10)
    clock.advance(hours=-1)
    for number in range(4, 8):
        save(storage, number)
        clock.advance(minutes=10)
    clock.advance(minutes=20)
    save(storage, 8)
    expected = [8, 7, 6, 5, 4, 3, 2, 1, 0]

    assert orders(storage) == [expected] * 9
    for limit in range(10):
        assert storage.get_context(USER, "number", limit=limit) == expected[:limit]
    # Last updated is what the clock said last.
    assert patterns(storage) == [[8, 3, 2, 7, 1, 6, 0, 5, 4]] * 2
    report(f"{engine}: clock put back by an hour: 9 ways of reading agree, by id")


def test_what_is_saved_again_has_its_last_value_and_its_first_time(
    storage: PatternStorage, clock: Clock
) -> None:
    """Whatever the clock says; `updated_at` is what it said at the last save."""
    storage.save_pattern(USER, "tilt", "bad_beat", "first")
    first = clock.moment.isoformat(timespec="microseconds")
    clock.advance(hours=-1)
    storage.save_pattern(USER, "tilt", "bad_beat", "second", 0.5)

    assert storage.get_patterns_by_type(USER, "tilt") == {
        "bad_beat": {
            "id": 1,
            "value": "second",
            "confidence": 0.5,
            "created_at": first,
            "updated_at": clock.moment.isoformat(timespec="microseconds"),
        }
    }


@pytest.mark.slow
def test_nothing_expires_before_its_time_and_nothing_live_is_purged(
    engine: str, storage: PatternStorage, clock: Clock, report: Callable[[str], None]
) -> None:
    """Saves, purges and a clock put back, at random: what has once expired stays so, and no more is gone."""
    chance = random.Random(7)
    lasts: dict[int, float | None] = {}  # until when, in minutes
    shown, minute, put_back, seen = 0.0, 0.0, 0, 0  # what the clock shows, and the most that it has shown
    for number in range(300):
        minutes = chance.choice([None, 5, 30, 90])
        storage.save_context(USER, "number", number, expires_minutes=minutes)
        lasts[number] = None if minutes is None else minute + minutes
        step = -60 if chance.random() < 0.05 else chance.choice([1, 5])
        put_back += step < 0
        clock.advance(minutes=step)
        shown += step
        minute = max(minute, shown)
        if number % 10 == 0:
            storage.purge_expired()
        found = set(storage.get_context(USER, "number"))
        live = {one for one, last in lasts.items() if last is None or last > minute}
        assert found == live
        assert set(orders(storage)[2]) == found
        seen += len(found)

    report(
        f"{engine}: clock put back {put_back} times by an hour between 300 saves and 30 purges: "
        f"all {seen:,} live rows seen, none that had expired by the clock"
    )


def test_the_backup_just_made_is_kept_though_older_ones_have_later_names(
    tmp_path: Path, report: Callable[[str], None]
) -> None:
    """Names tell the time, and of all backups the newest five are kept, and the one from before adoption."""
    path = tmp_path / "RexVoice.db"
    old_app.make(path)
    before = snapshots.everything(path)
    for number in range(5):
        shutil.copy(path, f"{path}.2999010{number + 1}T000000.000000Z.before-rollback-{IDS[0]}.backup")
    get_pattern_storage(path).close()
    backups = sorted(tmp_path.glob("*.backup"))

    assert len(backups) == 6
    assert "2999" not in backups[0].name
    assert snapshots.everything(backups[0]) == before
    report("clock put back before a migration: its backup is kept beside five with later names")
