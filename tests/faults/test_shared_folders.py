"""Folders in which others may write: nobody reads a file before its owner, nor leads us to another one."""

import json
import os
import shutil
import sqlite3
import stat
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Event, Thread
from typing import Any

import pytest

from poker_therapist import DatabaseReadOnly, StorageError, get_pattern_storage
from poker_therapist.location import SQLiteLocation, locate
from poker_therapist.new_files import new_file, private_folder, private_folders
from poker_therapist.schema import rehearse
from poker_therapist.sqlite import backup, rehearsal
from poker_therapist.sqlite import restore as restoring
from poker_therapist.sqlite.backup import back_up, save_backup
from poker_therapist.tables import TABLES
from tests.helpers import old_app, rights, snapshots
from tests.helpers.migrating import FOLDER, up

USER = 7
SECRET = "he folds to every bluff"
LETTER = "a letter of the operator's " * 500


@pytest.fixture(params=[0o1777, 0o777], ids=["sticky", "not sticky"])
def shared(request: pytest.FixtureRequest, report: Callable[[str], None]) -> Iterator[Path]:
    """A folder in which everybody may write, and rename what others have made unless it is sticky."""
    rights.skip_unless_root(report)
    with tempfile.TemporaryDirectory() as name:  # that of pytest is closed to others
        folder = Path(name, "shared")
        folder.mkdir()
        folder.chmod(request.param)
        Path(name).chmod(0o755)
        yield folder


@pytest.fixture
def location(tmp_path: Path) -> SQLiteLocation:
    """A database of the operator's own."""
    with get_pattern_storage(tmp_path / "RexVoice.db") as storage:
        storage.save_pattern(USER, "tilt", "bluffs", SECRET)
    return SQLiteLocation(tmp_path / "RexVoice.db")


@pytest.fixture
def letter(tmp_path: Path) -> Path:
    path = tmp_path / "letter.txt"
    path.write_text(LETTER)
    return path


def looted(folder: Path) -> list[str]:
    """Return the files in which another user finds the secret; who owns them does not matter."""

    def look() -> list[str]:
        found = []
        for path in folder.rglob("*"):
            with suppress(OSError):
                if SECRET.encode() in path.read_bytes():
                    found.append(path.name)
        return found

    return rights.as_another_user(look)


def plant_file(path: Path, _letter: Path) -> None:
    path.touch()
    path.chmod(0o666)


def plant_link(path: Path, letter: Path) -> None:
    path.symlink_to(letter)


PLANTS = [plant_file, plant_link]


@pytest.mark.parametrize("plant", PLANTS)
def test_what_was_planted_before_is_not_used(
    plant: Callable[[Path, Path], None], shared: Path, location: SQLiteLocation, letter: Path
) -> None:
    """Under the name that is asked for, or those that were used for unfinished files."""
    for name in ("monday.backup", "monday.backup.part", "monday.backup.part-01234567"):
        rights.as_another_user(lambda name=name: plant(shared / name, letter))  # type: ignore[misc]
    with pytest.raises(ValueError, match=r"monday\.backup already exists: choose another name"):
        save_backup(location, shared / "monday.backup")
    (shared / "monday.backup").unlink()
    made = save_backup(location, shared / "monday.backup")

    assert looted(shared) == []
    assert letter.read_text() == LETTER
    assert (stat.S_IMODE(made.stat().st_mode), made.is_symlink()) == (0o600, False)
    assert snapshots.everything(made) == snapshots.everything(location.path)


def is_sticky(folder: Path) -> bool:
    return bool(folder.stat().st_mode & stat.S_ISVTX)


@contextmanager
def refused_unless_sticky(folder: Path, says: str) -> Iterator[None]:
    """Expect an error where another user could rename a folder of ours."""
    if is_sticky(folder):
        yield
        return
    with pytest.raises(StorageError, match=says):
        yield


class Swapping:
    """Another user, who puts a folder of his own in the place of each private folder before it is used."""

    def __init__(self, folder: Path, plant: Callable[[Path, Path], None], letter: Path) -> None:
        self.folder = folder
        self.plant = plant
        self.letter = letter
        self.swapped = 0

    def before(self, method: Callable[..., Any]) -> Callable[..., Any]:
        def act(*arguments: Any, **options: Any) -> Any:
            self.swapped += rights.as_another_user(self._swap)
            return method(*arguments, **options)

        return act

    def _swap(self) -> int:
        """Return how many could be swapped."""
        count = 0
        for path in [*self.folder.glob("*.part-*"), *self.folder.glob("*.rehearsal-*")]:
            with suppress(OSError):
                path.rename(f"{path}-gone")
                path.mkdir(mode=0o777)
                path.chmod(0o777)
                for name in ("new", "work.db", "before.db", "after.db"):
                    self.plant(path / name, self.letter)
                count += 1
        return count


@pytest.mark.parametrize("plant", PLANTS)
@pytest.mark.parametrize("named", [True, False], ids=["named", "beside the database"])
def test_who_renames_the_folder_of_a_backup_reads_nothing_and_leads_us_nowhere(
    plant: Callable[[Path, Path], None],
    named: bool,
    shared: Path,
    location: SQLiteLocation,
    letter: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    other = Swapping(shared, plant, letter)
    monkeypatch.setattr(backup, "copy_database", other.before(backup.copy_database))
    if not named:
        location = SQLiteLocation(Path(shutil.copy(location.path, shared)))
        location.path.chmod(0o600)
    with refused_unless_sticky(shared, "another user replaced"):
        made = save_backup(location, shared / "monday.backup") if named else back_up(location, "apply-001_x")
        assert snapshots.everything(made) == snapshots.everything(location.path)

    assert other.swapped == (not is_sticky(shared))
    assert looted(shared) == []
    assert letter.read_text() == LETTER


@pytest.mark.parametrize("plant", PLANTS)
def test_who_renames_the_folder_of_any_new_file_reads_nothing(
    plant: Callable[[Path, Path], None], shared: Path, letter: Path
) -> None:
    """An export, or a dump: it is written by its descriptor."""
    other = Swapping(shared, plant, letter)
    with (
        refused_unless_sticky(shared, "another user replaced"),
        new_file(shared / "export.json") as (_, descriptor),
    ):
        other.before(os.write)(descriptor, SECRET.encode())

    assert looted(shared) == []
    assert letter.read_text() == LETTER


@pytest.mark.parametrize("plant", PLANTS)
def test_who_renames_the_folder_of_a_rehearsal_reads_nothing(
    plant: Callable[[Path, Path], None], shared: Path, letter: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = shared / "RexVoice.db"
    old_app.make(path)
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE user_patterns SET pattern_value = ?", (SECRET,))
    connection.close()
    path.chmod(0o600)
    other = Swapping(shared, plant, letter)
    keep = rehearsal.SQLiteRehearsalCopy.keep_before
    monkeypatch.setattr(rehearsal.SQLiteRehearsalCopy, "keep_before", other.before(keep))
    with suppress(StorageError):
        rehearse(locate(path))

    assert looted(shared) == []
    assert letter.read_text() == LETTER


def test_private_folders_are_made_while_others_are_cleared(tmp_path: Path) -> None:
    """Whoever looks for what was left finds one in each state between its making and its end."""
    is_over = Event()

    def clear() -> None:
        while not is_over.is_set():
            private_folders(tmp_path, r"x-\w{8}", remove=True)

    others = [Thread(target=clear) for _ in range(2)]
    for other in others:
        other.start()
    try:
        for _ in range(200):
            with private_folder(tmp_path, "x-") as folder:
                os.close(folder.create("new"))
                assert folder.names() == {"owner", "new"}
                assert folder.path.exists()
    finally:
        is_over.set()
        for other in others:
            other.join()

    assert list(tmp_path.iterdir()) == []


def test_a_folder_of_anothers_is_not_cleared(shared: Path, location: SQLiteLocation) -> None:
    """Whatever it is called: the operator's own, that somebody gave that name, has other files in it."""
    mine = shared / "mine"
    mine.mkdir(mode=0o700)
    (mine / "letter.txt").write_text(LETTER)
    named = shared / "monday.backup.part-01234567"
    if not is_sticky(shared):
        rights.as_another_user(lambda: mine.rename(named))
    save_backup(location, shared / "monday.backup")

    assert [path.read_text() for path in shared.glob("*/letter.txt")] == [LETTER]


@pytest.mark.parametrize("plant", PLANTS)
def test_a_database_that_a_stranger_has_planted_is_not_filled(
    plant: Callable[[Path, Path], None], shared: Path, location: SQLiteLocation
) -> None:
    """An empty file that everybody may read, or a link to one: by restoring, opening, or `yoyo apply`."""
    theirs = shared / "theirs.db"
    made = save_backup(location)
    database = shared / "RexVoice.db"
    rights.as_another_user(lambda: plant_file(theirs, theirs))
    rights.as_another_user(lambda: plant(database, theirs))
    with pytest.raises(DatabaseReadOnly, match="was created by another user"):
        restoring.restore(SQLiteLocation(database), made, [str(FOLDER)], TABLES)
    with pytest.raises(DatabaseReadOnly, match="was created by another user"):
        get_pattern_storage(database)
    with pytest.raises(DatabaseReadOnly, match="was created by another user"):
        up(database)

    assert looted(shared) == []
    database.unlink()
    restoring.restore(SQLiteLocation(database), made, [str(FOLDER)], TABLES)
    assert looted(shared) == []
    assert snapshots.everything(database) == snapshots.everything(made)


MAKE_ALL = """
import json, os, sys
from pathlib import Path
from unittest import mock
from poker_therapist import cli, get_pattern_storage, schema
from poker_therapist.location import locate
from tests.helpers.migrating import down

os.umask(int(sys.argv[1], 8))
storage = get_pattern_storage("RexVoice.db")
storage.save_pattern(7, "tilt", "bluffs", 1)
schema.rehearse(locate("RexVoice.db"))
down(Path("RexVoice.db"), "004")  # backed up before
get_pattern_storage("RexVoice.db").close()
for command in (["backup"], ["backup", "-o", "monday.backup"], ["export", "7", "-o", "seven.json"],
                ["restore", "monday.backup"], ["restore", "monday.backup", "-d", "new.db"]):
    with mock.patch.object(sys, "argv", ["poker-therapist", *command]):
        try:
            cli.main()
        except SystemExit as end:
            assert not end.code, command
print(json.dumps({path.name: oct(path.stat().st_mode & 0o7777) for path in Path().iterdir()}))
"""


@pytest.mark.parametrize("mask", ["0", "077", "0777"])
def test_every_file_is_for_its_owner_alone_under_any_umask(
    mask: str, tmp_path: Path, report: Callable[[str], None]
) -> None:
    """Database, log and its index, backups, exports: and each command can use what it makes."""
    rights.skip_unless_rights_count(report)
    script = f"import sys; sys.path.insert(0, {str(Path.cwd())!r})\n{MAKE_ALL}"
    done = rights.run_without_privileges([sys.executable, "-c", script, mask], tmp_path)

    said = [line for line in done.stderr.splitlines() if not line.startswith("database: ")]
    assert (done.returncode, said) == (0, [])
    modes = json.loads(done.stdout.splitlines()[-1])
    assert set(modes.values()) == {"0o600"}
    assert {"RexVoice.db", "RexVoice.db-wal", "RexVoice.db-shm", "monday.backup", "seven.json", "new.db"} < {
        *modes
    }
    assert len([name for name in modes if name.endswith(".backup")]) >= 4


@pytest.mark.parametrize(
    ("mode", "group", "expected"),
    [(0o640, 0, 0o640), (0o644, 0, 0o644), (0o640, 65534, 0o600), (0o400, 0, 0o600)],
)
def test_a_backup_is_no_more_readable_than_the_database(
    mode: int, group: int, expected: int, location: SQLiteLocation, report: Callable[[str], None]
) -> None:
    """A group that may read it is the same group."""
    rights.skip_unless_root(report)
    os.chown(location.path, 65534, group)
    location.path.chmod(mode)
    made = save_backup(location).stat()

    assert (oct(made.st_mode & 0o7777), made.st_uid) == (oct(expected), os.getuid())
