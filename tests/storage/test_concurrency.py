"""Threads, processes and forks that use one database at once: nothing fails and nothing is lost."""

import os
import signal
import threading
import traceback
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from poker_therapist import PatternStorage, StorageClosed, TransactionConflict, get_pattern_storage
from tests.helpers.engines import sqlite_only
from tests.helpers.faults import fork
from tests.helpers.pooler import engine_or_pooler
from tests.helpers.scripts import run_in_child
from tests.helpers.snapshots import everything, is_whole

engine = engine_or_pooler
USER = 7


def run_at_once(work: Callable[[str, int], object], database: str, count: int) -> None:
    """Run something in several processes at the same moment; fail if one of them does."""
    ready, go = os.pipe()
    children = []
    for number in range(count):
        child = fork()
        if not child:
            code = 1
            try:
                signal.alarm(60)
                os.close(go)
                os.read(ready, 1)  # until the parent closes its end
                work(database, number)
                code = 0
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(code)
        children.append(child)
    os.close(ready)
    os.close(go)

    assert [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children] == [0] * count


def add_one(storage: PatternStorage) -> None:
    """Count in a block; with a pooler between, one of two that begin at once may have to run again."""
    while True:
        try:
            with storage.transaction():
                storage.save_pattern(USER, "count", "all", storage.get_pattern(USER, "count", "all", 0) + 1)
        except TransactionConflict:
            if "pooler=transaction" not in str(storage.db_path):
                raise
        else:
            return


# Threads

linux = pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="asks Linux which files are open")


@pytest.mark.slow
def test_threads_share_a_storage_and_lose_nothing(storage: PatternStorage) -> None:
    def work(number: int) -> None:
        for step in range(20):
            storage.save_pattern(USER, "thread", f"{number} {step}", step)
            storage.save_context(USER, "topic", [number, step], f"session {number}", expires_minutes=60)
            storage.save_insight(USER, "leak", number)
            add_one(storage)
            assert storage.get_pattern(USER, "thread", f"{number} {step}") == step
            assert storage.get_context(USER, "topic", f"session {number}", limit=1) == [[number, step]]
            assert len(storage.recall(USER)["patterns"]["thread"]) > step

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(8)))

    assert storage.get_pattern(USER, "count", "all") == 160
    assert len(storage.get_patterns_by_type(USER, "thread")) == 160
    assert len(storage.get_context(USER, "topic")) == 160
    assert len(storage.get_insights(USER, limit=None)) == 160


def test_threads_open_the_same_new_database_at_once(database: str) -> None:
    barrier = threading.Barrier(8, timeout=60)

    def start(number: int) -> None:
        barrier.wait()
        with get_pattern_storage(database) as storage:
            storage.save_context(USER, "started", number)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(start, range(8)))

    with get_pattern_storage(database) as storage:
        assert sorted(storage.get_context(USER, "started")) == list(range(8))


@sqlite_only
@linux
def test_a_thread_that_ends_closes_its_connection(storage: PatternStorage) -> None:
    def open_files_after_threads() -> int:
        threads = [threading.Thread(target=add_one, args=[storage]) for _ in range(10)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return len(list(Path("/proc/self/fd").iterdir()))

    first = open_files_after_threads()
    last = [open_files_after_threads() for _ in range(10)][-1]

    # SQLite keeps a few open to use them again, as many as there were threads at once.
    assert last - first < 30


@sqlite_only
@linux
def test_closing_in_one_thread_closes_the_connections_of_all(storage: PatternStorage) -> None:
    saved, closed = threading.Barrier(5, timeout=60), threading.Event()

    def work(number: int) -> str:
        storage.save_insight(USER, "leak", number)
        saved.wait()
        closed.wait()
        try:
            storage.get_insights(USER)
        except StorageClosed as error:
            return str(error)
        return "still open"

    def open_files() -> list[str]:
        files = [str(file.readlink()) for file in Path("/proc/self/fd").iterdir() if file.is_symlink()]
        return [file for file in files if file.startswith(str(storage.db_path))]

    with ThreadPoolExecutor(4) as pool:
        results = [pool.submit(work, number) for number in range(4)]
        saved.wait()
        before = open_files()
        storage.close()
        after = open_files()
        closed.set()
        messages = {result.result() for result in results}

    assert len(before) >= 5
    assert after == []
    assert len(messages) == 1
    assert "closed" in messages.pop()


def in_a_thread(work: Callable[[], object]) -> BaseException | None:
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(work).exception()


def test_a_thread_that_starts_after_the_closing_gets_no_connection(storage: PatternStorage) -> None:
    storage.close()

    assert isinstance(in_a_thread(lambda: storage.get_insights(USER)), StorageClosed)
    assert isinstance(in_a_thread(lambda: add_one(storage)), StorageClosed)


CLOSE_WHILE_OTHERS_WORK = """
import sys, threading
from poker_therapist import StorageClosed, get_pattern_storage

ends = set()

def work(storage, busy):
    try:
        while True:
            storage.save_pattern(7, "tilt", "bad_beat", "x" * 1000)
            storage.get_patterns_by_type(7, "tilt")
            storage.recall(7)
            busy.release()
    except Exception as error:
        ends.add(type(error).__name__)

# On SQLite each time is a chance to crash.
for _ in range(20 if sys.argv[1].startswith("postgresql:") else 150):
    storage, busy = get_pattern_storage(sys.argv[1]), threading.Semaphore(0)
    threads = [threading.Thread(target=work, args=[storage, busy]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for _ in range(10):
        busy.acquire()
    storage.close()
    for thread in threads:
        thread.join()
print(*ends)
"""


@pytest.mark.slow
def test_closing_while_other_threads_work_ends_them_with_storage_closed(migrated: str) -> None:
    """In a process of its own, for a driver may crash if a connection is closed while it is used."""
    lines = run_in_child(CLOSE_WHILE_OTHERS_WORK, migrated)

    assert lines == ["StorageClosed"]
    assert is_whole(migrated)


# Processes


def save_and_read(database: str, number: int) -> None:
    with get_pattern_storage(database) as storage:
        for step in range(40):
            storage.save_pattern(USER, "process", f"{number} {step}", step)
            storage.save_context(USER, "topic", [number, step], f"session {number}")
            storage.save_insight(USER, "leak", number)
            add_one(storage)
            assert storage.get_pattern(USER, "process", f"{number} {step}") == step
            assert storage.get_context(USER, "topic", f"session {number}", limit=1) == [[number, step]]
            storage.recall(USER, context_limit=5)


@pytest.mark.slow
def test_four_processes_save_and_read_at_once_and_lose_nothing(migrated: str) -> None:
    run_at_once(save_and_read, migrated, 4)

    with get_pattern_storage(migrated) as storage:
        assert storage.get_pattern(USER, "count", "all") == 160
        assert len(storage.get_patterns_by_type(USER, "process")) == 160
        assert len(storage.get_context(USER, "topic")) == 160
        assert len(storage.get_insights(USER, limit=None)) == 160
    assert is_whole(migrated)


def start(database: str, number: int) -> None:
    with get_pattern_storage(database) as storage:
        storage.save_context(USER, "started", number)


@pytest.mark.slow
def test_twenty_processes_open_the_same_new_database_at_once(database: str, migrated: str) -> None:
    run_at_once(start, database, 20)
    with get_pattern_storage(database) as storage:
        assert sorted(storage.get_context(USER, "started")) == list(range(20))
    assert is_whole(database)
    assert everything(database).schema == everything(migrated).schema, "the schema that one process made"
