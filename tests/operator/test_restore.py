"""`poker-therapist restore`: what is refused, and what is quarantined."""

import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from poker_therapist import get_pattern_storage
from tests.helpers import old_app, snapshots
from tests.helpers.backups import back_up, restore, save, value
from tests.helpers.cli import program, refused, state_of
from tests.helpers.engines import run_sql
from tests.helpers.migrating import FOLDER, IDS, NEXT, up


@pytest.fixture
def database(tmp_path: Path) -> Path:
    """A database that holds one pattern."""
    path = tmp_path / "RexVoice.db"
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
        (somebody_elses, "none of Poker Therapist's"),
        (empty, "none of Poker Therapist's"),
        (newer, f"was made by a later version ({NEXT}_add_mood): update the code"),
        (a_folder, "is a folder"),
        (not_there, "there is no"),
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


def test_a_place_in_a_folder_that_is_not_there_is_refused(database: Path) -> None:
    backup = back_up(database)
    message = refused("restore", backup, "-d", "nowhere/x.db", folder=database.parent)

    assert message.startswith(f"there is no folder {database.parent}/nowhere: make it")


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
    assert "stayed locked for 0.1 seconds" in ran.error
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


def test_a_damaged_database_to_which_an_app_is_connected_is_not_taken_from_under_it(database: Path) -> None:
    """The app would go on saving into the damaged file: acknowledged, and lost."""
    backup = back_up(database)
    with closing(sqlite3.connect(database, isolation_level=None)) as app:
        assert app.execute("PRAGMA journal_mode = WAL").fetchone() == ("wal",)
        app.execute("SELECT count(*) FROM user_patterns").fetchone()
        app.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        content = bytearray(database.read_bytes())
        content[4096:-4096] = bytes(len(content) - 8192)
        with database.open("r+b") as file:
            file.write(content)
        message = refused("restore", backup, folder=database.parent)

        assert "a connected program would go on saving into the damaged file: stop it" in message
        assert not list(database.parent.glob("*.damaged"))
    restore(backup, database)
    assert value(database) == "first"


def test_through_a_link_its_target_is_restored(database: Path, tmp_path: Path) -> None:
    backup = back_up(database)
    target = database.rename(tmp_path / "real.db")
    database.symlink_to(target)
    target.write_bytes(b"no database at all" * 1_000)
    restore(backup, database)

    assert database.is_symlink()
    assert value(target) == "first"
