"""`poker-therapist export`: all that is known of a player; and calls about players that are refused."""

import json
import shutil
import stat
from pathlib import Path

import pytest

from poker_therapist import get_pattern_storage
from tests.helpers import old_app, players, snapshots
from tests.helpers.cli import command, in_child, program, refused, state_of
from tests.helpers.engines import run_sql
from tests.helpers.migrating import FOLDER, IDS, NEXT, up


@pytest.fixture
def database(tmp_path: Path, migrated_file: Path) -> Path:
    """A database with two players, and rows that a migration had to change."""
    return players.make(Path(shutil.copy(migrated_file, tmp_path / "RexVoice.db")))


def test_an_export_holds_every_value_of_every_row(database: Path) -> None:
    """All four tables, all columns, values decoded; through the program."""
    ran = in_child("export", "7", folder=database.parent)
    found = ran.json

    assert (ran.code, ran.error) == (0, "")
    assert "♠ naïve" in ran.out
    assert found["user_id"] == 7
    with snapshots.connect(database) as connection:
        for table, part in zip(
            players.TABLES, ("patterns", "context", "insights", "legacy_rows"), strict=True
        ):
            rows = connection.execute(f"SELECT * FROM {table} WHERE user_id = 7").fetchall()
            place = [column for _, column, *_ in connection.execute(f"PRAGMA table_info({table})")].index(
                "user_id"
            )
            wanted = [sorted(map(seen, (*row[:place], *row[place + 1 :]))) for row in rows]

            assert rows
            assert sorted(sorted(map(seen, row.values())) for row in found[part]) == sorted(wanted)


def seen(item: object) -> str:
    """Return a value of a row, stored as JSON or decoded, in one form."""
    if isinstance(item, str):
        try:
            item = json.loads(item)
        except ValueError:
            return json.dumps(item)
    return json.dumps(item)


def test_an_export_is_the_same_each_time(database: Path) -> None:
    """To the byte, also when the rows lie elsewhere in the file."""
    first = command("export", "7", folder=database.parent).out
    run_sql(database, "CREATE TABLE copy AS SELECT * FROM user_patterns; DELETE FROM user_patterns;")
    run_sql(
        database, "INSERT INTO user_patterns SELECT * FROM copy ORDER BY id DESC; DROP TABLE copy; VACUUM;"
    )

    assert command("export", "7", folder=database.parent).out == first


def test_an_export_tells_what_was_odd_in_an_old_database(tmp_path: Path) -> None:
    """Each row that could not be kept to the letter, as it was; bytes in hexadecimal."""
    path = tmp_path / "RexVoice.db"
    old_app.make(path, rows=0)
    old_app.add_odd_rows(path)
    get_pattern_storage(path).close()
    found = command("export", "3", folder=tmp_path).json
    kept = {(row["table_name"], row["row_id"]) for row in found["legacy_rows"]}
    odd = {
        (table, row[0])
        for table, rows in old_app.ODD_ROWS.items()
        for row in rows
        if row[1] == 3 and row[0] != 900006  # whose key only looks like a repaired one
    }

    assert kept == odd
    assert {row["item_key"] for row in found["legacy_rows"]} >= {b"bytes".hex(), ""}


def test_an_export_of_a_player_who_is_not_known_is_empty(database: Path) -> None:
    assert command("export", "9", folder=database.parent).json == {
        "user_id": 9, "patterns": [], "context": [], "insights": [], "legacy_rows": [],
    }  # fmt: skip


def test_an_export_to_a_file_is_for_its_owner_alone(database: Path) -> None:
    """What is printed otherwise, and a line end; nothing is printed."""
    printed = command("export", "7", folder=database.parent)
    written = command("export", "7", "--output", "ann.json", folder=database.parent)
    file = database.parent / "ann.json"

    assert (written.code, written.out, written.error) == (0, "", "")
    assert file.read_text(encoding="utf-8") == printed.out
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


@pytest.mark.parametrize(
    ("output", "says"),
    [
        ("there.json", "there.json already exists: choose another name"),
        (".", ". already exists"),
        ("link.json", "link.json already exists"),
        ("nowhere/x.json", "cannot write nowhere/x.json (No such file or directory): correct the path"),
    ],
)
def test_an_export_writes_over_nothing(output: str, says: str, database: Path) -> None:
    (database.parent / "there.json").write_text("a letter")
    (database.parent / "link.json").symlink_to("not there")
    message = refused("export", "7", "-o", output, folder=database.parent)

    assert message.startswith(says)
    assert not (database.parent / "not there").exists()
    assert (database.parent / "there.json").read_text() == "a letter"


BAD_USERS = {"x": 2, "": 2, "1.5": 2, "9223372036854775808": 1, "-9223372036854775809": 1, "1e3": 2}


@pytest.mark.parametrize("user", BAD_USERS)
@pytest.mark.parametrize("word", ["export", "forget"])
def test_a_user_that_is_no_number_is_refused(word: str, user: str, database: Path) -> None:
    """A wrong call is exit code 2, a number that no player can have is 1; nothing is deleted or printed."""
    options = ("--yes",) if word == "forget" else ()
    before = state_of(database.parent)
    ran = command(word, *options, "--", user, folder=database.parent)

    assert (ran.code, ran.out) == (BAD_USERS[user], "")
    assert "USER" in ran.error or "user_id must be an integer of at most 64 bits" in ran.error
    assert state_of(database.parent).keys() == before.keys()
    assert players.is_known(database)


CALLS = [("export", "3"), ("forget", "3", "--yes"), ("purge",)]


@pytest.mark.parametrize("call", CALLS, ids=lambda call: str(call[0]))
def test_an_outdated_database_is_refused_with_what_to_do(call: tuple[str, ...], tmp_path: Path) -> None:
    """It is not migrated behind the operator's back."""
    path = tmp_path / "RexVoice.db"
    old_app.make(path)
    before = state_of(tmp_path)
    message = refused(*call, folder=tmp_path)

    assert message.startswith(f"{path} lacks {', '.join(IDS)}: run `poker-therapist apply --database {path}`")
    assert state_of(tmp_path) == before


@pytest.mark.parametrize("call", CALLS, ids=lambda call: str(call[0]))
def test_a_database_of_a_newer_version_is_refused_with_what_to_do(
    call: tuple[str, ...], tmp_path: Path
) -> None:
    newer = tmp_path / "newer"
    shutil.copytree(FOLDER, newer)
    (newer / f"{NEXT}_add_mood.sql").write_text(f"-- depends: {IDS[-1]}\nCREATE TABLE mood (id INTEGER);")
    (newer / f"{NEXT}_add_mood.rollback.sql").write_text("DROP TABLE mood;")
    up(tmp_path / "RexVoice.db", "999", folder=newer)

    assert f"does not know {NEXT}_add_mood: update the code" in refused(*call, folder=tmp_path)


def test_a_player_may_have_a_number_below_0(database: Path) -> None:
    """A number is no option."""
    assert command("export", "-52", folder=database.parent).json["user_id"] == -52


@pytest.mark.parametrize(("text", "encoding"), [('"\\ud800"', "utf-8"), ('"♠"', "ascii")])
def test_what_cannot_be_written_as_it_reads_is_written_with_escapes(
    text: str, encoding: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A lone surrogate of the earlier app, a terminal of another encoding: JSON all the same."""
    monkeypatch.setenv("PYTHONIOENCODING", encoding)
    path = tmp_path / "RexVoice.db"
    old_app.make(path, rows=0)
    run_sql(
        path,
        "INSERT INTO user_patterns (user_id, pattern_type, pattern_key, pattern_value) "
        f"VALUES (7, 'a', 'b', '{text}')",
    )
    get_pattern_storage(path).close()
    printed = program("export", "7", folder=tmp_path)
    in_child("export", "7", "--output", "ann.json", folder=tmp_path)

    assert (printed.code, printed.error) == (0, "")
    assert printed.json["patterns"][0]["value"] == json.loads(text)
    assert json.loads((tmp_path / "ann.json").read_text(encoding="utf-8")) == printed.json


def test_what_somebody_has_kept_as_an_empty_object_is_exported_and_copied(
    migrated_postgresql_url: str, tmp_path: Path
) -> None:
    """On PostgreSQL an object of one key is a value for which JSON has no word; others are what they are."""
    values = "('a', 'user_patterns', 1, 7, '{}'), ('a', 'user_patterns', 2, 7, '[]')"
    columns = "migration_id, table_name, row_id, user_id, value"
    run_sql(migrated_postgresql_url, f"INSERT INTO legacy_rows ({columns}) VALUES {values}")
    ran = command("export", "7", "--database", migrated_postgresql_url, folder=tmp_path)
    assert [row["value"] for row in ran.json["legacy_rows"]] == [{}, []]

    assert command("copy", migrated_postgresql_url, "copy.db", folder=tmp_path).code == 0
    with get_pattern_storage(tmp_path / "copy.db") as copied:
        assert [row["value"] for row in copied.export_user(7)["legacy_rows"]] == ["{}", "[]"]
