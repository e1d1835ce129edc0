"""The four works that every arm does, and how its answers are checked afterwards."""

import random
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

from benchmarks.measure import WrongAnswer

USERS = 100
KEYS = 50
NEWEST = 20
KIND, TOPIC, SESSION = "tilt", "topic", "monday"

# As JSON about 235 bytes.
_VALUE = {
    "hand": "AKs",
    "position": "button",
    "bets": [2.5, 7.5, 22.0, None],
    "note": "x" * 140,
    "tilt": True,
}


class Arm(Protocol):
    """One way to store patterns and context; the storage itself is one."""

    def save_pattern(self, user: int, kind: str, key: str, value: Any, /) -> None:
        """Save a pattern in the place of the one with this kind and key, and commit."""

    def get_pattern(self, user: int, kind: str, key: str, /) -> Any:
        """Return the value of a pattern, None if there is none."""

    def save_context(self, user: int, key: str, value: Any, session: str, /) -> None:
        """Append, and commit."""

    def get_context(self, user: int, key: str, /, *, limit: int) -> list[Any]:
        """Return the newest values, newest first."""

    def close(self) -> None:
        """Close what is open."""


def value(number: int) -> dict[str, Any]:
    """Return a value that differs from every other."""
    return {**_VALUE, "number": number}


Place = TypeVar("Place")


@dataclass(frozen=True)
class Entry(Generic[Place]):
    """An arm as it enters a comparison."""

    # Opens it at a place, for the first time or again.
    open: Callable[[Place], Arm]
    # Whether it knows which of two rows of one second is the newer.
    in_order: bool = True
    # Does most of the writing for an arm that waits for the disk at each commit.
    fill: Callable[[Place], Arm] | None = None


@dataclass(frozen=True)
class Load:
    """What is to be done; the same for every arm."""

    saves: list[tuple[int, str, dict[str, Any]]]
    reads: list[tuple[int, str]]
    appends: list[tuple[int, dict[str, Any]]]
    looks: list[int]

    def split(self, parts: int) -> tuple["Load", "Load"]:
        """Return the writes but the last of so many parts, and the rest."""
        saves, appends = (len(writes) - len(writes) // parts for writes in (self.saves, self.appends))
        return (
            Load(self.saves[:saves], [], self.appends[:appends], []),
            Load(self.saves[saves:], self.reads, self.appends[appends:], self.looks),
        )


def load(seed: int, writes: int = 5_000, reads: int = 20_000, looks: int = 2_000) -> Load:
    """Return a load of so many upserts and appends, point reads, and reads of the newest."""
    chance = random.Random(seed)
    return Load(
        [
            (chance.randrange(USERS), f"key {chance.randrange(KEYS)}", value(number))
            for number in range(writes)
        ],
        [(chance.randrange(USERS), f"key {chance.randrange(KEYS)}") for _ in range(reads)],
        [(chance.randrange(USERS), value(number)) for number in range(writes)],
        [chance.randrange(USERS) for _ in range(looks)],
    )


def save_pattern(arm: Arm, load: Load) -> None:
    """Upsert, one commit each."""
    save = arm.save_pattern
    for user, key, new in load.saves:
        save(user, KIND, key, new)


def get_pattern(arm: Arm, load: Load) -> None:
    """Read at random."""
    get = arm.get_pattern
    for user, key in load.reads:
        get(user, KIND, key)


def save_context(arm: Arm, load: Load) -> None:
    """Append, one commit each."""
    save = arm.save_context
    for user, new in load.appends:
        save(user, TOPIC, new, SESSION)


def get_context(arm: Arm, load: Load) -> None:
    """Read the newest."""
    get = arm.get_context
    for user in load.looks:
        get(user, TOPIC, limit=NEWEST)


Work = Callable[[Arm, Load], None]
WRITES = {"save_pattern", "save_context"}
WORKS: dict[str, Work] = {
    work.__name__: work for work in (save_pattern, get_pattern, save_context, get_context)
}


def warm_up(arm: Arm) -> None:
    """Let an arm compile, prepare and connect; for players who have no part in the load."""
    for number in range(30):
        arm.save_pattern(USERS + number, KIND, "key", value(number))
        arm.get_pattern(USERS + number, KIND, "key")
        arm.save_context(USERS + number, TOPIC, value(number), SESSION)
        arm.get_context(USERS + number, TOPIC, limit=NEWEST)


def check(name: str, arm: Arm, load: Load, *, in_order: bool = True) -> None:
    """Raise WrongAnswer unless an arm gives back what the load has put in.

    Args:
        name: what to call the arm.
        arm: opened anew, so that it holds nothing but what was committed.
        load: what was done.
        in_order: whether it knows which of two rows of one second is the newer.
    """
    patterns = {(user, key): new for user, key, new in load.saves}
    context: defaultdict[int, list[Any]] = defaultdict(list)
    for user, new in load.appends:
        context[user].insert(0, new)
    for user in range(USERS):
        for key in (f"key {number}" for number in range(KEYS)):
            if arm.get_pattern(user, KIND, key) != patterns.get((user, key)):
                raise WrongAnswer(f"{name} does not know {key!r} of player {user}")
        newest = arm.get_context(user, TOPIC, limit=NEWEST)
        expected = context[user][:NEWEST]
        if in_order and newest != expected:
            raise WrongAnswer(f"{name} does not know what is newest of player {user}")
        distinct = {new["number"] for new in newest}
        if len(distinct) != len(expected) or any(new not in context[user] for new in newest):
            raise WrongAnswer(f"{name} returns something else for player {user}")
