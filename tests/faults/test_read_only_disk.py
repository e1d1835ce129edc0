"""A disk that cannot be written: every command ends in one message, and so does every clean-up."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from poker_therapist import get_pattern_storage
from tests.helpers import faults, old_app
from tests.helpers.backups import save
from tests.helpers.cli import in_child
from tests.helpers.migrating import FOLDER
from tests.helpers.postgresql import LOSES_ROWS, yoyo_in_child

# What cannot be done there, by the database: one that is up to date, one that the earlier app made, none.
REFUSED = {
    "current": [
        "backup",
        "backup -o x",
        "restore monday.backup",
        "export 7 -o x",
        "forget 7 --yes",
        "copy RexVoice.db x.db",
        "yoyo rollback --revision 004",
        "yoyo reapply --all",
        "yoyo unmark --all",
    ],
    "old": ["backup", "restore monday.backup", "yoyo apply", "yoyo mark"],
    "empty": ["restore monday.backup", "copy monday.backup x.db", "yoyo apply"],
}
DONE = {"current": ["status", "rehearse", "backup --list", "export 7", "yoyo list", "yoyo apply"]}

SAVE = """
import sys
from poker_therapist import DatabaseReadOnly, get_pattern_storage
with get_pattern_storage("RexVoice.db") as storage:
    assert storage.recall(7)["patterns"]
    save = lambda: storage.save_pattern(7, "a", "b", 1)
    for call in (save, lambda: storage.forget_user(7), storage.purge_expired):
        try:
            with storage.transaction():
                assert storage.recall(7)["patterns"]
                call()
        except DatabaseReadOnly as error:
            print(error)
"""


@pytest.mark.slow
def test_every_command_on_a_read_only_disk_is_one_message(tmp_path: Path) -> None:
    """It says which file and why; what only reads goes on."""

    def run(words: str, folder: Path) -> tuple[int, str]:
        name, *arguments = words.split()
        if name == "yoyo":
            url = f"sqlite+atomic:///{folder}/RexVoice.db"
            options: list[str | Path] = ["--config", LOSES_ROWS, "--batch", "-d", url, FOLDER]
            done = yoyo_in_child(*arguments, *options, folder=folder)
        else:
            done = in_child(name, *arguments, folder=folder)
        lines = done.error.splitlines(keepends=True)
        return done.code, "".join(line for line in lines if not line.startswith("database: "))

    place = tmp_path / "disk"

    def work(disk: faults.SmallDisk) -> list[str]:
        save(tmp_path / "monday.backup", "first")
        for name in REFUSED:
            (place / name).mkdir()
            shutil.copy(tmp_path / "monday.backup", place / name)
        get_pattern_storage(place / "current" / "RexVoice.db").close()
        save(place / "current" / "RexVoice.db", "second")
        old_app.make(place / "old" / "RexVoice.db")
        disk.make_read_only()
        wrong = []
        for name, all_words in REFUSED.items():
            for words in all_words:
                code, error = run(words, place / name)
                says_why = "Read-only file system" in error or "is not writable" in error
                if code != 1 or len(error.splitlines()) != 1 or not says_why:
                    wrong.append(f"{name}: {words}: {code} {error}")
        wrong += [
            f"{words}: {found}" for words in DONE["current"] if (found := run(words, place / "current"))[0]
        ]
        saved = subprocess.run(
            [sys.executable, "-c", SAVE], cwd=place / "current", capture_output=True, text=True, check=False
        )
        if saved.stdout.count("is not writable") != 2 or saved.stderr:  # nothing has expired
            wrong.append(f"{saved}")
        return wrong

    wrong = faults.on_small_disk(place, work)
    assert not wrong, "\n".join(wrong)
