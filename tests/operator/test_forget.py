"""`poker-therapist forget` and `purge`: it asks, it counts, and it names the backups that still know."""

import contextlib
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from poker_therapist import get_pattern_storage
from poker_therapist.new_files import private_folder
from tests.helpers import old_app, players
from tests.helpers.cli import Result, command, in_child, state_of
from tests.helpers.engines import run_sql
from tests.helpers.players import LEGACY_ROWS

QUESTION = "Permanently delete all data of player 7 from {}? [y/N]: "


@pytest.fixture
def database(tmp_path: Path, migrated_file: Path) -> Path:
    """A database with two players, and rows that a migration had to change."""
    return players.make(Path(shutil.copy(migrated_file, tmp_path / "RexVoice.db")))


def forget(database: Path, *options: str, answer: str = "") -> Result:
    return command("forget", "7", *options, folder=database.parent, answer=answer)


@pytest.mark.parametrize("answer", ["y\n", "yes\n", "what?\ny\n"])
def test_forgetting_asks_and_a_yes_deletes(answer: str, database: Path) -> None:
    """With how many rows of each table; nothing of anybody else, and no byte is left in the file."""
    ran = forget(database, answer=answer)

    assert ran.code == 0
    assert ran.out.startswith(QUESTION.format(database))
    assert ran.out.endswith(
        "]: user_patterns: 2 deleted\nconversation_context: 3 deleted\n"
        "user_insights: 1 deleted\nlegacy_rows: 4 deleted\n"
    )
    assert not players.is_known(database)
    assert players.is_known(database, 8)


@pytest.mark.parametrize("answer", ["n\n", "\n", "no\n", "", "what?\n"])
@pytest.mark.parametrize("options", [(), ("--backups",)])
def test_no_other_answer_deletes_anything(answer: str, options: tuple[str, ...], database: Path) -> None:
    """No, nothing, the end of the input: exit code 1, and every file is as it was."""
    command("backup", folder=database.parent)
    before = state_of(database.parent)
    ran = forget(database, *options, answer=answer)

    assert ran.code == 1
    assert ran.out.startswith(QUESTION.format(database))
    assert "Aborted" in ran.error
    assert {name: content for name, (content, _) in state_of(database.parent).items() if "-" not in name} == {
        name: content for name, (content, _) in before.items() if "-" not in name
    }


def test_forgetting_several_players_names_the_backups_of_each(database: Path) -> None:
    with get_pattern_storage(database) as storage:
        storage.forget_user(8)
    of_seven = Path(command("backup", folder=database.parent).lines[0])
    ran = command("forget", "8", "7", "--yes", folder=database.parent)

    assert ran.lines[8:] == [f"{of_seven} still contains player 7; --backups deletes such backups"]


def test_forgetting_can_be_told_not_to_ask(database: Path) -> None:
    """By the program, in a script; no byte of the player is left in any file."""
    with get_pattern_storage(database) as storage:
        storage.save_pattern(7, "secret", "word", "xyzzy-plugh")
    ran = in_child("forget", "7", "--yes", folder=database.parent)

    assert (ran.code, ran.error) == (0, "")
    assert ran.lines == [
        "user_patterns: 3 deleted",
        "conversation_context: 3 deleted",
        "user_insights: 1 deleted",
        "legacy_rows: 4 deleted",
    ]
    assert b"xyzzy-plugh" not in b"".join(content for content, _ in state_of(database.parent).values())


def make_backups(database: Path) -> tuple[list[Path], list[Path]]:
    """Make backups of several times and versions; return those that hold player 7, and the others."""
    folder = database.parent

    def backup(name: str, make: Callable[[Path], None]) -> Path:
        path = folder / f"RexVoice.db.{name}.backup"
        make(path)
        return path

    def empty(path: Path) -> None:
        get_pattern_storage(path).close()

    def the_other(path: Path) -> None:
        with get_pattern_storage(path) as storage:
            players.fill(storage, 8)

    def only_kept(path: Path) -> None:
        get_pattern_storage(path).close()
        run_sql(path, LEGACY_ROWS)

    def old(path: Path) -> None:
        old_app.make(path, rows=0)
        run_sql(path, "INSERT INTO user_insights (user_id, insight_type, insight_data) VALUES (7, 'a', 'b')")

    def old_of_others(path: Path) -> None:
        old_app.make(path, tables=["user_patterns"])

    with_player = [
        backup("20260101T000000.000000Z.before-apply-001_add_pattern_storage", old),
        backup("20260102T000000.000000Z.before-rollback-004_index_reads", only_kept),
        Path(command("backup", folder=folder).lines[0]),
    ]
    without = [
        backup("20260103T000000.000000Z", empty),
        backup("20260104T000000.000000Z.before-restore", the_other),
        backup("20260105T000000.000000Z.before-apply-001_add_pattern_storage", old_of_others),
    ]
    for companion in folder.glob("*.backup-*"):
        companion.unlink()
    shutil.copy(database, folder / "Other.db.20260101T000000.000000Z.backup")  # of another database
    return with_player, without


def test_forgetting_names_the_backups_that_still_hold_the_player_and_only_those(database: Path) -> None:
    """Whatever made them and of whichever version of the schema they are."""
    with_player, _ = make_backups(database)
    before = state_of(database.parent).keys()
    ran = forget(database, "--yes")

    assert ran.lines[4:] == [
        f"{path} still contains player 7; --backups deletes such backups" for path in sorted(with_player)
    ]
    assert state_of(database.parent).keys() >= before


def test_forgetting_deletes_the_backups_that_hold_the_player_if_told_so(database: Path) -> None:
    """And only those; also when the database itself does not know the player any more."""
    with_player, without = make_backups(database)
    forget(database, "--yes")
    ran = forget(database, "--yes", "--backups")

    assert ran.code == 0
    assert ran.lines == [
        *(f"{table}: 0 deleted" for table in players.TABLES),
        *(f"deleted {path}" for path in sorted(with_player)),
    ]
    assert [path for path in with_player if path.exists()] == []
    assert all(path.exists() for path in without)
    assert (database.parent / "Other.db.20260101T000000.000000Z.backup").exists()
    assert forget(database, "--yes").lines == ran.lines[:4]


def test_a_backup_that_cannot_be_read_does_not_hide_the_others(database: Path) -> None:
    """It is named, too: nobody knows whom it holds."""
    backup = Path(command("backup", folder=database.parent).lines[0])
    letter = database.parent / "RexVoice.db.mine.backup"
    letter.write_text("a letter to Ann " * 100)
    ran = forget(database, "--yes", "--backups")

    assert not backup.exists()
    assert letter.exists()
    assert str(letter) in ran.out + ran.error


def test_purging_counts_what_has_expired(database: Path) -> None:
    """Of all players; what has not stays."""
    first, second = (in_child("purge", folder=database.parent) for _ in range(2))

    assert (first.code, first.out, first.error) == (0, "2 expired rows deleted\n", "")
    assert second.out == "0 expired rows deleted\n"
    with get_pattern_storage(database) as storage:
        assert storage.get_context(7, "mood") == ["angry", "tired"]


def test_what_killed_commands_have_left_is_named_and_deleted_if_told_so(database: Path) -> None:
    """Half a backup, a rehearsal's copies, a damaged database with its log; nothing that is in use."""
    named = f"{database.name}.20260105T000000.000000Z"
    left = [database.with_name(f"{named}{end}") for end in (".damaged", ".damaged-wal")]
    for path in left:
        path.write_bytes(b"no whole database " * 100)
    time = ".20260105T000000.000000Z"
    kinds = {f"{time}.backup.part-": "new", f"{time}.damaged.part-": "new", ".rehearsal-": "work.db"}
    for kind, made in kinds.items():
        left.append(database.with_name(f"{database.name}{kind}deadbeef"))
        left[-1].mkdir()
        shutil.copy(database, left[-1] / made)
    with contextlib.ExitStack() as stack:
        writing = []
        for kind, made in kinds.items():
            folder = stack.enter_context(private_folder(database.parent, f"{database.name}{kind}"))
            os.close(folder.create(made))
            writing.append(folder.path / made)
        said = forget(database, "--yes").out
        for path in left:
            assert f"{path} is a leftover and may contain player 7; --backups deletes it" in said
        assert forget(database, "--yes", "--backups").code == 0

        assert [path for path in left if path.exists()] == []
        assert all(path.exists() for path in writing)
