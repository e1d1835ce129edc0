"""What every test may ask for."""

import ctypes
import functools
import gc
import os
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import yoyo.backends.base

from poker_therapist import PatternStorage, get_pattern_storage, values
from tests.helpers.clock import Clock
from tests.helpers.databases import Databases, Run, begin_run
from tests.helpers.pooler import PROGRAM, keep_pooler
from tests.helpers.project import Project, ServerProject
from tests.helpers.server import MODEL, Server, folder_in_memory, keep_server

if TYPE_CHECKING:
    from xdist.workermanage import WorkerController

# A background job of a script ignores Ctrl-C, and so do its children. The tests that interrupt a child would
# wait for something that never comes.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Each of the programs that tests start, and each worker, would compile all that it imports, every time.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

# For each connection yoyo looks through all that is installed, which stays as it is: once is enough.
yoyo.backends.base.entry_points = functools.cache(yoyo.backends.base.entry_points)

RUN = pytest.StashKey[Run]()

# What tests write goes with them: in memory they take a fifth less time than on a disk.
if "TMPDIR" not in os.environ and (_memory := folder_in_memory()):
    os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(_memory))


def migrate(url: str) -> None:
    """Bring a database up to date."""
    get_pattern_storage(url).close()


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


@pytest.fixture(scope="session")
def migrated_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The SQLite database from which the up-to-date ones are copied: migrating takes longer."""
    path = tmp_path_factory.mktemp("template") / "RexVoice.db"
    migrate(str(path))
    return path


@pytest.fixture
def migrated(engine: str, request: pytest.FixtureRequest) -> str:
    """The path or URL of an empty, up-to-date database."""
    if engine == "postgresql":
        return str(request.getfixturevalue("migrated_postgresql_url"))
    if engine == "pgbouncer":
        through: Callable[[str], str] = request.getfixturevalue("pooler")
        return through(request.getfixturevalue("migrated_postgresql_url"))
    path: Path = request.getfixturevalue("tmp_path") / "migrated" / "RexVoice.db"
    path.parent.mkdir()
    return str(shutil.copy(request.getfixturevalue("migrated_file"), path))


@pytest.fixture(scope="module")
def module_database(engine: str, request: pytest.FixtureRequest) -> Iterator[str]:
    """The path or URL of an up-to-date database for all tests of a module."""
    if engine == "sqlite":
        yield str(request.getfixturevalue("tmp_path_factory").mktemp("shared") / "RexVoice.db")
        return
    databases: Databases = request.getfixturevalue("databases")
    with databases.fresh(request.getfixturevalue("migrated_template")) as url:
        yield url


@pytest.fixture
def storage(migrated: str) -> Iterator[PatternStorage]:
    """An empty, up-to-date storage."""
    with get_pattern_storage(migrated) as opened:
        yield opened


@pytest.fixture
def project(engine: str, tmp_path: Path, request: pytest.FixtureRequest) -> Project:
    """An empty folder for migrations, and a database with nothing in it."""
    if engine == "sqlite":
        return Project(tmp_path / "project")
    return ServerProject(tmp_path / "project", request.getfixturevalue("postgresql_url"))


@pytest.fixture
def two_migrations(project: Project) -> Project:
    """A project with two migrations, of which the second depends on the first."""
    project.write_two()
    return project


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """Use one worker more than there are processors: some tests wait, for a lock or for a time-out."""
    return (os.cpu_count() or 1) + 1


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Let every worker begin with what takes long: forks are cheap while it is small, and none ends alone."""
    if not hasattr(config, "workerinput"):
        return
    places: dict[bool | None, list[pytest.Item]] = {True: [], False: [], None: []}
    for item in items:
        mark = item.get_closest_marker("slow")
        places[None if mark is None else bool(mark.kwargs.get("first"))].append(item)
    slow, quick = places[True] + places[False], places[None]
    workers = config.workerinput["workercount"]
    items.clear()
    # xdist gives each worker one stretch of the list; later, who is idle takes from the end of another's.
    for left in range(workers, 0, -1):
        size, taken = len(slow + quick) // left, len(slow) // left
        items += slow[:taken] + quick[: size - taken]
        del slow[:taken], quick[: size - taken]


def pytest_collection_finish() -> None:
    """Take what importing and collecting has made out of the garbage collector's sight: all of it stays."""
    gc.collect()
    gc.freeze()


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown(item: pytest.Item) -> None:
    """Return what a slow test has freed to the system: a fork takes longer the larger a worker is."""
    if item.get_closest_marker("slow") and (trim := getattr(ctypes.CDLL(None), "malloc_trim", None)):
        trim(0)


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


@pytest.fixture(scope="session")
def pooler(databases: Databases) -> Iterator[Callable[[str], str]]:
    """Return what leads a URL through a PgBouncer in transaction mode."""
    if PROGRAM is None or "://" in databases.run.server:
        pytest.skip("PgBouncer: NOT TESTED, it is not installed, or the server was named")
    with keep_pooler(databases.run.open(), "transaction") as through:
        yield through


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
def private_server(databases: Databases) -> Iterator[Server]:
    """A running PostgreSQL server of the test's own, to stop, kill and start again."""
    with keep_server("" if "://" in databases.run.server else Path(databases.run.server) / MODEL) as server:
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
