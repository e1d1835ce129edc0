"""The log of slow statements: the name of each query and how long it took, and never a value.

It is installed in a database that is opened with `?slow_ms=`, and costs nothing in any other.
"""

import functools
import logging
import time
from collections.abc import Callable
from typing import Any, TypeVar

from poker_therapist.database import Database

logger = logging.getLogger("poker_therapist")

_Returned = TypeVar("_Returned")

# What runs a query that it is given by its name.
_METHODS = ("fetch_all", "fetch_one", "execute", "execute_later", "execute_many")


def log_slow(database: Database, slow_ms: float) -> None:
    """Let a database log, as a warning, each statement that takes so many milliseconds or more.

    Waiting for a lock, a connection or the server is a part of it; what fails is logged, too. Queries of one
    snapshot, as those of `recall`, count together. What a transaction on PostgreSQL sends later counts where
    it is sent.
    """

    def timed(run: Callable[..., _Returned], name_of: Callable[[Any], str]) -> Callable[..., _Returned]:
        @functools.wraps(run)
        def run_and_log(query: Any, *values: Any) -> _Returned:
            start = time.perf_counter()
            try:
                return run(query, *values)
            finally:
                took = (time.perf_counter() - start) * 1000
                if took >= slow_ms:
                    logger.warning(
                        "slow statement: %s took %.1f ms (slow_ms is %g)", name_of(query), took, slow_ms
                    )

        return run_and_log

    for method in _METHODS:
        setattr(database, method, timed(getattr(database, method), str))
    together = timed(database.fetch_together, lambda calls: ", ".join(name for name, _ in calls))
    setattr(database, "fetch_together", together)  # noqa: B010  # mypy lets no method be assigned
