"""The storage beside its limit and its rivals: four works, the arms in turn, each on a fresh database."""

import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks import arms_postgresql, arms_sqlite, works
from benchmarks.measure import Plan, Ratio, ratio, rotated, seconds
from benchmarks.report import BEFORE, OURS
from benchmarks.results import server_version
from benchmarks.works import WORKS, Entry, Place
from poker_therapist.location import locate
from tests.helpers.databases import Databases

Times = dict[str, dict[str, list[float]]]
# An arm that waits for the disk at each commit is timed for one in so many of the writes.
PARTS_OF_SLOW = 5
# Bytes of a page in SQLite's log, and over how many appends they are counted.
FRAME, PAGES_FROM = 4096 + 24, 50


def repeat(
    plan: Plan, entries: Mapping[str, Entry[Place]], fresh: Callable[[ExitStack, str], Place]
) -> Times:
    """Return, for each work and arm, the seconds of each repetition.

    Args:
        plan: how much to do.
        entries: the arms.
        fresh: returns an empty place for an arm, which goes with the stack.
    """
    times: Times = {}
    for repetition in range(plan.repetitions):
        load = works.load(repetition, *load_size(plan).values())
        already, rest = load.split(PARTS_OF_SLOW)
        with ExitStack() as stack:
            places = {name: fresh(stack, name) for name in entries}
            for name, entry in entries.items():
                if entry.fill:
                    with closing(entry.fill(places[name])) as filler:
                        for work in WORKS.values():
                            work(filler, already)
            arms = {name: entry.open(places[name]) for name, entry in entries.items()}
            for arm in arms.values():
                works.warm_up(arm)
            for turn, (work_name, work) in enumerate(WORKS.items()):
                for name in rotated(list(arms), repetition + turn):
                    slow = entries[name].fill is not None
                    taken = seconds(partial(work, arms[name], rest if slow else load))
                    if slow and work_name in works.WRITES:
                        taken *= PARTS_OF_SLOW
                    times.setdefault(work_name, {each: [] for each in arms})[name].append(taken)
            for name, arm in arms.items():
                arm.close()
                with closing(entries[name].open(places[name])) as again:
                    works.check(name, again, load, in_order=entries[name].in_order)
    return times


def load_size(plan: Plan) -> dict[str, int]:
    """Return how much each arm does in a repetition."""
    writes, reads, looks = plan.pick((5_000, 20_000, 2_000), (200, 400, 40))
    return {"writes": writes, "reads": reads, "looks": looks}


def shares(times: Times, limit: str) -> dict[str, dict[str, Ratio]]:
    """Return, for each work and arm, its speed as a share of the limit's."""
    return {
        work: {name: ratio(by_arm[limit], taken) for name, taken in by_arm.items()}
        for work, by_arm in times.items()
    }


def by_before(times: Times) -> dict[str, Ratio]:
    """Return how many times as fast as raw on the schema before each of our works is."""
    return {work: ratio(by_arm[BEFORE], by_arm[OURS]) for work, by_arm in times.items()}


@contextmanager
def folder_for(plan: Plan, name: str) -> Iterator[Path]:
    """Make a folder for as long as a block runs."""
    folder = Path(tempfile.mkdtemp(prefix=f"{name} ", dir=plan.folder))
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


def on_sqlite(plan: Plan, entries: Mapping[str, Entry[Path]]) -> Times:
    """Measure arms that keep files in a folder."""
    return repeat(plan, entries, lambda stack, name: stack.enter_context(folder_for(plan, name)))


def on_postgresql(plan: Plan, databases: Databases, entries: Mapping[str, Entry[str]]) -> Times:
    """Measure arms on one server; a rival that makes tables of its own does not mind ours."""
    migrated = databases.template(arms_postgresql.migrate)

    def fresh(stack: ExitStack, name: str) -> str:
        if name != BEFORE:
            return stack.enter_context(databases.fresh(migrated))
        url = stack.enter_context(databases.fresh())
        arms_sqlite.migrate_before(locate(url))
        return url

    return repeat(plan, entries, fresh)


def pages_per_append(plan: Plan, entries: Mapping[str, Entry[Path]]) -> dict[str, float]:
    """Return how many pages one append puts into the write-ahead log, for the arms that have one."""
    found = {}
    for name, entry in entries.items():
        with folder_for(plan, name) as folder, closing(entry.open(folder)) as arm:
            works.warm_up(arm)
            sizes = []
            for number in range(PAGES_FROM + 1):  # so few that the log does not start over
                arm.save_context(0, works.TOPIC, works.value(number), works.SESSION)
                sizes.append(sum(log.stat().st_size for log in folder.glob("*-wal")))
            if sizes[-1]:
                found[name] = round((sizes[-1] - sizes[0]) / FRAME / PAGES_FROM, 2)
    return found


def sqlite(plan: Plan) -> dict[str, Any]:
    """Measure everything on SQLite."""
    from benchmarks.rivals_sqlite import RIVALS

    arms = {**arms_sqlite.ARMS, **RIVALS}
    times = on_sqlite(plan, arms)
    return {
        "load": load_size(plan),
        "limit": "raw sqlite3",
        "shares": shares(times, "raw sqlite3"),
        "by_before": by_before(times),
        "pages_per_append": pages_per_append(plan, arms),
    }


def postgresql(plan: Plan) -> dict[str, Any]:
    """Measure everything on PostgreSQL."""
    from benchmarks.rivals_postgresql import RIVALS

    with arms_postgresql.server() as databases:
        times = on_postgresql(plan, databases, {**arms_postgresql.ARMS, **RIVALS})
        with databases.fresh() as url:
            server = server_version(url)
    return {
        "server": server,
        "load": load_size(plan),
        "limit": "raw psycopg",
        "shares": shares(times, "raw psycopg"),
        "by_before": by_before(times),
    }


PARTS = {"rivals_sqlite": sqlite, "rivals_postgresql": postgresql}
