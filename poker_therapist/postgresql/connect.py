"""A PostgreSQL server: connecting to it, and translating its errors."""

import math
import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from typing import Any, NoReturn, TypeVar

import psycopg
from psycopg import adapters, conninfo, pq
from psycopg.abc import Buffer
from psycopg.adapt import AdaptersMap, Loader
from psycopg.rows import tuple_row
from psycopg.types.numeric import Int8Dumper
from psycopg.types.string import TextLoader

from poker_therapist.compat import override
from poker_therapist.errors import (
    DatabaseBusy,
    DatabaseFull,
    DatabaseNotFound,
    DatabaseReadOnly,
    DatabaseUnreachable,
    DatabaseUnreadable,
    InvalidInput,
    PokerTherapistError,
    SchemaMissing,
    StorageError,
    TransactionConflict,
    counted,
    escape_driver_error,
    escaped,
)
from poker_therapist.location import PostgreSQLLocation, command_about
from poker_therapist.ownership import Silent, current_fiber, fiber_of_context
from poker_therapist.postgresql.home import SAFE_PATH, Home, find_home, set_path

# Defaults, unless the URL has others: a server that is cut off is given up after a minute, not hours.
_PATIENCE: dict[str, Any] = {
    "connect_timeout": 10,
    "keepalives_idle": 30,
    "keepalives_interval": 10,
    "keepalives_count": 3,
    "tcp_user_timeout": 60_000,
}
# After so many seconds without an answer the server is asked, through another connection, whether the
# statement is still running; and so long may that connection be silent.
SILENCE = 60.0
_SILENCE_OF_PROBE = 10.0
# Through a pooler it is not known which process runs a statement outside of a transaction.
_STATE = (
    "SELECT CASE WHEN %s::int IS NULL THEN 'unknown' ELSE "
    "(SELECT state FROM pg_catalog.pg_stat_activity WHERE pid = %s) END"
)
_PID = "SELECT pg_catalog.pg_backend_pid()"
NEEDS_POOLER = (
    "{name} is behind a pooler in transaction mode, such as PgBouncer: add pooler=transaction to the URL, "
    "and run migrations without the pooler"
)


class WatchedConnection(psycopg.Connection[Any]):
    """A connection that does not wait without end for a server that has stopped answering.

    A stopped process and a proxy whose server is gone still acknowledge what they are sent, so that no limit
    of TCP's applies. A slow statement is no reason to give up: the server reports it as active.
    """

    location: PostgreSQLLocation | None = None
    home: Home | None = None
    # The number of the server's process: with a pooler between, of that which serves the transaction.
    served_by: int | None = None
    silence: float | None = None

    @override
    def wait(self, gen: Any, *args: Any, **options: Any) -> Any:
        """Consume a generator of psycopg's, and watch how long it takes; see `psycopg.Connection.wait`."""
        if args or options:  # of a call that has a limit of its own
            return super().wait(gen, *args, **options)
        # Hardly ever is one in the context; a call less otherwise.
        fiber = None if fiber_of_context.get() is None else current_fiber()
        is_idle = False
        while True:
            try:
                if fiber is not None:
                    return fiber.wait(gen, self.pgconn.socket, self._longest_silence())
                return super().wait(gen, timeout=self._longest_silence())
            except (psycopg.errors._WaitTimeout, Silent):
                if is_idle:  # and its answer has not come since the server reported it
                    self._give_up()
                is_idle = not (self._is_active() if fiber is None else fiber.in_thread(self._is_active))

    def _longest_silence(self) -> float:
        return self.silence or (SILENCE if self.location else _SILENCE_OF_PROBE)

    def ask_pid(self) -> int:
        """Return the number of the server's process; a pooler gives each client another number."""
        return int(self.execute(_PID).fetchall()[0][0])

    def _is_active(self) -> bool:
        """Return whether the server, asked on another connection, reports that the statement still runs."""
        found = None
        if self.location is not None:
            with suppress(psycopg.Error), closing(_open_once(self.location, WatchedConnection)) as probe:
                found = probe.execute(_STATE, (self.served_by, self.served_by)).fetchone()
        # It is "disabled" without track_activities: such a statement is waited for.
        return found is not None and found[0] is not None and not str(found[0]).startswith("idle")

    def _give_up(self) -> NoReturn:
        """Close the connection.

        Raises:
            psycopg.OperationalError: always.
        """
        self.close()
        raise psycopg.OperationalError(
            f"the server has not answered for {counted(self._longest_silence(), 'second')}"
        )


_Kind = TypeVar("_Kind", bound=WatchedConnection)


_WITH_MICROSECONDS = len("2026-01-05 18:12:01.123456+00")


class TimestampLoader(Loader):
    """Loads a time as the one text form that the storage returns; the session's time zone is UTC."""

    def load(self, data: Buffer) -> str:
        """Return `2026-01-05 18:12:01.5+00` as `2026-01-05T18:12:01.500000+00:00`."""
        text = bytes(data).decode()
        if text[-3:] != "+00" or text[10:11] != " ":  # before Christ, after 9999: never written here
            return text
        if len(text) == _WITH_MICROSECONDS:
            return f"{text[:10]}T{text[11:26]}+00:00"
        return f"{text[:10]}T{text[11:19]}.{text[20:-3]:0<6}+00:00"


class Adapters:
    """How values come and go: JSON and times as texts, every integer as 64 bits.

    Integers as wide as their value, psycopg's way, would be another statement to prepare for each width.
    """

    adapters: AdaptersMap = AdaptersMap(adapters)
    connection = None


Adapters.adapters.register_dumper(int, Int8Dumper)
Adapters.adapters.register_loader("json", TextLoader)
Adapters.adapters.register_loader("timestamptz", TimestampLoader)


Settings = tuple[tuple[str, str | tuple[str, ...]], ...]


def settings_of(location: PostgreSQLLocation) -> Settings:
    """Return the settings of every session of ours."""
    return (
        ("TimeZone", "UTC"),
        ("DateStyle", "ISO"),
        ("client_encoding", "UTF8"),
        # Floats come back to the last digit.
        ("extra_float_digits", "1"),
        # In milliseconds; 0 would be to wait for ever.
        ("lock_timeout", f"{max(location.timeout * 1000, 1):.0f}"),
        ("search_path", SAFE_PATH),
    )


def configure(connection: psycopg.Connection[Any], location: PostgreSQLLocation, more: Settings = ()) -> None:
    """Give a connection the settings of every session of ours, and some more, in one round trip."""
    settings = settings_as_sql("SET", (*settings_of(location), *more))
    cursor = connection.execute(f"{settings}; {_PID}".encode())
    while cursor.nextset():
        pass
    if isinstance(connection, WatchedConnection):
        ((connection.served_by,),) = cursor.fetchall()


def settings_as_sql(how: str, settings: Settings) -> str:
    """Return the statements that make some settings, by `SET` or `SET LOCAL`."""
    # Not set_config(): a new session would have to look the function up, which takes longer.
    several = ((name, (value,) if isinstance(value, str) else value) for name, value in settings)
    return "; ".join(f"{how} {name} = {str(values)[1:-1].rstrip(',')}" for name, values in several)


def open_connection(location: PostgreSQLLocation) -> WatchedConnection:
    """Return a new connection whose search path is that of a migration; see `connect`."""
    connection = connect(location, WatchedConnection)
    if connection.home is not None:
        connection.execute(set_path(connection.home.path).encode())
    return connection


def connect(
    location: PostgreSQLLocation,
    kind: type[_Kind],
    more: Callable[[Home], Settings] = lambda _: (),
    home: Home | None = None,
) -> _Kind:
    """Return a new connection with our settings and some more, each statement of which commits by itself.

    A server that is starting is waited for.

    Args:
        location: where to.
        kind: the class of the connection.
        more: returns the settings beside those of every session, for where the tables are.
        home: where they are; it is found out unless it is given.

    Raises:
        psycopg.Error: the driver's error; `translate_error` turns it into one of ours.
    """
    start = time.monotonic()
    while True:
        try:
            return _connect_once(location, kind, more, home)
        except psycopg.OperationalError as error:
            if time.monotonic() - start >= min(location.timeout, _seconds_to_wait(str(error))):
                raise
        time.sleep(0.05)


def _connect_once(
    location: PostgreSQLLocation, kind: type[_Kind], more: Callable[[Home], Settings], home: Home | None
) -> _Kind:
    connection = _open_once(location, kind)
    connection.location = location
    try:
        if location.on_connect is not None:
            location.on_connect(connection)
            connection.row_factory = tuple_row
        if home is None:
            home = find_home(connection, location)
            if home.pid != connection.pgconn.backend_pid and not location.pooler:
                _require_sessions(connection, location)
        connection.home = home
        if location.pooler == "transaction":
            connection.prepare_threshold = None
        else:
            configure(connection, location, more(home))
    except BaseException:
        connection.close()
        raise
    return connection


def _require_sessions(connection: WatchedConnection, location: PostgreSQLLocation) -> None:
    """Refuse a pooler in transaction mode, which gives each transaction any free session.

    Only this shows the difference to session mode, in which each of two connections is always served by
    its own process of the server.
    """
    with suppress(psycopg.Error), closing(_open_once(location, WatchedConnection)) as other:
        other.silence = 0.5  # which waits for ever where only one may have a session
        seen = [(connection.ask_pid(), other.ask_pid()) for _ in range(3)]
        if len(set(seen)) > 1 or seen[0][0] == seen[0][1]:
            raise StorageError(NEEDS_POOLER.format(name=location.name))


def _open_once(location: PostgreSQLLocation, kind: type[_Kind]) -> _Kind:
    given = conninfo.conninfo_to_dict(location.conninfo)
    patience = {name: value for name, value in _PATIENCE.items() if name not in given}
    if "PGCONNECT_TIMEOUT" in os.environ:
        patience.pop("connect_timeout", None)
    return kind.connect(
        location.conninfo,
        autocommit=True,
        context=Adapters(),
        fallback_application_name="poker-therapist",
        **patience,
    )


def _seconds_to_wait(refusal: str) -> float:
    """Return how long to try again after a refusal."""
    if re.search("the database system is (starting up|not yet accepting|in recovery mode)", refusal):
        return math.inf
    # As a server does that is about to recover from a crash; but so does what is no server.
    return 1 if "server closed the connection unexpectedly" in refusal else 0


_LACKING = "the schema of {name} is incomplete ({reason}): see what is missing with `{status}`"
# By SQLSTATE, or its first letters; https://www.postgresql.org/docs/current/errcodes-appendix.html
_EXPLANATIONS: dict[str, tuple[type[PokerTherapistError], str]] = {
    "08": (DatabaseUnreachable, "{name} cannot be reached ({reason}): check the address and the server"),
    "57P": (DatabaseUnreachable, "{name} is shutting down or starting up ({reason}): try again"),
    "3D000": (DatabaseNotFound, "there is no database {name} ({reason}): create it with createdb"),
    "28": (DatabaseUnreachable, "{name} rejected this user ({reason}): correct PGUSER and the password"),
    "53100": (DatabaseFull, "no space is left for {name} ({reason}): free disk space; nothing was changed"),
    "53200": (DatabaseFull, "{name} is out of memory ({reason}): free memory; nothing was changed"),
    "53300": (DatabaseBusy, "{name} accepts no more connections ({reason}): raise max_connections"),
    "53": (DatabaseFull, "{name} is out of resources ({reason}): nothing was changed; try again later"),
    "55P03": (
        DatabaseBusy,
        "{name} is locked ({reason}): find the session that keeps a transaction open in pg_stat_activity",
    ),
    "57014": (DatabaseBusy, "{name}: {reason}: raise statement_timeout, or find why it is slow"),
    "25P03": (DatabaseUnreachable, "{name} ended the session ({reason}): keep transactions short"),
    "25P04": (DatabaseUnreachable, "{name} ended the session ({reason}): keep transactions short"),
    "40": (
        TransactionConflict,
        "another transaction changed the same data in {name} ({reason}): nothing was changed; try again",
    ),
    "25006": (DatabaseReadOnly, "{name} is read-only ({reason}): connect to the primary"),
    "25P02": (StorageError, "the transaction failed and was rolled back: leave its block, then run it again"),
    "42501": (StorageError, "{name}: {reason}: grant this role the privilege"),
    "42P01": (SchemaMissing, _LACKING),
    "42703": (SchemaMissing, _LACKING),
    "3F000": (SchemaMissing, "the schema in search_path does not exist in {name} ({reason}): create it"),
    "22": (InvalidInput, "the database rejected a value ({reason}): correct it"),
    "23": (InvalidInput, "the database rejected a value ({reason}): correct it"),
    "54": (InvalidInput, "a value is too large for the database ({reason}): save it in parts"),
    "26000": (StorageError, NEEDS_POOLER + " ({reason})"),
    "42P05": (StorageError, NEEDS_POOLER + " ({reason})"),
    "XX001": (DatabaseUnreadable, "{name} is damaged ({reason}): restore a backup"),
    "XX002": (DatabaseUnreadable, "{name} has a damaged index ({reason}): run REINDEX"),
}
# A failed connection has no SQLSTATE, only what the server wrote, in the language that it speaks.
_AT_CONNECTING = (
    ("3D000", re.compile(r'database "[^"]*" does not exist')),
    ("53300", re.compile(r"too many (clients|connections)|remaining connection slots")),
    ("28", re.compile(r"authentication failed|no pg_hba.conf entry|no password supplied|role \"[^\"]*\"")),
)


def translate_error(error: Exception, location: PostgreSQLLocation) -> PokerTherapistError:
    """Return our own error for one that the driver raised about the database at `location`."""
    reason = reason_of(error)
    escape_driver_error(error)
    code = (error.sqlstate if isinstance(error, psycopg.Error) else None) or ""
    if not code and isinstance(error, psycopg.OperationalError):
        code = next((known for known, said in _AT_CONNECTING if said.search(str(error))), "08")
    if not code and isinstance(error, psycopg.DataError | OverflowError | UnicodeEncodeError):
        code = "22"
    for length in (5, 3, 2):
        if code[:length] in _EXPLANATIONS:
            kind, sentence = _EXPLANATIONS[code[:length]]
            status = command_about(location, "status")
            return kind(
                sentence.format(name=location.name, reason=reason, timeout=location.timeout, status=status)
            )
    return StorageError(f"{location.name}: {reason}")


def reason_of(error: Exception) -> str:
    """Return the server's message, on one line and without the statement that it repeats."""
    said = error.diag.message_primary if isinstance(error, psycopg.Error) else None
    return escaped(said or " ".join(str(error).split()))


def detailed(error: psycopg.Error) -> str:
    """Return the server's message, with the row in its detail."""
    detail = error.diag.message_detail
    return f"{reason_of(error)} ({detail.rstrip('.')})" if detail else reason_of(error)


def is_lost(connection: psycopg.Connection[Any]) -> bool:
    """Return whether a connection cannot be used any more."""
    return connection.closed or connection.pgconn.status != pq.ConnStatus.OK


def is_idle(connection: psycopg.Connection[Any]) -> bool:
    """Return whether a connection can be used, and is in no transaction."""
    return not is_lost(connection) and connection.pgconn.transaction_status == pq.TransactionStatus.IDLE


@contextmanager
def translating_errors(location: PostgreSQLLocation) -> Iterator[None]:
    """Raise an error of this package for one that the driver raises in a block."""
    try:
        yield
    except psycopg.Error as error:
        raise translate_error(error, location) from error
