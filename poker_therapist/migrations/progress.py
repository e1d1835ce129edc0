"""Progress of a long command: the code that does the work reports it, and only the command line shows it."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

# Called with the current step, the amount done and the total amount; 0 if the total is not known.
Progress = Callable[[str, int, int], None]

# A context variable: the other threads and tasks of an app report nothing to it.
WATCHER: ContextVar[Progress | None] = ContextVar("WATCHER", default=None)


def no_progress(doing: str, done: int, total: int) -> None:
    """Show nothing."""


@contextmanager
def watched_by(progress: Progress | None) -> Iterator[None]:
    """Call a function with the progress that a block reports."""
    before = WATCHER.set(progress)
    try:
        yield
    finally:
        WATCHER.reset(before)


def report_progress(doing: str, done: int = 0, total: int = 0) -> None:
    """Report progress, if the command line shows it."""
    if progress := WATCHER.get():
        progress(doing, done, total)
