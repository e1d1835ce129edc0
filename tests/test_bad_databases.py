"""What is no usable database is named by a clear error, and nothing is made, lost or changed."""

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
from typing import Any

import pytest

from poker_therapist import (
    DatabaseBusy,
    DatabaseFull,
    DatabaseNotFound,
    DatabaseUnreadable,
    InvalidInput,
    PatternStorage,
    SchemaMissing,
    SchemaOutdated,
    SchemaTooNew,
    StorageError,
    get_pattern_storage,
)
from poker_therapist.migrations import migrations_folder, shipped_ids
from tests.conftest import run_sql
from tests.snapshots import everything, rows

USER = 7


def contents(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir() if file.is_file()}


# Names


@pytest.mark.parametrize(
    ("name", "word"),
    [
        (":memory:", "memory"),
        ("sqlite:///:memory:", "memory"),
        ("", "no path"),
        (" ", "no path"),
        ("a\0.db", "no path"),
        ("sqlite:///%00.db", "%00"),
        (b"RexVoice.db", "bytes"),
        (7, "int"),
        (None, "NoneType"),
        (["RexVoice.db"], "list"),
        ("sqlit:///RexVoice.db", "sqlit://"),
        ("sqlite3:///RexVoice.db", "sqlite3://"),
        ("postgresql://host/name", "postgresql://"),
        ("file:///RexVoice.db", "file://"),
        ("sqlite://", "names no file"),
        ("sqlite:///", "names no file"),
        ("sqlite://RexVoice.db", "names no file"),
        ("sqlite://[/RexVoice.db", "names no file"),
        ("sqlite:///RexVoice.db#part", "names no file"),
        ("sqlite:///RexVoice.db?synchronus=FULL", "synchronus"),
        ("sqlite:///RexVoice.db?mode=ro", "mode"),
        ("sqlite:///RexVoice.db?synchronous=OFF", "synchronous=OFF"),
        ("sqlite:///RexVoice.db?synchronous=", "synchronous="),
        ("sqlite:///RexVoice.db?timeout=soon", "timeout=soon"),
        ("sqlite:///RexVoice.db?timeout=-1", "timeout=-1"),
        ("sqlite:///RexVoice.db?timeout=nan", "timeout=nan"),
        ("sqlite:///RexVoice.db?timeout=1e9", "timeout=1e9"),
        ("sqlite:///RexVoice.db?timeout=", "timeout="),
    ],
)
def test_what_is_no_path_or_url_is_refused_and_nothing_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: Any, word: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InvalidInput, match=re.escape(word)):
        get_pattern_storage(name)

    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("migrate", [True, False])
@pytest.mark.parametrize("name", ["", "no/such/folder/RexVoice.db", "a file/RexVoice.db", "x" * 300 + ".db"])
def test_a_place_that_holds_no_file_is_named_and_nothing_is_made(
    tmp_path: Path, name: str, migrate: bool
) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "a file").touch()
    with pytest.raises(StorageError, match=re.escape(str(folder))):
        get_pattern_storage(folder / name, migrate=migrate)

    assert contents(folder) == {"a file": b""}
    assert list(tmp_path.iterdir()) == [folder]


def test_a_missing_database_is_not_made_where_nothing_may_migrate(database_path: Path) -> None:
    with pytest.raises(DatabaseNotFound, match=re.escape(str(database_path))):
        get_pattern_storage(database_path, migrate=False)

    assert list(database_path.parent.iterdir()) == []


# Files


@pytest.mark.parametrize("content", [b"short", b"As long as a database.\n" * 1_000, b"\0" * 8_192])
@pytest.mark.parametrize("migrate", [True, False])
def test_a_file_that_is_no_database_is_left_alone(database_path: Path, content: bytes, migrate: bool) -> None:
    database_path.write_bytes(content)
    with pytest.raises(DatabaseUnreadable, match="not an SQLite database"):
        get_pattern_storage(database_path, migrate=migrate)

    assert contents(database_path.parent) == {database_path.name: content}


def test_an_empty_file_becomes_a_database(database_path: Path) -> None:
    database_path.touch()
    with get_pattern_storage(database_path) as storage:
        storage.save_pattern(USER, "tilt", "bad_beat", 1)

        assert storage.get_pattern(USER, "tilt", "bad_beat") == 1


@pytest.fixture
def many_rows(database_path: Path) -> Path:
    """A closed database of some hundred pages."""
    with get_pattern_storage(database_path) as storage, storage.transaction():
        for number in range(2_000):
            storage.save_pattern(USER, "tilt", f"key {number}", "x" * 50)
            storage.save_context(USER, "topic", "x" * 50, "monday", expires_minutes=60)
            storage.save_insight(USER, "leak", "x" * 50)
    return database_path


@pytest.mark.parametrize(
    ("damage_from", "damage_to"), [(0.3, 0.7), (0.5, 0.51)], ids=["many pages", "few pages"]
)
def test_a_damaged_file_is_named_and_never_read_as_if_it_were_whole(
    many_rows: Path, damage_from: float, damage_to: float
) -> None:
    pages = many_rows.stat().st_size // 4_096
    start, end = (int(pages * part) * 4_096 for part in (damage_from, damage_to))
    with many_rows.open("r+b") as file:
        file.seek(start)
        file.write(b"\xff" * (end - start))
    with (
        pytest.raises(DatabaseUnreadable, match=f"{re.escape(str(many_rows))} is damaged .*restore a backup"),
        get_pattern_storage(many_rows) as storage,
    ):
        storage.export_user(USER)


@pytest.mark.parametrize(("at", "size"), [(100, 3_996), (16, 84)], ids=["schema", "header"])
def test_a_damaged_first_page_is_named_at_the_opening(many_rows: Path, at: int, size: int) -> None:
    with many_rows.open("r+b") as file:
        file.seek(at)
        file.write(b"\xff" * size)
    with pytest.raises(DatabaseUnreadable, match=re.escape(str(many_rows))):
        get_pattern_storage(many_rows)


def test_a_truncated_file_is_named(many_rows: Path) -> None:
    os.truncate(many_rows, many_rows.stat().st_size // 2)
    with (
        pytest.raises(DatabaseUnreadable, match=re.escape(str(many_rows))),
        get_pattern_storage(many_rows) as storage,
    ):
        storage.export_user(USER)


def test_a_table_that_is_gone_is_named(storage: PatternStorage) -> None:
    run_sql(storage.db_path, "DROP TABLE user_insights")
    with pytest.raises(SchemaMissing, match="user_insights"):
        storage.get_insights(USER)


# No room


def test_a_full_disk_loses_nothing_that_was_saved_and_saving_works_again_when_there_is_room(
    storage: PatternStorage,
) -> None:
    storage.save_pattern(USER, "tilt", "before", "x" * 10_000)
    (pages,) = storage._database.row("PRAGMA page_count")
    storage._database.row(f"PRAGMA max_page_count = {pages}")

    def save_until_it_is_full() -> None:
        for number in range(10_000):
            storage.save_pattern(USER, "tilt", f"key {number}", "x" * 1_000)

    with pytest.raises(DatabaseFull, match=re.escape(storage.db_path)):
        save_until_it_is_full()
    kept = storage.get_patterns_by_type(USER, "tilt")

    # What was saved before is there to the last one, and the file is whole.
    assert set(kept) == {"before", *(f"key {number}" for number in range(len(kept) - 1))}
    with pytest.raises(DatabaseFull):
        storage.save_pattern(USER, "tilt", "before", "y" * 100_000)
    with pytest.raises(DatabaseFull):
        storage.save_context(USER, "topic", "y" * 100_000)
    with pytest.raises(DatabaseFull):
        storage.save_insight(USER, "leak", "y" * 100_000)
    assert storage.get_patterns_by_type(USER, "tilt") == kept
    assert storage._database.rows("PRAGMA integrity_check") == [("ok",)]

    storage._database.row("PRAGMA max_page_count = 1000000")
    storage.save_pattern(USER, "tilt", "after", "y" * 100_000)
    assert set(storage.get_patterns_by_type(USER, "tilt")) == {*kept, "after"}


# Locked


@pytest.fixture
def impatient(storage: PatternStorage) -> Iterator[PatternStorage]:
    with get_pattern_storage(f"sqlite:///{storage.db_path}?timeout=0.1") as opened:
        yield opened


def test_a_lock_that_somebody_else_keeps_is_named_and_reading_goes_on(
    storage: PatternStorage, impatient: PatternStorage
) -> None:
    storage.save_pattern(USER, "tilt", "bad_beat", 1)
    with storage.transaction():
        with pytest.raises(DatabaseBusy, match=r"0\.1 seconds"):
            impatient.save_pattern(USER, "tilt", "bad_beat", 2)
        with pytest.raises(DatabaseBusy, match=r"0\.1 seconds"):
            impatient.save_context(USER, "topic", 2)
        with pytest.raises(DatabaseBusy, match=r"0\.1 seconds"):
            impatient.forget_user(USER)
        assert impatient.get_pattern(USER, "tilt", "bad_beat") == 1

    impatient.save_pattern(USER, "tilt", "bad_beat", 3)
    assert storage.get_pattern(USER, "tilt", "bad_beat") == 3


def test_a_new_database_that_somebody_else_keeps_locked_is_named(database_path: Path) -> None:
    with closing(sqlite3.connect(database_path, isolation_level=None)) as other:
        other.execute("CREATE TABLE users (id INTEGER PRIMARY KEY)")
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(DatabaseBusy, match=re.escape(str(database_path))):
            get_pattern_storage(f"sqlite:///{database_path}?timeout=0.1")

    get_pattern_storage(database_path).close()
    assert "user_patterns" in rows(database_path)


# Versions


def test_an_outdated_database_is_named_and_left_alone_where_nothing_may_migrate(database_path: Path) -> None:
    run_sql(database_path, "CREATE TABLE users (id INTEGER PRIMARY KEY); INSERT INTO users VALUES (7)")
    before = contents(database_path.parent)
    with pytest.raises(SchemaOutdated) as outdated:
        get_pattern_storage(database_path, migrate=False)

    assert contents(database_path.parent) == before
    assert str(database_path) in str(outdated.value)
    assert set(re.findall(r"\d{3}_\w+", str(outdated.value))) == shipped_ids("sqlite")


def test_a_half_migrated_database_lacks_only_what_is_named(storage: PatternStorage) -> None:
    storage.close()
    last = max(shipped_ids("sqlite"))
    run_sql(storage.db_path, f"DELETE FROM _yoyo_migration WHERE migration_id = '{last}'")
    before = everything(Path(storage.db_path))
    with pytest.raises(SchemaOutdated) as outdated:
        get_pattern_storage(storage.db_path, migrate=False)

    assert everything(Path(storage.db_path)) == before
    assert re.findall(r"\d{3}_\w+", str(outdated.value)) == [last]


@pytest.mark.parametrize("migrate", [True, False])
def test_a_database_of_a_later_version_is_named_and_left_alone(
    storage: PatternStorage, migrate: bool
) -> None:
    storage.close()
    run_sql(
        storage.db_path,
        "INSERT INTO _yoyo_migration (migration_hash, migration_id, applied_at_utc) "
        "VALUES ('x', '998_from_tomorrow', '2030-01-01'), ('y', '999_and_after', '2030-01-01')",
    )
    before = everything(Path(storage.db_path))
    with pytest.raises(SchemaTooNew, match="998_from_tomorrow, 999_and_after"):
        get_pattern_storage(storage.db_path, migrate=migrate)

    assert everything(Path(storage.db_path)) == before


# Rights

NOBODY = 65_534

# Rights do not count for root, so as root this becomes somebody else. What it needs is imported before, for
# the new user may not be able to read it, and prints what happened, one line for each thing that it tries.
AS_SOMEBODY_ELSE = f"""
import os, sys
from pathlib import Path
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
        migrations = migrations_folder("sqlite")
        if not all(place.stat().st_mode & 0o005 == 0o005 for place in (migrations, *migrations.parents)):
            pytest.skip("another user may not read the migrations of this checkout")
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

    assert lines[:2] == ["DatabaseReadOnly", "DatabaseReadOnly"]
    assert set(lines[2:]) <= {"DatabaseNotFound", "DatabaseReadOnly", "DatabaseUnreadable"}
    assert len(lines) == 5
