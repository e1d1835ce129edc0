"""Many asyncio tasks at once: the mixed work of `concurrency`, done by coroutines.

The measure is the synchronous storage in as many threads. Beside ours stands what one would take instead:
that storage called by `asyncio.to_thread`, or an asynchronous driver with a pool, and our statements.
"""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import ExitStack, asynccontextmanager, closing
from pathlib import Path
from typing import Any, Protocol

import psycopg

from benchmarks import arms_postgresql, arms_sqlite
from benchmarks.against_rivals import folder_for
from benchmarks.arms_sqlite import now, to_json
from benchmarks.concurrency import (
    COUNT,
    OURS,
    Call,
    Measured,
    Outcome,
    Place,
    Threads,
    calls,
    counted,
    prepare,
)
from benchmarks.measure import Plan, WrongAnswer, ratio, rotated
from benchmarks.results import server_version
from benchmarks.works import KIND, NEWEST, SESSION, TOPIC, value
from poker_therapist import get_pattern_storage
from poker_therapist.aio import AsyncPatternStorage, open_storage

THREADS, TO_THREAD = "threads", "asyncio.to_thread"
AIOSQLITE, PSYCOPG = "aiosqlite", "psycopg, AsyncConnection"
SQLITE_CONNECTIONS, SERVER_CONNECTIONS = 4, 10


class Arm(Protocol):
    """One way to store from a coroutine."""

    async def save_pattern(self, user: int, kind: str, key: str, value: Any, /) -> object:
        """Save a pattern, and commit."""

    async def get_pattern(self, user: int, kind: str, key: str, /) -> Any:
        """Return the value of a pattern."""

    async def save_context(self, user: int, key: str, value: Any, session: str, /) -> object:
        """Append, and commit."""

    async def get_context(self, user: int, key: str, /, *, limit: int) -> list[Any]:
        """Return the newest values."""

    async def count_up(self, user: int, kind: str, key: str, /) -> None:
        """Add one to a pattern, such that nobody else's one is lost."""

    async def close(self) -> None:
        """Close what is open."""


class Ours:
    """The storage for asyncio, and how one counts with it."""

    def __init__(self, storage: AsyncPatternStorage) -> None:
        self.storage = storage
        self.save_pattern = storage.save_pattern
        self.get_pattern = storage.get_pattern
        self.save_context = storage.save_context
        self.get_context = storage.get_context
        self.close = storage.close

    async def count_up(self, user: int, kind: str, key: str) -> None:
        """Add one to a pattern, in a block."""
        async with self.storage.transaction() as block:
            await block.save_pattern(user, kind, key, await block.get_pattern(user, kind, key, 0) + 1)


class ToThread:
    """The synchronous storage, each call in a thread of asyncio's."""

    def __init__(self, url: str) -> None:
        self.storage = get_pattern_storage(url)

    async def save_pattern(self, user: int, kind: str, key: str, value: Any) -> None:
        """Upsert."""
        await asyncio.to_thread(self.storage.save_pattern, user, kind, key, value)

    async def get_pattern(self, user: int, kind: str, key: str) -> Any:
        """Read by key."""
        return await asyncio.to_thread(self.storage.get_pattern, user, kind, key)

    async def save_context(self, user: int, key: str, value: Any, session: str) -> None:
        """Append."""
        await asyncio.to_thread(self.storage.save_context, user, key, value, session)

    async def get_context(self, user: int, key: str, *, limit: int) -> list[Any]:
        """Read the newest."""
        return await asyncio.to_thread(self.storage.get_context, user, key, limit=limit)

    def _count_up(self, user: int, kind: str, key: str) -> None:
        with self.storage.transaction():
            self.storage.save_pattern(user, kind, key, self.storage.get_pattern(user, kind, key, 0) + 1)

    async def count_up(self, user: int, kind: str, key: str) -> None:
        """Add one to a pattern, the block in one thread."""
        await asyncio.to_thread(self._count_up, user, kind, key)

    async def close(self) -> None:
        """Close the storage."""
        self.storage.close()


class _Pooled:
    """A few connections, each used by one call at a time."""

    def __init__(self) -> None:
        self.free: asyncio.LifoQueue[Any] = asyncio.LifoQueue()
        self.all: list[Any] = []

    def add(self, connection: Any) -> None:
        """Let calls use a connection."""
        self.all.append(connection)
        self.free.put_nowait(connection)

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Any]:
        """Wait for a connection, and give it back."""
        connection = await self.free.get()
        try:
            yield connection
        finally:
            self.free.put_nowait(connection)

    async def close(self) -> None:
        """Close the connections."""
        for connection in self.all:
            await connection.close()


class AioSQLite(_Pooled):
    """Each of aiosqlite's connections has a thread; ours have the settings of these."""

    queries = arms_sqlite.QUERIES

    @classmethod
    async def open(cls, place: str) -> "AioSQLite":
        """Open the connections."""
        import aiosqlite

        arm = cls()
        for _ in range(SQLITE_CONNECTIONS):
            arm.add(await aiosqlite.Connection(lambda: arms_sqlite.connect(Path(place)), 64))
        return arm

    async def save_pattern(self, user: int, kind: str, key: str, value: Any) -> None:
        """Upsert."""
        values = (user, kind, key, to_json(value), 1.0, *[now()] * 2)
        async with self.connection() as connection:
            await connection.execute(self.queries["save_pattern"], values)

    async def get_pattern(self, user: int, kind: str, key: str) -> Any:
        """Read by key."""
        async with self.connection() as connection:
            rows = await connection.execute_fetchall(self.queries["get_pattern"], (user, kind, key))
        return json.loads(rows[0][0]) if rows else None

    async def save_context(self, user: int, key: str, value: Any, session: str) -> None:
        """Append."""
        values = (user, key, to_json(value), session, now(), None)
        async with self.connection() as connection:
            await connection.execute(self.queries["save_context"], values)

    async def get_context(self, user: int, key: str, *, limit: int) -> list[Any]:
        """Read the newest."""
        async with self.connection() as connection:
            rows = await connection.execute_fetchall(self.queries["get_context"], (user, key, now(), limit))
        return [json.loads(text) for (text,) in rows]

    async def count_up(self, user: int, kind: str, key: str) -> None:
        """Add one to a pattern."""
        async with self.connection() as connection:
            await connection.execute("BEGIN IMMEDIATE")
            try:
                rows = await connection.execute_fetchall(self.queries["get_pattern"], (user, kind, key))
                count = json.loads(rows[0][0]) + 1
                values = (user, kind, key, to_json(count), 1.0, *[now()] * 2)
                await connection.execute(self.queries["save_pattern"], values)
            except BaseException:
                await connection.execute("ROLLBACK")
                raise
            await connection.execute("COMMIT")


class AsyncPsycopg(_Pooled):
    """psycopg's coroutines, each connection with one cursor, every statement prepared."""

    queries = arms_postgresql.QUERIES

    @classmethod
    async def open(cls, place: str) -> "AsyncPsycopg":
        """Open the connections."""
        arm = cls()
        for _ in range(SERVER_CONNECTIONS):
            connection = await psycopg.AsyncConnection.connect(place, autocommit=True)
            await connection.execute("SET TimeZone = 'UTC'")
            arm.add(psycopg.AsyncRawCursor(connection))
        return arm

    async def _run(self, query: str, values: tuple[Any, ...]) -> list[Any]:
        async with self.connection() as cursor:
            await cursor.execute(self.queries[query], values, prepare=True)
            return list(await cursor.fetchall()) if cursor.description else []

    async def save_pattern(self, user: int, kind: str, key: str, value: Any) -> None:
        """Upsert."""
        await self._run("save_pattern", (user, kind, key, to_json(value), 1.0, *[now()] * 2))

    async def get_pattern(self, user: int, kind: str, key: str) -> Any:
        """Read by key."""
        rows = await self._run("get_pattern", (user, kind, key))
        return rows[0][0] if rows else None

    async def save_context(self, user: int, key: str, value: Any, session: str) -> None:
        """Append."""
        await self._run("save_context", (user, key, to_json(value), session, now(), None))

    async def get_context(self, user: int, key: str, *, limit: int) -> list[Any]:
        """Read the newest."""
        return [found for (found,) in await self._run("get_context", (user, key, now(), limit))]

    async def count_up(self, user: int, kind: str, key: str) -> None:
        """Add one to a pattern."""
        async with self.connection() as cursor:
            await cursor.execute("BEGIN")
            try:
                locking = f"{self.queries['get_pattern']} FOR UPDATE"
                row = await (await cursor.execute(locking, (user, kind, key), prepare=True)).fetchone()
                values = (user, kind, key, to_json(row[0] + 1), 1.0, *[now()] * 2)
                await cursor.execute(self.queries["save_pattern"], values, prepare=True)
            except BaseException:
                await cursor.execute("ROLLBACK")
                raise
            await cursor.execute("COMMIT")

    async def close(self) -> None:
        """Close the connections."""
        for cursor in self.all:
            await cursor.connection.close()


async def ours(place: str) -> Arm:
    """Open ours."""
    return Ours(await open_storage(place))


async def to_thread(place: str) -> Arm:
    """Open the synchronous storage."""
    return ToThread(place)


async def work(arm: Arm, todo: list[Call]) -> Outcome:
    """Do the calls of one task."""
    outcome, new, clock = Outcome(), value(7), time.perf_counter
    outcome.start = time.monotonic()
    for kind, user, key in todo:
        before = clock()
        try:
            if kind == "get":
                await arm.get_pattern(user, KIND, key)
            elif kind == "newest":
                await arm.get_context(user, TOPIC, limit=NEWEST)
            elif kind == "save":
                await arm.save_pattern(user, KIND, key, new)
            elif kind == "append":
                await arm.save_context(user, TOPIC, new, SESSION)
            else:
                await arm.count_up(user, *COUNT)
        except Exception as error:  # whatever it is, it is counted
            outcome.errors.append(f"{type(error).__name__}: {error}")
        outcome.latencies.append(clock() - before)
    outcome.end = time.monotonic()
    return outcome


def measure(
    plan: Plan, places: dict[str, Place], opens: dict[str, Callable[[str], Awaitable[Arm]]]
) -> dict[str, Any]:
    """Return what each arm's throughput is as a share of the threads', by the number of tasks.

    Args:
        plan: how much is done.
        places: a database for each arm, and for the threads.
        opens: how each arm is opened there.
    """
    numbers, count = plan.pick([1, 10, 100], [1, 10]), plan.pick(4_800, 320)
    measured = {(name, number): Measured() for name in places for number in numbers}
    expected = dict.fromkeys(places, 0)
    before = {name: counted(place) for name, place in places.items()}
    threads = Threads([places[THREADS]], max(numbers))
    with closing(threads), asyncio.Runner() as loop:

        async def run(arm: Arm, number: int, seed: int) -> list[Outcome]:
            todo = [calls(seed + each, count // number) for each in range(number)]
            return list(await asyncio.gather(*(work(arm, each) for each in todo)))

        arms = {name: loop.run(_await(open_arm(places[name].where))) for name, open_arm in opens.items()}
        for repetition in range(plan.repetitions + 1):
            for number in numbers:
                seed = 1_000 * repetition + 100 * number
                for name in rotated(list(places), repetition):
                    if name == THREADS:
                        outcomes = threads.run(OURS, number, seed, count)
                    else:
                        outcomes = loop.run(run(arms[name], number, seed))
                    if repetition:  # the first opens connections and prepares statements
                        measured[name, number].add(outcomes)
                    expected[name] += sum(
                        kind == "count"
                        for each in range(number)
                        for kind, *_ in calls(seed + each, count // number)
                    )
        for arm in arms.values():
            loop.run(_await(arm.close()))
    lost = {name: expected[name] - (counted(place) - before[name]) for name, place in places.items()}
    errors = {name: sum(len(measured[name, number].errors) for number in numbers) for name in places}
    if errors[OURS] or lost[OURS]:
        raise WrongAnswer(f"errors {errors}, lost updates {lost}")
    return {
        "calls": count,
        "tasks": {
            str(number): {
                name: {
                    "throughput": ratio(measured[THREADS, number].seconds, measured[name, number].seconds),
                    "p99": ratio(measured[name, number].p99, measured[THREADS, number].p99),
                }
                for name in opens
            }
            for number in numbers
        },
        "errors": errors,
        "lost_updates": lost,
    }


async def _await(coroutine: Awaitable[Any]) -> Any:
    return await coroutine


def sqlite(plan: Plan, *, with_rival: bool = True) -> dict[str, Any]:
    """Measure on SQLite."""
    opens: dict[str, Any] = {OURS: ours, TO_THREAD: to_thread}
    if with_rival:
        opens[AIOSQLITE] = AioSQLite.open
    with ExitStack() as stack:
        places = {}
        for name in (THREADS, *opens):
            path = arms_sqlite.migrated(stack.enter_context(folder_for(plan, "tasks")))
            places[name] = Place("sqlite", OURS, str(path))
            prepare(places[name])
        return measure(plan, places, opens)


def postgresql(plan: Plan) -> dict[str, Any]:
    """Measure on PostgreSQL, all with as many connections."""
    opens: dict[str, Any] = {OURS: ours, TO_THREAD: to_thread, PSYCOPG: AsyncPsycopg.open}
    with arms_postgresql.server() as databases, ExitStack() as stack:
        migrated = databases.template(arms_postgresql.migrate)
        places = {}
        for name in (THREADS, *opens):
            url = stack.enter_context(databases.fresh(migrated))
            places[name] = Place("postgresql", OURS, url)
            prepare(places[name])
        return {"server": server_version(url), **measure(plan, places, opens)}


PARTS = {"asyncio_sqlite": sqlite, "asyncio_postgresql": postgresql}
