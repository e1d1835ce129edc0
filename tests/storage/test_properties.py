"""Properties: any value comes back equal, and any order of operations does what a plain model does."""

import copy
import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any
from unittest import mock

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from poker_therapist import PatternStorage, get_pattern_storage, values
from tests.helpers.clock import Clock

# The same examples each time, so that a failure is a change and not luck.
settings.register_profile(
    "repeatable",
    derandomize=True,
    deadline=None,
    max_examples=150,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("repeatable")

USER = 7

huge = st.builds(lambda zeros, rest: 10**zeros + rest, st.integers(0, 3_999), st.integers())
scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | huge
    | huge.map(lambda number: -number)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.sampled_from([-0.0, 0.0, 5e-324, 1.7976931348623157e308, 1e22, 2**53 + 1, 0.1 + 0.2])
    | st.text()
    | st.sampled_from(["", "\0", "a\0b", "\u2028", "🂡", "\uffff", "7.5", "null", "NaN", '{"a": 1}', " [1] "])
)
json_values = st.recursive(
    scalars, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=12
)


@pytest.fixture(scope="module")
def one_storage(module_database: str) -> Iterator[PatternStorage]:
    """One storage for all examples of a test."""
    with get_pattern_storage(module_database) as storage:
        yield storage


def same(found: Any, expected: Any) -> bool:
    """Return whether two values are equal, with equal types, order of keys and sign of zero."""
    return bool(found == expected and repr(found) == repr(expected))


@pytest.mark.slow
@given(json_values)
def test_any_pattern_comes_back_equal(one_storage: PatternStorage, value: Any) -> None:
    one_storage.save_pattern(USER, "tilt", "bad_beat", value)

    assert same(one_storage.get_pattern(USER, "tilt", "bad_beat"), value)
    assert same(one_storage.get_patterns_by_type(USER, "tilt")["bad_beat"]["value"], value)


@pytest.mark.slow
@given(st.lists(json_values, min_size=1, max_size=8))
@settings(max_examples=80)
def test_any_context_and_insights_come_back_equal_in_bulk(
    one_storage: PatternStorage, saved: list[Any]
) -> None:
    one_storage.clear_user_context(USER)
    one_storage.forget_user(USER)
    with one_storage.transaction():
        for value in saved:
            one_storage.save_context(USER, "topic", value, "monday")
            one_storage.save_insight(USER, "leak", value)
    newest_first = saved[::-1]
    recalled = one_storage.recall(USER)

    assert same(one_storage.get_context(USER, "topic"), newest_first)
    assert same(one_storage.get_context(USER, "topic", "monday"), newest_first)
    assert same([insight["data"] for insight in one_storage.get_insights(USER)], newest_first)
    assert same([context["value"] for context in recalled["context"]], newest_first)
    assert same([insight["value"] for insight in one_storage.export_user(USER)["insights"]], saved)


@given(json_values)
@pytest.mark.slow
def test_tuples_come_back_as_lists(one_storage: PatternStorage, value: Any) -> None:
    one_storage.save_pattern(USER, "tilt", "tuple", (value, (value,)))

    assert same(one_storage.get_pattern(USER, "tilt", "tuple"), [value, [value]])


# Random operations against a model

users = st.sampled_from([7, 8, -9])
keys = st.sampled_from(["a", "b", "A"])
sessions = st.none() | st.sampled_from(["monday", "tuesday"])
scores = st.sampled_from([0, 0.25, 0.5, 1.0])
limits = st.none() | st.integers(0, 5)
small_values = (
    st.none() | st.booleans() | st.integers(-3, 3) | st.text(max_size=3) | st.lists(st.floats(0, 1))
)


@dataclass
class Model:
    """What should be stored: plain rows, in the order in which they were added."""

    patterns: dict[tuple[int, str, str], dict[str, Any]] = field(default_factory=dict)
    context: list[dict[str, Any]] = field(default_factory=list)
    insights: list[dict[str, Any]] = field(default_factory=list)


def newest_first(rows: list[dict[str, Any]], *by: str) -> list[dict[str, Any]]:
    """Sort by columns, the last added first where they are equal."""
    last_added_first = rows[::-1]
    return sorted(last_added_first, key=lambda row: [row[name] for name in by], reverse=True)


def without(rows: Iterable[Any], *names: str) -> list[dict[str, Any]]:
    return [{name: value for name, value in row.items() if name not in names} for row in rows]


class Operations(RuleBasedStateMachine):
    """Does the same to a storage and to a model, and compares all that can be seen after each step."""

    database: str

    def __init__(self) -> None:
        super().__init__()
        self.clock = Clock()
        self.latest = self.clock.moment
        self.patched = mock.patch.object(values, "now", self.clock)
        self.patched.start()
        self.storage = get_pattern_storage(self.database)
        self.model = Model()
        for user in (7, 8, -9):
            self.storage.forget_user(user)

    def teardown(self) -> None:
        self.storage.close()
        self.patched.stop()

    @property
    def now(self) -> str:
        return self.clock.moment.isoformat(timespec="microseconds")

    def is_live(self, row: dict[str, Any]) -> bool:
        return row["expires_at"] is None or datetime.fromisoformat(row["expires_at"]) > self.latest

    def is_stored(self, row: dict[str, Any]) -> bool:
        """Return whether a row is there for sure: what has expired may have been purged."""
        return "expires_at" not in row or self.is_live(row)

    @rule(seconds=st.sampled_from([-60, 0.000001, 1, 60, 3600]))
    def time_passes(self, seconds: float) -> None:
        self.clock.advance(seconds=seconds)
        self.latest = max(self.latest, self.clock.moment)  # for expiry no clock goes back

    @rule(user=users, kind=keys, key=keys, value=small_values, confidence=scores)
    def save_pattern(self, user: int, kind: str, key: str, value: Any, confidence: float) -> None:
        self.storage.save_pattern(user, kind, key, value, confidence)
        row = self.model.patterns.setdefault((user, kind, key), {"created_at": self.now})
        row.update(value=value, confidence=confidence, updated_at=self.now)

    @rule(
        user=users,
        key=keys,
        value=small_values,
        session=sessions,
        minutes=st.sampled_from([None, None, -1, 0, 0.5, 1, 60]),
    )
    def save_context(
        self, user: int, key: str, value: Any, session: str | None, minutes: float | None
    ) -> None:
        self.storage.save_context(user, key, value, session, minutes)
        expires_at = None
        if minutes:  # zero, as None, never expires
            expires_at = (self.latest + timedelta(minutes=minutes)).isoformat(timespec="microseconds")
        row = {"user": user, "key": key, "value": value, "session_id": session}
        self.model.context.append(row | {"created_at": self.now, "expires_at": expires_at})

    @rule(user=users, kind=keys, data=small_values, importance=scores)
    def save_insight(self, user: int, kind: str, data: Any, importance: float) -> None:
        for value in (data, "as important"):
            self.storage.save_insight(user, kind, value, importance)
            row = {"user": user, "type": kind, "value": value, "data": value, "importance": importance}
            self.model.insights.append(row | {"created_at": self.now})

    @rule(
        user=users,
        kind=keys,
        many=st.dictionaries(st.sampled_from(["a", "b", "A", "c"]), small_values),
        confidence=scores,
    )
    def save_patterns(self, user: int, kind: str, many: dict[str, Any], confidence: float) -> None:
        self.storage.save_patterns(user, kind, many, confidence)
        for key, value in many.items():
            row = self.model.patterns.setdefault((user, kind, key), {"created_at": self.now})
            row.update(value=value, confidence=confidence, updated_at=self.now)

    @rule(
        user=users,
        many=st.lists(st.tuples(keys, small_values, sessions, st.sampled_from([None, -1, 0, 1])), max_size=4),
        ago=st.sampled_from([None, 0, 5]),
    )
    def save_contexts(
        self, user: int, many: list[tuple[str, Any, str | None, float | None]], ago: float | None
    ) -> None:
        created = None if ago is None else self.clock.moment - timedelta(minutes=ago)
        self.storage.save_contexts(
            user,
            [
                {
                    "key": key,
                    "value": value,
                    "session_id": session,
                    "expires_minutes": minutes,
                    "created_at": created,
                }
                for key, value, session, minutes in many
            ],
        )
        for key, value, session, minutes in many:
            expires_at = None
            if minutes:
                expires_at = (self.latest + timedelta(minutes=minutes)).isoformat(timespec="microseconds")
            row = {"user": user, "key": key, "value": value, "session_id": session}
            at = (created or self.clock.moment).isoformat(timespec="microseconds")
            self.model.context.append(row | {"created_at": at, "expires_at": expires_at})

    @rule(user=users, kind=keys, key=keys, confidence=scores)
    def set_confidence(self, user: int, kind: str, key: str, confidence: float) -> None:
        row = self.model.patterns.get((user, kind, key))

        assert self.storage.set_confidence(user, kind, key, confidence) == (row is not None)
        if row is not None:
            row["confidence"] = confidence

    @rule(user=users, kind=keys, key=keys)
    def delete_pattern(self, user: int, kind: str, key: str) -> None:
        gone = self.model.patterns.pop((user, kind, key), None)

        assert self.storage.delete_pattern(user, kind, key) == (gone is not None)

    @rule(user=users, place=st.integers(0, 3))
    def delete_the_so_manieth(self, user: int, place: int) -> None:
        """Of context, and of insights by importance; the model finds its row at the same place."""
        items = self.storage.get_context_items(user)
        live = [row for row in newest_first(self.model.context) if row["user"] == user and self.is_live(row)]
        if place < len(items):
            assert self.storage.delete_context(user, items[place]["id"])
            assert not self.storage.delete_context(user, items[place]["id"])
            self.model.context = [row for row in self.model.context if row is not live[place]]
        insights = self.storage.get_foremost_insights(user)
        mine = newest_first([row for row in self.model.insights if row["user"] == user], "importance")
        if place < len(insights):
            assert self.storage.delete_insight(user, insights[place]["id"])
            self.model.insights = [row for row in self.model.insights if row is not mine[place]]

    @rule(user=users, kind=st.none() | keys)
    def clear_insights(self, user: int, kind: str | None) -> None:
        gone = [row for row in self.model.insights if row["user"] == user and kind in (None, row["type"])]

        assert self.storage.clear_user_insights(user, kind) == len(gone)
        self.model.insights = [row for row in self.model.insights if row not in gone]

    @rule(
        user=users,
        key=st.none() | keys,
        session=sessions,
        size=st.integers(1, 3),
        least=scores,
        since=st.sampled_from([None, -120, 0]),
        until=st.sampled_from([None, 0, 60]),
    )
    def pages_agree(
        self,
        user: int,
        key: str | None,
        session: str | None,
        size: int,
        least: float,
        since: float | None,
        until: float | None,
    ) -> None:
        first, end = (
            None if bound is None else self.clock.moment + timedelta(seconds=bound)
            for bound in (since, until)
        )

        def is_within(row: dict[str, Any]) -> bool:
            at = datetime.fromisoformat(row["created_at"])
            return (first is None or first <= at) and (end is None or at < end)

        def pages(read: Callable[..., Any], **filters: Any) -> Iterator[Any]:
            page = read(user, limit=size, **filters)
            while page:
                yield from page
                page = read(user, limit=size, before=page[-1], **filters)

        mine = [row for row in newest_first(self.model.insights) if row["user"] == user]
        context = [
            row
            for row in newest_first(self.model.context)
            if row["user"] == user
            and key in (None, row["key"])
            and session in (None, row["session_id"])
            and self.is_live(row)
            and is_within(row)
        ]
        of_type = [
            row
            for row in mine
            if key in (None, row["type"]) and row["importance"] >= least and is_within(row)
        ]
        foremost = newest_first([row for row in mine[::-1] if row["importance"] >= least], "importance")
        bounds = {"since": first, "until": end}
        found = pages(self.storage.get_context_items, context_key=key, session_id=session, **bounds)
        assert without(found, "id") == without(context, "user")
        found = pages(self.storage.get_insights, insight_type=key, min_importance=least, **bounds)
        assert without(found, "id", "data") == without(of_type, "user", "data")
        found = pages(self.storage.get_foremost_insights, min_importance=least)
        assert without(found, "id", "data") == without(foremost, "user", "data")

    @rule(user=users)
    def lists_agree(self, user: int) -> None:
        sessions = [
            row["session_id"]
            for row in newest_first(self.model.context)
            if row["user"] == user and self.is_live(row) and row["session_id"]
        ]
        types = {kind for whose, kind, _ in self.model.patterns if whose == user}
        known = {whose for whose, _, _ in self.model.patterns}
        known |= {row["user"] for row in self.model.insights + self.model.context if self.is_stored(row)}
        counts = self.storage.count(user)

        assert self.storage.list_sessions(user) == list(dict.fromkeys(sessions))
        assert self.storage.list_pattern_types(user) == sorted(types)
        assert known <= set(self.storage.list_users()) <= {7, 8, -9}
        assert counts["user_patterns"] == sum(whose == user for whose, _, _ in self.model.patterns)
        assert counts["user_insights"] == sum(row["user"] == user for row in self.model.insights)

    @rule(user=users)
    def clear_patterns(self, user: int) -> None:
        gone = [place for place in self.model.patterns if place[0] == user]

        assert self.storage.clear_user_patterns(user) == len(gone)
        for place in gone:
            del self.model.patterns[place]

    @rule(user=users, session=sessions)
    def clear_context(self, user: int, session: str | None) -> None:
        gone = [
            row for row in self.model.context if row["user"] == user and session in (None, row["session_id"])
        ]

        # Saving may have purged some of those that have expired.
        live = sum(self.is_live(row) for row in gone)
        assert live <= self.storage.clear_user_context(user, session) <= len(gone)
        self.model.context = [row for row in self.model.context if row not in gone]

    @rule(user=users)
    def forget(self, user: int) -> None:
        forgotten = self.storage.forget_user(user)

        mine = [row for row in self.model.insights if row["user"] == user]
        assert forgotten["user_patterns"] == sum(place[0] == user for place in self.model.patterns)
        assert forgotten["user_insights"] == len(mine)
        self.model.patterns = {place: row for place, row in self.model.patterns.items() if place[0] != user}
        self.model.context = [row for row in self.model.context if row["user"] != user]
        self.model.insights = [row for row in self.model.insights if row["user"] != user]

    @rule()
    def purge(self) -> None:
        left = [row for row in self.model.context if self.is_live(row)]

        assert 0 <= self.storage.purge_expired() <= len(self.model.context) - len(left)
        assert sum(len(self.storage.export_user(user)["context"]) for user in (7, 8, -9)) == len(left)
        self.model.context = left

    @rule(user=users, value=small_values, fails=st.booleans())
    def transaction(self, user: int, value: Any, fails: bool) -> None:
        before = copy.deepcopy(self.model)
        with suppress(ZeroDivisionError), self.storage.transaction():
            self.save_pattern(user, "a", "b", value, 0.5)
            self.clear_context(user, "monday")
            self.save_context(user, "a", value, "monday", None)
            self.save_insight(user, "a", value, 1.0)
            if fails:
                raise ZeroDivisionError
        if fails:
            self.model = before

    @rule()
    def reopen(self) -> None:
        self.purge()  # what has expired may have been purged already, and then it does not come back
        self.storage.close()
        self.storage = get_pattern_storage(self.database)
        self.latest = self.clock.moment  # but for a storage that is opened anew

    @rule(user=users, key=keys, session=sessions, least=scores, limit=limits)
    def reads_with_filters_and_limits_agree(
        self, user: int, key: str, session: str | None, least: float, limit: int | None
    ) -> None:
        context = [
            row["value"]
            for row in newest_first(self.model.context)
            if (row["user"], row["key"]) == (user, key)
            and session in (None, row["session_id"])
            and self.is_live(row)
        ]
        insights = [
            row
            for row in newest_first(self.model.insights)
            if (row["user"], row["type"]) == (user, key) and row["importance"] >= least
        ]
        assert same(self.storage.get_context(user, key, session, limit), context[:limit])
        found = self.storage.get_insights(user, key, least, limit)
        assert without(found, "id") == without(insights[:limit], "user")

    @invariant()
    def everything_agrees(self) -> None:
        for user in (7, 8, -9):
            recalled = self.storage.recall(user, context_limit=None, insight_limit=None)
            context = [row for row in self.model.context if row["user"] == user and self.is_live(row)]
            insights = [row for row in self.model.insights if row["user"] == user]
            by_importance = newest_first(insights, "importance")
            patterns: dict[str, dict[str, Any]] = {}
            for (whose, kind, key), row in self.model.patterns.items():
                if whose == user:
                    patterns.setdefault(kind, {})[key] = row

            found = without(recalled["context"], "id")
            assert json.dumps(found) == json.dumps(without(newest_first(context), "user"))
            assert without(recalled["insights"], "id") == without(by_importance, "user")
            for insight in recalled["insights"][:1]:
                rest = self.storage.get_foremost_insights(user, before=insight)
                assert [insight, *rest] == recalled["insights"]
            assert {
                kind: dict(zip(of_kind, without(of_kind.values(), "id"), strict=True))
                for kind, of_kind in recalled["patterns"].items()
            } == patterns
            for kind, of_kind in patterns.items():
                last_updated = newest_first(
                    [{"key": key, **row} for key, row in of_kind.items()], "updated_at"
                )
                by_type = self.storage.get_patterns_by_type(user, kind)
                assert list(by_type) == list(recalled["patterns"][kind])
                assert list(by_type) == [row["key"] for row in last_updated]
                assert dict(zip(by_type, without(by_type.values(), "id"), strict=True)) == of_kind
                for key, row in of_kind.items():
                    assert same(self.storage.get_pattern(user, kind, key), row["value"])


@pytest.mark.slow
def test_random_operations_do_what_they_do_to_a_model(module_database: str) -> None:
    class OnThisEngine(Operations):
        database = module_database

    run_state_machine_as_test(OnThisEngine, settings=settings(max_examples=30, stateful_step_count=30))
