"""The tests pass wherever a user runs them: in closed folders, without a home, in the background."""

import re
import subprocess
import sys
from pathlib import Path

from tests.helpers.checkout import copy_checkout, environment

# One test of missing rights, one that is interrupted, one that connects to the server.
CHOSEN = [
    "tests/migrations/test_safe_migrations_sqlite.py",
    "tests/storage/test_obstacles.py",
    "tests/storage/test_postgresql_concurrency.py",
    "-k",
    "read_only_database_is_listed or written_or_entered or interrupted_while_waiting",
]
# Starts a program that ignores Ctrl-C, as a script does with what it runs in the background.
IN_BACKGROUND = """
import os, signal, sys
signal.signal(signal.SIGINT, signal.SIG_IGN)
os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
"""


def test_the_tests_pass_in_a_closed_checkout_in_the_background_without_a_home(tmp_path: Path) -> None:
    """And with a temporary folder whose name is too long for a socket."""
    checkout = copy_checkout(tmp_path / "closed")
    checkout.chmod(0o700)
    temporary = tmp_path / ("long" * 30)
    temporary.mkdir()
    kept = {
        name: value
        for name, value in environment(checkout).items()
        if "PYTEST" not in name and name != "HOME"
    }
    done = subprocess.run(
        [sys.executable, "-c", IN_BACKGROUND, "-m", "pytest", "-n", "0", *CHOSEN],
        cwd=checkout,
        env=kept | {"TMPDIR": str(temporary)},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )

    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"^[.s]{3} ", done.stdout, re.MULTILINE), done.stdout
    assert [*temporary.iterdir()]  # it was used
