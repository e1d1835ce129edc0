"""Two players at once, under the same names: neither ever sees, changes or deletes what is the other's."""

import itertools
import random
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar

import pytest

from poker_therapist import PatternStorage, TransactionConflict, get_pattern_storage, values
from tests.helpers.engines import is_server
from tests.helpers.snapshots import is_whole

# The same names for both, so that only the player tells their rows apart.
NAMES = ("a", "b", "c")
SESSIONS = (None, "monday", "tuesday")
SCORES = (0.0, 0.5, 1.0)
LIMITS = (None, 1, 3)


class Undone(Exception):
    """What a block raises to be undone."""


@dataclass
class Model:
    """What one player has: plain values, in the order in which they were saved."""

    patterns: dict[tuple[str, str], dict[str, Any]] = field(default_factory=dict)
    context: list[dict[str, Any]] = field(default_factory=list)
    insights: list[dict[str, Any]] = field(default_factory=list)

    def copy(self) -> "Model":
        """Return a copy; its rows, of which none is ever changed, are the same."""
        return Model(dict(self.patterns), list(self.context), list(self.insights))

    def live(self) -> list[dict[str, Any]]:
        """Return what has not expired, newest first."""
        return [row for row in self.context[::-1] if not row["expired"]]


class Player:
    """Does things at random, each to the storage and to a model, and compares whatever can be read."""

    def __init__(self, storage: PatternStorage, user: int, seed: int) -> None:
        self.storage = storage
        self.user = user
        self.chance = random.Random(seed)
        self.model = Model()
        self.said: list[Any] = []
        self.done: Counter[str] = Counter()
        self.number = itertools.count()

    def value(self) -> list[int]:
        """Return a value that nobody else saves."""
        return [self.user, next(self.number)]

    def choose(self, *of: Any) -> Any:
        return self.chance.choice(of)

    # Writing

    def save_pattern(self) -> None:
        place, row = (
            (self.choose(*NAMES), self.choose(*NAMES)),
            {"value": self.value(), "confidence": self.choose(*SCORES)},
        )
        self.storage.save_pattern(self.user, *place, row["value"], row["confidence"])
        self.model.patterns.pop(place, None)
        self.model.patterns[place] = row

    def save_context(self) -> None:
        row = {"key": self.choose(*NAMES), "value": self.value(), "session_id": self.choose(*SESSIONS)}
        minutes = self.choose(None, 60, 0, -1)
        self.storage.save_context(self.user, row["key"], row["value"], row["session_id"], minutes)
        self.said.append(row["value"])
        self.model.context.append(row | {"expired": minutes is not None and minutes < 0})

    def save_insight(self) -> None:
        row = {"type": self.choose(*NAMES), "data": self.value(), "importance": self.choose(*SCORES)}
        self.storage.save_insight(self.user, row["type"], row["data"], row["importance"])
        self.model.insights.append(row)

    def clear_user_patterns(self) -> None:
        assert self.storage.clear_user_patterns(self.user) == len(self.model.patterns)
        self.model.patterns.clear()

    def clear_user_context(self) -> None:
        session = self.choose(*SESSIONS)
        gone = [row for row in self.model.context if session in (None, row["session_id"])]
        self._require_gone(self.storage.clear_user_context(self.user, session), gone)
        self.model.context = [row for row in self.model.context if row not in gone]

    def _require_gone(self, count: int, gone: list[dict[str, Any]]) -> None:
        """Require as many deleted rows as there were, of which others may have purged the expired."""
        assert sum(not row["expired"] for row in gone) <= count <= len(gone)

    def purge_expired(self) -> None:
        self.storage.purge_expired()
        # On PostgreSQL what the other player's block is purging is left to it, and it may be undone.
        if not is_server(self.storage.db_path):
            self.model.context = [row for row in self.model.context if not row["expired"]]

    def forget_user(self) -> None:
        forgotten = self.storage.forget_user(self.user)
        assert forgotten["user_patterns"] == len(self.model.patterns)
        assert forgotten["user_insights"] == len(self.model.insights)
        self._require_gone(forgotten["conversation_context"], self.model.context)
        self.model = Model()

    # Reading

    def get_pattern(self) -> None:
        place = (self.choose(*NAMES), self.choose(*NAMES))
        known = self.model.patterns.get(place, {"value": "none"})
        assert self.storage.get_pattern(self.user, *place, "none") == known["value"]

    def get_patterns_by_type(self) -> None:
        kind = self.choose(*NAMES)
        found = self.storage.get_patterns_by_type(self.user, kind)
        assert _plain(found) == self._patterns().get(kind, [])

    def get_context(self) -> None:
        key, session, limit = self.choose(*NAMES), self.choose(*SESSIONS), self.choose(*LIMITS)
        known = [
            row["value"]
            for row in self.model.live()
            if row["key"] == key and session in (None, row["session_id"])
        ]
        assert self.storage.get_context(self.user, key, session, limit) == known[:limit]

    def get_insights(self) -> None:
        kind, least, limit = self.choose(None, *NAMES), self.choose(*SCORES), self.choose(*LIMITS)
        known = [
            row
            for row in self.model.insights[::-1]
            if kind in (None, row["type"]) and row["importance"] >= least
        ]
        found = self.storage.get_insights(self.user, kind, least, limit)
        assert _without_time(found) == known[:limit]

    def recall(self) -> None:
        session, limit = self.choose(*SESSIONS), self.choose(*LIMITS)
        found = self.storage.recall(self.user, session, context_limit=limit, insight_limit=limit)
        context = [row for row in self.model.live() if session in (None, row["session_id"])]
        newest_first = self.model.insights[::-1]
        insights = sorted(newest_first, key=lambda row: -row["importance"])
        assert {kind: _plain(of_kind) for kind, of_kind in found["patterns"].items()} == self._patterns()
        assert [row["value"] for row in found["context"]] == [row["value"] for row in context[:limit]]
        assert _without_time(found["insights"]) == insights[:limit]

    def export_user(self) -> None:
        found = self.storage.export_user(self.user)
        context = [row["value"] for row in found["context"]]
        assert found["user_id"] == self.user
        assert {(row["type"], row["key"]): row["value"] for row in found["patterns"]} == {
            place: row["value"] for place, row in self.model.patterns.items()
        }
        assert [row["value"] for row in found["insights"]] == [row["data"] for row in self.model.insights]
        live = [row["value"] for row in self.model.live()[::-1]]
        assert [value for value in context if value in live] == live
        # What another storage is purging right now may still be there.
        assert all(value in self.said for value in context)
        assert found["legacy_rows"] == []

    def _patterns(self) -> dict[str, list[tuple[str, Any, float]]]:
        """Return the patterns of each type, last updated first."""
        known: dict[str, list[tuple[str, Any, float]]] = {}
        for (kind, key), row in reversed(self.model.patterns.items()):
            known.setdefault(kind, []).append((key, row["value"], row["confidence"]))
        return known

    # Both

    WEIGHTS: ClassVar[dict[Callable[["Player"], None], int]] = {
        save_pattern: 20,
        save_context: 25,
        save_insight: 10,
        clear_user_patterns: 2,
        clear_user_context: 4,
        purge_expired: 2,
        get_pattern: 10,
        get_patterns_by_type: 10,
        get_context: 10,
        get_insights: 10,
        recall: 10,
        export_user: 5,
    }

    def step(self) -> None:
        """Do one thing, inside a block or outside."""
        (do,) = self.chance.choices(list(self.WEIGHTS), list(self.WEIGHTS.values()))
        self.do(do)

    def do(self, what: Callable[["Player"], None]) -> None:
        what(self)
        self.done[what.__name__] += 1


def _plain(patterns: Any) -> list[tuple[str, Any, float]]:
    return [(key, row["value"], row["confidence"]) for key, row in patterns.items()]


def _without_time(insights: Any) -> list[dict[str, Any]]:
    return [{name: row[name] for name in ("type", "data", "importance")} for row in insights]


def play(players: list[Player], steps: int) -> None:
    """Let players who share a thread take turns at random, alone and in blocks, some of which are undone."""
    one = players[0]
    for _ in range(steps):
        before = [player.model.copy() for player in players]
        what = one.chance.random()
        try:
            if what < 0.02:
                one.choose(*players).do(Player.forget_user)
            elif what < 0.15:
                play_block(players)
            else:
                one.choose(*players).step()
        except (Undone, TransactionConflict) as error:  # of which nothing was kept
            one.done[type(error).__name__] += 1
            for player, model in zip(players, before, strict=True):
                player.model = model


def play_block(players: list[Player]) -> None:
    one = players[0]
    with one.storage.transaction():
        for _ in range(one.chance.randrange(1, 6)):
            one.choose(*players).step()
        if one.chance.random() < 0.4:
            raise Undone


@pytest.fixture
def ticking(monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock that no two calls find at the same moment, so that there is one order."""
    ticks, start = itertools.count(), datetime(2026, 1, 5, 18, 12, 1, tzinfo=UTC)
    monkeypatch.setattr(values, "now", lambda: start + timedelta(microseconds=next(ticks)))


@pytest.mark.slow
@pytest.mark.parametrize("how", ["one thread", "two threads, one storage", "two threads, two storages"])
def test_two_players_never_see_each_other(
    engine: str, how: str, migrated: str, ticking: None, report: Callable[[str], None]
) -> None:
    """Whatever they do at the same time; each finds exactly what a model of him alone has."""
    with ExitStack() as stack:
        first = stack.enter_context(get_pattern_storage(migrated))
        second = stack.enter_context(get_pattern_storage(migrated)) if "two storages" in how else first
        players = [Player(first, 7, seed=7), Player(second, 8, seed=8)]
        if how == "one thread":
            play(players, 4_000)
        else:
            with ThreadPoolExecutor(2) as pool:
                for played in [pool.submit(play, [player], 2_000) for player in players]:
                    played.result()
        for player in players:
            player.export_user()

    done = players[0].done + players[1].done
    assert is_whole(migrated)
    report(
        f"{engine}, {how}: {done.total():,} calls by two players, {done['Undone']} blocks undone: "
        "neither saw the other"
    )
