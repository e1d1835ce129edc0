"""Migrations on PostgreSQL in tests: what is in a database, and yoyo run on it in a child of this process."""

import contextlib
import functools
import io
import logging
import os
import signal
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil
import psycopg
import yoyo.backends.base
import yoyo.backends.core.postgresql
import yoyo.scripts.init
import yoyo.scripts.main
import yoyo.scripts.migrate
import yoyo.scripts.newmigration  # all that the command imports: its children need not
from yoyo.backends.base import get_backend_class

from poker_therapist import get_pattern_storage
from poker_therapist.location import PostgreSQLLocation, locate
from poker_therapist.migrations.files import SQLMigration, read_migrations
from poker_therapist.schema import migrations_folder
from tests.helpers.cli import Result
from tests.helpers.engines import query

FOLDER = migrations_folder("postgresql")
IDS = sorted(path.stem for path in FOLDER.glob("*.sql") if not path.name.endswith(".rollback.sql"))

MIGRATIONS: list[SQLMigration] = list(read_migrations([str(FOLDER)]))
CITUS: SQLMigration = read_migrations([str(FOLDER), str(migrations_folder("citus"))])[-1]
IN_PARTS = [migration for migration in MIGRATIONS if not migration.use_transactions]

ROWS = """
    INSERT INTO user_patterns (user_id, pattern_type, pattern_key, pattern_value)
    SELECT player, 'tilt', 'bad beat', '{"b": 1, "a": 1.0, "a": 2}' FROM generate_series(1, 9) AS player;
    INSERT INTO conversation_context (user_id, context_key, context_value, expires_at)
    SELECT player, 'mood', '"calm"', now() FROM generate_series(1, 9) AS player;
    INSERT INTO user_insights (user_id, insight_type, insight_data)
    SELECT player, 'leak', 'null' FROM generate_series(1, 9) AS player;
"""

# What the app has beside our tables.
APP_TABLES = """
    CREATE TABLE users (id SERIAL PRIMARY KEY, email TEXT);
    CREATE TABLE messages (id INT PRIMARY KEY, user_id INT REFERENCES users (id), content TEXT);
    INSERT INTO users (email) VALUES ('ann@example.org');
"""

# What the command looks up, builds and compiles whenever it is run, more than half of what it takes: its
# children are given it. The parsers ask nobody, as without a terminal.
yoyo.backends.base.entry_points = functools.cache(yoyo.backends.base.entry_points)
for _scheme in ("sqlite+atomic", "postgresql+atomic"):
    get_backend_class(_scheme)
with contextlib.redirect_stdout(io.StringIO()):
    _PARSERS = yoyo.scripts.main.make_argparser()
with tempfile.TemporaryDirectory() as _folder:
    get_pattern_storage(f"{_folder}/migrated.db").close()

# An ini file with which yoyo rolls back what holds rows.
LOSES_ROWS = Path(__file__).with_name("loses_rows.ini")

_READS = ("SELECT", "SET", "SHOW", "RESET", "DISCARD")

# Seconds after which a child that hangs is killed.
PATIENCE = 60


def atomic(url: str) -> str:
    """Return the URL of a database for our backend."""
    return url.replace("postgresql:", "postgresql+atomic:", 1)


def server_location(url: str) -> PostgreSQLLocation:
    """Return where a URL leads."""
    location = locate(url)
    assert isinstance(location, PostgreSQLLocation)
    return location


def name_of(url: str) -> str:
    """Return the name of the database at a URL."""
    return urlsplit(url).path[1:]


def locks(url: str) -> list[tuple[Any, ...]]:
    """Return the advisory locks that sessions hold in a database."""
    return query(
        url,
        "SELECT pid, classid, objid FROM pg_locks WHERE locktype = 'advisory' "
        "AND database = (SELECT oid FROM pg_database WHERE datname = current_database())",
    )


def kill_at(step: int | str, kill: Callable[[], None]) -> None:
    """Have the driver watch what this process asks of servers, COMMIT included, and kill once.

    Before the statement of that number, or the first with that text. What only reads, or sets something for
    the session, has no number: to die there is to die before the next that does more.
    """
    seen = 0
    execute = psycopg.Cursor.execute

    def watched(self: psycopg.Cursor, query: Any, *arguments: Any, **options: Any) -> psycopg.Cursor:
        nonlocal seen
        text = _text(query)
        counts = not text.lstrip().upper().startswith(_READS)
        seen += counts
        if (counts and step == seen) or (isinstance(step, str) and step in text):
            psycopg.Cursor.execute = execute  # type: ignore[method-assign]
            kill()
        return execute(self, query, *arguments, **options)

    psycopg.Cursor.execute = watched  # type: ignore[assignment, method-assign]


def in_child(action: Callable[[], Any]) -> Result:
    """Run something in a child of this process, which has loaded all that it needs; nobody is asked."""
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as error:
        child = os.fork()
        if not child:
            signal.alarm(PATIENCE)
            code = 1
            os.dup2(out.fileno(), 1)
            os.dup2(error.fileno(), 2)
            with (
                contextlib.suppress(BaseException),
                open(1, "w", closefd=False) as sys.stdout,
                open(2, "w", closefd=False) as sys.stderr,
            ):
                try:
                    code = int(action() or 0)
                except SystemExit as end:
                    code = end.code if isinstance(end.code, int) else bool(end.code)
                except BaseException:
                    sys.excepthook(*sys.exc_info())
            os._exit(code)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        for file in (out, error):
            file.seek(0)
        return Result(code, out.read(), error.read())


def _text(query: Any) -> str:
    return query.decode() if isinstance(query, bytes) else str(query)


def kill_itself() -> None:
    """Kill this process."""
    os.kill(os.getpid(), signal.SIGKILL)


def run_yoyo(arguments: Sequence[str]) -> Any:
    """Run the yoyo command in this process, which ends then: the parsers can be used once."""
    yoyo.scripts.main.make_argparser = lambda: _PARSERS
    return yoyo.scripts.main.main(list(arguments))


def yoyo_in_child(
    *arguments: str | Path,
    folder: Path,
    environment: dict[str, str] | None = None,
    step: int | str = 0,
    kill: Callable[[], None] = kill_itself,
) -> Result:
    """Run the yoyo command in a folder; it is killed at a step, unless that is 0: see `kill_at`."""

    def action() -> Any:
        os.chdir(folder)
        os.environ.update(environment or {})
        sys.excepthook = sys.__excepthook__
        signal.signal(signal.SIGINT, signal.default_int_handler)
        warnings.resetwarnings()
        logging.getLogger().handlers.clear()
        kill_at(step, kill)
        return run_yoyo([str(argument) for argument in arguments])

    return in_child(action)


def migrate(
    command: Sequence[str], url: str, step: int | str = 0, kill: Callable[[], None] = kill_itself
) -> Result:
    """Run a yoyo command with the project's own migrations; see `yoyo_in_child`."""
    options = ["--config", str(LOSES_ROWS), "--batch", "--database", atomic(url)]
    return yoyo_in_child(*command, *options, FOLDER, folder=FOLDER, step=step, kill=kill)


def wait_for_rows(url: str, counted: str) -> None:
    """Wait until a query counts something."""
    deadline = time.monotonic() + 30
    while query(url, counted) == [(0,)]:
        assert time.monotonic() < deadline
        time.sleep(0.005)


def kill_process_tree(process: int) -> None:
    """Kill a child of this process, and its own."""
    for one in [*psutil.Process(process).children(recursive=True), psutil.Process(process)]:
        one.kill()
    os.waitpid(process, 0)
