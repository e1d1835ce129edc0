"""The log of slow statements: the name of each query and how long it took, and never a value.

It is installed in a database that is opened with `?slow_ms=`, and costs nothing in any other.
"""

import functools
import logging
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, TypeVar

from poker_therapist.compat import override
from poker_therapist.database import Database, Mode
from poker_therapist.ownership import Block, Part, current_fiber

logger = logging.getLogger("poker_therapist")

_Returned = TypeVar("_Returned")

# What runs a query that it is given by its name.
_METHODS = ("fetch_all", "fetch_one", "execute", "execute_later", "execute_many")


def log_slow(database: Database, slow_ms: float) -> None:
    """Let a database log, as a warning, each statement that takes so many milliseconds or more.

    Waiting for a lock, a connection or the server is a part of it; what fails is logged, too. Queries of one
    snapshot, as those of `recall`, count together. What a transaction on PostgreSQL sends later counts where
    it is sent, at the latest in its COMMIT.
    """
    thread = threading.local()

    def timed(run: Callable[..., _Returned], name_of: Callable[[Any], str]) -> Callable[..., _Returned]:
        @functools.wraps(run)
        def run_and_log(query: Any, *values: Any) -> _Returned:
            here: Any = current_fiber() or thread
            if getattr(here, "is_timed", False):  # a part of what is timed already
                return run(query, *values)
            here.is_timed = True
            start = time.perf_counter()
            try:
                return run(query, *values)
            finally:
                here.is_timed = False
                took = (time.perf_counter() - start) * 1000
                if took >= slow_ms:
                    logger.warning(
                        "slow statement: %s took %.1f ms (slow_ms is %g)", name_of(query), took, slow_ms
                    )

        return run_and_log

    def transaction(mode: Mode) -> AbstractContextManager[None]:
        block = begin_block(mode)
        return Block(lambda: _TimedPart(block.make(), timed)) if isinstance(block, Block) else block

    begin_block = database.transaction
    for method in _METHODS:
        setattr(database, method, timed(getattr(database, method), str))
    own = {
        "fetch_together": timed(database.fetch_together, lambda calls: ", ".join(name for name, _ in calls)),
        "lock_players": timed(database.lock_players, lambda _: "lock_players"),
        "transaction": transaction,
    }
    for method, run in own.items():
        setattr(database, method, run)


_Timed = Callable[[Callable[..., None], Callable[[Any], str]], Callable[..., None]]


class _TimedPart(Part):
    """A timed part: it begins and ends a transaction, or a savepoint, and alone refers to the other part."""

    def __init__(self, part: Part, timed: _Timed) -> None:
        self._part = part
        self._timed = timed

    @override
    def begin(self) -> None:
        self._timed(lambda _: self._part.begin(), str)("BEGIN")

    @override
    def end(self, error: BaseException | None) -> None:
        self._timed(lambda _: self._part.end(error), str)("COMMIT" if error is None else "ROLLBACK")

    @override
    def abandon(self) -> None:
        self._part.abandon()
