"""`poker-therapist new`: the files of the next migration, valid at once and yet to be filled."""

import fcntl
import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path

import pytest

from poker_therapist.migrations import scaffold
from poker_therapist.migrations.scaffold import REASON, new_migration
from poker_therapist.testing import MigrationTests
from tests.helpers import snapshots
from tests.helpers.cli import command, in_child, refused
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
    (tmp_path / "sql_migrations" / "postgresql").mkdir()
    (tmp_path / "yoyo.ini").write_text("[DEFAULT]\n")
    return tmp_path


def test_it_writes_and_names_the_four_files_of_the_next_number(checkout: Path) -> None:
    """By the program, with the paths as one would type them."""
    ran = in_child("new", "add seat note", folder=checkout)

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

    assert message == f"{description!r} is not a valid name: use verb and noun, as in add session mood"
    assert list((checkout / "sql_migrations" / "postgresql").iterdir()) == []


@pytest.mark.parametrize("description", ["index reads", "Index  READS", "add seat note"])
def test_a_second_one_of_the_same_name_is_refused(description: str, checkout: Path) -> None:
    """Whatever its number."""
    command("new", "add seat note", folder=checkout)
    before = sorted(checkout.rglob("*"))
    message = refused("new", description, folder=checkout)

    assert message.endswith(f"{'_'.join(description.lower().split())} already exists: choose another name")
    assert sorted(checkout.rglob("*")) == before


def test_outside_of_a_checkout_it_is_refused(tmp_path: Path) -> None:
    message = refused("new", "add seat note", folder=tmp_path)

    folder = tmp_path / "sql_migrations" / "sqlite"
    assert message == f"there is no folder {folder}: run this in a checkout, or name one with --sources"
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
        with pytest.raises(AssertionError, match=f"{MOOD} is an unfilled template"):
            Theirs().test_every_file_is_half_of_a_pair_and_says_why()
        text = (checkout / half).read_text()
        (checkout / half).write_text(text.replace(REASON, "Rex speaks more softly to who is angry."))

    Theirs().test_every_file_is_half_of_a_pair_and_says_why()


def test_a_name_that_no_file_can_have_is_refused(checkout: Path) -> None:
    assert "use fewer words" in refused("new", "add " + "mood" * 100, folder=checkout)


def test_the_first_one_of_a_folder_has_the_number_1(tmp_path: Path) -> None:
    (tmp_path / "sql_migrations" / "sqlite").mkdir(parents=True)

    assert command("new", "add hands", folder=tmp_path).lines[0] == "sql_migrations/sqlite/001_add_hands.sql"


def test_a_migration_of_postgresql_alone_counts_too(checkout: Path) -> None:
    """The number is the next in both folders, so that twins carry the same id."""
    (checkout / "sql_migrations" / "postgresql" / f"{int(NEXT) + 2:03}_add_shards.sql").write_text(
        "-- there\n"
    )
    ran = command("new", "add seat note", folder=checkout)

    assert ran.lines[0] == f"sql_migrations/sqlite/{int(NEXT) + 3:03}_add_seat_note.sql"
    assert (checkout / ran.lines[2]).read_text().endswith(f"-- depends: {int(NEXT) + 2:03}_add_shards\n")


def _new(folder: Path, sources: str | None, *options: str) -> list[str]:
    if sources is not None:
        (folder / "yoyo.ini").write_text(f"[DEFAULT]\nsources = {sources}\n")
    ran = command("new", "add hands", *options, folder=folder)
    assert (ran.code, ran.error) == (0, ""), ran
    assert [line.replace(".sql", ".rollback.sql") for line in ran.lines[::2]] == ran.lines[1::2]
    return ran.lines[::2]


_BOTH_002 = ["m/sqlite/002", "m/postgresql/002"]


@pytest.mark.parametrize(
    ("there", "sources", "written", "depends"),
    [
        (["sql/007_x"], "sql", ["sql/008"], ["007_x"]),
        (["sql/0007_x"], "%(here)s/sql", ["sql/0008"], ["0007_x"]),
        (["sql/x9_a", "sql/x10_b"], "sql", ["sql/x11"], ["x10_b"]),
        (["sql/001_x", "more/004_y"], "sql more", ["sql/005"], ["004_y"]),
        (["b/sql/003_x", "a/sql/"], "*/sql", ["a/sql/004"], ["003_x"]),
        (["m/postgresql/001_x", "m/sqlite/"], "m/postgresql", _BOTH_002, ["", "001_x"]),
        (["m/sqlite/001_x", "m/postgresql/001_y"], "m/sqlite m/postgresql", _BOTH_002, ["001_x", "001_y"]),
        (["m/postgresql/001_x", "m/citus/c002_y"], "m/postgresql m/citus", ["m/postgresql/002"], ["001_x"]),
        (["m/citus/c002_y"], "m/citus", ["m/citus/c003"], ["c002_y"]),
        (["m/sqlite/001_x"], "m/sqlite", ["m/sqlite/002"], ["001_x"]),
        (["my sql/"], "my sql", ["my sql/001"], [""]),
    ],
)  # fmt: skip
def test_it_writes_where_the_sources_are(
    there: list[str], sources: str, written: list[str], depends: list[str], tmp_path: Path
) -> None:
    """In the first folder and its twin, numbered as that is, after what any of them has."""
    for name in there:
        path = tmp_path / f"{name}.sql"
        path.parent.mkdir(parents=True, exist_ok=True)
        if not name.endswith("/"):
            path.write_text("-- x\n")
    (tmp_path / "sql_migrations" / "sqlite").mkdir(parents=True)
    found = _new(tmp_path, sources)

    assert found == [f"{one}_add_hands.sql" for one in written]
    for file, before in zip(found, depends, strict=True):
        header = f"-- {REASON}\n" + (f"-- depends: {before}\n" if before else "")
        assert (tmp_path / file).read_text() == header


def test_numbers_that_are_dates_go_on_as_dates(tmp_path: Path) -> None:
    """A folder of yoyo's own names, say."""
    for last in ("20200101_01_x", "29990101_01_y"):
        (tmp_path / "sql").mkdir(exist_ok=True)
        (tmp_path / "sql" / f"{last}.sql").write_text("-- x\n")
        (file,) = _new(tmp_path, "sql")
        assert Path(file).name > f"{last}.sql"
        assert len(Path(file).name) == len("20200101_add_hands.sql")
        (tmp_path / file).unlink()


def test_sources_that_are_given_count_more(tmp_path: Path) -> None:
    for name in ("sql", "more"):
        (tmp_path / name).mkdir()

    assert _new(tmp_path, "sql", "--sources", "more") == ["more/001_add_hands.sql"]
    assert _new(tmp_path, None, "--no-config", "--sources", "sql") == ["sql/001_add_hands.sql"]


@pytest.mark.parametrize("words", [("new", "add hands"), ("check",), ("renumber", "001_x")])
def test_sources_that_name_no_folder_are_refused(words: tuple[str, ...], tmp_path: Path) -> None:
    """Each with a reason: nothing is there, or it is inside a package, which yoyo reads."""
    seen = f"relative to {tmp_path}: correct `sources` in {tmp_path}/yoyo.ini"
    for sources, why in (
        ("package:yoyo:tests", "package:yoyo:tests is a Python package"),
        ("nowhere", f"there is no folder nowhere {seen}"),
        ("no*where", f"there is no folder no*where {seen}"),
    ):
        (tmp_path / "yoyo.ini").write_text(f"[DEFAULT]\nsources = {sources}\n")
        assert refused(*words, folder=tmp_path).startswith(why)
    assert [path.name for path in tmp_path.iterdir()] == ["yoyo.ini"]


def test_several_at_once_take_one_number_each(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each waits for the other, or says after a while for whom it waits."""
    folder = tmp_path / "m"
    folder.mkdir()
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda one: new_migration(f"add {one}", [folder]), "abcdefgh"))

    written = sorted(path.stem for path in folder.glob("*_?.sql"))
    assert [name[:3] for name in written] == [f"{number:03}" for number in range(1, 9)]
    for before, name in pairwise(written):
        assert f"-- depends: {before}\n" in (folder / f"{name}.sql").read_text()

    monkeypatch.setattr(scaffold, "PATIENCE", 0)
    held = os.open(folder, os.O_RDONLY)
    fcntl.flock(held, fcntl.LOCK_EX)
    for call in (("new", "add z"), ("renumber", written[0], "-d", "x.db")):
        said = command(*call, "--sources", "m", folder=tmp_path)
        assert (said.code, "another program is writing migrations in m" in said.error) == (1, True)
    os.close(held)
