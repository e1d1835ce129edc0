"""Many at once: a fixed amount of mixed work, shared among processes or threads, ours beside raw.

Of a hundred calls about 60 are point reads, 15 reads of the newest 20, 15 upserts, 5 appends, and 5 read a
count and write the next one: as many as there were must be counted in the end.
"""

import multiprocessing
import statistics
import threading
import time
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from random import Random
from typing import Any, Protocol

from benchmarks import arms_postgresql, arms_sqlite
from benchmarks.against_rivals import folder_for
from benchmarks.measure import Plan, WrongAnswer, median_ratio, ratio, rotated
from benchmarks.results import server_version
from benchmarks.works import KIND, NEWEST, SESSION, TOPIC, USERS, Arm, value
from poker_therapist.storage import PatternStorage, get_pattern_storage

OURS, RAW = "poker_therapist", "raw"
COUNTERS = 10  # players with a count: few, so that many want the same one
COUNT = ("count", "hands")


class Counting(Arm, Protocol):
    """An arm that can also read and write such that nobody else's write is lost."""

    def count_up(self, user: int, kind: str, key: str, /) -> None:
        """Add one to a pattern."""


class Ours:
    """The storage, and how one counts with it."""

    def __init__(self, storage: PatternStorage) -> None:
        self.storage = storage
        self.save_pattern = storage.save_pattern
        self.get_pattern = storage.get_pattern
        self.save_context = storage.save_context
        self.get_context = storage.get_context
        self.close = storage.close

    def count_up(self, user: int, kind: str, key: str) -> None:
        """Add one to a pattern, in a block."""
        with self.storage.transaction():
            self.storage.save_pattern(user, kind, key, self.storage.get_pattern(user, kind, key, 0) + 1)


@dataclass(frozen=True)
class Place:
    """Where an arm's database is, such that another process can open it."""

    engine: str
    arm: str
    where: str

    def open(self) -> Counting:
        """Open the arm."""
        if self.arm == OURS:
            return Ours(get_pattern_storage(self.where))
        if self.engine == "sqlite":
            return arms_sqlite.raw(Path(self.where).parent)
        return arms_postgresql.Raw(self.where)


Call = tuple[str, int, str]


def calls(seed: int, count: int) -> list[Call]:
    """Return the calls of one worker, each with a player and a key."""
    chance = Random(seed)
    kinds = chance.choices(("get", "newest", "save", "append", "count"), (60, 15, 15, 5, 5), k=count)
    return [
        (kind, chance.randrange(COUNTERS if kind == "count" else USERS), f"key {chance.randrange(50)}")
        for kind in kinds
    ]


@dataclass
class Outcome:
    """What one worker saw."""

    start: float = 0.0
    end: float = 0.0
    latencies: list[float] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)


def work(arm: Counting, todo: list[Call]) -> Outcome:
    """Do the calls of one worker."""
    outcome, new, clock = Outcome(), value(7), time.perf_counter
    latencies = outcome.latencies
    outcome.start = time.monotonic()
    for kind, user, key in todo:
        before = clock()
        try:
            if kind == "get":
                arm.get_pattern(user, KIND, key)
            elif kind == "newest":
                arm.get_context(user, TOPIC, limit=NEWEST)
            elif kind == "save":
                arm.save_pattern(user, KIND, key, new)
            elif kind == "append":
                arm.save_context(user, TOPIC, new, SESSION)
            else:
                arm.count_up(user, *COUNT)
        except Exception as error:  # whatever it is, it is counted
            outcome.errors.append(f"{type(error).__name__}: {error}")
        latencies.append(clock() - before)
    outcome.end = time.monotonic()
    return outcome


def serve(pipe: Connection, places: list[Place]) -> None:
    """Work in a process of its own, as told: an arm and its calls, then the word to begin."""
    arms = {place.arm: place.open() for place in places}
    while (told := pipe.recv()) is not None:
        name, seed, count = told
        todo = calls(seed, count)
        pipe.send("ready")
        pipe.recv()
        pipe.send(work(arms[name], todo))
    for arm in arms.values():
        arm.close()


class Processes:
    """Workers in processes, started once and used by each run."""

    def __init__(self, places: list[Place], most: int) -> None:
        context = multiprocessing.get_context("spawn")
        self.pipes: list[Connection] = []
        self.processes = []
        for _ in range(most):
            mine, theirs = context.Pipe()
            process = context.Process(target=serve, args=(theirs, places), daemon=True)
            process.start()
            theirs.close()
            self.pipes.append(mine)
            self.processes.append(process)

    def run(self, name: str, workers: int, seed: int, count: int) -> list[Outcome]:
        """Share the calls among some of the processes."""
        pipes = self.pipes[:workers]
        for number, pipe in enumerate(pipes):
            pipe.send((name, seed + number, count // workers))
        for pipe in pipes:
            pipe.recv()
        for pipe in pipes:
            pipe.send("go")
        return [pipe.recv() for pipe in pipes]

    def close(self) -> None:
        """End the processes."""
        for pipe in self.pipes:
            with suppress(BrokenPipeError):  # of one that has failed
                pipe.send(None)
        for process in self.processes:
            process.join()


class Threads:
    """Workers in threads of this process: ours share one storage, raw ones have a connection each."""

    def __init__(self, places: list[Place], most: int) -> None:
        self.arms: dict[str, list[Counting]] = {}
        for place in places:
            opened = [place.open() for _ in range(1 if place.arm == OURS else most)]
            self.arms[place.arm] = opened * (most // len(opened))

    def run(self, name: str, workers: int, seed: int, count: int) -> list[Outcome]:
        """Share the calls among some threads."""
        barrier = threading.Barrier(workers)
        outcomes: list[Outcome] = []

        def one(number: int) -> None:
            todo = calls(seed + number, count // workers)
            barrier.wait()
            outcomes.append(work(self.arms[name][number], todo))

        threads = [threading.Thread(target=one, args=(number,)) for number in range(workers)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return outcomes

    def close(self) -> None:
        """Close all connections."""
        for arms in self.arms.values():
            for arm in arms:
                arm.close()


@dataclass
class Measured:
    """One arm with one number of workers, repetition by repetition."""

    seconds: list[float] = field(default_factory=list)
    p50: list[float] = field(default_factory=list)
    p99: list[float] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)

    def add(self, outcomes: list[Outcome]) -> None:
        """Add a repetition."""
        latencies = sorted(taken for outcome in outcomes for taken in outcome.latencies)
        self.seconds.append(max(one.end for one in outcomes) - min(one.start for one in outcomes))
        self.p50.append(statistics.median(latencies))
        self.p99.append(latencies[len(latencies) * 99 // 100])
        self.errors.extend(error for outcome in outcomes for error in outcome.errors)


def prepare(place: Place) -> None:
    """Fill a database, so that every read finds something."""
    with closing(get_pattern_storage(place.where)) as storage:
        for start in range(0, USERS, 10):
            with storage.transaction():
                for user in range(start, start + 10):
                    for number in range(50):
                        storage.save_pattern(user, KIND, f"key {number}", value(number))
                        storage.save_context(user, TOPIC, value(number), SESSION)
        for user in range(COUNTERS):
            storage.save_pattern(user, *COUNT, 0)


def measure(
    plan: Plan, workers: Processes | Threads, places: list[Place], numbers: list[int]
) -> dict[str, Any]:
    """Return, for each number of workers, ours beside raw; and what was lost."""
    count = plan.pick(4_800, 320)
    measured = {(place.arm, number): Measured() for place in places for number in numbers}
    expected = dict.fromkeys((place.arm for place in places), 0)
    before = {place.arm: counted(place) for place in places}
    for repetition in range(plan.repetitions + 1):
        for number in numbers:
            for name in rotated([place.arm for place in places], repetition):
                seed = 1_000 * repetition + 100 * number
                outcomes = workers.run(name, number, seed, count)
                if repetition:  # the first opens connections and prepares statements
                    measured[name, number].add(outcomes)
                for worker in range(number):
                    expected[name] += sum(
                        kind == "count" for kind, *_ in calls(seed + worker, count // number)
                    )
    lost = {place.arm: expected[place.arm] - (counted(place) - before[place.arm]) for place in places}
    alone = measured[RAW, min(numbers)].seconds
    return {
        "calls": count,
        "workers": {
            str(number): _beside(measured[OURS, number], measured[RAW, number])
            | {
                f"throughput_by_one_raw_{arm}": median_ratio(alone, measured[arm, number].seconds)
                for arm in (OURS, RAW)
            }
            for number in numbers
        },
        "errors": {
            place.arm: sum(len(measured[place.arm, number].errors) for number in numbers) for place in places
        },
        "lost_updates": lost,
    }


def _beside(ours: Measured, raw: Measured) -> dict[str, Any]:
    return {
        "throughput": ratio(raw.seconds, ours.seconds),
        "p50": ratio(ours.p50, raw.p50),
        "p99": ratio(ours.p99, raw.p99),
    }


def counted(place: Place) -> int:
    """Return what all counts of a database are together."""
    with closing(get_pattern_storage(place.where)) as storage:
        return sum(storage.get_pattern(user, *COUNT) for user in range(COUNTERS))


def both(plan: Plan, places: list[Place], numbers: list[int]) -> dict[str, Any]:
    """Measure with processes and with threads."""
    found = {}
    for place in places:
        prepare(place)
    for name, kind in (("processes", Processes), ("threads", Threads)):
        with closing(kind(places, max(numbers))) as workers:
            found[name] = measure(plan, workers, places, numbers)
        ours = found[name]
        if ours["errors"][OURS] or ours["lost_updates"][OURS]:
            raise WrongAnswer(f"{name}: {ours['errors']}, lost updates {ours['lost_updates']}")
    return found


def sqlite(plan: Plan) -> dict[str, Any]:
    """Measure on SQLite."""
    with ExitStack() as stack:
        places = []
        for arm in (RAW, OURS):
            path = arms_sqlite.migrated(stack.enter_context(folder_for(plan, "concurrency")))
            places.append(Place("sqlite", arm, str(path)))
        return both(plan, places, plan.pick([1, 2, 4, 8], [1, 2]))


def postgresql(plan: Plan) -> dict[str, Any]:
    """Measure on PostgreSQL, to which more connect at once."""
    numbers = plan.pick([1, 2, 4, 8, 16, 32], [1, 2])
    with arms_postgresql.server() as databases, ExitStack() as stack:
        migrated = databases.template(arms_postgresql.migrate)
        places = []
        for arm in (RAW, OURS):
            url = stack.enter_context(databases.fresh(migrated))
            # As many connections as the raw threads have.
            places.append(
                Place("postgresql", arm, f"{url}&connections={max(numbers)}" if arm == OURS else url)
            )
        return {"server": server_version(url), **both(plan, places, numbers)}


PARTS = {"concurrency_sqlite": sqlite, "concurrency_postgresql": postgresql}
