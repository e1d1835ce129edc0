"""A pool of connections to one PostgreSQL database, which opens them in the thread that wants one.

psycopg's own pool opens them in threads of its own: those are gone in a forked child, and Python warns of a
fork while there are any. After an outage it waits for up to minutes before it looks for the server again, it
does not say why there is no connection, and it takes a fifth of the time of a short read.

A signal can arrive between any two steps. So a place of the pool is an object that returns by itself when
nobody holds it any more, and instead of a lock, which a signal could leave locked, there are queues whose
methods are atomic.
"""

import contextlib
import select
import weakref
from collections import deque
from queue import Empty, SimpleQueue
from typing import Any

import psycopg
from psycopg import pq

from poker_therapist.compat import override
from poker_therapist.database import CLOSED
from poker_therapist.errors import DatabaseBusy, StorageClosed
from poker_therapist.location import PostgreSQLLocation
from poker_therapist.postgresql.connect import WatchedConnection, connect

# Each query has an index that holds its rows in their order, so one plan is right for all players, and the
# server need not think again at every call: reading the newest 20 takes half the time. What it must not do is
# keep for ever the plan that it made while a table was empty.
_PLAN_ONCE = (
    ("plan_cache_mode", "force_generic_plan"),
    ("enable_seqscan", "off"),
    ("enable_bitmapscan", "off"),
    ("enable_sort", "off"),
    # The purge is to look up a few ids, not to read all that the player has.
    ("enable_hashjoin", "off"),
    ("enable_mergejoin", "off"),
)


class _Place:
    """The right to one connection of a pool; it returns to the pool when nobody holds it any more."""

    __slots__ = ("_pool",)

    def __init__(self, pool: "Pool") -> None:
        self._pool = weakref.ref(pool)

    def __del__(self) -> None:
        pool = self._pool()
        if pool is not None:
            pool._return(_Place(pool))  # a new one: an object is finalized only once


class Connection(WatchedConnection):
    """A connection of the pool, with the one cursor that all of its statements use.

    Attributes:
        kept_cursor: the cursor.
        place: the connection's place in the pool, while it is in use.
    """

    kept_cursor: "psycopg.RawCursor[Any]"
    place: _Place | None = None

    def set_up(self) -> None:
        """Make the cursor, which has to be after the connection's adapters."""
        self.kept_cursor = psycopg.RawCursor(self)
        if hasattr(select, "poll"):
            self._poll = select.poll()
            self._poll.register(self.pgconn.socket, select.POLLIN)

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
        self._free = deque(_Place(self) for _ in range(location.connections))
        # One queue for each thread that waits, for the place that it is given.
        self._waiting: deque[SimpleQueue[_Place | None]] = deque()
        # The one that was used last is used next.
        self._idle: deque[Connection] = deque()

    def acquire(self) -> Connection:
        """Return a connection for this thread alone, until it is released.

        Raises:
            StorageClosed: the pool is closed.
            DatabaseBusy: others kept all connections for longer than the timeout.
            psycopg.Error: one had to be opened, and the driver says why it could not be.
        """
        connection = None
        place = None
        try:
            place = self._take_place()
            connection = self._take_idle()
            if connection is not None and connection.has_unread_input():
                connection.close()  # the server was restarted, or somebody ended the session
                connection = None
            if connection is None:
                connection = connect(self.location, Connection, _PLAN_ONCE)
                connection.set_up()
            connection.place = place
        except BaseException:
            if connection is not None:
                connection.close()
                connection.place = None
            del place  # which returns by that
            raise
        return connection

    def _take_place(self) -> _Place:
        """Take a free place, or wait in turn for one."""
        if self.closed:
            raise StorageClosed(CLOSED)
        with contextlib.suppress(IndexError):
            return self._free.pop()
        given: SimpleQueue[_Place | None] = SimpleQueue()
        try:
            self._waiting.append(given)
            # One may have become free, or the pool may have been closed, before others could see that this
            # waits.
            with contextlib.suppress(IndexError):
                self._return(self._free.pop())
            if self.closed:
                given.put(None)
            place = given.get(timeout=self.location.timeout)
        except Empty as error:
            raise DatabaseBusy(
                f"all {self.location.connections} connections to {self.location.name} were in use for "
                f"{self.location.timeout:g} seconds: allow more with ?connections=, or keep blocks short"
            ) from error
        finally:
            # Where it was given one at the last moment, that returns with the queue that holds it.
            with contextlib.suppress(ValueError):
                self._waiting.remove(given)
        if place is None:
            raise StorageClosed(CLOSED)
        return place

    def _return(self, place: _Place) -> None:
        """Give a place to who has waited longest, or let it be free."""
        try:
            self._waiting.popleft().put(place)
        except IndexError:
            self._free.append(place)

    def _take_idle(self) -> Connection | None:
        try:
            return self._idle.pop()
        except IndexError:
            return None

    def release(self, connection: Connection) -> None:
        """Let others have a connection; one that is lost, or inside a transaction, is closed instead."""
        try:
            if connection.pgconn.transaction_status == pq.TransactionStatus.IDLE and not self.closed:
                self._idle.append(connection)
                if self.closed:  # by another thread, meanwhile
                    connection.close()
            else:
                connection.close()
        finally:
            connection.place = None  # which returns by that

    def discard(self, connection: Connection) -> None:
        """Close a connection, whatever it is doing; the server rolls its transaction back."""
        try:
            connection.close()
        finally:
            connection.place = None

    def close(self) -> None:
        """Close all connections, those in use when they are released; nobody gets one any more."""
        self.closed = True
        with contextlib.suppress(IndexError):
            while True:
                self._waiting.popleft().put(None)
        while (connection := self._take_idle()) is not None:
            connection.close()
