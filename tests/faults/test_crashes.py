"""Killed anywhere, and started by many at once: nothing is half-applied, nothing is stuck."""

import os
import shutil
import signal
import sqlite3
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yoyo.backends.core.sqlite3

from poker_therapist import testing
from poker_therapist.location import locate
from poker_therapist.migrations.status import State
from poker_therapist.schema import read_status
from tests.helpers import snapshots
from tests.helpers.crashing import (
    OnPostgreSQL,
    OnSQLite,
    run_yoyo,
    start_fifty,
    states_of,
    yoyo_arguments,
)
from tests.helpers.engines import per_engine, query
from tests.helpers.migrating import IDS
from tests.helpers.snapshots import interrupted, operations

# A command and what the database holds; killed before one in so many statements. On SQLite the tests of the
# folder, in test_own_migrations.py, kill at every one, and all of one transaction leave the same. Most
# statements on an empty database are those of a populated one; what reapply does, the others do.
ONE_IN = {
    "sqlite": {
        ("apply", "populated"): 2,
        ("apply", "empty"): 4,
        ("rollback", "populated"): 2,
        ("rollback", "empty"): 5,
        ("reapply", "populated"): 6,
        ("reapply", "empty"): 9,
    },
    "postgresql": {
        ("apply", "populated"): 4,
        ("apply", "empty"): 6,
        ("rollback", "populated"): 5,
        ("rollback", "empty"): 6,
        ("reapply", "populated"): 9,
        ("reapply", "empty"): 9,
    },
}
# How many statements that do more than read each command has at least.
STATEMENTS = {"sqlite": 4 * 8, "postgresql": 4 * 12}


@pytest.fixture
def crashing(
    engine: str, tmp_path: Path, request: pytest.FixtureRequest
) -> Callable[[str], OnSQLite | OnPostgreSQL]:
    """Return a maker of a database, empty or populated, on which commands are killed."""

    def make(kind: str) -> OnSQLite | OnPostgreSQL:
        if engine == "sqlite":
            return OnSQLite(tmp_path, kind)
        url, databases = (request.getfixturevalue(name) for name in ("postgresql_url", "databases"))
        return OnPostgreSQL(url, kind, databases)

    return make


@pytest.mark.slow
@per_engine(ONE_IN)
def test_a_kill_at_any_statement_leaves_a_whole_state_and_nothing_to_repair(
    engine: str,
    case: tuple[str, str],
    crashing: Callable[[str], OnSQLite | OnPostgreSQL],
    report: Callable[[str], None],
) -> None:
    """Between two migrations; or in the middle of one that is not transactional, and then status says so.

    On SQLite the files are looked at before each of these statements, as a kill there would leave them, and a
    process is killed where they hold what no kill has left before; that it leaves the same is checked.
    """
    command, kind = case
    one_in = ONE_IN[engine][case]
    target = crashing(kind)
    if command != "apply":
        assert target.run("apply") == 0
        if kind == "populated":
            target.add_rows()
    with target.copy() as database:
        states = states_of(command, database, target.floor)
    would_leave = target.left_at(command, one_in)
    shown: set[str] = set()
    # What kills have left and the next run has finished: it does the same where it finds the same.
    finished: list[snapshots.Left] = []
    points = kills = stuck = in_parts = 0
    code = -signal.SIGKILL
    while code == -signal.SIGKILL:
        expected = would_leave[points : points + 1]
        if expected and expected[0] in finished:
            points += 1
            continue
        with target.copy() as database:
            code = target.run(command, database, one_in * (points + 1))
            if code != -signal.SIGKILL:
                break
            points += 1
            kills += 1

            assert snapshots.is_whole(database)
            left = None
            if begun := snapshots.interrupted(database):
                in_parts += 1
                (stopped,) = begun
                assert stopped in target.in_parts, f"point {points}"
                if stopped not in shown:  # once: it takes longer than the killing
                    told = {one.id: one.state for one in read_status(locate(database)).migrations}
                    assert told[stopped] is State.INTERRUPTED
                    shown.add(stopped)
            else:
                left = snapshots.left_by(database)
                assert expected in ([], [left])
                if left in finished:
                    continue
                assert left.state in states, f"point {points}"

            codes = [target.run(command, database)]
            if command == "reapply":  # what the kill left pending is not its business
                codes.append(target.run("apply", database))
            now = snapshots.left_by(database)
            if any(codes) or now.state != states[-1] or now.interrupted != []:
                stuck += 1
            elif left:
                finished.append(left)

    report(
        f"{engine}, {command}, {kind} database: {stuck} stuck after {points} points, at one in {one_in} "
        f"statements; {kills} kills there have left {len(finished)} whole states, and {in_parts} times the "
        "inside of a migration that is not transactional"
    )
    assert code == 0
    assert points * one_in > STATEMENTS[engine]
    assert kills >= len(finished)
    assert shown == {*target.in_parts}
    assert stuck == 0


def kill_plain_yoyo_at(step: int) -> None:
    """Do to plain yoyo's connections what `kill_at` does to ours."""
    seen = 0
    connect = yoyo.backends.core.sqlite3.SQLiteBackend.connect

    def count(_statement: str) -> None:
        nonlocal seen
        seen += 1
        if seen == step:
            os.kill(os.getpid(), signal.SIGKILL)

    def traced(*arguments: Any) -> sqlite3.Connection:
        connection: sqlite3.Connection = connect(*arguments)
        connection.set_trace_callback(count)
        return connection

    yoyo.backends.core.sqlite3.SQLiteBackend.connect = traced


def test_plain_yoyo_is_stuck_after_such_kills(tmp_path: Path) -> None:
    """The fault that the atomic backend is for, so that the test above is known to see it."""
    stuck = 0
    for step in (20, 30, 40):
        path = tmp_path / str(step) / "RexVoice.db"
        path.parent.mkdir()
        arguments = yoyo_arguments("sqlite", "apply", path)

        def run_plain(step: int = step, arguments: list[str] = arguments) -> None:
            kill_plain_yoyo_at(step)
            warnings.simplefilter("ignore")  # plain yoyo binds datetimes, which Python 3.12 deprecates
            run_yoyo(arguments)

        assert testing.run_killed_at(0, run_plain) == -signal.SIGKILL
        with snapshots.connect(path) as connection:
            stuck += bool(connection.execute("SELECT count(*) FROM yoyo_lock").fetchone()[0])
        shutil.rmtree(path.parent)

    assert stuck > 0


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["empty", "populated", "one pending"])
def test_fifty_processes_and_yoyo_apply_at_once_apply_each_migration_once(
    kind: str, crashing: Callable[[str], OnSQLite | OnPostgreSQL]
) -> None:
    """All succeed, and each migration is recorded once; the one that is pending a second time."""
    target = crashing(kind)
    expected = dict.fromkeys(IDS, 1)
    if kind == "one pending":
        assert target.run("apply") == 0
        assert target.run("rollback last") == 0
        expected[IDS[-1]] = 2
    start_fifty(target)

    assert snapshots.applied(target.original) == IDS
    assert operations(target.original) == expected
    assert interrupted(target.original) == []
    assert snapshots.is_whole(target.original)
    assert query(target.original, "SELECT count(*) FROM user_patterns WHERE pattern_type = 'start'") == [
        (50,)
    ]
