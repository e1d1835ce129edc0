"""The order of migrations: dependencies first, then the natural order of their ids.

Migrations of two branches may break that order: a fork, or a late-comer. Migrations of different folders
are independent, unless they declare `-- depends:`. So the folder of an engine's extension may depend on any
migration of the engine. A folder without any `-- depends:` is a plain list. In a folder with some, a
migration without one is one of the first.
"""

import heapq
import re
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable
from itertools import combinations
from pathlib import Path
from typing import Any, Protocol, TypeVar


class Ordered(Protocol):
    """What the order needs of a migration."""

    id: str
    file: Path | None
    depends_on: set[str]
    out_of_order: bool

    @property
    def is_hook(self) -> bool:
        """Whether it runs after every apply, and so has no place in the order."""


M = TypeVar("M", bound=Ordered)


def natural(name: str) -> tuple[Any, ...]:
    """Return a key that sorts ids as people count: 1_a, 2_b, 10_c."""
    parts = [part.lstrip("0") for part in re.split(r"([0-9]+)", name)]
    # A number by its length first: Python would refuse to turn thousands of digits into one.
    return ([(len(part), part) if place % 2 else part for place, part in enumerate(parts)], name)


def in_order(migrations: Iterable[M], key: Callable[[str], Any] = natural) -> list[M]:
    """Return migrations, not hooks: each after those that it depends on, otherwise by a key of their ids."""
    left = {one.id: one for one in migrations if not one.is_hook}
    waits_for = {name: one.depends_on & left.keys() - {name} for name, one in left.items()}
    dependents = defaultdict[str, list[str]](list)
    for name, others in waits_for.items():
        for other in others:
            dependents[other].append(name)
    ready = [(key(name), name) for name, others in waits_for.items() if not others]
    heapq.heapify(ready)
    found = []
    while left:
        # What depends on itself in a circle is refused when files are read; a kept text may still do.
        name = heapq.heappop(ready)[1] if ready else min(left, key=key)
        if name not in left:
            continue
        found.append(left.pop(name))
        for other in dependents[name]:
            waits_for[other].discard(name)
            if not waits_for[other] and other in left:
                heapq.heappush(ready, (key(other), other))
    return found


def forks(migrations: Iterable[M]) -> list[tuple[M, M]]:
    """Return each two of one folder that depend on the same one, and neither on the other, in order.

    Without those of which one declares `-- out-of-order: true`.
    """
    ordered = in_order(migrations)
    known = {one.id: one for one in ordered}
    siblings = defaultdict[tuple[Path, str], list[M]](list)
    for one in ordered:
        if one.file is not None and not one.out_of_order:
            for name in one.depends_on:
                siblings[one.file.parent, name].append(one)
    found = {
        (first.id, second.id): (first, second)
        for group in siblings.values()
        for first, second in combinations(group, 2)
        if first.id not in ancestors(second, known)  # and not the other way round, for they are in order
    }
    return sorted(found.values(), key=lambda pair: [natural(one.id) for one in reversed(pair)])


def late_comers(migrations: Iterable[M], applied: Collection[str]) -> list[tuple[M, M]]:
    """Return each that is not applied, though one of its folder that comes after it is: that one, too.

    Without what that one depends on, and without those of which one declares `-- out-of-order: true`.

    Args:
        migrations: all that are known.
        applied: the ids of those that have been applied.
    """
    ordered = in_order(migrations)
    known = {one.id: one for one in ordered}
    found = []
    later = defaultdict[Path | None, list[M]](list)
    for one in reversed(ordered):
        if one.file is None or one.out_of_order:
            continue
        if one.id in applied:
            later[one.file.parent].append(one)
            continue
        others = reversed(later[one.file.parent])
        if other := next((other for other in others if one.id not in ancestors(other, known)), None):
            found.append((one, other))
    return found[::-1]


def ancestors(one: M, known: dict[str, M]) -> set[str]:
    """Return the ids of all that a migration depends on, directly or not."""
    found = set[str]()
    waiting = [one.depends_on]
    while waiting:
        names = waiting.pop() - found
        found |= names
        waiting += [known[name].depends_on for name in names & known.keys()]
    return found
