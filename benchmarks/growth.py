"""What becomes of it when the rows become many: the four works, one busy player, and writing in bulk.

Rows are made by the database itself, with SQL; going through Python would take ten times as long.
"""

import os
import sqlite3
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import count as count_up
from pathlib import Path
from random import Random
from typing import Any
from unittest import mock

import psycopg

from benchmarks import arms_postgresql, arms_sqlite
from benchmarks.against_rivals import folder_for
from benchmarks.measure import Plan, Ratio, WrongAnswer, in_turn, ratio, rotated, seconds
from benchmarks.results import server_version
from benchmarks.works import KIND, NEWEST, SESSION, TOPIC, WORKS, Arm, Place, value
from poker_therapist.records import NewContext
from poker_therapist.storage import PatternStorage, get_pattern_storage
from tests.helpers import server

# So many patterns and as many contexts of each player, however many players there are.
PER_USER = 100
SOME, BUSY = 100, 100_000
WITHOUT_DISK = "raw, without waiting for the disk"
_KEY_INDEX = "sqlite_autoindex_user_patterns_1"
BULK = (20_000, 200)

# Of one player after the other, as an import would; {0} is how many rows, {1} the player of the first.
_SQLITE_PATTERNS = """
WITH RECURSIVE numbers (n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM numbers WHERE n < {0} - 1)
INSERT INTO user_patterns (
    user_id, pattern_type, pattern_key, pattern_value, confidence, created_at, updated_at
)
SELECT
    n / 100, 'tilt', 'key ' || (n % 100), '{{"number":' || n || '}}', 0.5,
    '2026-01-05T18:12:01.000000+00:00', printf('2026-01-05T18:%02d:01.000000+00:00', n % 60)
FROM numbers
"""
_SQLITE_CONTEXT = """
WITH RECURSIVE numbers (n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM numbers WHERE n < {0} - 1)
INSERT INTO conversation_context (user_id, context_key, context_value, session_id, created_at)
SELECT
    {1}, 'topic', '{{"number":' || n || '}}', 'monday',
    printf('2026-01-05T%02d:%02d:%02d.000000+00:00', n / 3600 % 24, n / 60 % 60, n % 60)
FROM numbers
"""
_POSTGRESQL_PATTERNS = """
INSERT INTO user_patterns (
    user_id, pattern_type, pattern_key, pattern_value, confidence, created_at, updated_at
)
SELECT
    n / 100, 'tilt', 'key ' || (n % 100), json_build_object('number', n), 0.5,
    '2026-01-05 18:12:01+00', '2026-01-05 18:12:01+00'::timestamptz + (n % 60) * interval '1 minute'
FROM generate_series(0, {0} - 1) AS n
"""
_POSTGRESQL_CONTEXT = """
INSERT INTO conversation_context (user_id, context_key, context_value, session_id, created_at)
SELECT
    {1}, 'topic', json_build_object('number', n), 'monday',
    '2026-01-05 00:00:00+00'::timestamptz + n * interval '1 millisecond'
FROM generate_series(0, {0} - 1) AS n
"""


def fill_sqlite(path: Path, rows: int) -> None:
    """Make a database with so many patterns and so many contexts."""
    get_pattern_storage(path).close()
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode = OFF")
        connection.execute("PRAGMA synchronous = OFF")
        connection.execute(_SQLITE_PATTERNS.format(rows))
        connection.execute(_SQLITE_CONTEXT.format(rows, f"n / {PER_USER}"))


def fill_postgresql(url: str, rows: int) -> None:
    """Fill a migrated database with so many patterns and so many contexts."""
    with closing(psycopg.connect(url, autocommit=True)) as connection:
        for table, statement in (
            ("user_patterns", _POSTGRESQL_PATTERNS),
            ("conversation_context", _POSTGRESQL_CONTEXT),
        ):
            # Built at once and not row by row: a third of the time.
            indexes = connection.execute(
                "SELECT indexname, indexdef FROM pg_indexes WHERE tablename = %s AND indexname LIKE 'idx_%%'",
                [table],
            ).fetchall()
            for name, _ in indexes:
                connection.execute(f"DROP INDEX {name}")
            connection.execute(statement.format(rows, f"n / {PER_USER}"))
            for _, definition in indexes:
                connection.execute(definition)
        connection.execute("VACUUM ANALYZE")


def add_player_sqlite(path: Path, user: int, rows: int) -> None:
    """Add a player with so many contexts."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute(_SQLITE_CONTEXT.format(rows, user))


def add_player_postgresql(url: str, user: int, rows: int) -> None:
    """Add a player with so many contexts."""
    with closing(psycopg.connect(url, autocommit=True)) as connection:
        connection.execute(_POSTGRESQL_CONTEXT.format(rows, user))
        connection.execute("VACUUM ANALYZE conversation_context")


# A write of one connection empties the caches of all others, so everybody reads first.
ORDER = ("get_pattern", "get_context", "save_pattern", "save_context")


@dataclass
class _Sized:
    """An arm on a database of so many rows, and what each work took on it, repetition by repetition."""

    storage: Arm
    users: int
    chance: Random
    times: dict[str, list[float]] = field(default_factory=dict)

    def work(self, name: str, plan: Plan) -> Callable[[], None]:
        """Return one of the four works, on players at random."""
        storage, small = self.storage, {"number": 7}
        keys = self._pick(plan.pick(20_000 if name == "get_pattern" else 2_000, 20))
        players = [player for player, _ in keys]

        def get_pattern() -> None:
            for player, key in keys:
                storage.get_pattern(player, KIND, key)

        def get_context() -> None:
            for player in players:
                storage.get_context(player, TOPIC, limit=NEWEST)

        def save_pattern() -> None:
            for player, key in keys:
                storage.save_pattern(player, KIND, key, small)

        def save_context() -> None:
            for player in players:
                storage.save_context(player, TOPIC, small, SESSION)

        works = (get_pattern, get_context, save_pattern, save_context)
        return {work.__name__: work for work in works}[name]

    def _pick(self, count: int) -> list[tuple[int, str]]:
        """Return so many players and keys at random."""
        below = self.chance.randrange
        return [(below(self.users), f"key {below(PER_USER)}") for _ in range(count)]

    def check(self) -> None:
        """Raise WrongAnswer unless the rows are there and can be found."""
        for user in (0, self.users - 1):
            if self.storage.get_pattern(user, KIND, f"key {PER_USER - 1}") is None:
                raise WrongAnswer(f"the last pattern of player {user} is not there")
            if len(self.storage.get_context(user, TOPIC, limit=NEWEST)) != NEWEST:
                raise WrongAnswer(f"the newest of player {user} are not there")


def by_rows(
    plan: Plan,
    places: Mapping[int, Place],
    arms: Mapping[str, Callable[[Place], Arm]],
    bring_into_memory: Callable[[Place], None],
    settle: Callable[[Place], None],
) -> dict[str, Any]:
    """Return what more rows cost each arm, and our speed beside raw with so many.

    Args:
        plan: how much to do.
        places: databases by their number of rows.
        arms: how to open each arm; `ours` and `raw` are among them.
        bring_into_memory: reads all of a database; done before each repetition.
        settle: writes what earlier works have left to be written, so that nobody does so for another.
    """
    with ExitStack() as stack:
        # Each with its own players: what one has read, the next would find in memory.
        sized = {
            (arm, rows): _Sized(
                stack.enter_context(closing(open_arm(place))), rows // PER_USER, Random(f"{arm} {rows}")
            )
            for rows, place in places.items()
            for arm, open_arm in arms.items()
        }
        for repetition in range(plan.pick(8, 3)):
            for place in places.values():
                bring_into_memory(place)
            for name in ORDER:
                for arm, rows in rotated(list(sized), repetition):
                    settle(places[rows])
                    one = sized[arm, rows]
                    taken = seconds(one.work(name, plan))
                    if repetition:  # the first fills each connection's own cache
                        one.times.setdefault(name, []).append(taken)
        for one in sized.values():
            one.check()

    def compared(over: tuple[str, int], under: tuple[str, int], name: str) -> Ratio:
        return ratio(sized[over].times[name], sized[under].times[name])

    return {
        "latency_by_rows": {
            arm: {
                name: {str(rows): compared((arm, rows), (arm, min(places)), name) for rows in places}
                for name in WORKS
            }
            for arm in arms
        },
        "share_of_raw": {
            name: {str(rows): compared(("raw", rows), ("ours", rows), name) for rows in places}
            for name in WORKS
        },
    }


def busy_player(plan: Plan, storage: PatternStorage, few: int, many: int) -> dict[str, Ratio]:
    """Return what the works on a player with many contexts cost beside those on one with some."""
    looks, appends = plan.pick((2_000, 500), (20, 20))

    def look(user: int) -> None:
        for _ in range(looks):
            storage.get_context(user, TOPIC, limit=NEWEST)

    def append(user: int) -> None:
        for _ in range(appends):
            storage.save_context(user, TOPIC, {"number": 7}, SESSION)

    found = {}
    for name, work in (("get_context", look), ("save_context", append)):
        works = {"few": partial(work, few), "many": partial(work, many)}
        in_turn(works, 1)
        times = in_turn(works, plan.repetitions)
        found[name] = ratio(times["many"], times["few"])
    for user in (few, many):
        if len(storage.get_context(user, TOPIC, limit=NEWEST)) != NEWEST:
            raise WrongAnswer(f"the newest of player {user} are not there")
    return found


def bulk(
    plan: Plan, storage: PatternStorage, run_many: Callable[[str, list[tuple[Any, ...]]], None]
) -> dict[str, Ratio]:
    """Return the speed of many writes at once, as a share of raw `executemany`.

    One by one in a `transaction()`, and in one call of `save_patterns` and `save_contexts`.

    Args:
        plan: how much to do.
        storage: on the same database as the other.
        run_many: runs a named query with many values, in one transaction.
    """
    count = plan.pick(*BULK)
    values = [value(number) for number in range(count)]
    players = count_up(1)  # each run writes to a new one

    def ours_patterns() -> None:
        user = -next(players)
        with storage.transaction():
            for number, new in enumerate(values):
                storage.save_pattern(user, KIND, f"key {number}", new)

    def raw_patterns() -> None:
        user = -next(players)
        run_many(
            "save_pattern",
            [
                (user, KIND, f"key {number}", arms_sqlite.to_json(new), 1.0, *[arms_sqlite.now()] * 2)
                for number, new in enumerate(values)
            ],
        )

    def ours_context() -> None:
        user = -next(players)
        with storage.transaction():
            for new in values:
                storage.save_context(user, TOPIC, new, SESSION)

    def raw_context() -> None:
        user = -next(players)
        run_many(
            "save_context",
            [(user, TOPIC, arms_sqlite.to_json(new), SESSION, arms_sqlite.now(), None) for new in values],
        )

    def many_patterns() -> None:
        new = {f"key {number}": one for number, one in enumerate(values)}
        storage.save_patterns(-next(players), KIND, new)

    def many_contexts() -> None:
        items: list[NewContext] = [{"key": TOPIC, "value": one, "session_id": SESSION} for one in values]
        storage.save_contexts(-next(players), items)

    found: dict[str, Ratio] = {}
    for name, ours, raw in (
        ("save_pattern", ours_patterns, raw_patterns),
        ("save_patterns", many_patterns, raw_patterns),
        ("save_contexts", many_contexts, raw_context),
        ("save_context", ours_context, raw_context),
    ):
        times = in_turn({"ours": ours, "raw": raw}, plan.repetitions)
        found[name] = ratio(times["raw"], times["ours"])
    last = next(players) - 1
    if not all(len(storage.get_context(-user, TOPIC)) == count for user in (last, last - 1)):
        raise WrongAnswer("not all rows of the last transactions are there")
    return found


def read_whole(folder: Path) -> None:
    """Bring a database into the system's memory."""
    with (folder / arms_sqlite.NAME).open("rb") as file:
        while file.read(1 << 24):
            pass


def empty_log(folder: Path) -> None:
    """Move the pages of the write-ahead log into the database."""
    with closing(sqlite3.connect(folder / arms_sqlite.NAME)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def prewarm(url: str) -> None:
    """Bring a database into the server's own memory, if the server knows how."""
    with closing(psycopg.connect(url, autocommit=True)) as connection:
        if connection.execute("SELECT 1 FROM pg_available_extensions WHERE name = 'pg_prewarm'").fetchone():
            connection.execute("CREATE EXTENSION IF NOT EXISTS pg_prewarm")
            connection.execute(
                "SELECT sum(pg_prewarm(oid)) FROM pg_class"
                " WHERE relkind IN ('r', 'i') AND relnamespace = 'public'::regnamespace"
            )


def checkpoint(url: str) -> None:
    """Let the server write what it has not written yet."""
    with closing(psycopg.connect(url, autocommit=True)) as connection:
        connection.execute("CHECKPOINT")


def raw_without_disk(folder: Path) -> arms_sqlite.Raw:
    """Open raw such that nothing waits for the disk: what is left is the processor's and the memory's."""
    raw = arms_sqlite.raw(folder)
    raw.run("PRAGMA synchronous = OFF")
    return raw


def point_read_in_cache(plan: Plan, places: Mapping[int, Path]) -> Ratio:
    """Return what raw's point read takes with the most rows by that with the fewest, from SQLite's own cache.

    So no page is read from a file: it is the least that any setting can reach.
    """
    ends = {rows: places[rows] for rows in (min(places), max(places))}
    with ExitStack() as stack:
        sized: dict[int, _Sized] = {}
        for rows, folder in ends.items():
            raw = stack.enter_context(closing(arms_sqlite.raw(folder)))
            raw.run(f"PRAGMA cache_size = -{(folder / arms_sqlite.NAME).stat().st_size // 1024}")
            raw.run("SELECT sum(length(pattern_value)) FROM user_patterns NOT INDEXED").fetchone()
            raw.run(f"SELECT count(pattern_key) FROM user_patterns INDEXED BY {_KEY_INDEX}").fetchone()
            sized[rows] = _Sized(raw, rows // PER_USER, Random(1))
        times: dict[int, list[float]] = {rows: [] for rows in ends}
        for repetition in range(plan.pick(8, 3)):
            for rows in rotated(list(times), repetition):
                times[rows].append(seconds(sized[rows].work("get_pattern", plan)))
    return ratio(times[max(times)], times[min(times)])


def _sizes(plan: Plan) -> tuple[int, int, int]:
    return plan.pick((10_000, 1_000_000, 10_000_000), (2_000, 4_000, 6_000))


def sqlite(plan: Plan) -> dict[str, Any]:
    """Measure growth on SQLite."""
    with folder_for(plan, "growth") as folder:
        places = {rows: folder / str(rows) for rows in _sizes(plan)}
        for rows, place in places.items():
            place.mkdir()
            fill_sqlite(place / arms_sqlite.NAME, rows)
        arms: dict[str, Callable[[Path], Arm]] = {
            "ours": arms_sqlite.ours,
            "raw": arms_sqlite.raw,
            WITHOUT_DISK: raw_without_disk,
        }
        found = by_rows(plan, places, arms, read_whole, empty_log)
        found["point_read_in_cache"] = point_read_in_cache(plan, places)

        middle = places[_sizes(plan)[1]] / arms_sqlite.NAME
        few, many = -1, -2
        add_player_sqlite(middle, few, SOME)
        add_player_sqlite(middle, many, plan.pick(BUSY, 1_000))
        with get_pattern_storage(middle) as storage:
            found["busy_rows"] = plan.pick(BUSY, 1_000)
            found["busy_player"] = busy_player(plan, storage, few, many)

        small = folder / "bulk"
        small.mkdir()
        with (
            arms_sqlite.ours(small) as storage,
            closing(arms_sqlite.raw(small)) as raw,
        ):

            def run_many(query: str, rows: list[tuple[Any, ...]]) -> None:
                raw.run("BEGIN IMMEDIATE")
                raw.connection.executemany(arms_sqlite.QUERIES[query], rows)
                raw.run("COMMIT")

            found["bulk_rows"] = plan.pick(*BULK)
            found["bulk"] = bulk(plan, storage, run_many)
    return found


@contextmanager
def big_server() -> Iterator[Any]:
    """Start a server with a quarter of the memory for itself, as PostgreSQL's manual has it.

    Its files are in memory only where there is plenty.
    """
    quarter = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") >> 22
    settings = {"shared_buffers": f"{quarter}MB", "max_wal_size": "8GB"}
    with (
        mock.patch.object(server, "ENOUGH_MEMORY", 64 << 30),
        mock.patch.dict(server.FAST, settings),
        arms_postgresql.server() as databases,
    ):
        yield databases


def postgresql(plan: Plan) -> dict[str, Any]:
    """Measure growth on PostgreSQL."""
    with big_server() as databases, ExitStack() as stack:
        migrated = databases.template(arms_postgresql.migrate)
        places: dict[int, str] = {}
        for rows in _sizes(plan):
            places[rows] = url = stack.enter_context(databases.fresh(migrated))
            fill_postgresql(url, rows)
        arms: dict[str, Callable[[str], Arm]] = {"ours": get_pattern_storage, "raw": arms_postgresql.Raw}
        found = {"server": server_version(url)} | by_rows(plan, places, arms, prewarm, checkpoint)

        middle = places[_sizes(plan)[1]]
        few, many = -1, -2
        add_player_postgresql(middle, few, SOME)
        add_player_postgresql(middle, many, plan.pick(BUSY, 1_000))
        with get_pattern_storage(middle) as storage:
            found["busy_rows"] = plan.pick(BUSY, 1_000)
            found["busy_player"] = busy_player(plan, storage, few, many)

        url = stack.enter_context(databases.fresh(migrated))
        with get_pattern_storage(url) as storage, closing(psycopg.connect(url, autocommit=True)) as raw:
            cursor = psycopg.RawCursor(raw)

            def run_many(query: str, rows: list[tuple[Any, ...]]) -> None:
                with raw.transaction():
                    cursor.executemany(arms_postgresql.QUERIES[query], rows)

            found["bulk_rows"] = plan.pick(*BULK)
            found["bulk"] = bulk(plan, storage, run_many)
    return found


PARTS = {"growth_sqlite": sqlite, "growth_postgresql": postgresql}
