"""A connection that is lost, and a server that stops answering: reads are retried, nothing waits for ever."""

import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
import psycopg
import pytest

from poker_therapist import DatabaseUnreachable, PatternStorage, get_pattern_storage
from poker_therapist.postgresql import connect
from tests.helpers.engines import execute, fetch_all, postgresql_only
from tests.helpers.server import PORT, Server
from tests.helpers.sessions import USER, end_sessions, sessions, wait_until

READS: dict[str, Callable[[PatternStorage], Any]] = {
    "recall": lambda storage: storage.recall(USER)["patterns"],
    "export_user": lambda storage: len(storage.export_user(USER)["patterns"]),
    "get_pattern": lambda storage: storage.get_pattern(USER, "tilt", "bad_beat"),
}


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connect, "SILENCE", 0.5)
    monkeypatch.setattr(connect, "_SILENCE_OF_PROBE", 0.5)


@postgresql_only
def test_what_a_signal_handler_raises_while_a_statement_runs_is_no_silence(
    storage: PatternStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: Any, **__: Any) -> None:
        raise TimeoutError("of the program's own alarm")

    monkeypatch.setattr(psycopg.Connection, "wait", interrupted)
    with pytest.raises(TimeoutError, match="alarm"):
        storage.get_pattern(USER, "tilt", "bad_beat")


# A connection that is lost


@postgresql_only
@pytest.mark.parametrize("read", READS.values(), ids=READS)
def test_a_read_whose_session_was_ended_before_it_is_answered(
    migrated: str, storage: PatternStorage, read: Callable[[PatternStorage], Any]
) -> None:
    storage.save_pattern(USER, "tilt", "bad_beat", 1)
    before = read(storage)
    end_sessions(migrated)

    assert read(storage) == before


@postgresql_only
@pytest.mark.parametrize("read", READS.values(), ids=READS)
@pytest.mark.parametrize("statement", range(4))
def test_a_read_whose_session_is_ended_during_any_of_its_statements_is_answered(
    migrated: str,
    storage: PatternStorage,
    monkeypatch: pytest.MonkeyPatch,
    read: Callable[[PatternStorage], Any],
    statement: int,
) -> None:
    """The session ends right before a statement is sent, on the connection that the call has taken."""
    storage.save_pattern(USER, "tilt", "bad_beat", 1)
    before = read(storage)
    number = 0
    execute = psycopg.RawCursor.execute

    def ended(cursor: Any, *arguments: Any, **options: Any) -> Any:
        nonlocal number
        number += 1
        if number == statement + 1:
            end_sessions(migrated)
        return execute(cursor, *arguments, **options)

    monkeypatch.setattr(psycopg.RawCursor, "execute", ended)

    assert read(storage) == before


# A server that stops answering


@pytest.fixture
def private(private_server: Server) -> Iterator[tuple[Server, PatternStorage]]:
    with get_pattern_storage(f"{private_server.url()}&connect_timeout=2&timeout=5") as storage:
        storage.save_pattern(USER, "tilt", "bad_beat", 1)
        yield private_server, storage


@contextmanager
def stopped(server: Server) -> Iterator[None]:
    """Stop all processes of a server, as a machine does whose memory or disk hangs."""
    processes = [process := psutil.Process(server.pid), *process.children(recursive=True)]
    for one in processes:
        one.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        for one in processes:
            with suppress(psutil.NoSuchProcess):
                one.send_signal(signal.SIGCONT)


@pytest.mark.usefixtures("impatient")
@pytest.mark.slow
def test_a_stopped_server_is_given_up_and_works_again_when_it_goes_on(
    private: tuple[Server, PatternStorage],
) -> None:
    server, storage = private
    with stopped(server):
        with pytest.raises(DatabaseUnreachable, match=r"not answered for 0\.5 seconds.*not known"):
            storage.save_insight(USER, "leak", 1)
        with pytest.raises(DatabaseUnreachable) as unread:
            storage.recall(USER)

    assert "not known" not in str(unread.value)
    wait_until(lambda: len(sessions(server.url(), "state <> 'idle'")) == 0)
    assert storage.get_pattern(USER, "tilt", "bad_beat") == 1
    storage.save_insight(USER, "leak", 2)
    assert 2 in [insight["data"] for insight in storage.get_insights(USER)]


@pytest.mark.usefixtures("impatient")
@pytest.mark.slow
def test_a_block_on_a_stopped_server_is_given_up_and_undone(private: tuple[Server, PatternStorage]) -> None:
    server, storage = private

    def save_and_read() -> None:
        with storage.transaction():
            storage.save_pattern(USER, "tilt", "bad_beat", 2)
            assert storage.get_pattern(USER, "tilt", "bad_beat") == 2
            with stopped(server):
                storage.get_pattern(USER, "tilt", "bad_beat")

    with pytest.raises(DatabaseUnreachable):
        save_and_read()

    assert storage.get_pattern(USER, "tilt", "bad_beat") == 1


class Proxy:
    """Passes bytes on between clients and a server, until it only takes and acknowledges them."""

    def __init__(self, server: Path) -> None:
        self._server = server
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port = self._listening.getsockname()[1]
        self.swallows_old = threading.Event()
        self.swallows_new = threading.Event()
        self._sockets: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self._start(self._accept)

    def _start(self, target: Callable[..., None], *arguments: Any) -> None:
        self._threads.append(threading.Thread(target=target, args=arguments))
        self._threads[-1].start()

    def _accept(self) -> None:
        with suppress(OSError):  # closed
            while True:
                client, _ = self._listening.accept()
                server = socket.socket(socket.AF_UNIX)
                server.connect(str(self._server))
                self._sockets += [client, server]
                swallows = self.swallows_new if self.swallows_old.is_set() else self.swallows_old
                self._start(self._pass_on, client, server, swallows)
                self._start(self._pass_on, server, client, swallows)

    def _pass_on(self, source: socket.socket, target: socket.socket, swallows: threading.Event) -> None:
        with suppress(OSError):
            while data := source.recv(65_536):
                if not swallows.is_set():
                    target.sendall(data)
        with suppress(OSError):
            target.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        for one in (self._listening, *self._sockets):
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()
        for thread in self._threads:
            thread.join()


@pytest.fixture
def proxy(private_server: Server) -> Iterator[Proxy]:
    with closing(Proxy(private_server.folder / f".s.PGSQL.{PORT}")) as opened:
        yield opened


@pytest.fixture
def through_proxy(proxy: Proxy) -> Iterator[PatternStorage]:
    url = f"postgresql://postgres@127.0.0.1:{proxy.port}/postgres?connect_timeout=2&timeout=5&connections=1"
    with get_pattern_storage(url) as storage:
        storage.save_pattern(USER, "tilt", "bad_beat", 1)
        yield storage


@pytest.mark.usefixtures("impatient")
@pytest.mark.slow
def test_a_black_hole_that_acknowledges_everything_is_given_up(
    proxy: Proxy, through_proxy: PatternStorage
) -> None:
    proxy.swallows_old.set()
    proxy.swallows_new.set()

    with pytest.raises(DatabaseUnreachable, match=r"not answered for 0\.5 seconds.*not known"):
        through_proxy.save_insight(USER, "leak", 1)
    with pytest.raises(DatabaseUnreachable):
        through_proxy.recall(USER)

    proxy.swallows_new.clear()
    assert through_proxy.get_pattern(USER, "tilt", "bad_beat") == 1
    assert through_proxy.get_insights(USER) == []


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("in_block", [False, True], ids=["alone", "in a block"])
@pytest.mark.slow
def test_one_connection_that_leads_nowhere_is_given_up_though_others_are_answered(
    proxy: Proxy, through_proxy: PatternStorage, *, in_block: bool
) -> None:
    """The server says that the session is idle, or idle in a transaction: it never got the statement."""

    def read_in_block() -> None:
        with through_proxy.transaction():
            through_proxy.save_pattern(USER, "tilt", "bad_beat", 2)
            assert through_proxy.get_pattern(USER, "tilt", "bad_beat") == 2
            proxy.swallows_old.set()
            through_proxy.get_pattern(USER, "tilt", "bad_beat")

    if in_block:
        with pytest.raises(DatabaseUnreachable, match="not answered"):
            read_in_block()
    else:
        proxy.swallows_old.set()

    assert through_proxy.get_pattern(USER, "tilt", "bad_beat") == 1  # a read by itself is retried


@postgresql_only
@pytest.mark.usefixtures("impatient")
@pytest.mark.slow
def test_a_slow_statement_is_waited_for_though_nothing_is_heard(storage: PatternStorage) -> None:
    """The server, asked through another connection, says that it is active."""
    storage.save_pattern(USER, "tilt", "bad_beat", 1)
    slow = "UPDATE user_patterns SET confidence = 0.25 WHERE user_id = ?1 AND pg_sleep(2) IS NOT NULL"

    assert execute(storage, slow, (USER,)) == 1
    assert fetch_all(storage, "SELECT confidence FROM user_patterns, pg_sleep(2)") == [(0.25,)]
