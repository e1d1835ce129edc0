"""A command that a message names works as it is pasted: for this database, in any folder."""

import re
import subprocess
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from poker_therapist import PatternStorage, get_pattern_storage, schema
from poker_therapist.engines import engine_for
from poker_therapist.errors import PokerTherapistError
from poker_therapist.location import locate, yoyo_url
from tests.helpers.cli import Result, command
from tests.helpers.engines import is_server
from tests.helpers.migrating import NEXT
from tests.helpers.postgresql import yoyo_in_child
from tests.helpers.project import Project


@pytest.fixture
def empty(tmp_path: Path) -> Path:
    """Where the operator is: nothing is there."""
    folder = tmp_path / "empty"
    folder.mkdir()
    return folder


@pytest.fixture
def named(engine: str, tmp_path: Path, request: pytest.FixtureRequest) -> str:
    """A database whose name a shell would take apart."""
    if engine == "postgresql":
        return str(request.getfixturevalue("postgresql_url"))
    folder = tmp_path / "it's $HOME; mine"
    folder.mkdir()
    return str(folder / "Rex Voice.db")


@pytest.fixture
def game(tmp_path: Path, named: str) -> Project:
    """A project with two migrations for it."""
    project = Project(tmp_path / "my project")
    project.write_two()
    project.database = Path(named) if not is_server(named) else named  # type: ignore[assignment]
    return project


def run_as_pasted(line: str, folder: Path) -> Result:
    """Let a shell find the words of a line, and run it without starting an interpreter."""
    words = subprocess.check_output(f"printf '%s\\0' {line}", shell=True, text=True, cwd=folder)
    program, *arguments = words.split("\0")[:-1]
    assert program in ("yoyo", "poker-therapist")
    return (yoyo_in_child if program == "yoyo" else command)(*arguments, folder=folder)


def paste(message: str, folder: Path) -> list[str]:
    """Run each command that a message names in a shell, and return them."""
    named = [
        one for one in re.findall(r"`([^`]+)`", message) if one.startswith(("poker-therapist ", "yoyo "))
    ]
    assert named, message
    for one in named:
        ran = run_as_pasted(one, folder)
        assert (ran.code, "Traceback" in ran.error) == (0, False), (one, ran)
    assert list(folder.iterdir()) == []
    return named


def applied(database: str) -> list[str]:
    with engine_for(locate(database)).backend() as backend:
        return sorted(backend.applied())


def raised(action: Callable[[], object]) -> str:
    with pytest.raises(PokerTherapistError) as caught:
        action()
    return str(caught.value)


def shipped(database: str) -> list[str]:
    return sorted(schema.shipped_ids("postgresql" if is_server(database) else "sqlite"))


def test_what_is_pending(named: str, empty: Path) -> None:
    """To `status`; where there is no file yet, too."""
    paste(command("status", "-d", named, folder=empty).out, empty)
    assert applied(named) == shipped(named)

    command("rollback", "-d", named, folder=empty)
    paste(command("status", "-d", named, folder=empty).out, empty)
    assert applied(named) == shipped(named)


@pytest.mark.parametrize("state", ["nothing", "outdated"])
def test_what_opening_lacks(state: str, named: str, empty: Path) -> None:
    """The database, or its last migration."""
    if state == "outdated":
        command("apply", "-d", named, folder=empty)
        command("rollback", "-d", named, folder=empty)

    paste(raised(lambda: PatternStorage(named, migrate=False)), empty)
    with closing(PatternStorage(named, migrate=False)):
        assert applied(named) == shipped(named)


def test_what_a_backup_lacks(postgresql_url: str, empty: Path) -> None:
    message = command("backup", "-d", postgresql_url, folder=empty).error
    paste(message, empty)
    assert applied(postgresql_url) == shipped(postgresql_url)


def newer(database: str, tmp_path: Path) -> None:
    """Let a newer version apply one more."""
    get_pattern_storage(database).close()
    folder = tmp_path / "newer"
    folder.mkdir()
    (folder / f"{NEXT}_add_moods.sql").write_text("CREATE TABLE moods (id INTEGER);")
    (folder / f"{NEXT}_add_moods.rollback.sql").write_text("DROP TABLE moods;")
    command("apply", "-d", database, "--sources", folder, folder=tmp_path)


@pytest.mark.parametrize("way", ["status", "open"])
def test_what_a_newer_version_has_applied(way: str, named: str, empty: Path, tmp_path: Path) -> None:
    newer(named, tmp_path)
    if way == "open":
        message = raised(lambda: PatternStorage(named))
    else:
        message = command("status", "-d", named, folder=empty).out

    paste(message, empty)
    assert applied(named) == shipped(named)


def test_what_has_been_edited(game: Project, empty: Path) -> None:
    """With the project's own folder, whose name has a blank; the record is of the edited file afterwards."""
    call = ("-d", str(game.database), "--sources", "sql")
    command("apply", *call, folder=game.folder)
    with (game.sql / "002_add_bets.sql").open("a") as file:
        file.write("\n-- a comment")

    ran = command("status", *call, folder=game.folder)
    assert ran.code == 4
    assert len(paste(ran.out, empty)) == 2
    assert command("status", *call, folder=game.folder).code == 0


def test_what_has_been_edited_in_a_folder_that_yoyo_would_take_apart(tmp_path: Path, empty: Path) -> None:
    """yoyo reads a % as the start of a setting, divides at blanks, and takes the rest for a pattern."""
    project = Project(tmp_path / "100% of #1? größe [x] it's")
    project.write_two()
    call = ("apply", "-d", str(project.database), "--sources", project.sql)
    assert command(*call, folder=empty).code == 0
    project.write("001_add_hands", "CREATE TABLE hands (id INTEGER PRIMARY KEY); -- edited")

    ran = command(*call, folder=empty)
    assert len(paste(ran.error, empty)) == 2
    assert command(*call, folder=empty).code == 0


def test_what_depends_on_another(game: Project, empty: Path) -> None:
    call = ("-d", str(game.database), "--sources", game.sql)
    command("apply", *call, folder=empty)
    with engine_for(locate(str(game.database))).backend() as backend:
        first = next(iter(backend.read([str(game.sql)])))
        backend.to_rollback(backend.read([str(game.sql)]))
        message = raised(lambda: backend.rollback_one(first))

    # In an empty folder the kept texts are enough.
    paste(message, empty)
    assert applied(str(game.database)) == []


def test_what_would_lose_rows(named: str, empty: Path) -> None:
    with get_pattern_storage(named) as storage:
        storage.save_pattern(7, "tilt", "after_bad_beat", 1)
    first = shipped(named)[0]

    paste(command("rollback", "--to", first, "-d", named, folder=empty).error, empty)
    assert applied(named) == []


def test_what_would_lose_rows_by_yoyo(project: Project, empty: Path) -> None:
    project.write_two()
    project.yoyo("apply", sources=[str(project.sql)])
    project.run_sql("INSERT INTO hands VALUES (1)")

    project.loses_rows = False
    message = project.refuses("rollback", "--revision", "001")
    (call,) = re.findall(r"`(poker-therapist [^`]+)`", message)
    url = project.url_for(project.atomic, "").replace("%", "%%")
    (project.folder / "yoyo.ini").write_text(f"[DEFAULT]\nsources = sql\ndatabase = {url}\n")
    assert f"`{call}`" in project.bare_yoyo("rollback", "-b", "--revision", "001").stderr
    paste(f"`{call}`", empty)
    assert project.applied() == []


@pytest.mark.parametrize("by", ["ini", "options"])
def test_yoyo_names_yoyo_as_it_was_called(by: str, project: Project) -> None:
    """In the folder where it was called."""
    project.write_two()
    url = project.url_for(project.atomic, "")
    if by == "ini":
        (project.folder / "yoyo.ini").write_text(
            f"[DEFAULT]\nbatch_mode = on\nsources = sql\ndatabase = {url.replace('%', '%%')}\n"
        )
    words = [] if by == "ini" else ["-d", url, "--migration-table", "_mine", "--no-config-file", "sql"]
    project.bare_yoyo("apply", "-b", *words)
    (project.sql / "001_add_hands.sql").write_text("CREATE TABLE hands (id INTEGER PRIMARY KEY); -- edited")

    ran = project.bare_yoyo("apply", "-b", *words)
    assert ran.returncode == 1
    calls = re.findall(r"`(yoyo [^`]+)`", ran.stderr)
    assert len(calls) == 2
    if by == "ini":
        assert calls == ["yoyo unmark -m '^001_add_hands$'", "yoyo mark -m '^001_add_hands$'"]
    for call in calls:
        ran_call = run_as_pasted(call, project.folder)
        assert ran_call.code == 0, ran_call
    assert project.bare_yoyo("apply", "-b", *words).returncode == 0


@pytest.mark.parametrize("direction", ["apply", "rollback"])
def test_what_was_interrupted(direction: str, game: Project, empty: Path) -> None:
    """It is finished, and then rolled back."""
    game.write(
        "003_stop", "-- depends: 002_add_bets\n-- transactional: false\nSELECT * FROM hands;", "SELECT 1;"
    )
    stopped = game.sql / ("003_stop.sql" if direction == "apply" else "003_stop.rollback.sql")
    whole = stopped.read_text()
    call = ("-d", str(game.database), "--sources", game.sql)
    if direction == "rollback":
        stopped.write_text(whole.replace("SELECT 1", "SELECT * FROM nowhere"))
        command("apply", *call, folder=empty)
    else:
        stopped.write_text(whole.replace("hands", "nowhere"))
    assert command(direction, *call, folder=empty).code == 1
    if direction == "apply":
        stopped.write_text(whole)
    else:
        game.run_sql("CREATE TABLE nowhere (id INTEGER)")

    word = "mark" if direction == "apply" else "unmark"
    url = yoyo_url(locate(str(game.database)))
    said = game.bare_yoyo(word, "-b", "--no-config-file", "--database", url, "sql").stderr
    assert "was interrupted" in said
    assert f"yoyo {word} -m '^003_stop$'" in said
    ran = command("status", *call, folder=empty)
    assert ran.code == 4
    assert len(paste(ran.out, empty)) == (2 if direction == "apply" else 1)
    assert applied(str(game.database)) == ["001_add_hands", "002_add_bets"]
