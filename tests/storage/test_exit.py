"""The interpreter ends while a daemon thread uses the storage."""

from collections.abc import Callable

import pytest

from tests.helpers.engines import query
from tests.helpers.scripts import run_script
from tests.helpers.snapshots import is_whole

RUNS = 20

# Each run is a child, forked before anything is open. Its interpreter ends as any does: at the script's end.
SCRIPT = """
import atexit, os, sys, threading

def save_at_the_end():
    storage.save_pattern(7, "at exit", f"before our import, {run}", 1)
    print("first handler", flush=True)

atexit.register(save_at_the_end)  # handlers run in reverse: after those of the package

from poker_therapist import get_pattern_storage
import poker_therapist.postgresql.connections, poker_therapist.sqlite.connections  # once for all children

def work():
    step = 0
    while True:
        with storage.transaction():
            storage.save_pattern(7, f"run {run}", f"{step} a", "x" * 1000)
            storage.save_pattern(7, f"run {run}", f"{step} b", "x" * 1000)
        storage.recall(7)
        step += 1
        if step == 3:
            saved.set()

for run in range(RUNS):
    child = os.fork()
    if child == 0:
        break
    print("ended with", os.waitpid(child, 0)[1], flush=True)
else:
    os._exit(0)

storage = get_pattern_storage(sys.argv[1])
saved = threading.Event()
atexit.register(print, "last handler", flush=True)
threading.Thread(target=work, daemon=True).start()
saved.wait()
"""


@pytest.mark.slow
def test_a_daemon_thread_does_not_crash_the_end_of_the_interpreter(
    migrated: str, report: Callable[[str], None]
) -> None:
    lines = run_script(SCRIPT.replace("RUNS", str(RUNS)), migrated)

    assert lines == ["last handler", "first handler", "ended with 0"] * RUNS
    at_exit = query(migrated, "SELECT pattern_key FROM user_patterns WHERE pattern_type = 'at exit'")
    assert {key for (key,) in at_exit} == {f"before our import, {run}" for run in range(RUNS)}
    for run in range(RUNS):
        saved = {
            key
            for (key,) in query(
                migrated, f"SELECT pattern_key FROM user_patterns WHERE pattern_type = 'run {run}'"
            )
        }
        steps = {key.split()[0] for key in saved}
        assert len(steps) >= 3
        assert saved == {f"{step} {part}" for step in steps for part in "ab"}  # each block whole
    assert is_whole(migrated)
    report(f"{RUNS} interpreters ended while a daemon thread was saving: none crashed, nothing lost")
