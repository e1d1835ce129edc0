"""What is no usable database is named by a clear error, and nothing is made, lost or changed."""

import os
import re
import shlex
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from poker_therapist import (
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
from poker_therapist.location import locate
from poker_therapist.schema import shipped_ids
from tests.helpers.cli import command
from tests.helpers.engines import is_server, run_sql, sqlite_only
from tests.helpers.snapshots import everything

USER = 7


def contents(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir() if file.is_file()}


# Names


@pytest.mark.parametrize(
    ("name", "word"),
    [
        (":memory:", "memory"),
        ("sqlite:///:memory:", "memory"),
        ("", "is not a valid path"),
        (" ", "is not a valid path"),
        ("a\0.db", "is not a valid path"),
        ("sqlite:///%00.db", "is not a valid path"),
        (b"RexVoice.db", "bytes"),
        (7, "int"),
        (None, "NoneType"),
        (["RexVoice.db"], "list"),
        ("sqlit:///RexVoice.db", "sqlit://"),
        ("sqlite3:///RexVoice.db", "sqlite3://"),
        ("postgresql://host/name?sslmod=require", "sslmod"),
        ("file:///RexVoice.db", "file://"),
        ("sqlite://", "is not a valid SQLite URL"),
        ("sqlite:///", "is not a valid SQLite URL"),
        ("sqlite://RexVoice.db", "is not a valid SQLite URL"),
        ("sqlite://[/RexVoice.db", "is not a valid SQLite URL"),
        ("sqlite:///RexVoice.db#part", "is not a valid SQLite URL"),
        ("sqlite:///RexVoice.db?synchronus=FULL", "synchronus"),
        ("sqlite:///RexVoice.db?mode=ro", "mode"),
        ("sqlite:///RexVoice.db?synchronous=OFF", "synchronous=OFF"),
        ("sqlite:///RexVoice.db?synchronous=", "synchronous="),
        ("sqlite:///RexVoice.db?journal_mode=OFF", "journal_mode=OFF"),
        ("sqlite:///RexVoice.db?journal_mode=", "journal_mode="),
        ("sqlite:///RexVoice.db?timeout=soon", "timeout=soon"),
        ("sqlite:///RexVoice.db?timeout=-1", "timeout=-1"),
        ("sqlite:///RexVoice.db?timeout=nan", "timeout=nan"),
        ("sqlite:///RexVoice.db?timeout=1e9", "timeout=1e9"),
        ("sqlite:///RexVoice.db?timeout=", "timeout="),
        ("postgresql://host/name?timeout=soon", "timeout=soon"),
        ("postgresql://host/name?connections=0", "connections=0"),
        ("postgresql://host/name?connections=1000", "connections=1000"),
        ("postgresql://host/name?connections=many", "connections=many"),
        ("postgresql://host/name?schema=a;b", "schema=a;b"),
        ("postgresql://host/name?schema=", "schema="),
        ("postgresql://[host/name", "postgresql://user@host"),
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


def test_a_table_that_is_gone_is_named(migrated: str, storage: PatternStorage, tmp_path: Path) -> None:
    """And the command that the message names says so of this database, wherever it is pasted."""
    run_sql(migrated, "DROP TABLE user_insights")
    with pytest.raises(SchemaMissing, match=r"user_insights.*see what is missing with `(.*)`") as caught:
        storage.get_insights(USER)

    program, *words = shlex.split(str(caught.value).split("`")[1])
    ran = command(*words, folder=tmp_path)
    assert (program, ran.code) == ("poker-therapist", 4)
    assert "drift: table user_insights is missing" in ran.out


@sqlite_only
def test_a_thread_that_starts_when_the_file_is_gone_says_so_and_makes_none(storage: PatternStorage) -> None:
    Path(storage.db_path).unlink()
    with (
        ThreadPoolExecutor(1) as pool,
        pytest.raises(DatabaseNotFound, match=re.escape(str(storage.db_path))),
    ):
        pool.submit(storage.get_insights, USER).result()

    assert not Path(storage.db_path).exists()


# Versions


def shipped(database: str) -> set[str]:
    return shipped_ids("postgresql" if is_server(database) else "sqlite")


def test_an_outdated_database_is_named_and_left_alone_where_nothing_may_migrate(database: str) -> None:
    run_sql(database, "CREATE TABLE users (id INTEGER PRIMARY KEY); INSERT INTO users VALUES (7)")
    before = everything(database)
    with pytest.raises(SchemaOutdated) as outdated:
        get_pattern_storage(database, migrate=False)

    assert everything(database) == before
    assert str(outdated.value).startswith(locate(database).name)
    assert set(re.findall(r"\b\d{3}_\w+", str(outdated.value))) == shipped(database)


def test_an_outdated_file_is_left_alone_to_the_byte_where_nothing_may_migrate(database_path: Path) -> None:
    run_sql(database_path, "CREATE TABLE users (id INTEGER PRIMARY KEY)")
    before = contents(database_path.parent)
    with pytest.raises(SchemaOutdated):
        get_pattern_storage(database_path, migrate=False)

    assert contents(database_path.parent) == before


def test_a_half_migrated_database_lacks_only_what_is_named(migrated: str) -> None:
    last = max(shipped(migrated))
    run_sql(migrated, f"DELETE FROM _yoyo_migration WHERE migration_id = '{last}'")
    before = everything(migrated)
    with pytest.raises(SchemaOutdated) as outdated:
        get_pattern_storage(migrated, migrate=False)

    assert everything(migrated) == before
    assert re.findall(r"\b\d{3}_\w+", str(outdated.value)) == [last]


@pytest.mark.parametrize("migrate", [True, False])
def test_a_database_of_a_later_version_is_named_and_left_alone(migrated: str, migrate: bool) -> None:
    run_sql(
        migrated,
        "INSERT INTO _yoyo_migration (migration_hash, migration_id, applied_at_utc) "
        "VALUES ('x', '998_from_tomorrow', '2030-01-01'), ('y', '999_and_after', '2030-01-01'),"
        "('z', '2020_of_the_app', '2020-01-01');"
        "INSERT INTO _migration_text (migration_table, migration_id, applied_at, apply_sql) VALUES "
        "('_yoyo_migration', '998_from_tomorrow', '2030-01-01', 'SELECT 1;'),"
        "('_yoyo_migration', '999_and_after', '2030-01-01', 'SELECT 1;')",
    )
    before = everything(migrated)
    with pytest.raises(SchemaTooNew, match="know 998_from_tomorrow, 999_and_after:"):
        get_pattern_storage(migrated, migrate=migrate)

    assert everything(migrated) == before
