"""What becomes of it when the rows become many: the four works, one busy player, and writing in bulk.

Rows are made by the database itself, with SQL; going through Python would take ten times as long.
"""

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

import tests.server
from benchmarks import arms_postgresql, arms_sqlite
from benchmarks.against_rivals import folder_for
from benchmarks.measure import Plan, Ratio, WrongAnswer, in_turn, ratio, rotated, seconds
from benchmarks.results import server_version
from benchmarks.works import KIND, NEWEST, SESSION, TOPIC, Arm, Place, value
from poker_therapist.storage import PatternStorage, get_pattern_storage

# So many patterns and as many contexts of each player, however many players there are.
PER_USER = 100
Latencies = dict[str, dict[str, Ratio]]
SOME, BUSY = 100, 100_000
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


@dataclass
class _Sized:
    """An arm with so many rows, and what each work took on it, repetition by repetition."""

    storage: Arm
    users: int
    chance: Random = field(default_factory=lambda: Random(1))
    times: dict[str, list[float]] = field(default_factory=dict)

    def works(self, plan: Plan) -> dict[str, Callable[[], None]]:
        """Return the four works on players at random."""
        writes, reads = plan.pick((1_000, 4_000), (20, 20))
        chance, storage = self.chance, self.storage
        saves = [(chance.randrange(self.users), f"key {chance.randrange(PER_USER)}") for _ in range(writes)]
        gets = [(chance.randrange(self.users), f"key {chance.randrange(PER_USER)}") for _ in range(reads)]
        looks = [chance.randrange(self.users) for _ in range(writes)]
        small = {"number": 7}

        def save_pattern() -> None:
            for user, key in saves:
                storage.save_pattern(user, KIND, key, small)

        def get_pattern() -> None:
            for user, key in gets:
                storage.get_pattern(user, KIND, key)

        def save_context() -> None:
            for user in looks:
                storage.save_context(user, TOPIC, small, SESSION)

        def get_context() -> None:
            for user in looks:
                storage.get_context(user, TOPIC, limit=NEWEST)

        return {work.__name__: work for work in (save_pattern, get_pattern, save_context, get_context)}

    def check(self) -> None:
        """Raise WrongAnswer unless the rows are there and can be found."""
        for user in (0, self.users - 1):
            if self.storage.get_pattern(user, KIND, f"key {PER_USER - 1}") is None:
                raise WrongAnswer(f"the last pattern of player {user} is not there")
            if len(self.storage.get_context(user, TOPIC, limit=NEWEST)) != NEWEST:
                raise WrongAnswer(f"the newest of player {user} are not there")


def by_rows(plan: Plan, places: Mapping[int, Place], open_arm: Callable[[Place], Arm]) -> Latencies:
    """Return, for each work and count of rows, the latency as a multiple of that at the fewest rows."""
    with ExitStack() as stack:
        sized = {
            rows: _Sized(stack.enter_context(closing(open_arm(place))), rows // PER_USER)
            for rows, place in places.items()
        }
        for repetition in range(plan.pick(8, 3)):
            for rows in rotated(list(sized), repetition):
                one = sized[rows]
                for name, work in one.works(plan).items():
                    taken = seconds(work)
                    if repetition:  # the first brings pages into memory
                        one.times.setdefault(name, []).append(taken)
        for one in sized.values():
            one.check()
    fewest = sized[min(sized)]
    return {
        name: {str(rows): ratio(one.times[name], base) for rows, one in sized.items()}
        for name, base in fewest.times.items()
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
    """Return the speed of many writes in one transaction, as a share of raw `executemany`.

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
                (user, KIND, f"key {number}", arms_sqlite.to_json(new), 1.0, arms_sqlite.now())
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

    found: dict[str, Ratio] = {}
    for name, ours, raw in (
        ("save_pattern", ours_patterns, raw_patterns),
        ("save_context", ours_context, raw_context),
    ):
        times = in_turn({"ours": ours, "raw": raw}, plan.repetitions)
        found[name] = ratio(times["raw"], times["ours"])
    last = next(players) - 1
    if not all(len(storage.get_context(-user, TOPIC)) == count for user in (last, last - 1)):
        raise WrongAnswer("not all rows of the last transactions are there")
    return found


def _sizes(plan: Plan) -> tuple[int, int, int]:
    return plan.pick((10_000, 1_000_000, 10_000_000), (2_000, 4_000, 6_000))


def sqlite(plan: Plan) -> dict[str, Any]:
    """Measure growth on SQLite."""
    with folder_for(plan, "growth") as folder:
        places = {rows: folder / str(rows) for rows in _sizes(plan)}
        for rows, place in places.items():
            place.mkdir()
            fill_sqlite(place / arms_sqlite.NAME, rows)
        found: dict[str, Any] = {
            "latency_by_rows": by_rows(plan, places, arms_sqlite.ours),
            "raw_latency_by_rows": by_rows(plan, places, arms_sqlite.raw),
        }

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
    """Start a server that has its files in memory only where there is plenty."""
    with mock.patch.object(tests.server, "ENOUGH_MEMORY", 64 << 30), arms_postgresql.server() as databases:
        yield databases


def postgresql(plan: Plan) -> dict[str, Any]:
    """Measure growth on PostgreSQL."""
    with big_server() as databases, ExitStack() as stack:
        migrated = databases.template(arms_postgresql.migrate)
        places: dict[int, str] = {}
        for rows in _sizes(plan):
            places[rows] = url = stack.enter_context(databases.fresh(migrated))
            fill_postgresql(url, rows)
        found: dict[str, Any] = {
            "server": server_version(url),
            "latency_by_rows": by_rows(plan, places, get_pattern_storage),
            "raw_latency_by_rows": by_rows(plan, places, arms_postgresql.Raw),
        }

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
                    cursor.executemany(arms_sqlite.QUERIES[query].replace("?", "$"), rows)

            found["bulk_rows"] = plan.pick(*BULK)
            found["bulk"] = bulk(plan, storage, run_many)
    return found


PARTS = {"growth_sqlite": sqlite, "growth_postgresql": postgresql}
