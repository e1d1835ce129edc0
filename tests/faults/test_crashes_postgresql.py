"""PostgreSQL: sessions ended and servers killed: nothing is half-applied, nothing is stuck."""

import contextlib
import os
from collections.abc import Callable

import psycopg
import pytest

from poker_therapist.schema import read_status
from tests.helpers.crashing import apply_first, states_of
from tests.helpers.databases import Databases
from tests.helpers.engines import query, run_sql, with_options
from tests.helpers.postgresql import (
    IDS,
    IN_PARTS,
    kill_process_tree,
    locks,
    migrate,
    name_of,
    server_location,
    wait_for_rows,
)
from tests.helpers.server import Server
from tests.helpers.snapshots import applied, everything, interrupted


@pytest.mark.slow
def test_a_session_that_is_ended_anywhere_is_one_message_and_nothing_to_repair(
    postgresql_url: str, databases: Databases, report: Callable[[str], None]
) -> None:
    """By an administrator or a failing network: as if the process had been killed."""
    apply_first(postgresql_url)
    template = name_of(postgresql_url)
    with databases.fresh(template) as url:
        states = states_of("apply", url)
    ended = 0
    while True:
        with databases.fresh(template) as url:

            def end(url: str = url) -> None:
                query(
                    url,
                    "SELECT pg_terminate_backend(pid, 9999) FROM pg_stat_activity "
                    "WHERE datname = current_database() AND application_name = 'poker-therapist'",
                )

            ran = migrate(["apply"], url, 4 * (ended + 1), end)
            if ran.code == 0:
                break
            ended += 1

            assert ran.error.startswith("yoyo: ")
            assert ran.error.count("yoyo: ") == 1
            assert "Traceback" not in ran.error
            assert everything(url) in states or interrupted(url) in [[one.id] for one in IN_PARTS]
            assert migrate(["apply"], url).code == 0
            assert everything(url) == states[-1]

    report(f"PostgreSQL, apply: 0 stuck after {ended} ends of the session, at one in 4 statements")
    assert ended > 15


@pytest.mark.slow
def test_a_server_that_is_killed_comes_back_with_whole_migrations(private_server: Server) -> None:
    """In 001, and outside a transaction, in 003 and 004; the same command goes on."""
    run_sql(private_server.url(), "CREATE DATABASE whole")
    states = states_of("apply", private_server.url("whole"))
    for name, statement, left in (
        ("one", "CREATE TABLE user_insights", []),
        ("three", "VALIDATE CONSTRAINT user_insights", [IDS[2]]),
        ("four", "CREATE INDEX CONCURRENTLY idx_conversation_context_key", [IDS[3]]),
    ):
        run_sql(private_server.url(), f"CREATE DATABASE {name}")
        url = private_server.url(name)
        ran = migrate(["apply"], url, statement, private_server.kill)

        assert ran.code == 1
        assert ran.error.startswith("yoyo: ")
        assert "Traceback" not in ran.error
        assert private_server.pid == 0

        private_server.start()

        assert (everything(url) in states) == (left == [])
        assert interrupted(url) == left
        assert migrate(["apply"], url).code == 0
        assert everything(url) == states[-1]
        assert locks(url) == []


def test_what_a_killed_process_had_begun_keeps_the_next_waiting_and_not_for_ever(
    postgresql_url: str,
) -> None:
    """The server goes on building an index for a client that is dead; who comes next waits, or is told so."""
    assert migrate(["apply", "-m", "00[123]"], postgresql_url).code == 0
    with psycopg.connect(postgresql_url) as player:
        player.execute("INSERT INTO user_insights (user_id, insight_type, insight_data) VALUES (1, 'a', '1')")
        child = os.fork()
        if not child:
            with contextlib.suppress(BaseException):
                migrate(["apply"], postgresql_url)
            os._exit(0)
        # The one that has to wait for the player.
        building = "FROM pg_stat_progress_create_index WHERE relid = 'user_insights'::regclass"
        wait_for_rows(postgresql_url, f"SELECT count(*) {building}")
        builders = query(postgresql_url, f"SELECT pid {building}")
        kill_process_tree(child)
        early = migrate(["apply"], with_options(postgresql_url, "timeout=0.1"))

        assert early.code == 1
        assert "another session is still migrating" in early.error
        assert query(postgresql_url, f"SELECT pid {building}") == builders

        player.rollback()
    late = migrate(["apply"], postgresql_url)

    assert late.code == 0, late.error
    assert applied(postgresql_url) == IDS
    assert read_status(server_location(postgresql_url)).drift == []
