"""Somebody else's lock, missing rights: named, and what was saved before is there."""

import re
import sqlite3
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest

from poker_therapist import DatabaseBusy, PatternStorage, get_pattern_storage
from tests.helpers.engines import sqlite_only, with_options
from tests.helpers.rights import skip_unless_rights_count
from tests.helpers.scripts import run_without_rights
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
    """On PostgreSQL only what the block has changed is locked, and the player for other blocks.

    Another thread waits: in its own, a lock that a thread holds would be waited for in vain.
    """

    def add_one() -> None:
        with impatient.transaction():
            impatient.save_pattern(USER, "count", "all", impatient.get_pattern(USER, "count", "all", 0) + 1)

    storage.save_pattern(USER, "tilt", "bad_beat", 1)
    name = re.escape(storage._database.location.name)
    with ThreadPoolExecutor(1) as thread, storage.transaction():
        storage.save_pattern(USER, "tilt", "bad_beat", 2)
        assert storage.get_pattern(USER, "tilt", "bad_beat") == 2  # so it is sent
        with pytest.raises(DatabaseBusy, match=f"{name}.* locked"):
            thread.submit(impatient.save_pattern, USER, "tilt", "bad_beat", 3).result()
        for write in (impatient.clear_user_patterns, impatient.forget_user):
            with pytest.raises(DatabaseBusy):
                thread.submit(write, USER).result()
        with pytest.raises(DatabaseBusy):
            thread.submit(add_one).result()
        assert impatient.get_pattern(USER, "tilt", "bad_beat") == 1

    impatient.save_pattern(USER, "tilt", "bad_beat", impatient.get_pattern(USER, "tilt", "bad_beat") + 2)
    add_one()
    assert storage.get_pattern(USER, "tilt", "bad_beat") == 4
    assert storage.get_pattern(USER, "count", "all") == 1


@sqlite_only
def test_a_lock_that_somebody_else_keeps_is_of_the_whole_file(
    storage: PatternStorage, impatient: PatternStorage
) -> None:
    with (
        ThreadPoolExecutor(1) as thread,
        storage.transaction(),
        pytest.raises(DatabaseBusy, match=r"0\.1 seconds"),
    ):
        thread.submit(impatient.save_context, USER, "topic", 2).result()


def test_a_new_database_that_somebody_else_keeps_locked_is_named(database_path: Path) -> None:
    with closing(sqlite3.connect(database_path, isolation_level=None)) as other:
        other.execute("CREATE TABLE users (id INTEGER PRIMARY KEY)")
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(DatabaseBusy, match=re.escape(str(database_path))):
            get_pattern_storage(f"sqlite:///{database_path}?timeout=0.1")

    get_pattern_storage(database_path).close()
    assert "user_patterns" in rows(database_path)


# Rights

# Prints what happened, one line for each thing that it tries.
ATTEMPTS = """
import poker_therapist
from poker_therapist import get_pattern_storage

def attempt(what, *arguments):
    try:
        result = what(*arguments)
    except poker_therapist.PokerTherapistError as error:
        assert "/" in str(error)  # it names a path
        print(type(error).__name__)
    else:
        print(result if isinstance(result, str) else "ok")
"""


def attempts(folder: Path, script: str, report: Callable[[str], None]) -> list[str]:
    """Run a script in a folder as a user for whom rights count; return the lines that it prints."""
    skip_unless_rights_count(report)
    try:
        return run_without_rights(ATTEMPTS + script, folder=folder)
    finally:
        for path in folder.iterdir():  # closed folders could not be removed
            path.chmod(0o700)


def make_database(path: Path, rights: int) -> None:
    with get_pattern_storage(path) as storage:
        storage.save_pattern(USER, "tilt", "bad_beat", "raises")
    path.chmod(rights)


def test_a_file_that_may_not_be_written_is_read_and_saving_is_refused(
    tmp_path: Path, report: Callable[[str], None]
) -> None:
    make_database(tmp_path / "RexVoice.db", 0o444)
    before = everything(tmp_path / "RexVoice.db")
    lines = attempts(
        tmp_path,
        """
storage = get_pattern_storage("RexVoice.db")
attempt(storage.get_pattern, 7, "tilt", "bad_beat")
attempt(storage.recall, 7)
attempt(storage.save_pattern, 7, "tilt", "bad_beat", "calls")
attempt(storage.save_context, 7, "topic", 1)
attempt(storage.save_insight, 7, "leak", 1)
attempt(storage.clear_user_patterns, 7)
attempt(storage.forget_user, 7)
attempt(storage.save_patterns, 7, "tilt", {"bad_beat": "calls"})
attempt(storage.save_contexts, 7, [{"key": "topic", "value": 1}])
attempt(storage.delete_pattern, 7, "tilt", "bad_beat")
attempt(storage.set_confidence, 7, "tilt", "bad_beat", 0)
attempt(storage.get_pattern, 7, "tilt", "bad_beat")
storage.close()
""",
        report,
    )

    assert lines == ["raises", "ok", *["DatabaseReadOnly"] * 9, "raises"]
    assert everything(tmp_path / "RexVoice.db") == before


def test_a_folder_that_may_not_be_written_or_entered_is_named(
    tmp_path: Path, report: Callable[[str], None]
) -> None:
    for name, rights in (("read", 0o555), ("closed", 0o000)):
        (tmp_path / name).mkdir()
        make_database(tmp_path / name / "RexVoice.db", 0o666)
        (tmp_path / name).chmod(rights)
    make_database(tmp_path / "secret.db", 0o000)
    lines = attempts(
        tmp_path,
        """
for name in ("read/new.db", "read/RexVoice.db", "closed/new.db", "closed/RexVoice.db", "secret.db"):
    attempt(get_pattern_storage, name)
storage = get_pattern_storage("read/RexVoice.db")
attempt(storage.list_users)
attempt(storage.save_pattern, 7, "tilt", "bad_beat", "calls")
attempt(storage.save_patterns, 7, "tilt", {"bad_beat": "calls"})
attempt(storage.delete_pattern, 7, "tilt", "bad_beat")
""",
        report,
    )

    assert lines[5:] == ["ok", *["DatabaseReadOnly"] * 3]
    lines = lines[:5]
    assert lines[:2] == ["DatabaseReadOnly", "ok"]  # what is there can be read
    assert set(lines[2:]) <= {"DatabaseNotFound", "DatabaseReadOnly", "DatabaseUnreadable"}
    assert len(lines) == 5
