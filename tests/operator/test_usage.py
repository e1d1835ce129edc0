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
