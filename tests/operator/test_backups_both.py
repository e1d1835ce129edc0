"""`poker-therapist backup` and `restore`, what both engines have in common."""

import re
import stat
from pathlib import Path

import pytest

from poker_therapist import get_pattern_storage
from poker_therapist.location import locate
from tests.helpers.cli import command, in_child, refused, state_of
from tests.helpers.snapshots import everything

USER = 7

pytestmark = pytest.mark.usefixtures("programs")


@pytest.fixture
def database(migrated: str) -> str:
    """A database that holds one pattern."""
    save(migrated, "first")
    return migrated


def save(database: str, text: str) -> None:
    with get_pattern_storage(database) as storage:
        storage.save_pattern(USER, "tilt", "after_bad_beat", text)


def test_what_is_replaced_is_backed_up(database: str, tmp_path: Path) -> None:
    """By the program; a restore can be undone by another. It is a file for its owner alone."""
    before = everything(database)
    assert command("backup", "-d", database, "-o", "monday.backup", folder=tmp_path).code == 0
    save(database, "second")
    second = everything(database)
    ran = in_child("restore", "monday.backup", "-d", database, folder=tmp_path)
    replaced = Path(ran.lines[0].removeprefix("backup: "))

    assert (ran.code, ran.error) == (0, "")
    assert ran.lines == [f"backup: {replaced}", f"restored {locate(database).name}"]
    assert replaced.match("*.before-restore.backup")
    assert stat.S_IMODE(replaced.stat().st_mode) == 0o600
    assert everything(database) == before

    assert command("restore", replaced, "-d", database, folder=tmp_path).code == 0

    assert everything(database) == second


@pytest.mark.parametrize("output", ["there.txt", ".", "link.txt", "dangling.txt"])
def test_a_backup_writes_over_nothing(output: str, database: str, tmp_path: Path) -> None:
    """Nor through a link, whether it leads to a file or to none."""
    (tmp_path / "there.txt").write_text("a letter")
    (tmp_path / "link.txt").symlink_to("there.txt")
    (tmp_path / "dangling.txt").symlink_to("not_there.txt")
    before = state_of(tmp_path)

    assert refused("backup", "-d", database, "-o", output, folder=tmp_path) == (
        f"{output} already exists: choose another name"
    )
    assert state_of(tmp_path) == before


def test_a_backup_into_a_folder_that_is_not_there_says_so(database: str, tmp_path: Path) -> None:
    message = refused("backup", "-d", database, "-o", "nowhere/monday.backup", folder=tmp_path)

    assert re.search(
        r"cannot write nowhere/monday\.backup \(No such file or directory\): correct the path", message
    )
