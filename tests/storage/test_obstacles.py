"""Somebody else's lock, missing rights: named, and what was saved before is there."""

import os
import re
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from poker_therapist import DatabaseBusy, PatternStorage, get_pattern_storage
from tests.conftest import sqlite_only
from tests.helpers.engines import with_options
from tests.helpers.snapshots import everything, rows

USER = 7


# Locked


@pytest.fixture
def impatient(migrated: str) -> Iterator[PatternStorage]:
    with get_pattern_storage(with_options(migrated, "timeout=0.1")) as opened:
        yield opened


def test_a_lock_that_somebody_else_keeps_is_named_and_reading_goes_on(
    storage: PatternStorage, impatient: PatternStorage
) -> None:
    """On PostgreSQL only what the block has changed is locked, and the player for other blocks."""

    def add_one() -> None:
        with impatient.transaction():
            impatient.save_pattern(USER, "count", "all", impatient.get_pattern(USER, "count", "all", 0) + 1)

    storage.save_pattern(USER, "tilt", "bad_beat", 1)
    with storage.transaction():
        storage.save_pattern(USER, "tilt", "bad_beat", 2)
        assert storage.get_pattern(USER, "tilt", "bad_beat") == 2  # so it is sent
        with pytest.raises(DatabaseBusy, match=f"{re.escape(str(storage._database.location.name))}.* locked"):
            impatient.save_pattern(USER, "tilt", "bad_beat", 3)
        with pytest.raises(DatabaseBusy):
            impatient.clear_user_patterns(USER)
        with pytest.raises(DatabaseBusy):
            impatient.forget_user(USER)
        with pytest.raises(DatabaseBusy):
            add_one()
        assert impatient.get_pattern(USER, "tilt", "bad_beat") == 1

    impatient.save_pattern(USER, "tilt", "bad_beat", impatient.get_pattern(USER, "tilt", "bad_beat") + 2)
    add_one()
    assert storage.get_pattern(USER, "tilt", "bad_beat") == 4
    assert storage.get_pattern(USER, "count", "all") == 1


@sqlite_only
def test_a_lock_that_somebody_else_keeps_is_of_the_whole_file(
    storage: PatternStorage, impatient: PatternStorage
) -> None:
    with storage.transaction(), pytest.raises(DatabaseBusy, match=r"0\.1 seconds"):
        impatient.save_context(USER, "topic", 2)


def test_a_new_database_that_somebody_else_keeps_locked_is_named(database_path: Path) -> None:
    with closing(sqlite3.connect(database_path, isolation_level=None)) as other:
        other.execute("CREATE TABLE users (id INTEGER PRIMARY KEY)")
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(DatabaseBusy, match=re.escape(str(database_path))):
            get_pattern_storage(f"sqlite:///{database_path}?timeout=0.1")

    get_pattern_storage(database_path).close()
    assert "user_patterns" in rows(database_path)


# Rights

NOBODY = 65_534

# Rights do not count for root, so as root this becomes somebody else. What it needs is imported before, for
# the new user may not be able to read it, and prints what happened, one line for each thing that it tries.
AS_SOMEBODY_ELSE = f"""
import os, sys
from pathlib import Path
import poker_therapist.sqlite.connections  # the other user may not read the interpreter's folder
from poker_therapist import get_pattern_storage

def attempt(what, *arguments):
    try:
        result = what(*arguments)
    except poker_therapist.PokerTherapistError as error:
        assert "/" in str(error)  # it names a path
        print(type(error).__name__)
    else:
        print(result if isinstance(result, str) else "ok")

ids = poker_therapist.schema.shipped_ids("sqlite")
poker_therapist.schema.shipped_ids = lambda engine: ids
if os.geteuid() == 0:
    os.setgroups([])
    os.setgid({NOBODY})
    os.setuid({NOBODY})
os.chdir(sys.argv[1])
"""


@pytest.fixture
def public_folder() -> Iterator[Path]:
    """A folder that somebody else may enter and write to; pytest's own are the user's alone."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o777)
    yield folder
    for path in folder.rglob("*"):
        if path.is_dir():
            path.chmod(0o700)
    shutil.rmtree(folder)


def run_as_somebody_else(folder: Path, script: str) -> list[str]:
    """Run a script as a user whom rights concern; return the lines that it prints."""
    if os.geteuid() == 0:
        for path in (folder, *folder.rglob("*")):
            os.chown(path, NOBODY, NOBODY)
    done = subprocess.run(
        [sys.executable, "-c", AS_SOMEBODY_ELSE + script, str(folder)],
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.stderr == ""
    return done.stdout.splitlines()


def make_database(path: Path, rights: int) -> None:
    with get_pattern_storage(path) as storage:
        storage.save_pattern(USER, "tilt", "bad_beat", "raises")
    path.chmod(rights)


def test_a_file_that_may_not_be_written_is_read_and_saving_is_refused(public_folder: Path) -> None:
    make_database(public_folder / "RexVoice.db", 0o444)
    before = everything(public_folder / "RexVoice.db")
    lines = run_as_somebody_else(
        public_folder,
        """
storage = get_pattern_storage("RexVoice.db")
attempt(storage.get_pattern, 7, "tilt", "bad_beat")
attempt(storage.recall, 7)
attempt(storage.save_pattern, 7, "tilt", "bad_beat", "calls")
attempt(storage.save_context, 7, "topic", 1)
attempt(storage.save_insight, 7, "leak", 1)
attempt(storage.clear_user_patterns, 7)
attempt(storage.forget_user, 7)
attempt(storage.get_pattern, 7, "tilt", "bad_beat")
storage.close()
""",
    )

    assert lines == ["raises", "ok", *["DatabaseReadOnly"] * 5, "raises"]
    assert everything(public_folder / "RexVoice.db") == before


def test_a_folder_that_may_not_be_written_or_entered_is_named(public_folder: Path) -> None:
    for name, rights in (("read", 0o555), ("closed", 0o000)):
        (public_folder / name).mkdir()
        make_database(public_folder / name / "RexVoice.db", 0o666)
        (public_folder / name).chmod(rights)
    make_database(public_folder / "secret.db", 0o000)
    lines = run_as_somebody_else(
        public_folder,
        """
for name in ("read/new.db", "read/RexVoice.db", "closed/new.db", "closed/RexVoice.db", "secret.db"):
    attempt(get_pattern_storage, name)
""",
    )

    assert lines[:2] == ["DatabaseReadOnly", "ok"]  # what is there can be read
    assert set(lines[2:]) <= {"DatabaseNotFound", "DatabaseReadOnly", "DatabaseUnreadable"}
    assert len(lines) == 5
