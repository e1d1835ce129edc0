"""What a long command is doing, told to whoever watches: the command line, and nobody else."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

# Called with what is being done, how much of it is done and how much there is; 0 where that is not known.
Progress = Callable[[str, int, int], None]

# Of this thread, or task, alone: the app's others are none of a command's.
WATCHER: ContextVar[Progress | None] = ContextVar("WATCHER", default=None)


def no_progress(doing: str, done: int, total: int) -> None:
    """Show nothing."""


@contextmanager
def watched_by(progress: Progress | None) -> Iterator[None]:
    """Tell a function what a block does."""
    before = WATCHER.set(progress)
    try:
        yield
    finally:
        WATCHER.reset(before)


def report_progress(doing: str, done: int = 0, total: int = 0) -> None:
    """Tell what is being done, if anybody watches."""
    if progress := WATCHER.get():
        progress(doing, done, total)
