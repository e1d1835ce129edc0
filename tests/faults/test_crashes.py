"""Killed anywhere, and started by many at once: nothing is half-applied, nothing is stuck."""

import contextlib
import os
import shutil
import signal
import sqlite3
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yoyo.backends.core.sqlite3
import yoyo.scripts.init
import yoyo.scripts.migrate
import yoyo.scripts.newmigration  # all that the command imports, so that its children need not
from yoyo.scripts.main import main

from poker_therapist import get_pattern_storage, testing
from poker_therapist.migrations.files import read_migrations
from poker_therapist.sqlite.backend import AtomicSQLiteBackend
from tests.helpers import old_app, snapshots
from tests.helpers.migrating import FOLDER, IDS
from tests.helpers.snapshots import Snapshot

SQL = str(FOLDER)

COMMANDS = {
    "apply": ["apply"],
    "rollback": ["rollback", "--all"],
    "reapply": ["reapply", "--all"],
}


def yoyo_command(scheme: str, command: str, path: Path) -> list[str]:
    return [*COMMANDS[command], "--no-config-file", "--batch", "--database", f"{scheme}:///{path}", SQL]


def run_yoyo(arguments: list[str]) -> None:
    """Run the yoyo command in this process, in silence; raise whatever it raises."""
    with Path(os.devnull).open("w") as nowhere:
        sys.stdout = sys.stderr = nowhere
        if main(arguments):
            raise SystemExit(1)


def run_killed_at(step: int, arguments: list[str]) -> int:
    """Run a yoyo command in a child that dies before its statement number `step`; return its exit code."""
    return testing.run_killed_at(step, lambda: run_yoyo(arguments))


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


def states_of(command: str, path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Snapshot]:
    """Run a command on a database; return its state before and after each migration."""
    states = [snapshots.everything(path)]

    def note(message: str) -> None:
        if message.startswith(("applied", "rolled back")):
            states.append(snapshots.everything(path))

    with monkeypatch.context() as patched:
        patched.setattr(AtomicSQLiteBackend, "report", staticmethod(note))
        backend = AtomicSQLiteBackend(yoyo.connections.parse_uri(f"sqlite+atomic:///{path}?backups=0"))
        files = read_migrations([SQL])
        with backend:
            if command != "apply":
                backend.rollback_migrations(backend.to_rollback(files))
            if command != "rollback":
                backend.apply_migrations(backend.to_apply(files))
    return states


@pytest.fixture(params=["empty", "old"])
def original(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A database that is new, or one of the earlier app with rows of every kind in it."""
    path = tmp_path / f"{request.param}.db"
    if request.param == "empty":
        path.touch()
    else:
        old_app.make(path, rows=36)
        old_app.add_odd_rows(path)
    return path


@pytest.fixture
def copies(tmp_path: Path) -> Callable[[Path], Path]:
    """Return a maker of copies, each in a folder of its own."""
    number = 0

    def copy(path: Path) -> Path:
        nonlocal number
        number += 1
        folder = tmp_path / f"copy {number}"
        folder.mkdir()
        return Path(shutil.copy(path, folder / "RexVoice.db"))

    return copy


@pytest.mark.parametrize("command", COMMANDS)
def test_a_kill_at_any_statement_leaves_a_whole_state_and_nothing_to_repair(
    command: str,
    original: Path,
    copies: Callable[[Path], Path],
    monkeypatch: pytest.MonkeyPatch,
    report: Callable[[str], None],
) -> None:
    """Every statement and every commit: the database is between two migrations, and the command ends well."""
    if command != "apply":
        assert run_killed_at(0, yoyo_command("sqlite+atomic", "apply", original)) == 0
    states = states_of(command, copies(original), monkeypatch)
    kills = stuck = 0
    while True:
        path = copies(original)
        arguments = yoyo_command("sqlite+atomic", command, path)
        code = run_killed_at(kills + 1, arguments)
        if code != -signal.SIGKILL:
            break
        kills += 1

        assert snapshots.everything(path) in states, f"killed at statement {kills}"
        assert snapshots.is_whole(path)

        again = run_killed_at(0, arguments)
        if command == "reapply":  # what the kill left pending is not its business
            again = again or run_killed_at(0, yoyo_command("sqlite+atomic", "apply", path))
        stuck += again != 0 or snapshots.everything(path) != states[-1]
        assert not list(path.parent.glob("*.part*"))
        shutil.rmtree(path.parent)

    report(f"{command}, {original.stem} database: {stuck} stuck of {kills} kills")
    assert code == 0
    assert kills > 4 * 8
    assert stuck == 0


def test_plain_yoyo_is_stuck_after_such_kills(tmp_path: Path, copies: Callable[[Path], Path]) -> None:
    """The fault that the atomic backend is for, so that the test above is known to see it."""
    original = tmp_path / "original.db"
    original.touch()
    stuck = 0
    for step in (20, 30, 40):
        path = copies(original)
        arguments = yoyo_command("sqlite", "apply", path)

        def run_plain(step: int = step, arguments: list[str] = arguments) -> None:
            kill_plain_yoyo_at(step)
            run_yoyo(arguments)

        assert testing.run_killed_at(0, run_plain) == -signal.SIGKILL
        with snapshots.connect(path) as connection:
            stuck += bool(connection.execute("SELECT count(*) FROM yoyo_lock").fetchone()[0])

    assert stuck > 0


def test_fifty_starters_and_yoyo_apply_at_once_apply_each_migration_once(original: Path) -> None:
    """An empty file, or an old database: all succeed, and each migration is recorded once."""
    start_fifty(original)

    assert snapshots.applied(original) == IDS
    assert operations(original) == dict.fromkeys(IDS, 1)
    assert snapshots.is_whole(original)


def test_fifty_starters_at_once_apply_the_one_pending_migration_once(original: Path) -> None:
    """One migration is pending: it is applied once, the others not again."""
    assert run_killed_at(0, yoyo_command("sqlite+atomic", "apply", original)) == 0
    backend = AtomicSQLiteBackend(yoyo.connections.parse_uri(f"sqlite+atomic:///{original}"))
    with backend:
        files = read_migrations([SQL])
        backend.rollback_migrations(backend.to_rollback(files)[:1])
    start_fifty(original)

    assert snapshots.applied(original) == IDS
    assert operations(original) == dict.fromkeys(IDS, 1) | {IDS[-1]: 2}


def operations(path: Path) -> dict[str, int]:
    """Return how often each migration was applied, from yoyo's log."""
    with snapshots.connect(path) as connection:
        return dict(
            connection.execute(
                "SELECT migration_id, count(*) FROM _yoyo_log WHERE operation = 'apply' GROUP BY 1"
            ).fetchall()
        )


def start_fifty(path: Path) -> None:
    """Open the storage in fifty processes and run `yoyo apply` in two, all at the same moment."""
    ready, go = os.pipe()
    children = []
    for number in range(52):
        child = os.fork()
        if not child:
            os.close(go)
            os.read(ready, 1)  # until the parent closes its end
            with contextlib.suppress(BaseException):
                if number % 26 == 0:
                    os._exit(run_killed_at(0, yoyo_command("sqlite+atomic", "apply", path)))
                with get_pattern_storage(path) as storage:
                    storage.save_pattern(number, "start", "process", number)
                    os._exit(storage.get_pattern(number, "start", "process") != number)
            os._exit(1)
        children.append(child)
    os.close(ready)
    os.close(go)

    assert [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children] == [0] * 52
