"""A block that ends elsewhere: in another thread, or with the generator that holds it."""

import asyncio
import contextlib
import gc
import threading
from collections.abc import AsyncGenerator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from poker_therapist import PatternStorage, StorageError, get_pattern_storage
from tests.helpers.engines import is_server, query, with_options
from tests.helpers.sessions import sessions, wait_until

USER = 7


class Failed(Exception):
    """What a block raises by itself."""


@pytest.fixture
def elsewhere() -> Iterator[ThreadPoolExecutor]:
    """One other thread."""
    with ThreadPoolExecutor(1) as pool:
        yield pool


@pytest.fixture
def storage(migrated: str) -> Iterator[PatternStorage]:
    """A storage that waits for no lock for long."""
    with get_pattern_storage(with_options(migrated, "timeout=5")) as opened:
        yield opened


@pytest.fixture
def without_collector() -> Iterator[None]:
    """Python's garbage collector runs when the test says so."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def save(storage: PatternStorage, key: str) -> None:
    storage.save_pattern(USER, "t", key, 1)


def keys(database: str) -> set[str]:
    """Return what is saved, as another program sees it."""
    return {key for (key,) in query(database, "SELECT pattern_key FROM user_patterns")}


def require_nothing_open(database: str) -> None:
    """Write as another program does that waits for nobody."""
    with get_pattern_storage(with_options(database, "timeout=0.2")) as other:
        other.save_pattern(USER, "other", "other program", 1)
        with other.transaction():
            other.get_pattern(USER, "other", "other program")
            other.clear_user_patterns(-1)
    if is_server(database):
        # The server takes a moment to see that a connection was closed.
        wait_until(lambda: not sessions(database, "state <> 'idle'"))


# A block that is left in another thread


@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("error", [None, Failed()])
def test_a_block_left_in_another_thread_is_undone_and_both_threads_go_on(
    migrated: str,
    storage: PatternStorage,
    elsewhere: ThreadPoolExecutor,
    error: Failed | None,
    nested: bool,
) -> None:
    elsewhere.submit(save, storage, "elsewhere, before").result()
    outer = storage.transaction() if nested else contextlib.nullcontext()
    outer.__enter__()
    block = storage.transaction()
    block.__enter__()
    save(storage, "lost")

    left = elsewhere.submit(block.__exit__, type(error) if error else None, error, None)
    if error is None:
        with pytest.raises(StorageError, match="ended by another, so it was rolled back"):
            left.result()
    else:
        assert not left.result()

    require_nothing_open(migrated)
    if nested:
        with contextlib.suppress(StorageError):
            outer.__exit__(None, None, None)
    save(storage, "here, after")
    elsewhere.submit(save, storage, "elsewhere, after").result()
    with storage.transaction():
        save(storage, "here, block")
    assert keys(migrated) == {
        "elsewhere, before",
        "other program",
        "here, after",
        "elsewhere, after",
        "here, block",
    }


def test_what_web_frameworks_do_with_a_dependency_that_yields(
    migrated: str, storage: PatternStorage, elsewhere: ThreadPoolExecutor
) -> None:
    def dependency() -> Iterator[PatternStorage]:
        with storage.transaction():
            yield storage

    generator = dependency()
    save(next(generator), "lost")
    with pytest.raises(StorageError, match="ended by another"):
        elsewhere.submit(next, generator, None).result()

    save(storage, "saved")
    elsewhere.submit(save, storage, "elsewhere").result()
    require_nothing_open(migrated)
    assert keys(migrated) == {"saved", "elsewhere", "other program"}


def test_a_block_left_elsewhere_while_its_thread_is_saving_loses_nothing_that_is_acknowledged(
    migrated: str, elsewhere: ThreadPoolExecutor, report: Callable[[str], None]
) -> None:
    rounds = 50
    acknowledged: set[str] = set()
    with get_pattern_storage(with_options(migrated, "timeout=5")) as storage:
        for step in range(rounds):
            block = storage.transaction()
            block.__enter__()
            left = threading.Event()

            def leave(block: Any = block, left: threading.Event = left) -> None:
                with contextlib.suppress(StorageError):
                    block.__exit__(None, None, None)
                left.set()

            elsewhere.submit(leave)
            saved_after = False
            while not saved_after:
                was_left, key = left.is_set(), f"{step} {len(acknowledged)}"
                with contextlib.suppress(StorageError):  # it was in the block
                    save(storage, key)
                    saved_after = was_left
            acknowledged.add(key)
        saved = keys(migrated)

    assert acknowledged <= saved
    assert len(acknowledged) == rounds
    report(f"{rounds} blocks left in another thread while theirs was saving: nothing acknowledged lost")


# A generator that holds a block


def holding(storage: PatternStorage) -> Iterator[None]:
    with storage.transaction():
        save(storage, "lost")
        yield


def test_a_block_in_a_generator_that_is_dropped_is_undone(migrated: str, storage: PatternStorage) -> None:
    generator = holding(storage)
    next(generator)
    del generator

    require_nothing_open(migrated)
    save(storage, "saved")
    assert keys(migrated) == {"other program", "saved"}


def test_a_block_in_a_generator_that_another_thread_drops_is_undone(
    migrated: str, storage: PatternStorage, elsewhere: ThreadPoolExecutor
) -> None:
    held = [holding(storage)]
    next(held[0])
    elsewhere.submit(held.clear).result()

    require_nothing_open(migrated)
    save(storage, "saved")
    assert keys(migrated) == {"other program", "saved"}


@pytest.mark.parametrize("who", ["another thread", "the same thread"])
def test_a_block_in_a_generator_that_the_collector_finishes_is_undone(
    migrated: str, storage: PatternStorage, elsewhere: ThreadPoolExecutor, who: str, without_collector: None
) -> None:
    cycle: list[Any] = []
    cycle += [cycle, holding(storage)]
    next(cycle[1])
    del cycle
    if who == "another thread":
        elsewhere.submit(gc.collect).result()
    else:
        gc.collect()

    require_nothing_open(migrated)
    save(storage, "saved")
    elsewhere.submit(save, storage, "elsewhere").result()
    assert keys(migrated) == {"other program", "saved", "elsewhere"}


def test_a_save_while_an_abandoned_block_waits_for_the_collector_is_a_part_of_the_block(
    migrated: str, storage: PatternStorage, elsewhere: ThreadPoolExecutor, without_collector: None
) -> None:
    """Nothing tells a generator that waits for the collector from one that @contextmanager keeps.

    So the save is a part of the block, and like any part of a block it is acknowledged when the block ends.
    """
    cycle: list[Any] = []
    cycle += [cycle, holding(storage)]
    next(cycle[1])
    del cycle
    save(storage, "in the block")
    elsewhere.submit(gc.collect).result()

    require_nothing_open(migrated)
    save(storage, "saved")
    assert keys(migrated) == {"other program", "saved"}


def test_a_block_in_a_thread_that_ends_with_its_generator_open_is_undone(
    migrated: str, storage: PatternStorage
) -> None:
    held = []

    def begin() -> None:
        held.append(holding(storage))
        next(held[0])

    thread = threading.Thread(target=begin)
    thread.start()
    thread.join()
    held.clear()

    require_nothing_open(migrated)
    assert keys(migrated) == {"other program"}


def test_a_block_in_an_async_generator_is_undone_with_it(migrated: str, storage: PatternStorage) -> None:
    async def holding() -> AsyncGenerator[None]:
        with storage.transaction():
            save(storage, "lost")
            yield

    async def main() -> None:
        generator = holding()
        await anext(generator)
        del generator
        await asyncio.sleep(0)  # asyncio closes it in a task of its own
        await asyncio.sleep(0)
        save(storage, "saved")

    asyncio.run(main())

    require_nothing_open(migrated)
    assert keys(migrated) == {"other program", "saved"}
