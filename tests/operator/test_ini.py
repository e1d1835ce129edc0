"""Which ini file the commands take, and which they refuse because somebody else may have written it."""

import os
import re
import shlex
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from poker_therapist import get_pattern_storage
from tests.helpers.cli import PROGRAM, Result, command, refused, state_of
from tests.helpers.migrating import FOLDER
from tests.helpers.postgresql import yoyo_in_child
from tests.helpers.rights import acting_as, run_without_privileges

ROOT, OPERATOR, OTHER = 0, 42_001, 42_002
SECRET = "hunter2 is the secret"

pytestmark = pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root can give files to other users"
)


@pytest.fixture
def place(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder of root's that everybody may enter, unlike pytest's; nobody's home is near."""
    folder = Path(tempfile.mkdtemp(dir="/var/tmp")).resolve()
    folder.chmod(0o755)
    monkeypatch.setenv("HOME", "/nonexistent")
    command("--version", folder=folder)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def server() -> Iterator[socket.socket]:
    """Somebody's server, to which no connection may be made."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.setblocking(False)
        yield listening
        with pytest.raises(BlockingIOError):
            listening.accept()


def folder_of(user: int, path: Path, mode: int = 0o755) -> Path:
    """Make a folder of a user's."""
    path.mkdir()
    os.chown(path, user, user)
    path.chmod(mode)
    return path


def write_ini(
    folder: Path, *, owner: int, database: str = "sqlite+atomic:///%(here)s/game.db", sources: Path = FOLDER
) -> Path:
    """Write an ini file of a user's into a folder."""
    file = folder / "yoyo.ini"
    file.write_text(f"[DEFAULT]\nsources = {str(sources).replace('%', '%%')}\ndatabase = {database}\n")
    os.chown(file, owner, owner)
    return file


def plant(folder: Path, server: socket.socket) -> Path:
    """Let the other user plant an ini file that leads to a server of theirs."""
    port = server.getsockname()[1]
    return write_ini(folder, owner=OTHER, database=f"postgresql+atomic://rex@127.0.0.1:{port}/rex")


def make_database(folder: Path, owner: int) -> Path:
    """Make a database with a pattern of player 7."""
    with acting_as(owner):
        file = folder / "RexVoice.db"
        with get_pattern_storage(file) as storage:
            storage.save_pattern(7, "tilt", "after_bad_beat", 1)
    return file


def looked_at(folder: Path, *options: str, user: int = OPERATOR) -> Result:
    """Let a user ask for the database that is meant in a folder."""
    with acting_as(user):
        return command("status", "--json", *options, folder=folder)


def database_of(folder: Path, *options: str, user: int = OPERATOR) -> str:
    """Return what that finds, where nothing is said about it."""
    ran = looked_at(folder, *options, user=user)

    assert ran.error == ""
    return str(ran.json["database"])


def refusal(folder: Path, *options: str, user: int = OPERATOR) -> str:
    """Return the message with which the ini file of a folder is refused."""
    with acting_as(user):
        return refused("status", *options, folder=folder)


# The attacks


@pytest.mark.parametrize("user", [ROOT, OPERATOR])
@pytest.mark.parametrize("mode", [0o777, 0o1777, 0o755])
def test_above_the_folders_of_one_owner_no_ini_is_taken(
    user: int, mode: int, place: Path, server: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The operator's own database is used, not the server of an ini that somebody planted one level up."""
    monkeypatch.setenv("PGPASSWORD", SECRET)
    shared = folder_of(OTHER, place / "shared", mode)
    mine = folder_of(user, shared / "mine")
    planted = plant(shared, server)
    database = make_database(mine, user)

    with acting_as(user):
        ran = command("forget", "7", "--yes", folder=mine)

    assert (ran.code, ran.database) == (0, f"database: {database} (the default)\n")
    assert "user_patterns: 1 deleted" in ran.out
    assert f"{planted} is not used" in ran.error


@pytest.mark.parametrize(
    "call", [("status",), ("rehearse",), ("backup",), ("export", "7"), ("forget", "7", "--yes"), ("purge",)]
)
@pytest.mark.parametrize("below", ["", "mine"])
def test_an_ini_that_somebody_planted_in_a_shared_folder_stops_each_command(
    call: tuple[str, ...], below: str, place: Path, server: socket.socket
) -> None:
    """It would be used if it were trusted: so nothing else is used instead."""
    shared = folder_of(OPERATOR, place / "shared", 0o777)
    folder = folder_of(OPERATOR, shared / below) if below else shared
    make_database(folder, OPERATOR)
    planted = plant(shared, server)
    before = state_of(place)

    with acting_as(OPERATOR):
        message = refused(*call, folder=folder)

    assert message.startswith(f"{planted} is not used: the folder {shared} is writable by its group and ")
    assert "everybody: run `chmod go-w " in message
    assert message.endswith("or use --config FILE, --no-config or --database")
    assert state_of(place) == before


def test_a_new_migration_is_not_written_beside_a_planted_ini(place: Path, server: socket.socket) -> None:
    shared = folder_of(OPERATOR, place / "shared", 0o777)
    plant(shared, server)
    before = state_of(place)

    with acting_as(OPERATOR):
        assert "is not used" in refused("new", "add mood", folder=shared)

    assert state_of(place) == before


# Rights and owners


@pytest.mark.parametrize(
    ("mode", "who", "rights"),
    [
        (0o775, "its group", "g"),  # what umask 002 makes
        (0o757, "everybody", "o"),
        (0o777, "its group and everybody", "go"),
    ],
)
@pytest.mark.parametrize("of_file", [False, True])
def test_what_others_can_write_is_refused_until_it_is_mended(
    mode: int, who: str, rights: str, of_file: bool, place: Path
) -> None:
    """The folder or the file; the command in the message mends it."""
    mine = folder_of(OPERATOR, place / "it's mine")
    file = write_ini(mine, owner=OPERATOR)
    wrong = file if of_file else mine
    wrong.chmod(mode)

    message = refusal(mine)
    what = "it" if of_file else f"the folder {mine}"
    assert message.startswith(f"{file} is not used: {what} is writable by {who}: run `chmod {rights}-w ")
    mend = re.search("`(.+)`", message)
    assert mend
    subprocess.run(shlex.split(mend[1]), check=True)

    assert database_of(mine) == f"{mine}/game.db"


@pytest.mark.parametrize("umask", [0o022, 0o027, 0o077])
def test_what_usual_umasks_make_is_taken(umask: int, place: Path) -> None:
    mine = folder_of(OPERATOR, place / "mine", 0o777 & ~umask)
    write_ini(mine, owner=OPERATOR).chmod(0o666 & ~umask)

    assert database_of(mine) == f"{mine}/game.db"


def test_nobody_is_told_to_close_a_folder_that_is_meant_for_all(place: Path) -> None:
    """/tmp, say: files there are safe from being replaced, yet anybody could have been the first."""
    shared = folder_of(OPERATOR, place / "shared", 0o1777)
    write_ini(shared, owner=OPERATOR)

    assert "everybody: move the file to a folder of yours" in refusal(shared)


@pytest.mark.parametrize(
    ("user", "folder", "file", "taken"),
    [
        (OPERATOR, OPERATOR, OPERATOR, True),
        (OPERATOR, OPERATOR, ROOT, True),
        (OPERATOR, ROOT, ROOT, True),
        (OPERATOR, ROOT, OPERATOR, True),
        (OPERATOR, OPERATOR, OTHER, False),
        (OPERATOR, OTHER, OTHER, False),
        (OPERATOR, OTHER, OPERATOR, False),
        (ROOT, ROOT, ROOT, True),
        (ROOT, ROOT, OTHER, False),
        # A checkout that is mounted into a container.
        (ROOT, OPERATOR, OPERATOR, True),
        (ROOT, OPERATOR, ROOT, True),
        (ROOT, OPERATOR, OTHER, False),
    ],
)
def test_whose_folder_and_file_may_be_taken(
    user: int, folder: int, file: int, taken: bool, place: Path
) -> None:
    """One's own and root's; root takes also those of the one who owns the folder that root works in."""
    home = folder_of(folder, place / "home")
    deep = folder_of(folder, home / "deep")
    write_ini(home, owner=file)

    for here in (home, deep):
        if taken:
            assert database_of(here, user=user) == f"{home}/game.db"
        else:
            assert f"belongs to another user (uid {OTHER})" in refusal(here, user=user)


# Links


def test_a_link_is_taken_where_only_trusted_folders_lead_to_its_target(place: Path) -> None:
    """Not where a folder on the way, or that of the target, can be written by others."""
    mine, kept = folder_of(OPERATOR, place / "mine"), folder_of(OPERATOR, place / "kept")
    shared = folder_of(OPERATOR, place / "shared", 0o777)
    target = write_ini(kept, owner=OPERATOR, database="kept.db")
    write_ini(shared, owner=OPERATOR)
    (shared / "hop").symlink_to(target)
    (shared / "kept").symlink_to(kept)
    link = mine / "yoyo.ini"

    for ways, taken in (
        ([target, Path("../kept/yoyo.ini")], True),
        ([shared / "yoyo.ini", shared / "hop", shared / "kept/yoyo.ini", Path("../shared/hop")], False),
    ):
        for way in ways:
            link.symlink_to(way)
            if taken:
                assert database_of(mine) == f"{mine}/kept.db"
            else:
                message = refusal(mine)
                assert message.startswith(f"{link} is not used: the folder ")
                assert "/shared is writable by" in message
            link.unlink()


@pytest.mark.parametrize("target", ["nowhere.ini", "yoyo.ini"])
def test_a_link_that_leads_nowhere_is_said(target: str, place: Path) -> None:
    mine = folder_of(OPERATOR, place / "mine")
    (mine / "yoyo.ini").symlink_to(target)

    assert re.match(rf"{mine}/yoyo.ini cannot be read \(.+\): correct or delete it", refusal(mine))


# Borders


@pytest.mark.parametrize("border", [".git", ".hg"])
def test_a_repository_is_a_border(border: str, place: Path) -> None:
    """Its own ini is taken, also from below; not one above it. In a worktree `.git` is a file."""
    outer = folder_of(OPERATOR, place / "outer")
    repository = folder_of(OPERATOR, outer / "repository")
    deep = folder_of(OPERATOR, repository / "deep")
    above = write_ini(outer, owner=OPERATOR)
    assert database_of(deep) == f"{outer}/game.db"

    (repository / border).touch()
    assert looked_at(deep).json["database"] == f"{deep}/RexVoice.db"
    assert f"{above} is not used" in looked_at(deep).error

    write_ini(repository, owner=OPERATOR)
    assert database_of(deep) == f"{repository}/game.db"


def test_the_home_folder_is_a_border(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    outer = folder_of(OPERATOR, place / "outer")
    home = folder_of(OPERATOR, outer / "home")
    deep = folder_of(OPERATOR, home / "deep")
    write_ini(outer, owner=OPERATOR)
    (place / "link").symlink_to(home)

    monkeypatch.setenv("HOME", str(place / "link"))
    assert looked_at(deep).json["database"] == f"{deep}/RexVoice.db"
    write_ini(home, owner=OPERATOR)
    assert database_of(deep) == f"{home}/game.db"


def test_another_file_system_is_a_border(place: Path, report: Callable[[str], None]) -> None:
    """As it is mounted, an ini above it is not taken."""
    mount = folder_of(ROOT, place / "mount")
    above = write_ini(place, owner=ROOT)
    if subprocess.run(["mount", "-t", "tmpfs", "none", mount], capture_output=True, check=False).returncode:
        report("not tested: nothing may be mounted here")
        pytest.skip("nothing may be mounted here")
    try:
        mount.chmod(0o755)
        ran = looked_at(mount, user=ROOT)
    finally:
        subprocess.run(["umount", mount], check=True)

    assert ran.json["database"] == f"{mount}/RexVoice.db"
    assert f"{above} is not used" in ran.error


# What the operator says


def test_an_ini_that_the_operator_names_is_taken_wherever_it_is(place: Path) -> None:
    """And with --no-config none is looked for."""
    shared = folder_of(OTHER, place / "shared", 0o777)
    write_ini(shared, owner=OTHER)
    mine = folder_of(OPERATOR, place / "mine")
    write_ini(mine, owner=OPERATOR, database="mine.db")

    for option in ("--config", "-c"):
        assert database_of(mine, option, f"{shared}/yoyo.ini") == f"{shared}/game.db"
        assert database_of(mine, option, "../shared/yoyo.ini") == f"{shared}/game.db"
    assert database_of(mine, "--no-config") == f"{mine}/RexVoice.db"
    assert database_of(shared, "--no-config") == f"{shared}/RexVoice.db"
    ran = looked_at(shared, "-d", "other.db")  # its `sources` are not used either, and that is said
    assert (ran.json["database"], "yoyo.ini is not used" in ran.error) == (f"{shared}/other.db", True)
    assert "there is no ini file" in refusal(mine, "--config", "nowhere.ini")
    assert "there is no ini file" in refusal(mine, "--config", ".")
    assert looked_at(mine, "--config", "yoyo.ini", "--no-config").code == 2


def test_new_migrations_are_written_where_the_named_ini_says(place: Path) -> None:
    project = folder_of(OPERATOR, place / "project")
    (project / "sql").mkdir()
    file = write_ini(project, owner=OPERATOR, sources=project / "sql")

    ran = command("new", "add mood", "--config", file, folder=place)
    assert (ran.code, ran.lines[0]) == (0, "project/sql/001_add_mood.sql")


# Which database


@pytest.mark.parametrize("call", [("forget", "7", "--yes"), ("purge",), ("restore", "kept.backup")])
def test_what_changes_says_which_database(call: tuple[str, ...], place: Path) -> None:
    """And who named it, on standard error."""
    database = make_database(place, ROOT)
    command("backup", "-o", "kept.backup", folder=place)

    assert command(*call, folder=place).database == f"database: {database} (the default)\n"
    assert command(*call, "-d", "RexVoice.db", folder=place).database == f"database: {database} (as given)\n"
    file = write_ini(place, owner=ROOT, database="sqlite+atomic:///RexVoice.db?backups=2")
    assert command(*call, folder=place).database == f"database: {database} (named by {file})\n"
    assert command("status", folder=place).database == ""


def test_a_copy_says_which_database_it_fills(place: Path) -> None:
    make_database(place, ROOT)

    ran = command("copy", "RexVoice.db", "new.db", folder=place)
    assert (ran.code, ran.database) == (0, f"database: {place}/new.db (as given)\n")


@pytest.mark.parametrize("call", [("status",), ("purge",), ("forget", "7", "--yes")])
def test_a_server_that_an_ini_names_is_said_and_its_password_is_not(
    call: tuple[str, ...], place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its host, port, database and schema, before it is sent what PGPASSWORD holds; by `status` too."""
    monkeypatch.setenv("PGPASSWORD", SECRET)
    for name in ("PGHOST", "PGPORT", "PGSERVICE"):
        monkeypatch.delenv(name, raising=False)
    url = "postgresql+atomic://rex:pw-in-url@127.0.0.1:9/memory?schema=coach"
    file = write_ini(place, owner=ROOT, database=url)

    ran = command(*call, folder=place)
    assert (ran.code, ran.out) == (1, "")
    assert ran.database == f"database: postgresql://127.0.0.1:9/memory, schema coach (named by {file})\n"
    assert "pw-in-url" not in ran.error
    assert SECRET not in ran.error

    monkeypatch.setenv("PGHOST", "127.0.0.9")
    monkeypatch.setenv("PGCONNECT_TIMEOUT", "2")
    write_ini(place, owner=ROOT, database="postgresql+atomic:///memory")
    assert command(*call, folder=place).database.startswith(
        "database: postgresql://127.0.0.9/memory, port 5432, schema from search_path ("
    )


def test_json_stays_json_when_a_server_is_named(
    migrated_postgresql_url: str, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_ini(place, owner=ROOT, database=migrated_postgresql_url.replace("%", "%%"))

    ran = command("status", "--json", folder=place)
    assert ran.json["state"] == "up to date"
    assert ran.database.startswith("database: postgresql://")


# Files that are no ini file


NO_INI = {
    "no section": (f"root:{SECRET}\n".encode(), " (line 1)"),
    "a line that is none": (f"[DEFAULT]\nx = 1\n{SECRET}\n".encode(), " (line 3)"),
    "twice": (f"[DEFAULT]\n{SECRET} = 1\n{SECRET} = 2\n".encode(), " (line 3)"),
    "a wrong encoding": (b"[DEFAULT]\nx = \xff" + SECRET.encode(), ""),
    "UTF-16": (f"[DEFAULT]\nx = {SECRET}\n".encode("utf-16"), ""),
    "a byte order mark": (f"[DEFAULT]\nx = {SECRET}\n".encode("utf-8-sig"), " (line 1)"),
    "a percent sign": (f"[DEFAULT]\n%include = ?{SECRET}%\n".encode(), ""),
}


@pytest.mark.parametrize("content", NO_INI)
@pytest.mark.parametrize("directive", ["%inherit", "%include", ""])
def test_nothing_is_shown_of_a_file_that_is_no_ini(content: str, directive: str, place: Path) -> None:
    """One message, without its lines: it may be any file, of passwords say."""
    text, line = NO_INI[content]
    ini = place / "yoyo.ini"
    wrong = place / "wrong" if directive else ini
    ini.write_text(f"[DEFAULT]\n{directive} = wrong\ndatabase = game.db\n")
    wrong.write_bytes(text)

    message = refusal(place, user=ROOT)
    shown = f"{wrong} (named in {ini})" if directive else str(ini)
    assert message.startswith(f"{shown} is not a valid ini file{line}: it must begin")
    assert "hunter2" not in message
    assert "\n" not in message


def test_a_value_that_cannot_be_read_is_not_shown(place: Path) -> None:
    """The percent sign of a quoted password has to be doubled."""
    write_ini(place, owner=ROOT, database="postgresql://rex:hunter%2@server/rex")

    message = refusal(place, user=ROOT)
    assert message.startswith(f"`database` in {place}/yoyo.ini cannot be read: write %% for each %")
    assert "hunter" not in message


def test_an_ini_that_leads_to_one_of_somebody_elses_is_refused(place: Path) -> None:
    """As the other file could say the database just as well; one that need not be there may be missing."""
    shared = folder_of(OTHER, place / "shared")
    mine = folder_of(OPERATOR, place / "mine")
    file = mine / "yoyo.ini"
    file.write_text("[DEFAULT]\n%inherit = ?../shared/common.ini\ndatabase = game.db\n")
    assert database_of(mine) == f"{mine}/game.db"

    (shared / "common.ini").write_text("[DEFAULT]\n")
    assert refusal(mine).startswith(f"{mine}/../shared/common.ini is not used: the folder ")
    assert database_of(mine, "--config", "yoyo.ini") == f"{mine}/game.db"

    file.write_text("[DEFAULT]\n%inherit = nowhere.ini\n")
    assert refusal(mine).startswith(f"there is no ini file {mine}/nowhere.ini (named in {file})")
    file.write_text("[DEFAULT]\n%include = yoyo.ini\n")
    assert "inherits or includes itself" in refusal(mine)
    os.mkfifo(mine / "pipe")
    file.write_text("[DEFAULT]\n%include = pipe\n")
    assert "there is no ini file" in refusal(mine)
    file.chmod(0)
    ran = run_without_privileges([PROGRAM, "status"], mine)
    assert (ran.returncode, "cannot be read" in ran.stderr) == (1, True)


# yoyo


def yoyo(*arguments: str, folder: Path) -> Result:
    ran = yoyo_in_child(*arguments, "--batch", folder=folder)
    return Result(ran.code, ran.out, ran.error)


def test_yoyo_refuses_an_ini_that_somebody_else_may_have_written(place: Path) -> None:
    """Where it leads to a database of ours: before anything is connected to, made or run."""
    shared = folder_of(ROOT, place / "shared", 0o777)
    (shared / "sql").mkdir()
    (shared / "sql" / "001_add_hands.sql").write_text("CREATE TABLE hands (id INTEGER PRIMARY KEY);")
    (shared / "sql" / "001_add_hands.rollback.sql").write_text("DROP TABLE hands;")
    file = write_ini(shared, owner=OTHER, sources=shared / "sql")
    before = state_of(place)

    ran = yoyo("apply", folder=shared)
    assert (ran.code, ran.out) == (1, "")
    assert ran.error.startswith(f"yoyo: {file} is not used: the folder {shared} is writable by everybody: ")
    below = folder_of(OPERATOR, shared / "below")
    ran = yoyo("apply", folder=below)
    assert ran.error.startswith(f"yoyo: {file} is not used: above the working folder, only")
    assert ran.error.count("\n") == 1
    assert state_of(place) == before

    shared.chmod(0o775)  # as umask 002 makes it: yoyo's own rules allow it
    os.chown(file, ROOT, ROOT)
    assert yoyo("apply", folder=shared).out.endswith("applied 001_add_hands\n")
    assert yoyo("apply", "-c", "../yoyo.ini", folder=below).error == ""
    os.chown(below, ROOT, ROOT)
    assert yoyo("list", folder=below).error == f"yoyo: using {file}\n"
