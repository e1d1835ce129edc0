"""What every test may ask for."""

import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from poker_therapist import PatternStorage, get_pattern_storage, values
from tests.helpers.databases import Databases, Run, begin_run
from tests.helpers.engines import is_server, run_sql
from tests.helpers.server import Server, keep_server

if TYPE_CHECKING:
    from xdist.workermanage import WorkerController

# As a migration leaves them behind for player 7, and one for player 8.
LEGACY_ROWS = """
    INSERT INTO legacy_rows (migration_id, table_name, row_id, user_id, session_id, value)
    VALUES
        ('003_constrain_values', 'user_patterns', 1, 7, NULL, 'old pattern'),
        ('003_constrain_values', 'conversation_context', 2, 7, 'monday', 'old context'),
        ('003_constrain_values', 'conversation_context', 3, 7, NULL, 'old context'),
        ('003_constrain_values', 'user_insights', 4, 7, NULL, 'old insight'),
        ('003_constrain_values', 'user_insights', 5, 8, NULL, 'somebody else')
"""
# PostgreSQL keeps the value as JSON.
LEGACY_ROWS_AS_JSON = re.sub(r"'([^']+)'\)", r"""'"\1"')""", LEGACY_ROWS)

# For tests of what one engine alone does.
sqlite_only = pytest.mark.parametrize("engine", ["sqlite"], indirect=True)
postgresql_only = pytest.mark.parametrize("engine", ["postgresql"], indirect=True)

RUN = pytest.StashKey[Run]()


class Clock:
    """A clock that stands still until it is moved."""

    def __init__(self) -> None:
        self.moment = datetime(2026, 1, 5, 18, 12, 1, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.moment

    def advance(self, **interval: float) -> None:
        self.moment += timedelta(**interval)


def legacy_values(storage: PatternStorage, user_id: int) -> list[str]:
    """Return what is kept of a player's rows that a migration had to change."""
    return [row["value"] for row in storage.export_user(user_id)["legacy_rows"]]


def migrate(url: str) -> None:
    """Bring a database up to date."""
    get_pattern_storage(url).close()


def add_legacy_rows(database: str | Path) -> None:
    """Leave rows behind as a migration, or the copying of a database, does."""
    run_sql(database, LEGACY_ROWS_AS_JSON if is_server(database) else LEGACY_ROWS)


def run_script(script: str, database: str | Path) -> list[str]:
    """Run a script by itself and return the lines that it prints."""
    done = subprocess.run(
        [sys.executable, "-X", "faulthandler", "-c", script, str(database)],
        check=False,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.splitlines()


@pytest.fixture
def database_path(tmp_path: Path) -> Path:
    """Where an SQLite database may be made; nothing is there yet."""
    return tmp_path / "RexVoice.db"


@pytest.fixture(scope="session", params=["sqlite", "postgresql"])
def engine(request: pytest.FixtureRequest) -> str:
    """Each engine in turn, for a test that asks for `database`, `migrated` or `storage`; see the marks."""
    return str(request.param)


@pytest.fixture
def database(engine: str, request: pytest.FixtureRequest) -> str:
    """The path or URL of a database with nothing in it."""
    return str(request.getfixturevalue("database_path" if engine == "sqlite" else "postgresql_url"))


@pytest.fixture
def migrated(engine: str, request: pytest.FixtureRequest) -> str:
    """The path or URL of an empty, up-to-date database."""
    if engine == "postgresql":
        return str(request.getfixturevalue("migrated_postgresql_url"))
    path: Path = request.getfixturevalue("tmp_path") / "migrated" / "RexVoice.db"
    path.parent.mkdir()
    migrate(str(path))
    return str(path)


@pytest.fixture(scope="module")
def lasting(engine: str, request: pytest.FixtureRequest) -> Iterator[str]:
    """The path or URL of an up-to-date database for all tests of a module."""
    if engine == "sqlite":
        yield str(request.getfixturevalue("tmp_path_factory").mktemp("lasting") / "RexVoice.db")
        return
    databases: Databases = request.getfixturevalue("databases")
    with databases.fresh(request.getfixturevalue("migrated_template")) as url:
        yield url


@pytest.fixture
def storage(migrated: str) -> Iterator[PatternStorage]:
    """An empty, up-to-date storage."""
    with get_pattern_storage(migrated) as opened:
        yield opened


@pytest.hookimpl(optionalhook=True)  # without xdist there is no such hook
def pytest_configure_node(node: "WorkerController") -> None:
    """Tell a worker which PostgreSQL server all of them share: one that ends with this process."""
    config = node.config
    if RUN not in config.stash:
        stack = ExitStack()
        config.add_cleanup(stack.close)
        config.stash[RUN] = stack.enter_context(begin_run())
    node.workerinput["run"] = asdict(config.stash[RUN])


@pytest.fixture(scope="session")
def databases(request: pytest.FixtureRequest) -> Iterator[Databases]:
    """The PostgreSQL server of the run."""
    with ExitStack() as stack:
        told = getattr(request.config, "workerinput", None)
        run = Run(**told["run"]) if told else stack.enter_context(begin_run())
        yield stack.enter_context(closing(Databases(run)))


@pytest.fixture
def postgresql_url(databases: Databases) -> Iterator[str]:
    """A PostgreSQL database of the test's own; nothing is in it."""
    with databases.fresh() as url:
        yield url


@pytest.fixture(scope="session")
def migrated_template(databases: Databases) -> str:
    """The PostgreSQL database from which the up-to-date ones are copied: migrating takes longer."""
    return databases.template(migrate)


@pytest.fixture
def migrated_postgresql_url(databases: Databases, migrated_template: str) -> Iterator[str]:
    """A PostgreSQL database of the test's own, empty and up to date."""
    with databases.fresh(migrated_template) as url:
        yield url


@pytest.fixture
def private_server() -> Iterator[Server]:
    """A running PostgreSQL server of the test's own, to stop, kill and start again."""
    with keep_server() as server:
        server.start()
        yield server


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The storage's clock, held still."""
    held = Clock()
    monkeypatch.setattr(values, "now", held)
    return held


@pytest.fixture
def report(record_property: Callable[[str, object], None]) -> Callable[[str], None]:
    """Return a printer of what a test has counted, shown after the run."""
    return lambda line: record_property("report", line)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print what the tests have counted, and what some have to say of why they did not run."""
    for result in (*terminalreporter.getreports("passed"), *terminalreporter.getreports("skipped")):
        for name, line in result.user_properties:
            if name == "report":
                terminalreporter.write_line(f"  {line}")
