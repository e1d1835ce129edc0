"""Python scripts in processes of their own."""

import subprocess
import sys
from pathlib import Path


def run_script(script: str, database: str | Path) -> list[str]:
    """Run a script by itself and return the lines that it prints."""
    done = subprocess.run(
        [sys.executable, "-X", "faulthandler", "-c", script, str(database)],
        check=False,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    return done.stdout.splitlines()
