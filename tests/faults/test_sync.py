"""What is said to be copied or backed up is on the disk by then."""

import os
import sqlite3
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from poker_therapist import get_pattern_storage, schema
from poker_therapist.location import SQLiteLocation, locate
from poker_therapist.sqlite import backup, restore
from poker_therapist.sqlite.backend import AtomicSQLiteBackend
from poker_therapist.sqlite.backup import back_up, save_backup
from poker_therapist.sqlite.connect import integrity_error, open_connection
from poker_therapist.sqlite.transfer import writer
from poker_therapist.tables import TABLES
from tests.helpers import snapshots


@pytest.fixture
def location(database_path: Path) -> SQLiteLocation:
    """A database with a row."""
    with get_pattern_storage(database_path) as storage:
        storage.save_pattern(7, "tilt", "bad_beat", 1)
    found = locate(f"sqlite:///{database_path}?synchronous=NORMAL")
    assert isinstance(found, SQLiteLocation)
    return found


@pytest.mark.parametrize("kind", ["by hand", "before a migration"])
def test_a_backup_is_brought_to_the_disk_whole_before_it_gets_its_name(
    kind: str, location: SQLiteLocation, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a power failure could leave a file of that name with nothing in it, or none of that name."""
    folder = location.path.parent
    named: list[tuple[str, bool]] = []
    synced: dict[int, bytes] = {}
    fsync = os.fsync

    def watched(descriptor: int) -> None:
        fsync(descriptor)
        found = os.fstat(descriptor)
        kind = "folder" if stat.S_ISDIR(found.st_mode) else "file"
        named.append((kind, any(folder.glob("*.backup"))))
        if kind == "file":
            synced[found.st_ino] = os.pread(descriptor, found.st_size, 0)

    monkeypatch.setattr(os, "fsync", watched)
    made = save_backup(location) if kind == "by hand" else back_up(location, "apply-001")

    assert synced.get(made.stat().st_ino) == made.read_bytes()
    assert named == [("file", False), ("folder", True)]
    assert snapshots.everything(made) == snapshots.everything(location.path)


def test_a_copy_is_committed_to_the_disk_whatever_the_url_says(location: SQLiteLocation) -> None:
    """With NORMAL the last commit may still be in the system's memory only."""
    with writer(location) as target:
        assert target._connection.in_transaction
        assert target._connection.execute("PRAGMA synchronous").fetchone() == (3,)  # EXTRA


def test_a_migration_is_committed_to_the_disk_whatever_the_url_says(location: SQLiteLocation) -> None:
    with AtomicSQLiteBackend(location) as backend:
        assert backend.connection.execute("PRAGMA synchronous").fetchone() == (3,)  # EXTRA


def test_a_restore_is_committed_to_the_disk_whatever_the_url_says(
    location: SQLiteLocation, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[str] = []

    def watched(at: SQLiteLocation) -> sqlite3.Connection:
        opened.append(at.synchronous)
        return open_connection(at)

    monkeypatch.setattr(restore, "open_connection", watched)
    restore.restore(location, save_backup(location), schema.all_sources(location), TABLES)

    assert opened == ["FULL"]


def test_a_backup_that_is_being_checked_is_not_removed_by_a_second(
    location: SQLiteLocation, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between two statements of the first as well: it holds its lock until it is whole."""
    check = integrity_error

    def watched(connection: sqlite3.Connection) -> str:
        found = check(connection)
        backup.remove_unfinished(location)
        assert list(location.path.parent.glob("*.part-*/new"))
        return found

    monkeypatch.setattr(backup, "integrity_error", watched)

    assert snapshots.everything(save_backup(location)) == snapshots.everything(location.path)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no limit of the size of files")
def test_a_backup_that_cannot_be_written_is_named_and_not_the_database(location: SQLiteLocation) -> None:
    script = (
        "import resource, signal, sys; from pathlib import Path\n"
        "from poker_therapist.errors import StorageError\n"
        "from poker_therapist.location import locate\n"
        "from poker_therapist.sqlite.backup import save_backup\n"
        "path = Path(sys.argv[1]); signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (32768, 32768))\n"
        "try: save_backup(locate(path), path.with_name('kept.backup'))\n"
        "except StorageError as error: print(error)\n"
    )
    command = [sys.executable, "-c", script, str(location.path)]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout

    assert str(location.path.with_name("kept.backup")) in said
    assert not list(location.path.parent.glob("kept*"))
