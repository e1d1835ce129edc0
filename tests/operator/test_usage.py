"""`poker-therapist` without a command."""

from pathlib import Path

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
    ):
        assert f" {name} " in bare.out
    assert list(tmp_path.iterdir()) == []
