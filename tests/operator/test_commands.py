"""What all of the operator's commands have in common: help, errors, the default database, the screen."""

import re
import shlex
import shutil
from importlib.metadata import version
from pathlib import Path

import pytest

from poker_therapist import get_pattern_storage
from tests.helpers import old_app, snapshots
from tests.helpers.checkout import copy_checkout
from tests.helpers.cli import command, in_child, on_terminal, program, refused, state_of, visible_lines
from tests.helpers.migrating import FOLDER, IDS, NEXT

COMMANDS = (
    "status",
    "plan",
    "rehearse",
    "apply",
    "rollback",
    "list",
    "log",
    "new",
    "check",
    "renumber",
    "backup",
    "restore",
    "copy",
    "export",
    "forget",
    "purge",
)
# Each command that takes a database, with what else it needs.
CALLS: dict[str, tuple[str, ...]] = {
    "status": (),
    "rehearse": (),
    "plan": (),
    "apply": (),
    "rollback": (),
    "list": (),
    "log": (),
    "backup": (),
    "restore": ("good.backup",),
    "export": ("7",),
    "forget": ("7", "--yes"),
    "purge": (),
}
COLOUR = re.compile(r"\x1b\[[0-9;]*\b(3[0-9]|4[0-9]|9[0-7]|10[0-7])[0-9;]*m")


# Help


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help(name: str) -> None:
    """That names the command, says what it does and explains each of its options."""
    ran = command(name, "--help", folder=Path.cwd())

    assert (ran.code, ran.error) == (0, "")
    assert f"poker-therapist {name}" in ran.out
    if name in CALLS:
        assert "yoyo.ini" in ran.out
    for option in re.findall(r"--[a-z-]+", ran.out):
        assert re.search(rf"{option} .*[A-Z]\w* \w+", ran.out), f"{option} is not explained"


def test_the_help_lists_every_command_and_the_exit_codes() -> None:
    """By the program, without arguments too; the version is the package's."""
    ran, alone = program("--help", folder=Path.cwd()), program(folder=Path.cwd())
    listed = re.findall(r"^  ([a-z]+)  ", ran.out.partition("Commands:")[2], re.MULTILINE)

    assert (ran.code, ran.error) == (0, "")
    assert set(COMMANDS) == set(listed)
    codes = re.findall(r"^  (\d)  (\w.*)$", ran.out.partition("Exit codes:")[2], re.MULTILINE)
    assert [code for code, _ in codes] == ["0", "1", "2", "3", "4"]
    assert (alone.out + alone.error).split() == ran.out.split()
    assert command("--version", folder=Path.cwd()).out == f"{version('poker-therapist')}\n"


@pytest.mark.slow
def test_the_example_of_each_help_works(tmp_path: Path) -> None:
    """In the order of the list, on a database of the earlier app, with an exit code that the help has."""
    checkout = copy_checkout(tmp_path / "checkout")
    old_app.make(checkout / "RexVoice.db")
    for name in COMMANDS:
        helped = command(name, "--help", folder=checkout).out
        example = shlex.split(helped.partition("Example:\n")[2].partition("\n")[0])
        example = [NEXT + word[3:] if word.startswith("006") else word for word in example]
        codes = set(map(int, re.findall(r"^  (\d)  \w", helped.partition("Exit codes:")[2], re.MULTILINE)))
        if name == "copy":  # what was rolled back is applied again by the app
            get_pattern_storage(checkout / "RexVoice.db").close()
        ran = command(*example[1:], folder=checkout)

        assert example[:2] == ["poker-therapist", name]
        assert ran.code in codes - {1, 2}, (name, ran)


# Errors


@pytest.fixture(scope="module")
def place_to_copy(tmp_path_factory: pytest.TempPathFactory, migrated_file: Path) -> Path:
    """What `place` has in it."""
    folder = tmp_path_factory.mktemp("place")
    shutil.copy(migrated_file, folder / "good.db")
    command("backup", "-d", "good.db", "-o", "good.backup", folder=folder)
    (folder / "letter.txt").write_text("a letter to Ann " * 100)
    return folder


@pytest.fixture
def place(tmp_path: Path, place_to_copy: Path) -> Path:
    """A folder with a good backup and a file that is no database."""
    return Path(shutil.copytree(place_to_copy, tmp_path, dirs_exist_ok=True))


WRONG = {
    "nowhere/x.db": "there is no folder {place}/nowhere: create it, or correct the path",
    "letter.txt": "{place}/letter.txt is not an SQLite database: correct the path",
    ".": "{place} is a folder: give the path of a database file",
    "sqlite+atomik:///x.db": "sqlite+atomik:// is not a supported type of database",
    "sqlite:///x.db?timeout=soon": "timeout=soon in the URL: use a number of seconds",
    "": "'' is not a valid path",
}


@pytest.mark.parametrize(
    ("name", "database"),
    [
        (name, database)
        for name in CALLS
        for database in WRONG
        if (name, database) != ("restore", "letter.txt")  # it is quarantined, and replaced
    ],
)
def test_a_wrong_database_is_one_message(name: str, database: str, place: Path) -> None:
    """Exit code 1, what is wrong and what to do; nothing is made or changed."""
    before = state_of(place)
    message = refused(name, *CALLS[name], "--database", database, folder=place)

    assert WRONG[database].format(place=place) in message
    assert "\n" not in message
    assert state_of(place) == before


@pytest.mark.parametrize("name", ["rehearse", "backup", "export", "forget", "purge"])
def test_a_database_that_is_not_there_is_one_message(name: str, place: Path) -> None:
    message = refused(name, *CALLS[name], folder=place)

    assert message.startswith(f"there is no database {place}/RexVoice.db: correct the path")
    assert not (place / "RexVoice.db").exists()


def test_an_error_of_the_program_is_one_line_and_no_traceback(place: Path) -> None:
    """As a script sees it: on the standard error, exit code 1."""
    ran = program("status", "-d", "letter.txt", folder=place)

    assert (ran.code, ran.out) == (1, "")
    assert ran.error == (f"poker-therapist: {place}/letter.txt is not an SQLite database: correct the path\n")


@pytest.mark.parametrize(
    "call", [("nonsense",), ("status", "--jsn"), ("export",), ("restore",), ("new",), ("status", "x")]
)
def test_a_wrong_call_is_exit_code_2(call: tuple[str, ...], tmp_path: Path) -> None:
    ran = command(*call, folder=tmp_path)

    assert (ran.code, ran.out) == (2, "")
    assert "Usage: poker-therapist" in ran.error
    assert list(tmp_path.iterdir()) == []


# The default database


def looked_at(folder: Path) -> str:
    """Return the database that a command without `--database` looks at."""
    return str(command("status", "--json", folder=folder).json["database"])


def test_without_an_ini_it_is_rexvoice_db_in_the_folder(tmp_path: Path) -> None:
    assert looked_at(tmp_path) == f"{tmp_path}/RexVoice.db"


def test_it_is_what_the_nearest_ini_names(tmp_path: Path) -> None:
    """In this folder or the first above it that has one; paths in it count from it."""
    deep = tmp_path / "outer" / "inner" / "deep"
    deep.mkdir(parents=True)
    for folder in (tmp_path / "outer", tmp_path / "outer" / "inner"):
        (folder / "yoyo.ini").write_text(
            "[DEFAULT]\ndatabase = sqlite+atomic:///%(here)s/game.db?timeout=5\n"
        )

    assert looked_at(deep) == f"{tmp_path}/outer/inner/game.db"
    assert looked_at(tmp_path / "outer") == f"{tmp_path}/outer/game.db"
    assert looked_at(tmp_path) == f"{tmp_path}/RexVoice.db"


def test_an_ini_that_names_none_leaves_the_default(tmp_path: Path) -> None:
    (tmp_path / "yoyo.ini").write_text(f"[DEFAULT]\nsources = {FOLDER}\n")

    assert looked_at(tmp_path) == f"{tmp_path}/RexVoice.db"


@pytest.mark.parametrize("name", ["other.db", "sqlite:///other.db", "sqlite+atomic:///other.db?backups=0"])
def test_what_is_given_counts_more(name: str, tmp_path: Path) -> None:
    """A path or a URL."""
    (tmp_path / "yoyo.ini").write_text("[DEFAULT]\ndatabase = sqlite+atomic:///%(here)s/game.db\n")
    ran = command("status", "--json", "--database", name, folder=tmp_path)

    assert ran.json["database"] == f"{tmp_path}/other.db"


# The screen


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """A folder with a database of the earlier app."""
    old_app.make(tmp_path / "RexVoice.db")
    return tmp_path


@pytest.mark.parametrize("columns", [40, 60, 80, 140])
@pytest.mark.parametrize(("name", "code"), [("status", 3), ("rehearse", 0)])
def test_a_terminal_shows_a_table_in_colour(name: str, code: int, columns: int, old: Path) -> None:
    """No wider than it is, with every id and every word whole, and a title for each column.

    Only a line with a command is longer, for it is pasted as one.
    """
    ended, drawn = on_terminal(name, folder=old, columns=columns)
    lines = [line.rstrip() for line in visible_lines(drawn)]
    first = next(number for number, line in enumerate(lines) if line.startswith("migration "))
    words = " ".join(lines[first:]).split()

    assert ended == code
    assert COLOUR.search(drawn)
    assert set(lines[first + 1]) == {"─"}
    assert all(len(line) <= columns or "`" in line for line in lines)
    assert [line.split()[0] for line in lines[first + 2 :] if line.partition(" ")[0] in IDS] == IDS
    if name == "rehearse":
        assert {"conversation_context", "user_insights", "schema-exact", "seconds", "rows"} <= {
            word.strip(":,") for word in words
        }


@pytest.mark.parametrize("name", ["status", "rehearse"])
@pytest.mark.slow
def test_no_colour_is_shown_where_none_is_wanted(name: str, old: Path) -> None:
    """With NO_COLOR on a terminal the same words without colours; in a pipe no code at all."""
    _, drawn = on_terminal(name, folder=old, columns=100, environment={"NO_COLOR": "1"})
    piped = in_child(name, folder=old)

    assert not COLOUR.search(drawn)
    assert any(line.startswith("migration ") for line in visible_lines(drawn))
    assert "\x1b" not in piped.out + piped.error


def test_a_table_with_trouble_fits_a_narrow_terminal(tmp_path: Path) -> None:
    """Every id is whole, and so is the command that one is told to type."""
    get_pattern_storage(tmp_path / "RexVoice.db").close()
    with snapshots.connect(tmp_path / "RexVoice.db") as connection:
        connection.execute("UPDATE _migration_text SET checksum = 'x' WHERE migration_id LIKE '004%'")
    code, drawn = on_terminal("status", folder=tmp_path, columns=80)
    listed = [line.split()[0] for line in visible_lines(drawn) if line.partition(" ")[0] in IDS]

    assert code == 4
    assert listed[: len(IDS)] == sorted(
        IDS, key=lambda name: not name.startswith("004")
    )  # it needs attention first
    assert "`yoyo mark -m '^004_index_reads$' --batch" in drawn
