"""What a block on PostgreSQL saves is sent many rows at a time, and none is lost without a word."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext, suppress
from typing import Any

import psycopg
import pytest

from poker_therapist import (
    DatabaseUnreachable,
    InvalidInput,
    PatternStorage,
    StorageClosed,
    StorageError,
    TransactionConflict,
    get_pattern_storage,
)
from poker_therapist.postgresql.connections import PostgreSQLDatabase
from poker_therapist.postgresql.transaction import _LONG, _MOST_PENDING
from tests.helpers.engines import execute_later, fetch_all
from tests.helpers.scripts import run_script
from tests.helpers.sessions import OTHER, REFUSED, USER, add_one, end_sessions, sessions, wait_until


@pytest.fixture(scope="session")
def engine() -> str:
    """This one alone."""
    return "postgresql"


@pytest.fixture
def thread() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(1) as pool:
        yield pool


def database_of(storage: PatternStorage) -> PostgreSQLDatabase:
    assert isinstance(storage._database, PostgreSQLDatabase)
    return storage._database


def pending(storage: PatternStorage) -> int:
    """Return how many statements of this thread's block are not sent yet."""
    transaction = database_of(storage)._open_transaction()
    assert transaction is not None
    return len(transaction.pending)


def save(storage: PatternStorage, *keys: str) -> None:
    for key in keys:
        if key is REFUSED:
            execute_later(storage, REFUSED, (USER,))
        else:
            storage.save_pattern(USER, "t", key, key)


def saved(storage: PatternStorage) -> set[str]:
    return set(storage.get_patterns_by_type(USER, "t"))


@contextmanager
def interrupted(monkeypatch: pytest.MonkeyPatch, method: str, statement: str) -> Iterator[None]:
    """Have Ctrl-C come in the place of the first call with such a statement, and go on all the same."""
    original: Callable[..., Any] = getattr(psycopg.RawCursor, method)
    done: list[str] = []

    def interrupt(cursor: object, sql: str, *arguments: object, **options: object) -> object:
        if not done and sql.startswith(statement):
            done.append(sql)
            raise KeyboardInterrupt
        return original(cursor, sql, *arguments, **options)

    with monkeypatch.context() as patched:
        patched.setattr(psycopg.RawCursor, method, interrupt)
        with pytest.raises(KeyboardInterrupt):
            yield


# What is sent, and when


def test_saves_are_sent_when_the_block_reads(storage: PatternStorage) -> None:
    with storage.transaction():
        save(storage, "a", "b")
        storage.save_insight(USER, "leak", "c")
        assert pending(storage) == 3

        assert saved(storage) == {"a", "b"}
        assert pending(storage) == 0
        assert storage.recall(USER)["insights"][0]["data"] == "c"


def test_a_block_holds_its_player_from_its_first_save_though_that_is_not_sent(
    migrated: str, storage: PatternStorage, thread: ThreadPoolExecutor
) -> None:
    with storage.transaction():
        save(storage, "a")
        other = thread.submit(add_one, storage)
        wait_until(lambda: sessions(migrated, "wait_event_type = 'Lock'") or other.done())
        assert not other.done()
        assert pending(storage) == 1
    other.result()


def test_saves_are_sent_before_others_are_deleted(storage: PatternStorage) -> None:
    with storage.transaction():
        save(storage, "a", "b")
        storage.save_context(USER, "topic", 1)

        assert storage.clear_user_patterns(USER) == 2
        save(storage, "c")

    assert saved(storage) == {"c"}
    assert storage.get_context(USER, "topic") == [1]


def test_saves_of_all_kinds_are_kept_in_their_order(storage: PatternStorage) -> None:
    with storage.transaction():
        save(storage, "a", "b")
        execute_later(storage, "UPDATE user_patterns SET pattern_value = '1' WHERE user_id = ?1", (USER,))
        save(storage, "b", "c")
        execute_later(storage, "DELETE FROM user_patterns WHERE user_id = ?1 AND pattern_key = 'c'", (USER,))
        save(storage, "d")
        assert pending(storage) == 7

    assert {key: found["value"] for key, found in storage.get_patterns_by_type(USER, "t").items()} == {
        "a": 1,
        "b": "b",
        "d": "d",
    }


def test_what_goes_with_a_saved_context_is_not_sent_by_itself(storage: PatternStorage) -> None:
    with storage.transaction():
        for number in range(256):
            storage.save_context(USER, "topic", number)
        assert pending(storage) == 256, "a block does not purge"

    assert storage.get_context(USER, "topic") == list(range(255, -1, -1))


def test_any_number_of_saves_is_kept_and_few_of_them_wait(storage: PatternStorage) -> None:
    count, most = 3 * _MOST_PENDING + 7, 0
    with storage.transaction():
        for number in range(count):
            storage.save_insight(USER, "leak", number)
            most = max(most, pending(storage))

    assert most < _MOST_PENDING
    assert [insight["data"] for insight in storage.get_insights(USER, limit=None)] == list(
        range(count - 1, -1, -1)
    )


def test_a_long_value_does_not_wait_in_memory(storage: PatternStorage) -> None:
    with storage.transaction():
        storage.save_insight(USER, "leak", "short")
        waiting = pending(storage)
        storage.save_insight(USER, "leak", "x" * _LONG)

        assert (waiting, pending(storage)) == (1, 0)
    assert [insight["data"] for insight in storage.get_insights(USER)] == ["x" * _LONG, "short"]


def test_a_statement_is_prepared_once_and_planned_for_all_players(storage: PatternStorage) -> None:
    with storage.transaction():
        for number in range(_MOST_PENDING):
            storage.save_pattern(number, "tilt", "bad_beat", number)
            storage.save_context(number, "topic", number, "monday" if number % 2 else None)
        prepared = fetch_all(
            storage,
            "SELECT substring(statement, 'INTO \\S+[.](\\w+)'), generic_plans, custom_plans "
            "FROM pg_prepared_statements WHERE statement LIKE 'INSERT%' ORDER BY 1",
        )

    assert prepared == [("conversation_context", _MOST_PENDING, 0), ("user_patterns", _MOST_PENDING, 0)]


# Parts


def test_a_part_that_raises_takes_with_it_what_was_sent_of_it_and_what_was_not(
    storage: PatternStorage,
) -> None:
    with storage.transaction():
        save(storage, "before")
        with suppress(ZeroDivisionError), storage.transaction():
            for number in range(_MOST_PENDING + 5):
                storage.save_insight(USER, "leak", number)
            assert pending(storage) == 5
            raise ZeroDivisionError
        save(storage, "after")

    assert saved(storage) == {"before", "after"}
    assert storage.get_insights(USER) == []


@pytest.mark.parametrize("first", [True, False])
def test_what_the_server_refuses_of_a_part_is_said_at_its_end(storage: PatternStorage, first: bool) -> None:
    """Or the block around it, which could have gone on without the part, would have to go with it."""

    def part() -> None:
        with storage.transaction():
            save(storage, "with it", REFUSED)

    with storage.transaction():
        if not first:
            save(storage, "before")
        with pytest.raises(InvalidInput, match="division by zero"):
            part()
        save(storage, "after")

    assert saved(storage) == {"after"} | ({"before"} if not first else set())


def test_a_part_that_goes_on_after_a_refusal_is_undone_by_itself(storage: PatternStorage) -> None:
    def part() -> None:
        with storage.transaction():
            save(storage, "with it", REFUSED)
            with pytest.raises(InvalidInput):
                saved(storage)
            save(storage, "in it")

    with storage.transaction():
        save(storage, "before")
        with pytest.raises(StorageError, match="leave its block"):
            part()
        save(storage, "after")

    assert saved(storage) == {"before", "after"}


# Refusals


def send_by_reading(storage: PatternStorage) -> None:
    storage.get_insights(USER)


def send_by_deleting(storage: PatternStorage) -> None:
    storage.clear_user_context(OTHER)


def send_by_beginning_a_part(storage: PatternStorage) -> None:
    with storage.transaction():
        save(storage, "in the part")


def send_by_saving_more(storage: PatternStorage) -> None:
    for number in range(_MOST_PENDING):
        storage.save_insight(USER, "leak", number)


SENDERS = [send_by_reading, send_by_deleting, send_by_beginning_a_part, send_by_saving_more]


@pytest.mark.parametrize("send", SENDERS)
def test_what_the_server_refuses_is_said_when_it_is_sent_and_takes_the_block_with_it(
    storage: PatternStorage, caplog: pytest.LogCaptureFixture, send: Callable[[PatternStorage], None]
) -> None:
    """Also when the app goes on; and the driver does not complain of its own."""

    def save_and_go_on() -> None:
        with storage.transaction():
            save(storage, "first", REFUSED, *map(str, range(100)))
            with pytest.raises(InvalidInput, match="division by zero"):
                send(storage)
            save(storage, "last")

    with pytest.raises(StorageError, match="the whole transaction was rolled back"):
        save_and_go_on()
    assert saved(storage) == set()
    assert storage.get_insights(USER) == []
    assert caplog.messages == []


@pytest.mark.parametrize("part", [True, False])
def test_after_a_read_that_the_server_refuses_nothing_is_kept_of_the_block_that_goes_on(
    storage: PatternStorage, part: bool
) -> None:
    """As PostgreSQL has it, whose COMMIT then undoes all and says that all is well; or of the part."""

    def read_and_go_on() -> None:
        with storage.transaction():
            save(storage, "with it")
            with pytest.raises(InvalidInput, match="division by zero"):
                fetch_all(storage, "SELECT 1 / 0")

    with storage.transaction() if part else nullcontext():
        save(storage, "before")
        with pytest.raises(StorageError, match="leave its block" if part else "whole transaction was rolled"):
            read_and_go_on()
        save(storage, "after")

    assert saved(storage) == {"before", "after"}


def test_what_the_server_refuses_at_the_end_of_a_block_is_said_there(storage: PatternStorage) -> None:
    def save_too_much() -> None:
        with storage.transaction():
            save(storage, "first", REFUSED, "last")

    with pytest.raises(InvalidInput, match="division by zero"):
        save_too_much()
    assert saved(storage) == set()
    save(storage, "after")
    assert saved(storage) == {"after"}


def test_a_conflict_that_is_met_at_the_end_of_a_block_is_said_there(
    storage: PatternStorage, thread: ThreadPoolExecutor
) -> None:
    def be_overtaken() -> None:
        with storage.transaction():
            saved(storage)
            save(storage, "a", "b")
            thread.submit(storage.save_pattern, USER, "t", "b", "theirs").result()

    with pytest.raises(TransactionConflict):
        be_overtaken()
    assert {key: found["value"] for key, found in storage.get_patterns_by_type(USER, "t").items()} == {
        "b": "theirs"
    }


# What ends a block from outside


def test_a_session_that_is_ended_while_it_is_sent_saves_is_named_and_leaves_nothing(
    migrated: str, storage: PatternStorage, thread: ThreadPoolExecutor
) -> None:
    def save_and_go_on() -> None:
        with storage.transaction():
            saved(storage)
            save(storage, *map(str, range(_MOST_PENDING - 1)))
            with pytest.raises(DatabaseUnreachable):
                save(storage, "last")

    with psycopg.connect(migrated) as somebody:
        somebody.execute("LOCK TABLE user_patterns IN SHARE MODE")
        saving = thread.submit(save_and_go_on)
        wait_until(lambda: sessions(migrated, "wait_event_type = 'Lock'"))
        end_sessions(migrated)
        with pytest.raises(DatabaseUnreachable, match="the transaction was rolled back"):
            saving.result()

    assert saved(storage) == set()
    add_one(storage)
    assert storage.get_pattern(USER, "count", "all") == 1


def test_a_session_that_was_ended_before_it_is_sent_saves_says_why(
    migrated: str, storage: PatternStorage
) -> None:
    def save_and_be_cut_off() -> None:
        with storage.transaction():
            save(storage, "first", "second", "third")
            end_sessions(migrated)

    with pytest.raises(DatabaseUnreachable, match="administrator command"):
        save_and_be_cut_off()
    assert saved(storage) == set()


def test_a_block_whose_storage_is_closed_keeps_nothing(migrated: str, storage: PatternStorage) -> None:
    def save_and_close() -> None:
        with storage.transaction():
            save(storage, "first")
            storage.close()
            with pytest.raises(StorageClosed):
                save(storage, "second")

    with pytest.raises(StorageClosed):
        save_and_close()
    with get_pattern_storage(migrated) as other:
        assert saved(other) == set()


# Ctrl-C


def test_a_block_that_goes_on_after_its_sending_was_interrupted_is_not_kept(
    storage: PatternStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server knows nothing of what was not sent, and would commit the rest."""

    def save_and_go_on() -> None:
        with storage.transaction():
            storage.save_insight(USER, "leak", 1)
            save(storage, "a", "b")
            with interrupted(monkeypatch, "executemany", 'INSERT INTO "public".user_patterns'):
                saved(storage)
            with pytest.raises(StorageError, match="leave its block"):
                saved(storage)
            save(storage, "c")

    with pytest.raises(StorageError, match="the whole transaction was rolled back"):
        save_and_go_on()
    assert saved(storage) == set()
    assert storage.get_insights(USER) == []


@pytest.mark.parametrize("first", [True, False])
def test_a_part_whose_sending_was_interrupted_is_undone_by_itself(
    storage: PatternStorage, monkeypatch: pytest.MonkeyPatch, first: bool
) -> None:
    with storage.transaction():
        if not first:
            save(storage, "before")
        with interrupted(monkeypatch, "executemany", "INSERT"), storage.transaction():
            save(storage, "a", "b")
        save(storage, "after")

    assert saved(storage) == {"after"} | ({"before"} if not first else set())


def test_a_part_whose_rollback_was_interrupted_is_rolled_back_alone(
    storage: PatternStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    with storage.transaction():
        save(storage, "before")
        with interrupted(monkeypatch, "execute", "ROLLBACK TO"), storage.transaction():
            save(storage, "in the part")
            assert saved(storage) == {"before", "in the part"}
            raise ZeroDivisionError
        save(storage, "after")

    assert saved(storage) == {"before", "after"}


def test_a_part_whose_end_was_interrupted_is_rolled_back_alone(
    storage: PatternStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    with storage.transaction():
        save(storage, "before")
        with storage.transaction():
            save(storage, "outer part")
            with interrupted(monkeypatch, "execute", "RELEASE"), storage.transaction():
                save(storage, "inner part")
        save(storage, "after")

    assert saved(storage) == {"before", "outer part", "after"}


INTERRUPTED_WHILE_SENDING = """
import os, signal, sys, threading, time
import psycopg
from poker_therapist import StorageError, get_pattern_storage

storage = get_pattern_storage(sys.argv[1])
watcher = psycopg.connect(sys.argv[1], autocommit=True)
somebody = psycopg.connect(sys.argv[1])
somebody.execute("LOCK TABLE user_patterns IN SHARE MODE")

def interrupt():
    while not watcher.execute("SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock' "
            "AND datname = current_database()").fetchone():
        time.sleep(0.002)
    os.kill(os.getpid(), signal.SIGINT)

thread = threading.Thread(target=interrupt)
try:
    with storage.transaction():
        storage.save_insight(7, "leak", 1)
        for number in range(300):
            storage.save_pattern(7, "tilt", str(number), "x" * SIZE)
        thread.start()
        try:
            storage.get_insights(7)
        except KeyboardInterrupt:
            print("interrupted")
        storage.save_insight(7, "leak", 2)
except StorageError as error:
    print(error)
thread.join()
somebody.rollback()
print("saved:", len(storage.get_insights(7)), len(storage.get_patterns_by_type(7, "tilt")))
with storage.transaction():
    storage.save_pattern(7, "tilt", "after", 1)
    storage.save_pattern(7, "tilt", "after", 2)
print("reads:", storage.get_pattern(7, "tilt", "after"))
storage.close(), somebody.close(), watcher.close()
"""


@pytest.mark.parametrize("size", [10, 30_000])
def test_a_block_that_goes_on_after_ctrl_c_came_while_it_was_sent_saves_is_not_kept(
    migrated: str, size: int
) -> None:
    """While it waits for the server's answers, or has not sent all, and with nothing on standard error."""
    lines = run_script(INTERRUPTED_WHILE_SENDING.replace("SIZE", str(size)), migrated)

    assert lines == [
        "interrupted",
        "a part of the transaction failed, so the whole transaction was rolled back: run the block again",
        "saved: 0 0",
        "reads: 2",
    ]
