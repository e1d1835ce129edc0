"""`poker-therapist` without a command."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers.cli import command


def test_without_a_command_every_command_is_listed_and_none_is_run(tmp_path: Path) -> None:
    """What it prints is the help, not an error that names nothing."""
    bare, helped = command(folder=tmp_path), command("--help", folder=tmp_path)

    assert bare.error == ""
    assert bare.out.split() == helped.out.split()
    for name in (
        "status",
        "rehearse",
        "apply",
        "rollback",
        "list",
        "log",
        "backup",
        "restore",
        "copy",
        "export",
        "forget",
        "purge",
        "new",
        "renumber",
    ):
        assert f" {name} " in bare.out
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("call", [("--version",), ("status",), ("list", "--database", "RexVoice.db")])
def test_a_pipe_waits_for_nothing_that_draws(call: tuple[str, ...], tmp_path: Path) -> None:
    """Rich is imported only where there is a terminal to draw on."""
    script = "import sys; from poker_therapist import cli\ntry: cli.main()\nfinally: print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", script, *call], cwd=tmp_path, capture_output=True, text=True, check=False
    )

    imported = {name.partition(".")[0] for name in done.stdout.splitlines()[-1].split()}
    assert "poker_therapist" in imported
    assert not imported & {"rich", "pydantic", "psycopg"}


@pytest.mark.parametrize(
    ("call", "code", "says"),
    [
        (("status", "--nonsense"), 2, "No such option"),
        (("nonsense",), 2, "No such command 'nonsense'"),
        (("check", "nowhere"), 1, "there is no folder nowhere"),
        (("plan", "-d", "postgresql://rex:hidden@nowhere.invalid:x/db"), 1, ""),
    ],
)
def test_an_error_is_json_for_who_asks_for_json(
    call: tuple[str, ...], code: int, says: str, tmp_path: Path
) -> None:
    """Standard error and the exit code are as without."""
    plain, ran = (command(*call, *more, folder=tmp_path) for more in ((), ("--json",)))

    assert (ran.code, plain.out) == (code, "")
    assert ran.json["error"].startswith(says)
    assert ran.json["error"] in ran.error
    assert "hidden" not in ran.out
    assert (ran.error, ran.code) == (plain.error, plain.code)
