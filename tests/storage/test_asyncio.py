"""A transaction belongs to the thread and the asyncio task that began it."""

import asyncio
import contextlib
import sys
import time
from collections.abc import Callable

import pytest

from poker_therapist import PatternStorage, StorageError, get_pattern_storage
from tests.helpers.engines import query, sqlite_only, with_options

USER = 7
TASKS = 10


def keys(database: str) -> set[str]:
    """Return what is saved, as another program sees it."""
    return {key for (key,) in query(database, "SELECT pattern_key FROM user_patterns")}


def count(storage: PatternStorage) -> int:
    found: int = storage.get_pattern(USER, "count", "all", 0)
    return found


class Failed(Exception):
    """What a block raises by itself."""


# What another task may try meanwhile.
CALLS: dict[str, Callable[[PatternStorage], object]] = {
    "save_pattern": lambda storage: storage.save_pattern(USER, "t", "B", 1),
    "save_context": lambda storage: storage.save_context(USER, "B", 1),
    "save_insight": lambda storage: storage.save_insight(USER, "B", 1),
    "get_pattern": lambda storage: storage.get_pattern(USER, "t", "A"),
    "recall": lambda storage: storage.recall(USER),
    "export_user": lambda storage: storage.export_user(USER),
    "clear_user_patterns": lambda storage: storage.clear_user_patterns(USER),
    "forget_user": lambda storage: storage.forget_user(USER),
    "transaction": lambda storage: storage.transaction().__enter__(),
}


@pytest.mark.parametrize("call", CALLS)
def test_another_task_s_call_is_refused_while_a_block_awaits_and_works_afterwards(
    migrated: str, storage: PatternStorage, call: str
) -> None:
    async def main() -> None:
        inside, go_on = asyncio.Event(), asyncio.Event()

        async def block() -> None:
            with storage.transaction():
                storage.save_pattern(USER, "t", "A", 1)
                inside.set()
                await go_on.wait()
                raise Failed

        task = asyncio.create_task(block())
        await inside.wait()
        start = time.monotonic()
        with pytest.raises(StorageError, match=r"before its task awaits, run .*asyncio\.to_thread"):
            CALLS[call](storage)
        assert time.monotonic() - start < 5  # and not the 30 seconds for which a lock is waited
        go_on.set()
        with pytest.raises(Failed):
            await task
        assert keys(migrated) == set()
        storage.save_pattern(USER, "t", "B", 1)

    asyncio.run(main())

    assert keys(migrated) == {"B"}
    assert storage.get_context(USER, "B") == storage.get_insights(USER) == []


def test_a_refused_task_leaves_the_block_of_the_other_whole(migrated: str, storage: PatternStorage) -> None:
    async def main() -> None:
        inside, go_on = asyncio.Event(), asyncio.Event()

        async def block() -> None:
            with storage.transaction():
                storage.save_pattern(USER, "t", "first", 1)
                inside.set()
                await go_on.wait()
                storage.save_pattern(USER, "t", "second", 1)

        task = asyncio.create_task(block())
        await inside.wait()
        for call in CALLS.values():
            with pytest.raises(StorageError):
                call(storage)
        go_on.set()
        await task

    asyncio.run(main())

    assert keys(migrated) == {"first", "second"}


@pytest.mark.parametrize("awaits", [False, True])
def test_tasks_that_increment_a_counter_lose_nothing(
    migrated: str, awaits: bool, report: Callable[[str], None]
) -> None:
    async def increment(storage: PatternStorage) -> None:
        with storage.transaction():
            found = count(storage)
            if awaits:
                await asyncio.sleep(0)
            storage.save_pattern(USER, "count", "all", found + 1)

    async def main(storage: PatternStorage) -> list[BaseException | None]:
        tasks = (increment(storage) for _ in range(TASKS))
        return await asyncio.gather(*tasks, return_exceptions=True)

    with get_pattern_storage(migrated) as storage:
        ended = asyncio.run(main(storage))
        saved = count(storage)

    refused = [error for error in ended if error is not None]
    assert [error for error in refused if not isinstance(error, StorageError)] == []
    assert saved == TASKS - len(refused)
    assert saved >= 1 if awaits else saved == TASKS
    kind = "that await in their blocks" if awaits else "that do not await"
    report(f"{TASKS} tasks {kind}: {saved} acknowledged, none lost")


def test_a_block_in_a_worker_thread_runs_beside_the_blocks_of_other_tasks(
    migrated: str, storage: PatternStorage
) -> None:
    def increment() -> None:
        with storage.transaction():
            storage.save_pattern(USER, "count", "all", count(storage) + 1)

    async def main() -> None:
        await asyncio.gather(*(asyncio.to_thread(increment) for _ in range(TASKS)))

    asyncio.run(main())

    assert count(storage) == TASKS


def test_a_callback_without_a_task_is_refused_while_a_task_s_block_awaits(
    migrated: str, storage: PatternStorage
) -> None:
    async def main() -> list[str]:
        done: asyncio.Future[str] = asyncio.get_running_loop().create_future()

        def callback() -> None:
            try:
                storage.save_pattern(USER, "t", "callback", 1)
            except StorageError as error:
                done.set_result(str(error))
            else:
                done.set_result("saved")

        answers = []
        with storage.transaction():
            storage.save_pattern(USER, "t", "task", 1)
            asyncio.get_running_loop().call_soon(callback)
            answers.append(await done)
        done = asyncio.get_running_loop().create_future()
        asyncio.get_running_loop().call_soon(callback)
        answers.append(await done)
        return answers

    during, afterwards = asyncio.run(main())

    assert "another asyncio task" in during
    assert afterwards == "saved"
    assert keys(migrated) == {"task", "callback"}


@pytest.mark.parametrize("error", [None, Failed()])
def test_a_block_that_another_task_ends_is_undone_and_that_is_said(
    migrated: str, storage: PatternStorage, error: Failed | None
) -> None:
    async def main() -> None:
        block = storage.transaction()

        async def begin() -> None:
            block.__enter__()
            storage.save_pattern(USER, "t", "lost", 1)

        await asyncio.create_task(begin())
        if error is None:
            with pytest.raises(StorageError, match="ended by another, so it was rolled back"):
                block.__exit__(None, None, None)
        else:
            block.__exit__(Failed, error, None)
        storage.save_pattern(USER, "t", "saved", 1)

    asyncio.run(main())

    assert keys(migrated) == {"saved"}


@sqlite_only
def test_a_second_storage_on_the_file_never_waits_for_the_lock_of_its_own_thread(
    migrated: str, storage: PatternStorage
) -> None:
    with get_pattern_storage(migrated) as other, storage.transaction():
        storage.save_pattern(USER, "t", "in the block", 1)
        start = time.monotonic()
        for name in ("save_pattern", "save_context", "clear_user_patterns", "transaction"):
            with pytest.raises(StorageError, match="end that block first"):
                CALLS[name](other)
        assert other.get_pattern(USER, "t", "in the block") is None  # reading waits for nobody
        assert time.monotonic() - start < 5

    assert keys(migrated) == {"in the block"}


def test_a_cancelled_task_s_block_is_undone(migrated: str, storage: PatternStorage) -> None:
    async def main() -> None:
        inside = asyncio.Event()

        async def block() -> None:
            with storage.transaction():
                storage.save_pattern(USER, "t", "lost", 1)
                inside.set()
                await asyncio.Event().wait()

        task = asyncio.create_task(block())
        await inside.wait()
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        storage.save_pattern(USER, "t", "saved", 1)

    asyncio.run(main())

    assert keys(migrated) == {"saved"}


@pytest.mark.skipif(sys.version_info < (3, 12), reason="eager tasks came with Python 3.12")
def test_an_eager_task_is_another_task(migrated: str) -> None:
    async def save(storage: PatternStorage) -> None:
        storage.save_pattern(USER, "t", "eager", 1)

    async def main(storage: PatternStorage) -> None:
        factory = asyncio.eager_task_factory  # type: ignore[attr-defined,unused-ignore]  # of 3.12
        asyncio.get_running_loop().set_task_factory(factory)
        with storage.transaction():
            storage.save_pattern(USER, "t", "block", 1)
            with pytest.raises(StorageError, match="another asyncio task"):
                await asyncio.create_task(save(storage))
        await asyncio.create_task(save(storage))

    with get_pattern_storage(with_options(migrated, "timeout=5")) as storage:
        asyncio.run(main(storage))

    assert keys(migrated) == {"block", "eager"}
