"""The order of migrations by themselves: natural, dependencies first; forks and late-comers."""

import random
from pathlib import Path

import pytest

from poker_therapist.migrations.files import SQLMigration
from poker_therapist.migrations.order import forks, in_order, late_comers, natural
from poker_therapist.schema import migrations_folder

ACCEPTED = "-- out-of-order: true\n"


def made(*lines: str, folder: str = "sql") -> list[SQLMigration]:
    """Return migrations: each an id, `<` and what it depends on, and `!` if it accepts any order."""
    found = []
    for line in lines:
        name, _, depends = line.rstrip("!").partition("<")
        header = f"-- depends: {depends}\n" if depends else ""
        text = header + ACCEPTED * line.endswith("!")
        found.append(SQLMigration(name.strip(), Path(folder, f"{name.strip()}.sql"), folder, text, ""))
    return found


def ids(pairs: list[tuple[SQLMigration, SQLMigration]]) -> list[tuple[str, str]]:
    """Return the ids of pairs."""
    return [(first.id, second.id) for first, second in pairs]


NATURAL = [
    ["1_a", "2_b", "10_c"],
    ["001_a", "002_b", "010_c", "c001_d"],
    ["1_a", "1_b", "01_c", "2_a"],
    ["20260101_01_x", "20260101_02_a", "20260101_10_b", "20260102_01_a"],
    ["a", "a1", "a1b", "a2", "a10"],
    ["9" * 5_000, "1" + "0" * 5_000],
]


@pytest.mark.parametrize("names", NATURAL, ids=lambda names: names[0][:20])
def test_ids_are_sorted_as_people_count(names: list[str]) -> None:
    """Whatever stands before and behind a number, and however long it is."""
    shuffled = random.Random(7).sample(names, len(names))

    assert sorted(shuffled, key=natural) == names


def test_what_a_migration_depends_on_comes_first_whatever_its_name() -> None:
    found = in_order(made("1_a < 10_c", "2_b", "10_c", "11_d < 1_a 2_b", "post-apply"))

    assert [one.id for one in found] == ["2_b", "10_c", "1_a", "11_d"]


def test_a_circle_ends_and_loses_none() -> None:
    """Files in a circle are refused; what a database has kept may be anything."""
    found = in_order(made("1_a < 2_b", "2_b < 1_a", "3_c < 3_c 1_a"))

    assert sorted(one.id for one in found) == ["1_a", "2_b", "3_c"]


FORKS = {
    "a chain": (["1_a", "2_b < 1_a", "3_c < 2_b"], []),
    "nobody says what it depends on": (["1_a", "2_b", "2_c", "3_d"], []),
    "one says nothing beside others that do": (["1_a", "2_b < 1_a", "3_c", "3_d < 2_b"], []),
    "two on the same": (["1_a", "2_b < 1_a", "2_c < 1_a"], [("2_b", "2_c")]),
    "of different numbers": (["1_a", "3_b < 1_a", "2_c < 1_a"], [("2_c", "3_b")]),
    "one of them accepts it": (["1_a", "2_b < 1_a", "2_c < 1_a !"], []),
    "the other accepts it": (["1_a", "2_b < 1_a !", "2_c < 1_a"], []),
    "three": (
        ["1_a", "2_b < 1_a", "2_c < 1_a", "2_d < 1_a"],
        [("2_b", "2_c"), ("2_b", "2_d"), ("2_c", "2_d")],
    ),
    "one depends on the other as well": (["1_a", "2_b < 1_a", "3_c < 1_a 2_b"], []),
    "one depends on the other by way of a third": (["1_a", "2_b < 1_a", "3_c < 2_b", "4_d < 1_a 3_c"], []),
    "two that share two": (["1_a", "2_b", "3_c < 1_a 2_b", "3_d < 1_a 2_b"], [("3_c", "3_d")]),
    "whose own follow": (
        ["1_a", "2_b < 1_a", "2_c < 1_a", "3_d < 2_b", "3_e < 2_c", "4_f < 3_d 3_e"],
        [("2_b", "2_c")],
    ),
    "hooks": (["1_a", "2_b < 1_a", "post-apply-x < 1_a"], []),
}


@pytest.mark.parametrize("what", FORKS)
def test_two_of_a_folder_that_depend_on_the_same_one_and_not_on_each_other_are_a_fork(what: str) -> None:
    lines, expected = FORKS[what]

    assert ids(forks(made(*lines))) == ids(forks(made(*lines[::-1]))) == expected


LATE = {
    "in order": (["1_a", "2_b", "3_c"], {"1_a", "2_b"}, []),
    "nothing is applied": (["1_a", "2_b"], set(), []),
    "before the last": (["1_a", "2_b", "3_c"], {"1_a", "3_c"}, [("2_b", "3_c")]),
    "as people count": (["1_a", "2_b", "10_c"], {"2_b"}, [("1_a", "2_b")]),
    "the first after it is named": (["1_a", "2_b", "3_c"], {"2_b", "3_c"}, [("1_a", "2_b")]),
    "two of them": (["1_a", "2_b", "3_c"], {"3_c"}, [("1_a", "3_c"), ("2_b", "3_c")]),
    "what depends on it is applied": (["1_a", "2_b < 1_a"], {"2_b"}, []),
    "after it by what it depends on": (["1_a < 3_c", "2_b", "3_c"], {"3_c", "2_b"}, []),
    "it accepts it": (["1_a", "2_b !", "3_c"], {"1_a", "3_c"}, []),
    "the other accepts it": (["1_a", "2_b", "3_c !"], {"1_a", "3_c"}, []),
    "one of a fork": (["1_a", "2_b < 1_a", "2_c < 1_a"], {"1_a", "2_c"}, [("2_b", "2_c")]),
    "hooks": (["1_a", "post-apply", "q_b"], {"1_a", "q_b"}, []),
    "of nobody's file": (["1_a"], {"1_a", "9_z"}, []),
}


@pytest.mark.parametrize("what", LATE)
def test_what_is_pending_and_comes_before_what_is_applied_is_late(what: str) -> None:
    lines, applied, expected = LATE[what]

    assert ids(late_comers(made(*lines), applied)) == expected


def test_folders_have_nothing_to_do_with_each_other_but_for_what_they_say() -> None:
    """An app's own folder, and that of an extension such as Citus, beside the engine's."""
    both = made("1_a", "2_b < 1_a", "3_c < 2_b") + made("1_x < 1_a", "0_y", folder="theirs")

    assert forks(both) == []
    assert late_comers(both, {"1_a", "2_b", "3_c"}) == []
    assert ids(late_comers(both, {"1_a", "1_x"})) == [("0_y", "1_x")]


def test_our_own_have_no_fork_and_never_come_late() -> None:
    """Whenever somebody has begun to use Citus, and whatever is pending."""
    for names in (["sqlite"], ["postgresql"], ["postgresql", "citus"]):
        own = [
            SQLMigration(path.stem, path, name, path.read_text(encoding="utf-8"), "")
            for name in names
            for path in migrations_folder(name).glob("*.sql")
            if not path.name.endswith(".rollback.sql")
        ]
        ordered = [one.id for one in in_order(own)]

        assert ordered == sorted(ordered)
        assert forks(own) == []
        for place in range(len(ordered)):
            applied = {*ordered[:place], *(name for name in ordered if name.startswith("c"))}
            assert late_comers(own, applied) == []
