"""What each method of the storage does."""

import math
from typing import Any, cast

import psycopg
import pytest

from poker_therapist import PatternStorage, PokerTherapistError, get_pattern_storage
from tests.helpers.clock import Clock
from tests.helpers.engines import columns, execute, is_server
from tests.helpers.players import add_legacy_rows, legacy_values
from tests.helpers.pooler import engine_or_pooler

engine = engine_or_pooler
USER, OTHER = 7, 8

FIRST = "2026-01-05T18:12:01.000000+00:00"
A_MINUTE_BEFORE = "2026-01-05T18:11:01.000000+00:00"
LATER = "2026-01-05T18:13:01.000000+00:00"

# Patterns


def test_saving_a_pattern_again_replaces_it_and_keeps_its_id_and_created_at(
    storage: PatternStorage, clock: Clock
) -> None:
    storage.save_pattern(USER, "tilt", "bad_beat", "raises", 0.7)
    (before,) = storage.export_user(USER)["patterns"]
    clock.advance(minutes=1)
    storage.save_pattern(USER, "tilt", "bad_beat", {"bets_up": 1.8}, 0.9)
    (after,) = storage.export_user(USER)["patterns"]

    changed = {"value": {"bets_up": 1.8}, "confidence": 0.9, "updated_at": LATER}
    assert after == before | changed
    assert after["created_at"] == FIRST


@pytest.mark.parametrize("default", [None, "unknown", 0])
def test_a_pattern_that_is_not_there_is_the_default(storage: PatternStorage, default: Any) -> None:
    storage.save_pattern(USER, "tilt", "bad_beat", 1)

    assert storage.get_pattern(USER, "tilt", "cooler", default) == default
    assert storage.get_pattern(USER, "bluff", "bad_beat", default) == default
    assert storage.get_pattern(OTHER, "tilt", "bad_beat", default) == default


@pytest.mark.parametrize("value", [None, False, 0, "", [], {}])
def test_a_stored_nothing_is_returned_and_not_the_default(storage: PatternStorage, value: Any) -> None:
    storage.save_pattern(USER, "tilt", "bad_beat", value)

    assert repr(storage.get_pattern(USER, "tilt", "bad_beat", "default")) == repr(value)


def test_a_confidence_is_1_unless_given(storage: PatternStorage, clock: Clock) -> None:
    storage.save_pattern(USER, "tilt", "bad_beat", "raises")

    expected = {"id": 1, "value": "raises", "confidence": 1.0, "created_at": FIRST, "updated_at": FIRST}
    assert storage.get_patterns_by_type(USER, "tilt") == {"bad_beat": expected}


def test_patterns_of_a_type_come_last_updated_first_and_then_the_last_added(
    storage: PatternStorage, clock: Clock
) -> None:
    for key in ("a", "b", "c"):
        storage.save_pattern(USER, "tilt", key, 1)
    storage.save_pattern(USER, "bluff", "x", 1)
    clock.advance(minutes=1)
    storage.save_pattern(USER, "tilt", "a", 2)
    clock.advance(minutes=-2)
    storage.save_pattern(USER, "tilt", "d", 1)

    assert list(storage.get_patterns_by_type(USER, "tilt")) == ["a", "c", "b", "d"]
    assert list(storage.recall(USER)["patterns"]["tilt"]) == ["a", "c", "b", "d"]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("\n [1, 2] ", [1, 2]),
        ('{"b":1,"a":1E2,"b":-0.0}', {"b": -0.0, "a": 100.0}),
        (r'"\ud83c\udca1 \u0000"', "🂡 \0"),
        (r'"\ud800"', "\ud800"),
        # More digits than Python reads.
        ("9" * 5_000, "9" * 5_000),
        (f"[1, {'9' * 5_000}]", f"[1, {'9' * 5_000}]"),
    ],
    ids=["blanks", "twice", "escapes", "surrogate", "digits", "digits inside"],
)
def test_json_that_others_wrote_reads_as_python_reads_it_or_as_its_text(
    storage: PatternStorage, text: str, value: Any
) -> None:
    """What is read with it reads as ever."""
    storage.save_pattern(USER, "tilt", "bad_beat", "replaced")
    for neighbour in ("first", "replaced", "last"):
        storage.save_context(USER, "topic", neighbour)
    execute(storage, "UPDATE user_patterns SET pattern_value = ?1", (text,))
    execute(storage, "UPDATE conversation_context SET context_value = ?1 WHERE id = 2", (text,))

    assert repr(storage.get_pattern(USER, "tilt", "bad_beat")) == repr(value)
    assert repr(storage.get_context(USER, "topic")) == repr(["last", value, "first"])


@pytest.mark.parametrize("frames", [300, 500, 700, 850])
def test_a_deep_value_is_never_read_as_its_text(storage: PatternStorage, frames: int) -> None:
    """Whoever reads it from deep inside a program gets the value, or an error where the stack ends."""
    value: Any = "deep"
    for _ in range(450):
        value = [value]
    storage.save_pattern(USER, "tilt", "deep", value)
    storage.save_context(USER, "deep", value)

    def read(more: int) -> Any:
        if more:
            return read(more - 1)
        return storage.get_pattern(USER, "tilt", "deep"), storage.get_context(USER, "deep")

    try:
        found = read(frames)
    except (RecursionError, PokerTherapistError):
        found = None
    assert found in (None, (value, [value]))


# Context


def test_context_comes_newest_first_whatever_the_clock_says(storage: PatternStorage, clock: Clock) -> None:
    for value, minutes in [("a", 0), ("b", 0), ("from a clock put back", -1), ("c", 2), ("d", 0)]:
        clock.advance(minutes=minutes)
        storage.save_context(USER, "topic", value, "monday")

    expected = ["d", "c", "from a clock put back", "b", "a"]
    assert storage.get_context(USER, "topic") == expected
    assert storage.get_context(USER, "topic", "monday") == expected
    assert [row["value"] for row in storage.recall(USER)["context"]] == expected
    assert [row["value"] for row in storage.recall(USER, "monday")["context"]] == expected


@pytest.mark.parametrize(
    ("expires_minutes", "seen", "seen_an_hour_later"),
    [
        (None, True, True),
        (0, True, True),  # as in the earlier app: no expiry
        (-5, False, False),
        (-0.0, True, True),
        (-0.5, False, False),
        (0.5, True, False),
        (60, True, False),
        (60.1, True, True),
    ],
)
def test_context_is_seen_until_it_expires(
    storage: PatternStorage,
    clock: Clock,
    expires_minutes: float | None,
    seen: bool,
    seen_an_hour_later: bool,
) -> None:
    """It stays in the table, so it is the WHERE clause that hides it and not the purge."""
    storage.save_context(USER, "other", "the first save purges, the second does not")
    storage.save_context(USER, "topic", "bankroll", "monday", expires_minutes)

    for expected in (seen, seen_an_hour_later):
        assert storage.get_context(USER, "topic") == ["bankroll"] * expected
        assert storage.get_context(USER, "topic", "monday") == ["bankroll"] * expected
        assert any(row["key"] == "topic" for row in storage.recall(USER)["context"]) == expected
        assert any(row["key"] == "topic" for row in storage.recall(USER, "monday")["context"]) == expected
        assert len(storage.export_user(USER)["context"]) == 2
        clock.advance(hours=1)


def test_a_limit_counts_only_what_is_live(storage: PatternStorage) -> None:
    storage.save_context(USER, "topic", "live", "monday")
    storage.save_context(USER, "topic", "expired", "monday", expires_minutes=-1)

    assert storage.get_context(USER, "topic", limit=1) == ["live"]
    assert storage.get_context(USER, "topic", "monday", limit=1) == ["live"]
    assert [row["value"] for row in storage.recall(USER, context_limit=1)["context"]] == ["live"]


@pytest.mark.parametrize(
    ("session_id", "expected"),
    [("monday", ["m2", "m1"]), ("tuesday", ["t"]), ("never", []), (None, ["none", "m2", "t", "m1"])],
)
def test_context_is_of_one_session_or_of_all(
    storage: PatternStorage, session_id: str | None, expected: list[str]
) -> None:
    for value, session in [("m1", "monday"), ("t", "tuesday"), ("m2", "monday"), ("none", None)]:
        storage.save_context(USER, "topic", value, session)
    storage.save_context(USER, "another key", "x", "monday")

    assert storage.get_context(USER, "topic", session_id) == expected


@pytest.mark.parametrize(("limit", "count"), [(0, 0), (1, 1), (60, 60), (1000, 60), (None, 60)])
def test_a_limit_is_how_many_are_returned_at_most(
    storage: PatternStorage, limit: int | None, count: int
) -> None:
    with storage.transaction():
        for number in range(60):
            storage.save_context(USER, "topic", number, "monday")
            storage.save_insight(USER, "leak", number)
    newest = list(range(59, -1, -1))[:count]
    recalled = storage.recall(USER, "monday", context_limit=limit, insight_limit=limit)

    assert storage.get_context(USER, "topic", limit=limit) == newest
    assert storage.get_context(USER, "topic", "monday", limit) == newest
    assert [insight["data"] for insight in storage.get_insights(USER, limit=limit)] == newest
    assert [insight["data"] for insight in storage.get_insights(USER, "leak", limit=limit)] == newest
    assert [context["value"] for context in recalled["context"]] == newest
    assert [insight["data"] for insight in recalled["insights"]] == newest
    assert len(storage.get_insights(USER)) == 50


# Insights


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        ({}, ["d", "c", "b", "a"]),
        ({"insight_type": "leak"}, ["c", "a"]),
        ({"insight_type": "never"}, []),
        ({"min_importance": 0.5}, ["c", "b"]),
        ({"min_importance": math.nextafter(0.5, 1)}, ["c"]),
        ({"insight_type": "leak", "min_importance": 0.5}, ["c"]),
        ({"min_importance": 0.5, "limit": 1}, ["c"]),
        ({"min_importance": 1}, ["c"]),
    ],
)
def test_insights_are_filtered_and_come_newest_first(
    storage: PatternStorage, clock: Clock, filters: dict[str, Any], expected: list[str]
) -> None:
    storage.save_insight(USER, "leak", "a", 0.1)
    clock.advance(minutes=1)
    storage.save_insight(USER, "goal", "b")
    storage.save_insight(USER, "leak", "c", 1)
    storage.save_insight(USER, "goal", "d", 0)

    assert [insight["data"] for insight in storage.get_insights(USER, **filters)] == expected


def test_an_insight_is_returned_whole(storage: PatternStorage, clock: Clock) -> None:
    storage.save_insight(USER, "leak", {"calls": "too wide"})

    value = {"calls": "too wide"}
    expected = {
        "id": 1,
        "type": "leak",
        "value": value,
        "data": value,
        "importance": 0.5,
        "created_at": FIRST,
    }
    assert storage.get_insights(USER) == [expected]


# Recall


@pytest.mark.parametrize(("session_id", "context"), [(None, ["none", "t", "m"]), ("monday", ["m"])])
def test_recall_returns_patterns_live_context_and_the_insights_that_matter_most(
    storage: PatternStorage, clock: Clock, session_id: str | None, context: list[str]
) -> None:
    storage.save_pattern(USER, "tilt", "bad_beat", "raises", 0.7)
    storage.save_pattern(USER, "bluff", "river", True)
    for value, session in [("m", "monday"), ("t", "tuesday"), ("none", None)]:
        storage.save_context(USER, "topic", value, session, expires_minutes=1)
    for data, importance in [("high", 1), ("old", 0.9), ("low", 0.1), ("new", 0.9)]:
        storage.save_insight(USER, "leak", data, importance)
    recalled = storage.recall(USER, session_id, insight_limit=3)

    tilt = {"id": 1, "value": "raises", "confidence": 0.7, "created_at": FIRST, "updated_at": FIRST}
    assert recalled["patterns"]["tilt"]["bad_beat"] == tilt
    assert set(recalled["patterns"]) == {"tilt", "bluff"}
    assert [row["value"] for row in recalled["context"]] == context
    times = {"created_at": FIRST, "expires_at": LATER}
    said = {"id": 1, "key": "topic", "value": "m", "session_id": "monday"} | times
    assert {**recalled["context"][-1]} == said
    assert [insight["data"] for insight in recalled["insights"]] == ["high", "new", "old"]


@pytest.mark.parametrize("method", ["recall", "export_user"])
def test_all_parts_are_of_one_moment(
    migrated: str, storage: PatternStorage, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    """Somebody else saves after the first of its queries: the later ones do not see it."""
    place: Any = psycopg.RawCursor if is_server(migrated) else storage._database
    name = "fetchall" if is_server(migrated) else "fetch_all"
    read = getattr(place, name)

    def read_and_be_overtaken(*arguments: Any) -> list[Any]:
        rows: list[Any] = read(*arguments)
        with monkeypatch.context() as patched:
            patched.setattr(place, name, read)
            with get_pattern_storage(migrated) as somebody_else:
                somebody_else.save_context(USER, "topic", "too late")
                somebody_else.save_insight(USER, "leak", "too late")
        return rows

    with monkeypatch.context() as patched:
        patched.setattr(place, name, read_and_be_overtaken)
        found = getattr(storage, method)(USER)

    assert found["context"] + found["insights"] == []
    assert storage.get_context(USER, "topic", limit=1) == ["too late"]


# Export


def test_an_export_holds_every_column_of_every_row(
    migrated: str, storage: PatternStorage, clock: Clock
) -> None:
    storage.save_pattern(USER, "tilt", "bad_beat", "raises", 0.7)
    storage.save_context(USER, "topic", "bankroll", "monday", expires_minutes=1)
    storage.save_context(USER, "topic", ["expired"], expires_minutes=-1)
    storage.save_insight(USER, "leak", {"calls": None})
    add_legacy_rows(migrated)
    exported = storage.export_user(USER)

    at = {"created_at": FIRST}
    pattern = {"id": 1, "type": "tilt", "key": "bad_beat", "value": "raises", "confidence": 0.7} | at
    said = {"id": 1, "key": "topic", "value": "bankroll", "session_id": "monday", "expires_at": LATER} | at
    gone = {
        "id": 2,
        "key": "topic",
        "value": ["expired"],
        "session_id": None,
        "expires_at": A_MINUTE_BEFORE,
    } | at
    insight = {"id": 1, "type": "leak", "value": {"calls": None}, "importance": 0.5} | at
    assert exported["user_id"] == USER
    # At least: a later migration adds columns.
    known = {"patterns": [pattern | {"updated_at": FIRST}], "context": [said, gone], "insights": [insight]}
    for name, rows in known.items():
        found = cast(dict[str, Any], exported)[name]
        assert len(found) == len(rows)
        assert all(row.items() <= one.items() for row, one in zip(rows, found, strict=True))
    assert legacy_values(storage, USER) == ["old context", "old context", "old insight", "old pattern"]
    for table, part in [
        ("user_patterns", exported["patterns"]),
        ("conversation_context", exported["context"]),
        ("user_insights", exported["insights"]),
        ("legacy_rows", exported["legacy_rows"]),
    ]:
        assert len(columns(migrated)[table]) - 1 == len(part[0]), f"{table} but for user_id"


def test_an_export_is_the_same_each_time(storage: PatternStorage, clock: Clock) -> None:
    for key in ("c", "a", "b"):
        storage.save_pattern(USER, "tilt", key, key)
        storage.save_context(USER, key, key)
        storage.save_insight(USER, key, key)
    before = storage.export_user(USER)
    storage.save_pattern(OTHER, "tilt", "a", 1)
    storage.save_pattern(USER, "tilt", "c", "c")

    assert storage.export_user(USER) == before
    assert [row["key"] for row in before["patterns"]] == ["a", "b", "c"]
    assert [row["key"] for row in before["context"]] == ["c", "a", "b"]


# Privacy


@pytest.mark.parametrize("other", [OTHER, 0, -USER, 2**63 - 1, -(2**63)])
def test_two_players_never_see_or_touch_each_other(storage: PatternStorage, other: int) -> None:
    storage.save_pattern(USER, "tilt", "bad_beat", "secret")
    storage.save_context(USER, "topic", "secret", "monday")
    storage.save_insight(USER, "leak", "secret")
    before = storage.export_user(USER)

    assert storage.get_pattern(other, "tilt", "bad_beat") is None
    assert storage.get_patterns_by_type(other, "tilt") == {}
    assert storage.get_context(other, "topic") + storage.get_context(other, "topic", "monday") == []
    assert storage.get_insights(other) + storage.get_insights(other, "leak") == []
    for session in (None, "monday"):
        assert not any(storage.recall(other, session).values())
        assert storage.clear_user_context(other, session) == 0
    assert storage.clear_user_patterns(other) == 0
    assert set(storage.forget_user(other).values()) == {0}
    storage.save_pattern(other, "tilt", "bad_beat", "mine")
    assert storage.export_user(USER) == before
