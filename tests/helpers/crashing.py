"""Migrations that are killed at a statement, on either engine."""

import contextlib
import os
import shutil
import signal
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager
from itertools import count
from pathlib import Path

from poker_therapist import get_pattern_storage, testing
from poker_therapist.engines import engine_for
from poker_therapist.location import locate
from poker_therapist.schema import migrations_folder
from poker_therapist.testing.scratch import SQLiteScratch
from tests.helpers import old_app, postgresql
from tests.helpers.databases import Databases
from tests.helpers.engines import is_server, run_sql
from tests.helpers.migrating import IDS
from tests.helpers.players import add_legacy_rows
from tests.helpers.postgresql import IN_PARTS, PATIENCE, ROWS, migrate, name_of
from tests.helpers.snapshots import Left, Snapshot, everything, is_whole, left_by

COMMANDS = {"apply": ["apply"], "rollback": ["rollback", "--all"], "reapply": ["reapply", "--all"]}
# By its id: without one yoyo warns that it rolls back one alone.
_ARGUMENTS = {**COMMANDS, "rollback last": ["rollback", "--revision", IDS[-1]]}


def states_of(command: str, database: str, floor: str = IDS[0]) -> list[Snapshot]:
    """Run a command on a database, down to a migration; return its state before and after each one."""
    states = [everything(database)]

    def note(message: str) -> None:
        if message.startswith(("applied", "rolled back")):
            states.append(everything(database))

    folder = migrations_folder("postgresql" if is_server(database) else "sqlite")
    with engine_for(locate(database)).backend() as backend:
        backend.report = note
        files = backend.read([str(folder)])
        if command != "apply":
            undone = backend.to_rollback(files)
            backend.rollback_migrations(undone.filter(lambda migration: migration.id >= floor))
        if command != "rollback":
            backend.apply_migrations(backend.to_apply(files))
    return states


class OnSQLite:
    """A file that is copied for each kill."""

    # The migrations that are not one transaction: between their statements a kill leaves a part.
    in_parts: tuple[str, ...] = ()

    def __init__(self, folder: Path, kind: str) -> None:
        # What has adopted tables is not rolled back.
        self.floor = IDS[0] if kind == "empty" else IDS[1]
        self.folder = folder
        self.original = folder / "original.db"
        if kind == "empty":
            self.original.touch()
        else:
            old_app.make(self.original, rows=36)
            old_app.add_odd_rows(self.original)

    @contextlib.contextmanager
    def copy(self) -> Iterator[str]:
        """Give a copy in a folder of its own, in which nothing half-written may be left."""
        folder = self.folder / "copy"
        folder.mkdir()
        yield str(shutil.copy(self.original, folder / "RexVoice.db"))
        assert not list(folder.glob("*.part*"))
        shutil.rmtree(folder)

    def run(self, command: str, database: str | None = None, step: int = 0) -> int:
        """Run a yoyo command in a child, killed before a statement unless that is 0; return its code."""
        path = Path(database or self.original)
        arguments = yoyo_arguments("sqlite+atomic", command, path, self.floor)
        return testing.run_killed_at(step, lambda: run_yoyo(arguments))

    def left_at(self, command: str, one_in: int) -> list[Left]:
        """Return what a kill before each of so many statements would leave, from copies of the files.

        One run, which nobody kills, copies them: of a killed process the system keeps what it has written and
        drops the locks, and so does a copy. Where that is something new, the test kills a process after all.
        """
        steps = count(1)

        def copy_files(_statement: str) -> None:
            if (step := next(steps)) % one_in == 0:
                shutil.copytree(self.folder / "copy", self.folder / f"step-{step}")

        def watched(arguments: list[str]) -> None:
            SQLiteScratch(self.folder).watch(copy_files)
            run_yoyo(arguments)

        with self.copy() as database:
            arguments = yoyo_arguments("sqlite+atomic", command, Path(database), self.floor)
            assert testing.run_killed_at(0, lambda: watched(arguments)) == 0
        found = list[Left]()
        for step in count(one_in, one_in):
            folder = self.folder / f"step-{step}"
            if not folder.exists():
                return found
            assert is_whole(folder / "RexVoice.db")
            found.append(left_by(folder / "RexVoice.db"))
            shutil.rmtree(folder)
        return found

    def add_rows(self) -> None:
        """Add what only an up-to-date database can hold: here the migrations themselves have."""


class OnPostgreSQL:
    """A database of which a new one is made for each kill."""

    in_parts = tuple(migration.id for migration in IN_PARTS)
    floor = IDS[0]

    def __init__(self, url: str, kind: str, databases: Databases) -> None:
        self.original = url
        self.databases = databases
        if kind != "empty":
            apply_first(url)

    def copy(self) -> AbstractContextManager[str]:
        """Give a copy of the original."""
        return self.databases.fresh(name_of(self.original))

    def run(self, command: str, database: str | None = None, step: int = 0) -> int:
        """Run a yoyo command in a child, killed before a statement unless that is 0; return its code."""
        return migrate(_ARGUMENTS[command], database or self.original, step).code

    def left_at(self, _command: str, _one_in: int) -> list[Left]:
        """Return nothing: what a server would leave nobody can copy."""
        return []

    def add_rows(self) -> None:
        """Add what only an up-to-date database can hold."""
        add_legacy_rows(self.original)


def apply_first(url: str) -> None:
    """Apply 001 to a PostgreSQL database and put rows into its tables."""
    assert migrate(["apply", "-m", "001"], url).code == 0
    run_sql(url, ROWS)


def yoyo_arguments(scheme: str, command: str, path: Path, floor: str = IDS[0]) -> list[str]:
    """Return the arguments of a yoyo command for an SQLite database and our own migrations, down to one."""
    arguments = _ARGUMENTS[command]
    if "--all" in arguments:
        arguments = [command, "--revision", floor]
    options = ["--no-config-file", "--batch", "--database", f"{scheme}:///{path}"]
    return [*arguments, *options, str(migrations_folder("sqlite"))]


def run_yoyo(arguments: list[str]) -> None:
    """Run the yoyo command in this process, which ends then, in silence; raise whatever it raises."""
    with Path(os.devnull).open("w") as nowhere:
        sys.stdout = sys.stderr = nowhere
        if postgresql.run_yoyo(arguments):
            raise SystemExit(1)


def start_fifty(crashing: OnSQLite | OnPostgreSQL) -> None:
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
                    os._exit(crashing.run("apply"))
                with get_pattern_storage(crashing.original) as storage:
                    storage.save_pattern(number, "start", "process", number)
                    os._exit(storage.get_pattern(number, "start", "process") != number)
            os._exit(1)
        children.append(child)
    os.close(ready)
    os.close(go)

    assert [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children] == [0] * 52
