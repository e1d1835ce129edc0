"""Erasing what deleted rows have left in the unused bytes of an SQLite file.

`secure_delete` overwrites a deleted row, but not what was left of it when a page was split, nor what a
program deleted without it. VACUUM would, but it renumbers the app's rows, and needs the app's collations,
functions and modules. So this copies the file, overwrites in the copy every byte that no row uses, and has
SQLite's backup write the pages back, as one transaction. No row of any table moves.
"""

import contextlib
import os
import re
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

from poker_therapist.errors import DatabaseUnreadable, StorageError, file_error
from poker_therapist.location import SQLiteLocation
from poker_therapist.new_files import private_folder, private_folders
from poker_therapist.sqlfile import Placeholders, read_queries
from poker_therapist.sqlite.backup import patience, require_same
from poker_therapist.sqlite.connect import (
    open_connection,
    set_journal_mode,
    translating_errors,
    uri,
)
from poker_therapist.sqlite.pages import DamagedPage, erase_unused
from poker_therapist.tables import TABLES

_QUERIES = read_queries(Placeholders.SQLITE, Path(__file__).with_suffix(".sql"))

# How many pages SQLite copies between two calls of ours.
_STEP = 100


class _NothingLeft(Exception):
    """There is nothing to erase, so nothing is to be written."""


def scrub(location: SQLiteLocation) -> None:
    """Overwrite every byte of a database in WAL mode that no row uses; the log still has older states.

    Readers continue while it runs, writers wait. A kill at any time leaves all of it or nothing.

    Raises:
        DatabaseBusy: another connection wrote for longer than the timeout.
        DatabaseFull: there is no room for a copy beside the database, or for the pages in the log.
        DatabaseUnreadable: the file is damaged.
    """
    if location.journal_mode != "WAL":  # there SQLite's backup locks out the reader that it needs
        raise StorageError(
            "Unused parts of pages are erased only in WAL mode, without journal_mode in the URL: stop every "
            "program, copy the file to a local disk, run forget there, and copy it back"
        )
    path = Path(os.path.realpath(location.path))
    try:
        with (
            translating_errors(location),
            contextlib.closing(open_connection(location)) as reader,
            contextlib.closing(open_connection(location)) as writer,
        ):
            set_journal_mode(writer, location)
            _delete_samples(writer)
            (page_size,) = writer.execute("PRAGMA page_size").fetchone()
            with _copy_beside(path, page_size) as (source, target, file):

                def copy_and_erase() -> bool:
                    reader.backup(target, progress=patience(location))
                    return erase_unused(file, [1, *(root for (root,) in reader.execute(_QUERIES["roots"]))])

                _write_back(location, writer, source, copy_and_erase)
    except DamagedPage as error:
        raise DatabaseUnreadable(f"{location.path} is damaged ({error}): restore a backup") from error
    except OSError as error:
        raise file_error(error, f"cannot write a copy beside {location.path}") from error


def sync_log(path: str) -> None:
    """Bring the log to the disk: SQLite only cuts it, and a power failure would bring back what was in it."""
    try:
        with Path(f"{path}-wal").open("r+b") as log:  # Windows synchronises only what may be written
            os.fsync(log.fileno())
    except FileNotFoundError:
        pass
    except OSError as error:
        raise file_error(error, f"cannot synchronise {path}-wal") from error


def _delete_samples(writer: sqlite3.Connection) -> None:
    """Delete the keys that ANALYZE has kept of the players' tables."""
    for (samples,) in writer.execute(_QUERIES["sample_tables"]).fetchall():
        for table in TABLES:
            writer.execute(_QUERIES[f"delete_from_{samples}"], (table.name,))


@contextlib.contextmanager
def _copy_beside(
    path: Path, page_size: int
) -> Iterator[tuple[sqlite3.Connection, sqlite3.Connection, BinaryIO]]:
    """Create a file for the copy: yield a connection that reads it, one that writes it, and the file.

    Where the system can, it has no name while it contains data, so that a kill leaves nothing; elsewhere the
    next copy removes what a kill has left.
    """
    prefix = f"{path.name}.scrub-"
    private_folders(path.parent, re.escape(prefix) + r"\w{8}", remove=True)
    with contextlib.ExitStack() as place:
        folder = place.enter_context(private_folder(path.parent, prefix))
        copy, descriptor = folder.path / "new", folder.create("new")
        with (
            os.fdopen(descriptor, "r+b", buffering=0) as file,
            contextlib.closing(_open(copy)) as source,
            contextlib.closing(_open(copy)) as target,
        ):
            target.execute(f"PRAGMA page_size = {page_size}")
            require_same(target, copy, descriptor)
            target.execute("PRAGMA journal_mode = OFF").fetchone()
            target.execute("PRAGMA synchronous = OFF")
            with contextlib.suppress(PermissionError):
                folder.remove(["new"])
                place.close()
            # More than one step, so that the backup cannot end before it has the real pages.
            target.execute("CREATE TABLE empty (pages BLOB)")
            target.execute("INSERT INTO empty (pages) VALUES (zeroblob(?))", (2 * _STEP * page_size,))
            yield source, target, file


def _open(copy: Path) -> sqlite3.Connection:
    return sqlite3.connect(uri(copy, "mode=rw"), uri=True, isolation_level=None)


def _write_back(
    location: SQLiteLocation,
    writer: sqlite3.Connection,
    source: sqlite3.Connection,
    copy_and_erase: Callable[[], bool],
) -> None:
    """Write a clean copy over the database, as one transaction.

    SQLite's backup locks the database with its first step; what that copies is not the database yet. Only
    then is the copy made, of a state that cannot change any more. SQLite finds the source changed, and
    starts again: https://sqlite.org/backup.html
    """
    be_patient, is_copied = patience(location), False

    def progress(status: int, remaining: int, total: int) -> None:
        nonlocal is_copied
        be_patient(status, remaining, total)
        if status == sqlite3.SQLITE_OK and not is_copied:
            is_copied = True
            if not copy_and_erase():
                raise _NothingLeft

    with contextlib.suppress(_NothingLeft):
        source.backup(writer, pages=_STEP, progress=progress)
