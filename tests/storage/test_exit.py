"""The interpreter ends while a daemon thread uses the storage."""

import subprocess
import sys
from collections.abc import Callable

import pytest

from tests.helpers.engines import query
from tests.helpers.snapshots import is_whole

RUNS = 20

SCRIPT = """
import atexit, sys, threading

def save_at_the_end():
    storage.save_pattern(7, "at exit", "before our import", 1)
    print("first handler", flush=True)

atexit.register(save_at_the_end)  # handlers run in reverse: after those of the package

from poker_therapist import get_pattern_storage

storage = get_pattern_storage(sys.argv[1])
run = sys.argv[2]
saved = threading.Event()

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

atexit.register(print, "last handler", flush=True)
threading.Thread(target=work, daemon=True).start()
saved.wait()
"""


@pytest.mark.slow
def test_a_daemon_thread_does_not_crash_the_end_of_the_interpreter(
    migrated: str, report: Callable[[str], None]
) -> None:
    for run in range(RUNS):
        ended = subprocess.run(
            [sys.executable, "-X", "faulthandler", "-c", SCRIPT, migrated, str(run)],
            check=False,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert (ended.returncode, ended.stdout, ended.stderr) == (0, "last handler\nfirst handler\n", "")

        assert query(migrated, "SELECT 1 FROM user_patterns WHERE pattern_type = 'at exit'") == [(1,)]
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
