"""PostgreSQL for the tests: databases of their own, servers that may be killed, nothing left of either."""

import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from urllib.parse import urlsplit

import psutil
import psycopg
import pytest

from tests.helpers.checkout import ROOT
from tests.helpers.databases import PREFIX, VARIABLE, Databases, Run, begin_run
from tests.helpers.server import Server

pytestmark = pytest.mark.slow  # each has a server of its own

# Write down where the run's server is; the last one fails, or kills the run.
TINY_TESTS = """
import os
import signal
from pathlib import Path

import psycopg
import pytest


@pytest.mark.parametrize("number", range(4))
def test_tiny(postgresql_url, number):
    with psycopg.connect(postgresql_url) as connection:
        pid = connection.execute("SELECT pg_read_file('postmaster.pid')").fetchone()[0].split()[0]
        data = connection.execute("SHOW data_directory").fetchone()[0]
    Path(f"seen{number}").write_text(f"{pid} {data}")
    if os.environ["KILLED"]:
        os.kill(os.getppid() if "PYTEST_XDIST_WORKER" in os.environ else os.getpid(), signal.SIGKILL)
    assert number != 3
"""


def test_databases_are_separate_and_empty(databases: Databases, postgresql_url: str) -> None:
    with databases.fresh() as other_url:
        with psycopg.connect(postgresql_url) as connection:
            connection.execute("CREATE TABLE players (id bigint)")
        with psycopg.connect(other_url) as connection:
            assert _tables(connection) == []


def test_a_database_goes_even_if_somebody_is_connected(databases: Databases) -> None:
    with databases.fresh() as url:
        forgetful = psycopg.connect(url)
    for _ in range(4):  # the last ones used stay for a moment
        with databases.fresh():
            pass

    with pytest.raises(psycopg.OperationalError):
        forgetful.execute("SELECT 1")
    with pytest.raises(psycopg.OperationalError, match="does not exist"):
        psycopg.connect(url)
    forgetful.close()


def test_a_copy_of_the_template_is_up_to_date(migrated_postgresql_url: str) -> None:
    with psycopg.connect(migrated_postgresql_url) as connection:
        assert {"user_patterns", "conversation_context", "user_insights"} <= set(_tables(connection))


def test_the_template_is_made_once(databases: Databases) -> None:
    made = []

    def fill(url: str) -> None:
        made.append(url)
        with psycopg.connect(url) as connection:
            connection.execute("CREATE TABLE players (id bigint)")

    run = Run(f"{databases.run.name}_own", databases.run.server)
    with closing(Databases(run)) as one, closing(Databases(run)) as other, ThreadPoolExecutor() as threads:
        first, second = (threads.submit(each.template, fill) for each in (one, other))
        assert first.result() == second.result()
        assert len(made) == 1
        with one.fresh(first.result()) as url, psycopg.connect(url) as connection:
            assert _tables(connection) == ["players"]


def test_a_server_that_is_named_is_left_clean(
    private_server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of killed runs too, but for what is in use."""
    monkeypatch.setenv(VARIABLE, private_server.url())
    used = f"{PREFIX}0000_used"
    with psycopg.connect(private_server.url(), autocommit=True) as connection:
        for name in ("somebodys_own", f"{PREFIX}0000_left", used):
            connection.execute(f"CREATE DATABASE {name}")
        with (
            psycopg.connect(private_server.url(used)),
            begin_run() as run,
            closing(Databases(run)) as made,
            made.fresh() as url,
            begin_run(),
        ):
            unopened = urlsplit(url).path[1:]
            assert _databases(connection) == sorted([used, unopened, "postgres", "somebodys_own"])

        assert _databases(connection) == [used, "postgres", "somebodys_own"]


def test_what_was_committed_survives_a_crash(private_server: Server) -> None:
    with psycopg.connect(private_server.url(), autocommit=True) as connection:
        connection.execute("CREATE TABLE players (id bigint)")
        connection.execute("INSERT INTO players VALUES (7)")
        children = psutil.Process(private_server.pid).children()

        private_server.kill()

        assert private_server.pid == 0
        assert len(children) > 3
        assert not [
            child for child in children if child.is_running() and child.status() != psutil.STATUS_ZOMBIE
        ]
        with pytest.raises(psycopg.OperationalError):
            connection.execute("SELECT 1")

    private_server.start(fsync="on")
    with psycopg.connect(private_server.url()) as connection:
        assert connection.execute("SELECT id FROM players").fetchall() == [(7,)]
        assert connection.execute("SHOW fsync").fetchall() == [("on",)]


@pytest.mark.parametrize("immediate", [False, True])
def test_a_server_stops_and_starts(private_server: Server, immediate: bool) -> None:
    first = private_server.pid
    private_server.stop(immediate)
    assert private_server.pid == 0
    with pytest.raises(psycopg.OperationalError):
        psycopg.connect(private_server.url())

    private_server.start()
    assert private_server.pid not in {0, first}
    psycopg.connect(private_server.url()).close()


def test_a_server_that_does_not_start_says_why(private_server: Server) -> None:
    private_server.stop()
    with pytest.raises(RuntimeError, match="no_such_setting"):
        private_server.start(no_such_setting="1")


@pytest.mark.parametrize(("workers", "killed"), [(0, False), (2, False), (2, True)])
def test_nothing_is_left_of_a_run(tmp_path: Path, workers: int, killed: bool) -> None:
    """Whether a test fails or the run is killed."""
    (tmp_path / "pytest.ini").touch()
    (tmp_path / "test_tiny.py").write_text(TINY_TESTS)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-s", "-p", "tests.conftest", "-n", str(workers)],
        cwd=tmp_path,
        env={key: value for key, value in os.environ.items() if key != VARIABLE and "PYTEST" not in key}
        | {"PYTHONPATH": str(ROOT), "KILLED": "yes" if killed else ""},
        capture_output=True,  # which waits for all that could write, and so for the keeper
        text=True,
        check=False,
        timeout=60,
    )

    assert done.returncode == (-signal.SIGKILL if killed else pytest.ExitCode.TESTS_FAILED), done.stdout
    servers = {file.read_text() for file in tmp_path.glob("seen*")}
    assert len(servers) == 1
    pid, data = servers.pop().split(maxsplit=1)
    assert not psutil.pid_exists(int(pid))
    assert not Path(data).parent.exists()


def _tables(connection: psycopg.Connection) -> list[str]:
    found = connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public' ORDER BY 1")
    return [name for (name,) in found]


def _databases(connection: psycopg.Connection) -> list[str]:
    found = connection.execute("SELECT datname FROM pg_database WHERE NOT datistemplate ORDER BY 1")
    return [name for (name,) in found]
