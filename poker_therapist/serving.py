"""What a worker does for a block of an asyncio task: its calls, in their order, until it ends."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

from poker_therapist.errors import StorageError
from poker_therapist.ownership import FAILED
from poker_therapist.workers import Call, Workers


class End(Exception):
    """The end of a block, or of a part of it; it is broken if a part inside it has not ended."""

    def __init__(self, depth: int, *, commit: bool, is_broken: bool = False) -> None:
        super().__init__()
        self.depth = depth
        self.commit = commit
        self.is_broken = is_broken


class Line:
    """What leads to the worker that a block has for itself, and how many parts deep the block is there."""

    def __init__(self, workers: Workers) -> None:
        self.workers = workers
        self.inbox = workers.inbox()
        self.depth = 0

    def send(self, item: Call | End, *, now: bool = True) -> None:
        """Let the worker do a call, or end; `now` is as in `Workers.send`."""
        self.workers.send(self.inbox, item, now=now)


def serve(
    workers: Workers, begin: Callable[[], AbstractContextManager[None]], inbox: Any, begun: Call, depth: int
) -> None:
    """Do the calls of a block, in a worker, until it ends.

    Args:
        workers: which tell the loop.
        begin: begins the block, or the part of one.
        inbox: brings the calls, and the end of this part or of one around it.
        begun: is finished when the block has begun, or could not.
        depth: in how many parts it is; 1 is the whole.
    """
    is_begun = False
    try:
        with begin():
            is_begun = True
            workers.finish(begun)
            _do_calls(workers, inbox, depth)
    except End as end:
        if end.depth < depth:
            workers.send(inbox, End(end.depth, commit=end.commit, is_broken=True))
        if end.depth < depth or end.commit:
            raise StorageError(FAILED) from None
    except BaseException as error:
        if is_begun:
            raise
        begun.error = error
        workers.finish(begun)


def _do_calls(workers: Workers, inbox: Any, depth: int) -> None:
    """Do calls until the block is to be committed.

    Raises:
        End: it is to be rolled back.
    """
    while True:
        item: Call | End | None = workers.receive(inbox)
        if item is None:  # the loop is closed
            raise End(1, commit=False)
        if isinstance(item, Call):
            item.run()
            workers.finish(item)
        elif item.depth == depth and item.commit and not item.is_broken:
            return
        elif item.depth <= depth:
            raise item
