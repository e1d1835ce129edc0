"""Many saves at once: all or none, in their order, and in one round trip to a server."""

import re
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from poker_therapist import InvalidInput, NewContext, PatternStorage, get_pattern_storage
from tests.helpers.clock import Clock
from tests.helpers.engines import postgresql_only, run_sql, sqlite_only
from tests.helpers.pooler import past
from tests.helpers.sessions import PATIENCE, sessions, wait_until

USER, OTHER = 7, 8
ODD = "\0 \\u0000 \\ ' \" {1,2} NULL ♠ \ud7ff"


def test_many_patterns_are_saved_and_replace_what_was_there(storage: PatternStorage, clock: Clock) -> None:
    storage.save_pattern(USER, "tilt", "a", "old", 0.1)
    values: dict[str, Any] = {
        "a": {"new": [1, 0.1, None]},
        ODD.replace("\0", ""): ODD,
        "{}": [],
        "NULL": None,
    }
    storage.save_patterns(USER, "tilt", values, confidence=0.3)
    found = storage.get_patterns_by_type(USER, "tilt")

    assert {key: row["value"] for key, row in found.items()} == values
    assert {row["confidence"] for row in found.values()} == {0.3}
    assert found["a"]["id"] == 1


def test_many_things_said_are_saved_as_one_by_one_and_their_ids_returned_in_order(
    storage: PatternStorage, clock: Clock
) -> None:
    storage.save_context(8, "topic", "somebody else's")
    items: list[NewContext] = [
        {"key": ODD[1:], "value": ODD, "session_id": "monday", "expires_minutes": 5},
        {"key": "b", "value": [None], "session_id": "", "expires_minutes": 0},
        {"key": "c", "value": 0.1, "session_id": None, "created_at": clock.moment.replace(year=2020)},
        {"key": "d", "value": "gone", "expires_minutes": -1},
    ]
    ids = storage.save_contexts(USER, iter(items))
    many = storage.export_user(USER)["context"]
    for item in items:
        storage.save_context(
            9,
            item["key"],
            item["value"],
            item.get("session_id"),
            item.get("expires_minutes"),
            created_at=item.get("created_at"),
        )
    single = storage.export_user(9)["context"]

    assert ids == sorted(ids) == [row["id"] for row in many]
    assert [{**row, "id": 0} for row in many] == [{**row, "id": 0} for row in single]


class Twice(Mapping[str, Any]):
    """A mapping that names a key twice, as those of query strings do."""

    def __getitem__(self, key: str) -> Any:
        raise NotImplementedError

    def __len__(self) -> int:
        return 2

    def __iter__(self) -> Iterator[str]:
        return iter(["a", "a"])

    def items(self) -> Any:
        return [("a", 1), ("a", 2)]


def test_of_a_key_that_is_named_twice_the_last_value_counts(storage: PatternStorage) -> None:
    storage.save_patterns(USER, "tilt", Twice())

    assert storage.get_pattern(USER, "tilt", "a") == 2


class Odd(str):
    """A text that is equal to nothing but itself."""

    __hash__ = object.__hash__

    def __eq__(self, other: object) -> bool:
        return self is other

    def __ne__(self, other: object) -> bool:
        return self is not other


def test_keys_that_spell_the_same_are_the_same_key(storage: PatternStorage) -> None:
    storage.save_patterns(USER, "tilt", {Odd("k"): 1, Odd("k"): 2, "k": 3})

    assert storage.get_pattern(USER, "tilt", "k") == 3
    assert storage.count(USER)["user_patterns"] == 1


def test_nothing_is_saved_of_nothing(storage: PatternStorage) -> None:
    storage.save_patterns(USER, "tilt", {})

    assert storage.save_contexts(USER, []) == []
    assert storage.list_users() == []


@pytest.mark.parametrize(
    ("item", "message"),
    [
        ({"key": "", "value": 1}, r"item 2: key must be a non-empty string \(got ''\)"),
        ({"key": "b", "value": float("nan")}, "item 2: the value is not JSON"),
        ({"key": "b", "value": 1, "session_id": 7}, "item 2: session_id must be a non-empty string"),
        ({"key": "b", "value": 1, "expires_minutes": "5"}, "item 2: expires_minutes must be"),
        ({"key": "b", "value": 1, "created_at": "2026-01-05"}, "item 2: created_at must be a datetime with"),
        ({"key": "b", "value": 1, "expires_at": None}, "item 2: it must be a dict with key and value"),
        ({"key": "b"}, "item 2: it must be a dict with key and value"),
        (("b", 1), "item 2: it must be a dict with key and value"),
    ],
)
def test_of_many_none_is_saved_if_one_cannot_be(storage: PatternStorage, item: Any, message: str) -> None:
    with pytest.raises(InvalidInput, match=f"^{message}"):
        storage.save_contexts(USER, [{"key": "a", "value": 1}, item])

    assert storage.list_users() == []


@pytest.mark.parametrize(
    ("patterns", "message"),
    [
        ({"a": 1, "": 2}, r"pattern '': pattern_key must be a non-empty string"),
        ({"a": 1, "b": {2}}, "pattern 'b': the value is not JSON"),
        ({"a": 1, 5: 2}, r"pattern 5: pattern_key must be a non-empty string \(got 5\)"),
    ],
)
def test_of_many_patterns_none_is_saved_if_one_cannot_be(
    storage: PatternStorage, patterns: Any, message: str
) -> None:
    with pytest.raises(InvalidInput, match=f"^{message}"):
        storage.save_patterns(USER, "tilt", patterns)

    assert storage.list_users() == []


@pytest.mark.parametrize(
    "bad", [None, 7, "", "78", b"", b"\x07\x08", bytearray(b"\x07"), memoryview(b"\x07")]
)
def test_what_is_no_list_of_items(storage: PatternStorage, bad: Any) -> None:
    with pytest.raises(InvalidInput, match=r"^items must be a list of dicts"):
        storage.save_contexts(USER, bad)
    with pytest.raises(InvalidInput, match=r"^items must be a list of dicts"):
        storage.save_contexts(USER, {})
    with pytest.raises(InvalidInput, match=r"^user_ids must be a list of players"):
        storage.forget_users(bad)
    with pytest.raises(InvalidInput, match=r"^patterns must be a dict of keys and values"):
        storage.save_patterns(USER, "tilt", bad)


def test_many_are_part_of_the_block_that_they_stand_in(storage: PatternStorage) -> None:
    def save(*, fail: bool) -> list[int]:
        with storage.transaction():
            storage.save_context(USER, "topic", "before")
            ids = storage.save_contexts(
                USER, [{"key": "topic", "value": "a"}, {"key": "topic", "value": "b"}]
            )
            storage.save_patterns(USER, "tilt", {"a": 1})
            assert storage.get_context(USER, "topic", limit=3) == ["b", "a", "before"]
            if fail:
                raise ZeroDivisionError
        return ids

    with pytest.raises(ZeroDivisionError):
        save(fail=True)
    assert storage.list_users() == []
    ids = save(fail=False)
    assert [row["id"] for row in storage.get_context_items(USER)][:2] == ids[::-1]
    assert storage.get_pattern(USER, "tilt", "a") == 1


def test_if_the_database_refuses_one_of_many_none_is_saved(migrated: str, storage: PatternStorage) -> None:
    unwanted = "CREATE UNIQUE INDEX once ON conversation_context (user_id, context_key)"
    run_sql(migrated, unwanted)
    with pytest.raises(InvalidInput, match="rejected a value"):
        storage.save_contexts(USER, [{"key": key, "value": 1} for key in ("a", "b", "a")])

    assert storage.count(USER)["conversation_context"] == 0
    assert storage.save_contexts(USER, [{"key": "a", "value": 1}])


def test_many_saves_purge_what_has_expired_as_single_ones_do(storage: PatternStorage, clock: Clock) -> None:
    storage.save_contexts(
        USER, [{"key": "topic", "value": number, "expires_minutes": 1} for number in range(600)]
    )
    clock.advance(minutes=1)
    storage.save_contexts(USER, [{"key": "topic", "value": number} for number in range(200)])

    assert storage.count(USER)["conversation_context"] == 200


@sqlite_only
def test_the_ids_are_right_where_a_trigger_of_the_app_s_counts_saves(
    migrated: str, storage: PatternStorage
) -> None:
    run_sql(
        migrated,
        "CREATE TABLE saves (at TEXT); CREATE TRIGGER count_saves AFTER INSERT ON conversation_context "
        "BEGIN INSERT INTO saves VALUES ('now'), ('now'); END",
    )
    ids = storage.save_contexts(USER, [{"key": "topic", "value": number} for number in range(3)])

    assert [row["id"] for row in storage.get_context_items(USER)] == ids[::-1]


@postgresql_only
def test_many_saves_are_one_round_trip(migrated: str, tmp_path: Path) -> None:
    """libpq's own trace of what it sends: each Sync asks the server for an answer."""
    with (tmp_path / "trace").open("w+") as trace:

        def sent() -> int:
            trace.flush()
            return len(re.findall(r"\tF\t\d+\tSync\b", (tmp_path / "trace").read_text()))

        with get_pattern_storage(
            migrated, on_connect=lambda connection: connection.pgconn.trace(trace.fileno())
        ) as storage:
            storage.save_context(USER, "topic", "the first one purges, too")
            before = sent()
            storage.save_contexts(USER, [{"key": "topic", "value": number} for number in range(100)])
            storage.save_patterns(USER, "tilt", {str(number): number for number in range(1_000)})
            after = sent()

    assert before > 0
    assert after - before == 2


@pytest.fixture(params=["", "pooled"])
def server(request: pytest.FixtureRequest, migrated_postgresql_url: str) -> str:
    """A URL of an up-to-date database, also through a pooler that gives each transaction another session."""
    if not request.param:
        return migrated_postgresql_url
    through: Callable[[str], str] = request.getfixturevalue("pooler")
    return through(migrated_postgresql_url)


@pytest.mark.parametrize(
    "delete",
    [
        lambda storage: storage.forget_users([OTHER, USER]),
        lambda storage: storage.forget_user(USER),
        lambda storage: storage.clear_user_patterns(USER),
        lambda storage: storage.delete_pattern(USER, "tilt", "a"),
    ],
)
def test_deletions_wait_for_a_block_about_a_player_before_they_lock_a_row(
    server: str, delete: Callable[[PatternStorage], object]
) -> None:
    """The block locks a row of the other player last: who had locked that and waited would end a deadlock."""
    with get_pattern_storage(server) as storage, ThreadPoolExecutor(2) as elsewhere:
        for user in (USER, OTHER):
            storage.save_patterns(user, "tilt", {"a": 0, "b": 0})
        with storage.transaction():
            storage.save_pattern(USER, "tilt", "b", "block")
            assert storage.get_pattern(USER, "tilt", "b") == "block"
            deleting = elsewhere.submit(delete, storage)
            wait_until(lambda: sessions(past(server), "wait_event = 'advisory'"))
            # The one that waits for the first player has not locked the second.
            assert elsewhere.submit(storage.clear_user_context, OTHER).result(PATIENCE) == 0
            storage.save_pattern(USER, "tilt", "a", "block")
            storage.save_pattern(OTHER, "tilt", "a", "block")
            assert storage.get_pattern(OTHER, "tilt", "a") == "block"
        deleting.result()

        assert storage.get_pattern(USER, "tilt", "a") is None


@postgresql_only
def test_many_saves_wait_for_a_block_about_the_same_player_and_end_no_deadlock(migrated: str) -> None:
    """The block locks b and then a; many saves lock a and then b."""
    with get_pattern_storage(migrated) as storage, ThreadPoolExecutor(1) as elsewhere:
        storage.save_patterns(USER, "tilt", {"a": 0, "b": 0})
        with storage.transaction():
            storage.save_pattern(USER, "tilt", "b", "block")
            assert storage.get_pattern(USER, "tilt", "b") == "block"
            many = elsewhere.submit(storage.save_patterns, USER, "tilt", {"a": "many", "b": "many"})
            wait_until(lambda: sessions(migrated, "wait_event_type = 'Lock'"))
            storage.save_pattern(USER, "tilt", "a", "block")
            assert storage.get_pattern(USER, "tilt", "a") == "block"
        many.result()

        assert {row["value"] for row in storage.get_patterns_by_type(USER, "tilt").values()} == {"many"}
