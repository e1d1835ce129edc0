"""What a terminal would obey never reaches it: not from a database, a file's name or an argument."""

import json
import re
import sys
import traceback
from pathlib import Path

import pytest

from poker_therapist import get_pattern_storage
from poker_therapist.errors import InvalidInput, PokerTherapistError, escaped
from tests.helpers.cli import command, on_terminal
from tests.helpers.engines import is_server, run_sql, sqlite_only
from tests.helpers.postgresql import atomic, yoyo_in_child
from tests.helpers.project import Project

# It would set the title, colour, turn around, draw over the line, and forge one; in Rich's words as well.
PLANTED = "\x1b]0;me\x07\x9b31m\x7f\r\u202e\u2066[red]:x:[/red]\nforged"
CONTROLS = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
)
# A tab and line ends are between what is printed.
COMMANDS = {
    "status": ("status",),
    "status of a program": ("status", "--json"),
    "rehearse": ("rehearse",),
    "rehearse of a program": ("rehearse", "--json"),
    "export": ("export", "1"),
    "purge": ("purge",),
    "forget": ("forget", "1", "--yes"),
    "forget and ask": ("forget", "1"),
    "list": ("backup", "--list"),
    "list of a program": ("backup", "--list", "--json"),
}


def require_harmless(printed: str) -> None:
    """Check that nothing in a text is obeyed by a terminal, and no line is forged."""
    assert CONTROLS.findall(printed) == []
    assert not [line for line in printed.splitlines() if line.startswith("forged")]


def plant(database: str) -> None:
    """Plant it in the names of an index, a column, a table and a trigger, in values, and in an error."""
    name = '"' + PLANTED + '"'
    run_sql(
        database,
        f"""
        CREATE INDEX {name} ON user_patterns (user_id);
        ALTER TABLE user_insights ADD COLUMN {name} TEXT;
        CREATE TABLE "{PLANTED} 2" (id INTEGER PRIMARY KEY);
        """,
    )
    if is_server(database):
        run_sql(
            database,
            f"""
            CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS
            $$ BEGIN RAISE EXCEPTION '%', E'{PLANTED}'; END $$;
            CREATE TRIGGER {name} BEFORE DELETE ON user_patterns FOR EACH ROW EXECUTE FUNCTION refuse();
            """,
        )
    else:
        run_sql(
            database,
            f"CREATE TRIGGER {name} BEFORE DELETE ON user_patterns "
            f"BEGIN SELECT RAISE(ABORT, '{PLANTED}'); END;",
        )


def plant_id(database: str) -> None:
    """Plant it in the id of a migration that is applied and has no file."""
    newest = "(SELECT max(migration_id) FROM _yoyo_migration)"
    at, of_texts = "applied_at_utc", "applied_at, checksum, apply_sql, rollback_sql"
    run_sql(
        database,
        f"""
        INSERT INTO _yoyo_migration (migration_hash, migration_id, {at})
        SELECT 'x', '999' || '{PLANTED}', {at} FROM _yoyo_migration WHERE migration_id = {newest};
        INSERT INTO _migration_text (migration_table, migration_id, {of_texts})
        SELECT migration_table, '999' || '{PLANTED}', {of_texts} FROM _migration_text
        WHERE migration_id LIKE '004%';
        """,
    )


@pytest.fixture
def hostile(migrated: str) -> str:
    """A database in which it is planted wherever a text can stand."""
    with get_pattern_storage(migrated) as storage:
        storage.save_pattern(1, PLANTED, PLANTED, {PLANTED: [PLANTED]})
        storage.save_context(1, PLANTED, PLANTED, session_id=PLANTED)
    plant(migrated)
    return migrated


@pytest.mark.parametrize("words", COMMANDS.values(), ids=COMMANDS)
def test_no_command_prints_what_a_terminal_obeys(
    words: tuple[str, ...], hostile: str, tmp_path: Path
) -> None:
    """As tables, messages and JSON, which reads the same."""
    ran = command(*words, "-d", hostile, folder=tmp_path, answer="y\n")

    require_harmless(ran.out + ran.error + ran.database)
    if words == ("export", "1"):
        assert PLANTED in json.loads(ran.out)["patterns"][0].values()
    if words == ("status",):
        assert r"\x1b]0;me\x07\x9b31m\x7f\r\u202e\u2066[red]:x:[/red]\nforged" in ran.out


@pytest.mark.parametrize("words", COMMANDS.values(), ids=COMMANDS)
def test_no_command_prints_an_id_as_it_is(words: tuple[str, ...], migrated: str, tmp_path: Path) -> None:
    """Of a migration that a database says was applied to it."""
    plant_id(migrated)
    ran = command(*words, "-d", migrated, folder=tmp_path, answer="y\n")

    require_harmless(ran.out + ran.error + ran.database)


def test_copy_and_backup_print_it_nowhere(hostile: str, tmp_path: Path) -> None:
    """Also where a name of a file has it."""
    target = tmp_path / PLANTED.replace("/", "")
    for words in (("copy", hostile, target), ("backup", "-d", hostile, "-o", target), ("restore", target)):
        ran = command(*words, folder=tmp_path)
        require_harmless(ran.out.replace("\nforged", ""))
        assert CONTROLS.findall(ran.error + ran.database) == []


@sqlite_only
@pytest.mark.parametrize("words", [("status",), ("rehearse",), ("forget", "1", "--yes")])
def test_a_terminal_gets_the_colours_of_rich_and_no_more(
    words: tuple[str, ...], hostile: str, tmp_path: Path
) -> None:
    """Nor are the words in brackets taken for colours."""
    _, drawn = on_terminal(*words, "-d", hostile, folder=tmp_path, columns=400)

    shown = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", drawn).replace("\r\n", "\n").replace("\r", "")
    assert CONTROLS.findall(shown) == []
    assert words != ("status",) or "[red]:x:[/red]" in shown


def test_an_error_of_the_library_is_harmless_in_a_traceback(hostile: str) -> None:
    """With the driver's own above it."""
    with get_pattern_storage(hostile, migrate=False) as storage, pytest.raises(PokerTherapistError) as caught:
        storage.forget_user(1)

    assert CONTROLS.findall("".join(traceback.format_exception(caught.value))) == []
    assert r"\x1b]0;me" in str(caught.value)


@pytest.mark.parametrize("name", ["001_a\x1b[31m", "001_a\nforged", "001_\u202eb", "001_\x9b"])
@pytest.mark.parametrize("words", [("list",), ("apply",), ("rollback",), ("mark",)])
def test_a_file_with_control_characters_in_its_name_is_no_migration(
    name: str, words: tuple[str, ...], project: Project
) -> None:
    """yoyo would print its id as it is."""
    project.write(name, "SELECT 1;\n")
    message = project.refuses(*words)

    assert "has control characters in its name: rename it" in message
    require_harmless(message)


@pytest.mark.parametrize("words", [("list",), ("apply", "-vvv"), ("rollback", "--all"), ("reapply", "--all")])
def test_yoyo_prints_nothing_of_a_hostile_database(
    words: tuple[str, ...], hostile: str, tmp_path: Path
) -> None:
    """Neither an id that was planted in its table nor what the driver says."""
    plant_id(hostile)
    url = atomic(hostile) if is_server(hostile) else f"sqlite+atomic:///{hostile}"
    folder = Path(sys.modules["poker_therapist"].__file__ or "").parents[1] / "sql_migrations"
    sources = folder / ("postgresql" if is_server(hostile) else "sqlite")
    ran = yoyo_in_child(*words, "--batch", "--no-config-file", "--database", url, sources, folder=tmp_path)

    require_harmless(ran.out + ran.error)


@pytest.mark.parametrize(
    ("text", "shown"),
    {
        "a\x1bb": r"a\x1bb",
        "a\nb\tc\r": r"a\nb\tc\r",
        "\x7f\x85\x9b": r"\x7f\x85\x9b",
        "\u202e\u2066\u200f\u2028": r"\u202e\u2066\u200f\u2028",
        "\ud800": r"\ud800",
        "Zoë ♠ 👩\u200d💻 مرحبا": "Zoë ♠ 👩\u200d💻 مرحبا",
    }.items(),
)
def test_control_characters_are_shown_as_escapes(text: str, shown: str) -> None:
    """And nothing else is."""
    assert escaped(text) == shown
    assert str(InvalidInput(text)) == shown.replace(r"\n", "\n")
    assert str(InvalidInput("x").with_message(text)) == shown.replace(r"\n", "\n")
