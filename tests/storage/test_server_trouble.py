"""A PostgreSQL server that restarts, crashes, goes away, is replaced or refuses: the next call works."""

import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from pathlib import Path
from urllib.parse import quote

import psycopg
import pytest

from poker_therapist import (
    DatabaseBusy,
    DatabaseNotFound,
    DatabaseUnreachable,
    PatternStorage,
    StorageError,
    get_pattern_storage,
)
from poker_therapist.postgresql.pool import Connection
from tests.helpers.cli import in_child
from tests.helpers.engines import run_sql, with_options
from tests.helpers.server import PORT, Server, keep_server
from tests.helpers.sessions import USER, add_one, sessions, wait_until

pytestmark = pytest.mark.slow  # each has a server of its own

PASSWORD = "s3cret/pass word"


@pytest.fixture
def url(private_server: Server) -> str:
    return private_server.url()


@pytest.fixture
def storage(url: str) -> Iterator[PatternStorage]:
    with get_pattern_storage(url) as opened:
        opened.save_pattern(USER, "tilt", "before", 1)
        yield opened


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(8) as pool:
        yield pool


def use(storage: PatternStorage) -> None:
    """Read and write, in a block and outside of one."""
    assert storage.get_pattern(USER, "tilt", "before") == 1
    before = storage.get_pattern(USER, "count", "all", 0)
    storage.save_insight(USER, "leak", before)
    add_one(storage)

    assert storage.get_pattern(USER, "count", "all") == before + 1
    assert storage.recall(USER)["insights"][0]["data"] == before


def restart(server: Server) -> None:
    server.stop()
    server.start()


def crash(server: Server) -> None:
    server.kill()
    server.start()


# Restarts


@pytest.mark.parametrize("happens", [restart, crash], ids=["restart", "crash"])
def test_calls_after_a_restart_are_answered_in_every_thread(
    private_server: Server,
    url: str,
    storage: PatternStorage,
    threads: ThreadPoolExecutor,
    happens: type,
) -> None:
    together = threading.Barrier(4, timeout=60)

    def work(player: int) -> object:
        with storage.transaction():  # so that each has a connection
            storage.save_pattern(player, "tilt", "bad_beat", player)
            together.wait()
        storage.save_insight(player, "leak", 1)
        return storage.get_pattern(player, "tilt", "bad_beat")

    before = list(threads.map(work, range(4)))
    happens(private_server)
    use(storage)

    assert list(threads.map(work, range(4))) == before


@pytest.mark.parametrize("happens", [restart, crash], ids=["restart", "crash"])
def test_a_block_that_a_restart_falls_into_says_so_and_leaves_nothing(
    private_server: Server, storage: PatternStorage, happens: type
) -> None:
    def save_and_be_cut_off() -> None:
        with storage.transaction():
            storage.save_pattern(USER, "tilt", "first", 1)
            happens(private_server)
            storage.save_pattern(USER, "tilt", "second", 1)

    with pytest.raises(DatabaseUnreachable):
        save_and_be_cut_off()

    assert set(storage.get_patterns_by_type(USER, "tilt")) == {"before"}
    use(storage)


def test_calls_that_a_crash_falls_into_say_so(
    private_server: Server, url: str, storage: PatternStorage, threads: ThreadPoolExecutor
) -> None:
    """While there is no server, there is nowhere to read once more either."""
    with closing(psycopg.connect(url)) as somebody:
        somebody.execute("LOCK TABLE user_patterns, user_insights")
        reading = threads.submit(storage.get_pattern, USER, "tilt", "before")
        writing = threads.submit(storage.save_insight, USER, "leak", 1)
        wait_until(lambda: len(sessions(url, "wait_event_type = 'Lock'")) == 2)
        private_server.kill()
        unread, unwritten = reading.exception(), writing.exception()
    private_server.start()

    assert isinstance(unread, DatabaseUnreachable)
    assert isinstance(unwritten, DatabaseUnreachable)
    assert "it is not known whether this was saved" in str(unwritten)
    use(storage)


def test_a_session_that_is_killed_takes_all_with_it_and_the_next_call_is_answered(
    url: str, storage: PatternStorage
) -> None:
    """The server ends every other session, too, and recovers before it takes new ones."""

    def is_over(watcher: psycopg.Connection) -> bool:
        with suppress(psycopg.OperationalError):
            watcher.execute("SELECT 1")
        return watcher.closed

    (pid,) = sessions(url)
    with closing(psycopg.connect(url, autocommit=True)) as watcher:
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: is_over(watcher))

    use(storage)


def test_a_call_while_the_server_starts_waits_for_it(
    storage: PatternStorage, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried = []
    connect = Connection.connect

    def refuse_twice(*arguments: object, **options: object) -> object:
        tried.append(arguments)
        if len(tried) < 3:
            raise psycopg.OperationalError("FATAL:  the database system is starting up")
        return connect(*arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(Connection, "connect", refuse_twice)
    with get_pattern_storage(url) as other:
        assert other.get_pattern(USER, "tilt", "before") == 1
    assert len(tried) == 3


# Outages


def test_while_there_is_no_server_every_call_says_so_at_once(
    private_server: Server, storage: PatternStorage
) -> None:
    """It does not wait for the timeout, which is half a minute here."""
    private_server.stop()
    start = time.monotonic()
    for call in (
        lambda: storage.get_pattern(USER, "tilt", "before"),
        lambda: storage.save_pattern(USER, "tilt", "before", 2),
        lambda: storage.recall(USER),
        lambda: add_one(storage),
        lambda: storage.forget_user(USER),
    ):
        with pytest.raises(DatabaseUnreachable, match="check the address and the server"):
            call()

    assert time.monotonic() - start < 10


def test_the_first_call_after_a_long_outage_is_answered_at_once(
    private_server: Server, storage: PatternStorage, threads: ThreadPoolExecutor
) -> None:
    """However often it was tried in vain; so who looks for the server less and less often would fail."""
    private_server.stop()
    failed = list(threads.map(lambda _: outcome(storage), range(200)))
    private_server.start()
    start = time.monotonic()
    use(storage)

    assert set(failed) == {"DatabaseUnreachable"}
    assert time.monotonic() - start < 5


def outcome(storage: PatternStorage) -> str:
    try:
        storage.get_pattern(USER, "tilt", "before")
    except StorageError as error:
        return type(error).__name__
    return "answered"


def test_calls_go_to_the_next_server_when_the_first_is_gone(
    private_server: Server, threads: ThreadPoolExecutor
) -> None:
    with keep_server() as fresh:
        fresh.start()
        hosts = quote(f"{private_server.folder},{fresh.folder}", safe=",")
        both = f"postgresql://postgres@/postgres?host={hosts}&port={PORT},{PORT}"
        get_pattern_storage(fresh.url()).close()
        with get_pattern_storage(both) as storage:
            storage.save_pattern(USER, "tilt", "where", "first")
            assert storage.get_pattern(USER, "tilt", "where") == "first"
            private_server.kill()

            assert storage.get_pattern(USER, "tilt", "where") is None
            storage.save_pattern(USER, "tilt", "where", "second")
            add_one(storage)
            assert (
                list(threads.map(lambda _: storage.get_pattern(USER, "tilt", "where"), range(20)))
                == ["second"] * 20
            )
        with get_pattern_storage(fresh.url()) as there:
            assert there.get_pattern(USER, "count", "all") == 1


def test_calls_go_past_a_server_that_takes_no_writes_if_the_url_says_so(private_server: Server) -> None:
    """As after a failover, when the first has come back as a standby."""
    with keep_server() as primary:
        primary.start()
        private_server.stop()
        private_server.start(default_transaction_read_only="on")
        hosts = quote(f"{private_server.folder},{primary.folder}", safe=",")
        both = f"postgresql://postgres@/postgres?host={hosts}&port={PORT},{PORT}"
        with get_pattern_storage(f"{both}&target_session_attrs=read-write") as storage:
            storage.save_pattern(USER, "tilt", "where", "primary")

        with get_pattern_storage(primary.url()) as there:
            assert there.get_pattern(USER, "tilt", "where") == "primary"


# Refusals


def test_a_server_that_is_full_says_so_and_takes_calls_again_when_there_is_room(
    private_server: Server, url: str
) -> None:
    private_server.stop()
    private_server.start(max_connections="6", superuser_reserved_connections="0", max_wal_senders="0")
    with get_pattern_storage(url) as storage:
        others = [psycopg.connect(url, autocommit=True) for _ in range(5)]
        with ThreadPoolExecutor(1) as thread, storage.transaction():
            storage.save_pattern(USER, "tilt", "before", 1)
            with pytest.raises(DatabaseBusy, match="accepts no more connections"):
                thread.submit(storage.get_pattern, USER, "tilt", "before").result()
            others.pop().close()
            wait_until(lambda: others[0].execute("SELECT count(*) FROM pg_stat_activity "
                "WHERE backend_type = 'client backend'").fetchone() == (5,))  # fmt: skip

            assert thread.submit(storage.get_pattern, USER, "tilt", "before").result() is None
        for other in others:
            other.close()


@pytest.fixture
def guarded_url(private_server: Server, url: str) -> str:
    """A database that wants a password and whose user may only look at it."""
    get_pattern_storage(url).close()
    run_sql(
        url,
        f"""
        CREATE ROLE rex LOGIN PASSWORD '{PASSWORD}';
        GRANT SELECT ON ALL TABLES IN SCHEMA public TO rex;
        """,
    )
    rules = private_server.folder / "data" / "pg_hba.conf"
    rules.write_text(f"local all rex scram-sha-256\n{rules.read_text()}")
    run_sql(url, "SELECT pg_reload_conf()")
    guarded = url.replace("postgres@", f"rex:{quote(PASSWORD, safe='')}@")
    wait_until(lambda: is_refused(guarded.replace("s3cret", "wrong")))
    return guarded


def is_refused(url: str) -> bool:
    try:
        psycopg.connect(url).close()
    except psycopg.OperationalError:
        return True
    return False


def test_each_refusal_is_said_in_one_message_without_the_password(guarded_url: str, tmp_path: Path) -> None:
    """By the storage, and by the operator's command without a traceback."""
    with socket.create_server(("127.0.0.1", 0)) as bound:
        closed_port = bound.getsockname()[1]
    start, _, rest = guarded_url.partition("@")
    wrong = {
        "wrong password": (guarded_url.replace("s3cret", "wr0ng"), DatabaseUnreachable, "password"),
        "no password": (f"postgresql://rex@{rest}", DatabaseUnreachable, "password"),
        "wrong user": (guarded_url.replace("//rex:", "//nobody:"), DatabaseUnreachable, "nobody"),
        "wrong database": (guarded_url.replace("/postgres?", "/pokker?"), DatabaseNotFound, "pokker"),
        "wrong folder": (f"{start}@/postgres?host=/no/such/folder", DatabaseUnreachable, "/no/such/folder"),
        "wrong port": (f"{start}@127.0.0.1:{closed_port}/postgres", DatabaseUnreachable, str(closed_port)),
    }
    for what, (url, kind, word) in wrong.items():
        with pytest.raises(StorageError) as refusal:
            get_pattern_storage(url)
        command = in_child("status", "-d", url, folder=tmp_path)
        error = command.database + command.error

        for said in (str(refusal.value), error):
            assert word in said, what
            assert "s3cret" not in said, what
            assert "wr0ng" not in said, what
        assert type(refusal.value) is kind, what
        assert (command.code, command.out) == (1, ""), what
        assert len(error.splitlines()) == 1, what


def test_what_a_user_may_not_do_is_named_and_what_it_may_is_done(guarded_url: str) -> None:
    with get_pattern_storage(guarded_url) as storage:
        with pytest.raises(StorageError, match="permission denied for table user_patterns: grant"):
            storage.save_pattern(USER, "tilt", "bad_beat", 1)
        with pytest.raises(StorageError, match="permission denied"):
            add_one(storage)

        assert storage.get_pattern(USER, "tilt", "bad_beat") is None


def test_a_server_without_tls_is_refused_if_the_url_asks_for_tls(private_server: Server) -> None:
    with socket.create_server(("127.0.0.1", 0)) as bound:
        port = bound.getsockname()[1]
    private_server.stop()
    private_server.start(listen_addresses="127.0.0.1", port=str(port))
    plain = f"postgresql://postgres@127.0.0.1:{port}/postgres"
    get_pattern_storage(plain).close()

    with pytest.raises(DatabaseUnreachable, match="does not support SSL"):
        get_pattern_storage(with_options(plain, "sslmode=require"))
