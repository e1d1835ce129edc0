"""`poker-therapist log`: who has done what with which migration, and what failed."""

import getpass
import socket

import pytest

from poker_therapist.migrations.log import record_failure
from tests.helpers.cli import command
from tests.helpers.project import Project


def log(project: Project, *options: str) -> list[dict[str, str]]:
    ran = command("log", "--json", "-d", str(project.database), *options, folder=project.folder)
    assert (ran.code, ran.error) == (0 if ran.json["exists"] else 3, "")
    found: list[dict[str, str]] = ran.json["log"]
    return found


def test_what_was_done_is_told_with_who_and_when(two_migrations: Project) -> None:
    """Before anything was done, nothing is."""
    if not two_migrations.is_untouched():
        pytest.fail("the project has a database")
    assert log(two_migrations) == []
    assert two_migrations.is_untouched()

    two_migrations.yoyo("apply")
    two_migrations.yoyo("rollback")
    two_migrations.yoyo("mark")
    two_migrations.yoyo("unmark", "--revision", "002")
    found = log(two_migrations)
    assert [(one["operation"], one["migration"], one["outcome"]) for one in found] == [
        ("apply", "001_add_hands", "done"),
        ("apply", "002_add_bets", "done"),
        ("rollback", "002_add_bets", "done"),
        ("mark", "002_add_bets", "done"),
        ("unmark", "002_add_bets", "done"),
    ]
    assert {(one["user"], one["host"]) for one in found} == {(getpass.getuser(), socket.gethostname())}
    assert [one["at"] for one in found] == sorted(one["at"] for one in found)
    lines = command("log", "-d", str(two_migrations.database), folder=two_migrations.folder).lines
    assert lines[0].startswith(f"001_add_hands\tdone\tapply\t{found[0]['at'][:19]}\t{getpass.getuser()}@")


def test_a_failure_is_recorded_and_undone(two_migrations: Project) -> None:
    """With its place and nothing of the message, which may repeat a player's row."""
    two_migrations.yoyo("apply")
    two_migrations.write(
        "003_fail",
        "-- depends: 002_add_bets\nCREATE TABLE half (id INTEGER);\nINSERT INTO nowhere VALUES ('Ann');",
    )
    assert two_migrations.yoyo("apply").returncode == 1

    assert "half" not in two_migrations.tables()
    (failed,) = [one for one in log(two_migrations) if one["outcome"] == "failed"]
    assert (failed["operation"], failed["migration"]) == ("apply", "003_fail")
    assert failed["place"] == "sql/003_fail.sql:3"
    assert failed["user"] == getpass.getuser()


def test_the_failure_of_a_rollback_is_recorded(two_migrations: Project) -> None:
    two_migrations.write("002_add_bets", "CREATE TABLE bets (id INTEGER);", "DROP TABLE nowhere;")
    two_migrations.yoyo("apply")
    assert two_migrations.yoyo("rollback").returncode == 1

    assert log(two_migrations)[-1] | {"at": "", "user": "", "host": ""} == {
        "at": "",
        "operation": "rollback",
        "migration": "002_add_bets",
        "outcome": "failed",
        "user": "",
        "host": "",
        "place": "sql/002_add_bets.rollback.sql:1",
    }


def test_before_there_is_a_log_a_failure_leaves_nothing(project: Project) -> None:
    project.write("001_fail", "CREATE TABLE half (id INTEGER);\nINSERT INTO nowhere VALUES (1);")
    assert project.yoyo("apply").returncode == 1

    assert log(project) == []
    assert project.tables() == []


def test_what_was_interrupted_comes_last(two_migrations: Project) -> None:
    two_migrations.write(
        "003_stop",
        "-- depends: 002_add_bets\n-- transactional: false\n"
        "CREATE TABLE half (id INTEGER);\nSELECT * FROM nowhere;",
    )
    two_migrations.yoyo("apply")

    last = log(two_migrations)[-1]
    assert (last["operation"], last["migration"], last["outcome"]) == ("apply", "003_stop", "interrupted")
    assert last["at"] is None


def test_that_nothing_can_be_recorded_hides_no_error() -> None:
    """A backend that cannot even be asked."""
    record_failure(object(), object(), "apply", ValueError("the error itself"))


def test_what_a_log_holds_is_data(two_migrations: Project) -> None:
    """Control characters in it reach no terminal."""
    two_migrations.yoyo("apply")
    two_migrations.run_sql("UPDATE _yoyo_log SET username = 'ann\x1b[31m', comment = 'a\rb'")

    ran = command("log", "-d", str(two_migrations.database), folder=two_migrations.folder)
    assert r"ann\x1b[31m" in ran.out
    assert "\x1b" not in ran.out
    assert "\r" not in ran.out
