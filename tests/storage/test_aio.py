"""The storage for asyncio: the same methods; what is one task's is never another's; nothing is lost."""

import asyncio
import contextlib
import contextvars
import gc
import inspect
import logging
import os
import random
import re
import select
import signal
import sqlite3
import sys
import threading
import warnings
import weakref
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from typing import Any

import psutil
import psycopg
import pytest

from poker_therapist import (
    DatabaseBusy,
    DatabaseNotFound,
    DatabaseUnreachable,
    InvalidInput,
    PatternStorage,
    StorageClosed,
    StorageError,
    get_pattern_storage,
)
from poker_therapist.aio import AsyncPatternStorage, AsyncTransaction, open_storage
from poker_therapist.places import innermost
from poker_therapist.postgresql import connect
from poker_therapist.workers import Call, Workers
from tests.helpers.engines import is_server, postgresql_only, query, sqlite_only, with_options

USER = 7
MOST_THREADS = {"sqlite": 4, "postgresql": 10}
Main = Coroutine[Any, Any, Any]

# What a storage has beside the methods about players.
OF_ITS_OWN = {"close", "db_path", "transaction"}
METHODS = {
    name: method
    for name, method in inspect.getmembers(PatternStorage)
    if not name.startswith("_") and name not in OF_ITS_OWN
}


class Failed(Exception):
    """What a block raises by itself."""


def keys(database: str) -> set[str]:
    """Return what is saved, as another program sees it."""
    return {key for (key,) in query(database, "SELECT pattern_key FROM user_patterns")}


def workers() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "storage"]


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    before = workers()
    yield
    gc.collect()
    assert [thread for thread in workers() if thread not in before] == []


@pytest.fixture(params=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Callable[[Main], Any]:
    """Run a coroutine by each implementation of the event loop."""
    if request.param == "asyncio":
        return asyncio.run
    uvloop = pytest.importorskip("uvloop", reason="there is no uvloop for this platform")
    runner: Callable[[Main], Any] = uvloop.run
    return runner


def test_every_method_is_there_with_the_same_parameters_and_words() -> None:
    for owner in (AsyncPatternStorage, AsyncTransaction):
        there = {
            name: method
            for name, method in inspect.getmembers(owner, inspect.iscoroutinefunction)
            if not name.startswith("_") and name != "close"
        }
        assert there.keys() == METHODS.keys()
        for name, method in METHODS.items():
            assert inspect.signature(there[name]) == inspect.signature(method)
            assert there[name].__doc__ == method.__doc__
    opening, opened = (inspect.signature(call).parameters for call in (open_storage, get_pattern_storage))
    assert opening == opened


# Something for each parameter that has no default.
ARGUMENTS = {
    "user_id": USER, "pattern_type": "t", "pattern_key": "k", "pattern_value": 1, "patterns": {"a": 1},
    "confidence": 0.5, "context_key": "c", "context_value": 1, "items": [{"key": "c", "value": 1}],
    "context_id": 1, "insight_type": "i", "insight_data": 1, "insight_id": 1, "user_ids": [USER],
}  # fmt: skip


def arguments(name: str) -> dict[str, Any]:
    parameters = list(inspect.signature(METHODS[name]).parameters.values())[1:]
    return {each.name: ARGUMENTS[each.name] for each in parameters if each.default is each.empty}


@sqlite_only
def test_who_reads_waits_for_no_writer_and_who_writes_waits_in_the_loop(migrated: str) -> None:
    """So each method is known for what it is: a write that is taken for a read would wait in a thread."""
    outside = contextvars.copy_context()

    async def main() -> dict[str, Any]:
        async with open_storage(with_options(migrated, "timeout=0")) as storage, storage.transaction():
            calls = [getattr(storage, name)(**arguments(name)) for name in METHODS]
            tasks = [asyncio.get_running_loop().create_task(call, context=outside) for call in calls]
            return dict(zip(METHODS, await asyncio.gather(*tasks, return_exceptions=True), strict=True))

    waited = {name for name, result in asyncio.run(main()).items() if "because other tasks" in str(result)}
    assert waited == {name for name in METHODS if not re.match("get|list|count|recall|export", name)}


def test_it_answers_as_the_storage_does(run: Callable[[Main], Any], migrated: str) -> None:
    async def main() -> None:
        async with open_storage(migrated) as storage:
            assert str(storage.db_path) in repr(storage)
            await storage.save_pattern(USER, "t", "k", {"a": 1}, confidence=0.5)
            assert await storage.get_pattern(USER, "t", "k") == {"a": 1}
            assert await storage.get_pattern(USER, "t", "none", default="d") == "d"
            with pytest.raises(InvalidInput, match="user_id"):
                await storage.get_pattern("7", "t", "k")  # type: ignore[arg-type]  # that is what is refused
            async with storage.transaction() as block:
                await block.save_pattern(USER, "t", "in block", 1)
                assert await block.get_pattern(USER, "t", "in block") == 1
            opened = await open_storage(migrated)
            assert await opened.count(USER) == await storage.count(USER)
            await opened.close()
            await opened.close()
            with pytest.raises(StorageClosed, match="open_storage"):
                await opened.count(USER)

    run(main())
    with get_pattern_storage(migrated) as storage:
        assert set(storage.get_patterns_by_type(USER, "t")) == {"k", "in block"}


def test_opening_and_its_errors_are_a_worker_s(migrated: str, tmp_path: Any) -> None:
    opened_by = []

    async def main() -> None:
        async with open_storage(migrated, on_connect=lambda _: opened_by.append(threading.current_thread())):
            pass
        unopened = open_storage(tmp_path / "missing.db", migrate=False)
        for _ in range(2):
            with pytest.raises(DatabaseNotFound):
                await unopened
            for call in (unopened.count(USER), unopened.transaction().__aenter__()):
                with pytest.raises(StorageClosed, match="is not open: `async with"):
                    await call
        twice = open_storage(migrated)
        results = await asyncio.gather(*(twice._open() for _ in range(2)), return_exceptions=True)
        assert "another task is already opening this storage" in str(results[1])
        assert results[0] is twice is await twice
        await twice.close()
        opening = asyncio.ensure_future(open_storage(migrated)._open())
        await asyncio.sleep(0)
        opening.cancel()
        with pytest.raises(asyncio.CancelledError):
            await opening

    asyncio.run(main())
    assert opened_by
    assert threading.main_thread() not in opened_by


# Blocks


def test_a_block_is_its_task_s_and_others_go_on_beside_it(run: Callable[[Main], Any], migrated: str) -> None:
    async def main() -> None:
        inside, go_on = asyncio.Event(), asyncio.Event()

        async def owner(error: Exception | None) -> None:
            async with storage.transaction() as block:
                await block.save_pattern(USER, "t", "by block", 1)
                await storage.save_pattern(USER, "t", "by storage", 1)  # in the block, as in `with`
                inside.set()
                await go_on.wait()
                if error:
                    raise error

        async with open_storage(migrated) as storage:
            for error in (Failed(), None):
                inside.clear()
                go_on.clear()
                owning = asyncio.create_task(owner(error))
                await inside.wait()
                beside = asyncio.create_task(storage.save_pattern(USER + 1, "t", "other", 1))
                assert await storage.get_patterns_by_type(USER, "t") == {}
                go_on.set()
                await beside
                assert (await asyncio.gather(owning, return_exceptions=True))[0] is error
                assert keys(migrated) == {"other"} | (set() if error else {"by block", "by storage"})

    run(main())


def test_a_part_is_rolled_back_by_itself(migrated: str) -> None:
    async def main() -> None:
        async with open_storage(migrated) as storage, storage.transaction() as block:
            await block.save_pattern(USER, "t", "before", 1)
            with contextlib.suppress(Failed):
                async with block.transaction() as part:
                    await part.save_pattern(USER, "t", "lost", 1)
                    async with storage.transaction():
                        await block.save_pattern(USER, "t", "lost, too", 1)
                    raise Failed
            async with storage.transaction() as part:
                await part.save_pattern(USER, "t", "kept", 1)
            with pytest.raises(StorageError, match="has ended"):
                await part.save_pattern(USER, "t", "too late", 1)

    asyncio.run(main())
    assert keys(migrated) == {"before", "kept"}


def test_tasks_that_were_started_in_a_block_may_use_it_and_nothing_else(migrated: str) -> None:
    async def main() -> None:
        async with open_storage(migrated) as storage:
            async with storage.transaction() as block:
                await asyncio.gather(*(block.save_pattern(USER, "t", f"{n}", n) for n in range(5)))
                with pytest.raises(
                    StorageError, match=r"started inside an open transaction.*asyncio\.wait_for"
                ):
                    await asyncio.create_task(storage.save_pattern(USER, "t", "child", 1))
                with pytest.raises(StorageError, match="begin the nested block in the task that began"):
                    await asyncio.create_task(block.transaction().__aenter__())
                async with block.transaction():
                    late = asyncio.create_task(block.save_pattern(USER, "t", "of the outer", 1))
                    with pytest.raises(StorageError, match="belongs to another task"):
                        await late
                late = asyncio.create_task(storage.save_pattern(USER, "t", "afterwards", 1))
            await late  # it had not begun before the block ended

    asyncio.run(main())
    assert keys(migrated) == {*"01234", "afterwards"}


def test_a_block_in_the_hands_of_another_task_is_refused(migrated: str) -> None:
    async def main() -> None:
        async with open_storage(migrated) as storage:
            given: asyncio.Queue[AsyncTransaction] = asyncio.Queue()

            async def other() -> None:
                block = await given.get()
                await block.save_pattern(USER, "t", "other", 1)

            async def begin() -> AsyncTransaction:
                block = await storage.transaction().__aenter__()
                await block.save_pattern(USER, "t", "lost", 1)
                return block

            using = asyncio.create_task(other())
            async with storage.transaction() as block:
                given.put_nowait(block)
                with pytest.raises(StorageError, match="belongs to another task"):
                    await using
            block = await asyncio.create_task(begin())
            with pytest.raises(
                StorageError, match="begun by one thread or asyncio task and ended by another"
            ):
                await block.__aexit__(None, None, None)
            await storage.save_pattern(USER, "t", "saved", 1)

    asyncio.run(main())
    assert keys(migrated) == {"saved"}


def test_a_block_that_nobody_ends_is_rolled_back(migrated: str) -> None:
    async def main() -> None:
        async def begin() -> None:
            await (await storage.transaction().__aenter__()).save_pattern(USER, "t", "lost", 1)
            await (await storage.transaction().__aenter__()).save_pattern(USER, "t", "lost, too", 1)

        async with open_storage(with_options(migrated, "timeout=20")) as storage:
            await asyncio.create_task(begin())
            gc.collect()
            await storage.save_pattern(USER, "t", "saved", 1)  # waits for nothing
            outer = storage.transaction()
            async with outer as block:
                part = await block.transaction().__aenter__()
                with pytest.raises(StorageError, match="failed and was rolled back"):
                    await outer.__aexit__(None, None, None)

            assert part.is_over

    with pytest.raises(StorageError, match="failed and was rolled back"):  # ended a second time
        asyncio.run(main())
    assert keys(migrated) == {"saved"}


def test_a_block_that_its_own_task_drops_keeps_none_of_the_task_s_saves(migrated: str) -> None:
    async def main() -> None:
        async def leave_open() -> AsyncIterator[int]:
            async with storage.transaction() as block:
                await block.save_pattern(USER, "t", "lost", 1)
                yield 1
                yield 2

        async with open_storage(with_options(migrated, "timeout=20")) as storage:
            block = storage.transaction()
            await block.__aenter__()
            await storage.save_pattern(USER, "t", "lost", 1)
            del block
            await storage.save_pattern(USER, "t", "outside", 1)
            outer = storage.transaction()
            async with outer as block:
                await block.transaction().__aenter__()  # a part, likewise
                await storage.save_pattern(USER, "t", "of the whole", 1)
            for _ in range(5):
                async for _ in leave_open():
                    break
                try:  # asyncio closes the generator, in a task of its own
                    await storage.save_pattern(USER, "t", "acknowledged", 1)
                except StorageError:
                    assert "acknowledged" not in keys(migrated)
                else:
                    assert "acknowledged" in keys(migrated)
            async for _ in leave_open():
                await storage.save_pattern(USER, "t", "undone, and said", 1)
                break
            for _ in range(5):  # steps of the loop, in which the generator is closed
                await asyncio.sleep(0)
            with pytest.raises(StorageError, match="rolled back, so save again"):
                await storage.save_pattern(USER, "t", "refused", 1)
            await storage.save_pattern(USER, "t", "after", 1)

    asyncio.run(main())
    assert keys(migrated) - {"acknowledged"} == {"outside", "of the whole", "after"}


def test_blocks_that_end_in_any_order_are_taken_out(migrated: str, tmp_path: Any) -> None:
    async def main() -> None:
        async with open_storage(migrated) as one, open_storage(tmp_path / "two.db") as two:
            first, second = one.transaction(), two.transaction()
            await first.__aenter__()
            await second.__aenter__()
            await first.__aexit__(None, None, None)
            with contextlib.suppress(Failed):
                async with contextlib.AsyncExitStack() as stack:
                    stack.push_async_exit(second)
                    await two.save_pattern(USER, "t", "lost", 1)
                    raise Failed
            assert await two.count(USER) == await one.count(USER)
            for _ in range(3):
                block = await one.transaction().__aenter__()
                with pytest.raises(StorageError, match="ended by another"):
                    await asyncio.create_task(block.__aexit__(None, None, None))
            await one.save_pattern(USER, "t", "saved", 1)
            assert innermost.get() is None

    asyncio.run(main())
    assert keys(migrated) == {"saved"}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="Windows has no fork")
def test_a_forked_child_leaves_a_block_and_ends(migrated: str) -> None:
    """As a child whose code calls sys.exit(); its parent goes on with the block."""
    loop = asyncio.new_event_loop()

    async def main() -> None:
        async with open_storage(migrated) as storage:
            async with storage.transaction() as block:
                await block.save_pattern(USER, "t", "before", 1)
                waiting = asyncio.create_task(block.save_pattern(USER, "t", "by a task", 1))
                await asyncio.sleep(0)
                with warnings.catch_warnings(action="ignore"):  # of threads in the parent
                    child = os.fork()
                if child == 0:
                    signal.alarm(20)
                    waiting.cancel()
                    while not waiting.done():
                        await asyncio.sleep(0)
                    raise SystemExit(5)
                assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 5
                await block.save_pattern(USER, "t", "after", 1)
            await waiting

    parent = os.getpid()
    try:
        loop.run_until_complete(main())
    except SystemExit as error:
        os._exit(int(str(error)))
    finally:
        if os.getpid() != parent:
            os._exit(1)
        loop.close()
    assert keys(migrated) == {"before", "by a task", "after"}


def test_who_waits_for_a_block_is_refused_after_the_timeout(migrated: str) -> None:
    options = "timeout=0.1&connections=1" if is_server(migrated) else "timeout=0.1"

    async def main() -> None:
        async with open_storage(with_options(migrated, options)) as storage:
            began = asyncio.Event()

            async def wait(call: Callable[[], Main]) -> None:
                await began.wait()
                with pytest.raises(
                    DatabaseBusy, match=r"no connection was free for 0\.1 seconds, because other tasks"
                ):
                    await call()

            waiting = asyncio.gather(
                wait(lambda: storage.save_pattern(USER, "t", "refused", 1)),
                wait(lambda: storage.transaction().__aenter__()),
            )
            async with storage.transaction() as block:
                await block.save_pattern(USER, "t", "saved", 1)
                began.set()
                await waiting
            await storage.save_pattern(USER, "t", "afterwards", 1)

    asyncio.run(main())
    assert keys(migrated) == {"saved", "afterwards"}


def test_who_waits_while_its_queue_moves_is_not_refused(migrated: str) -> None:
    options = "timeout=10&connections=1" if is_server(migrated) else "timeout=10"
    other: Any = psycopg.connect(migrated) if is_server(migrated) else sqlite3.connect(migrated)

    async def main() -> None:
        loop, hurried = asyncio.get_running_loop(), 0.0
        clock = loop.time
        loop.time = lambda: clock() + hurried  # type: ignore[method-assign]  # so that nobody has to wait

        async def save(number: int) -> None:
            nonlocal hurried
            async with storage.transaction() as block:
                hurried += 6
                for _ in range(3):  # steps of the loop, which look who has waited for too long
                    await asyncio.sleep(0)
                await block.save_pattern(USER, "t", f"{number}", number)

        async with open_storage(with_options(migrated, options)) as storage:
            await asyncio.gather(*(save(number) for number in range(5)))
            other.execute("LOCK TABLE user_patterns" if is_server(migrated) else "BEGIN IMMEDIATE")
            saves = [asyncio.create_task(storage.save_pattern(USER, "t", key, 1)) for key in "ab"]
            await asyncio.sleep(0)
            doing: Any = storage._usable()  # fibers have begun by now
            while not is_server(migrated) and not any(each.running for each in (doing._calls, doing._writes)):
                await asyncio.sleep(0)
            hurried += 60  # the first has not ended, and ends by itself
            for _ in range(3):
                await asyncio.sleep(0)
            other.execute("ROLLBACK")
            await asyncio.gather(*saves)

    with contextlib.closing(other):
        asyncio.run(main())
    assert keys(migrated) == set("01234ab")


# Threads, fibers, connections and cancellation


def test_a_call_that_is_done_is_not_kept_back_by_a_long_one_after_it() -> None:
    both_wait, go_on = threading.Event(), threading.Event()

    async def main() -> None:
        only = Workers(asyncio.get_running_loop())
        only.allow(1, 1, 60)
        first, second = (Call(only.loop, do) for do in (both_wait.wait, go_on.wait))
        for call in (first, second):
            only.submit(call)
        both_wait.set()
        assert await first.wait()
        assert not second.is_done
        go_on.set()
        await second.wait()
        only.stop()
        await only.join()

    asyncio.run(main())


def test_a_thread_that_waits_is_helped_by_another() -> None:
    go_on = threading.Event()

    async def main() -> None:
        two = Workers(asyncio.get_running_loop())
        two.allow(2, 2, 60)
        waiting, behind = (Call(two.loop, do) for do in (go_on.wait, go_on.set))
        for call in (waiting, behind):
            two.submit(call)
        assert await waiting.wait()  # for what the call behind it does
        await behind.wait()
        two.stop()
        await two.join()

    asyncio.run(main())


@postgresql_only
@pytest.mark.parametrize("lacks", ["nothing", "sockets", "greenlet"])
def test_only_what_lacks_sockets_or_greenlet_needs_a_thread_for_each_call(
    migrated: str, monkeypatch: pytest.MonkeyPatch, lacks: str
) -> None:
    """The usual loop of Windows cannot watch sockets; and psycopg can be installed without the extra."""
    used: set[int] = set()
    execute = psycopg.RawCursor.execute

    def noted(cursor: Any, *arguments: Any, **options: Any) -> Any:
        used.add(threading.get_ident())
        return execute(cursor, *arguments, **options)

    def refuse(*_: Any) -> None:
        raise NotImplementedError

    async def main() -> bool:
        if lacks == "greenlet":
            monkeypatch.setitem(sys.modules, "greenlet", None)
            monkeypatch.delitem(sys.modules, "poker_therapist.fibers", raising=False)
        elif lacks == "sockets":
            monkeypatch.setattr(asyncio.get_running_loop(), "remove_reader", refuse)
            monkeypatch.setattr(asyncio.get_running_loop(), "add_reader", refuse)
        async with open_storage(migrated) as storage:
            await storage.count(USER)  # opens a connection
            monkeypatch.setattr(psycopg.RawCursor, "execute", noted)
            async with storage.transaction() as block:
                await block.save_pattern(USER, "t", "k", await block.get_pattern(USER, "t", "k", 1) + 1)
            assert await storage.get_pattern(USER, "t", "k") == 2
            return used == {threading.get_ident()}

    assert asyncio.run(main()) is (lacks == "nothing")


@postgresql_only
def test_a_task_that_begins_while_a_call_runs_is_no_part_of_it(migrated: str) -> None:
    """As a log handler may start one: it has a copy of the context in which the call runs."""
    begun: list[asyncio.Task[Any]] = []
    other = get_pattern_storage(migrated)

    async def read() -> Any:
        with other.transaction():
            return other.get_pattern(USER, "t", "k")

    class Handler(logging.Handler):
        def emit(self, _record: logging.LogRecord) -> None:
            begun.append(asyncio.get_running_loop().create_task(read()))

    async def main() -> None:
        async with open_storage(with_options(migrated, "slow_ms=0.000001")) as storage:
            logger.addHandler(handler)
            for number in range(5):
                await storage.save_pattern(USER, "t", "k", number)
                await asyncio.sleep(0)
            logger.removeHandler(handler)
            assert len(begun) == 5
            assert set(await asyncio.gather(*begun)) <= set(range(5))

    logger, handler = logging.getLogger("poker_therapist"), Handler()
    with contextlib.closing(other):
        asyncio.run(main())


@postgresql_only
def test_a_call_that_is_done_keeps_nothing_of_what_it_was_given(migrated: str) -> None:
    class Value(dict[str, int]):
        """Which, unlike a dict, can be referred to weakly."""

    async def main() -> None:
        async with open_storage(migrated) as storage:
            value = Value(a=1)
            await storage.save_pattern(USER, "t", "k", value)
            reference = weakref.ref(value)
            del value
            assert reference() is None

    asyncio.run(main())


def test_a_loop_may_go_on_in_another_thread(migrated: str) -> None:
    """Between calls; a block belongs to the thread that began it."""
    loop = asyncio.new_event_loop()
    storage = loop.run_until_complete(open_storage(migrated)._open())
    loop.run_until_complete(storage.save_pattern(USER, "t", "k", 1))
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    for _ in range(3):
        assert asyncio.run_coroutine_threadsafe(storage.get_pattern(USER, "t", "k"), loop).result(30) == 1
    asyncio.run_coroutine_threadsafe(storage.close(), loop).result(30)
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()


@postgresql_only
@pytest.mark.parametrize("has_epoll", [True, False], ids=["epoll", "no epoll"])
def test_a_storage_that_nobody_closes_leaves_nothing_in_the_loop(
    run: Callable[[Main], Any], migrated: str, monkeypatch: pytest.MonkeyPatch, has_epoll: bool
) -> None:
    """Nor does one that is closed; both where the system has epoll and where it has not, as macOS."""
    if not has_epoll:
        monkeypatch.delattr(select, "epoll")

    async def use(*, closes: bool) -> None:
        storage = await open_storage(migrated)
        await asyncio.gather(*(storage.save_pattern(USER, "t", f"{n}", n) for n in range(20)))
        assert await storage.get_pattern(USER, "t", "7") == 7
        if closes:
            await storage.close()

    async def main() -> int:
        before: int = psutil.Process().num_fds()
        for closes in (True, False):
            await use(closes=closes)
            gc.collect()
        while workers():
            await asyncio.sleep(0)
        await asyncio.sleep(0)
        return int(psutil.Process().num_fds()) - before

    assert run(main()) == 0


@postgresql_only
def test_what_calculates_for_long_does_so_in_a_thread(migrated: str, monkeypatch: pytest.MonkeyPatch) -> None:
    used: list[int] = []
    execute = psycopg.RawCursor.execute

    def noted(cursor: Any, *arguments: Any, **options: Any) -> Any:
        used.append(threading.get_ident())
        return execute(cursor, *arguments, **options)

    async def main() -> None:
        async with open_storage(migrated) as storage:
            await storage.save_context(USER, "topic", 1)
            monkeypatch.setattr(psycopg.RawCursor, "execute", noted)
            for call in (
                lambda: storage.get_context(USER, "topic"),  # whose default is all
                lambda: storage.get_context(USER, "topic", None, 50_000),
                lambda: storage.get_context(USER, "topic", limit=None),
                lambda: storage.recall(USER, context_limit=None),
                lambda: storage.get_context(USER, "topic", limit=50_000),
                lambda: storage.export_user(USER),
                lambda: storage.save_contexts(USER, [{"key": "topic", "value": 1}] * 2),
                lambda: storage.forget_user(USER),
            ):
                used.clear()
                await call()
                assert used
                assert threading.get_ident() not in used
            used.clear()
            await storage.get_context(USER, "topic", limit=20)
            await storage.get_context(USER, "topic", None, 20)
            await storage.recall(USER)
            assert set(used) == {threading.get_ident()}

    asyncio.run(main())


@postgresql_only
def test_the_loop_goes_on_while_the_server_is_asked_whether_it_still_works(
    migrated: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connect, "SILENCE", 0.05)
    asked = asyncio.Event()
    asked_in: list[int] = []
    is_active = connect.WatchedConnection._is_active

    async def main() -> None:
        loop = asyncio.get_running_loop()

        def ask(connection: connect.WatchedConnection) -> bool:
            asked_in.append(threading.get_ident())
            loop.call_soon_threadsafe(asked.set)
            return is_active(connection)

        monkeypatch.setattr(connect.WatchedConnection, "_is_active", ask)
        async with open_storage(migrated) as storage:
            other.execute("LOCK TABLE user_patterns")
            saving = asyncio.create_task(storage.save_pattern(USER, "t", "k", 1))
            for _ in range(2):
                await asked.wait()
                asked.clear()
            assert threading.get_ident() not in asked_in
            assert not saving.done()  # the server has said that it works
            other.execute("ROLLBACK")
            await saving

    with contextlib.closing(psycopg.connect(migrated)) as other:
        asyncio.run(main())
    assert keys(migrated) == {"k"}


@postgresql_only
def test_a_server_that_is_silent_is_given_up(migrated: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connect, "SILENCE", 0.05)
    monkeypatch.setattr(connect.WatchedConnection, "_is_active", lambda _: False)

    async def main() -> None:
        async with open_storage(migrated) as storage:
            other.execute("LOCK TABLE user_patterns")
            with pytest.raises(DatabaseUnreachable, match=r"has not answered for 0\.05 seconds"):
                await storage.save_pattern(USER, "t", "k", 1)
            other.execute("ROLLBACK")
            await storage.save_pattern(USER, "t", "k", 2)
            assert await storage.get_pattern(USER, "t", "k") == 2

    with contextlib.closing(psycopg.connect(migrated)) as other:
        asyncio.run(main())


def test_the_loop_goes_on_while_a_worker_waits_for_another_process(
    run: Callable[[Main], Any], migrated: str
) -> None:
    lock, unlock = "LOCK TABLE user_patterns" if is_server(migrated) else "BEGIN IMMEDIATE", "ROLLBACK"
    other: Any = psycopg.connect(migrated) if is_server(migrated) else sqlite3.connect(migrated)

    async def main() -> None:
        async with open_storage(migrated) as storage:
            other.execute(lock)
            saving = asyncio.create_task(storage.save_pattern(USER, "t", "k", 1))
            for _ in range(100):
                await asyncio.sleep(0)
            assert not saving.done()
            other.execute(unlock)
            await saving

    with contextlib.closing(other):
        run(main())
    assert keys(migrated) == {"k"}


def test_many_tasks_share_a_few_threads(engine: str, run: Callable[[Main], Any], migrated: str) -> None:
    async def main() -> int:
        async def increment() -> None:
            async with storage.transaction() as block:
                await block.save_pattern(
                    USER, "t", "count", await block.get_pattern(USER, "t", "count", 0) + 1
                )
            await storage.save_context(USER, "c", 1)
            await storage.recall(USER)

        async with open_storage(migrated) as storage:
            await asyncio.gather(*(increment() for _ in range(200)))
            counted: int = await storage.get_pattern(USER, "t", "count")
            assert 0 < len(workers()) <= MOST_THREADS[engine]
        assert workers() == []
        return counted

    assert run(main()) == 200


@pytest.mark.parametrize(
    ("run", "cancellations"),
    [("asyncio", 400), ("uvloop", 400), pytest.param("asyncio", 10_000, marks=pytest.mark.slow)],
    indirect=["run"],
)
def test_what_is_cancelled_has_happened_or_not_and_nothing_is_lost(
    engine: str, run: Callable[[Main], Any], migrated: str, cancellations: int
) -> None:
    """Cancelled after any number of steps of the loop: while it waits, runs, begins, commits or is over."""
    chance = random.Random(7)
    saved: list[int] = []
    cancelled: list[int] = []

    async def work(storage: AsyncPatternStorage, number: int) -> None:
        async with storage.transaction() as block:
            await block.save_pattern(USER, "block", f"{number}", 1)
            await block.save_pattern(USER, "block's", f"{number}", 1)
        await storage.save_pattern(USER, "single", f"{number}", 1)

    async def try_one(storage: AsyncPatternStorage, number: int) -> None:
        task = asyncio.create_task(work(storage, number))
        for _ in range(chance.randrange(25)):
            await asyncio.sleep(0)
        task.cancel()
        try:
            await task
            saved.append(number)
        except asyncio.CancelledError:
            cancelled.append(number)
            found = await storage.get_pattern(USER, "block", f"{number}")
            assert await storage.get_pattern(USER, "block", f"{number}") == found

    async def main() -> None:
        async with open_storage(migrated) as storage:
            for start in range(0, cancellations, 20):
                await asyncio.gather(*(try_one(storage, number) for number in range(start, start + 20)))
            assert len(workers()) <= MOST_THREADS[engine]
            await asyncio.gather(*(storage.save_pattern(USER, "after", f"{n}", 1) for n in range(20)))

    run(main())
    with get_pattern_storage(migrated) as storage:
        block, other_half, single, after = (
            set(storage.get_patterns_by_type(USER, kind)) for kind in ("block", "block's", "single", "after")
        )
    assert block == other_half
    assert {f"{number}" for number in saved} <= single <= block
    assert len(after) == 20
    assert len(cancelled) > cancellations / 10


def test_who_waits_for_a_block_is_cancelled_at_once(migrated: str) -> None:
    options = "connections=1" if is_server(migrated) else "timeout=30"

    async def main() -> None:
        async with open_storage(with_options(migrated, options)) as storage:
            began = asyncio.Event()

            async def save() -> None:
                await began.wait()
                await storage.save_pattern(USER, "t", "never", 1)

            saving = asyncio.create_task(save())
            async with storage.transaction() as block:
                began.set()
                await block.save_pattern(USER, "t", "saved", 1)
                saving.cancel()
                for _ in range(5):  # steps of the loop: nothing else has to happen
                    await asyncio.sleep(0)
                assert saving.cancelled()
            ended = weakref.ref(block)
            del block
            gc.collect()
            assert ended() is None

    asyncio.run(main())
    assert keys(migrated) == {"saved"}


def test_a_timeout_leaves_a_block_that_can_go_on(migrated: str) -> None:
    async def main() -> None:
        async with open_storage(migrated) as storage:
            async with storage.transaction() as block:
                with pytest.raises(TimeoutError):
                    async with asyncio.timeout(0):
                        await block.save_pattern(USER, "t", "either", 1)
                await block.save_pattern(USER, "t", "saved", 1)
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0), storage.transaction() as block:
                    await block.save_pattern(USER, "t", "lost", 1)
            await storage.save_pattern(USER, "t", "after", 1)

    asyncio.run(main())
    assert keys(migrated) - {"either"} == {"saved", "after"}


def test_closing_refuses_what_waits_and_rolls_back_what_is_open(
    run: Callable[[Main], Any], migrated: str
) -> None:
    async def main() -> list[Any]:
        storage = await open_storage(migrated)
        began, ended = asyncio.Event(), asyncio.Event()

        async def block() -> None:
            async with storage.transaction() as block:
                await block.save_pattern(USER, "t", "lost", 1)
                began.set()
                await ended.wait()

        tasks = [asyncio.create_task(block())]
        await began.wait()
        tasks += [asyncio.create_task(storage.save_pattern(USER, "t", f"{n}", n)) for n in range(20)]
        tasks += [asyncio.create_task(block()) for _ in range(20)]
        await asyncio.sleep(0)
        await storage.close()
        tasks[0].cancel()
        ended.set()
        return await asyncio.gather(*tasks, return_exceptions=True)

    cancelled, *results = run(main())
    assert isinstance(cancelled, asyncio.CancelledError)
    acknowledged = {f"{n}" for n, result in enumerate(results) if result is None}
    assert {type(result) for result in results} <= {type(None), StorageClosed}
    assert keys(migrated) == acknowledged


def test_a_storage_belongs_to_its_loop(migrated: str) -> None:
    opened = []

    async def leave_open() -> None:
        opened.append(await open_storage(migrated))
        await opened[0].save_pattern(USER, "t", "saved", 1)
        asyncio.create_task(opened[0].transaction().__aenter__()).cancel()

    async def use() -> None:
        for call in (opened[0].count(USER), opened[0].transaction().__aenter__(), opened[0].close()):
            with pytest.raises(StorageError, match="belongs to the event loop that opened it"):
                await call

    asyncio.run(leave_open())
    asyncio.run(use())
    with pytest.raises(
        StorageError, match="belongs to the event loop that opened it"
    ):  # of another framework
        opened[0].count(USER).send(None)
    if hasattr(os, "fork"):
        with warnings.catch_warnings(action="ignore"):  # from Python 3.12 on, of threads in the parent
            child = os.fork()
        if child == 0:
            with contextlib.suppress(BaseException):
                asyncio.run(use())
                os._exit(0)
            os._exit(1)
        assert os.waitpid(child, 0)[1] == 0
    left = workers()
    opened.clear()
    gc.collect()
    for thread in left:
        thread.join(10)
    assert keys(migrated) == {"saved"}


@pytest.mark.parametrize("is_held", [False, True], ids=["dropped", "held"])
def test_a_loop_that_ends_with_calls_and_a_block_in_flight_leaves_nothing_open(
    migrated: str, is_held: bool
) -> None:
    """As after Ctrl-C, or a `stop()` that nobody expected; also where somebody still holds the storage."""
    loop = asyncio.new_event_loop()
    storage = loop.run_until_complete(open_storage(migrated)._open())

    async def block(storage: AsyncPatternStorage) -> None:
        async with storage.transaction() as block:
            await block.save_pattern(USER, "t", "lost", 1)
            assert await block.get_pattern(USER, "t", "lost") == 1  # which sends it
            loop.stop()
            await block.save_pattern(USER, "t", "lost, too", 1)
            await asyncio.sleep(60)

    task = loop.create_task(block(storage))
    loop.run_forever()
    loop.close()
    task._log_destroy_pending = False  # type: ignore[attr-defined]  # that it is said is asyncio's own
    left = workers()
    held = storage if is_held else None
    del task, storage
    gc.collect()
    for thread in left:
        thread.join(10)
    with get_pattern_storage(with_options(migrated, "timeout=5")) as after:
        after.save_pattern(USER, "t", "lost", "not")  # which waits for an open block
    assert (held is not None) is is_held
    assert keys(migrated) == {"lost"}


def test_ctrl_c_rolls_the_block_back_and_closes(migrated: str) -> None:
    async def main() -> None:
        async with open_storage(migrated) as storage:
            await storage.save_pattern(USER, "t", "saved", 1)
            async with storage.transaction() as block:
                await block.save_pattern(USER, "t", "lost", 1)
                signal.raise_signal(signal.SIGINT)
                await asyncio.sleep(60)

    with pytest.raises(KeyboardInterrupt):
        asyncio.run(main())
    assert workers() == []
    assert keys(migrated) == {"saved"}


def test_two_tasks_close_and_one_of_them_is_cancelled(migrated: str) -> None:
    async def main() -> None:
        storage = await open_storage(migrated)
        closing = [asyncio.create_task(storage.close()) for _ in range(2)]
        await asyncio.sleep(0)
        closing[0].cancel()
        results = await asyncio.gather(*closing, return_exceptions=True)
        assert [type(result) for result in results] == [asyncio.CancelledError, type(None)]
        assert workers() == []

    asyncio.run(main())


@sqlite_only
def test_a_transaction_is_begun_once_and_in_an_open_storage(migrated: str) -> None:
    async def main() -> None:
        storage = open_storage(migrated)
        with pytest.raises(StorageClosed):
            await storage.transaction().__aenter__()
        async with storage:
            block = storage.transaction()
            with pytest.raises(StorageError, match="has not begun"):
                await block.count(USER)
            async with block:
                with pytest.raises(StorageError, match="begun only once"):
                    await block.__aenter__()
                with pytest.raises(StorageError, match="cannot be part of a transaction"):
                    await block.forget_user(USER)
            with pytest.raises(StorageError, match="begun only once"):
                await block.__aenter__()

    asyncio.run(main())


@pytest.mark.skipif(sys.version_info < (3, 12), reason="eager tasks came with Python 3.12")
def test_an_eager_task_is_another_task(migrated: str) -> None:
    async def main() -> None:
        factory = asyncio.eager_task_factory  # type: ignore[attr-defined,unused-ignore]  # of 3.12
        asyncio.get_running_loop().set_task_factory(factory)
        async with open_storage(migrated) as storage, storage.transaction() as block:
            await asyncio.create_task(block.save_pattern(USER, "t", "k", 1))
            with pytest.raises(StorageError, match="started inside an open transaction"):
                await asyncio.create_task(storage.save_pattern(USER, "t", "eager", 1))

    asyncio.run(main())
    assert keys(migrated) == {"k"}
