"""Programs for which the rights on files count, though root runs the tests.

Root keeps its number and gives up its capabilities: so it is refused what a file's rights refuse, and still
owns, and may read, the interpreter, the environment and the checkout, in whatever closed folder they are.
Another user could not: root's own home is closed to all others.

Run as a script, this file gives them up and becomes the program that its arguments name.
"""

import contextlib
import ctypes
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import TypeVar

import pytest

Result = TypeVar("Result")

_NOBODY = 65534
_PR_SET_SECUREBITS = 28
_NO_ROOT = 0b11  # a program that root starts is given no capability again; locked
_CAPABILITY_VERSION_3 = 0x20080522
_CAP_DAC_READ_SEARCH = 2


def _give_up_capabilities() -> None:
    """Give up what lets root read and write everything.

    Raises:
        OSError: the system has no capabilities, or a container around it refuses.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if not (hasattr(libc, "prctl") and hasattr(libc, "capset")):
        raise OSError("this system has no capabilities")
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0)
    none = (ctypes.c_uint32 * 6)()
    for failed in (libc.prctl(_PR_SET_SECUREBITS, _NO_ROOT, 0, 0, 0), libc.capset(header, none)):
        if failed:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


@contextlib.contextmanager
def acting_as(user: int) -> Iterator[None]:
    """Let this process, which root runs, be another user for the system's checks of rights.

    It may go on reading whatever there is, since the checkout and the environment may lie in a closed folder.
    """
    groups = os.getgroups()
    os.setgroups([])
    os.setegid(user)
    os.seteuid(user)
    if user:
        _let_read()
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(0)
        os.setgroups(groups)


def _let_read() -> None:
    """Take back one of the capabilities that a change of user has switched off: to read and search."""
    libc = ctypes.CDLL(None, use_errno=True)
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0)
    capabilities = (ctypes.c_uint32 * 6)()  # effective, permitted, inheritable; and once more
    libc.capget(header, capabilities)
    capabilities[0] = 1 << _CAP_DAC_READ_SEARCH
    libc.capset(header, capabilities)


def run_without_privileges(command: Sequence[str | Path], folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a command in a folder as a user for whom the rights on files count."""
    if os.geteuid() == 0:
        command = [sys.executable, "-I", __file__, *command]
    # A process that may not write its coverage would complain of that on standard error.
    kept = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_")}
    return subprocess.run(command, cwd=folder, env=kept, capture_output=True, text=True, check=False)


def give_up_privileges() -> None:
    """Make the rights on files count for this process from now on: for a child of the tests' own."""
    if os.geteuid() == 0:
        _give_up_capabilities()


def as_another_user(work: Callable[[], Result]) -> Result:
    """Run something in a forked child as a user who is neither root nor the owner of anything of ours."""

    def change_and_work() -> Result:
        os.setgroups([])
        os.setgid(_NOBODY)
        os.setuid(_NOBODY)
        return work()

    from tests.helpers.faults import in_child  # this file is run as a script, too

    return in_child(change_and_work)


def skip_unless_rights_count(report: Callable[[str], None]) -> None:
    """Skip a test, and say why, where no program can be run for which the rights on files count."""
    if reason := _why_rights_do_not_count():
        report(f"not tested, since rights on files do not count: {reason}")
        pytest.skip(reason)


def skip_unless_root(report: Callable[[str], None]) -> None:
    """Skip a test, and say why, that needs a process that may write beside one that may not."""
    if os.geteuid() != 0:
        reason = "only root can give one process more rights on files than another"
        report(f"not tested: {reason}")
        pytest.skip(reason)


@cache
def _why_rights_do_not_count() -> str:
    """Return why no program can be run for which the rights on files count; nothing if one can."""
    script = """
import os, tempfile
import poker_therapist.migrations.atomic
with tempfile.NamedTemporaryFile() as file:
    os.fchmod(file.fileno(), 0)
    assert not os.access(file.name, os.R_OK), "a file without any right can be read"
"""
    done = run_without_privileges([sys.executable, "-c", script], folder=Path.cwd())
    return done.stderr.splitlines()[-1] if done.returncode else ""


if __name__ == "__main__":
    _give_up_capabilities()
    os.execv(sys.argv[1], sys.argv[1:])
