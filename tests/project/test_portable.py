"""What other systems lack or refuse, simulated here: Windows, its consoles, an old SQLite."""

import ast
import errno
import io
import logging
import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing, suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import poker_therapist
from poker_therapist import DatabaseUnreadable, StorageError, get_pattern_storage
from poker_therapist.errors import MigrationFailed
from poker_therapist.location import SQLiteLocation
from poker_therapist.migrations.progress import Progress
from poker_therapist.schema import rehearse
from poker_therapist.sqlite.backend import AtomicSQLiteBackend
from tests.helpers.cli import command, in_child
from tests.helpers.engines import run_sql
from tests.helpers.migrating import IDS
from tests.helpers.old_app import TABLES
from tests.helpers.project import Project
from tests.helpers.scripts import run_in_fork, run_script
from tests.helpers.snapshots import applied, is_whole, rows

USER = 7
SHIPPED = len(IDS)
YOYO = Path(sys.executable).with_name("yoyo")


@pytest.fixture
def project(tmp_path: Path) -> Project:
    made = Project(tmp_path)
    made.write_two()
    return made


# What Windows has not

WITHOUT = """
import os, select, sys
for module, names in ((os, ("fork", "register_at_fork")), (select, ("poll", "epoll"))):
    for name in names:
        if hasattr(module, name):
            delattr(module, name)
for name in ("LOGNAME", "USER", "LNAME", "USERNAME"):
    os.environ.pop(name, None)  # as for a service
for name in ("fcntl", "grp", "pwd", "resource", "termios"):
    sys.modules[name] = None

from poker_therapist.storage import get_pattern_storage
with get_pattern_storage(sys.argv[1]) as storage:
    with storage.transaction():
        storage.save_pattern(7, "tilt", "bad_beat", 1)
        storage.save_insight(7, "leak", 1)
    print(storage.get_pattern(7, "tilt", "bad_beat"), len(storage.recall(7)["insights"]))
"""


def test_it_opens_and_saves_without_fork_and_poll(database: str) -> None:
    assert run_script(WITHOUT, database) == ["1 1"]
    assert get_pattern_storage(database).get_pattern(USER, "tilt", "bad_beat") == 1


WITHOUT_DESCRIPTORS = """
import os, sys, tempfile
from pathlib import Path
for name in ("O_NOFOLLOW", "O_DIRECTORY", "fchmod", "geteuid", "link"):
    delattr(os, name)
os.supports_dir_fd, os.supports_fd = set(), set()
sys.modules["fcntl"] = None

def link(*_):  # as on FAT
    raise OSError(1, "Operation not permitted")
os.link = link

from poker_therapist import cli
database = Path(sys.argv[1])
def run(*arguments):
    sys.argv = ["poker-therapist", *arguments, "-d", str(database)]
    try:
        cli.main()
    except SystemExit as end:
        print(end.code or 0)
for _ in range(2):
    run("backup", "-o", "monday.backup")
    run("export", "7", "-o", "seven.json")
run("restore", "monday.backup")
run("rehearse")
run("forget", "7", "--yes", "--backups")
print(sorted(path.name for path in Path().iterdir() if "." in path.name))
"""


def test_files_are_made_without_links_and_descriptors_of_folders(tmp_path: Path) -> None:
    """As on Windows, and on a disk that cannot give a file a second name; each replaces nothing."""
    filled(tmp_path / "RexVoice.db")
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_DESCRIPTORS, "RexVoice.db"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.stdout.splitlines()[-1] == "['RexVoice.db', 'monday.backup', 'seven.json']", done
    assert [line for line in done.stdout.splitlines() if line.isdigit()] == [
        "0",
        "0",
        "1",
        "1",
        "0",
        "0",
        "0",
    ]
    assert done.stderr.count("already exists") == 2
    assert '"user_id": 7' in (tmp_path / "seven.json").read_text()


def test_fork_and_poll_are_asked_for_before_they_are_used() -> None:
    """Nothing is left to the one module that happens to be imported above."""
    package = Path(poker_therapist.__file__).parent
    for path in package.rglob("*.py"):
        text = path.read_text()
        for name, question in (
            ("os.register_at_fork(", 'hasattr(os, "register_at_fork")'),
            ("select.poll(", 'hasattr(select, "poll")'),
        ):
            assert name not in text or question in text, path


def test_no_process_is_looked_for_by_a_signal() -> None:
    """On Windows `os.kill(pid, 0)` is Ctrl-C for it."""
    for path in Path(poker_therapist.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in ("os.kill", "os.killpg"):
                assert ast.unparse(node.args[1]).startswith("signal.SIG"), path


def test_a_running_rehearsal_keeps_its_copies_and_those_of_a_killed_one_go(
    project: Project,
) -> None:
    """A lock tells them apart, which goes with a process."""
    location = SQLiteLocation(project.database)
    run_sql(project.database, "CREATE TABLE players (id INTEGER)")
    dead = project.folder / f"{project.database.name}.rehearsal-deadbeef"
    dead.mkdir()
    (dead / "work.db").touch()
    running: set[Path] = set()
    second: list[str] = []

    def meanwhile(*_what: object) -> None:
        if not running:
            running.update(project.folder.glob("*.rehearsal-*"))
            rehearse_again = rehearse(location, sources=[str(project.sql)])
            second.extend(one.id for one in rehearse_again.migrations)
            assert set(project.folder.glob("*.rehearsal-*")) == running

    progress: Progress = meanwhile
    found = rehearse(location, sources=[str(project.sql)], progress=progress)

    assert len(running) == 1
    assert dead not in running
    assert [one.id for one in found.migrations] == second
    assert not any(project.folder.glob("*.rehearsal-*"))


# What Windows refuses


@pytest.fixture
def files_in_use(monkeypatch: pytest.MonkeyPatch) -> None:
    """No file that this process has open can be replaced, renamed or deleted."""

    def refusing(action: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        for name in arguments[:2]:
            with suppress(FileNotFoundError):
                found = os.stat(name, dir_fd=options.get("dir_fd"))  # a path knows no folder's handle
                for handle in Path("/proc/self/fd").iterdir():
                    with suppress(FileNotFoundError):
                        if os.path.samestat(found, handle.stat()):
                            raise PermissionError(errno.EACCES, "it is open", name)
        return action(*arguments, **options)

    for name in ("replace", "rename", "unlink", "remove"):
        monkeypatch.setattr(os, name, partial(refusing, getattr(os, name)))


def filled(path: Path) -> Path:
    with get_pattern_storage(path) as storage:
        storage.save_pattern(USER, "tilt", "bad_beat", 1)
    return path


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="this system does not tell what is open")
@pytest.mark.usefixtures("files_in_use")
def test_no_file_is_replaced_renamed_or_deleted_while_it_is_open(tmp_path: Path) -> None:
    path = filled(tmp_path / "RexVoice.db")
    run = partial(command, folder=tmp_path)
    with pytest.raises(PermissionError, match="it is open"), path.open():
        path.rename(path)

    for number in range(7):  # the sixth deletes the first
        assert run("restore", run("backup", "-d", path).out.strip(), "-d", path).code == 0, number
    path.write_bytes(b"SQLite format 3\0" + b"damaged" * 1_000)
    backup = min(tmp_path.glob("*.backup"))
    assert run("restore", backup, "-d", path).code == 0
    assert run("copy", path, tmp_path / "copy.db").code == 0
    assert run("copy", path, tmp_path / "copy.db").code == 1  # it holds data
    assert run("rehearse", "-d", path).code == 0
    assert run("forget", str(USER), "--yes", "--backups", "-d", path).code == 0

    assert not [*tmp_path.glob("*.backup"), *tmp_path.glob("*.scrub-*")]


def test_backups_and_copies_need_no_sync_through_a_handle_that_cannot_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import fcntl

    synced = []
    sync = os.fsync

    def refusing(handle: int) -> None:
        if fcntl.fcntl(handle, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY:
            raise OSError(errno.EBADF, "Bad file descriptor")
        synced.append(handle)
        sync(handle)

    monkeypatch.setattr(os, "fsync", refusing)
    path = filled(tmp_path / "RexVoice.db")
    path.chmod(0o444)
    backup = tmp_path / command("backup", "-d", path, folder=tmp_path).out.strip()
    for file in tmp_path.glob("RexVoice.db*"):  # SQLite gives the files beside it the same rights
        file.chmod(0o644)
    assert command("restore", backup, "-d", path, folder=tmp_path).code == 0
    assert command("rehearse", "-d", path, folder=tmp_path).code == 0

    assert len(synced) >= 2
    assert is_whole(backup)


def test_a_migration_on_another_drive_is_named_by_its_whole_path(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    def other_drive(path: Any, start: Any = None) -> str:
        raise ValueError(f"path is on mount 'D:', start on mount 'C:' {path} {start}")

    monkeypatch.setattr(os.path, "relpath", other_drive)
    project.write("003_fail", "-- depends: 002_add_bets\nINSERT INTO nothing VALUES (1);")
    with AtomicSQLiteBackend(SQLiteLocation(project.database)) as backend:
        migrations = backend.to_apply(backend.read([str(project.sql)]))
        with pytest.raises(MigrationFailed, match="003_fail") as failure:
            backend.apply_migrations(migrations)

    assert failure.value.file == str(project.sql / "003_fail.sql")


# Consoles

FOREIGN = "003_привет_扑克"


@pytest.fixture
def foreign(project: Project) -> Project:
    """Migrations whose ids, comments and names no console of Western Europe has characters for."""
    project.write(
        FOREIGN,
        '-- depends: 002_add_bets\n-- Ещё один индекс\nCREATE INDEX "ставки_扑克" ON bets (id);',
        'DROP INDEX "ставки_扑克";',
    )
    return project


LATIN = {"PYTHONIOENCODING": "cp1252", "PYTHONUTF8": "0"}


def yoyo(
    project: Project, *arguments: str, stdout: int = subprocess.PIPE, **environment: str
) -> subprocess.CompletedProcess[bytes]:
    def begin() -> None:
        os.chdir(project.folder)
        logging.getLogger().handlers.clear()

    url = f"sqlite+atomic:///{project.database}"
    command: list[str | Path] = [YOYO, *arguments, "--no-config-file", "--batch", "--database", url, "sql"]
    if stdout == subprocess.PIPE:
        return run_in_fork(*command, begin=begin, encoding=LATIN["PYTHONIOENCODING"])
    return subprocess.run(
        command,
        cwd=project.folder,
        env=os.environ | LATIN | environment,
        stdout=stdout,
        stderr=stdout,
        check=False,
        timeout=60,
    )


@pytest.mark.slow
def test_a_console_without_the_characters_shows_escapes(foreign: Project) -> None:
    assert yoyo(foreign, "apply").returncode == 0
    for arguments in (("list",), ("rollback", "--revision", FOREIGN), ("apply",), ("list",)):
        ran = yoyo(foreign, *arguments)
        assert ran.returncode == 0, arguments
        assert rb"003_\u043f" in ran.stdout, arguments

    foreign.run_sql('DROP INDEX "ставки_扑克"; CREATE INDEX "карты" ON bets (id)')
    shown = in_child("status", "-d", foreign.database, folder=foreign.folder, environment=LATIN)
    assert (shown.code, shown.error) == (4, "")
    assert r"\u043a\u0430\u0440\u0442\u044b" in shown.out


def test_an_error_of_a_migration_is_one_message_on_such_a_console(foreign: Project) -> None:
    foreign.write("004_ошибка", f'-- depends: {FOREIGN}\nINSERT INTO "нет" VALUES (1); -- Ошибка')
    ran = yoyo(foreign, "apply")

    assert ran.returncode == 1
    assert b"Traceback" not in ran.stderr
    assert rb"004_\u043e" in ran.stderr
    assert foreign.applied() == ["001_add_hands", "002_add_bets", FOREIGN]


@pytest.mark.slow
def test_the_operator_s_commands_say_names_that_the_console_has_not(tmp_path: Path) -> None:
    path = filled(tmp_path / "扑克.db")
    for arguments, code in ((("status",), 0), (("backup",), 0), (("rehearse",), 0), (("export", "7"), 0)):
        ran = in_child(*arguments, "-d", path.name, folder=tmp_path, environment=LATIN)
        assert (ran.code, ran.error) == (code, ""), arguments

    missing = in_child("export", "7", "-d", "нет.db", folder=tmp_path, environment=LATIN)
    assert missing.code == 1
    assert missing.error.startswith("poker-therapist: there is no database ")
    assert "Traceback" not in missing.error


@pytest.mark.parametrize(
    "trouble",
    [
        BrokenPipeError(errno.EPIPE, "Broken pipe"),
        OSError(errno.EIO, "Input/output error"),
        UnicodeEncodeError("charmap", "扑", 0, 1, "character maps to <undefined>"),
        ValueError("I/O operation on closed file."),
    ],
    ids=lambda error: type(error).__name__,
)
def test_a_migration_stays_applied_though_nobody_can_be_told(project: Project, trouble: Exception) -> None:
    """So it does if the backup before it cannot be told of: that is said inside its transaction."""
    told = []

    def report(message: str) -> None:
        told.append(message)
        raise trouble

    run_sql(project.database, "CREATE TABLE players (id INTEGER); INSERT INTO players VALUES (1)")
    with AtomicSQLiteBackend(SQLiteLocation(project.database)) as backend:
        backend.report = report  # as the yoyo command does
        backend.apply_migrations(backend.to_apply(backend.read([str(project.sql)])))

    assert len(told) == 3
    assert project.applied() == ["001_add_hands", "002_add_bets"]
    assert len(list(project.folder.glob("*.backup"))) == 1


@pytest.mark.parametrize("buffered", [True, False], ids=["buffered", "at once"])
def test_a_closed_pipe_undoes_no_migration(project: Project, *, buffered: bool) -> None:
    reads, writes = os.pipe()
    os.close(reads)
    try:
        yoyo(project, "apply", stdout=writes, **({} if buffered else {"PYTHONUNBUFFERED": "1"}))
    finally:
        os.close(writes)

    assert project.applied() == ["001_add_hands", "002_add_bets"]


def test_a_warning_that_cannot_be_printed_undoes_no_migration(monkeypatch: pytest.MonkeyPatch) -> None:
    from poker_therapist.migrations import yoyo_command

    closed = io.StringIO()
    closed.close()
    monkeypatch.setattr(sys, "stderr", closed)

    yoyo_command._warn(UserWarning("no matter"))

    assert sys.stderr.closed


# An old SQLite


@pytest.fixture
def old_sqlite(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite3, "sqlite_version_info", (3, 34, 1))
    monkeypatch.setattr(sqlite3, "sqlite_version", "3.34.1")


def test_an_old_sqlite_is_refused_with_what_is_found_and_needed(
    tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    path = filled(tmp_path / "RexVoice.db")
    before = rows(path)
    request.getfixturevalue("old_sqlite")
    for name in (path, tmp_path / "new.db"):
        with pytest.raises(
            StorageError, match=r"SQLite 3\.34\.1, but 3\.37\.0 or newer is required"
        ) as refusal:
            get_pattern_storage(name)
        assert not isinstance(refusal.value, DatabaseUnreadable)
    for arguments in (("status",), ("backup",), ("rehearse",), ("export", "7")):
        ran = command(*arguments, "-d", path, folder=tmp_path)
        assert (ran.code, "3.37.0" in ran.error, "damaged" in ran.error) == (1, True, False), arguments

    assert not (tmp_path / "new.db").exists()
    assert rows(path) == before


# What is no damage


def put_null(path: Path) -> None:
    """Leave a NULL in a column of the app's that has become NOT NULL."""
    with closing(sqlite3.connect(path, isolation_level=None)) as app:
        app.execute("CREATE TABLE players (id INTEGER PRIMARY KEY, name TEXT, CHECK (id > 0))")
        app.executemany("INSERT INTO players VALUES (?, NULL)", ((number,) for number in range(1, 151)))
        app.execute("PRAGMA writable_schema = ON")
        app.execute(
            "UPDATE sqlite_schema SET sql = replace(replace(sql, 'name TEXT', 'name TEXT NOT NULL'), "
            "'id > 0', 'id > 1') WHERE name = 'players'"
        )


def put_unknown_collation(path: Path) -> None:
    """Leave an index whose order the app alone knows."""
    with closing(sqlite3.connect(path, isolation_level=None)) as app:
        app.create_collation("of_the_app", lambda one, other: (one > other) - (one < other))
        app.execute("CREATE TABLE players (id INTEGER PRIMARY KEY, name TEXT)")
        app.execute("CREATE INDEX players_by_name ON players (name COLLATE of_the_app)")
        app.execute("INSERT INTO players VALUES (1, 'Rex'), (2, 'Ada')")


NO_DAMAGE = [put_null, put_unknown_collation]


@pytest.fixture(params=NO_DAMAGE, ids=lambda put: put.__name__)
def peculiar(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A database of the earlier app's with something that SQLite complains of, and that is no damage."""
    path = tmp_path / "RexVoice.db"
    run_sql(path, ";".join(TABLES.values()))
    run_sql(
        path,
        "INSERT INTO user_patterns VALUES (1, 7, 'tilt', 'bad_beat', '1', 1.0, '2026-01-05', '2026-01-05')",
    )
    request.param(path)
    return path


def test_what_is_no_damage_is_rehearsed_applied_backed_up_and_restored(
    peculiar: Path, tmp_path: Path
) -> None:
    def players() -> int:
        with closing(sqlite3.connect(peculiar)) as app:
            return int(app.execute("SELECT count(*) FROM players NOT INDEXED").fetchone()[0])

    count = players()
    run = partial(command, folder=tmp_path)
    tried = run("rehearse", "-d", peculiar, "--to", IDS[4])
    assert (len(tried.lines) > 5, "damage" in tried.out, "failed" in tried.out) == (True, False, False)
    with get_pattern_storage(peculiar) as storage:
        assert storage.get_pattern(USER, "tilt", "bad_beat") == 1
    assert len(applied(peculiar)) == SHIPPED
    backup = run("backup", "-d", peculiar).out.strip()
    with get_pattern_storage(peculiar) as storage:
        storage.clear_user_patterns(USER)
    assert run("restore", backup, "-d", peculiar).code == 0
    with get_pattern_storage(peculiar) as storage:
        assert storage.get_pattern(USER, "tilt", "bad_beat") == 1

    assert players() == count


def test_damage_is_still_found_beside_what_is_none(tmp_path: Path) -> None:
    """More rows break a rule than SQLite's check lists unless it is told to."""
    path = tmp_path / "RexVoice.db"
    filled(path)
    put_null(path)
    with closing(sqlite3.connect(path, isolation_level=None)) as app:
        app.execute("PRAGMA journal_mode = DELETE")
        app.execute("CREATE TABLE zzz (id INTEGER PRIMARY KEY, name TEXT)")
        app.execute("CREATE INDEX zzz_by_name ON zzz (name)")
        app.execute("INSERT INTO zzz VALUES (1, 'in the index')")
        ((page,), (size,)) = (
            app.execute("SELECT rootpage FROM sqlite_schema WHERE name = 'zzz_by_name'").fetchone(),
            app.execute("PRAGMA page_size").fetchone(),
        )
    content = path.read_bytes()
    where = content.rindex(b"in the index", 0, page * size)
    path.write_bytes(content[:where] + b"in NO index!" + content[where + 12 :])

    ran = command("backup", "-d", path, folder=tmp_path)

    assert ran.code == 1
    assert f"{path} is damaged" in ran.error
    assert not list(tmp_path.glob("*.backup*"))
