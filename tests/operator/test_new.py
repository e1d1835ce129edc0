"""`poker-therapist new`: the files of the next migration, valid at once and yet to be filled."""

import shutil
from pathlib import Path

import pytest

from poker_therapist.migrations.scaffold import REASON
from poker_therapist.testing import MigrationTests
from tests.helpers import snapshots
from tests.helpers.cli import command, program, refused
from tests.helpers.migrating import FOLDER, IDS, NEXT, down, up

MOOD = f"{NEXT}_add_seat_note"
FILES = [
    f"sql_migrations/{engine}/{MOOD}{half}.sql"
    for engine in ("sqlite", "postgresql")
    for half in ("", ".rollback")
]


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout, as far as this command looks at it."""
    shutil.copytree(FOLDER, tmp_path / "sql_migrations" / "sqlite")
    (tmp_path / "yoyo.ini").write_text("[DEFAULT]\n")
    return tmp_path


def test_it_writes_and_names_the_four_files_of_the_next_number(checkout: Path) -> None:
    """By the program, with the paths as one would type them."""
    ran = program("new", "add seat note", folder=checkout)

    assert (ran.code, ran.error) == (0, "")
    assert ran.lines == FILES
    assert (checkout / FILES[0]).read_text() == f"-- {REASON}\n-- depends: {IDS[-1]}\n"
    assert (checkout / FILES[1]).read_text() == f"-- {REASON} What does the rollback lose?\n"
    assert (checkout / FILES[2]).read_text() == f"-- {REASON}\n"  # there is none before it
    assert (checkout / FILES[3]).read_text() == (checkout / FILES[1]).read_text()


def test_the_next_one_follows_it_in_both_folders(checkout: Path) -> None:
    command("new", "add seat note", folder=checkout)
    ran = command("new", "drop the mood again", folder=checkout / "sql_migrations" / "sqlite")

    assert [Path(line).name for line in ran.lines[::2]] == [f"{int(NEXT) + 1:03}_drop_the_mood_again.sql"] * 2
    for line in ran.lines[::2]:
        assert f"-- depends: {MOOD}\n" in (checkout / "sql_migrations" / "sqlite" / line).read_text()


@pytest.mark.parametrize(
    ("description", "name"),
    [
        ("Add Seat Note", "add_seat_note"),
        ("  add-seat_note!  ", "add_seat_note"),
        ("add séat note", "add_seat_note"),
        ("../../add mood", "add_mood"),
        ("add mood; DROP TABLE users", "add_mood_drop_table_users"),
    ],
)
def test_any_words_become_a_name(description: str, name: str, checkout: Path) -> None:
    """Lower case, ASCII, joined by underscores; no path and no SQL among them."""
    ran = command("new", description, folder=checkout)

    assert ran.lines[0] == f"sql_migrations/sqlite/{NEXT}_{name}.sql"


@pytest.mark.parametrize("description", ["", "mood", "   ", "!!! ???", "♠ ♥", "004"])
def test_what_has_no_verb_and_noun_is_refused(description: str, checkout: Path) -> None:
    message = refused("new", description, folder=checkout)

    assert message == f"{description!r} is no name for a migration: say verb and noun, add session mood"
    assert not (checkout / "sql_migrations" / "postgresql").exists()


@pytest.mark.parametrize("description", ["index reads", "Index  READS", "add seat note"])
def test_a_second_one_of_the_same_name_is_refused(description: str, checkout: Path) -> None:
    """Whatever its number."""
    command("new", "add seat note", folder=checkout)
    before = sorted(checkout.rglob("*"))
    message = refused("new", description, folder=checkout)

    assert message.endswith(f"{'_'.join(description.lower().split())} already: choose another name")
    assert sorted(checkout.rglob("*")) == before


def test_outside_of_a_checkout_it_is_refused(tmp_path: Path) -> None:
    message = refused("new", "add seat note", folder=tmp_path)

    assert message == f"there is no folder {tmp_path}/sql_migrations/sqlite: run this in a checkout"
    assert list(tmp_path.iterdir()) == []


def test_it_is_valid_at_once(checkout: Path) -> None:
    """An empty migration that goes up and down, and changes nothing."""
    command("new", "add seat note", folder=checkout)
    path, folder = checkout / "RexVoice.db", checkout / "sql_migrations" / "sqlite"
    up(path, folder=folder)
    before = snapshots.stored_sql(path), snapshots.rows(path)
    up(path, "999", folder=folder)

    assert snapshots.applied(path) == [*IDS, MOOD]
    assert (snapshots.stored_sql(path), snapshots.rows(path)) == before

    down(path, NEXT, folder=folder)

    assert snapshots.applied(path) == IDS
    assert (snapshots.stored_sql(path), snapshots.rows(path)) == before


def test_the_tests_demand_that_it_be_filled(checkout: Path) -> None:
    """Both halves of it, each by itself."""
    command("new", "add seat note", folder=checkout)

    class Theirs(MigrationTests):
        folder = checkout / "sql_migrations" / "sqlite"

    for half in FILES[:2]:
        with pytest.raises(AssertionError, match=f"{MOOD} has not been filled in"):
            Theirs().test_every_file_is_half_of_a_pair_and_says_why()
        text = (checkout / half).read_text()
        (checkout / half).write_text(text.replace(REASON, "Rex speaks more softly to who is angry."))

    Theirs().test_every_file_is_half_of_a_pair_and_says_why()


def test_a_name_that_no_file_can_have_is_refused(checkout: Path) -> None:
    assert "too long" in refused("new", "add " + "mood" * 100, folder=checkout)


def test_the_first_one_of_a_folder_has_the_number_1(tmp_path: Path) -> None:
    (tmp_path / "sql_migrations" / "sqlite").mkdir(parents=True)

    assert command("new", "add hands", folder=tmp_path).lines[0] == "sql_migrations/sqlite/001_add_hands.sql"


def test_a_migration_of_postgresql_alone_counts_too(checkout: Path) -> None:
    """The number is the next in both folders, so that twins carry the same id."""
    (checkout / "sql_migrations" / "postgresql").mkdir()
    (checkout / "sql_migrations" / "postgresql" / f"{int(NEXT) + 2:03}_add_shards.sql").write_text(
        "-- there\n"
    )
    ran = command("new", "add seat note", folder=checkout)

    assert ran.lines[0] == f"sql_migrations/sqlite/{int(NEXT) + 3:03}_add_seat_note.sql"
    assert (checkout / ran.lines[2]).read_text().endswith(f"-- depends: {int(NEXT) + 2:03}_add_shards\n")
