"""A forked child never uses, and never closes, what its parent has open."""

import pytest

from tests.helpers.engines import postgresql_only, sqlite_only
from tests.helpers.scripts import run_in_child, run_script
from tests.helpers.snapshots import is_whole

FORK = """
import os, sys, threading
from poker_therapist import get_pattern_storage
from tests.helpers.engines import fetch_all

storage = get_pattern_storage(sys.argv[1])
storage.save_pattern(7, "from", "parent, before", 1)

def used():
    if sys.argv[1].startswith("postgresql:"):
        return fetch_all(storage, "SELECT pg_backend_pid()")[0][0]
    # Itself, and not its id, which another one may have later.
    return storage._database._here.session.connection

parents = used()

def in_child(work):
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        try:
            work()
            sys.stdout.flush()
            os._exit(0)
        finally:
            os._exit(1)
    return child

def wait(child):
    print("child ended with", os.waitpid(child, 0)[1], flush=True)
"""

FORK_AND_SAVE = """
def child():
    for step in range(50):
        storage.save_pattern(7, "from", f"child {step}", step)
        with storage.transaction():
            storage.save_pattern(7, "count", "all", storage.get_pattern(7, "count", "all", 0) + 1)
    print("child uses its parent's:", used() == parents)
    print("child reads:", storage.get_pattern(7, "from", "parent, before"))
    storage.close()

started = in_child(child)
for step in range(50):
    storage.save_pattern(7, "from", f"parent {step}", step)
    with storage.transaction():
        storage.save_pattern(7, "count", "all", storage.get_pattern(7, "count", "all", 0) + 1)
wait(started)
print("parent keeps its own:", used() == parents)
print("parent reads:", storage.get_pattern(7, "from", "child 49"))
print("all:", storage.get_pattern(7, "count", "all"), len(storage.get_patterns_by_type(7, "from")))
"""


def test_a_forked_child_saves_and_reads_on_a_connection_of_its_own(migrated: str) -> None:
    lines = run_in_child(FORK + FORK_AND_SAVE, migrated)

    assert lines == [
        "child uses its parent's: False",
        "child reads: 1",
        "child ended with 0",
        "parent keeps its own: True",
        "parent reads: 49",
        "all: 100 101",
    ]
    assert is_whole(migrated)


FORK_WITH_THREADS = """
import gc, sqlite3, warnings

# Python warns of what this is about: a fork while there are threads.
warnings.filterwarnings("ignore", message=".*use of fork", category=DeprecationWarning)

ready, done = threading.Barrier(2), threading.Event()

def work():
    storage.save_pattern(7, "from", "thread", 1)
    ready.wait()
    done.wait()
    storage.save_pattern(7, "from", "thread, after", 1)

def connections():
    # Found, not kept: whoever keeps one also keeps it from being closed with its last reference.
    return {id(one): one for one in gc.get_objects() if isinstance(one, sqlite3.Connection)}

del parents
thread = threading.Thread(target=work)
thread.start()
ready.wait()
gc.collect()
before = list(connections())

def child():
    gc.collect()
    now = connections()
    print("child keeps:", [one in now for one in before])
    # One that is closed fails here.
    print("child left open:", [now[one].in_transaction for one in before])
    storage.save_pattern(7, "from", "child", 1)

wait(in_child(child))
done.set()
thread.join()
print("saved:", *sorted(storage.get_patterns_by_type(7, "from")), sep=", ")
"""


@sqlite_only
def test_a_forked_child_leaves_its_parent_s_connections_of_all_threads_untouched(migrated: str) -> None:
    """Closing one there can release locks that the parent holds and remove its log."""
    lines = run_script(FORK + FORK_WITH_THREADS, migrated)

    assert lines == [
        "child keeps: [True, True]",
        "child left open: [False, False]",
        "child ended with 0",
        "saved:, child, parent, before, thread, thread, after",
    ]
    assert is_whole(migrated)


FORK_IN_TRANSACTION = """
with storage.transaction():
    storage.save_pattern(7, "from", "parent, inside", 1)

    def child():
        print("child sees:", *storage.get_patterns_by_type(7, "from"))
        print("child is in a transaction:", storage._database.in_transaction)

    wait(in_child(child))
    storage.save_pattern(7, "from", "parent, later", 1)
print("saved:", len(storage.get_patterns_by_type(7, "from")))
"""


def test_a_child_forked_inside_a_transaction_is_not_in_it(migrated: str) -> None:
    lines = run_in_child(FORK + FORK_IN_TRANSACTION, migrated)

    assert lines == [
        "child sees: parent, before",
        "child is in a transaction: False",
        "child ended with 0",
        "saved: 3",
    ]
    assert is_whole(migrated)


LEAVE_TRANSACTION_IN_CHILD = """
child = -1
try:
    with BLOCK:
        for number in range(3100):  # more than SQLite keeps in memory; on PostgreSQL some are not sent yet
            storage.save_pattern(7, "big", str(number), "x" * 2000)
        storage.save_insight(7, "big", "once")
        child = os.fork()
        if child == 0:
            LEAVE
        else:
            wait(child)
            with get_pattern_storage(sys.argv[1]) as other:
                print("others see:", len(other.get_patterns_by_type(7, "big")))
            storage.save_pattern(7, "big", "last", "y" * 2000)
            print("inside:", len(storage.get_patterns_by_type(7, "big")))
finally:
    if child == 0:
        os._exit(0)
print("saved:", len(storage.get_patterns_by_type(7, "big")), len(storage.get_insights(7)))
"""


@pytest.mark.slow
@pytest.mark.parametrize("block", ["storage.transaction()", "storage.transaction(), storage.transaction()"])
@pytest.mark.parametrize("leave", ["sys.exit()", "raise ValueError", "pass"])
def test_a_child_that_leaves_its_parent_s_transaction_changes_nothing_in_it(
    migrated: str, leave: str, block: str
) -> None:
    """Neither a save nor a commit nor a rollback may reach the parent's connection from there."""
    script = LEAVE_TRANSACTION_IN_CHILD.replace("LEAVE", leave).replace("BLOCK", block)
    lines = run_in_child(FORK + script, migrated)

    assert lines == ["child ended with 0", "others see: 0", "inside: 3101", "saved: 3101 1"]
    assert is_whole(migrated)


FORK_WHILE_A_THREAD_IS_IN_A_BLOCK = """
import gc, warnings

# Python warns of what this is about: a fork while there are threads.
warnings.filterwarnings("ignore", message=".*use of fork", category=DeprecationWarning)

ready, done = threading.Barrier(2), threading.Event()

def work():
    with storage.transaction():
        storage.save_pattern(7, "from", "thread", 1)
        mine = used()
        ready.wait()
        done.wait()
        storage.save_pattern(7, "from", "thread, after", 1)
        print("thread keeps its own:", used() == mine)

def sessions():
    return fetch_all(
        storage,
        "SELECT count(*) FROM pg_stat_activity "
        "WHERE datname = current_database() AND pid <> pg_backend_pid()",
    )[0][0]

thread = threading.Thread(target=work)
thread.start()
ready.wait()
print("others before:", sessions())
sys.stdout.flush()
child = os.fork()
if child == 0:
    gc.collect()
    storage.save_pattern(8, "from", "child", 1)
    print("child uses its parent's:", used() == parents)
    print("others in the child:", sessions())
    LEAVE
wait(child)
done.set()
thread.join()
print("parent keeps its own:", used() == parents)
print("saved:", *sorted(storage.get_patterns_by_type(7, "from")), sep=", ")
"""


@pytest.mark.slow
@postgresql_only
@pytest.mark.parametrize("leave", ["storage.close(); sys.exit()", "sys.exit()"])
def test_a_forked_child_ends_no_session_of_its_parent_s(migrated: str, leave: str) -> None:
    """Neither when it collects what the parent's threads held, nor when it closes, nor when it ends."""
    lines = run_script(FORK + FORK_WHILE_A_THREAD_IS_IN_A_BLOCK.replace("LEAVE", leave), migrated)

    assert lines == [
        "others before: 1",
        "child uses its parent's: False",
        "others in the child: 2",
        "child ended with 0",
        "thread keeps its own: True",
        "parent keeps its own: True",
        "saved:, parent, before, thread, thread, after",
    ]
