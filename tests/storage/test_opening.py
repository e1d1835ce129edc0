"""Opening and closing a storage: where it is, how it is set, and what opening leaves alone."""

import hashlib
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from poker_therapist import PatternStorage, StorageClosed, get_pattern_storage
from poker_therapist.errors import StorageError
from tests.helpers.engines import fetch_all, sqlite_only
from tests.helpers.scripts import run_script
from tests.helpers.snapshots import everything

USER = 7

# Each names the file RexVoice.db in the folder that the test runs in.
NAMES = [
    "RexVoice.db",
    "{folder}/RexVoice.db",
    Path("RexVoice.db"),
    Path("{folder}/RexVoice.db"),
    "sqlite:///RexVoice.db",
    "sqlite:///{folder}/RexVoice.db",
    "sqlite+atomic:///RexVoice.db",
    "sqlite+atomic:///{folder}/RexVoice.db",
    "SQLITE:///RexVoice.db",
    "sqlite:///%52exVoice.db",
    "sqlite:///RexVoice.db?timeout=1.5&synchronous=full",
]


def setting(storage: PatternStorage, name: str) -> Any:
    return fetch_all(storage, f"PRAGMA {name}")[0][0]


@pytest.mark.parametrize("name", NAMES, ids=repr)
def test_a_path_or_url_names_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str | Path
) -> None:
    monkeypatch.chdir(tmp_path)
    with get_pattern_storage(type(name)(str(name).format(folder=tmp_path))) as storage:
        storage.save_pattern(USER, "tilt", "bad_beat", 1)

    assert Path(storage.db_path).resolve() == tmp_path / "RexVoice.db"
    assert [file.name for file in tmp_path.iterdir()] == ["RexVoice.db"]
    with get_pattern_storage(tmp_path / "RexVoice.db") as again:
        assert again.get_pattern(USER, "tilt", "bad_beat") == 1


def test_the_database_is_rexvoice_db_in_this_folder_unless_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with get_pattern_storage() as storage:
        assert storage.db_path == Path("RexVoice.db")
        assert (tmp_path / "RexVoice.db").is_file()


@pytest.mark.parametrize(
    "name",
    ["my poker.db", "100%.db", "a?b#c.db", "%3F.db", "a&b=c;d.db", "ünïcode ♠.db", "'; --.db", "a\nb.db"],
)
@pytest.mark.parametrize("form", ["path", "url"])
def test_a_file_may_have_any_name(tmp_path: Path, name: str, form: str) -> None:
    folder = tmp_path / f"folder of {name}"
    folder.mkdir()
    path = folder / name
    with get_pattern_storage(path if form == "path" else f"sqlite:///{quote(str(path))}") as storage:
        storage.save_pattern(USER, "tilt", "bad_beat", 1)

    assert storage.db_path == path
    assert list(folder.iterdir()) == [path]


def test_a_path_that_starts_with_two_slashes_is_the_same_file(tmp_path: Path) -> None:
    with get_pattern_storage(f"/{tmp_path}/RexVoice.db") as storage:
        storage.save_pattern(USER, "tilt", "bad_beat", 1)

    assert (tmp_path / "RexVoice.db").is_file()


def test_a_relative_path_is_of_the_folder_at_the_opening(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "later").mkdir()
    monkeypatch.chdir(tmp_path)
    with get_pattern_storage("RexVoice.db") as storage:
        monkeypatch.chdir(tmp_path / "later")
        with get_pattern_storage(tmp_path / storage.db_path) as same:
            same.save_pattern(USER, "tilt", "bad_beat", 1)

        assert storage.get_pattern(USER, "tilt", "bad_beat") == 1
        assert list(Path().iterdir()) == []


@sqlite_only
def test_a_new_file_is_its_owner_s_alone(storage: PatternStorage) -> None:
    """So are the files that SQLite makes beside it."""
    storage.save_pattern(USER, "tilt", "bad_beat", 1)

    files = list(Path(storage.db_path).parent.iterdir())
    assert {file.name for file in files} == {"RexVoice.db", "RexVoice.db-wal", "RexVoice.db-shm"}
    assert {file.stat().st_mode & 0o777 for file in files} == {0o600}


def test_a_file_that_was_there_keeps_its_rights(database_path: Path) -> None:
    database_path.touch()
    database_path.chmod(0o640)
    get_pattern_storage(database_path).close()

    assert database_path.stat().st_mode & 0o777 == 0o640


@pytest.mark.parametrize("mode", ["delete", "truncate"])
def test_where_memory_cannot_be_shared_no_log_is_made(database_path: Path, mode: str) -> None:
    """Though the file had one: all that was saved stays; what cannot be erased there is said."""
    with get_pattern_storage(database_path) as storage:
        storage.save_pattern(7, "tilt", "bad_beat", 1)

    with get_pattern_storage(
        f"sqlite:///{quote(str(database_path))}?journal_mode={mode}&timeout=1"
    ) as storage:
        storage.save_pattern(8, "tilt", "bad_beat", 2)
        assert setting(storage, "journal_mode") == mode
        assert not Path(f"{database_path}-wal").exists()
        assert not Path(f"{database_path}-shm").exists()
        assert storage.export_user(7)
        with pytest.raises(StorageError, match="copy the file to a local disk, run forget there"):
            storage.forget_user(7)
        assert setting(storage, "journal_mode") == mode
        assert not Path(f"{database_path}-wal").exists()


@pytest.mark.parametrize(
    ("options", "synchronous"), [("", 1), ("?synchronous=NORMAL", 1), ("?synchronous=FULL", 3)]
)
def test_each_connection_has_the_settings_that_keep_data_safe(
    database_path: Path, monkeypatch: pytest.MonkeyPatch, options: str, synchronous: int
) -> None:
    """Whatever the defaults of this SQLite are: here, all the wrong ones."""

    def connect(*arguments: Any, **options: Any) -> sqlite3.Connection:
        connection = sqlite3.Connection(*arguments, **options)
        for wrong in ("secure_delete = OFF", "foreign_keys = OFF", "synchronous = OFF"):
            connection.execute(f"PRAGMA {wrong}")
        return connection

    get_pattern_storage(database_path).close()
    monkeypatch.setattr(sqlite3, "connect", connect)
    with get_pattern_storage(f"sqlite:///{quote(str(database_path))}{options}") as storage:
        assert setting(storage, "journal_mode") == "wal"
        assert setting(storage, "synchronous") == synchronous
        assert setting(storage, "foreign_keys") == 1
        assert setting(storage, "secure_delete") == 1
        assert setting(storage, "busy_timeout") == 30_000


def test_the_timeout_of_the_url_is_used(database_path: Path) -> None:
    with get_pattern_storage(f"sqlite:///{quote(str(database_path))}?timeout=2.5") as storage:
        assert setting(storage, "busy_timeout") == 2_500


@sqlite_only
def test_opening_an_up_to_date_database_writes_no_file(storage: PatternStorage) -> None:
    storage.save_pattern(USER, "tilt", "bad_beat", 1)
    storage.close()

    def state() -> list[tuple[str, int, str]]:
        folder = Path(storage.db_path).parent
        return [
            (file.name, file.stat().st_mtime_ns, hashlib.sha256(file.read_bytes()).hexdigest())
            for file in folder.iterdir()
        ]

    before = state()
    for migrate in (True, False):
        with get_pattern_storage(storage.db_path, migrate=migrate) as again:
            value = again.get_pattern(USER, "tilt", "bad_beat")
            log = Path(f"{storage.db_path}-wal").stat().st_size

        assert (value, log) == (1, 0)
        assert state() == before


def test_opening_an_up_to_date_database_writes_nothing(migrated: str) -> None:
    before = everything(migrated)
    for migrate in (True, False):
        get_pattern_storage(migrated, migrate=migrate).close()

    assert everything(migrated) == before


def test_opening_an_up_to_date_database_does_not_import_yoyo(database: str) -> None:
    script = (
        "import sys; from poker_therapist import get_pattern_storage; "
        "get_pattern_storage(sys.argv[1]).close(); print('yoyo' in sys.modules)"
    )
    printed = [run_script(script, database) for _ in ("new", "up to date")]

    assert printed == [["True"], ["False"]]


# Closing

METHODS: dict[str, Callable[[PatternStorage], Any]] = {
    "save_pattern": lambda storage: storage.save_pattern(USER, "tilt", "bad_beat", 2),
    "get_pattern": lambda storage: storage.get_pattern(USER, "tilt", "bad_beat"),
    "get_patterns_by_type": lambda storage: storage.get_patterns_by_type(USER, "tilt"),
    "save_context": lambda storage: storage.save_context(USER, "topic", 2),
    "get_context": lambda storage: storage.get_context(USER, "topic"),
    "save_insight": lambda storage: storage.save_insight(USER, "leak", 2),
    "get_insights": lambda storage: storage.get_insights(USER),
    "recall": lambda storage: storage.recall(USER),
    "clear_user_patterns": lambda storage: storage.clear_user_patterns(USER),
    "clear_user_context": lambda storage: storage.clear_user_context(USER),
    "purge_expired": lambda storage: storage.purge_expired(),
    "export_user": lambda storage: storage.export_user(USER),
    "forget_user": lambda storage: storage.forget_user(USER),
    "forget_users": lambda storage: storage.forget_users([USER]),
    "transaction": lambda storage: storage.transaction().__enter__(),
    "save_patterns": lambda storage: storage.save_patterns(USER, "tilt", {"bad_beat": 2}),
    "get_pattern_record": lambda storage: storage.get_pattern_record(USER, "tilt", "bad_beat"),
    "list_pattern_types": lambda storage: storage.list_pattern_types(USER),
    "set_confidence": lambda storage: storage.set_confidence(USER, "tilt", "bad_beat", 0),
    "delete_pattern": lambda storage: storage.delete_pattern(USER, "tilt", "bad_beat"),
    "save_contexts": lambda storage: storage.save_contexts(USER, [{"key": "topic", "value": 2}]),
    "get_context_items": lambda storage: storage.get_context_items(USER),
    "list_sessions": lambda storage: storage.list_sessions(USER),
    "delete_context": lambda storage: storage.delete_context(USER, 1),
    "get_foremost_insights": lambda storage: storage.get_foremost_insights(USER),
    "delete_insight": lambda storage: storage.delete_insight(USER, 1),
    "clear_user_insights": lambda storage: storage.clear_user_insights(USER),
    "list_users": lambda storage: storage.list_users(),
    "count": lambda storage: storage.count(USER),
}


def test_every_method_is_in_the_list_of_methods() -> None:
    public = {name for name in dir(PatternStorage) if not name.startswith("_")}

    assert set(METHODS) == public - {"close", "db_path"}


@pytest.mark.parametrize("method", METHODS)
def test_a_closed_storage_says_so_and_does_nothing(module_database: str, method: str) -> None:
    storage = get_pattern_storage(module_database)
    storage.save_pattern(USER, "tilt", "bad_beat", 1)
    before = storage.export_user(USER)
    storage.close()
    storage.close()
    with pytest.raises(StorageClosed, match="get_pattern_storage"):
        METHODS[method](storage)

    with get_pattern_storage(module_database) as again:
        assert again.export_user(USER) == before


def test_a_with_block_closes_the_storage_even_when_it_raises(migrated: str) -> None:
    with pytest.raises(ZeroDivisionError), get_pattern_storage(migrated) as storage:
        storage.save_pattern(USER, "tilt", "bad_beat", 1 // 0)

    with pytest.raises(StorageClosed):
        storage.get_pattern(USER, "tilt", "bad_beat")


@sqlite_only
def test_closing_leaves_one_file(storage: PatternStorage) -> None:
    storage.save_pattern(USER, "tilt", "bad_beat", 1)
    storage.close()

    assert [file.name for file in Path(storage.db_path).parent.iterdir()] == ["RexVoice.db"]


def test_closing_inside_a_transaction_undoes_it(migrated: str, storage: PatternStorage) -> None:
    def save_and_close() -> None:
        with storage.transaction():
            storage.save_pattern(USER, "tilt", "bad_beat", 1)
            storage.close()

    with pytest.raises(StorageClosed):
        save_and_close()

    with get_pattern_storage(migrated) as again:
        assert again.get_pattern(USER, "tilt", "bad_beat") is None
