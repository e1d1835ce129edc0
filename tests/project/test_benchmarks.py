"""The benchmarks do what they say they time; how long it takes is not asked here.

What only the extra `bench` installs, rivals and pictures, is left out.
"""

import gc
from pathlib import Path
from typing import Any

import pytest

from benchmarks import (
    against_rivals,
    arms_postgresql,
    arms_sqlite,
    concurrency,
    growth,
    many_tasks,
    opening,
    report,
    upgrade,
    works,
)
from benchmarks import results as kept
from benchmarks.measure import Plan, WrongAnswer, in_turn, ratio, rotated, summary
from benchmarks.works import Arm
from poker_therapist import PatternStorage, get_pattern_storage
from poker_therapist.schema import shipped_ids
from tests.helpers.databases import Databases
from tests.helpers.faults import in_child
from tests.helpers.snapshots import is_whole

pytestmark = pytest.mark.slow  # each stores and migrates as often as it takes to measure something

NEITHER_LOST_NOR_FAILED = {"poker_therapist": 0, "raw": 0}


@pytest.fixture(scope="module", autouse=True)
def _collected() -> None:
    """Hide what is there from the garbage collector, which runs before each measurement."""
    gc.collect()
    gc.freeze()


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    """A run that does little."""
    return Plan(tmp_path, quick=True)


def test_the_arms_on_sqlite_answer_alike(plan: Plan) -> None:
    """Each arm has done, and kept, all of the four works, each timed in each repetition."""
    times = against_rivals.on_sqlite(plan, arms_sqlite.ARMS)

    assert {work: {arm: len(taken) for arm, taken in by_arm.items()} for work, by_arm in times.items()} == {
        work: dict.fromkeys(arms_sqlite.ARMS, plan.repetitions) for work in works.WORKS
    }


def test_the_arms_on_postgresql_answer_alike(plan: Plan, databases: Databases) -> None:
    """Each arm has done, and kept, all of the four works."""
    times = against_rivals.on_postgresql(plan, databases, arms_postgresql.ARMS)

    assert {work: set(by_arm) for work, by_arm in times.items()} == {
        work: set(arms_postgresql.ARMS) for work in works.WORKS
    }


def test_raw_stores_what_the_storage_stores(tmp_path: Path) -> None:
    """The limit is the limit of the same work: the rows are equal but for their times."""
    columns = "user_id, pattern_type, pattern_key, pattern_value, confidence"
    stored = []
    for open_arm in (arms_sqlite.raw, arms_sqlite.ours):
        folder = tmp_path / open_arm.__name__
        folder.mkdir()
        arm: Arm = open_arm(folder)
        arm.save_pattern(7, "tilt", "é", {"a": ["♠", 1.50, None, {"b": True}]})
        arm.close()
        raw = arms_sqlite.raw(folder)
        stored.append(raw.run(f"SELECT {columns} FROM user_patterns").fetchall())
        raw.close()

    assert stored[0] == stored[1] == [(7, "tilt", "é", '{"a":["♠",1.5,null,{"b":true}]}', 1.0)]


@pytest.mark.parametrize("value", [float("nan"), {1: 2}, [{"a": {None: 1}}], {"a": b"bytes"}], ids=ascii)
def test_raw_refuses_what_the_storage_refuses(value: Any, tmp_path: Path) -> None:
    """The limit pays for the same checks of JSON."""
    raw = arms_sqlite.raw(tmp_path)
    try:
        with pytest.raises((ValueError, TypeError)):
            raw.save_pattern(7, "tilt", "key", value)
    finally:
        raw.close()


def test_an_arm_that_forgets_is_found_out(storage: PatternStorage) -> None:
    """The check after the timed part looks at every row."""
    load = works.load(0, 200, 0, 0)
    for work in works.WORKS.values():
        work(storage, load)
    works.check("ours", storage, load)
    user, key, _ = load.saves[-1]
    storage.save_pattern(user, works.KIND, key, "something else")

    with pytest.raises(WrongAnswer, match=f"ours does not know '{key}' of player {user}"):
        works.check("ours", storage, load)


def test_rows_that_sql_makes_are_rows_of_ours(tmp_path: Path, migrated_postgresql_url: str) -> None:
    """The storage finds in them what it would have written, on either engine."""
    path = tmp_path / "RexVoice.db"
    growth.fill_sqlite(path, 200)
    growth.fill_postgresql(migrated_postgresql_url, 200)

    for database in (path, migrated_postgresql_url):
        with get_pattern_storage(database) as storage:
            value = storage.get_pattern(1, works.KIND, "key 99")
            newest = storage.get_context(1, works.TOPIC, works.SESSION, 2)
        assert (value, newest) == ({"number": 199}, [{"number": 199}, {"number": 198}])


def test_growth_on_sqlite(plan: Plan) -> None:
    """Every work is measured at every size, and so is what else grows."""
    found = growth.sqlite(plan)

    latencies = found["latency_by_rows"]
    assert latencies.keys() == {"ours", "raw", growth.WITHOUT_DISK}
    assert {work: len(by_rows) for work, by_rows in latencies["ours"].items()} == dict.fromkeys(
        works.WORKS, 3
    )
    assert {work: len(by_rows) for work, by_rows in found["share_of_raw"].items()} == dict.fromkeys(
        works.WORKS, 3
    )
    assert found["point_read_in_cache"]["n"] > 1
    assert found["bulk"].keys() == {"save_pattern", "save_context", "save_patterns", "save_contexts"}


def test_growth_on_postgresql(plan: Plan, monkeypatch: pytest.MonkeyPatch, databases: Databases) -> None:
    """The same on the other engine."""
    monkeypatch.setattr(growth, "big_server", lambda: _Given(databases))

    found = growth.postgresql(plan)

    assert {arm: works_of.keys() for arm, works_of in found["latency_by_rows"].items()} == dict.fromkeys(
        ("ours", "raw"), works.WORKS.keys()
    )


def test_an_upgrade_is_a_process_of_its_own(tmp_path: Path) -> None:
    """It says how long it took, and what memory."""
    upgrade.make_old(tmp_path / "old.db", 10)
    taken, peak = upgrade._run("ours", tmp_path / "old.db")

    assert 0 < taken < 60
    assert peak > 1_000_000
    assert is_whole(tmp_path / "old.db")


def test_the_upgrades_agree(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    """An old database that is opened holds what the statements alone would make of it."""
    monkeypatch.setattr(upgrade, "_run", lambda name, path: in_child(lambda: upgrade.timed(name, path)))

    assert upgrade.upgrade(plan)["time_by_raw"]["n"] == plan.repetitions


def test_the_copies_agree(plan: Plan, monkeypatch: pytest.MonkeyPatch, databases: Databases) -> None:
    """What arrives is what was there, by whichever way."""
    monkeypatch.setattr(upgrade, "big_server", lambda: _Given(databases))

    assert upgrade.copy(plan)["time_by"]["raw"]["n"] == plan.repetitions


def test_many_at_once_lose_nothing(plan: Plan) -> None:
    """Neither ours nor raw, in processes or in threads, fails or loses an update."""
    found = concurrency.sqlite(plan)

    for kind in ("processes", "threads"):
        assert found[kind]["errors"] == found[kind]["lost_updates"] == NEITHER_LOST_NOR_FAILED


def test_many_at_once_lose_nothing_on_a_server(
    plan: Plan, monkeypatch: pytest.MonkeyPatch, databases: Databases
) -> None:
    """The same on the other engine."""
    monkeypatch.setattr(arms_postgresql, "server", lambda: _Given(databases))
    found = concurrency.postgresql(plan)

    for kind in ("processes", "threads"):
        assert found[kind]["errors"] == found[kind]["lost_updates"] == NEITHER_LOST_NOR_FAILED


def test_many_tasks_lose_nothing(plan: Plan) -> None:
    """Neither coroutines nor threads fail or lose an update, and each is measured."""
    found = many_tasks.sqlite(plan, with_rival=False)

    arms = ["poker_therapist", "asyncio.to_thread"]
    assert found["errors"] == found["lost_updates"] == dict.fromkeys(["threads", *arms], 0)
    assert {number: list(by_arm) for number, by_arm in found["tasks"].items()} == {"1": arms, "10": arms}


@pytest.mark.parametrize("count", [len(shipped_ids("sqlite")), 200])
def test_opening_writes_nothing(count: int, tmp_path: Path) -> None:
    """However many migrations there are, yoyo is not imported and no file is touched."""
    known = opening.write_ours(tmp_path, count)

    assert opening._what_it_leaves(known) == {"nothing_written": True, "yoyo_not_imported": True}


def test_arms_take_turns() -> None:
    """In each repetition another arm begins, and each has its times in order."""
    order: list[str] = []
    times = in_turn({name: lambda name=name: order.append(name) for name in "abc"}, 3)  # type: ignore[misc]

    assert "".join(order) == "abcbcacab"
    assert {name: len(taken) for name, taken in times.items()} == {"a": 3, "b": 3, "c": 3}
    assert rotated([1, 2, 3], 4) == [2, 3, 1]


def test_ratios_are_those_of_repetitions() -> None:
    """What slows a whole repetition does not show."""
    assert ratio([1, 10, 3], [2, 20, 4]) == {"median": 0.5, "min": 0.5, "max": 0.75, "n": 3}
    assert summary([3, 1, 2]) == {"median": 2, "min": 1, "max": 3, "n": 3}


def test_the_page_says_what_was_measured() -> None:
    """`make bench` has written the page since the results or the words around them changed last."""
    assert report.PAGE.read_text(encoding="utf-8") == report.text(kept.read(kept.RESULTS)), "run `make bench`"


def test_a_part_that_is_measured_again_takes_its_own_place_alone(tmp_path: Path) -> None:
    """So a run that broke off can go on."""
    path = tmp_path / "results.json"
    kept.write(path, "copy", {"rows": 1})
    kept.write(path, "upgrade", {"rows": 2})
    kept.write(path, "copy", {"rows": 3})

    assert {part: found["rows"] for part, found in kept.read(path).items()} == {"copy": 3, "upgrade": 2}
    assert [file.name for file in tmp_path.iterdir()] == ["results.json"]


class _Given:
    """A server that is there already."""

    def __init__(self, databases: Databases) -> None:
        self.databases = databases

    def __enter__(self) -> Databases:
        return self.databases

    def __exit__(self, *_: object) -> None:
        """Leave it to whoever started it."""
