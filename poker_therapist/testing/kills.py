"""Running something in a child process that is killed before one of its SQL statements."""

import os
import signal
import tempfile
import traceback
from collections.abc import Callable
from typing import Any, NamedTuple

from poker_therapist.errors import PokerTherapistError

# Has a process call something before each statement that it sends.
Watch = Callable[[Callable[[str], None]], None]


class Ended(NamedTuple):
    """How a child has ended.

    Attributes:
        code: 0; 1 if the action raised; minus the signal that ended it.
        said: the statement before which it was killed, or the error of the action.
    """

    code: int
    said: str


def run_in_child(action: Callable[[], Any], watch: Watch, step: int = 0) -> Ended:
    """Run something in a child that is killed before its statement number `step`; 0 lets it live."""
    with tempfile.TemporaryFile() as said:
        child = os.fork()
        if not child:
            code = 1
            try:
                if step:
                    watch(_killer(step, said.fileno()))
                action()
                code = 0
            except PokerTherapistError as error:
                _write(said.fileno(), str(error))
            except BaseException:
                _write(said.fileno(), traceback.format_exc())
            finally:
                os._exit(code)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        said.seek(0)
        return Ended(code, said.read().decode(errors="replace"))


def _killer(step: int, descriptor: int) -> Callable[[str], None]:
    seen = 0

    def count(statement: str) -> None:
        nonlocal seen
        seen += 1
        if seen == step:
            _write(descriptor, " ".join(statement.split()))
            os.kill(os.getpid(), signal.SIGKILL)

    return count


def _write(descriptor: int, text: str) -> None:
    os.write(descriptor, text.encode(errors="replace"))
