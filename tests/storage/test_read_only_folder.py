"""A reader that may not write the folder of a database reads what is there now."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from poker_therapist import get_pattern_storage
from tests.helpers.rights import skip_unless_rights_count, skip_unless_root
from tests.helpers.scripts import run_without_rights
from tests.helpers.snapshots import applied

USER, OTHER = 7, 8

# Does what it reads, line by line. It opens the database for each line anew, and may keep it open besides.
WRITER = """
import sys
from poker_therapist import get_pattern_storage
kept = []
for line in sys.stdin:
    with get_pattern_storage(sys.argv[1]) as storage:
        if line == "keep open\\n":
            kept.append(get_pattern_storage(sys.argv[1]))
        elif line == "save\\n":
            storage.save_pattern(7, "tilt", "bad_beat", "new")
            storage.save_pattern(8, "tilt", "bad_beat", "new")
        elif line == "forget\\n":
            storage.forget_user(7)
    print("done", flush=True)
"""
# Tells the writer what to do, and looks after each step.
READER = """
import os, sys
from poker_therapist import get_pattern_storage
asks, answers = open(int(sys.argv[3]), "w"), open(int(sys.argv[4]))
assert not os.access(os.path.dirname(os.path.realpath(sys.argv[1])), os.W_OK)

def tell(what):
    print(what, file=asks, flush=True)
    assert answers.readline() == "done\\n"

def look(storage):
    print(storage.get_pattern(7, "tilt", "bad_beat"), len(storage.recall(7)["patterns"]),
          len(storage.export_user(7)["patterns"]), storage.get_pattern(8, "tilt", "bad_beat"))

if sys.argv[2] == "first":
    tell("keep open")
with asks, answers, get_pattern_storage(sys.argv[1]) as storage:
    look(storage)
    if sys.argv[2] == "later":
        tell("keep open")
    for what in ("save", "forget"):
        tell(what)
        look(storage)
"""


@pytest.fixture
def closed(tmp_path: Path, report: Callable[[str], None]) -> Iterator[Path]:
    """A database with two players, in a folder that may only be read."""
    skip_unless_rights_count(report)
    folder = tmp_path / "closed"
    folder.mkdir()
    with get_pattern_storage(folder / "RexVoice.db") as storage:
        for user in (USER, OTHER):
            storage.save_pattern(user, "tilt", "bad_beat", "old")
    folder.chmod(0o555)
    yield folder / "RexVoice.db"
    folder.chmod(0o755)


@pytest.mark.parametrize("writer_stays", ["first", "later", "never"])
def test_the_next_read_sees_what_another_process_has_saved_and_forgotten(
    closed: Path, writer_stays: str, report: Callable[[str], None]
) -> None:
    """The writer keeps the database open from before the reader, from after it, or for each save alone."""
    skip_unless_root(report)
    with subprocess.Popen(
        [sys.executable, "-c", WRITER, closed], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as writer:
        assert writer.stdin is not None
        assert writer.stdout is not None
        pipes = writer.stdin.fileno(), writer.stdout.fileno()
        seen = run_without_rights(READER, closed, writer_stays, *map(str, pipes), folder=closed.parent)
        writer.stdin.close()

    assert seen == ["old 1 1 old", "new 1 1 new", "None 0 0 new"]


LINKED = """
import sys
from poker_therapist import get_pattern_storage
with get_pattern_storage(sys.argv[1]) as storage:
    storage.save_pattern(7, "tilt", "bad_beat", "through the link")
    print(storage.get_pattern(7, "tilt", "bad_beat"), *storage.recall(7)["patterns"].keys())
"""


@pytest.mark.parametrize("is_there", [True, False], ids=["to a database", "to nothing yet"])
def test_a_link_in_a_folder_that_may_only_be_read_leads_to_a_database_that_is_written(
    tmp_path: Path, report: Callable[[str], None], *, is_there: bool
) -> None:
    """As in the image of a container, with the data elsewhere."""
    skip_unless_rights_count(report)
    image, data = tmp_path / "image", tmp_path / "data"
    image.mkdir()
    data.mkdir()
    if is_there:
        get_pattern_storage(data / "RexVoice.db").close()
    (image / "app.db").symlink_to(data / "RexVoice.db")
    image.chmod(0o555)
    try:
        seen = run_without_rights(LINKED, image / "app.db", folder=tmp_path)
    finally:
        image.chmod(0o755)

    assert seen == ["through the link tilt"]
    assert applied(data / "RexVoice.db")
    assert [path.name for path in image.iterdir()] == ["app.db"]
    assert (image / "app.db").is_symlink()
    with get_pattern_storage(data / "RexVoice.db") as storage:
        assert storage.get_pattern(USER, "tilt", "bad_beat") == "through the link"


def test_a_database_that_may_only_be_read_is_backed_up(tmp_path: Path, report: Callable[[str], None]) -> None:
    """Its copy is written, so it may be, whatever the rights of the original."""
    skip_unless_rights_count(report)
    get_pattern_storage(tmp_path / "RexVoice.db").close()
    (tmp_path / "RexVoice.db").chmod(0o440)
    script = """
import sys
from poker_therapist import cli
sys.argv[1:] = ["backup", "-d", "RexVoice.db"]
cli.main()
"""

    (name,) = run_without_rights(script, folder=tmp_path)

    backup = tmp_path / name
    assert applied(backup) == applied(tmp_path / "RexVoice.db")
    assert backup.stat().st_mode & 0o777 == 0o640
