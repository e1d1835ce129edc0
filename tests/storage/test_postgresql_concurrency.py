"""What PostgreSQL alone does: lending connections, losing them, and who waits for whom."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest

from poker_therapist import (
    DatabaseBusy,
    DatabaseUnreachable,
    InvalidInput,
    PatternStorage,
    StorageClosed,
    StorageError,
    TransactionConflict,
    get_pattern_storage,
)
from poker_therapist.database import Mode
from poker_therapist.postgresql.connections import PostgreSQLDatabase
from poker_therapist.postgresql.pool import Lease, Pool
from poker_therapist.postgresql.transaction import _BEGIN
from tests.helpers.engines import execute_later, query, with_options
from tests.helpers.scripts import run_script
from tests.helpers.sessions import OTHER, REFUSED, USER, add_one, end_sessions, sessions, wait_until

LOCKS = """
    SELECT objid FROM pg_locks JOIN pg_database ON pg_database.oid = pg_locks.database
    WHERE locktype = 'advisory' AND datname = current_database()
"""


@pytest.fixture(scope="session")
def engine() -> str:
    """This one alone."""
    return "postgresql"


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(50) as pool:
        yield pool


def pool_of(storage: PatternStorage) -> Pool:
    assert isinstance(storage._database, PostgreSQLDatabase)
    return storage._database._pool


def waiting_in(storage: PatternStorage) -> list[Lease]:
    """Return who waits for a connection."""
    leases = [reference() for reference in pool_of(storage)._leases]
    return [lease for lease in leases if lease is not None and lease.wake and not lease.connection]


def is_waiting(database: str) -> bool:
    """Return whether a storage waits for a lock on the server."""
    return bool(sessions(database, "wait_event_type = 'Lock'"))


# The pool


@pytest.mark.parametrize(("options", "most"), [("connections=3", 3), ("connections=10", 10)])
@pytest.mark.slow
def test_fifty_threads_share_a_few_connections(
    migrated: str, threads: ThreadPoolExecutor, options: str, most: int
) -> None:
    with get_pattern_storage(with_options(migrated, options)) as storage:

        def work(number: int) -> int:
            for step in range(10):
                storage.save_pattern(number, "thread", str(step), step)
                storage.recall(number)
                add_one(storage, number % 5)
            return len(sessions(migrated))

        opened = list(threads.map(work, range(50)))
        counted = [storage.get_pattern(user, "count", "all") for user in range(5)]

    assert max(opened) <= most
    assert counted == [100] * 5


def test_one_thread_uses_one_connection(migrated: str, storage: PatternStorage) -> None:
    for _ in range(5):
        add_one(storage)
        storage.recall(USER)

    assert len(sessions(migrated)) == 1


def test_connections_that_others_keep_for_too_long_are_named(
    migrated: str, threads: ThreadPoolExecutor
) -> None:
    with get_pattern_storage(with_options(migrated, "connections=1&timeout=0.2")) as storage:
        with storage.transaction():
            storage.save_pattern(USER, "tilt", "bad_beat", 1)
            elsewhere = threads.submit(storage.get_pattern, OTHER, "tilt", "bad_beat")
            with pytest.raises(
                DatabaseBusy, match=r"all connections .*\(at most 1\).* 0\.2 seconds.*connections="
            ):
                elsewhere.result()

        assert threads.submit(storage.get_pattern, USER, "tilt", "bad_beat").result() == 1


def test_a_timeout_of_zero_is_not_to_wait(migrated: str, threads: ThreadPoolExecutor) -> None:
    with get_pattern_storage(with_options(migrated, "connections=2&timeout=0")) as storage:
        with storage.transaction():
            storage.save_pattern(USER, "tilt", "bad_beat", 1)
            storage.get_pattern(USER, "tilt", "bad_beat")  # so what was saved is sent
            with pytest.raises(DatabaseBusy):
                threads.submit(storage.save_pattern, USER, "tilt", "bad_beat", 2).result()

        assert storage.get_pattern(USER, "tilt", "bad_beat") == 1


def test_who_waits_for_a_connection_is_served_before_who_comes_later(
    migrated: str, threads: ThreadPoolExecutor
) -> None:
    """Without that, threads that come back at once would starve the others."""
    served = []
    with get_pattern_storage(with_options(migrated, "connections=1")) as storage:

        def read(name: str) -> None:
            with storage.transaction():
                storage.get_pattern(USER, "tilt", "bad_beat")
                served.append(name)

        with storage.transaction():
            first = threads.submit(read, "first")
            wait_until(lambda: len(waiting_in(storage)) == 1)
            second = threads.submit(read, "second")
            wait_until(lambda: len(waiting_in(storage)) == 2)
        read("later")
        first.result()
        second.result()

    assert served == ["first", "second", "later"]


def test_who_gave_up_waiting_leaves_nothing_behind(migrated: str, threads: ThreadPoolExecutor) -> None:
    with get_pattern_storage(with_options(migrated, "connections=1&timeout=0.05")) as storage:
        with storage.transaction():
            waiting = [threads.submit(storage.get_insights, USER) for _ in range(20)]
            gave_up = [type(one.exception()) for one in waiting]
        storage.get_insights(USER)

        assert gave_up == [DatabaseBusy] * 20
        assert pool_of(storage)._leases == []


def test_closing_ends_every_session(
    migrated: str, storage: PatternStorage, threads: ThreadPoolExecutor
) -> None:
    all_inside = threading.Barrier(4, timeout=60)

    def work(player: int) -> None:
        with storage.transaction():
            storage.get_insights(player)
            all_inside.wait()

    list(threads.map(work, range(4)))
    opened = len(sessions(migrated))
    storage.close()

    assert opened == 4
    wait_until(lambda: not sessions(migrated))


def test_closing_fails_who_waits_for_a_connection_at_once(migrated: str, threads: ThreadPoolExecutor) -> None:
    storage = get_pattern_storage(with_options(migrated, "connections=1"))
    inside, closed = threading.Event(), threading.Event()

    def stay_in_a_block() -> None:
        with storage.transaction():
            storage.save_pattern(USER, "tilt", "bad_beat", 1)
            inside.set()
            closed.wait()

    block = threads.submit(stay_in_a_block)
    inside.wait()
    waiting = threads.submit(storage.get_insights, USER)
    wait_until(lambda: len(waiting_in(storage)) == 1)
    storage.close()
    failed = waiting.exception(10)
    closed.set()

    assert isinstance(failed, StorageClosed)
    assert isinstance(block.exception(), StorageClosed)
    wait_until(lambda: not sessions(migrated))


# Who waits for whom


def test_blocks_about_one_player_wait_for_each_other(
    migrated: str, storage: PatternStorage, threads: ThreadPoolExecutor
) -> None:
    add_one(storage)
    with storage.transaction():
        count = storage.get_pattern(USER, "count", "all")
        other = threads.submit(add_one, storage)
        wait_until(lambda: is_waiting(migrated))
        storage.save_pattern(USER, "count", "all", count + 1)
    other.result()

    assert storage.get_pattern(USER, "count", "all") == 3


def test_blocks_about_different_players_do_not_wait(
    storage: PatternStorage, threads: ThreadPoolExecutor
) -> None:
    with storage.transaction():
        storage.save_pattern(USER, "count", "all", 1)
        threads.submit(add_one, storage, OTHER).result(30)

    assert storage.get_pattern(OTHER, "count", "all") == 1


def test_a_block_does_not_overwrite_what_was_saved_after_it_has_read(
    storage: PatternStorage, threads: ThreadPoolExecutor
) -> None:
    storage.save_pattern(USER, "count", "all", 1)

    def add_one_and_be_overtaken() -> None:
        with storage.transaction():
            count = storage.get_pattern(USER, "count", "all")
            threads.submit(storage.save_pattern, USER, "count", "all", 10).result()
            storage.save_pattern(USER, "count", "all", count + 1)

    with pytest.raises(TransactionConflict, match="try again"):
        add_one_and_be_overtaken()
    assert storage.get_pattern(USER, "count", "all") == 10
    add_one(storage)
    assert storage.get_pattern(USER, "count", "all") == 11


def test_a_block_does_not_overwrite_what_was_new_after_it_found_nothing(
    storage: PatternStorage, threads: ThreadPoolExecutor
) -> None:
    def add_one_and_be_overtaken() -> None:
        with storage.transaction():
            assert storage.get_pattern(USER, "count", "all") is None
            threads.submit(storage.save_pattern, USER, "count", "all", 10).result()
            storage.save_pattern(USER, "count", "all", 1)

    with pytest.raises(TransactionConflict):
        add_one_and_be_overtaken()
    assert storage.get_pattern(USER, "count", "all") == 10


@pytest.mark.slow
def test_of_two_blocks_that_wait_for_each_other_s_players_one_is_undone(
    storage: PatternStorage, threads: ThreadPoolExecutor
) -> None:
    both_began = threading.Barrier(2, timeout=60)

    def save_for_both(first: int, then: int) -> None:
        with storage.transaction():
            storage.save_pattern(first, "tilt", "bad_beat", first)
            storage.get_pattern(first, "tilt", "bad_beat")  # so what was saved is sent
            both_began.wait()
            storage.save_pattern(then, "tilt", "bad_beat", first)

    blocks = [threads.submit(save_for_both, *players) for players in [(USER, OTHER), (OTHER, USER)]]
    errors = [error for error in (block.exception() for block in blocks) if error]
    saved = {storage.get_pattern(user, "tilt", "bad_beat") for user in (USER, OTHER)}

    assert [type(error) for error in errors] == [TransactionConflict]
    assert len(saved) == 1, "one block's alone"


def test_a_part_that_the_database_refuses_is_undone_by_itself(storage: PatternStorage) -> None:
    def save_too_much() -> None:
        with storage.transaction():
            storage.save_insight(USER, "leak", 1)
            execute_later(storage, REFUSED, (USER,))

    with storage.transaction():
        storage.save_pattern(USER, "tilt", "first", 1)
        with pytest.raises(InvalidInput, match="division by zero"):
            save_too_much()
        storage.save_pattern(USER, "tilt", "last", 1)

    assert set(storage.get_patterns_by_type(USER, "tilt")) == {"first", "last"}
    assert storage.get_insights(USER) == []


def test_a_block_that_goes_on_after_the_database_refused_a_call_is_not_kept(storage: PatternStorage) -> None:
    def save_and_go_on() -> None:
        with storage.transaction():
            storage.save_pattern(USER, "tilt", "first", 1)
            execute_later(storage, REFUSED, (USER,))
            with pytest.raises(InvalidInput):
                storage.get_patterns_by_type(USER, "tilt")
            storage.save_pattern(USER, "tilt", "last", 1)
            with pytest.raises(StorageError, match="leave its block"):
                storage.get_patterns_by_type(USER, "tilt")

    with pytest.raises(StorageError, match="the whole transaction was rolled back"):
        save_and_go_on()
    assert storage.get_patterns_by_type(USER, "tilt") == {}


# Sessions that end


def test_calls_after_an_operator_has_ended_every_session_are_answered(
    migrated: str, storage: PatternStorage, threads: ThreadPoolExecutor
) -> None:
    """By new connections: that the old ones are lost is noticed before they are used."""
    all_inside, ended = threading.Barrier(6, timeout=60), threading.Barrier(6, timeout=60)

    def work(number: int) -> list[object]:
        with storage.transaction():
            storage.save_pattern(number, "tilt", "bad_beat", number)
            all_inside.wait()
        ended.wait()
        storage.save_insight(number, "leak", number)
        add_one(storage, number)
        return [storage.get_pattern(number, "tilt", "bad_beat"), storage.get_insights(number)[0]["data"]]

    workers = [threads.submit(work, number) for number in range(5)]
    all_inside.wait()
    wait_until(lambda: len(sessions(migrated, "state = 'idle'")) == 5)
    end_sessions(migrated)
    ended.wait()

    assert [worker.result() for worker in workers] == [[number, number] for number in range(5)]


@pytest.mark.parametrize("at_the_end", [True, False])
def test_a_block_whose_session_is_ended_says_so_and_leaves_nothing(
    migrated: str, storage: PatternStorage, at_the_end: bool
) -> None:
    def save_and_be_cut_off() -> None:
        with storage.transaction():
            storage.save_pattern(USER, "tilt", "first", 1)
            end_sessions(migrated)
            if not at_the_end:
                storage.get_pattern(USER, "tilt", "first")

    with pytest.raises(DatabaseUnreachable):
        save_and_be_cut_off()
    assert storage.get_patterns_by_type(USER, "tilt") == {}
    add_one(storage)
    assert storage.get_pattern(USER, "count", "all") == 1


def test_a_block_that_goes_on_after_its_session_was_ended_is_not_kept_in_part(
    migrated: str, storage: PatternStorage
) -> None:
    def save_and_go_on() -> None:
        with storage.transaction():
            storage.save_pattern(USER, "tilt", "first", 1)
            end_sessions(migrated)
            with pytest.raises(DatabaseUnreachable), storage.transaction():
                storage.save_pattern(USER, "tilt", "second", 1)

    with pytest.raises(DatabaseUnreachable, match="was rolled back"):
        save_and_go_on()
    assert storage.get_patterns_by_type(USER, "tilt") == {}


def test_a_read_whose_session_is_ended_meanwhile_is_answered(
    migrated: str, storage: PatternStorage, threads: ThreadPoolExecutor
) -> None:
    storage.save_pattern(USER, "tilt", "bad_beat", 1)
    with psycopg.connect(migrated) as somebody:
        somebody.execute("LOCK TABLE user_patterns")
        reading = threads.submit(storage.get_pattern, USER, "tilt", "bad_beat")
        wait_until(lambda: is_waiting(migrated))
        (pid,) = sessions(migrated)
        query(migrated, f"SELECT pg_terminate_backend({pid})")
        wait_until(lambda: is_waiting(migrated) and sessions(migrated) != [pid])

    assert reading.result() == 1


def test_a_write_whose_session_is_ended_meanwhile_says_that_its_end_is_not_known(
    migrated: str, storage: PatternStorage, threads: ThreadPoolExecutor
) -> None:
    """It is not repeated: it may have been saved, and a context or an insight would then be there twice."""
    with psycopg.connect(migrated) as somebody:
        somebody.execute("LOCK TABLE user_insights")
        saving = threads.submit(storage.save_insight, USER, "leak", 1)
        wait_until(lambda: is_waiting(migrated))
        end_sessions(migrated)
        with pytest.raises(DatabaseUnreachable, match="it is not known whether this was saved"):
            saving.result()

    storage.save_insight(USER, "leak", 2)
    assert [insight["data"] for insight in storage.get_insights(USER)] == [2]


def test_a_block_that_fails_between_its_lock_and_its_beginning_keeps_nobody_waiting(
    migrated: str, storage: PatternStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setitem(_BEGIN, Mode.READ_THEN_WRITE, "BEGIN NOTHING")
        with pytest.raises(StorageError):
            add_one(storage)

    assert query(migrated, LOCKS) == []
    add_one(storage)


INTERRUPTED_WHILE_WAITING = """
import os, signal, sys, threading, time
import psycopg
from poker_therapist import get_pattern_storage

storage = get_pattern_storage(sys.argv[1])
other = get_pattern_storage(sys.argv[1])
watcher = psycopg.connect(sys.argv[1], autocommit=True)

def interrupt():
    while not watcher.execute("SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock' "
            "AND datname = current_database()").fetchone():
        time.sleep(0.002)
    os.kill(os.getpid(), signal.SIGINT)

with other.transaction():
    other.save_pattern(7, "tilt", "bad_beat", 1)
    thread = threading.Thread(target=interrupt)
    thread.start()
    try:
        with storage.transaction():
            storage.save_pattern(7, "tilt", "bad_beat", 2)
    except KeyboardInterrupt:
        print("interrupted")
    thread.join()
print("locks:", watcher.execute(sys.argv[2]).fetchall())
with storage.transaction():
    print("reads:", storage.get_pattern(7, "tilt", "bad_beat"))
storage.close(), other.close(), watcher.close()
"""


def test_who_is_interrupted_while_waiting_for_a_block_keeps_nobody_waiting(migrated: str) -> None:
    lines = run_script(INTERRUPTED_WHILE_WAITING.replace("sys.argv[2]", repr(LOCKS)), migrated)

    assert lines == ["interrupted", "locks: []", "reads: 1"]
