"""Fibers, which do the calls of an event loop in the loop's own thread.

A fiber is a greenlet that runs the synchronous code of the storage. Where that code would wait for the
server, the fiber is paused until the socket is ready, and the loop goes on. So a call costs no change of
threads. Opening a connection, and what calculates for long, is done in a thread on behalf of the fiber.
"""

import asyncio
import functools
import math
import select
import socket
import threading
from collections import deque
from collections.abc import Callable
from typing import Any, TypeVar

from greenlet import GreenletExit, getcurrent, greenlet

from poker_therapist.compat import override
from poker_therapist.errors import StorageError
from poker_therapist.ownership import Silent, current_fiber, fiber_of_context
from poker_therapist.workers import Call, Workers

_Result = TypeVar("_Result")
# As psycopg numbers what its generators wait for, and what is ready then.
_READ, _WRITE = 1, 2


class Inbox(deque[Any]):
    """What is sent to a fiber.

    Attributes:
        reader: the fiber that is paused until something is sent.
    """

    reader: "_Fiber | None" = None


class _Fiber(greenlet):
    """A fiber; see `ownership.Fiber`.

    Attributes:
        call: what it does; None while it rests.
        thread: the thread that it belongs to.
        pauses: how often it has been paused.
        until: when the socket that it waits for has to be ready at the latest, by the loop's clock.
    """

    until = math.inf

    def __init__(self, fibers: "Fibers") -> None:
        super().__init__(fibers.work)
        self._fibers = fibers
        self.thread = threading.get_ident()
        self.pauses = 0
        self.call: Call | None = None

    def is_running(self) -> bool:
        """See `ownership.Fiber`."""
        return getcurrent() is self

    def give_up(self) -> None:
        """Go on with the fiber, whose socket was not ready in time."""
        self.resume(self.pauses, 0)

    def resume(self, pause: int, item: Any = None) -> None:
        """Go on with the fiber, with an item, if it is still in that pause."""
        if pause == self.pauses and not self.dead:
            self._fibers.require_thread(self)
            self.parent = getcurrent()  # a pause returns there
            self.switch(item)

    def end(self) -> None:
        """Raise GreenletExit in the fiber, which closes its connection."""
        self.parent = getcurrent()
        self.throw()

    def pause(self) -> Any:
        """Let the loop go on; return the item with which the fiber is resumed."""
        self._fibers.require_loop()
        try:
            return self.parent.switch()  # type: ignore[union-attr]  # `resume` has set it
        finally:
            self.pauses += 1

    def wait(self, generator: Any, socket: int, timeout: float) -> Any:
        """See `ownership.Fiber`."""
        self._fibers.require_loop()
        try:
            state = next(generator)
            while True:
                state = generator.send(self._until_ready(socket, state, timeout))
        except StopIteration as stop:
            return stop.value

    def _until_ready(self, socket: int, state: int, timeout: float) -> int:
        loop, number = self._fibers.loop, self.pauses
        self.until = until = loop.time() + timeout
        self._fibers.watch_until(until)
        self._fibers.sockets.watch(socket, state, functools.partial(self.resume, number))
        try:
            ready: int = self.pause()
        finally:
            self.until = math.inf
            self._fibers.sockets.forget(socket, state)
        if not ready:
            raise Silent
        return ready

    def in_thread(self, do: Callable[[], _Result]) -> _Result:
        """See `ownership.Fiber`."""
        self._fibers.require_loop()
        call, number = Call(self._fibers.loop, do), self.pauses
        call.when_done(lambda: self.resume(number))
        self._fibers.threads.submit(call)
        self.pause()
        result: _Result = call.outcome()
        return result


class _Sockets:
    """The sockets that fibers wait for, watched by the loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop

    def watch(self, socket: int, state: int, resume: Callable[[int], None]) -> None:
        """Call a function, once, when a socket is ready."""
        if state & _READ:
            self._loop.add_reader(socket, resume, _READ)
        if state & _WRITE:
            self._loop.add_writer(socket, resume, _WRITE)

    def forget(self, socket: int, state: int) -> None:
        """Watch it no more."""
        if not self._loop.is_closed():
            if state & _READ:
                self._loop.remove_reader(socket)
            if state & _WRITE:
                self._loop.remove_writer(socket)

    def close(self) -> None:
        """Watch none any more."""


class _PolledSockets(_Sockets):
    """The same where there is epoll, for a third of the time.

    The loop watches one epoll object, which watches the sockets. A socket that is closed leaves it by itself,
    or is reported once more, which has no effect: so it does not matter when libpq closes one.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop)
        self._epoll = select.epoll()
        self._resume: dict[int, Callable[[int], None]] = {}
        self._ready: list[tuple[int, int]] = []
        loop.add_reader(self._epoll.fileno(), self._look)

    @override
    def watch(self, socket: int, state: int, resume: Callable[[int], None]) -> None:
        if state != _READ:
            super().watch(socket, state, resume)
            return
        self._resume[socket] = resume
        try:
            self._epoll.modify(socket, select.EPOLLIN | select.EPOLLONESHOT)
        except FileNotFoundError:
            self._epoll.register(socket, select.EPOLLIN | select.EPOLLONESHOT)

    def _look(self) -> None:
        self._ready += self._epoll.poll(0, 64)
        try:
            while self._ready:
                resume = self._resume.pop(self._ready.pop(0)[0], None)
                if resume is not None:
                    resume(_READ)
        finally:
            if self._ready:  # each is reported once
                self._loop.call_soon(self._look)

    @override
    def forget(self, socket: int, state: int) -> None:
        if state != _READ:
            super().forget(socket, state)
        else:
            self._resume.pop(socket, None)

    @override
    def close(self) -> None:
        if not self._epoll.closed:
            if not self._loop.is_closed():
                self._loop.remove_reader(self._epoll.fileno())
            self._epoll.close()


class Fibers(Workers):
    """The fibers, and what waits for them.

    Attributes:
        threads: do what a fiber cannot do without waiting, and close the storage.
        sockets: tell when one is ready.
    """

    def __init__(self, threads: Workers) -> None:
        super().__init__(threads.loop)
        self.threads = threads
        self._thread = threading.get_ident()
        self._running: set[_Fiber] = set()
        # Those that wait for a call: one more costs a mapping of memory.
        self._resting: list[_Fiber] = []
        self._is_abandoned = False
        self.sockets = (_PolledSockets if hasattr(select, "epoll") else _Sockets)(threads.loop)
        self._silence: asyncio.TimerHandle | None = None

    @staticmethod
    def can_serve(loop: asyncio.AbstractEventLoop) -> bool:
        """Return whether a loop can watch a socket; that of Windows, by default, cannot."""
        with socket.socket() as one:
            try:
                loop.remove_reader(one.fileno())
            except NotImplementedError:
                return False
        return True

    @override
    def allow(self, threads: int, writers: int, timeout: float) -> None:
        super().allow(threads, writers, timeout)
        self.threads.allow(threads, threads, math.inf)  # as each fiber asks for one at most, none waits there

    @override
    def in_thread(self, do: Callable[[], Any]) -> Callable[[], Any]:
        def call() -> Any:
            fiber = current_fiber()
            return do() if fiber is None else fiber.in_thread(do)

        return call

    def require_loop(self) -> None:
        """End the fiber that runs if nothing will resume it: after its loop, and in a forked child.

        Raises:
            GreenletExit: that is so.
        """
        if self._is_abandoned or self.loop.is_closed() or self.was_forked():
            raise GreenletExit

    def require_thread(self, fiber: _Fiber) -> None:
        """Refuse to go on with a fiber in another thread than its own.

        Raises:
            StorageError: another thread runs the loop now.
        """
        if threading.get_ident() != fiber.thread:
            self._running.discard(fiber)
            raise StorageError(
                "another thread runs the event loop now: end transactions in the thread that began them, and "
                "open the storage again"
            )

    @override
    def inbox(self) -> Inbox:
        return Inbox()

    @override
    def send(self, inbox: Any, item: Any, *, now: bool = True) -> None:
        inbox.append(item)
        if inbox.reader is None or self.was_forked():
            return
        if now and current_fiber() is None and asyncio._get_running_loop() is self.loop:
            self._deliver_to(inbox)
        else:
            self._call_soon(lambda: self._deliver_to(inbox))

    def _deliver_to(self, inbox: Inbox) -> None:
        if inbox and (reader := inbox.reader) is not None:
            inbox.reader = None
            reader.resume(reader.pauses)

    @override
    def receive(self, inbox: Any) -> Any:
        while not inbox:
            inbox.reader = fiber = getcurrent()
            fiber.pause()  # type: ignore[attr-defined]  # it is one of these
        return inbox.popleft()

    @override
    def finish(self, call: Call) -> None:
        call.wake()

    @override
    def submit(self, call: Call) -> None:
        if self._calls or self.is_closed or len(self._running) >= self._most:
            super().submit(call)
        else:
            self._start(call)

    @override
    def _begin(self) -> None:
        if len(self._running) < self._most:
            self._start(self._calls.popleft())

    def _start(self, call: Call) -> None:
        if threading.get_ident() != self._thread:  # which runs the loop from now on
            self._thread = threading.get_ident()
            self._resting.clear()
        fiber = self._resting.pop() if self._resting else _Fiber(self)
        fiber.call = call
        try:
            self._running.add(fiber)
            fiber.resume(fiber.pauses)
        except BaseException:  # a signal, which may have kept it from beginning
            if call.claim():
                self._running.discard(fiber)
            raise

    def work(self, _item: None) -> None:
        """Do calls, in a fiber, until none is taken any more."""
        fiber: Any = getcurrent()
        fiber_of_context.set(fiber)
        try:
            while True:
                call: Call = fiber.call
                call.run()
                self.require_loop()
                call.wake()
                if self._calls:
                    self._calls.moved = self.loop.time()
                    fiber.call = self._calls.popleft()
                    continue
                del call  # with what it was given and has returned
                fiber.call = None
                self._running.discard(fiber)
                if self.is_closed:
                    break
                self._resting.append(fiber)
                fiber.pause()
        finally:
            self._running.discard(fiber)
            if self.is_closed:
                self._let_end()

    @override
    def _is_moving(self, queue: Any) -> bool:
        return any(fiber.call is not None and fiber.call.ends_by_itself() for fiber in self._running)

    def watch_until(self, until: float) -> None:
        """Look then for fibers whose sockets have not been ready in time."""
        if self._silence is None or self._silence.when() > until:
            if self._silence is not None:
                self._silence.cancel()
            self._silence = self.loop.call_at(until, self._look_at_silence)

    def _look_at_silence(self) -> None:
        self._silence, now = None, self.loop.time()
        for fiber in [each for each in self._running if each.until <= now]:
            fiber.give_up()
        if (until := min((fiber.until for fiber in self._running), default=math.inf)) < math.inf:
            self.watch_until(until)

    @override
    def _let_end(self) -> None:
        if self.loop.is_closed() and not self._is_abandoned:
            self._is_abandoned = True
            if threading.get_ident() == self._thread:  # what belongs to another thread only that can end
                for fiber in tuple(self._running):
                    fiber.end()
        self._resting.clear()
        if self._is_abandoned or not self._running:
            self._ended.set()
            self.threads.stop()
            if self.loop.is_closed():
                self.sockets.close()
            else:
                self._call_soon(self.sockets.close)

    @override
    async def join(self) -> None:
        try:
            await super().join()
        finally:
            if self._silence is not None:
                self._silence.cancel()
            self.sockets.close()
            await self.threads.join()
