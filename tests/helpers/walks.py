"""Which files of the package a call passes through."""

import functools
import gc
import inspect
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import poker_therapist

PACKAGE = Path(poker_therapist.__file__).parent


@contextmanager
def files_called() -> Iterator[set[str]]:
    """Collect the files of the package whose functions are called; importing a module is no call."""
    called: set[str] = set()

    @functools.cache
    def ours(name: str) -> str | None:
        file = Path(name)
        return str(file.relative_to(PACKAGE)) if file.is_relative_to(PACKAGE) else None

    def note(frame: FrameType, event: str, _: object) -> None:
        # The body of a module or a class is code too, and has not this flag.
        if event == "call" and frame.f_code.co_flags & inspect.CO_OPTIMIZED:
            file = ours(frame.f_code.co_filename)
            if file is not None:
                called.add(file)

    gc.collect()  # what others have left would be closed, and noted, in the block
    before = sys.getprofile()
    sys.setprofile(note)
    try:
        yield called
    finally:
        sys.setprofile(before)
