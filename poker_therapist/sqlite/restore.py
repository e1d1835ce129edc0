"""Restoring a backup of an SQLite file, while others are connected."""

import contextlib
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from poker_therapist.errors import (
    DatabaseBusy,
    DatabaseNotFound,
    DatabaseReadOnly,
    DatabaseUnreadable,
    InvalidInput,
    PokerTherapistError,
    SchemaTooNew,
    escaped,
)
from poker_therapist.location import SQLiteLocation, command_about
from poker_therapist.migrations.progress import report_progress
from poker_therapist.migrations.status import State, read_states
from poker_therapist.new_files import new_file, one_at_a_time, time_for_names
from poker_therapist.sqlite.backend import AtomicSQLiteBackend
from poker_therapist.sqlite.backup import PAGES, back_up, hold_snapshot, patience, prune, read_only
from poker_therapist.sqlite.connect import (
    find_file,
    integrity_error,
    is_there,
    open_connection,
    translating_errors,
)
from poker_therapist.tables import StoredTable


def restore(
    location: SQLiteLocation, backup: Path, sources: Sequence[str], tables: Sequence[StoredTable]
) -> Path | None:
    """Replace a database with a backup, while others are connected to it.

    Readers keep their snapshot until their next transaction. What others write while this runs is replaced
    too, and is not in the backup of the replaced database: stop writers first.

    Args:
        location: the database; made if it is not there.
        backup: a file that was made by a backup, or is a whole database file.
        sources: the folders of the migrations that this version of the code knows.
        tables: the tables of which a backup has at least one.

    Returns:
        The backup that was made of what was replaced; None if nothing was there.

    Raises:
        DatabaseNotFound: there is no such file.
        DatabaseUnreadable: the file is no database or damaged, or is none of ours.
        SchemaTooNew: it was made by a later version of the code.
        InvalidInput: it is the database itself.
    """
    if not is_there(backup):  # a database must not be made of a name that was mistyped
        call = command_about(location, "backup", "--list")
        raise DatabaseNotFound(f"there is no backup {backup}: correct the path; `{call}` lists the backups")
    find_file(backup, create=False)
    if is_there(location.path):
        find_file(location.path, create=False)
        if location.path.samefile(backup):
            raise InvalidInput(f"{backup} is the database itself: give the path of a backup")
    source_location = replace(location, path=backup.absolute())
    with (
        translating_errors(source_location),
        contextlib.closing(read_only(backup)) as source,
        contextlib.ExitStack() as closing,
    ):
        report_progress(f"checking {backup.name}")
        if damage := integrity_error(source):
            raise DatabaseUnreadable(f"{backup} is damaged ({damage}): use another backup")
        names = {name for (name,) in source.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")}
        if not names & {*(table.name for table in tables), "_yoyo_migration", "_migration_text"}:
            raise DatabaseUnreadable(f"{backup} is a database, but not of Poker Therapist: correct the path")
        with AtomicSQLiteBackend(source_location) as backend:
            # Of a file that may come from anywhere, no text is run.
            found, _ = read_states(backend, {one.id: one for one in backend.read(sources)})
        newer = [one.id for one in found if one.state is State.UNKNOWN and not one.is_compatible]
        if newer:
            raise SchemaTooNew(
                f"{backup} was made by a later version ({escaped(', '.join(newer))}): update the code"
            )
        folder = Path(os.path.realpath(location.path)).parent
        busy = f"another restore is running in {folder}: wait until it has finished, then restore again"
        closing.enter_context(one_at_a_time([folder], location.timeout, DatabaseBusy(busy)))
        replaced = _keep_replaced(location)
        closing.enter_context(_naming(replaced))
        find_file(location.path, create=True)
        durable = replace(location, synchronous="FULL")
        with translating_errors(location), contextlib.closing(open_connection(durable)) as target:
            if not replaced or replaced.suffix != ".backup":
                _require_empty(location, target)
            sizes = [one.execute("PRAGMA page_size").fetchone() for one in (source, target)]
            if sizes[0] != sizes[1]:  # which a log cannot change; this waits until nobody is connected
                target.execute("PRAGMA journal_mode = DELETE").fetchone()
            hold_snapshot(source)
            source.backup(target, pages=PAGES, progress=patience(location, f"restoring {backup.name}"))
    if replaced and replaced.suffix == ".backup":
        prune(location, replaced, keep=[backup.absolute()])
    return replaced


def _keep_replaced(location: SQLiteLocation) -> Path | None:
    """Keep what a backup replaces: as a backup, or, if it is damaged, as it is; None if there was nothing."""
    path = location.path
    if not path.exists() or not path.stat().st_size:
        return None
    try:
        return back_up(location, "restore")
    except DatabaseUnreadable:
        real = Path(os.path.realpath(path))
        aside = real.with_name(f"{real.name}.{time_for_names()}.damaged")
        with _keeping_others_out(real):
            for ending in ("", "-wal", "-journal"):
                if (part := Path(f"{real}{ending}")).exists():
                    with (
                        part.open("rb") as damaged,
                        new_file(Path(f"{aside}{ending}")) as (_, descriptor),
                        open(descriptor, "wb", closefd=False) as copy,
                    ):
                        shutil.copyfileobj(damaged, copy, 2**20)
            for ending in ("-wal", "-shm", "-journal"):
                Path(f"{real}{ending}").unlink(missing_ok=True)
            os.truncate(real, 0)  # and not renamed: who has it open will see what is restored
        return aside


@contextlib.contextmanager
def _naming(replaced: Path | None) -> Iterator[None]:
    """Add to an error the path under which the damaged database is kept: its own file is empty by then."""
    try:
        yield
    except PokerTherapistError as error:
        if replaced is None or replaced.suffix == ".backup":
            raise
        raise error.with_message(f"{error}\nThe damaged database is kept as {replaced}") from error


# For a separate process, because locks of one process do not conflict. SQLite locks these bytes, and who
# has read a database in WAL mode keeps a lock while connected: https://sqlite.org/src/file/src/os.h
_KEEP_OUT = """
import fcntl, sys
with open(sys.argv[1], "r+b") as file:
    fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB, 512, 2**30)
    print(flush=True)
    sys.stdin.read()
"""


@contextlib.contextmanager
def _keeping_others_out(path: Path) -> Iterator[None]:
    """Lock a damaged file against all readers and writers for a block, whatever is left of its first page.

    Raises:
        DatabaseBusy: another process is connected to it, and would continue with the damaged file.
    """
    if not os.access(path, os.W_OK):
        raise DatabaseReadOnly(f"{path} is not writable: correct the permissions of the file and its folder")
    busy = DatabaseBusy(
        f"{path} is damaged, and a connected program would still write to the damaged file: stop it, then "
        "restore again"
    )
    if os.name == "nt":
        try:
            path.rename(path)  # which Windows refuses while it is open
        except PermissionError as error:
            raise busy from error
        yield
        return
    with subprocess.Popen(  # noqa: S603  # no shell, and a text of ours
        [sys.executable, "-I", "-c", _KEEP_OUT, path],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    ) as keeper:
        if not (keeper.stdout and keeper.stdout.readline()):
            raise busy
        yield


def _require_empty(location: SQLiteLocation, target: sqlite3.Connection) -> None:
    """Take the lock of an empty file, and keep it.

    Raises:
        DatabaseBusy: another process has created a database in it, of which there is no backup.
    """
    target.execute("PRAGMA locking_mode = EXCLUSIVE").fetchone()
    target.execute("BEGIN EXCLUSIVE")
    target.execute("ROLLBACK")
    if target.execute("PRAGMA page_count").fetchone() != (0,):
        raise DatabaseBusy(
            f"another program wrote to {location.path} during the restore: stop it, then restore again"
        )
