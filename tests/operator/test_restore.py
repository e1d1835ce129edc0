"""`poker-therapist restore`: what is refused, and what is quarantined."""

import fcntl
import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from poker_therapist import get_pattern_storage
from poker_therapist.sqlite import restore as restoring
from tests.helpers import old_app, snapshots
from tests.helpers.backups import back_up, restore, save, value
from tests.helpers.cli import command, in_children, program, refused, state_of
from tests.helpers.engines import run_sql
from tests.helpers.migrating import FOLDER, IDS, NEXT, up
from tests.helpers.scripts import run_script


@pytest.fixture
def database(tmp_path: Path, migrated_file: Path) -> Path:
    """A database that holds one pattern."""
    path = Path(shutil.copy(migrated_file, tmp_path / "RexVoice.db"))
    save(path, "first")
    return path


@pytest.mark.parametrize("damage", ["not a database", "torn pages", "cut off"])
def test_a_damaged_database_is_set_aside_and_replaced(damage: str, database: Path) -> None:
    """It is kept as it is, for whoever may want to rescue something from it."""
    with get_pattern_storage(database) as storage:
        for number in range(50):
            storage.save_pattern(8, "tilt", str(number), "x" * 3000)
    backup = back_up(database)
    content = damaged(database.read_bytes(), damage)
    database.write_bytes(content)
    said = restore(backup, database)

    aside = Path(said[0].removeprefix("backup: "))

    assert len(said) == 1
    assert aside.match("RexVoice.db.*.damaged")
    assert aside.read_bytes() == content
    assert value(database) == "first"
    assert snapshots.is_whole(database)


def damaged(content: bytes, damage: str) -> bytes:
    """Return the bytes of a database, spoilt."""
    if damage == "not a database":
        return b"a letter to Ann " * 1000
    if damage == "cut off":
        return content[: len(content) // 2]
    return content[:-8192] + b"\xff" * 8192


def test_a_second_damaged_database_is_set_aside_beside_the_first(database: Path) -> None:
    backup = back_up(database)
    for content in (b"one" * 1000, b"two" * 1000):
        database.write_bytes(content)
        restore(backup, database)

    assert {path.read_bytes()[:3] for path in database.parent.glob("*.damaged*")} >= {b"one", b"two"}


def a_letter(path: Path) -> None:
    path.write_text("a letter to Ann " * 1000)


def torn(path: Path) -> None:
    old_app.make(path, rows=300)
    path.write_bytes(damaged(path.read_bytes(), "torn pages"))


def cut_off(path: Path) -> None:
    old_app.make(path, rows=300)
    path.write_bytes(damaged(path.read_bytes(), "cut off"))


def somebody_elses(path: Path) -> None:
    run_sql(path, old_app.APP_TABLES)


def newer(path: Path) -> None:
    folder = path.with_name("newer")
    shutil.copytree(FOLDER, folder)
    (folder / f"{NEXT}_add_mood.sql").write_text(f"-- depends: {IDS[-1]}\nCREATE TABLE mood (id INTEGER);")
    (folder / f"{NEXT}_add_mood.rollback.sql").write_text("DROP TABLE mood;")
    up(path, "999", folder=folder)


def a_folder(path: Path) -> None:
    path.mkdir()


def not_there(path: Path) -> None:
    """There is nothing."""


def empty(path: Path) -> None:
    path.touch()


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (a_letter, "is not an SQLite database"),
        (torn, "is damaged"),
        (cut_off, "is damaged"),
        (somebody_elses, "of Poker Therapist: correct the path"),
        (empty, "of Poker Therapist: correct the path"),
        (newer, f"was made by a later version ({NEXT}_add_mood): update the code"),
        (a_folder, "is a folder"),
        (not_there, "there is no backup"),
    ],
)
def test_a_file_that_cannot_be_restored_is_refused(
    make: Callable[[Path], None], says: str, database: Path
) -> None:
    """With what is wrong; the database is as it was, and no backup is made."""
    make(database.parent / "wrong.backup")
    before = state_of(database.parent)
    message = refused("restore", "wrong.backup", folder=database.parent)

    assert says in message
    assert "wrong.backup" in message
    assert state_of(database.parent) == before


def test_what_is_advised_about_a_mistyped_backup_keeps_the_database(database: Path) -> None:
    """A database that is made of the mistyped name would be restored the next time."""
    folder = database.parent
    message = refused("restore", "mistyped.backup", "-d", database, folder=folder)

    assert f"poker-therapist backup --list --database {database}" in message
    assert " apply " not in message


def test_a_place_in_a_folder_that_is_not_there_is_refused(database: Path) -> None:
    backup = back_up(database)
    message = refused("restore", backup, "-d", "nowhere/x.db", folder=database.parent)

    assert message.startswith(f"there is no folder {database.parent}/nowhere: create it")


def test_a_writer_that_does_not_end_is_waited_for_no_longer_than_the_timeout(database: Path) -> None:
    """Somebody keeps a transaction open: one message, as elsewhere, and nothing is changed."""
    backup = back_up(database)
    save(database, "second")
    with closing(sqlite3.connect(database, isolation_level=None)) as writer:
        writer.execute("BEGIN IMMEDIATE")
        ran = program(
            "restore", backup, "-d", f"sqlite:///{database}?timeout=0.1", folder=database.parent, timeout=5
        )

    assert ran.code == 1
    assert "is still locked after 0.1 seconds" in ran.error
    assert value(database) == "second"


def test_a_backup_with_pages_of_another_size_is_restored(database: Path) -> None:
    """As an old database has them that SQLite made before 2016."""
    old = database.with_name("old.db")
    run_sql(old, "PRAGMA page_size = 1024; CREATE TABLE users (id INTEGER PRIMARY KEY)")
    with get_pattern_storage(old) as storage:
        storage.save_pattern(7, "tilt", "after_bad_beat", "old")
    restore(old, database)

    assert value(database) == "old"


def test_a_database_is_no_backup_of_itself(database: Path) -> None:
    before = state_of(database.parent)

    assert "is the database itself" in refused("restore", database.name, folder=database.parent)
    assert state_of(database.parent) == before


# Another program: connects, reads if it is told so, and saves when it is told so; says how that ended.
APP = """
import sqlite3, sys
app = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=1)
if sys.argv[2] != "idle":
    assert app.execute(f"PRAGMA journal_mode = {sys.argv[2]}").fetchone() == (sys.argv[2].lower(),)
    app.execute("SELECT count(*) FROM user_patterns").fetchone()
print(flush=True)
sys.stdin.readline()
try:
    app.execute("UPDATE user_patterns SET pattern_value = '\\"saved\\"'")
except sqlite3.Error as error:
    print(error)
else:
    print("saved")
"""


@contextmanager
def another_program(database: Path, mode: str) -> Iterator[Callable[[], str]]:
    """Let another program connect; what is given lets it save and returns what it says."""
    with subprocess.Popen(
        [sys.executable, "-c", APP, database, mode], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as app:
        assert app.stdout
        app.stdout.readline()

        def save() -> str:
            return app.communicate("\n")[0].strip()

        yield save


def no_database(content: bytes) -> bytes:
    return b"a letter to Ann " * (len(content) // 16)


def zeros_within(content: bytes) -> bytes:
    return content[:4096] + bytes(len(content) - 8192) + content[-4096:]


@pytest.mark.parametrize("damage", [no_database, zeros_within])
def test_a_damaged_database_to_which_an_app_is_connected_is_not_taken_from_under_it(
    damage: Callable[[bytes], bytes], database: Path
) -> None:
    """The app would go on saving into the damaged file: acknowledged, and lost."""
    backup = back_up(database)
    with another_program(database, "WAL") as save_there:
        with database.open("r+b") as file:
            content = damage(file.read())
            file.seek(0)
            file.write(content)
        message = refused("restore", backup, folder=database.parent)

        assert "a connected program would still write to the damaged file: stop it" in message
        assert not list(database.parent.glob("*.damaged"))
        assert database.read_bytes() == content
        save_there()
    restore(backup, database)
    assert value(database) == "first"


@pytest.mark.parametrize("mode", ["idle", "DELETE"])
@pytest.mark.parametrize("damage", [no_database, zeros_within])
def test_an_app_that_holds_no_lock_goes_on_in_what_was_restored(
    damage: Callable[[bytes], bytes], mode: str, database: Path
) -> None:
    """Nobody can see that it is connected; what it saves is not lost."""
    backup = back_up(database)
    with another_program(database, mode) as save_there:
        with database.open("r+b") as file:
            content = damage(file.read())
            file.seek(0)
            file.write(content)
        (aside,) = restore(backup, database)

        assert save_there() == "saved"
    assert value(database) == "saved"
    assert Path(aside.removeprefix("backup: ")).read_bytes() == content
    assert snapshots.is_whole(database)


@pytest.mark.parametrize("there", ["nothing", "a damaged database"])
def test_what_an_app_saves_before_the_restore_has_the_lock_is_not_replaced(
    there: str, database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There is no backup of that: it is refused, and the next try has one."""
    backup = back_up(database)
    database.unlink()
    if there != "nothing":
        database.write_bytes(b"no database at all" * 1_000)
    require_empty = restoring._require_empty

    def meanwhile(*arguments: Any) -> None:
        run_script(
            "import sqlite3, sys; sqlite3.connect(sys.argv[1]).execute('CREATE TABLE games (id)')", database
        )
        require_empty(*arguments)

    with monkeypatch.context() as patched:
        patched.setattr(restoring, "_require_empty", meanwhile)
        message = refused("restore", backup, folder=database.parent)

    assert f"another program wrote to {database} during the restore" in message
    aside = [f"The damaged database is kept as {path}" for path in database.parent.glob("*.damaged")]
    assert message.splitlines()[1:] == aside
    (kept,) = restore(backup, database)
    assert "CREATE TABLE games (id)" in str(snapshots.stored_sql(Path(kept.removeprefix("backup: "))))


@pytest.mark.slow
@pytest.mark.parametrize("there", ["nothing", "a damaged database", "a database"])
def test_several_restores_at_once_wait_for_each_other(there: str, database: Path) -> None:
    """Each finds a whole database, or none; nobody sees damage that another is about to mend."""
    with get_pattern_storage(database) as storage:
        for number in range(300):
            storage.save_pattern(8, "tilt", str(number), "x" * 3000)
    backup = back_up(database, "--output", "monday.backup")
    if there != "a database":
        database.unlink()
    if there == "a damaged database":
        database.write_bytes(b"no database at all" * 1_000)
    ended = in_children(4, "restore", backup, "--database", database, folder=database.parent)

    assert [(ran.database, ran.error, ran.code) for ran in ended] == [
        (f"database: {database} (as given)\n", "", 0)
    ] * 4
    assert value(database) == "first"
    assert snapshots.is_whole(database)
    assert len(list(database.parent.glob("*.damaged"))) == (there == "a damaged database")
    assert len(list(database.parent.glob("*.before-restore.backup"))) == 3 + (there == "a database")
    assert not list(database.parent.glob("*.part-*"))


def test_a_restore_that_waits_too_long_says_who_is_at_work(database: Path) -> None:
    backup = back_up(database)
    folder = os.open(database.parent, os.O_RDONLY)
    fcntl.flock(folder, fcntl.LOCK_EX)
    message = refused("restore", backup, "-d", f"sqlite:///{database}?timeout=0.1", folder=database.parent)
    os.close(folder)

    assert message.startswith(f"another restore is running in {database.parent}: wait until it has finished")
    assert value(database) == "first"


def test_through_a_link_its_target_is_restored(database: Path, tmp_path: Path) -> None:
    backup = back_up(database)
    target = database.rename(tmp_path / "real.db")
    database.symlink_to(target)
    target.write_bytes(b"no database at all" * 1_000)
    restore(backup, database)

    assert database.is_symlink()
    assert value(target) == "first"


def test_through_a_link_to_another_file_system_a_damaged_target_is_set_aside_beside_it(
    database: Path,
) -> None:
    """And forgetting finds it there."""
    backup = back_up(database, "--output", "monday.backup")
    with tempfile.TemporaryDirectory(dir=Path(__file__).parent) as elsewhere:
        target = Path(elsewhere, "real.db")
        target.write_bytes(b"no database at all" * 1_000)
        database.unlink()
        database.symlink_to(target)
        if target.stat().st_dev == backup.stat().st_dev:
            pytest.skip("the tests and their temporary folder are on one file system")
        restore(backup, database)

        (aside,) = target.parent.glob("*.damaged")
        assert (value(target), aside.name[:8]) == ("first", "real.db.")
        assert f"{aside} is a leftover" in command("forget", "7", "--yes", folder=database.parent).out
