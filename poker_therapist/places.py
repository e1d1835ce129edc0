"""The nesting of the blocks of asyncio tasks, over all storages."""

from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import Any


class Place:
    """The place of a block among others; it refers to the block weakly: a dropped block is rolled back.

    Attributes:
        block: returns the block while a reference to it exists.
        around: the place around it, of whichever storage.
        outer: the place of the block that this one is a part of.
        ending: how the block has ended: True if it was to be committed; None while it is open.
        has_saves: whether its task has saved through the storage, and not by the block, what is in the block.
        undone_of: returns the task for which that was undone by another one, until that task gets the error.
    """

    def __init__(self, block: Callable[[], Any], around: "Place | None", outer: "Place | None") -> None:
        self.block = block
        self.around = around
        self.outer = outer
        self.ending: bool | None = None
        self.has_saves = False
        self.undone_of: Callable[[], Any] = lambda: None

    @property
    def is_over(self) -> bool:
        """Whether the block has ended, or one around it of which it is a part."""
        return self.ending is not None or (self.outer is not None and self.outer.is_over)

    @property
    def was_undone(self) -> bool:
        """Whether the block was rolled back, or one around it of which it is a part."""
        return self.ending is False or (self.outer is not None and self.outer.was_undone)


innermost: ContextVar[Place | None] = ContextVar("innermost", default=None)


def around() -> Iterator[Place]:
    """Yield the places of open blocks that the running task is in, or was started in, from the inside.

    Those of blocks that have ended, in whatever order, are taken out.
    """
    place = innermost.get()
    if place is not None and place.is_over:
        place = _open_from(place)
        innermost.set(place)
    while place is not None:
        yield place
        place.around = _open_from(place.around)
        place = place.around


def _open_from(place: Place | None) -> Place | None:
    while place is not None and place.is_over:
        place = place.around
    return place
