"""The storage for asyncio: the methods of PatternStorage as coroutines.

>>> async with open_storage("RexVoice.db") as storage:
...     await storage.save_pattern(7, "tilt", "after_bad_beat", {"bets_up": 1.8})
...     async with storage.transaction() as block:
...         await block.save_insight(7, "advice", "Stop after two lost buy-ins.")

On SQLite a few threads of the storage's own run the calls, each with a connection, so that no call blocks the
event loop. On PostgreSQL calls run in the event loop, and wait there for the server.
"""

import asyncio
import contextlib
import functools
import os
import sys
import weakref
from collections.abc import Awaitable, Callable, Coroutine, Generator
from pathlib import Path
from types import TracebackType
from typing import Any, Concatenate, ParamSpec, Self, TypeVar

from poker_therapist.compat import override
from poker_therapist.database import Database
from poker_therapist.errors import PokerTherapistError, StorageClosed, StorageError
from poker_therapist.location import OnConnect
from poker_therapist.ownership import FAILED, current_task, left_elsewhere
from poker_therapist.places import Place, around, innermost
from poker_therapist.serving import End, Line, serve
from poker_therapist.storage import PatternStorage
from poker_therapist.workers import CLOSED, Call, Workers

_P = ParamSpec("_P")
_R = TypeVar("_R")
_Method = Callable[Concatenate[PatternStorage, _P], _R]
_Coroutine = Callable[Concatenate["_Methods", _P], Coroutine[Any, Any, _R]]


def _reading(method: _Method[_P, _R], *, writes: bool = False, is_long: bool = False) -> _Coroutine[_P, _R]:
    """Return a method of the storage as a coroutine.

    Args:
        method: of the storage.
        writes: whether it writes. On SQLite one call writes at a time, and the others wait in the loop.
        is_long: whether it may calculate for long, with whatever limit.
    """
    limits = _limits_of(method)

    @functools.wraps(method)
    async def call(self: "_Methods", /, *args: _P.args, **kwargs: _P.kwargs) -> _R:
        do = functools.partial(method, self._opened(), *args, **kwargs)
        given = (kwargs.get(name, args[at] if at < len(args) else default) for name, at, default in limits)
        may_be_long = is_long or any(not isinstance(limit, int) or limit > _MANY for limit in given)
        result: _R = await self._run(do, writes, may_be_long)
        return result

    return call


def _limits_of(method: Any) -> list[tuple[str, int, Any]]:
    """Return the parameters of a method that are limits: the name, the position and the default of each."""
    named = method.__code__.co_varnames[1 : method.__code__.co_argcount]
    defaults = dict(zip(reversed(named), reversed(method.__defaults__ or ()), strict=False))
    found = [(name, at, defaults.get(name)) for at, name in enumerate(named)]
    found += [(name, sys.maxsize, default) for name, default in (method.__kwdefaults__ or {}).items()]
    return [limit for limit in found if limit[0].endswith("limit")]


_writing = functools.partial(_reading, writes=True)
# Making values of so many rows keeps a loop waiting for a few milliseconds.
_MANY = 1000


class _Methods:
    """What a storage and a block of it have in common."""

    save_pattern = _writing(PatternStorage.save_pattern)
    save_patterns = _writing(PatternStorage.save_patterns, is_long=True)
    get_pattern = _reading(PatternStorage.get_pattern)
    get_pattern_record = _reading(PatternStorage.get_pattern_record)
    get_patterns_by_type = _reading(PatternStorage.get_patterns_by_type, is_long=True)
    list_pattern_types = _reading(PatternStorage.list_pattern_types)
    set_confidence = _writing(PatternStorage.set_confidence)
    delete_pattern = _writing(PatternStorage.delete_pattern)
    clear_user_patterns = _writing(PatternStorage.clear_user_patterns)
    save_context = _writing(PatternStorage.save_context)
    save_contexts = _writing(PatternStorage.save_contexts, is_long=True)
    get_context = _reading(PatternStorage.get_context)
    get_context_items = _reading(PatternStorage.get_context_items)
    list_sessions = _reading(PatternStorage.list_sessions)
    delete_context = _writing(PatternStorage.delete_context)
    clear_user_context = _writing(PatternStorage.clear_user_context)
    purge_expired = _writing(PatternStorage.purge_expired, is_long=True)
    save_insight = _writing(PatternStorage.save_insight)
    get_insights = _reading(PatternStorage.get_insights)
    get_foremost_insights = _reading(PatternStorage.get_foremost_insights)
    delete_insight = _writing(PatternStorage.delete_insight)
    clear_user_insights = _writing(PatternStorage.clear_user_insights)
    recall = _reading(PatternStorage.recall)
    list_users = _reading(PatternStorage.list_users)
    count = _reading(PatternStorage.count)
    export_user = _reading(PatternStorage.export_user, is_long=True)
    forget_user = _writing(PatternStorage.forget_user, is_long=True)
    forget_users = _writing(PatternStorage.forget_users, is_long=True)

    def _opened(self) -> PatternStorage:
        """Return the synchronous storage, which workers use."""
        raise NotImplementedError

    def _run(self, do: Callable[[], Any], writes: bool, is_long: bool) -> Awaitable[Any]:
        """Let a worker do a call; return what gives its result."""
        raise NotImplementedError


_USE_BLOCK = (
    "use the `block` of `async with storage.transaction() as block`. (On Python 3.11 asyncio.wait_for() "
    "starts a task; asyncio.timeout() does not)"
)
_NOT_OPEN = "the storage is not open: `async with open_storage(...) as storage` opens it"


class AsyncPatternStorage(_Methods):
    """A storage whose methods are coroutines; PatternStorage says what each does.

    Any number of tasks may use it at once, in the event loop that opened it. A call that is cancelled either
    never happens, or has begun and is waited for: when the cancellation arrives nothing is open any more.
    Another thread may read what a call is given: leave it unchanged until the call returns.
    """

    def __init__(self, open_sync: Callable[[], PatternStorage]) -> None:
        self._open_sync = open_sync
        self._workers: Workers | None = None
        self._storage: PatternStorage | None = None
        self._blocks: weakref.WeakSet[AsyncTransaction] = weakref.WeakSet()

    async def _open(self) -> Self:
        if self._workers is None:
            self._workers = workers = Workers(asyncio.get_running_loop())
            weakref.finalize(self, workers.stop).atexit = False
            call = Call(workers.loop, functools.partial(_open, workers, self._open_sync))
            workers.submit(call)
            try:
                storage: PatternStorage = await call.wait()
            except BaseException as error:
                workers.stop()
                if not isinstance(error, GeneratorExit):  # in which nothing may be awaited
                    await workers.join()
                self._workers = None  # it may be opened again
                raise
            self._workers, self._storage = self._begin(workers, storage._database), storage
        elif self._storage is None:
            raise StorageError("another task is already opening this storage: open it once and share it")
        elif self._usable().is_closed:
            raise StorageClosed(CLOSED)
        return self

    def _begin(self, workers: Workers, database: Database) -> Workers:
        """Return what does the calls: fibers, where the engine and the loop allow it, or else the threads."""
        if database.can_pause:
            with contextlib.suppress(ModuleNotFoundError):  # who installed psycopg alone has no greenlet
                from poker_therapist.fibers import Fibers

                if Fibers.can_serve(workers.loop):
                    workers = Fibers(workers)
                    weakref.finalize(self, workers.stop).atexit = False
        workers.allow(database.threads, database.writers, database.location.timeout)
        return workers

    def __await__(self) -> Generator[Any, None, Self]:
        return self._open().__await__()

    async def __aenter__(self) -> Self:
        return await self._open()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._workers is None or not self._workers.was_forked():  # a child leaves it to its parent
            await self.close()

    @property
    def db_path(self) -> Path | str:
        """The path of the file as it was given, or the URL of the server's database without a password."""
        return self._opened().db_path

    def __repr__(self) -> str:
        return f"<AsyncPatternStorage of {self._storage}>"

    def transaction(self) -> "AsyncTransaction":
        """Run a block as one transaction: `async with storage.transaction() as block`.

        It is as `PatternStorage.transaction`, and belongs to the task that began it: all that this task
        calls meanwhile is in the block, of `block` and of the storage alike. Other tasks go on beside it, and
        do not see it. A task that was started inside the block may use `block`, and until the block has ended
        nothing else of this storage. A block that is cancelled is rolled back, as one that raises.
        """
        return AsyncTransaction(self)

    async def close(self) -> None:
        """Cancel calls that have not begun, roll back open blocks, wait for running calls, and close.

        A second call does nothing.
        """
        if (workers := self._workers) is None:
            return
        self._require_loop(workers)
        for block in tuple(self._blocks):
            with contextlib.suppress(StorageError):  # of a block that another thread has begun
                block.end(commit=False)
        workers.stop()
        await workers.join()

    def _require_loop(self, workers: Workers) -> None:
        if asyncio._get_running_loop() is not workers.loop:  # a forked child has none until it makes its own
            raise StorageError(
                "this storage belongs to the event loop that opened it: call open_storage() again in this "
                "loop, thread or process"
            )

    def _usable(self) -> Workers:
        """Return the workers; refuse another loop than theirs."""
        if self._workers is None:
            raise StorageClosed(_NOT_OPEN)
        self._require_loop(self._workers)
        return self._workers

    @override
    def _opened(self) -> PatternStorage:
        if self._storage is None:
            raise StorageClosed(_NOT_OPEN)
        return self._storage

    @override
    def _run(self, do: Callable[[], Any], writes: bool, is_long: bool) -> Awaitable[Any]:
        workers = self._usable()
        if (place := innermost.get()) is not None:
            if (task := place.undone_of()) is not None and task is current_task():
                place.undone_of = lambda: None
                raise StorageError(
                    "another task has ended a transaction() of this task, as asyncio does with a generator "
                    "after a break: it was rolled back, so save again"
                )
            if (block := self._current()) is not None:
                return block._run_for_storage(do, writes)
        call = Call(workers.loop, workers.in_thread(do) if is_long else do, writes=writes)
        workers.submit(call)
        return call.wait()

    def _current(self, advice: str = _USE_BLOCK) -> "AsyncTransaction | None":
        """Return the block of this storage that the running task is in.

        Raises:
            StorageError: it is in none, but was started inside one that another task goes on with.
        """
        for place in around():
            block: AsyncTransaction | None = place.block()
            if block is not None and block.storage is self:
                if block.owner() is current_task():
                    return block
                raise StorageError(
                    "this task was started inside an open transaction() of another task, but this call would "
                    f"not be part of it: {advice}"
                )
        return None


def open_storage(
    db_path: str | os.PathLike[str] = "RexVoice.db",
    *,
    migrate: bool = True,
    on_connect: OnConnect | None = None,
) -> AsyncPatternStorage:
    """Return a storage that `async with` opens and closes, or `await` opens and `close` closes.

    The arguments are those of `PatternStorage`. A thread of the storage's own opens and migrates it, and
    calls `on_connect`.
    """
    return AsyncPatternStorage(
        functools.partial(PatternStorage, db_path, migrate=migrate, on_connect=on_connect)
    )


def _open(workers: Workers, open_sync: Callable[[], PatternStorage]) -> PatternStorage:
    """Open the synchronous storage, in a worker; the last one to end closes it."""
    storage = open_sync()
    workers.on_end = storage.close
    return storage


# So many turns of the loop asyncio needs to close a generator that a `break` has left.
_TURNS = 2


class AsyncTransaction(_Methods):
    """What a block may use: one worker does its calls, in the order in which they are made.

    Attributes:
        storage: the storage.
        owner: returns the task that began it.
    """

    def __init__(self, storage: AsyncPatternStorage) -> None:
        self.storage = storage
        self.owner: Callable[[], asyncio.Task[Any] | None] = lambda: None
        self._line: Line
        self._depth = 1
        self._place: Place | None = None

    @property
    def is_over(self) -> bool:
        """Whether nothing may be done in it: before it has begun, and as soon as its end has."""
        return self._place is None or self._place.is_over

    def transaction(self) -> "AsyncTransaction":
        """Make a part of the block, which is rolled back by itself when it raises."""
        self._require()
        return AsyncTransaction(self.storage)

    async def __aenter__(self) -> Self:
        storage, workers, task = self.storage, self.storage._usable(), current_task()
        if self._place is not None or task is None:
            raise StorageError(
                "a transaction() can be begun only once, and only by a task: call transaction() again"
            )
        outer = storage._current(
            "begin the nested block in the task that began the transaction, or after its end"
        )
        if outer is not None:
            self._line, self._depth = outer._line, outer._depth + 1
        else:
            self._line = Line(workers)
        begun = Call(workers.loop)
        do = functools.partial(
            serve, workers, storage._opened().transaction, self._line.inbox, begun, self._depth
        )
        self._call = Call(workers.loop, do, writes=True, first=begun)
        if outer is not None:
            self._line.send(self._call)
        else:
            workers.submit(self._call)
            storage._blocks.add(self)
        self.owner = weakref.ref(task)
        part_of = None if outer is None else outer._place
        self._place = Place(weakref.ref(self), next(around(), None), part_of)
        self._line.depth = self._depth
        innermost.set(self._place)
        try:
            await begun.wait(self._call)
        except BaseException as error:
            await self._leave(error)
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._leave(error)

    async def _leave(self, error: BaseException | None) -> None:
        was_over, is_here = self.is_over, self.owner() is current_task()
        if self._place is not None and self._place.has_saves and not was_over and not is_here:
            self._place.undone_of = self.owner
        self.end(commit=error is None and is_here, now=not isinstance(error, GeneratorExit))
        next(around(), None)  # takes it out
        # Nothing may be awaited; or this is a forked child, which has no worker and may not end the block.
        if isinstance(error, GeneratorExit) or self._call.was_forked():
            return
        try:
            await self._call.wait()
        except PokerTherapistError:
            if error is None and not was_over:
                raise
        if error is None and was_over:
            raise self._undone()
        if error is None and not is_here:
            raise left_elsewhere()

    def end(self, *, commit: bool, now: bool = True) -> None:
        """Let the worker end the block, with all of its parts, unless it has ended."""
        if self._place is not None and not self._place.is_over:
            self._place.ending = commit
            self._line.depth = self._depth - 1
            self._line.send(End(self._depth, commit=commit), now=now)

    def __del__(self) -> None:
        """Roll back what nobody can end any more."""
        self.end(commit=False, now=False)

    @override
    def _opened(self) -> PatternStorage:
        return self.storage._opened()

    async def _run_for_storage(self, do: Callable[[], Any], writes: bool) -> Any:
        """Do a call of the storage's in the block, and return its result."""
        result = await self._run(do, writes, False)
        if self._place is not None and writes:
            self._place.has_saves = True
        return result

    @override
    async def _run(self, do: Callable[[], Any], writes: bool, is_long: bool) -> Any:
        self._require()
        call = Call(self.storage._usable().loop, do)
        self._line.send(call)
        for _ in range(_TURNS if writes and call.is_done else 0):
            await asyncio.sleep(0)
        result = await call.wait()
        # A generator that a `break` has left, say, is closed by a task of asyncio's while the call runs.
        if writes and self._place is not None and self._place.was_undone:
            raise self._undone()
        return result

    def _undone(self) -> StorageError:
        return StorageClosed(CLOSED) if self.storage._usable().is_closed else StorageError(FAILED)

    def _require(self) -> None:
        """Refuse a task that is neither the owner nor started in this very block."""
        if self.storage._usable().is_closed:
            raise StorageClosed(CLOSED)
        if self.is_over:
            raise StorageError("this transaction() has ended or has not begun: begin a new one")
        if self.owner() is current_task():
            return
        if self._line.depth != self._depth or all(place is not self._place for place in around()):
            raise StorageError(
                "this transaction() belongs to another task, or that task is in a nested block: begin a "
                "transaction in this task with `async with storage.transaction() as block`"
            )
