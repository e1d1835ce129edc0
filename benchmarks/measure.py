"""How things are measured: arms in turn, medians and spread, ratios and never bare seconds."""

import gc
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict, TypeVar

Chosen = TypeVar("Chosen")


@dataclass(frozen=True)
class Plan:
    """How much is done, and where."""

    folder: Path  # for databases; has room for some gigabytes
    quick: bool = False

    def pick(self, full: Chosen, quick: Chosen) -> Chosen:
        """Return the one of two sizes that this run is for."""
        return quick if self.quick else full

    @property
    def repetitions(self) -> int:
        """How often each arm does each work."""
        return self.pick(5, 2)


class Ratio(TypedDict):
    """A ratio, measured once in each repetition."""

    median: float
    min: float
    max: float
    n: int


class WrongAnswer(Exception):
    """An arm did not do what it was timed for."""


def seconds(work: Callable[[], object], clock: Callable[[], float] = time.perf_counter) -> float:
    """Return how long a work takes by a clock; what others left behind is collected before."""
    gc.collect()
    start = clock()
    work()
    return clock() - start


def in_turn(
    works: Mapping[str, Callable[[], object]],
    repetitions: int,
    *,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, list[float]]:
    """Return how long each work took in each repetition; in each, another one begins."""
    times: dict[str, list[float]] = {}
    for repetition in range(repetitions):
        for name in rotated(list(works), repetition):
            times.setdefault(name, []).append(seconds(works[name], clock))
    return times


def rotated(names: Sequence[Chosen], places: int) -> list[Chosen]:
    """Return the names with another one in front."""
    places %= len(names)
    return [*names[places:], *names[:places]]


def ratio(over: Sequence[float], under: Sequence[float]) -> Ratio:
    """Return `over` divided by `under`, repetition by repetition: what troubles one troubles the other."""
    return summary([one / other for one, other in zip(over, under, strict=True)])


def summary(values: Sequence[float]) -> Ratio:
    """Return the median and the spread."""
    return {
        "median": round(statistics.median(values), 4),
        "min": round(min(values), 4),
        "max": round(max(values), 4),
        "n": len(values),
    }


def median_ratio(over: Sequence[float], under: Sequence[float]) -> float:
    """Return a ratio of medians, for a picture."""
    return round(statistics.median(over) / statistics.median(under), 4)
