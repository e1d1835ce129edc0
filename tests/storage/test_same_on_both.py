"""What the storage returns is the same on both engines, to the last character."""

import math
import random
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from poker_therapist import PatternStorage, get_pattern_storage
from tests.helpers.clock import Clock
from tests.helpers.players import add_legacy_rows

USER = 7

Both = tuple[PatternStorage, PatternStorage]

MOMENTS = [
    datetime(2026, 1, 5, 18, 12, 1, tzinfo=UTC),
    datetime(2026, 1, 5, 18, 12, 1, 1, tzinfo=UTC),
    datetime(2026, 1, 5, 18, 12, 1, 100_000, tzinfo=UTC),
    datetime(2026, 1, 5, 18, 12, 1, 999_999, tzinfo=UTC),
    datetime(2024, 2, 29, 23, 59, 59, 120_000, tzinfo=UTC),
    datetime(1969, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC),
    datetime(1900, 1, 1, tzinfo=UTC),
    datetime(1, 1, 2, 0, 0, 0, 5, tzinfo=UTC),
    datetime(9999, 12, 30, 23, 59, 59, 999_990, tzinfo=UTC),
]
SCORES = [0, 1, 0.0, -0.0, 1.0, 0.1, 0.1 + 0.2, 1 / 3, 5e-324, 2.2250738585072014e-308]
SCORES += [math.nextafter(0.5, 1), math.nextafter(1, 0), 0.12345678901234567, 1e-7, 123456789e-17]
# Which sorts before which depends on the engine, the locale and the encoding, if one lets it.
KEYS = ["a", "A", "Z", "z", "aa", "ab", "a-b", "a_b", "é", "e", "f", "ß", "ss", "Ä", "0", "10", "9", "10a"]
KEYS += ["~", "_", "ÿ", "Ω", "中", "🂡"]
KEYS += ["a b", " ", "  a", "\t", "\x01", "\x7f", "\x80", "\ue000", "\uffff", "\U0001d538"]


@pytest.fixture
def both(database_path: Path, migrated_postgresql_url: str, clock: Clock) -> Iterator[Both]:
    """A storage of each engine, whose clock stands still."""
    with (
        get_pattern_storage(database_path) as on_sqlite,
        get_pattern_storage(migrated_postgresql_url) as on_postgresql,
    ):
        add_legacy_rows(database_path)
        add_legacy_rows(migrated_postgresql_url)
        yield on_sqlite, on_postgresql


def everything(storage: PatternStorage) -> dict[str, str]:
    """Return all that can be read, written out: so 1 is not 1.0, and the order of keys counts."""
    answers: dict[str, Any] = {
        "recall": storage.recall(USER, context_limit=None, insight_limit=None),
        "recall of a session": storage.recall(USER, "a"),
        "export": storage.export_user(USER),
        "context": storage.get_context(USER, "a"),
        "context of a session": storage.get_context(USER, "a", "a"),
        "insights": storage.get_insights(USER, limit=None),
        "insights of a type": storage.get_insights(USER, "a", 0.1),
        "patterns": [storage.get_patterns_by_type(USER, kind) for kind in KEYS],
        "pattern": storage.get_pattern_record(USER, "a", "of each type"),
        "items": storage.get_context_items(USER, since=MOMENTS[0], limit=None),
        "items of a session": storage.get_context_items(USER, "a", "a", until=MOMENTS[0]),
        "foremost": storage.get_foremost_insights(USER, min_importance=0.1, limit=None),
        "after the fifth": storage.get_foremost_insights(
            USER, before=next(iter(storage.get_foremost_insights(USER)[4:]), None)
        ),
        "lists": [storage.list_users(), storage.list_sessions(USER), storage.list_pattern_types(USER)],
        "count": storage.count(USER),
    }
    return {name: repr(answer) for name, answer in answers.items()}


def test_times_and_scores(both: Both, clock: Clock) -> None:
    for number, moment in enumerate(MOMENTS):
        clock.moment = moment
        for storage in both:
            for score in SCORES:
                storage.save_pattern(USER, "a", f"{number} {score!r}", score, score)
                storage.save_insight(USER, "a", score, score)
            storage.save_context(USER, "a", number, "a")
            storage.save_context(USER, "a", number, "a", expires_minutes=0.1)
            storage.save_context(USER, "a", number, expires_minutes=60 * 23.9)
    clock.moment = MOMENTS[0]
    on_sqlite, on_postgresql = map(everything, both)

    assert on_postgresql == on_sqlite


def test_keys_and_their_order(both: Both) -> None:
    """By their bytes; what the locale or the version of the system says of letters counts nowhere."""
    keys = random.Random(7).sample(KEYS, len(KEYS))
    for storage in both:
        storage.save_patterns(USER, "of one type", {key: key for key in keys})
        storage.save_contexts(USER, [{"key": key, "value": key, "session_id": key} for key in keys])
        for key in keys:
            storage.save_pattern(USER, key, "of each type", {key: key})
            storage.save_insight(USER, key, key, 0.5)
    on_sqlite, on_postgresql = map(everything, both)
    exported = [row["key"] for row in both[1].export_user(USER)["patterns"] if row["type"] == "of one type"]
    types = list(both[1].recall(USER)["patterns"])

    assert on_postgresql == on_sqlite
    assert exported == sorted(KEYS, key=str.encode)
    assert types == sorted([*KEYS, "of one type"], key=str.encode, reverse=True)


def test_subclasses_of_the_types_that_are_taken(both: Both) -> None:
    """As an app has them that names its players and keys with enumerations."""

    class Player(int):
        def __str__(self) -> str:
            return "Player"

    class Key(str):
        __slots__ = ()

        def __str__(self) -> str:
            return "Key"

    class Score(float):
        def __str__(self) -> str:
            return "Score"

    for storage in both:
        with storage.transaction():
            storage.save_pattern(Player(USER), Key("a"), Key("b"), Key("c"), Score(0.5))
            storage.save_context(Player(USER), Key("a"), [Key("b")], Key("c"), Score(1))
            storage.save_insight(Player(USER), Key("a"), {Key("b"): Key("c")}, Score(0.5))
            storage.save_patterns(Player(USER), Key("m"), {Key("b"): Key("c"), "d": 1}, Score(0.5))
            storage.save_contexts(
                Player(USER),
                [{"key": Key("m"), "value": Key("c"), "session_id": Key("s")}, {"key": "m", "value": 1}],
            )
    on_sqlite, on_postgresql = map(everything, both)

    assert on_postgresql == on_sqlite
    assert "'b': {'id': 1, 'value': 'c', 'confidence': 0.5" in on_postgresql["recall"]
