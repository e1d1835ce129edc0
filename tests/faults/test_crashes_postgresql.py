"""PostgreSQL: killed anywhere, the server too, and started by many: nothing is half-applied or stuck."""

import contextlib
import os
import signal
from collections.abc import Callable

import psycopg
import pytest

from poker_therapist import get_pattern_storage
from poker_therapist.migrations.status import State
from poker_therapist.postgresql.backend import AtomicPostgreSQLBackend
from poker_therapist.schema import read_status
from tests.helpers.databases import Databases
from tests.helpers.engines import query, run_sql, with_options
from tests.helpers.players import add_legacy_rows
from tests.helpers.postgresql import (
    FOLDER,
    IDS,
    IN_PARTS,
    PATIENCE,
    ROWS,
    interrupted,
    kill_process_tree,
    locks,
    migrate,
    name_of,
    operations,
    server_location,
    wait_for_rows,
)
from tests.helpers.server import Server
from tests.helpers.snapshots import Snapshot, applied, everything

COMMANDS = {"apply": ["apply"], "rollback": ["rollback", "--all"], "reapply": ["reapply", "--all"]}

# Killed before one in so many statements: on an empty database most are those of a populated one, and what
# reapply does, the other two do.
ONE_IN = {
    ("apply", "populated"): 1,
    ("apply", "empty"): 3,
    ("rollback", "populated"): 1,
    ("rollback", "empty"): 6,
    ("reapply", "populated"): 8,
    ("reapply", "empty"): 12,
}


def states_of(command: str, url: str) -> list[Snapshot]:
    """Run a command on a database; return its state before and after each migration."""
    states = [everything(url)]

    def note(message: str) -> None:
        if message.startswith(("applied", "rolled back")):
            states.append(everything(url))

    with AtomicPostgreSQLBackend(server_location(url)) as backend:
        backend.report = note
        files = backend.read([str(FOLDER)])
        if command != "apply":
            backend.rollback_migrations(backend.to_rollback(files))
        if command != "rollback":
            backend.apply_migrations(backend.to_apply(files))
    return states


def first(url: str) -> None:
    """Apply 001 and put rows into its tables."""
    assert migrate(["apply", "-m", "001"], url).code == 0
    run_sql(url, ROWS)


@pytest.mark.parametrize(("command", "kind"), ONE_IN)
def test_a_kill_at_any_statement_leaves_a_whole_state_and_nothing_to_repair(
    command: str, kind: str, postgresql_url: str, databases: Databases, report: Callable[[str], None]
) -> None:
    """Between two migrations; or in the middle of one that is not transactional, and then status says so."""
    if kind == "populated":
        first(postgresql_url)
    if command != "apply":
        assert migrate(["apply"], postgresql_url).code == 0
        if kind == "populated":
            add_legacy_rows(postgresql_url)
    template = name_of(postgresql_url)
    with databases.fresh(template) as url:
        states = states_of(command, url)
    shown: set[str] = set()
    kills = stuck = in_parts = 0
    code = -signal.SIGKILL
    while code == -signal.SIGKILL:
        with databases.fresh(template) as url:
            code = migrate(COMMANDS[command], url, ONE_IN[command, kind] * (kills + 1)).code
            if code != -signal.SIGKILL:
                break
            kills += 1

            if everything(url) not in states:
                in_parts += 1
                (stopped,) = interrupted(url)
                assert stopped in [one.id for one in IN_PARTS], f"kill {kills}"
                if stopped not in shown:  # once: it takes longer than the killing
                    states_told = {one.id: one.state for one in read_status(server_location(url)).migrations}
                    assert states_told[stopped] is State.INTERRUPTED
                    shown.add(stopped)

            ran = [migrate(COMMANDS[command], url)]
            if command == "reapply":  # what the kill left pending is not its business
                ran.append(migrate(["apply"], url))
            whole = everything(url) == states[-1] and interrupted(url) == []
            stuck += not whole or any(one.code for one in ran)

    report(
        f"PostgreSQL, {command}, {kind} database: {stuck} stuck of {kills} kills, at one in "
        f"{ONE_IN[command, kind]} statements, {in_parts} of them inside a migration that is not transactional"
    )
    assert code == 0
    assert kills * ONE_IN[command, kind] > 4 * 25
    assert shown == {one.id for one in IN_PARTS}
    assert stuck == 0


def test_a_session_that_is_ended_anywhere_is_one_message_and_nothing_to_repair(
    postgresql_url: str, databases: Databases, report: Callable[[str], None]
) -> None:
    """By an administrator or a failing network: as if the process had been killed."""
    first(postgresql_url)
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

            ran = migrate(["apply"], url, 6 * (ended + 1), end)
            if ran.code == 0:
                break
            ended += 1

            assert ran.error.startswith("yoyo: ")
            assert ran.error.count("yoyo: ") == 1
            assert "Traceback" not in ran.error
            assert everything(url) in states or set(interrupted(url)) < {one.id for one in IN_PARTS}
            assert migrate(["apply"], url).code == 0
            assert everything(url) == states[-1]

    report(f"PostgreSQL, apply: 0 stuck after {ended} ends of the session, at one in 6 statements")
    assert ended > 15


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

        assert everything(url) in states or left
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
        assert "somebody else has been migrating" in early.error
        assert query(postgresql_url, f"SELECT pid {building}") == builders

        player.rollback()
    late = migrate(["apply"], postgresql_url)

    assert late.code == 0, late.error
    assert applied(postgresql_url) == IDS
    assert read_status(server_location(postgresql_url)).drift == []


@pytest.mark.parametrize("kind", ["empty", "populated", "one pending"])
def test_fifty_starters_and_yoyo_apply_at_once_apply_each_migration_once(
    kind: str, postgresql_url: str
) -> None:
    """All succeed, and each migration is recorded once; the one that is pending a second time."""
    if kind != "empty":
        first(postgresql_url)
    if kind == "one pending":
        assert migrate(["apply"], postgresql_url).code == 0
        assert migrate(["rollback"], postgresql_url).code == 0
    start_fifty(postgresql_url)

    assert applied(postgresql_url) == IDS
    assert operations(postgresql_url) == dict.fromkeys(IDS, 1) | (
        {IDS[-1]: 2} if kind == "one pending" else {}
    )
    assert interrupted(postgresql_url) == []
    assert query(postgresql_url, "SELECT count(*) FROM user_patterns WHERE pattern_type = 'start'") == [(50,)]


def start_fifty(url: str) -> None:
    """Open the storage in fifty processes and run `yoyo apply` in two, all at the same moment."""
    ready, go = os.pipe()
    children = []
    for number in range(52):
        child = os.fork()
        if not child:
            signal.alarm(PATIENCE)
            os.close(go)
            os.read(ready, 1)  # until the parent closes its end
            with contextlib.suppress(BaseException):
                if number % 26 == 0:
                    os._exit(migrate(["apply"], url).code)
                with get_pattern_storage(url) as storage:
                    storage.save_pattern(number, "start", "process", number)
                    os._exit(storage.get_pattern(number, "start", "process") != number)
            os._exit(1)
        children.append(child)
    os.close(ready)
    os.close(go)

    assert [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children] == [0] * 52
