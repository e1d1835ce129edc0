"""The owner of a transaction, and the block that begins and ends it."""

import functools
import os
import sys
import threading
import weakref
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import AbstractContextManager
from contextvars import ContextVar
from types import TracebackType
from typing import Any, Protocol, TypeVar

from poker_therapist.compat import override
from poker_therapist.errors import StorageError

FAILED = "the transaction failed and was rolled back: leave its block, then run it again"


_Result = TypeVar("_Result")


class Fiber(Protocol):
    """What runs synchronous code in the thread of an event loop, and pauses it instead of waiting."""

    def is_running(self) -> bool:
        """Return whether it is what runs now."""

    def wait(self, generator: Any, socket: int, timeout: float) -> Any:
        """Return what a generator of psycopg's returns; the loop runs while the socket is not ready.

        Raises:
            Silent: it was not ready for so many seconds; the generator can be waited for again.
        """

    def in_thread(self, do: Callable[[], _Result]) -> _Result:
        """Call a function in another thread and return its result; the event loop continues."""


class Silent(Exception):
    """A socket was not ready in time. Not TimeoutError, which a signal handler may raise anywhere."""


# In the context of a fiber, that fiber. A task that is started there has a copy of the context.
fiber_of_context: ContextVar[Fiber | None] = ContextVar("fiber_of_context", default=None)


def current_fiber() -> Fiber | None:
    """Return the fiber that runs now, if one does."""
    found = fiber_of_context.get()
    return found if found is not None and found.is_running() else None


def current_task() -> Any:
    """Return the fiber, or else the asyncio task, that is running in this thread, None if none is."""
    asyncio = sys.modules.get("asyncio")  # without that module no task runs
    # Without a running loop `current_task()` raises, which takes a fifth of the time of an insertion.
    if asyncio is None or (loop := asyncio._get_running_loop()) is None:
        return None
    return current_fiber() or asyncio.current_task(loop)


class Owner:
    """The process, thread and task that began a transaction."""

    __slots__ = ("process", "task", "thread")

    def __init__(self) -> None:
        self.process = os.getpid()
        self.thread = threading.get_ident()
        self.task = current_task()

    def is_here(self) -> bool:
        """Return whether the running thread and task are the owner."""
        return self.thread == threading.get_ident() and self.task is current_task()

    def was_forked(self) -> bool:
        """Return whether this process is a child of the owner's, which must not touch the transaction."""
        return self.process != os.getpid()

    def require(self) -> None:
        """Refuse another task that runs in the owner's thread.

        Raises:
            StorageError: that is so; nothing was saved.
        """
        if self.task is not current_task():
            raise StorageError(
                "another asyncio task has an open transaction() in this thread, so nothing was done: end the "
                "block before its task awaits, run the block in a worker thread (asyncio.to_thread), or open "
                "the storage with poker_therapist.aio.open_storage()"
            )


def left_elsewhere() -> StorageError:
    """Return the error for a block that another thread or task ends than the one that began it."""
    return StorageError(
        "a transaction() was begun by one thread or asyncio task and ended by another, so it was rolled "
        "back: begin and end the block in the same one"
    )


class Part(ABC):
    """What a block begins and ends: a transaction, or a part of the one that is open.

    Attributes:
        holder: returns what its `with` statement holds; None as soon as that was left. Then nothing more may
            be done in it, even if signals have kept it from ending.
        outside: refers to the part that it is in, if that is not the whole.
        is_over: whether nothing may be done in it: as soon as its end has begun.
    """

    is_over: bool
    holder: Callable[[], object] = staticmethod(lambda: True)  # where no `with` statement holds it
    outside: "weakref.ref[Part] | None" = None

    @abstractmethod
    def begin(self) -> None:
        """Begin it; where that raises, `abandon` follows."""

    @abstractmethod
    def end(self, error: BaseException | None) -> None:
        """Commit it, or roll it back because of an error; where that raises, `abandon` follows."""

    @abstractmethod
    def abandon(self) -> None:
        """Roll it back unless it has ended, and let nothing more be done in it."""


class Whole:
    """A transaction of which a part may be open.

    Attributes:
        is_whole: false while it is unknown whether a part has ended.
        innermost: refers to the part that began last of those that are open.
    """

    is_whole = True
    innermost: "weakref.ref[Part] | None" = None

    def enter_part(self, part: Part) -> None:
        """Note that a part begins."""
        part.outside, self.innermost = self.innermost, weakref.ref(part)

    def leave_part(self, part: Part, *, is_undone: bool) -> None:
        """Note that a part has ended; what was rolled back with it, of the parts in it, has ended as well."""
        while is_undone and self.innermost is not None and (inner := self.innermost()) not in (part, None):
            inner.is_over, self.innermost = True, inner.outside
        self.innermost = part.outside

    def require_parts(self) -> None:
        """Roll back the parts whose blocks were left, though signals have kept them from ending."""
        while self.innermost is not None:
            part = self.innermost()
            if part is None:
                self.is_whole, self.innermost = False, None
            elif part.holder() is None:
                part.abandon()
                self.leave_part(part, is_undone=True)
            else:
                return


class _End(functools.partial[None]):
    """What a `with` statement calls at the end of its block; only it holds the part."""

    part: Part


def _end(
    part: "weakref.ref[Part]",
    _kind: type[BaseException] | None,
    error: BaseException | None,
    _trace: TracebackType | None,
) -> None:
    try:
        found = part()
        if found is not None:
            found.end(error)
    except BaseException:
        found = part()
        if found is not None:
            found.abandon()
        raise


class _Exit:
    """The `__exit__` of a block.

    A signal can arrive when Python has called `__exit__` and not run its first instruction. Nothing has ended
    the transaction then, and the exception's traceback would hold it by the method's `self`: what the thread
    saves while it handles the exception would go into that transaction, and be lost with it. So `with` is
    given a function written in C that holds the part, and passes a weak reference on. The part ends with it.
    """

    def __get__(self, block: "Block | None", owner: "type[Block]") -> Callable[..., None]:
        if block is None:  # asked of the class, by contextlib.ExitStack
            return owner.leave
        if block.entered is not None:
            return block.leave
        part = block.make()
        end = _End(_end, weakref.ref(part))
        end.part = part
        part.holder = weakref.ref(end)
        block.part = weakref.ref(part)
        return end


class Block(AbstractContextManager[None]):
    """What `with storage.transaction():` enters and leaves.

    Attributes:
        make: returns what the block begins and ends.
        part: that, held by the `with` statement, which asks for `__exit__` before it calls `__enter__`.
        entered: that, where no `with` statement holds it.
    """

    def __init__(self, make: Callable[[], Part]) -> None:
        self.make = make
        self.part: Callable[[], Part | None] = lambda: None
        self.entered: Part | None = None

    @override
    def __enter__(self) -> None:
        part = self.part()
        if part is None:
            part = self.entered = self.make()
        try:
            return part.begin()
        except BaseException:  # also a signal that arrived right after it had begun
            part.abandon()
            raise

    def leave(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End what was entered by a call of `__enter__`, or by an ExitStack."""
        part, self.entered = self.entered, None
        if part is not None:
            _end(weakref.ref(part), kind, error, trace)

    __exit__ = _Exit()
