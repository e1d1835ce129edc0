"""What reads a database, where there is none, or what is there is not ours: said, and nothing is written."""

from pathlib import Path

import pytest

from tests.helpers.cli import Result, command, state_of
from tests.helpers.engines import run_sql, with_options

# Each command that only reads, and how it ends where nothing of ours is there.
READING = {
    ("status",): 3,
    ("list",): 0,
    ("log",): 0,
    ("plan",): 0,
    ("plan", "--script"): 0,
    ("plan", "--rollback"): 0,
    ("rehearse",): 0,
    ("export", "7"): 1,
    ("backup", "--list"): 0,
}
reading = pytest.mark.parametrize("words", READING, ids=" ".join)


def _run(words: tuple[str, ...], database: Path | str, folder: Path) -> Result:
    """Run a command that writes nothing."""
    before = state_of(folder)
    ran = command(*words, "--no-config", "--database", database, folder=folder)
    assert state_of(folder) == before
    return ran


@reading
def test_a_path_without_a_database(words: tuple[str, ...], tmp_path: Path) -> None:
    """It is said that there is none, and with which call one is made; a program sees it, too."""
    ran = _run(words, "none.db", tmp_path)
    said = ran.out + ran.error

    if words[0] != "backup":
        assert "here is no database" in said or "(umask 077; sqlite3" in said
        assert str(tmp_path / "none.db") in said
    assert ran.code == {"status": 3, "list": 3, "log": 3, "plan": 0, "backup": 0}.get(
        words[0] if words != ("plan", "--rollback") else "", 1
    )
    assert words != ("log",) or ran.out == ""
    if words[0] in ("status", "list", "log"):
        ran = _run((*words, "--json"), "none.db", tmp_path)
        assert (ran.code, ran.error, ran.json["exists"]) == (3, "", False)


@reading
def test_what_is_no_database(words: tuple[str, ...], tmp_path: Path) -> None:
    """A folder, a file below a folder that is not there, a text: an error that says which."""
    (tmp_path / "folder").mkdir()
    (tmp_path / "text.db").write_text("not a database " * 100)
    for name, why in (
        ("folder", "is a folder: give the path"),
        ("nowhere/x.db", f"there is no folder {tmp_path}/nowhere: create it"),
        ("text.db", "is not an SQLite database: correct the path"),
    ):
        if words[0] == "backup" and name == "text.db":  # its backups may be what it is restored from
            continue
        ran = _run(words, name, tmp_path)
        assert (ran.code, ran.out) == (1, "")
        assert why in ran.error


@reading
def test_a_database_without_our_tables(words: tuple[str, ...], tmp_path: Path) -> None:
    """An empty file, and an app's: whole, and nothing of ours is in it yet."""
    (tmp_path / "empty.db").touch()
    run_sql(tmp_path / "app.db", "CREATE TABLE users (id INTEGER); INSERT INTO users VALUES (1)")
    for name in ("empty.db", "app.db"):
        ran = _run(words, name, tmp_path)
        assert ran.code == READING[words], ran
        assert ran.out + ran.error
        if words == ("log",):
            assert ran.lines == [f"{tmp_path}/{name}: no migration has been applied or rolled back yet."]


@reading
def test_a_server_without_our_tables(words: tuple[str, ...], postgresql_url: str, tmp_path: Path) -> None:
    """An app's database is read as it is; one that is not there is an error."""
    if words not in {("backup", "--list"), ("rehearse",)}:  # of files; and tried elsewhere, for it takes long
        ran = _run(words, postgresql_url, tmp_path)
        assert ran.code == READING[words]
        assert ran.out + ran.error
    ran = _run(words, with_options(postgresql_url, "dbname=none"), tmp_path)
    assert (ran.code, ran.out) == (1, "")
    assert ran.error.startswith("poker-therapist: ")
