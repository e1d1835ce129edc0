"""A pool of connections to one PostgreSQL database, which opens them in the thread that wants one.

psycopg's own pool opens them in threads of its own: those are gone in a forked child, and Python warns of a
fork while there are any. After an outage it waits for up to minutes before it looks for the server again, it
does not say why there is no connection, and it takes a fifth of the time of a short read.
"""

import select
import threading
from collections import deque
from concurrent.futures import Future
from typing import Any

import psycopg
from psycopg import pq

from poker_therapist.database import CLOSED
from poker_therapist.errors import DatabaseBusy, StorageClosed
from poker_therapist.location import PostgreSQLLocation
from poker_therapist.postgresql.connect import connect

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


class Connection(psycopg.Connection[Any]):
    """A connection of the pool, with the one cursor that all of its statements use."""

    kept_cursor: "psycopg.RawCursor[Any]"

    def set_up(self) -> None:
        """Make the cursor, which has to be after the connection's adapters."""
        self.kept_cursor = psycopg.RawCursor(self)
        self._poll = select.poll()
        self._poll.register(self.pgconn.socket, select.POLLIN)

    def has_unread_input(self) -> bool:
        """Return whether the server has said something unasked, as a rule that it closed the connection."""
        return bool(self._poll.poll(0))

    def __del__(self, _warn: Any = None, /) -> None:
        """Leave it to libpq's wrapper, which closes a connection unless another process opened it."""


class Pool:
    """Connections to one database, at most so many; who has to wait for one is served in turn."""

    def __init__(self, location: PostgreSQLLocation) -> None:
        self.location = location
        self.closed = False
        self._lock = threading.Lock()
        # One place for each connection, None where it is not open. The one that was used last is lent first.
        self._places: deque[Connection | None] = deque([None] * location.connections)
        self._waiting: deque[Future[Connection | None]] = deque()

    def acquire(self) -> Connection:
        """Return a connection for this thread alone, until it is given back.

        Raises:
            StorageClosed: the pool is closed.
            DatabaseBusy: others kept all connections for longer than the timeout.
            psycopg.Error: one had to be opened, and the driver says why it could not be.
        """
        connection = self._take()
        try:
            if connection is not None and not connection.has_unread_input():
                return connection
            if connection is not None:  # the server was restarted, or somebody ended the session
                connection.close()
            connection = connect(self.location, Connection, _PLAN_ONCE)
            connection.set_up()
        except BaseException:
            if connection is not None:
                connection.close()
            self._leave(None)
            raise
        return connection

    def release(self, connection: Connection) -> None:
        """Let others have a connection; one that is lost, or inside a transaction, is closed instead."""
        if connection.pgconn.transaction_status == pq.TransactionStatus.IDLE:
            self._leave(connection)
        else:
            connection.close()
            self._leave(None)

    def _take(self) -> Connection | None:
        with self._lock:
            if self.closed:
                raise StorageClosed(CLOSED)
            if self._places:
                return self._places.pop()
            place: Future[Connection | None] = Future()
            self._waiting.append(place)
        try:
            return place.result(self.location.timeout)
        except BaseException as error:
            if not place.cancel() and place.exception() is None:  # it came at the last moment
                self._leave(place.result())
            if isinstance(error, TimeoutError):
                raise DatabaseBusy(
                    f"all {self.location.connections} connections to {self.location.name} were in use for "
                    f"{self.location.timeout:g} seconds: allow more with ?connections=, or keep blocks short"
                ) from error
            raise

    def _leave(self, connection: Connection | None) -> None:
        with self._lock:
            while self._waiting:
                place = self._waiting.popleft()
                if place.set_running_or_notify_cancel():
                    place.set_result(connection)
                    return
            if connection is None:
                self._places.appendleft(None)
            elif not self.closed:
                self._places.append(connection)
            else:
                connection.close()

    def close(self) -> None:
        """Close all connections, those that are lent when they come back; nobody gets one any more."""
        with self._lock:
            self.closed = True
            places, self._places = self._places, deque()
            waiting, self._waiting = self._waiting, deque()
        for connection in places:
            if connection is not None:
                connection.close()
        for place in waiting:
            if place.set_running_or_notify_cancel():
                place.set_exception(StorageClosed(CLOSED))
