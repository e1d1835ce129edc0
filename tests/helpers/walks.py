"""Which files of the package a call passes through."""

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

    def note(frame: FrameType, event: str, _: object) -> None:
        file = Path(frame.f_code.co_filename)
        # The body of a module or a class is code too, and has not this flag.
        if event == "call" and frame.f_code.co_flags & inspect.CO_OPTIMIZED and file.is_relative_to(PACKAGE):
            called.add(str(file.relative_to(PACKAGE)))

    gc.collect()  # what others have left would be closed, and noted, in the block
    before = sys.getprofile()
    sys.setprofile(note)
    try:
        yield called
    finally:
        sys.setprofile(before)
