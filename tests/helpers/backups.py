"""Backups of a database that holds one pattern, made and restored by the operator's commands."""

from pathlib import Path

from poker_therapist import get_pattern_storage
from tests.helpers.cli import command

USER = 7

# Saves a pattern and reads it, again and again, until its input ends; prints how often.
APP = """
import select, sys
from poker_therapist import get_pattern_storage

with get_pattern_storage(sys.argv[1]) as storage:
    count = 0
    while not select.select([sys.stdin], [], [], 0)[0]:
        with storage.transaction():
            storage.save_pattern(7, "count", "one", count)
            storage.save_pattern(7, "count", "other", count)
        counts = storage.recall(7)["patterns"].get("count", {})
        assert counts.get("one", {}).get("value") == counts.get("other", {}).get("value")
        count += 1
        if count == 1:
            print("ready", flush=True)
print(count)
"""


def value(path: Path) -> object:
    """Return the one pattern of a database."""
    with get_pattern_storage(path) as storage:
        return storage.get_pattern(USER, "tilt", "after_bad_beat")


def save(path: Path, text: str) -> None:
    with get_pattern_storage(path) as storage:
        storage.save_pattern(USER, "tilt", "after_bad_beat", text)


def back_up(database: Path, *options: str) -> Path:
    """Make a backup and return its file."""
    ran = command("backup", *options, folder=database.parent)

    assert (ran.code, ran.error, len(ran.lines)) == (0, "", 1)
    return database.parent / ran.lines[0]


def restore(file: Path | str, database: Path) -> list[str]:
    """Restore a backup and return what was said."""
    ran = command("restore", file, "--database", database, folder=database.parent)

    assert (ran.code, ran.error) == (0, "")
    assert ran.lines[-1] == f"restored {database}"
    return ran.lines[:-1]
