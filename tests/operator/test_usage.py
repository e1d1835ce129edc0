"""`poker-therapist` without a command."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers.cli import PROGRAM, command
from tests.helpers.migrating import FOLDER, YOYO


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
    """Neither Rich nor what Typer converts with is imported."""
    script = "import sys; from poker_therapist import cli\ntry: cli.main()\nfinally: print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", script, *call], cwd=tmp_path, capture_output=True, text=True, check=False
    )

    imported = {name.partition(".")[0] for name in done.stdout.splitlines()[-1].split()}
    assert "poker_therapist" in imported
    assert not imported & {"rich", "pydantic", "psycopg"}


@pytest.mark.slow
def test_a_command_starts_about_as_quickly_as_yoyo(tmp_path: Path) -> None:
    """`--version` and `status` take at most 1.5 times the processor time of `yoyo list`."""
    command("apply", folder=tmp_path)
    yoyo = (*YOYO, "list", "--no-config-file", "--database", "sqlite+atomic:///RexVoice.db", FOLDER)
    calls = [yoyo, (sys.executable, PROGRAM, "--version"), (sys.executable, PROGRAM, "status")]

    def seconds(call: tuple[str | Path, ...]) -> float:
        before = os.times()
        subprocess.run(call, cwd=tmp_path, stdout=subprocess.DEVNULL, check=True)
        after = os.times()
        return sum(after[2:4]) - sum(before[2:4])

    least = [min(took) for took in zip(*([seconds(call) for call in calls] for _ in range(6)), strict=True)]
    assert max(least[1:]) <= 1.5 * least[0], least
