"""Keys as long as both engines hold them, integers of other libraries, containers of subclasses, pickling."""

import copy
import pickle
import random
import string
from collections import Counter, OrderedDict, defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from poker_therapist import InvalidInput, PatternStorage, get_pattern_storage
from poker_therapist.location import locate
from poker_therapist.schema import copy as copy_database
from tests.helpers.engines import fetch_all, is_server, run_sql
from tests.helpers.players import TABLES

USER = 7
LONGEST = 255
MOMENT = "'2026-01-05T18:12:01.000000+00:00'"

Call = Callable[[PatternStorage, Any], object]


@pytest.fixture(scope="module")
def unchanged(module_database: str) -> Iterator[PatternStorage]:
    """One storage for all that is refused, with a row in each table."""
    with get_pattern_storage(module_database) as storage:
        storage.save_pattern(USER, "tilt", "bad_beat", 1)
        storage.save_context(USER, "topic", 1)
        storage.save_insight(USER, "leak", 1)
        yield storage


def stored(storage: PatternStorage) -> list[list[Any]]:
    return [fetch_all(storage, f"SELECT * FROM {table} ORDER BY 1") for table in TABLES]


# Keys

KEYS: dict[str, Call] = {
    "pattern_type": lambda storage, key: storage.save_pattern(USER, key, "key", 1),
    "pattern_key": lambda storage, key: storage.save_pattern(USER, "tilt", key, 1),
    "context_key": lambda storage, key: storage.save_context(USER, key, 1),
    "session_id": lambda storage, key: storage.save_context(USER, "topic", 1, key),
    "insight_type": lambda storage, key: storage.save_insight(USER, key, 1),
}


@pytest.mark.parametrize("name", KEYS)
@pytest.mark.parametrize("in_block", [False, True], ids=["alone", "in a block"])
def test_a_key_of_255_characters_is_saved_and_a_longer_one_is_refused_before_anything_is_written(
    storage: PatternStorage, name: str, *, in_block: bool
) -> None:
    """Of the widest characters, no two alike in a row, which no index can shorten."""
    draw = random.Random(name)
    longest = "".join(chr(draw.randrange(0x10000, 0x10FFFF)) for _ in range(LONGEST))
    KEYS[name](storage, longest)
    before = stored(storage)

    def save_too_long() -> None:
        if in_block:
            with storage.transaction():
                KEYS[name](storage, f"{longest}k")
        KEYS[name](storage, f"{longest}k")

    with pytest.raises(InvalidInput, match=f"{name} must be at most 255 .* 256"):
        save_too_long()

    assert stored(storage) == before
    assert any(longest in row for table in before for row in table)


@pytest.fixture
def with_long_keys(migrated: str) -> Iterator[PatternStorage]:
    """A database that was adopted with keys longer than what can be saved now."""
    key = "k" * (LONGEST + 1)
    run_sql(
        migrated,
        f"""
        INSERT INTO user_patterns (user_id, pattern_type, pattern_key, pattern_value, created_at, updated_at)
        VALUES (7, '{key}', '{key}', '1', {MOMENT}, {MOMENT});
        INSERT INTO conversation_context (user_id, context_key, context_value, session_id, created_at)
        VALUES (7, '{key}', '1', '{key}', {MOMENT});
        INSERT INTO user_insights (user_id, insight_type, insight_data, created_at)
        VALUES (7, '{key}', '1', {MOMENT})
        """,
    )
    with get_pattern_storage(migrated) as storage:
        yield storage


def test_longer_keys_that_are_there_already_are_read_and_deleted(with_long_keys: PatternStorage) -> None:
    storage, key = with_long_keys, "k" * (LONGEST + 1)

    assert storage.get_pattern(USER, key, key) == 1
    assert list(storage.get_patterns_by_type(USER, key)) == [key]
    assert storage.get_context(USER, key, key) == [1]
    assert storage.recall(USER, key)["context"][0]["value"] == 1
    assert [one["type"] for one in storage.get_insights(USER)] == [key]
    assert storage.clear_user_context(USER, key) == 1
    assert storage.forget_user(USER)["user_patterns"] == 1
    assert storage.export_user(USER)["patterns"] == []


def test_a_copy_to_postgresql_names_the_row_whose_key_no_index_there_can_hold(
    tmp_path: Path, postgresql_url: str
) -> None:
    source = tmp_path / "RexVoice.db"
    with get_pattern_storage(source) as storage:
        storage.save_pattern(USER, "tilt", "fits", 1)
    key = "".join(random.Random(1).choices(string.printable.replace("'", ""), k=3_000))
    run_sql(
        source,
        f"""
        INSERT INTO user_patterns
            (id, user_id, pattern_type, pattern_key, pattern_value, created_at, updated_at)
        VALUES (41, 7, 'tilt', '{key}', '1', {MOMENT}, {MOMENT})
        """,
    )

    with pytest.raises(InvalidInput, match=r"row 41 .*user_patterns|user_patterns.*41") as refusal:
        copy_database(locate(source), locate(postgresql_url))

    assert key[:20] not in str(refusal.value)


# Integers


class Integer:
    """What NumPy's integers are to Python."""

    def __init__(self, value: int) -> None:
        self.value = value

    def __index__(self) -> int:
        return self.value


class NoInteger:
    """What NumPy's `bool_` is: it has the method, and refuses."""

    def __index__(self) -> int:
        raise TypeError("'bool_' object cannot be interpreted as an integer")


INTEGERS: dict[str, Call] = {
    "user_id": lambda storage, number: storage.save_pattern(number, "tilt", "bad_beat", 1),
    "confidence": lambda storage, number: storage.save_pattern(USER, "tilt", "bad_beat", 1, number),
    "importance": lambda storage, number: storage.save_insight(USER, "leak", 1, number),
    "expires_minutes": lambda storage, number: storage.save_context(USER, "topic", 1, None, number),
    "limit": lambda storage, number: storage.get_context(USER, "topic", limit=number),
    "min_importance": lambda storage, number: storage.get_insights(USER, min_importance=number),
    "context_limit": lambda storage, number: storage.recall(USER, context_limit=number),
    "insight_limit": lambda storage, number: storage.recall(USER, insight_limit=number),
    "of forget_user": lambda storage, number: storage.forget_user(number),
}


@pytest.mark.parametrize("call", INTEGERS.values(), ids=INTEGERS)
def test_an_integer_of_another_library_is_the_integer_that_it_says(
    storage: PatternStorage, call: Call
) -> None:
    call(storage, Integer(1))
    with_other = stored(storage)
    storage.forget_user(1)
    storage.forget_user(USER)
    call(storage, 1)

    def values(rows: list[list[Any]]) -> list[Any]:
        """Return everything but ids and times."""
        return [
            [part for part in row[1:] if not (isinstance(part, str) and part.startswith("20"))]
            for table in rows
            for row in table
        ]

    assert values(stored(storage)) == values(with_other)


@pytest.mark.parametrize("call", INTEGERS.values(), ids=INTEGERS)
@pytest.mark.parametrize("bad", [True, False, NoInteger()], ids=["True", "False", "a bool of NumPy"])
def test_a_bool_is_no_integer(unchanged: PatternStorage, call: Call, bad: object) -> None:
    before = stored(unchanged)
    with pytest.raises(InvalidInput):
        call(unchanged, bad)

    assert stored(unchanged) == before


# Containers


class Lying(dict[Any, Any]):
    """Shows other keys to each who asks."""

    def __init__(self) -> None:
        super().__init__(good=1)
        self.asked = 0

    def __iter__(self) -> Iterator[Any]:
        return iter(["good"])

    def keys(self) -> Any:
        return ["good"]

    def items(self) -> Any:
        self.asked += 1
        return [("good", 1)] if self.asked % 2 else [(7, 1)]


class AlwaysLying(Lying):
    def items(self) -> Any:
        return [(7, 1)]


class Endless(dict[Any, Any]):
    """Holds another of itself for each who asks."""

    def items(self) -> Any:
        return [("again", Endless(a=1))]


class LaterEndless(Lying):
    """Shows what it holds to the first who asks."""

    def items(self) -> Any:
        self.asked += 1
        return [("good", 1)] if self.asked == 1 else Endless(a=1).items()


class Row(list[Any]):
    def __iter__(self) -> Iterator[Any]:
        return iter([{7: 1}])


@pytest.mark.parametrize(
    "value",
    [
        Lying(),
        AlwaysLying(),
        {"inside": [AlwaysLying()]},
        Endless(a=1),
        LaterEndless(),
        [Row([{8: 1}])],
        (Row([{8: 1}]),),
    ],
    ids=["now and then", "always", "inside", "endless", "endless later", "list", "tuple"],
)
def test_a_subclass_that_lies_of_what_it_holds_smuggles_no_key_in_that_is_no_text(
    unchanged: PatternStorage, value: Any
) -> None:
    with pytest.raises(InvalidInput):
        unchanged.save_pattern(USER, "lies", "bad_beat", value)

    assert unchanged.get_patterns_by_type(USER, "lies") == {}


@pytest.mark.parametrize(
    "value",
    [
        OrderedDict([("b", 1), ("a", [OrderedDict(c=2)])]),
        defaultdict(list, {"a": [1]}),
        Counter("abba"),
        [Counter("a"), (defaultdict(int, b=2),)],
    ],
    ids=["OrderedDict", "defaultdict", "Counter", "nested"],
)
def test_the_dicts_of_the_standard_library_come_back_equal(storage: PatternStorage, value: Any) -> None:
    storage.save_pattern(USER, "tilt", "bad_beat", value)

    found = storage.get_pattern(USER, "tilt", "bad_beat")
    assert found == (value if isinstance(value, dict) else [{"a": 1}, [{"b": 2}]])
    if isinstance(value, dict):
        assert list(found) == list(value)


# Pickling


@pytest.mark.parametrize("how", [pickle.dumps, copy.copy, copy.deepcopy])
def test_a_storage_cannot_be_pickled_and_says_what_to_do(
    storage: PatternStorage, how: Callable[[PatternStorage], object]
) -> None:
    with pytest.raises(TypeError, match="db_path to the other process, and open it there"):
        how(storage)


def test_its_repr_says_where_it_is_without_a_password(migrated: str, monkeypatch: pytest.MonkeyPatch) -> None:
    url = migrated
    if is_server(migrated):
        url = migrated.replace("//postgres@", "//postgres:s3cret@")
        url += "&password=s3cret" if url == migrated else ""
    with get_pattern_storage(url) as storage:
        assert repr(storage) == f"PatternStorage({str(storage.db_path)!r})"
        assert "s3cret" not in repr(storage)
        assert migrated.rpartition("/")[2].partition("?")[0] in repr(storage)
