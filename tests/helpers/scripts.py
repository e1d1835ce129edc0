"""Python scripts in processes of their own."""

import os
import signal
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path

from tests.helpers.faults import fork
from tests.helpers.programs import run_program
from tests.helpers.rights import give_up_privileges


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


def run_in_child(
    script: str, *arguments: str | Path, begin: Callable[[], object] = lambda: None
) -> list[str]:
    """Run a script in a child of this process, which is quicker, and return the lines that it prints.

    The child has imported and opened what this process has, and ends without what an interpreter does then.

    Args:
        script: what it runs.
        arguments: what the script is told.
        begin: what the child does before.
    """
    ran = run_in_fork("/python", "-c", script, *arguments, begin=begin)
    assert (ran.returncode, ran.stderr) == (0, b""), ran.stderr.decode()
    return ran.stdout.decode().splitlines()


def run_in_fork(
    *words: str | Path, begin: Callable[[], object], encoding: str | None = None
) -> subprocess.CompletedProcess[bytes]:
    """Run a program in Python in a child of this process, with a console of some encoding."""
    with tempfile.TemporaryFile() as printed, tempfile.TemporaryFile() as error:
        if not (child := fork()):
            code = 1
            try:
                signal.alarm(120)
                os.dup2(printed.fileno(), 1)
                os.dup2(error.fileno(), 2)
                with (
                    open(1, "w", closefd=False, encoding=encoding) as sys.stdout,
                    open(2, "w", closefd=False, encoding=encoding, errors="backslashreplace") as sys.stderr,
                ):
                    begin()
                    code = run_program(*map(str, words))
            finally:
                os._exit(code)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        for file in (printed, error):
            file.seek(0)
        return subprocess.CompletedProcess(words, code, printed.read(), error.read())


def run_without_rights(script: str, *arguments: str | Path, folder: Path) -> list[str]:
    """Run a script in a child and in a folder as a user for whom the rights on files count."""

    def begin() -> None:
        os.chdir(folder)
        warnings.simplefilter("error")
        give_up_privileges()

    return run_in_child(script, *arguments, begin=begin)
