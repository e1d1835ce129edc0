"""Opening a database that is up to date: how long it takes to find out that there is nothing to do.

The floor is what any program must do: connect, ask for the applied ids with one SELECT, close. By hand is the
least that the storage's promises cost: its settings on the connection, a look at the folder, and the floor.
"""

import hashlib
import json
import os
import resource
import shutil
import sqlite3
import statistics
import subprocess
import sys
import sysconfig
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import psycopg
import yoyo

import poker_therapist.schema
from benchmarks import arms_postgresql
from benchmarks.against_rivals import folder_for
from benchmarks.measure import Plan, WrongAnswer, in_turn, ratio, rotated, seconds, summary
from benchmarks.report import BY_HAND, OURS, YOYO, YOYO_WITH_LOCK
from benchmarks.results import server_version
from poker_therapist.location import SQLiteLocation, locate
from poker_therapist.migrations.files import read_migrations
from poker_therapist.schema import migrations_folder, shipped_ids
from poker_therapist.sqlite.backend import AtomicSQLiteBackend
from poker_therapist.sqlite.connect import enlarge_cache, open_connection
from poker_therapist.storage import get_pattern_storage

MANY = 200
FLOOR, ALEMBIC, DBMATE = "connect and SELECT", "alembic", "dbmate"

_ALEMBIC_ENVIRONMENT = """
from alembic import context
from sqlalchemy import create_engine

with create_engine(context.config.get_main_option("sqlalchemy.url")).connect() as connection:
    context.configure(connection=connection)
    with context.begin_transaction():
        context.run_migrations()
"""
_ALEMBIC_REVISION = """
revision = {revision!r}
down_revision = {before!r}


def upgrade():
    pass
"""

# What a program has to import and do, for each tool; {0} is the database and {1} the migrations.
_PROGRAMS = {
    FLOOR: """
import sqlite3
connection = sqlite3.connect({0!r})
connection.execute("SELECT migration_id FROM _yoyo_migration").fetchall()
connection.close()
""",
    OURS: """
import pathlib
import poker_therapist.schema
poker_therapist.schema.migrations_folder = lambda engine: pathlib.Path({1!r}) / engine
from poker_therapist.storage import get_pattern_storage
get_pattern_storage({0!r}).close()
""",
    YOYO: """
import yoyo
with yoyo.get_backend("sqlite:///" + {0!r}) as backend:
    assert not backend.to_apply(yoyo.read_migrations({1!r} + "/sqlite"))
""",
    YOYO_WITH_LOCK: """
import yoyo
with yoyo.get_backend("sqlite:///" + {0!r}) as backend:
    migrations = yoyo.read_migrations({1!r} + "/sqlite")
    with backend.lock():
        backend.apply_migrations(backend.to_apply(migrations))
""",
    ALEMBIC: """
from alembic import command
from alembic.config import Config
config = Config()
config.set_main_option("script_location", {1!r})
config.set_main_option("sqlalchemy.url", "sqlite:///" + {0!r})
command.upgrade(config, "head")
""",
}


@dataclass(frozen=True)
class Tool:
    """A database that a tool has brought up to date, and the migrations that it knows."""

    database: Path
    migrations: Path

    def program(self, name: str) -> list[str]:
        """Return the command that opens the database in a process of its own."""
        if name == DBMATE:
            dbmate = Path(sysconfig.get_path("scripts"), "dbmate")
            url = f"sqlite:{self.database}"
            return [str(dbmate), "--url", url, "-d", str(self.migrations), "--no-dump-schema", "up"]
        return [sys.executable, "-c", _PROGRAMS[name].format(str(self.database), str(self.migrations))]


def write_ours(folder: Path, count: int) -> Tool:
    """Make a database to which `count` migrations have been applied: ours, and such as change nothing."""
    migrations = folder / "migrations"
    shutil.copytree(migrations_folder("sqlite"), migrations / "sqlite")
    shipped = sorted(shipped_ids("sqlite"))
    before = shipped[-1]
    for number in range(len(shipped) + 1, count + 1):
        name = f"{number:03d}_change_nothing"
        text = f"-- For the count alone.\n-- depends: {before}\nSELECT 1;\n"
        (migrations / "sqlite" / f"{name}.sql").write_text(text, encoding="utf-8")
        (migrations / "sqlite" / f"{name}.rollback.sql").write_text("-- Nothing.\n", encoding="utf-8")
        before = name
    database = folder / "RexVoice.db"
    with AtomicSQLiteBackend(locate(f"sqlite:///{database}?backups=0")) as backend:
        backend.apply_migrations(backend.to_apply(read_migrations([str(migrations / "sqlite")])))
    tool = Tool(database, migrations)
    with shipped_in(migrations):
        _open_ours(tool)  # which puts it on a write-ahead log
    return tool


def write_alembic(folder: Path, count: int) -> Tool:
    """Make a database with `count` revisions of alembic's, which change nothing."""
    migrations = folder / "alembic"
    (migrations / "versions").mkdir(parents=True)
    (migrations / "env.py").write_text(_ALEMBIC_ENVIRONMENT, encoding="utf-8")
    before = None
    for number in range(1, count + 1):
        revision = f"{number:03d}"
        text = _ALEMBIC_REVISION.format(revision=revision, before=before)
        (migrations / "versions" / f"{revision}_nothing.py").write_text(text, encoding="utf-8")
        before = revision
    tool = Tool(folder / "alembic.db", migrations)
    _open_alembic(tool)
    return tool


def write_dbmate(folder: Path, count: int) -> Tool:
    """Make a database with `count` migrations of dbmate's, which change nothing."""
    migrations = folder / "dbmate"
    migrations.mkdir()
    for number in range(1, count + 1):
        text = "-- migrate:up\nSELECT 1;\n-- migrate:down\n"
        (migrations / f"{number:03d}_nothing.sql").write_text(text, encoding="utf-8")
    tool = Tool(folder / "dbmate.db", migrations)
    _run(tool.program(DBMATE))
    return tool


def _open_ours(tool: Tool) -> None:
    get_pattern_storage(tool.database).close()


@contextmanager
def shipped_in(folder: Path) -> Iterator[None]:
    """Let the storage take the migrations of this folder for its own."""
    with mock.patch.object(poker_therapist.schema, "migrations_folder", lambda engine: folder / engine):
        yield


def _open_by_hand(tool: Tool) -> None:
    with closing(open_connection(SQLiteLocation(tool.database))) as connection:
        enlarge_cache(connection)
        applied = {name for (name,) in connection.execute("SELECT migration_id FROM _yoyo_migration")}
        if len(applied) * 2 != len(os.listdir(tool.migrations / "sqlite")):  # noqa: PTH208  # as the storage
            raise WrongAnswer("some are pending")
        connection.execute("PRAGMA journal_mode").fetchone()


def _open_floor(tool: Tool) -> None:
    with closing(sqlite3.connect(tool.database)) as connection:
        connection.execute("SELECT migration_id FROM _yoyo_migration").fetchall()


def _open_yoyo(tool: Tool) -> None:
    with yoyo.get_backend(f"sqlite:///{tool.database}") as backend:
        if backend.to_apply(yoyo.read_migrations(str(tool.migrations / "sqlite"))):
            raise WrongAnswer("yoyo has not been told")


def _open_yoyo_with_lock(tool: Tool) -> None:
    with yoyo.get_backend(f"sqlite:///{tool.database}") as backend:
        migrations = yoyo.read_migrations(str(tool.migrations / "sqlite"))
        with backend.lock():
            backend.apply_migrations(backend.to_apply(migrations))


def _open_alembic(tool: Tool) -> None:
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(tool.migrations))
    config.set_main_option("sqlalchemy.url", f"sqlite:///{tool.database}")
    command.upgrade(config, "head")


def _run(command: list[str], folder: Path | None = None) -> None:
    subprocess.run(command, check=True, capture_output=True, cwd=folder)


def _medians(
    calls: Mapping[str, Callable[[], object]], rounds: int, repetitions: int
) -> dict[str, list[float]]:
    """Return the median of so many openings by each tool, for each repetition; they take turns one by one."""
    for call in calls.values():
        call()  # the first time it imports
    found: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(repetitions):
        taken: dict[str, list[float]] = {name: [] for name in calls}
        for turn in range(rounds):
            for name in rotated(list(calls), turn):
                taken[name].append(seconds(calls[name]))
        for name, each in taken.items():
            found[name].append(statistics.median(each))
    return found


def _beyond(times: dict[str, list[float]], name: str) -> list[float]:
    """Return what a tool takes beyond connecting, repetition by repetition."""
    return [taken - floor for taken, floor in zip(times[name], times[FLOOR], strict=True)]


def _compared(times: dict[str, list[float]]) -> dict[str, Any]:
    """Return a tool's time beside ours: all of it, and what is beyond connecting."""
    ours = _beyond(times, OURS)
    return {
        # The one aim that is a time.
        "milliseconds_beyond_connecting": summary([1000 * taken for taken in ours]),
        "beyond_connecting": {
            name: ratio(_beyond(times, name), ours) for name in times if name not in (FLOOR, OURS)
        },
        "imports_left_out": {name: ratio(taken, times[OURS]) for name, taken in times.items()},
    }


def sqlite(plan: Plan) -> dict[str, Any]:
    """Measure with few and with many migrations, imports left out and counted in."""
    found: dict[str, Any] = {}
    ours: dict[int, list[float]] = {}
    for count in (len(shipped_ids("sqlite")), MANY):
        with folder_for(plan, "opening") as folder:
            known, alembic = write_ours(folder, count), write_alembic(folder, count)
            tools = dict.fromkeys((FLOOR, OURS, YOYO, YOYO_WITH_LOCK), known)
            tools |= {ALEMBIC: alembic, DBMATE: write_dbmate(folder, count)}
            with shipped_in(known.migrations):
                times = _medians(
                    {
                        FLOOR: partial(_open_floor, known),
                        BY_HAND: partial(_open_by_hand, known),
                        OURS: partial(_open_ours, known),
                        YOYO: partial(_open_yoyo, known),
                        YOYO_WITH_LOCK: partial(_open_yoyo_with_lock, known),
                        ALEMBIC: partial(_open_alembic, alembic),
                    },
                    plan.pick(20, 3),
                    plan.repetitions,
                )
            whole = in_turn(
                {name: partial(_run, tool.program(name)) for name, tool in tools.items()}, plan.repetitions
            )
            ours[count] = times[OURS]
            found[str(count)] = {
                **_compared(times),
                "imports_counted_in": {name: ratio(taken, whole[OURS]) for name, taken in whole.items()},
                **_what_it_leaves(known),
            }
    few, many = ours.values()
    return {"counts": found, "many_by_few": ratio(many, few)}


def start_up(plan: Plan) -> dict[str, Any]:
    """Measure the processor time of whole processes: imports, and the commands that say where one stands."""
    with folder_for(plan, "start up") as folder:
        database = folder / "RexVoice.db"
        get_pattern_storage(database).close()
        scripts = Path(sysconfig.get_path("scripts"))
        (folder / "yoyo.ini").write_text(
            f"[DEFAULT]\nsources = {migrations_folder('sqlite')}\n"
            f"database = sqlite+atomic:///{database}\nbatch_mode = on\n",
            encoding="utf-8",
        )
        ours = str(scripts / "poker-therapist")
        commands = {
            "python": [sys.executable, "-c", "pass"],
            "import": [sys.executable, "-c", "import poker_therapist"],
            "version": [ours, "--version"],
            "status": [ours, "status", "--database", str(database)],
            "list": [str(scripts / "yoyo"), "list"],
        }
        times = in_turn(
            {name: partial(_run, command, folder) for name, command in commands.items()},
            plan.pick(20, 2),
            clock=_processor_time_of_children,
        )
    imported = zip(times["import"], times["python"], strict=True)
    return {
        "import_milliseconds": summary([1000 * (whole - bare) for whole, bare in imported]),
        "by_yoyo_list": {name: ratio(times[name], times["list"]) for name in ("version", "status")},
    }


def _processor_time_of_children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _what_it_leaves(tool: Tool) -> dict[str, bool]:
    """Return whether opening wrote anything and whether it imported yoyo."""

    def state() -> list[tuple[str, str, int]]:
        return [
            (file.name, hashlib.sha256(file.read_bytes()).hexdigest(), file.stat().st_mtime_ns)
            for file in sorted(tool.database.parent.glob(f"{tool.database.name}*"))
        ]

    before = state()
    command = tool.program(OURS)
    command[-1] += "\nimport sys, json\nprint(json.dumps('yoyo' in sys.modules))"
    printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return {"nothing_written": state() == before, "yoyo_not_imported": json.loads(printed) is False}


def postgresql(plan: Plan) -> dict[str, Any]:
    """Measure on a server, where connecting takes most of the time."""

    def floor(url: str) -> None:
        with closing(psycopg.connect(url, autocommit=True)) as connection:
            connection.execute("SELECT migration_id FROM _yoyo_migration").fetchall()

    def check(url: str) -> None:
        with yoyo.get_backend(url.replace("postgresql://", "postgresql+psycopg://")) as backend:
            if backend.to_apply(yoyo.read_migrations(str(migrations_folder("postgresql")))):
                raise WrongAnswer("yoyo has not been told")

    with (
        arms_postgresql.server() as databases,
        databases.fresh(databases.template(arms_postgresql.migrate)) as url,
    ):
        times = _medians(
            {
                FLOOR: partial(floor, url),
                OURS: partial(arms_postgresql.migrate, url),
                YOYO: partial(check, url),
            },
            plan.pick(20, 2),
            plan.repetitions,
        )
        return {"server": server_version(url), **_compared(times)}


PARTS = {"start_up": start_up, "opening_sqlite": sqlite, "opening_postgresql": postgresql}
