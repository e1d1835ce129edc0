"""A pool of connections to one PostgreSQL database, which opens them in the thread that wants one.

psycopg's own pool opens them in threads of its own: those are gone in a forked child, and Python warns of a
fork while there are any. After an outage it waits for up to minutes before it looks for the server again, it
does not say why there is no connection, and it takes a fifth of the time of a short read.

A signal can arrive between any two steps, and in a finalizer. So nothing counts the connections in use:
whoever wants one has a lease, the leases stand in a list by weak references, and the first of those that are
still there may have one. Instead of a lock, which a signal could leave locked, there are lists and queues
whose methods are atomic.
"""

import contextlib
import functools
import os
import select
import time
import weakref
from collections import deque
from queue import Empty, SimpleQueue
from typing import Any

import psycopg
from psycopg import pq

from poker_therapist.compat import override
from poker_therapist.database import CLOSED
from poker_therapist.errors import DatabaseBusy, StorageClosed, counted
from poker_therapist.location import PostgreSQLLocation
from poker_therapist.ownership import current_fiber
from poker_therapist.postgresql.connect import (
    Settings,
    WatchedConnection,
    connect,
    settings_as_sql,
    settings_of,
)
from poker_therapist.postgresql.home import Home

# Each query has an index that holds its rows in their order, so one plan is right for all players, and the
# server need not think again at every call: reading the newest 20 takes half the time. What it must not do is
# keep for ever the plan that it made while a table was empty.
_BY_INDEX: Settings = (
    ("enable_seqscan", "off"),
    ("enable_bitmapscan", "off"),
    ("enable_sort", "off"),
    # The purge is to look up a few ids, not to read all that the player has.
    ("enable_hashjoin", "off"),
    ("enable_mergejoin", "off"),
)
_PLAN_ONCE: Settings = (("plan_cache_mode", "force_generic_plan"),)


def _settings(home: Home) -> Settings:
    """Return the settings of a session of the pool; Citus cannot send on a plan for all players."""
    return _BY_INDEX + (() if home.is_distributed else _PLAN_ONCE)


# Who waits for a connection is woken when one is free. Where a signal prevents that, this many seconds pass.
_LOOK_AGAIN = 0.1


class Lease:
    """The use of one connection of a pool, from its acquisition to its end.

    Attributes:
        connection: the connection; None before it is acquired and after it is released.
        is_over: true when others may have the place of this one.
        wake: a queue that tells it to look again; None unless it waits.
    """

    connection: "Connection | None" = None  # also where a signal arrives in __init__

    def __init__(self, pool: "Pool") -> None:
        self._pool = pool
        self._process = os.getpid()
        self.is_over = False
        self.wake: SimpleQueue[None] | None = None
        self.reference = weakref.ref(self)

    def acquire(self) -> "Connection":
        """Return a connection for this lease; see `Pool.acquire`. Where it raises, `discard` follows."""
        return self._pool.acquire(self)

    def release(self) -> None:
        """Let others have the connection; one that is lost, or inside a transaction, is closed instead."""
        connection = self.connection
        if connection is not None and self._process != os.getpid():  # a child leaves it to its parent
            self.connection = None
        elif connection is not None:
            if connection.is_usable() and not self._pool.closed:
                idle = self._pool.idle
                self.connection = None  # no signal can arrive between this and the next
                idle.append(connection)
                if self._pool.closed:  # by another thread, meanwhile
                    connection.close()
            else:
                connection.close()
                self.connection = None
        self.is_over = True
        self._pool.end(self)

    def discard(self) -> None:
        """Close the connection, whatever it is doing; the server rolls its transaction back."""
        if self.connection is not None:
            if self._process == os.getpid():
                self.connection.close()
            self.connection = None
        self.is_over = True
        self._pool.end(self)

    def __del__(self) -> None:
        """Close the connection of a lease that nobody holds any more, unless it is the parent process's."""
        if self.connection is not None:
            self.discard()


class Connection(WatchedConnection):
    """A connection of the pool, with the one cursor that all of its statements use.

    Attributes:
        kept_cursor: the cursor.
    """

    kept_cursor: "psycopg.RawCursor[Any]"
    _is_set_up = False
    _settings = ""

    def set_up(self) -> None:
        """Make the cursor, which has to be after the connection's adapters."""
        if self.location and self.home and self.location.pooler == "transaction":
            self._settings = settings_as_sql("SET LOCAL", settings_of(self.location) + _settings(self.home))
        self.kept_cursor = psycopg.RawCursor(self)
        if hasattr(select, "poll"):
            self._poll = select.poll()
            self._poll.register(self.pgconn.socket, select.POLLIN)
        self._is_set_up = True

    @property
    def is_pooled(self) -> bool:
        """Whether another session may serve each transaction."""
        return bool(self._settings)

    def begin(self, how: str, *, sees: bool = True) -> None:
        """Begin a transaction, which has the settings of a session of ours.

        Args:
            how: the statement.
            sees: whether it may have its snapshot now.
        """
        if not self._settings:
            self.kept_cursor.execute(how)
            return
        asked = "; SELECT pg_catalog.pg_backend_pid()" if sees else ""
        self.kept_cursor.execute(f"{how}; {self._settings}{asked}")
        while self.kept_cursor.nextset():
            pass
        self.served_by = self.kept_cursor.fetchone()[0] if sees else None  # type: ignore[index]  # it is one row

    def is_usable(self) -> bool:
        """Return whether another lease can use it: it is set up, not lost and in no transaction."""
        return self._is_set_up and self.pgconn.transaction_status == pq.TransactionStatus.IDLE

    def has_unread_input(self) -> bool:
        """Return whether the server has sent something unasked, as a rule that it closed the connection."""
        if hasattr(select, "poll"):
            return bool(self._poll.poll(0))
        return bool(select.select([self.pgconn.socket], [], [], 0)[0])  # Windows

    @override
    def __del__(self, _warn: Any = None, /) -> None:
        """Leave it to libpq's wrapper, which closes a connection unless another process opened it."""


class Pool:
    """Connections to one database, up to a maximum; a thread that wants one more waits for it."""

    def __init__(self, location: PostgreSQLLocation) -> None:
        self.location = location
        self.closed = False
        self.home: Home | None = None  # until the first connection has found it
        # In their order: as many as there may be connections are in use, the others wait.
        self._leases: list[weakref.ref[Lease]] = []
        # Open and not in use; the one that was used last is used next.
        self.idle: deque[Connection] = deque()

    def acquire(self, lease: Lease) -> Connection:
        """Give a connection to a lease.

        Raises:
            StorageClosed: the pool is closed.
            DatabaseBusy: others kept all connections for longer than the timeout.
            psycopg.Error: one had to be opened, and the driver says why it could not be.
        """
        self._leases.append(lease.reference)
        if self.closed or len(self._leases) > self.location.connections:
            self._wait(lease)
        lease.connection = connection = self._take_idle()
        if connection is not None and connection.has_unread_input():
            connection.close()  # the server was restarted, or somebody ended the session
            lease.connection = connection = None
        if connection is None:
            opening = functools.partial(connect, self.location, Connection, _settings, self.home)
            fiber = current_fiber()
            connection = opening() if fiber is None else fiber.in_thread(opening)
            self.home = connection.home
            try:
                connection.set_up()
            except BaseException:
                connection.close()
                raise
            lease.connection = connection  # not before, for a lease that ends keeps what it has
        return connection

    def _wait(self, lease: Lease) -> None:
        """Return when there are few enough leases before one."""
        deadline = None
        while True:
            if self.closed:
                raise StorageClosed(CLOSED)
            if lease in self._served():
                return
            if deadline is None:
                deadline = time.monotonic() + self.location.timeout
                lease.wake = SimpleQueue()
                continue  # a connection may have become free before others could see that this waits
            left = deadline - time.monotonic()
            if left <= 0:
                raise DatabaseBusy(
                    f"all connections to {self.location.name} (at most {self.location.connections}) were "
                    f"in use for {counted(self.location.timeout, 'second')}: raise ?connections= in the URL, "
                    "or keep transactions short"
                )
            with contextlib.suppress(Empty):
                lease.wake.get(timeout=min(left, _LOOK_AGAIN))  # type: ignore[union-attr]  # it is set above

    def _served(self) -> list[Lease]:
        """Return the leases that may have a connection; forget those that have ended."""
        served: list[Lease] = []
        for reference in tuple(self._leases):
            lease = reference()
            if lease is None or lease.is_over:
                with contextlib.suppress(ValueError):  # another thread was quicker
                    self._leases.remove(reference)
            elif len(served) < self.location.connections:
                served.append(lease)
            else:
                break
        return served

    def end(self, lease: Lease) -> None:
        """Forget a lease that has ended, and tell those that waited for it; they look for themselves."""
        is_full = len(self._leases) > self.location.connections
        with contextlib.suppress(ValueError):  # another thread was quicker
            self._leases.remove(lease.reference)
        for waiting in self._served() if is_full else ():
            if waiting.wake is not None:
                waiting.wake.put(None)

    def _take_idle(self) -> Connection | None:
        try:
            return self.idle.pop()
        except IndexError:
            return None

    def close(self) -> None:
        """Close all connections, those in use when they are released; nobody gets one any more."""
        self.closed = True
        for reference in tuple(self._leases):
            lease = reference()
            if lease is not None and lease.wake is not None:
                lease.wake.put(None)
        while (connection := self._take_idle()) is not None:
            connection.close()
