"""Pages by key: whole, without gap or repetition, while others save and delete; bounds in time and score."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from poker_therapist import PatternStorage
from tests.helpers.clock import Clock

USER, OTHER = 7, 8
ROWS = 12
NOON = datetime(2026, 1, 5, 12, tzinfo=UTC)

# A page of three, after the last one of the page before.
Page = Callable[[PatternStorage, Any], list[Any]]
PAGES: dict[str, Page] = {
    "context": lambda storage, last: storage.get_context_items(USER, limit=3, before=last),
    "context of a key": lambda storage, last: storage.get_context_items(USER, "a", limit=3, before=last),
    "context of a session": lambda storage, last: storage.get_context_items(
        USER, None, "monday", limit=3, before=last and last["id"]
    ),
    "context of both": lambda storage, last: storage.get_context_items(
        USER, "a", "monday", limit=3, before=last
    ),
    "insights": lambda storage, last: storage.get_insights(USER, limit=3, before=last),
    "insights of a type": lambda storage, last: storage.get_insights(
        USER, "a", limit=3, before=last and last["id"]
    ),
    "foremost insights": lambda storage, last: storage.get_foremost_insights(USER, limit=3, before=last),
}


def add(storage: PatternStorage, number: int) -> None:
    for user in (USER, OTHER):
        storage.save_context(user, "a", number, "monday")
        storage.save_insight(user, "a", number, number % 3 / 2)  # many matter as much


@pytest.mark.parametrize("name", PAGES)
def test_pages_hold_each_row_once_while_others_save_and_delete(storage: PatternStorage, name: str) -> None:
    for number in range(ROWS):
        add(storage, number)
    in_order = sorted(range(ROWS), key=lambda number: (number % 3 if "foremost" in name else 0, number))[::-1]
    seen: list[int] = []
    last = None
    while page := PAGES[name](storage, last):
        seen += [row["value"] for row in page]
        last = page[-1]
        delete = storage.delete_context if "context" in name else storage.delete_insight
        delete(USER, last["id"])
        add(storage, 1_000 * ROWS + 2)  # it matters most, and belongs to a page that has been read

    assert seen == in_order


def test_each_bound_in_time_lets_in_what_it_says(storage: PatternStorage, clock: Clock) -> None:
    """From `since` on, up to but without `until`, to the microsecond; None is no bound."""
    moments = [NOON + timedelta(microseconds=number) for number in (-1, 0, 1, 2)]
    for number, moment in enumerate(moments):
        clock.moment = moment
        storage.save_pattern(USER, "a", str(number), number)
        storage.save_context(USER, "a", number, "monday")
        storage.save_insight(USER, "a", number)
    ways: list[Callable[..., Any]] = [
        lambda **bounds: list(storage.get_patterns_by_type(USER, "a", **bounds).values()),
        lambda **bounds: storage.get_context_items(USER, **bounds),
        lambda **bounds: storage.get_context_items(USER, "a", "monday", **bounds),
        lambda **bounds: storage.get_insights(USER, **bounds),
        lambda **bounds: storage.get_insights(USER, "a", **bounds),
    ]
    bounds: list[tuple[dict[str, datetime], list[int]]] = [
        ({"since": NOON}, [3, 2, 1]),
        ({"until": NOON + timedelta(microseconds=2)}, [2, 1, 0]),
        ({"since": NOON, "until": NOON + timedelta(microseconds=1)}, [1]),
        ({"since": NOON, "until": NOON}, []),
        (
            {"since": datetime.min.replace(tzinfo=UTC), "until": datetime.max.replace(tzinfo=UTC)},
            [3, 2, 1, 0],
        ),
    ]
    for given, expected in bounds:
        assert [[row["value"] for row in way(**given)] for way in ways] == [expected] * len(ways), given


def test_the_default_limit_is_fifty_and_none_is_all(storage: PatternStorage) -> None:
    with storage.transaction():
        for number in range(51):
            storage.save_context(USER, "a", number)
            storage.save_insight(USER, "a", number)
    ways: list[Callable[..., list[Any]]] = [
        storage.get_context_items, storage.get_insights, storage.get_foremost_insights
    ]  # fmt: skip

    assert [len(way(USER)) for way in ways] == [50] * 3
    assert [len(way(USER, limit=None)) for way in ways] == [51] * 3


def test_recall_says_whether_there_is_more_and_where_the_rest_begins(storage: PatternStorage) -> None:
    for number in range(4):
        storage.save_context(USER, "a", number, "monday")
        storage.save_insight(USER, "a", number, number % 2)
    some = storage.recall(USER, context_limit=3, insight_limit=3)
    context = storage.get_context_items(USER, before=some["context"][-1])
    insights = storage.get_foremost_insights(USER, before=some["insights"][-1])

    assert [row["value"] for row in some["context"] + context] == [3, 2, 1, 0]
    assert [row["value"] for row in some["insights"] + insights] == [3, 1, 2, 0]
    for limits, more in [((3, 3), (True, True)), ((4, 4), (False, False)), ((None, 0), (False, True))]:
        found = storage.recall(USER, "monday", context_limit=limits[0], insight_limit=limits[1])
        assert (found["more_context"], found["more_insights"]) == more
        assert len(found["context"]) == min(4, 4 if limits[0] is None else limits[0])


def test_only_what_is_sure_or_matters_enough(storage: PatternStorage) -> None:
    for score in (0.2, 0.5, 0.8):
        storage.save_pattern(USER, "a", str(score), score, score)
        storage.save_insight(USER, "a", score, score)
    recalled = storage.recall(USER, min_confidence=0.5, min_importance=0.8)
    least = storage.get_foremost_insights(USER)[-1]

    assert list(storage.get_patterns_by_type(USER, "a", min_confidence=0.5)) == ["0.8", "0.5"]
    assert [row["value"] for row in storage.get_foremost_insights(USER, min_importance=0.5)] == [0.8, 0.5]
    assert list(recalled["patterns"]["a"]) == ["0.8", "0.5"]
    assert [row["value"] for row in recalled["insights"]] == [0.8]
    assert recalled["more_insights"] is False
    assert storage.get_foremost_insights(USER, before={**least, "id": 99}, min_importance=0.5) == []
