"""Who owns a transaction: the thread and the asyncio task that began it."""

import os
import sys
import threading
from typing import Any

from poker_therapist.errors import StorageError

FAILED = "the transaction failed and was undone: leave its block, then run it again"


def current_task() -> Any:
    """Return the asyncio task that is running in this thread, None if none is."""
    asyncio = sys.modules.get("asyncio")  # what nobody has imported runs no task
    if asyncio is None:
        return None
    try:
        return asyncio.current_task()
    except RuntimeError:  # no event loop is running in this thread
        return None


class Owner:
    """The process, thread and task that began a transaction."""

    __slots__ = ("process", "task", "thread")

    def __init__(self) -> None:
        self.process = os.getpid()
        self.thread = threading.get_ident()
        self.task = current_task()

    def is_here(self) -> bool:
        """Return whether the owner is who is running now."""
        return self.thread == threading.get_ident() and self.task is current_task()

    def was_forked(self) -> bool:
        """Return whether this process is a child of the owner's, which must not touch the transaction."""
        return self.process != os.getpid()

    def require(self) -> None:
        """Refuse whoever runs in the owner's thread and is another task.

        Raises:
            StorageError: that is so; nothing was saved.
        """
        if self.task is not current_task():
            raise StorageError(
                "another asyncio task has begun a transaction() in this thread and not ended it, so nothing "
                "was done: end the block before its task awaits, or run the block in a worker thread "
                "(asyncio.to_thread)"
            )


def left_elsewhere() -> StorageError:
    """Return the error for a block that another thread or task ends than the one that began it."""
    return StorageError(
        "a transaction() was begun by one thread or asyncio task and ended by another, so it was undone: "
        "begin and end the block in the same one"
    )
