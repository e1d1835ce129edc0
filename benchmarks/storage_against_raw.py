"""The storage against its limit: raw sqlite3 with the same schema, statements, settings and JSON checks.

Both arms do the same work in turn, A B B A ..., on databases of their own; the table shows the median of the
ratios pair by pair (ours / raw in operations a second, 1.00 is the limit) and their spread.
"""

import json
import random
import sqlite3
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

from poker_therapist.database import SQLiteLocation, read_queries
from poker_therapist.sqlite_file import open_connection
from poker_therapist.storage import PatternStorage, get_pattern_storage
from poker_therapist.values import JSON

SQL = read_queries(Path(__file__).parents[1] / "poker_therapist" / "queries.sql")
PAIRS = 7
USERS = 100
VALUE: JSON = {
    "hand": "AKs",
    "position": "button",
    "bets": [2.5, 7.5, 22.0, None],
    "note": "x" * 150,
    "tilt": True,
}

Work = Callable[[], None]


def now() -> str:
    """Return this moment as it is stored."""
    return datetime.now(UTC).isoformat(timespec="microseconds")


class Raw:
    """What a programmer would write by hand, with one connection that is kept."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        """Take a connection with the settings of the storage."""
        self.run = connection.execute

    def save_pattern(self, user: int, kind: str, key: str, value: JSON) -> None:
        """Upsert."""
        text = json.dumps(value, allow_nan=False)
        self.run(SQL["save_pattern"], (user, kind, key, text, 1.0, now()))

    def get_pattern(self, user: int, kind: str, key: str) -> object:
        """Read by key."""
        row = self.run(SQL["get_pattern"], (user, kind, key)).fetchone()
        return None if row is None else json.loads(row[0])

    def save_context(self, user: int, key: str, value: JSON, session: str) -> None:
        """Append."""
        text = json.dumps(value, allow_nan=False)
        self.run(SQL["save_context"], (user, key, text, session, now(), None))

    def get_context(self, user: int, key: str, limit: int) -> list[object]:
        """Read the newest."""
        rows = self.run(SQL["get_context"], (user, key, now(), limit)).fetchall()
        return [json.loads(text) for (text,) in rows]


def works(target: Raw | PatternStorage, seed: int) -> dict[str, Work]:
    """Return the four works, with the same arguments for the same seed."""
    chance = random.Random(seed)
    saves = [(chance.randrange(USERS), f"key {chance.randrange(50)}") for _ in range(2_500)]
    reads = [(chance.randrange(USERS), f"key {chance.randrange(50)}") for _ in range(10_000)]
    users = [chance.randrange(USERS) for _ in range(1_000)]

    def save_pattern() -> None:
        for user, key in saves:
            target.save_pattern(user, "tilt", key, VALUE)

    def get_pattern() -> None:
        for user, key in reads:
            target.get_pattern(user, "tilt", key)

    def save_context() -> None:
        for user, _ in saves:
            target.save_context(user, "topic", VALUE, "monday")

    def get_context() -> None:
        for user in users:
            target.get_context(user, "topic", limit=20)

    return {work.__name__: work for work in (save_pattern, get_pattern, save_context, get_context)}


def seconds(work: Work) -> float:
    """Return how long a work takes."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def compare(folder: Path) -> dict[str, list[float]]:
    """Return, for each work, raw time / our time of each pair."""
    with (
        get_pattern_storage(folder / "ours.db") as ours,
        get_pattern_storage(folder / "raw.db"),
        closing(open_connection(SQLiteLocation(folder / "raw.db"))) as connection,
    ):
        raw = Raw(connection)
        ratios: dict[str, list[float]] = {}
        for pair in range(PAIRS + 1):
            our_works, raw_works = works(ours, pair), works(raw, pair)
            for name in our_works:
                arms = [our_works[name], raw_works[name]]
                times = [seconds(arm) for arm in (arms if pair % 2 else reversed(arms))]
                ours_time, raw_time = times if pair % 2 else reversed(times)
                if pair:  # the first warms up
                    ratios.setdefault(name, []).append(raw_time / ours_time)
        for user in range(USERS):
            expected, actual = raw.get_context(user, "topic", 5), ours.get_context(user, "topic", limit=5)
            key = (user, "tilt", "key 1")
            if actual != expected or ours.get_pattern(*key) != raw.get_pattern(*key):
                sys.exit(f"the arms do not agree on user {user}")
    return ratios


def opening(folder: Path) -> tuple[float, float]:
    """Return the medians, in microseconds, of opening the storage and of connecting and one SELECT."""
    path = folder / "ours.db"
    ours, raw = [], []
    for _ in range(300):
        ours.append(seconds(lambda: get_pattern_storage(path).close()))
        raw.append(seconds(lambda: connect_and_select(path)))
    return statistics.median(ours) * 1e6, statistics.median(raw) * 1e6


def connect_and_select(path: Path) -> None:
    """Do the least that any program must."""
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("SELECT migration_id FROM _yoyo_migration").fetchall()


def main() -> None:
    """Print the table."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        print(f"{'share of raw sqlite3':<22}{'median':>8}{'min':>8}{'max':>8}")
        for work, ratios in compare(folder).items():
            print(f"{work:<22}{statistics.median(ratios):>8.2f}{min(ratios):>8.2f}{max(ratios):>8.2f}")
        ours, raw = opening(folder)
        print(f"opening: {ours:.0f} µs, of which connecting, one SELECT and closing {raw:.0f} µs")


if __name__ == "__main__":
    main()
