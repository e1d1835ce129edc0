"""`poker-therapist backup` and `restore`: while others use the database, and with nothing lost."""

import re
import shutil
import signal
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import cast

import pytest

from poker_therapist import MigrationError, get_pattern_storage
from poker_therapist.location import SQLiteLocation
from poker_therapist.new_files import private_folder
from poker_therapist.sqlite import backup as making
from poker_therapist.sqlite.backend import AtomicSQLiteBackend
from tests.helpers import old_app, snapshots
from tests.helpers.backups import APP, USER, back_up, restore, save, value
from tests.helpers.cli import PROGRAM, command, in_child, in_children, state_of
from tests.helpers.engines import run_sql
from tests.helpers.migrating import FOLDER, IDS
from tests.helpers.project import Project
from tests.helpers.sessions import wait_until


@pytest.fixture
def database(tmp_path: Path, migrated_file: Path) -> Path:
    """A database that holds one pattern."""
    path = Path(shutil.copy(migrated_file, tmp_path / "RexVoice.db"))
    with get_pattern_storage(path) as storage:
        storage.save_pattern(USER, "tilt", "after_bad_beat", "first")
    return path


def test_a_backup_lies_beside_the_database_and_is_named_by_the_time(database: Path) -> None:
    """By the program; whole, and no more readable than the database."""
    database.chmod(0o640)
    ran = in_child("backup", folder=database.parent)
    backup = Path(ran.lines[0])

    assert (ran.code, ran.error) == (0, "")
    assert backup.match("RexVoice.db.????????T??????.??????Z.backup")
    assert stat.S_IMODE(backup.stat().st_mode) == 0o640  # of the same group
    assert snapshots.everything(backup) == snapshots.everything(database)
    assert snapshots.is_whole(backup)


def test_a_backup_goes_where_it_is_told(database: Path) -> None:
    """And is never deleted, however many are made by themselves."""
    backup = back_up(database, "--output", "monday.backup")

    assert backup.name == "monday.backup"
    assert snapshots.everything(backup) == snapshots.everything(database)


@pytest.fixture
def app(database: Path) -> Iterator[Callable[[], int]]:
    """The app, writing and reading in a process of its own; call it to end it and see how often it did."""
    with subprocess.Popen(
        [sys.executable, "-c", APP, str(database)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as running:
        assert running.stdout
        assert running.stdout.readline() == "ready\n"

        def end() -> int:
            out, error = running.communicate("end\n")

            assert (running.returncode, error) == (0, "")
            return int(out)

        yield end
        if running.poll() is None:
            running.kill()


def test_backups_are_made_while_another_process_writes_and_reads(
    database: Path, app: Callable[[], int]
) -> None:
    """Each is of one moment; nobody is refused anything."""
    for number in range(5):
        backup = back_up(database, "--output", f"{number}.backup")

        assert snapshots.is_whole(backup)
        with get_pattern_storage(backup) as storage:
            one, other = (storage.get_pattern(USER, "count", key) for key in ("one", "other"))
        assert one == other is not None

    assert app() > 1


def test_a_backup_is_restored_while_another_process_writes_and_reads(
    database: Path, app: Callable[[], int]
) -> None:
    """It goes on with what was restored; nobody is refused anything and the file is whole."""
    backup = back_up(database, "--output", "monday.backup")
    for _ in range(3):
        restore(backup, database)

    assert app() > 1
    assert snapshots.is_whole(database)


def test_a_reader_that_is_connected_sees_what_was_restored(database: Path) -> None:
    """A storage that is open sees it at once; a transaction sees its own moment to the end."""
    backup = back_up(database)
    with get_pattern_storage(database) as storage, closing(sqlite3.connect(database)) as reader:
        storage.save_pattern(USER, "tilt", "after_bad_beat", "second")
        reader.execute("BEGIN")
        texts = "SELECT pattern_value FROM user_patterns"

        assert reader.execute(texts).fetchall() == [('"second"',)]

        restore(backup, database)

        assert reader.execute(texts).fetchall() == [('"second"',)]
        assert storage.get_pattern(USER, "tilt", "after_bad_beat") == "first"

        reader.rollback()

        assert reader.execute(texts).fetchall() == [('"first"',)]


def test_restoring_the_oldest_of_five_backups_does_not_delete_it(database: Path) -> None:
    """The backup of what is replaced makes six; the second oldest may go."""
    for number in range(5):
        shutil.copy(database, f"{database}.2026010{number + 1}T000000.000000Z.before-apply-{IDS[0]}.backup")
    oldest, _second, *others = sorted(database.parent.glob("*.backup"))
    save(database, "second")
    restore(oldest, database)

    assert oldest.exists()
    assert all(path.exists() for path in others)
    assert len(list(database.parent.glob("*.before-restore.backup"))) == 1
    assert value(database) == "first"


def test_a_restored_database_of_an_older_version_is_brought_up_to_date_when_it_is_opened(
    tmp_path: Path,
) -> None:
    """Which is how one gets back below 001: the earlier app's own tables are there again, to the letter."""
    path = tmp_path / "RexVoice.db"
    old_app.make(path)
    old_app.add_odd_rows(path)
    before = snapshots.stored_sql(path), snapshots.rows(path)
    get_pattern_storage(path).close()
    (backup,) = tmp_path.glob("*.backup")
    restore(backup, path)

    assert (snapshots.stored_sql(path), snapshots.rows(path)) == before
    assert snapshots.applied(path) == []

    get_pattern_storage(path).close()

    assert snapshots.applied(path) == IDS


def test_a_database_that_is_not_there_is_made(database: Path) -> None:
    """For its owner alone; nothing is replaced, so nothing is backed up."""
    backup = back_up(database)
    new = database.parent / "new.db"

    assert restore(backup, new) == []
    assert snapshots.everything(new) == snapshots.everything(backup)
    assert stat.S_IMODE(new.stat().st_mode) == 0o600


# Whose files they are


NOT_OURS = [
    "RexVoice.db.monday.backup.partaa",
    "RexVoice.db.1.20260105T000000.000000Z.before-apply-001_x.backup",
    "RexVoice.db.staging.20260105T000000.000000Z.before-apply-001_x.backup",
    "RexVoice.db.staging.20260105T000000.000000Z.backup.part-deadbeef",
    "RexVoice.db.before-the-big-day.backup",
    "RexVoice.db.20260105T000000.000000Z.before-the-big-day.backup",
    "RexVoice.db.20260105T000000.000000Z.backup.partial",
    "xRexVoice.db.20260105T000000.000000Z.before-apply-001_x.backup",
]


def test_files_of_others_are_neither_pruned_nor_cleared_nor_deleted(database: Path) -> None:
    """However alike their names are; those that hold the player beside this database are named."""
    names = [database.with_name(name) for name in NOT_OURS]
    for path in names:
        shutil.copy(database, path)
    with AtomicSQLiteBackend(SQLiteLocation(database, backups=1)) as backend:
        files = backend.read([str(FOLDER)])
        for _ in range(3):
            backend.rollback_migrations(backend.to_rollback(files)[:1])
            backend.apply_migrations(backend.to_apply(files))
    back_up(database)
    ran = command("forget", f"{USER}", "--yes", "--backups", folder=database.parent)

    assert ran.code == 0
    assert [path.name for path in names if not path.exists()] == []
    by_hand = [line.split(" still")[0] for line in ran.lines if "delete it yourself" in line]
    assert by_hand == [
        str(database.with_name(name))
        for name in ("RexVoice.db.20260105T000000.000000Z.before-the-big-day.backup", NOT_OURS[4])
    ]


def test_what_a_killed_backup_has_left_is_cleared_and_what_is_being_written_is_not(database: Path) -> None:
    dead = database.with_name(f"{database.name}.20260105T000000.000000Z.backup.part-deadbeef")
    dead.mkdir()
    for name in ("owner", "new", "new-journal"):
        shutil.copy(database, dead / name)
    (database.with_name(f"{database.name}.20260105T000000.000000Z.damaged-wal.part-deadbeef")).mkdir()
    begun = database.with_name(f"{database.name}.20260105T000000.000000Z.backup.part-01234567")
    begun.mkdir()
    others = database.with_name(f"{database.name}.20260105T000000.000000Z.backup.part-notours_")
    others.mkdir()
    (others / "notes.txt").write_text("mine")
    with private_folder(database.parent, f"{database.name}.20260105T000001.000000Z.backup.part-") as alive:
        back_up(database)

        assert (dead.exists(), begun.exists(), alive.path.exists()) == (False, False, True)
        assert not list(database.parent.glob("*.damaged-wal*"))
    assert (others.exists(), alive.path.exists()) == (True, False)


@pytest.mark.slow
@pytest.mark.parametrize("options", [[], ["--output", "monday.backup"]], ids=["", "of one name"])
def test_several_backups_at_once_leave_each_other_alone(options: list[str], database: Path) -> None:
    """Each is whole; of those with one name, one is made, and the others say that it is there."""
    with get_pattern_storage(database) as storage:
        for number in range(300):
            storage.save_pattern(8, "tilt", str(number), "x" * 3000)
    said = sorted(ran.error for ran in in_children(5, "backup", *options, folder=database.parent))

    refusal = "poker-therapist: monday.backup already exists: choose another name\n"
    assert said == ["", *[refusal if options else ""] * 4]
    made = list(database.parent.glob("*.backup"))
    assert len(made) == (1 if options else 5)
    assert all(snapshots.everything(one) == snapshots.everything(database) for one in made)
    assert not list(database.parent.glob("*.part-*"))


@pytest.mark.slow
def test_sigterm_under_yoyo_apply_leaves_no_part_of_a_backup(tmp_path: Path) -> None:
    """Whenever it comes while the backup is written; the database is as it was."""
    project = Project(tmp_path)
    project.write("001_add_hands", "CREATE TABLE hands (id INTEGER PRIMARY KEY);", "DROP TABLE hands;")
    run_sql(
        project.database,
        "CREATE TABLE games (id INTEGER PRIMARY KEY, game TEXT);"
        "WITH RECURSIVE number (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM number LIMIT 200000) "
        "INSERT INTO games (game) SELECT hex(zeroblob(200)) FROM number",
    )
    before = snapshots.everything(project.database)
    arguments = ["apply", "--no-config-file", "--batch", "-d", f"sqlite+atomic:///{project.database}"]
    with subprocess.Popen(
        [PROGRAM.with_name("yoyo"), *arguments, project.sql],
        stderr=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
    ) as running:
        wait_until(lambda: any(one.stat().st_size > 10**6 for one in tmp_path.rglob("*.part-*/new")))
        running.terminate()
        assert running.wait(60) == 128 + signal.SIGTERM

    assert [one for one in tmp_path.rglob("*") if ".backup" in one.name] == []
    assert snapshots.everything(project.database) == before


def test_a_killed_backup_to_a_named_file_is_cleared_by_the_next(database: Path) -> None:
    """Which nothing else would know of."""
    left = database.with_name("monday.backup.part-deadbeef")
    left.mkdir()
    shutil.copy(database, left / "new")
    back_up(database, "--output", "monday.backup")

    assert not left.exists()


def test_a_run_that_changes_nothing_leaves_no_backup_and_prunes_none(tmp_path: Path) -> None:
    """Five failing starts would otherwise prune the only good one."""
    project = Project(tmp_path / "project")
    project.write("001_add_hands", "CREATE TABLE hands (id INTEGER);", "DROP TABLE hands;")
    assert project.yoyo("apply").returncode == 0
    project.run_sql("INSERT INTO hands VALUES (1)")
    project.write("002_fail", "-- depends: 001_add_hands\nSELECT nonsense;")
    good = [
        project.database.with_name(
            f"game.db.2026010{day}T000000.000000Z.before-rollback-001_add_hands.backup"
        )
        for day in range(1, 6)
    ]
    for path in good:
        shutil.copy(project.database, path)
    for _ in range(6):
        assert project.yoyo("apply").returncode == 1

    assert sorted(project.folder.glob("*.backup*")) == good


def test_the_backup_from_before_adoption_stays_and_is_named(tmp_path: Path) -> None:
    path = tmp_path / "RexVoice.db"
    old_app.make(path)
    before = snapshots.rows(path)
    with AtomicSQLiteBackend(SQLiteLocation(path, backups=2)) as backend:
        files = backend.read([str(FOLDER)])
    for _ in range(4):
        with AtomicSQLiteBackend(SQLiteLocation(path, backups=2)) as backend:
            backend.apply_migrations(backend.to_apply(files))
        with AtomicSQLiteBackend(SQLiteLocation(path, backups=2)) as backend:
            backend.rollback_migrations(backend.to_rollback(files)[:1])
    adoption, *others = sorted(tmp_path.glob("*.backup"))

    assert (f"before-apply-{IDS[0]}" in adoption.name, len(others)) == (True, 2)
    with (
        AtomicSQLiteBackend(SQLiteLocation(path)) as backend,
        pytest.raises(MigrationError, match=re.escape(f"restore {adoption} --database {path}`")),
    ):
        backend.rollback_migrations(backend.to_rollback(files))
    restore(adoption, path)
    assert snapshots.rows(path) == before


def test_the_backup_from_before_adoption_stays_beside_an_app_that_uses_yoyo_and_after_a_restore(
    tmp_path: Path,
) -> None:
    """Whatever id sorts first in yoyo's table, and although two runs have adopted."""
    path = tmp_path / "RexVoice.db"
    location = SQLiteLocation(path, backups=1)
    old_app.make(path)
    app = Project(tmp_path / "app")
    app.write("000_add_games", "CREATE TABLE games (id INTEGER);", "DROP TABLE games;")
    with AtomicSQLiteBackend(location) as backend:
        files = backend.read([str(FOLDER)])
        backend.apply_migrations(backend.to_apply(files))
    with AtomicSQLiteBackend(location) as backend:
        backend.apply_migrations(backend.to_apply(backend.read([str(app.sql)])))
    adoption = min(tmp_path.glob("*.backup"))
    restore(adoption, path)
    for _ in range(3):
        with AtomicSQLiteBackend(location) as backend:
            backend.apply_migrations(backend.to_apply(files))
        with AtomicSQLiteBackend(location) as backend:
            backend.rollback_migrations(backend.to_rollback(files)[:1])

    kept = [one.name for one in tmp_path.glob("*.backup") if f"before-apply-{IDS[0]}" in one.name]
    assert (adoption.exists(), len(kept)) == (True, 2)


def test_the_backups_beside_a_database_are_listed(database: Path) -> None:
    """Time, size, what each precedes, its schema version, and whether it can be read; nothing is written."""
    with AtomicSQLiteBackend(SQLiteLocation(database)) as backend:
        files = backend.read([str(FOLDER)])
        backend.rollback_migrations(backend.to_rollback(files)[:1])
    asked_for = back_up(database)
    (automatic,) = database.parent.glob("*.before-rollback-*.backup")
    broken = database.with_name(f"{database.name}.20260105T181201.123456Z.before-restore.backup")
    broken.write_text("no database " * 100)
    shutil.copy(database, database.with_name(NOT_OURS[1]))
    before = state_of(database.parent)
    ran = command("backup", "--list", "--json", folder=database.parent)

    assert (ran.code, ran.json["database"]) == (0, str(database))
    first, *others = ran.json["backups"]
    assert first == {
        "file": str(broken),
        "made_at": "2026-01-05 18:12:01",
        "bytes": 1200,
        "before": "restore",
        "schema_version": None,
        "readable": False,
    }
    keys = ("file", "bytes", "before", "schema_version", "readable")
    assert [tuple(one[key] for key in keys) for one in others] == [
        (str(automatic), automatic.stat().st_size, f"rollback-{IDS[-1]}", IDS[-1], True),
        (str(asked_for), asked_for.stat().st_size, "", IDS[-2], True),
    ]
    lines = [line.split("\t") for line in command("backup", "--list", folder=database.parent).lines]
    assert [(line[0], line[1], line[4]) for line in lines] == [
        (broken.name, "cannot be read", "restore"),
        (automatic.name, "readable", f"rollback-{IDS[-1]}"),
        (asked_for.name, "readable", "manual"),
    ]
    assert state_of(database.parent) == before
    assert command("backup", "--json", folder=database.parent).code == 2


@pytest.mark.parametrize(
    ("limit", "says"),
    [("_BYTES_TO_CHECK", "not checked"), ("_SECONDS_TO_CHECK", "not checked"), ("", "readable")],
)
def test_a_large_backup_is_listed_without_a_check_of_it_all(
    limit: str, says: str, database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That would take as long as the file is large; one that lacks a part is seen all the same."""
    whole = back_up(database)
    cut = whole.with_name(whole.name.replace("Z.backup", "Z.before-restore.backup"))
    cut.write_bytes(whole.read_bytes()[:-4096])
    if limit:
        monkeypatch.setattr(making, limit, -1)
    found = {
        one["file"]: one["readable"]
        for one in command("backup", "--list", "--json", folder=database.parent).json["backups"]
    }

    assert found == {str(whole): None if limit else True, str(cut): False}
    lines = command("backup", "--list", folder=database.parent).lines
    assert [line.split("\t")[1] for line in lines if whole.name in line] == [says]


def test_a_backup_that_another_process_prunes_meanwhile_is_not_listed(
    database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = back_up(database), back_up(database)
    found = making.found_backups

    def pruned(location: SQLiteLocation) -> list[making.FoundBackup]:
        listed = found(location)
        first.unlink(missing_ok=True)
        return listed

    monkeypatch.setattr(making, "found_backups", pruned)
    listed = command("backup", "--list", "--json", folder=database.parent).json["backups"]

    assert [one["file"] for one in listed] == [str(second)]


def test_the_version_of_a_backup_is_read_where_yoyo_was_told_to_record_it(database: Path) -> None:
    database.unlink()
    with AtomicSQLiteBackend(SQLiteLocation(database), "our_migrations") as backend:
        backend.apply_migrations(backend.to_apply(backend.read([str(FOLDER)])))
    made = back_up(database)
    found = command("backup", "--list", "--json", folder=database.parent).json["backups"]

    assert {one["file"]: one["schema_version"] for one in found}[str(made)] == IDS[-1]


def test_sigterm_leaves_nothing_of_what_was_not_finished(tmp_path: Path) -> None:
    """The copies of a rehearsal go, as after Ctrl-C; the exit code is the signal's."""
    path = tmp_path / "RexVoice.db"
    old_app.make(path)
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(
            "WITH RECURSIVE number (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM number LIMIT 50000) "
            "INSERT INTO user_patterns (user_id, pattern_type, pattern_key, pattern_value) "
            "SELECT 1000 + n, 'tilt', 'level', n FROM number"
        )
    with subprocess.Popen([PROGRAM, "rehearse"], cwd=tmp_path, stderr=subprocess.DEVNULL) as running:
        wait_until(lambda: any(tmp_path.glob("*.rehearsal-*/work.db")))
        running.terminate()
        assert running.wait(60) == 128 + signal.SIGTERM

    assert [one.name for one in tmp_path.iterdir() if ".rehearsal-" in one.name] == []


def test_a_signal_right_after_a_commit_leaves_the_backup_of_what_has_changed(tmp_path: Path) -> None:
    """Nothing else goes back to before adoption."""

    class Interrupting:
        """A connection, and Ctrl-C in the moment in which SQLite has committed."""

        def __init__(self, connection: sqlite3.Connection) -> None:
            self._connection = connection

        def commit(self) -> None:
            self._connection.commit()
            raise KeyboardInterrupt

        def __getattr__(self, name: str) -> object:
            return getattr(self._connection, name)

    path = tmp_path / "RexVoice.db"
    old_app.make(path)
    with AtomicSQLiteBackend(SQLiteLocation(path)) as backend:
        files = backend.read([str(FOLDER)])
        backend._opened = cast(sqlite3.Connection, Interrupting(backend.connection))
        with pytest.raises(KeyboardInterrupt):
            backend.apply_migrations(backend.to_apply(files))

    assert snapshots.applied(path) == [IDS[0]]
    assert len(list(tmp_path.glob(f"*.before-apply-{IDS[0]}.backup"))) == 1


def test_a_folder_that_cannot_be_listed_is_no_failure(
    database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One may have the right to enter it, and to write there, and none to list it."""

    listed = Path.iterdir

    def refuse(path: Path) -> Iterator[Path]:
        if path == database.parent:
            raise PermissionError
        return listed(path)

    monkeypatch.setattr(Path, "iterdir", refuse)
    with AtomicSQLiteBackend(SQLiteLocation(database)) as backend:
        backend.rollback_migrations(backend.to_rollback(backend.read([str(FOLDER)]))[:1])

    assert IDS[-1] not in snapshots.applied(database)
