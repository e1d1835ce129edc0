"""PostgreSQL's pool: a place is never lost, and a lost COMMIT says that its end is not known."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest
from psycopg import sql

from poker_therapist import DatabaseUnreachable, PatternStorage, get_pattern_storage
from poker_therapist.postgresql.pool import Connection
from tests.helpers.databases import Databases
from tests.helpers.engines import fetch_all, query, run_sql, with_options
from tests.helpers.postgresql import name_of
from tests.helpers.sessions import USER, end_sessions


@pytest.fixture(scope="session")
def engine() -> str:
    """This one alone."""
    return "postgresql"


@pytest.fixture
def single(migrated: str) -> Iterator[PatternStorage]:
    """A storage with one connection, for which nobody waits long."""
    with get_pattern_storage(with_options(migrated, "connections=1&timeout=0.1")) as storage:
        yield storage


@contextmanager
def nobody_may_connect(url: str, databases: Databases) -> Iterator[None]:
    """Have a database refuse new sessions, and end those of storages."""
    name = sql.Identifier(name_of(url))
    with psycopg.connect(databases.run.open(), autocommit=True) as beside:
        beside.execute(sql.SQL("ALTER DATABASE {} ALLOW_CONNECTIONS false").format(name))
        beside.execute(
            "SELECT pg_terminate_backend(pid, 60000) FROM pg_stat_activity WHERE datname = %s", [name_of(url)]
        )
        yield
        beside.execute(sql.SQL("ALTER DATABASE {} ALLOW_CONNECTIONS true").format(name))


def test_a_connection_that_cannot_be_opened_gives_its_place_back(
    migrated: str, single: PatternStorage, databases: Databases
) -> None:
    """However often; who comes when there is a server again would otherwise wait for a place in vain."""
    with nobody_may_connect(migrated, databases):
        for _ in range(3):
            with pytest.raises(DatabaseUnreachable, match="not currently accepting connections"):
                single.save_pattern(USER, "tilt", "bad_beat", 1)

    single.save_pattern(USER, "tilt", "bad_beat", 2)
    assert single.get_pattern(USER, "tilt", "bad_beat") == 2


def test_a_connection_that_cannot_be_set_up_gives_its_place_back_and_is_closed(
    migrated: str, single: PatternStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By Ctrl-C, say, between its opening and its first statement."""
    opened: list[Connection] = []

    def interrupted(connection: Connection) -> None:
        opened.append(connection)
        raise KeyboardInterrupt

    end_sessions(migrated)
    with monkeypatch.context() as patched:
        patched.setattr(Connection, "set_up", interrupted)
        with pytest.raises(KeyboardInterrupt):
            single.get_pattern(USER, "tilt", "bad_beat")

    assert [connection.closed for connection in opened] == [True]
    assert single.get_pattern(USER, "tilt", "bad_beat") is None


def test_a_block_whose_commit_loses_its_connection_says_that_its_end_is_not_known(
    migrated: str, single: PatternStorage
) -> None:
    """The server may have committed before the connection was lost."""
    run_sql(
        migrated,
        """
        CREATE FUNCTION leave() RETURNS TRIGGER LANGUAGE plpgsql AS $$
        BEGIN PERFORM pg_terminate_backend(pg_backend_pid()); PERFORM pg_sleep(60); RETURN NULL; END $$;
        CREATE CONSTRAINT TRIGGER leave AFTER INSERT ON user_patterns DEFERRABLE INITIALLY DEFERRED
        FOR EACH ROW EXECUTE FUNCTION leave();
        """,
    )

    def save() -> None:
        with single.transaction():
            single.save_pattern(USER, "tilt", "first", 1)
            single.save_pattern(USER, "tilt", "second", 1)

    with pytest.raises(
        DatabaseUnreachable, match=r"terminating connection.*it is not known whether this was saved: check"
    ):
        save()

    assert query(migrated, "SELECT count(*) FROM user_patterns") == [(0,)]
    run_sql(migrated, "DROP FUNCTION leave CASCADE")
    save()
    assert fetch_all(single, "SELECT count(*) FROM user_patterns") == [(2,)]


def test_a_block_in_which_nothing_is_asked_sends_nothing(
    single: PatternStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither a BEGIN nor an end; whether it ends well or not."""
    sent: list[object] = []
    execute = psycopg.RawCursor.execute

    def watched(cursor: Any, query: Any, *arguments: Any, **options: Any) -> Any:
        sent.append(query)
        return execute(cursor, query, *arguments, **options)

    monkeypatch.setattr(psycopg.RawCursor, "execute", watched)
    with single.transaction():
        pass
    with pytest.raises(ZeroDivisionError), single.transaction():
        raise ZeroDivisionError

    assert sent == []
    with single.transaction():
        single.save_pattern(USER, "tilt", "bad_beat", 1)
    assert len(sent) == 4  # the lock of the player, BEGIN, the row, COMMIT with the unlock
