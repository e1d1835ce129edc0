"""The operator's commands: run in this process, in one of their own, and on a terminal."""

import contextlib
import fcntl
import io
import json
import logging
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import tempfile
import termios
import warnings
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from poker_therapist import cli

PROGRAM = Path(sys.executable).with_name("poker-therapist")
# What would make a terminal of a pipe, or a pipe of a terminal.
SETTINGS = ("COLUMNS", "FORCE_COLOR", "LINES", "NO_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE")


class Result(NamedTuple):
    """How a command ended.

    Attributes:
        error: what it said on standard error, but for the next.
        database: what it said there about the database that it is going to change.
    """

    code: int
    out: str
    error: str
    database: str = ""

    @property
    def lines(self) -> list[str]:
        """What it printed, line by line."""
        return self.out.splitlines()

    @property
    def json(self) -> Any:
        """What it printed for a program."""
        return json.loads(self.out)


def _result(code: int, out: str, error: str) -> Result:
    lines = error.splitlines(keepends=True)
    said = [line for line in lines if line.startswith("database: ")]
    return Result(code, out, "".join(line for line in lines if line not in said), "".join(said))


def command(*arguments: str | Path, folder: Path, answer: str = "") -> Result:
    """Run a command in this process and in a folder; whatever is no error of ours is raised."""
    out, error, code = io.StringIO(), io.StringIO(), 0
    with (
        pytest.MonkeyPatch.context() as patched,
        contextlib.chdir(folder),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(error),
    ):
        patched.setattr(sys, "argv", ["poker-therapist", *map(str, arguments)])
        # As for an installed program: under `python -m pytest` the usage would name that.
        patched.setattr(sys.modules["__main__"], "__package__", None)
        patched.setattr(sys, "stdin", io.StringIO(answer))
        for name in SETTINGS:
            patched.delenv(name, raising=False)
        try:
            cli.main()
        except SystemExit as end:
            code = int(end.code or 0)
    return _result(code, out.getvalue(), error.getvalue())


def refused(*arguments: str | Path, folder: Path) -> str:
    """Run a command that ends in one message, with nothing else printed, and return that."""
    ran = command(*arguments, folder=folder)

    assert (ran.code, ran.out) == (1, ""), ran
    assert ran.error.startswith("poker-therapist: ")
    assert ran.error.count("poker-therapist: ") == 1
    return ran.error.removeprefix("poker-therapist: ").rstrip()


def program(
    *arguments: str | Path,
    folder: Path,
    environment: dict[str, str] | None = None,
    answer: str = "",
    timeout: float = 60,
) -> Result:
    """Run the program as an operator's script does, in a pipe."""
    done = subprocess.run(
        [sys.executable, "-W", "error", PROGRAM, *arguments],
        cwd=folder,
        env=_surroundings(environment),
        input=answer,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    return _result(done.returncode, done.stdout, done.stderr)


def on_terminal(
    *arguments: str | Path,
    folder: Path,
    columns: int,
    environment: dict[str, str] | None = None,
    answer: str = "",
) -> tuple[int, str]:
    """Run a command on a terminal so many columns wide; return its exit code and all that it drew.

    In a child of this process, which need not import what this one has.
    """
    ours, its = pty.openpty()
    fcntl.ioctl(its, termios.TIOCSWINSZ, struct.pack("HHHH", 50, columns, 0, 0))
    child = _fork((its, its, its), arguments, folder, {"TERM": "xterm-256color", **(environment or {})})
    os.close(its)
    os.write(ours, answer.encode())
    drawn = b""
    with contextlib.suppress(OSError):  # it has ended
        while part := os.read(ours, 65_536):
            drawn += part
    os.close(ours)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), drawn.decode()


def in_child(*arguments: str | Path, folder: Path, environment: dict[str, str] | None = None) -> Result:
    """Run a command as the program does, in a child of this process; what it prints goes to no terminal."""
    return in_children(1, *arguments, folder=folder, environment=environment)[0]


def in_children(
    count: int, *arguments: str | Path, folder: Path, environment: dict[str, str] | None = None
) -> list[Result]:
    """Run a command several times at once; see `in_child`."""
    with contextlib.ExitStack() as stack:
        answer = stack.enter_context(Path(os.devnull).open())
        printed = [
            [stack.enter_context(tempfile.TemporaryFile("w+")) for _ in ("out", "error")]
            for _ in range(count)
        ]
        children = [
            _fork((answer.fileno(), out.fileno(), error.fileno()), arguments, folder, environment)
            for out, error in printed
        ]
        codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
        for file in chain(*printed):
            file.seek(0)
        return [
            _result(code, out.read(), error.read()) for code, (out, error) in zip(codes, printed, strict=True)
        ]


def _fork(
    files: tuple[int, int, int],
    arguments: tuple[str | Path, ...],
    folder: Path,
    environment: dict[str, str] | None,
) -> int:
    """Run a command in a child that reads and writes some files; return its number."""
    if child := os.fork():
        return child
    code = 1
    with contextlib.suppress(BaseException):
        for number, file in enumerate(files):
            os.dup2(file, number)
        kept = _surroundings(environment)
        os.environ.clear()
        os.environ.update(kept)
        os.chdir(folder)
        code = _run_as_program(arguments)
    os._exit(code)


def _run_as_program(arguments: tuple[str | Path, ...]) -> int:
    """Do in a child what an interpreter of its own would, and return the exit code."""
    signal.alarm(60)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    logging.getLogger().handlers.clear()
    warnings.simplefilter("error")
    sys.argv = ["poker-therapist", *map(str, arguments)]
    sys.modules["__main__"].__package__ = None
    encoding = os.environ.get("PYTHONIOENCODING")
    with (
        open(0, closefd=False) as sys.stdin,
        open(1, "w", closefd=False, encoding=encoding) as sys.stdout,
        open(2, "w", closefd=False, encoding=encoding, errors="backslashreplace") as sys.stderr,
    ):
        try:
            cli.main()
        except SystemExit as end:
            return end.code if isinstance(end.code, int) else bool(end.code)
        except BaseException:
            sys.__excepthook__(*sys.exc_info())
            return 1
    return 0


def _surroundings(environment: dict[str, str] | None) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name not in SETTINGS}
    return kept | (environment or {})


def visible_lines(drawn: str) -> list[str]:
    """Return the lines that a terminal shows at the end, without what was wiped away and without colours."""
    screen, row, column = [""], 0, 0
    for code, up, wipe, end, text in re.findall(
        r"(\x1b\[(?:(\d+)A|(2)?K|[0-9;?]*[A-Za-z]))|([\r\n])|([^\x1b\r\n]+)", drawn
    ):
        if up:
            row -= int(up)
        elif wipe:
            screen[row] = ""
        elif end == "\r":
            column = 0
        elif end:
            row += 1
            screen += [""] * (row + 1 - len(screen))
        elif not code:
            line = screen[row].ljust(column)
            screen[row] = line[:column] + text + line[column + len(text) :]
            column += len(text)
    return screen


def state_of(folder: Path) -> dict[str, tuple[bytes, int]]:
    """Return the bytes and the time of change of each file below a folder."""
    return {
        str(path.relative_to(folder)): (path.read_bytes(), path.stat().st_mtime_ns)
        for path in folder.rglob("*")
        if path.is_file()
    }
