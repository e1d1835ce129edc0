"""A few threads that do the calls of an event loop.

No call keeps the loop waiting, and a call for which no thread is free waits in the loop. A call costs little:
the threads take the next one themselves, and tell the loop of what they have finished all at once.

The queues between loop and threads are deques and lists, whose methods are atomic: a signal can arrive
anywhere, and could leave a lock locked.
"""

import asyncio
import contextlib
import math
import os
import threading
from collections import deque
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import Any

from poker_therapist.errors import DatabaseBusy, StorageClosed

CLOSED = "the storage is closed: open it again with open_storage()"
# The number of this process, which asking for at each call would take longer.
_process = os.getpid()


class Call:
    """A synchronous call that a coroutine waits for and a worker does.

    Attributes:
        do: what to do.
        writes: whether it needs a permit to write.
        since: when it began to wait for a worker, by the loop's clock.
        result: what it has returned.
        error: what it has raised.
        is_done: whether its end was delivered to the loop.
        first: a call that it finishes when it has begun, and that is refused with it.
    """

    __slots__ = (
        "_future", "_loop", "_process", "_unclaimed",
        "do", "error", "first", "is_done", "result", "since", "writes",
    )  # fmt: skip

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        do: Callable[[], Any] = lambda: None,
        *,
        writes: bool = False,
        first: "Call | None" = None,
    ) -> None:
        self._loop = loop
        self._future: asyncio.Future[None] | None = None
        # The one that takes the item either does the call or withdraws it.
        self._unclaimed = [True]
        self._process = _process
        self.do = do
        self.writes = writes
        self.first = first
        self.since = 0.0
        self.is_done = False
        self.result: Any = None
        self.error: BaseException | None = None

    def was_forked(self) -> bool:
        """Return whether this process is a child of the one that made it, and so has no worker."""
        return self._process != _process

    def ends_by_itself(self) -> bool:
        """Return whether it does not wait for its task, as a block does that has begun."""
        return self.first is None or not self.first.is_done

    def claim(self) -> bool:
        """Return whether nobody has claimed the call before."""
        try:
            return self._unclaimed.pop()
        except IndexError:
            return False

    def run(self) -> None:
        """Do it, in a worker, unless it was withdrawn."""
        if self.claim():
            try:
                self.result = self.do()
            except BaseException as error:  # it is raised where the call was made
                self.error = error

    def refuse(self, error: Exception) -> None:
        """Raise an error where the call was made, unless somebody has claimed the call."""
        if self.claim():
            for call in (self, self.first):
                if call is not None:
                    call.error = error
                    call.wake()

    def wake(self) -> None:
        """Let the coroutine that waits for it go on."""
        self.is_done = True
        if self._future is not None and not self._future.done():
            self._future.set_result(None)

    async def wait(self, queued: "Call | None" = None) -> Any:
        """Return its result.

        One that is cancelled before a worker has begun it never happens. One that a worker has begun is
        waited for, so that it has happened, or not, when the cancellation arrives.

        Args:
            queued: what a worker has to begin for it, if that is another call.
        """
        try:
            if not self.is_done:
                self._future = self._loop.create_future()
                await self._future
        except BaseException as error:
            if (queued or self).claim():
                (queued or self).wake()
                raise
            if isinstance(error, GeneratorExit):  # nothing may be waited for
                raise
            while not self.is_done and not self.was_forked():
                self._future = self._loop.create_future()
                with contextlib.suppress(asyncio.CancelledError):
                    await self._future
            raise
        return self.outcome()

    def when_done(self, do: Callable[[], None]) -> None:
        """Let the loop call a function after its end."""
        self._future = self._loop.create_future()
        self._future.add_done_callback(lambda _: do())

    def outcome(self) -> Any:
        """Return or raise what it has returned or raised."""
        if self.error is not None:
            try:
                raise self.error
            finally:
                self.error = None  # which would hold this frame, and the frame holds it
        return self.result


_Inbox = SimpleQueue[object]
# After so many seconds in which no call was taken or done, another thread helps.
_SOON = 0.005
# While others wait, the results of so many calls are delivered together, at most _SOON late.
_TOGETHER = 32


class _Queue(deque[Call]):
    """Calls that wait for a thread.

    Attributes:
        moved: when a thread took or had done one, by the loop's clock.
        running: those that threads have taken and not done.
    """

    def __init__(self) -> None:
        super().__init__()
        self.moved = 0.0
        self.running: list[Call] = []

    def is_moving(self) -> bool:
        """Return whether a thread is doing one that ends by itself."""
        return any(call.ends_by_itself() for call in tuple(self.running))


class Workers:
    """The threads, started when there is something to do, and what waits for them.

    Attributes:
        loop: whose calls they do.
        is_closed: whether no call is taken any more.
        on_end: called in the last thread that ends.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.is_closed = False
        self.on_end: Callable[[], None] = lambda: None
        self._process = _process
        self._most = 1
        self._patience = 0.0
        self._threads: list[threading.Thread] = []
        self._inboxes: list[_Inbox] = []
        self._idle: deque[_Inbox] = deque()
        self._calls = _Queue()
        # Where fewer may write than there are threads, calls that write wait by themselves, for a permit.
        self._writes = self._calls
        self._permits: deque[None] = deque()
        self._finished: deque[Call] = deque()
        self._is_told = False
        self._ended = asyncio.Event()
        self._watch: asyncio.TimerHandle | None = None
        self._soon: asyncio.TimerHandle | None = None

    def allow(self, threads: int, writers: int, timeout: float) -> None:
        """Say how many threads there may be, how many may write, and for how many seconds a call may wait."""
        self._most, self._patience = threads, max(timeout, 0.1)
        if writers < threads:
            self._permits.extend([None] * writers)
            self._writes = _Queue()

    def was_forked(self) -> bool:
        """Return whether this process is a child of the one that made them, where none of them runs."""
        return self._process != _process

    # In the loop

    def submit(self, call: Call) -> None:
        """Give a call to a thread, or let it wait for one.

        Raises:
            StorageClosed: it is too late.
        """
        if self.is_closed:
            raise StorageClosed(CLOSED)
        call.since = self.loop.time()
        (self._writes if call.writes else self._calls).append(call)
        if self._watch is None and 0 < self._patience < math.inf:
            self._watch = self.loop.call_later(self._patience, self._look)
        self._begin()

    def _begin(self) -> None:
        """Let a thread look for a call, if none is about to.

        Python runs one thread at a time, so a second one makes short calls slower. It helps where the first
        waits for a lock or a disk.
        """
        if self._soon is None:
            self._soon = self.loop.call_later(_SOON, self._help)
        in_blocks = sum(call.first is not None for call in self._writes.running)
        if len(self._threads) - len(self._idle) <= in_blocks:
            self._wake_one()

    def _help(self) -> None:
        """Wake one more thread if no call has been taken or done for a moment; look again if some wait."""
        self._soon = None
        if self._calls or (self._writes and self._permits):
            if self.loop.time() - max(self._calls.moved, self._writes.moved) >= _SOON:
                self._wake_one()
            self._soon = self.loop.call_later(_SOON, self._help)
        self._deliver()  # after the look: what a thread had done before it took the last one

    def _wake_one(self) -> None:
        try:
            self._idle.pop().put(None)
        except IndexError:
            if len(self._threads) < self._most:
                inbox = _Inbox()
                # A daemon: a storage that nobody closes must not keep the interpreter from ending.
                thread = threading.Thread(target=self._work, args=[inbox], name="storage", daemon=True)
                thread.start()
                self._threads.append(thread)
                self._inboxes.append(inbox)

    def _is_moving(self, queue: _Queue) -> bool:
        return queue.is_moving()

    def _look(self) -> None:
        """Refuse what has waited for too long while its queue did not move; look again when the next has."""
        self._watch = None
        now, later = self.loop.time(), []
        for queue in (self._calls, self._writes):
            if self._is_moving(queue):
                queue.moved = now
            for call in tuple(queue):
                until = max(call.since, queue.moved) + self._patience
                if until > now:
                    later.append(until)
                    continue
                call.refuse(
                    DatabaseBusy(
                        f"no connection was free for {self._patience:g} seconds, because other tasks used "
                        "all connections or kept a transaction() open: end blocks before they await "
                        "something slow"
                    )
                )
        if later:
            self._watch = self.loop.call_at(min(later), self._look)

    def stop(self) -> None:
        """Let no call begin any more, and each thread end when it has done what it is doing."""
        self.is_closed = True
        if self.was_forked():
            return
        self._let_end()
        for call in (*self._calls, *self._writes):
            call.refuse(StorageClosed(CLOSED))

    def _let_end(self) -> None:
        for inbox in tuple(self._inboxes):
            inbox.put(self)
        if not self._inboxes:
            self._ended.set()

    async def join(self) -> None:
        """Wait until all threads have ended."""
        for timer in (self._watch, self._soon):
            if timer is not None:
                timer.cancel()
        cancelled = None
        while not self._ended.is_set() and not self.was_forked():
            try:
                await self._ended.wait()
            except asyncio.CancelledError as error:
                cancelled = error
        for thread in self._threads:
            thread.join()  # it has said that it ends
        if cancelled is not None:
            raise cancelled

    def _deliver(self) -> None:
        self._is_told = False  # before it looks: a thread that finishes later tells again
        with contextlib.suppress(IndexError):
            while True:
                self._finished.popleft().wake()

    def in_thread(self, do: Callable[[], Any]) -> Callable[[], Any]:
        """Return a call that keeps no loop waiting, whatever it does."""
        return do

    def inbox(self) -> Any:
        """Return what leads to a call that takes items until it ends."""
        return SimpleQueue()

    def send(self, inbox: Any, item: Any, *, now: bool = True) -> None:  # noqa: ARG002 - for other workers
        """Send such a call an item.

        Args:
            inbox: leads to it.
            item: what it takes.
            now: whether it may run before this returns; not in a finalizer.
        """
        inbox.put(item)

    # In the threads

    def receive(self, inbox: Any) -> Any:
        """Return the next item that is put there; None if the loop is closed, so that there may be none."""
        while True:
            try:
                return inbox.get(timeout=0.25)
            except Empty:
                if self.stop_without_loop():
                    return None

    def finish(self, call: Call) -> None:
        """Tell the loop of the end of a call."""
        self._finished.append(call)
        self._tell()

    def _tell(self) -> None:
        if self._finished and not self._is_told:
            self._is_told = True
            self._call_soon(self._deliver)

    def _call_soon(self, call: Callable[[], None]) -> None:
        try:
            self.loop.call_soon_threadsafe(call)
        except RuntimeError:
            self.stop_without_loop()

    def stop_without_loop(self) -> bool:
        """Let the threads end if the loop is closed, so that nobody waits for them; return whether it is."""
        if self.loop.is_closed():
            self._finished.clear()
            with contextlib.suppress(RuntimeError):  # of a future that nobody can wait for any more
                self.stop()
        return self.loop.is_closed()

    def _take(self) -> Call | None:
        while self._permits and self._writes:
            try:
                self._permits.pop()
            except IndexError:  # another thread was quicker
                break
            try:
                return self._first_of(self._writes)
            except IndexError:  # another thread was quicker; one more may have come, and found no permit
                self._permits.append(None)
        try:
            return self._first_of(self._calls)
        except IndexError:
            return None

    def _first_of(self, queue: _Queue) -> Call:
        call = queue.popleft()
        queue.running.append(call)
        queue.moved = self.loop.time()
        return call

    def _do(self, call: Call) -> None:
        call.run()
        queue = self._writes if call.writes else self._calls
        queue.moved = self.loop.time()
        queue.running.remove(call)
        if call.writes and self._writes is not self._calls:
            self._permits.append(None)

    def _work(self, inbox: _Inbox) -> None:
        while True:
            call = self._take()
            if call is not None:
                if len(self._finished) >= _TOGETHER:
                    self._tell()
                self._do(call)
                self._finished.append(call)
                continue
            self._idle.append(inbox)  # before the loop hears of the last call, and makes the next
            self._tell()
            if self._calls or (self._writes and self._permits):  # who made it may have seen nobody idle
                with contextlib.suppress(ValueError):  # or has woken this one
                    self._idle.remove(inbox)
                    continue
            if inbox.get() is not None:
                break
        self._inboxes.remove(inbox)
        if not self._inboxes:
            try:
                self.on_end()
            finally:
                self._call_soon(self._ended.set)


def _after_fork_in_child() -> None:
    global _process  # noqa: PLW0603 - there is one process
    _process = os.getpid()


if hasattr(os, "register_at_fork"):  # Windows has no fork
    os.register_at_fork(after_in_child=_after_fork_in_child)
