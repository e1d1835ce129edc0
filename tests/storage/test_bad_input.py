"""What cannot be stored is refused by a message that names it, and the database stays as it was."""

import math
import sqlite3
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

import pytest

from poker_therapist import InvalidInput, PatternStorage, get_pattern_storage
from poker_therapist.sqlite.connections import SQLiteDatabase
from tests.helpers.engines import fetch_all, sqlite_only
from tests.helpers.players import TABLES

USER = 7

# Python writes no integer of more than 4,300 digits.
HUGE = 10**5_000

Call = Callable[[PatternStorage, Any], object]


@pytest.fixture(scope="module")
def filled(module_database: str) -> Iterator[PatternStorage]:
    """A storage with something of each kind in it."""
    with get_pattern_storage(module_database) as storage:
        storage.save_pattern(USER, "tilt", "bad_beat", "raises")
        storage.save_context(USER, "topic", "bankroll", "monday")
        storage.save_context(USER, "topic", "expired", expires_minutes=-1)
        storage.save_insight(USER, "leak", "calls")
        yield storage


def stored(storage: PatternStorage) -> list[list[Any]]:
    """Return every row of every table."""
    return [fetch_all(storage, f"SELECT * FROM {table} ORDER BY 1") for table in TABLES]


def refused(storage: PatternStorage, call: Call, bad: Any) -> str:
    """Return the message of the refusal; fail if anything was changed."""
    before = stored(storage)
    with pytest.raises(InvalidInput) as refusal:
        call(storage, bad)

    assert stored(storage) == before
    return str(refusal.value)


def shown(bad: Any) -> str:
    return "huge" if bad is HUGE else ascii(bad)[:20]


def named(calls: dict[str, Call]) -> list[Any]:
    return [pytest.param(call, id=name) for name, call in calls.items()]


# Players


@pytest.mark.parametrize(
    "bad", [True, False, "7", 7.0, None, math.nan, [7], 2**63, -(2**63) - 1, HUGE], ids=shown
)
@pytest.mark.parametrize(
    "call",
    named(
        {
            "save_pattern": lambda storage, user: storage.save_pattern(user, "tilt", "bad_beat", 1),
            "get_pattern": lambda storage, user: storage.get_pattern(user, "tilt", "bad_beat"),
            "get_patterns_by_type": lambda storage, user: storage.get_patterns_by_type(user, "tilt"),
            "save_context": lambda storage, user: storage.save_context(user, "topic", 1),
            "get_context": lambda storage, user: storage.get_context(user, "topic"),
            "get_context of session": lambda storage, user: storage.get_context(user, "topic", "monday"),
            "save_insight": lambda storage, user: storage.save_insight(user, "leak", 1),
            "get_insights": lambda storage, user: storage.get_insights(user),
            "get_insights of type": lambda storage, user: storage.get_insights(user, "leak"),
            "recall": lambda storage, user: storage.recall(user),
            "clear_user_patterns": lambda storage, user: storage.clear_user_patterns(user),
            "clear_user_context": lambda storage, user: storage.clear_user_context(user),
            "export_user": lambda storage, user: storage.export_user(user),
            "forget_user": lambda storage, user: storage.forget_user(user),
            "forget_users": lambda storage, user: storage.forget_users([1, user]),
            "save_patterns": lambda storage, user: storage.save_patterns(user, "tilt", {"bad_beat": 1}),
            "save_contexts": lambda storage, user: storage.save_contexts(user, [{"key": "a", "value": 1}]),
            "get_pattern_record": lambda storage, user: storage.get_pattern_record(user, "tilt", "bad_beat"),
            "set_confidence": lambda storage, user: storage.set_confidence(user, "tilt", "bad_beat", 0),
            "delete_pattern": lambda storage, user: storage.delete_pattern(user, "tilt", "bad_beat"),
            "get_context_items": lambda storage, user: storage.get_context_items(user),
            "delete_context": lambda storage, user: storage.delete_context(user, 1),
            "get_foremost_insights": lambda storage, user: storage.get_foremost_insights(user),
            "delete_insight": lambda storage, user: storage.delete_insight(user, 1),
            "clear_user_insights": lambda storage, user: storage.clear_user_insights(user),
            "list_pattern_types": lambda storage, user: storage.list_pattern_types(user),
            "list_sessions": lambda storage, user: storage.list_sessions(user),
            "count": lambda storage, user: storage.count(user),
        }
    ),
)
def test_a_user_id_that_is_no_integer_of_64_bits(filled: PatternStorage, call: Call, bad: Any) -> None:
    assert "user_id" in refused(filled, call, bad)


@pytest.mark.parametrize("user_id", [-(2**63), -1, 0, 2**63 - 1])
def test_any_integer_of_64_bits_is_a_user_id(storage: PatternStorage, user_id: int) -> None:
    storage.save_pattern(user_id, "tilt", "bad_beat", 1)
    storage.save_context(user_id, "topic", 2)
    storage.save_insight(user_id, "leak", 3)

    assert storage.get_pattern(user_id, "tilt", "bad_beat") == 1
    assert storage.get_context(user_id, "topic") == [2]
    assert storage.get_insights(user_id)[0]["data"] == 3
    assert storage.forget_user(user_id)["user_insights"] == 1


# Keys

BAD_KEYS = ["", "a\0b", "\0", "half \ud800 of a character", 7, b"bytes", ["key"], True]

KEYS: dict[str, dict[str, Call]] = {
    "pattern_type": {
        "save_pattern": lambda storage, key: storage.save_pattern(USER, key, "bad_beat", 1),
        "get_pattern": lambda storage, key: storage.get_pattern(USER, key, "bad_beat"),
        "get_patterns_by_type": lambda storage, key: storage.get_patterns_by_type(USER, key),
        "save_patterns": lambda storage, key: storage.save_patterns(USER, key, {"bad_beat": 1}),
        "get_pattern_record": lambda storage, key: storage.get_pattern_record(USER, key, "bad_beat"),
        "set_confidence": lambda storage, key: storage.set_confidence(USER, key, "bad_beat", 0),
        "delete_pattern": lambda storage, key: storage.delete_pattern(USER, key, "bad_beat"),
    },
    "pattern_key": {
        "save_pattern": lambda storage, key: storage.save_pattern(USER, "tilt", key, 1),
        "get_pattern": lambda storage, key: storage.get_pattern(USER, "tilt", key),
        "get_pattern_record": lambda storage, key: storage.get_pattern_record(USER, "tilt", key),
        "set_confidence": lambda storage, key: storage.set_confidence(USER, "tilt", key, 0),
        "delete_pattern": lambda storage, key: storage.delete_pattern(USER, "tilt", key),
    },
    "context_key": {
        "save_context": lambda storage, key: storage.save_context(USER, key, 1),
        "get_context": lambda storage, key: storage.get_context(USER, key),
        "get_context of session": lambda storage, key: storage.get_context(USER, key, "monday"),
        "get_context_items": lambda storage, key: storage.get_context_items(USER, key),
    },
    "session_id": {
        "save_context": lambda storage, key: storage.save_context(USER, "topic", 1, key),
        "get_context": lambda storage, key: storage.get_context(USER, "topic", key),
        "get_context_items": lambda storage, key: storage.get_context_items(USER, "topic", key),
        "recall": lambda storage, key: storage.recall(USER, key),
        "clear_user_context": lambda storage, key: storage.clear_user_context(USER, key),
    },
    "insight_type": {
        "save_insight": lambda storage, key: storage.save_insight(USER, key, 1),
        "get_insights": lambda storage, key: storage.get_insights(USER, key),
        "clear_user_insights": lambda storage, key: storage.clear_user_insights(USER, key),
    },
}
# Where None is a choice and no mistake.
NONE_IS_ALL = {("session_id", method) for method in KEYS["session_id"]} | {
    ("insight_type", "get_insights"),
    ("insight_type", "clear_user_insights"),
    ("context_key", "get_context_items"),
}


@pytest.mark.parametrize(
    ("name", "call", "bad"),
    [
        pytest.param(name, call, bad, id=f"{name} of {method}-{bad!a}")
        for name, calls in KEYS.items()
        for method, call in calls.items()
        for bad in [
            *(key for key in BAD_KEYS if (name, key) != ("session_id", "")),  # no session
            *([] if (name, method) in NONE_IS_ALL else [None]),
        ]
    ],
)
def test_a_key_that_is_no_text_or_empty_or_half_a_character(
    filled: PatternStorage, name: str, call: Call, bad: Any
) -> None:
    assert name in refused(filled, call, bad)


# Numbers

BAD_SCORES = [math.nan, math.inf, -math.inf, -0.1, 1.1, math.nextafter(1, 2), 2, HUGE, "0.5", True, None]


@pytest.mark.parametrize("bad", BAD_SCORES, ids=shown)
@pytest.mark.parametrize(
    ("name", "call"),
    [
        ("confidence", lambda storage, bad: storage.save_pattern(USER, "tilt", "bad_beat", 1, bad)),
        ("importance", lambda storage, bad: storage.save_insight(USER, "leak", 1, bad)),
        ("min_importance", lambda storage, bad: storage.get_insights(USER, min_importance=bad)),
        ("confidence", lambda storage, bad: storage.save_patterns(USER, "tilt", {"a": 1}, bad)),
        ("confidence", lambda storage, bad: storage.set_confidence(USER, "tilt", "bad_beat", bad)),
        (
            "min_confidence",
            lambda storage, bad: storage.get_patterns_by_type(USER, "tilt", min_confidence=bad),
        ),
        ("min_confidence", lambda storage, bad: storage.recall(USER, min_confidence=bad)),
        ("min_importance", lambda storage, bad: storage.recall(USER, min_importance=bad)),
        ("min_importance", lambda storage, bad: storage.get_foremost_insights(USER, min_importance=bad)),
        (
            "importance of before",
            lambda storage, bad: storage.get_foremost_insights(
                USER,
                before={"id": 1, "importance": bad},
            ),
        ),
    ],
)
def test_a_score_that_is_no_number_from_0_to_1(
    filled: PatternStorage, name: str, call: Call, bad: Any
) -> None:
    assert f"{name} must be" in refused(filled, call, bad)


@pytest.mark.parametrize("score", [0, 1, 0.0, 1.0, -0.0, 5e-324, 0.1])
def test_any_number_from_0_to_1_is_a_score_and_comes_back_exact(
    storage: PatternStorage, score: float
) -> None:
    storage.save_pattern(USER, "tilt", "bad_beat", 1, score)
    storage.save_insight(USER, "leak", 1, score)
    found = storage.get_patterns_by_type(USER, "tilt")["bad_beat"]["confidence"]

    assert (type(found), found) == (float, score)
    assert storage.get_insights(USER, min_importance=score)[0]["importance"] == score


@pytest.mark.parametrize("bad", [-1, True, "5", 5.0, math.nan, 2**63, HUGE], ids=shown)
@pytest.mark.parametrize(
    ("name", "call"),
    [
        ("limit", lambda storage, bad: storage.get_context(USER, "topic", limit=bad)),
        ("limit", lambda storage, bad: storage.get_insights(USER, limit=bad)),
        ("context_limit", lambda storage, bad: storage.recall(USER, context_limit=bad)),
        ("insight_limit", lambda storage, bad: storage.recall(USER, insight_limit=bad)),
        ("limit", lambda storage, bad: storage.get_context_items(USER, limit=bad)),
        ("limit", lambda storage, bad: storage.get_foremost_insights(USER, limit=bad)),
        ("limit", lambda storage, bad: storage.list_users(limit=bad)),
    ],
)
def test_a_limit_that_is_no_count(filled: PatternStorage, name: str, call: Call, bad: Any) -> None:
    assert refused(filled, call, bad).startswith(f"{name} must be")


@pytest.mark.parametrize(
    "bad",
    [math.nan, math.inf, -math.inf, 1e300, -1e300, 10**10, -(10**10), HUGE, "5", True, [5], Decimal(5)],
    ids=shown,
)
def test_an_expiry_that_is_no_number_within_the_calendar(filled: PatternStorage, bad: Any) -> None:
    message = refused(
        filled, lambda storage, minutes: storage.save_context(USER, "topic", 1, None, minutes), bad
    )

    assert "expires_minutes" in message


@pytest.mark.parametrize("bad", [True, "7", 7.0, [7], 2**63, {"key": 7}], ids=shown)
@pytest.mark.parametrize(
    ("name", "call"),
    [
        ("before", lambda storage, bad: storage.get_context_items(USER, before=bad)),
        ("before", lambda storage, bad: storage.get_insights(USER, before=bad)),
        ("before", lambda storage, bad: storage.get_insights(USER, before={"id": bad})),
        ("before", lambda storage, bad: storage.get_foremost_insights(USER, before=bad)),
        ("after", lambda storage, bad: storage.list_users(after=bad)),
        ("context_id", lambda storage, bad: storage.delete_context(USER, bad)),
        ("insight_id", lambda storage, bad: storage.delete_insight(USER, bad)),
    ],
)
def test_an_id_that_is_none(filled: PatternStorage, name: str, call: Call, bad: Any) -> None:
    assert refused(filled, call, bad).startswith(f"{name} ")


def test_a_record_of_another_kind_is_no_place_in_a_list(filled: PatternStorage) -> None:
    filled.save_context(USER, "topic", 1)
    filled.save_insight(USER, "leak", 1)
    pattern = filled.get_pattern_record(USER, "tilt", "bad_beat")
    (said,), (insight,) = filled.get_context_items(USER, limit=1), filled.get_insights(USER, limit=1)

    assert filled.get_insights(USER, before=insight) is not None
    for bad in (pattern, insight):
        assert "before" in refused(
            filled, lambda storage, bad: storage.get_context_items(USER, before=bad), bad
        )
    other: Any
    for other in (pattern, said):
        assert "before" in refused(filled, lambda storage, bad: storage.get_insights(USER, before=bad), other)
        call: Call = lambda storage, bad: storage.get_foremost_insights(USER, before=bad)  # noqa: E731
        assert "before" in refused(filled, call, other)


MOMENT = datetime(2026, 1, 5, 18, 12, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    "bad",
    [
        MOMENT.replace(tzinfo=None),
        MOMENT.isoformat(),
        MOMENT.date(),
        MOMENT.timestamp(),
        datetime.min.replace(tzinfo=timezone(timedelta(hours=1))),
        datetime.max.replace(tzinfo=timezone(timedelta(hours=-1))),
    ],
    ids=shown,
)
@pytest.mark.parametrize(
    ("name", "call"),
    [
        ("created_at", lambda storage, bad: storage.save_context(USER, "topic", 1, created_at=bad)),
        ("created_at", lambda storage, bad: storage.save_insight(USER, "leak", 1, created_at=bad)),
        ("since", lambda storage, bad: storage.get_context_items(USER, since=bad)),
        ("until", lambda storage, bad: storage.get_insights(USER, until=bad)),
        ("since", lambda storage, bad: storage.get_patterns_by_type(USER, "tilt", since=bad)),
    ],
)
def test_a_moment_that_is_no_aware_datetime_within_the_calendar(
    filled: PatternStorage, name: str, call: Call, bad: Any
) -> None:
    is_aware = isinstance(bad, datetime) and bad.tzinfo is not None
    says = "must be in the years 1 to 9999 in UTC" if is_aware else "must be a datetime with a time zone"
    assert refused(filled, call, bad).startswith(f"{name} {says}")


def test_what_is_refused_is_said_with_what_it_must_be(filled: PatternStorage) -> None:
    calls: dict[str, Call] = {
        "session_id must be a non-empty string (got 7)": lambda storage, _: storage.recall(USER, bad(7)),
        "context_key must be a non-empty string (got '')": lambda storage, _: storage.get_context(USER, ""),
        "user_id must be an integer of at most 64 bits (got '7')": lambda storage, _: storage.count(bad("7")),
        "confidence must be a number from 0 to 1 (got 2)": lambda storage, _: storage.save_pattern(
            USER, "tilt", "bad_beat", 1, 2
        ),
    }

    def bad(value: Any) -> Any:
        return value

    assert [refused(filled, call, None) for call in calls.values()] == list(calls)


# Values


def nested(levels: int, kind: type) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = {"in": value} if kind is dict else kind([value])
    return value


def cycle() -> list[Any]:
    value: list[Any] = [1]
    value.append({"again": value})
    return value


# What is wrong, and a word that its message must hold.
BAD_VALUES: dict[str, tuple[Any, str]] = {
    "NaN": (math.nan, "float"),
    "infinity": (math.inf, "float"),
    "minus infinity": (-math.inf, "float"),
    "NaN in a list": ([1, [math.nan]], "float"),
    "infinity in a dict": ({"a": {"b": (math.inf,)}}, "float"),
    "bytes": (b"abc", "bytes"),
    "bytes inside": ({"a": [b"abc"]}, "bytes"),
    "bytearray": (bytearray(b"abc"), "bytearray"),
    "datetime": ({"at": datetime(2026, 1, 5, tzinfo=UTC)}, "datetime"),
    "decimal": (Decimal("1.5"), "Decimal"),
    "complex": (1j, "complex"),
    "set": ({"a": {1, 2}}, "set"),
    "iterator": (iter([1]), "iterator"),
    "object": (object(), "object"),
    "int key": ({1: "a"}, "got 1, int"),
    "float key": ({1.5: "a"}, "got 1.5, float"),
    "bool key": ({True: "a"}, "got True, bool"),
    "None key": ({None: "a"}, "got None, NoneType"),
    "tuple key": ({(1, 2): "a"}, "tuple"),
    "bytes key": ({b"a": 1}, "bytes"),
    "key deep inside": ([{"a": ({"b": [{"c": {2: "a"}}]},)}], "got 2, int"),
    "key in an empty-looking dict": ([{}, {None: {}}], "got None, NoneType"),
    "cycle": (cycle(), "or contains itself"),
    "10,000 lists": (nested(10_000, list), "levels deep"),
    "10,000 tuples": (nested(10_000, tuple), "levels deep"),
    "10,000 dicts": (nested(10_000, dict), "levels deep"),
    "501 lists": (nested(501, list), "levels deep"),
    "501 dicts": (nested(501, dict), "levels deep"),
    "lone surrogate": ("half \ud800 of a character", "lone surrogate"),
    "lone surrogate inside": (["\udfff"], "lone surrogate"),
    "lone surrogate in a key": ({"\ud800": 1}, "lone surrogate"),
    "surrogate pair": ("\ud83c\udca1", "lone surrogate"),
    "5,000 digits": (HUGE, "digits"),
    "minus 5,000 digits inside": ({"a": -HUGE}, "digits"),
}


@pytest.mark.parametrize(("bad", "word"), BAD_VALUES.values(), ids=BAD_VALUES)
@pytest.mark.parametrize(
    "call",
    named(
        {
            "save_pattern": lambda storage, value: storage.save_pattern(USER, "tilt", "bad_beat", value),
            "save_context": lambda storage, value: storage.save_context(USER, "topic", value),
            "save_insight": lambda storage, value: storage.save_insight(USER, "leak", value),
            "save_patterns": lambda storage, value: storage.save_patterns(USER, "tilt", {"a": value}),
            "save_contexts": lambda storage, value: storage.save_contexts(
                USER, [{"key": "topic", "value": 1}, {"key": "topic", "value": value}]
            ),
        }
    ),
)
def test_a_value_that_json_cannot_give_back_equal(
    filled: PatternStorage, call: Call, bad: Any, word: str
) -> None:
    message = refused(filled, call, bad)

    assert "value" in message
    assert word in message


@pytest.mark.parametrize("kind", [list, dict])
def test_a_value_may_be_500_levels_deep(storage: PatternStorage, kind: type) -> None:
    value = nested(500, kind)
    storage.save_pattern(USER, "tilt", "deep", value)

    assert storage.get_pattern(USER, "tilt", "deep") == value
    assert storage.get_patterns_by_type(USER, "tilt")["deep"]["value"] == value


@sqlite_only
def test_a_value_that_is_longer_than_sqlite_holds(storage: PatternStorage) -> None:
    assert isinstance(storage._database, SQLiteDatabase)
    session = storage._database._here.session
    assert session is not None
    session.connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, 10_000)

    message = refused(storage, lambda storage, value: storage.save_insight(USER, "leak", value), "x" * 20_000)
    assert "value" in message


def test_a_refused_value_leaves_the_rest_of_a_transaction(storage: PatternStorage) -> None:
    with storage.transaction():
        storage.save_pattern(USER, "tilt", "first", 1)
        with pytest.raises(InvalidInput):
            storage.save_pattern(USER, "tilt", "second", math.nan)

    assert list(storage.get_patterns_by_type(USER, "tilt")) == ["first"]


def test_a_refusal_does_not_repeat_a_long_text(filled: PatternStorage) -> None:
    """It may be a player's, and messages go into logs."""
    message = refused(
        filled, lambda storage, key: storage.save_pattern(USER, "tilt", key, 1), "secret " * 1_000 + "\0"
    )

    assert len(message) < 200
