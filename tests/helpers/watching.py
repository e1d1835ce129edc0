"""A command on a terminal whose progress is looked at before it goes on."""

import contextlib
import fcntl
import os
import pty
import select
import struct
import sys
import termios
import warnings
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

from poker_therapist import cli
from poker_therapist.cli import screen
from tests.helpers.cli import SETTINGS, visible_lines

HIDDEN, SHOWN = "\x1b[?25l", "\x1b[?25h"


class Watched(NamedTuple):
    """How a command ended.

    Attributes:
        shown: what the terminal showed that it was doing, in order.
        drawn: all that it drew.
    """

    code: int
    shown: list[str]
    drawn: str

    @property
    def lines(self) -> list[str]:
        """The lines that the terminal shows at the end, with the cursor."""
        assert self.drawn.count(HIDDEN) == self.drawn.count(SHOWN)
        assert self.drawn.rfind(HIDDEN) <= self.drawn.rfind(SHOWN)
        return [line for line in visible_lines(self.drawn) if line]


def watched(
    *words: str | Path,
    folder: Path,
    after: float = 0,
    keys: str = "",
    action: Callable[[], object] = cli.main,
) -> Watched:
    """Run a command in a forked child on a terminal; at each thing that it does, wait until that is shown.

    Args:
        words: of the command.
        folder: where it runs.
        after: for how many seconds nothing is shown.
        keys: what is typed when the first thing is shown; without any it goes on.
        action: what is run instead of the command.
    """
    told, tell = os.pipe()
    go_on, let_go_on = os.pipe()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*use of fork", category=DeprecationWarning)
        child, terminal = pty.fork()
    if not child:
        os.close(told)
        with contextlib.suppress(BaseException):
            os._exit(_run(words, folder, after, action, tell, go_on))
        os._exit(99)
    os.close(tell)
    shown, drawn, doing, seen, ends = list[str](), b"", b"", 0, {terminal, told}
    while terminal in ends:
        for end in select.select(list(ends), [], [])[0]:
            part = b""
            with contextlib.suppress(OSError):  # it has ended
                part = os.read(end, 65_536)
            if not part:
                ends.discard(end)
            elif end == told:
                doing, seen = part, len(drawn)
            else:
                drawn += part
        if doing and doing in drawn[seen:]:
            shown += [doing.decode()] * (shown[-1:] != [doing.decode()])
            os.write(terminal if keys else let_go_on, keys.encode() or b"\n")
            doing = b""
    for end in (terminal, told, go_on, let_go_on):
        os.close(end)
    return Watched(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), shown, drawn.decode())


def _run(
    words: tuple[str | Path, ...],
    folder: Path,
    after: float,
    action: Callable[[], object],
    tell: int,
    go_on: int,
) -> int:
    fcntl.ioctl(1, termios.TIOCSWINSZ, struct.pack("HHHH", 50, 400, 0, 0))
    for name in SETTINGS:
        os.environ.pop(name, None)
    os.environ["TERM"] = "xterm-256color"
    os.chdir(folder)
    sys.argv = ["poker-therapist", *map(str, words)]
    sys.stdin, sys.stdout, sys.stderr = (
        open(number, mode, encoding="utf-8", closefd=False)  # noqa: SIM115  # for the whole process
        for number, mode in enumerate("rww")
    )
    screen._SHORT, screen._EVERY = after, 0.005  # type: ignore[assignment]
    take_note, last = screen.Progress.__call__, SimpleNamespace(step=None)

    def wait(progress: screen.Progress, doing: str, done: int, total: int) -> None:
        take_note(progress, doing, done, total)
        if progress._drawing and not after and last.step != (doing, done):
            last.step = doing, done
            os.write(tell, doing.encode())
            os.read(go_on, 1)

    screen.Progress.__call__ = wait  # type: ignore[method-assign, assignment]
    code: object = 0
    try:
        action()
    except SystemExit as end:
        code = end.code
    sys.stdout.flush()
    sys.stderr.flush()
    return int(str(code or 0))
