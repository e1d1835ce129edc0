"""Forks and late-comers are refused before anything runs; history and rollback follow what was applied."""

import re
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from poker_therapist import MigrationOutOfOrder, get_pattern_storage, schema
from poker_therapist.engines import engine_for
from poker_therapist.location import locate
from poker_therapist.migrations import bookkeeping
from poker_therapist.schema import read_status, rehearse
from tests.helpers.project import Project

ACCEPTED = "-- out-of-order: true\n"


@pytest.fixture
def folder(project: Project, monkeypatch: pytest.MonkeyPatch) -> Project:
    """A project whose migrations are taken for those that this version ships."""
    monkeypatch.setattr(schema, "folders_for", lambda _location, _applied: [project.sql])
    monkeypatch.setattr(schema, "migrations_folder", lambda _name: project.sql)
    return project


def add(project: Project, name: str, depends: str = "", header: str = "") -> None:
    """Write a pair that makes a table of its own name, and fails where that is there already."""
    depends = f"-- depends: {depends}\n" if depends else ""
    project.write(name, f"{depends}{header}CREATE TABLE t{name} (id INTEGER);", f"DROP TABLE t{name};")


def fork(project: Project) -> tuple[str, str, str]:
    """Two branches have been merged; nothing is applied but what both had. Return who is named, and why."""
    add(project, "1_a")
    assert project.yoyo("apply").returncode == 0
    add(project, "2_b", "1_a")
    add(project, "2_c", "1_a")
    return "2_c", "sql/2_b.sql and sql/2_c.sql both depend on 1_a", "forked"


def half_of_a_fork(project: Project) -> tuple[str, str, str]:
    """The first of the two is applied."""
    add(project, "1_a")
    add(project, "2_b", "1_a")
    assert project.yoyo("apply").returncode == 0
    add(project, "2_c", "1_a")
    return "2_c", "sql/2_b.sql and sql/2_c.sql both depend on 1_a", "forked"


def other_half_of_a_fork(project: Project) -> tuple[str, str, str]:
    """The second of the two is applied."""
    add(project, "1_a")
    add(project, "2_c", "1_a")
    assert project.yoyo("apply").returncode == 0
    add(project, "2_b", "1_a")
    return "2_b", "sql/2_c.sql comes after sql/2_b.sql and is applied already", "late"


def late_comer(project: Project) -> tuple[str, str, str]:
    """A plain list, of numbers without leading zeros."""
    add(project, "2_b")
    add(project, "10_c")
    assert project.yoyo("apply").returncode == 0
    add(project, "9_late")
    return "9_late", "sql/10_c.sql comes after sql/9_late.sql and is applied already", "late"


CASES = [fork, half_of_a_fork, other_half_of_a_fork, late_comer]


def migrate_by_yoyo(project: Project) -> str:
    return project.refuses("apply")


def migrate_by_opening(project: Project) -> str:
    with pytest.raises(MigrationOutOfOrder) as refusal:
        get_pattern_storage(str(project.database))
    return str(refusal.value)


def migrate_by_rehearsing(project: Project) -> str:
    with pytest.raises(MigrationOutOfOrder) as refusal:
        rehearse(locate(str(project.database)))
    return str(refusal.value)


def migrate_by_api(project: Project) -> str:
    with (
        engine_for(locate(str(project.database))).backend() as backend,
        pytest.raises(MigrationOutOfOrder) as refusal,
    ):
        backend.apply_migrations(backend.to_apply(backend.read([str(project.sql)])))
    return str(refusal.value)


WAYS = [migrate_by_yoyo, migrate_by_opening, migrate_by_rehearsing, migrate_by_api]


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("way", WAYS)
def test_forks_and_late_comers_are_refused_before_anything_runs(
    case: Callable[[Project], tuple[str, str, str]],
    way: Callable[[Project], str],
    folder: Project,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Naming both files and what to do; also where one that is in order is pending, too."""
    name, why, state = case(folder)
    add(folder, "1_in_order" if case is fork else "30_in_order")
    monkeypatch.chdir(folder.folder)
    before = folder.tables(), folder.applied()

    said, call, rest = way(folder).strip().split("`", 2)
    assert said == f"{why}: run "
    assert rest == (
        f" to give {name} the next number, or add `-- out-of-order: true` to its header "
        "if their order makes no difference"
    )
    # In its own folder, wherever it is pasted.
    assert re.fullmatch(rf"poker-therapist renumber {name} --database \S+ --sources \S*sql", call)
    assert (folder.tables(), folder.applied()) == before

    found = read_status(locate(str(folder.database)))
    (one,) = (one for one in found.migrations if one.id == name)

    assert (one.state, found.is_trouble) == (state, True)
    assert f"run `{call}` to give it the next number" in one.note
    assert name not in found.pending
    assert found.drift_unknown_because == ""


def test_a_part_of_what_is_pending_is_refused_only_if_it_is_out_of_order(project: Project) -> None:
    """yoyo can apply what one chooses; the other half of the fork is seen all the same."""
    fork(project)
    add(project, "1_b", "")

    assert "2_b.sql and sql/2_c.sql both" in project.refuses("apply", "-m", "2_b")
    assert "2_b.sql and sql/2_c.sql both" in project.refuses("apply", "--revision", "2_c")
    assert project.yoyo("apply", "-m", "1_b").returncode == 0


@pytest.mark.parametrize("case", CASES)
def test_what_accepts_it_in_its_header_is_applied_and_rolled_back_in_the_order_of_application(
    case: Callable[[Project], tuple[str, str, str]], folder: Project
) -> None:
    name, _, _ = case(folder)
    depends = "1_a" if "late" not in name else ""
    add(folder, name, depends, ACCEPTED)
    ran = folder.yoyo("apply")

    assert (ran.returncode, ran.stderr) == (0, "")
    assert ran.stdout.splitlines()[-1] == f"applied {name}"

    found = read_status(locate(str(folder.database)))

    assert [one.state for one in found.migrations] == ["applied"] * len(found.migrations)
    assert not found.is_trouble
    if case in (other_half_of_a_fork, late_comer):
        (note,) = [one.note for one in found.migrations if one.note]
        assert note.startswith("was applied out of order, after")

    assert folder.yoyo("rollback").stdout == f"rolled back {name}\n"


def test_a_fork_that_is_applied_already_is_shown_and_refuses_nothing(folder: Project) -> None:
    """As an earlier version has applied it."""
    fork(folder)
    add(folder, "2_c", "1_a", ACCEPTED)
    assert folder.yoyo("apply").returncode == 0
    text = (folder.sql / "2_c.sql").read_text().replace(ACCEPTED, "")
    (folder.sql / "2_c.sql").write_text(text)
    for word in ("unmark", "mark"):
        assert folder.yoyo(word, "-m", "^2_c$").returncode == 0
    add(folder, "3_d", "2_b 2_c")

    assert folder.yoyo("apply").stdout == "applied 3_d\n"

    found = read_status(locate(str(folder.database)))

    assert not found.is_trouble
    assert [one.note for one in found.migrations] == [
        "",
        "depends on the same migration as 2_c",
        "depends on the same migration as 2_b",
        "",
    ]


def test_what_could_not_be_applied_again_is_not_rolled_back_for_that(project: Project) -> None:
    """A fork that an earlier version has applied: `yoyo reapply` would leave the database without it."""
    fork(project)
    add(project, "2_c", "1_a", ACCEPTED)
    assert project.yoyo("apply").returncode == 0
    add(project, "2_c", "1_a")
    for word in ("unmark", "mark"):
        assert project.yoyo(word, "-m", "^2_c$").returncode == 0

    assert "2_b.sql and sql/2_c.sql both depend on 1_a" in project.refuses("reapply", "--all")
    assert project.applied() == ["1_a", "2_b", "2_c"]


def test_history_and_rollback_follow_the_order_of_application_and_not_the_names(folder: Project) -> None:
    """A view on a table that was added later: by their names, nothing could be built or rolled back."""
    folder.write("10_c", "CREATE TABLE hands (id INTEGER);", "DROP TABLE hands;")
    assert folder.yoyo("apply").returncode == 0
    folder.write("2_b", f"{ACCEPTED}CREATE VIEW v AS SELECT id FROM hands;", "DROP VIEW v;")
    folder.write(
        "1_a",
        f"{ACCEPTED}DROP VIEW v;\nCREATE VIEW v AS SELECT id AS hand FROM hands;",
        "DROP VIEW v;\nCREATE VIEW v AS SELECT id FROM hands;",
    )
    for name in ("2_b", "1_a"):
        assert folder.yoyo("apply", "-m", name).returncode == 0

    found = read_status(locate(str(folder.database)))

    assert (found.drift, found.drift_unknown_because, found.is_trouble) == ([], "", False)
    assert [one.id for one in found.migrations] == ["1_a", "2_b", "10_c"]
    assert folder.yoyo("rollback").stdout == "rolled back 1_a\n"
    assert folder.yoyo("apply").stdout == "applied 1_a\n"
    assert folder.yoyo("rollback", "--revision", "2_b").stdout == "rolled back 1_a\nrolled back 2_b\n"
    assert folder.applied() == ["10_c"]


def test_rollback_of_one_takes_back_all_that_was_applied_after_it_though_nobody_says_what_it_needs(
    project: Project,
) -> None:
    for name in ("1_a", "2_b", "10_c"):
        add(project, name)

    assert project.yoyo("apply").stdout.splitlines()[-3:] == ["applied 1_a", "applied 2_b", "applied 10_c"]
    assert [line.split()[:2] for line in project.yoyo("list").stdout.splitlines()[2:]] == [
        ["A", "1_a"],
        ["A", "2_b"],
        ["A", "10_c"],
    ]
    assert project.yoyo("rollback", "--revision", "2_b").stdout == "rolled back 10_c\nrolled back 2_b\n"
    assert project.yoyo("rollback").stdout == "rolled back 1_a\n"


class Clock:
    """`datetime`, of which a test says what time it is."""

    def __init__(self, moment: str) -> None:
        self.moment = datetime.fromisoformat(moment)

    def now(self, zone: Any) -> datetime:
        return self.moment.replace(tzinfo=zone)

    def __getattr__(self, name: str) -> Any:
        return getattr(datetime, name)


def test_a_clock_that_is_put_back_or_stands_still_changes_no_order(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By names alone 2_b would be the last; it was the first."""
    with engine_for(locate(str(project.database))).backend() as backend:
        for name, moment in (
            ("2_b", "2026-01-05 18:12:01"),
            ("1_a", "2026-01-05 17:12:01"),
            ("3_c", "2026-01-05 17:12:01"),
            ("0_d", "2020-01-01 00:00:00"),
        ):
            add(project, name, header=ACCEPTED)
            monkeypatch.setattr(bookkeeping, "datetime", Clock(moment))
            backend.apply_migrations(backend.to_apply(backend.read([str(project.sql)])))
        monkeypatch.undo()
        found = backend.to_rollback(backend.read([str(project.sql)]))

    assert [one.id for one in found] == ["0_d", "3_c", "1_a", "2_b"]


@pytest.mark.parametrize("time", ["'2026-01-05 18:12:01'", "NULL"])
def test_where_the_order_of_application_is_not_recorded_the_names_say_it(time: str, project: Project) -> None:
    """As plain yoyo, an old clock or another program may have left it."""
    for name, depends in (("10_c", ""), ("1_a", "2_b"), ("2_b", ""), ("3_d", "")):
        add(project, name, depends)
    assert project.yoyo("apply").returncode == 0
    project.run_sql(f"UPDATE _yoyo_migration SET applied_at_utc = {time}")
    with engine_for(locate(str(project.database))).backend() as backend:
        found = backend.to_rollback(backend.read([str(project.sql)]))

    assert [one.id for one in found] == ["10_c", "3_d", "1_a", "2_b"]


def test_what_plain_yoyo_applied_has_its_place_in_the_order(project: Project) -> None:
    """And what ours has applied, plain yoyo rolls back."""
    for name in ("001_a", "002_b"):
        add(project, name)
    assert project.plain_yoyo("apply").returncode == 0
    add(project, "003_c")
    assert project.yoyo("apply").stdout == "applied 003_c\n"
    add(project, "004_d")
    assert project.plain_yoyo("apply").returncode == 0
    with engine_for(locate(str(project.database))).backend() as backend:
        found = backend.to_rollback(backend.read([str(project.sql)]))

    assert [one.id for one in found] == ["004_d", "003_c", "002_b", "001_a"]
    assert project.plain_yoyo("rollback", "--all").returncode == 0
    assert project.applied() == []


def test_an_edit_that_is_accepted_keeps_its_place_in_the_order(project: Project) -> None:
    """Marked again, a migration was not applied last: `yoyo rollback` must not take it back first."""
    for name in ("1_a", "2_b", "10_c"):
        add(project, name)
    assert project.yoyo("apply").returncode == 0
    with (project.sql / "2_b.sql").open("a") as file:
        file.write("\n-- seen by Ann")
    for word in ("unmark", "mark"):
        assert project.yoyo(word, "-m", "^2_b$").returncode == 0

    assert project.yoyo("rollback", "--all").stdout == "".join(
        f"rolled back {name}\n" for name in ("10_c", "2_b", "1_a")
    )


def test_the_end_of_all_time_in_a_record_ends_no_run(project: Project) -> None:
    """A file that comes from elsewhere may hold anything."""
    add(project, "1_a")
    assert project.yoyo("apply").returncode == 0
    project.run_sql("UPDATE _yoyo_migration SET applied_at_utc = '9999-12-31 23:59:59.999999'")
    add(project, "2_b")

    assert project.yoyo("apply").stdout == "applied 2_b\n"
    with engine_for(locate(str(project.database))).backend() as backend:
        assert backend.applied().keys() == {"1_a", "2_b"}


def test_a_database_of_another_folder_s_migrations_makes_nothing_late(
    project: Project, tmp_path: Path
) -> None:
    """An app keeps its own in the same table of yoyo's: neither is late for the other's."""
    add(project, "5_ours")
    assert project.yoyo("apply").returncode == 0
    theirs = Project(tmp_path / "theirs")
    add(theirs, "1_theirs")
    ran = project.yoyo("apply", sources=("sql", str(theirs.sql)))

    assert ran.stdout == "applied 1_theirs\n"
