"""The power fails after each thing that a command does to the disk: what it has said to be done is there.

Before it has, the database is as before the command or as after one of its steps, and comes up to date.
"""

import json
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, nullcontext
from functools import partial
from hashlib import sha256
from pathlib import Path

import pytest

from poker_therapist import get_pattern_storage
from tests.helpers import old_app, snapshots
from tests.helpers.backups import back_up
from tests.helpers.cli import PROGRAM, command
from tests.helpers.engines import query, run_sql
from tests.helpers.migrating import FOLDER, IDS, YOYO, down, up
from tests.helpers.postgresql import yoyo_in_child
from tests.helpers.power import Disk, World, record
from tests.helpers.snapshots import Snapshot

USER = 7
NOTHING = Snapshot([], {}, [], [])
OURS: tuple[str | Path, ...] = (sys.executable, PROGRAM)

pytestmark = pytest.mark.slow


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where a database may be made, in a folder of its own."""
    folder = tmp_path.resolve() / "data"
    folder.mkdir()
    return folder / "RexVoice.db"


def yoyo(name: str, path: Path, options: str = "", *more: str) -> list[str | Path]:
    """Return the arguments of a yoyo command."""
    url = f"sqlite+atomic:///{path}{options}"
    return [name, "--no-config-file", "--batch", "--database", url, *more, FOLDER]


def make(path: Path, to: str = "", mode: str = "WAL") -> None:
    """Make a database of the earlier app, migrated up to an id, if any."""
    old_app.make(path, rows=12)
    if to:
        up(path, to)
    with snapshots.connect(path) as connection:
        connection.execute(f"PRAGMA journal_mode = {mode}").fetchone()


# In a process of its own: reading the files here would end its locks, as POSIX has it.
APP = """
import sqlite3, sys
app = sqlite3.connect(sys.argv[1], isolation_level=None)
app.execute("PRAGMA synchronous = NORMAL")
app.execute("INSERT INTO messages (content) VALUES ('saved last')")
print("saved", flush=True)
sys.stdin.read()
"""


@contextmanager
def app_connected(path: Path) -> Iterator[None]:
    """Keep a connection as the app's, which has saved something that is not on the disk yet."""
    app: list[str | Path] = [sys.executable, "-c", APP, path]
    with subprocess.Popen(app, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as running:
        assert running.stdout is not None
        assert running.stdout.readline()
        yield
        running.communicate()


_known = dict[bytes, Snapshot]()


@pytest.fixture(autouse=True)
def _forget() -> Iterator[None]:
    """Free what one test has read: the next ones fork this process, which takes longer the larger it is."""
    yield
    _known.clear()


def state(path: Path) -> Snapshot:
    """Return what is in a database, which is whole."""
    if not path.exists():
        return NOTHING
    with snapshots.connect(path) as connection:
        connection.execute("PRAGMA synchronous = OFF")  # it is a copy
        (count,) = connection.execute("PRAGMA page_count").fetchone()
        pages = connection.serialize() if count else b""
        key = sha256(pages).digest()
        if key not in _known:
            assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
            _known[key] = snapshots.everything(path)
    return _known[key]


def states(path: Path, *steps: Callable[[Path], object]) -> list[Snapshot]:
    """Return the states of a copy of a database: as it is, and after each of some steps."""
    copied = path.parent.with_name("steps") / path.name
    shutil.rmtree(copied.parent, ignore_errors=True)
    copied.parent.mkdir()
    if path.exists():
        with snapshots.connect(path) as source, closing(sqlite3.connect(copied)) as target:
            source.backup(target)
    found = [state(copied)]
    for step in steps:
        step(copied)
        found.append(state(copied))
    return found


def applying(path: Path) -> list[Snapshot]:
    """Return the states of a database on its way up."""
    return states(path, *(partial(up, to=one) for one in IDS))


class Replay:
    """A command's power cuts, each looked at."""

    def __init__(self, path: Path, allowed: Sequence[Snapshot], unsynced: Sequence[str] = ()) -> None:
        """Take a database as it is, and the states that it may be in after a power cut."""
        self.path = path
        self.allowed = allowed
        self.disk = Disk(path.parent, unsynced)
        self.cuts = 0
        self._finished = set[tuple[int, bool]]()
        self._backups = set[tuple[tuple[str, bytes], ...]]()

    def run(self, *command: str | Path) -> World:
        """Run a command and look at each of its power cuts; return the least that is left at its end."""
        for world in self.disk.replay(record(command, self.path.parent)):
            self.look(world)
            self.cuts += 1
        self.left = self.allowed[self.place(world)]
        kept = {one.name for one in self.path.parent.iterdir() if one.suffix in (".backup", ".damaged")}
        assert kept <= set(world.files)
        return world

    def look(self, world: World) -> None:
        """Check that a database is in one of its states, each backup whole, and that it comes up to date."""
        place = self.place(world)
        folder = self.path.parent.with_name("cut")
        for backup in folder.glob("*.backup"):
            files = tuple(sorted(one for one in world.files.items() if one[0].startswith(backup.name)))
            if files not in self._backups:
                assert state(backup) in self.allowed
                assert state(backup) != NOTHING
                self._backups.add(files)
        key = (place, any(".part" in name for name in world.files))
        if key not in self._finished:
            self._finished.add(key)
            database = folder / self.path.name
            if self.allowed[place].applied != IDS:
                ran = yoyo_in_child(*map(str, yoyo("apply", database)), folder=folder)
                assert ran.code == 0, ran.error
            get_pattern_storage(database).close()
            assert state(database).applied == IDS

    def place(self, world: World) -> int:
        """Return in which of the states a power cut leaves the database."""
        folder = self.path.parent.with_name("cut")
        world.write(folder)
        return self.allowed.index(state(folder / self.path.name))


# Migrations


@pytest.mark.parametrize("case", ["new", "old", "old, app connected", "new, no log", "old, no log"])
def test_what_apply_has_said_to_be_done_is_there(
    case: str, path: Path, report: Callable[[str], None]
) -> None:
    is_connected = "connected" in case
    if "old" in case:
        make(path, mode="WAL" if is_connected else "DELETE")
    before = states(path)
    with app_connected(path) if is_connected else nullcontext():
        replay = Replay(path, before + applying(path), [f"{path.name}-wal"])
        replay.run(*YOYO, *yoyo("apply", path, "?journal_mode=DELETE" if "no log" in case else ""))

        assert replay.left == state(path)
        assert replay.left.applied == IDS
    report(f"`yoyo apply` ({case}): {replay.cuts} states after a power cut")


@pytest.mark.parametrize("mode", ["WAL", "DELETE"])
def test_what_rollback_has_said_to_be_done_is_there(
    mode: str, path: Path, report: Callable[[str], None]
) -> None:
    make(path, IDS[-1], mode)
    before = states(path)
    with app_connected(path) if mode == "WAL" else nullcontext():
        back = states(path, *(partial(down, to=one) for one in reversed(IDS[1:])))
        replay = Replay(path, before + back, [f"{path.name}-wal"])
        options = f"?journal_mode={mode}"
        replay.run(*YOYO, *yoyo("rollback", path, options, "--revision", IDS[1]))

        assert replay.left == state(path)
        assert replay.left.applied == IDS[:1]
    report(f"`yoyo rollback` ({mode}): {replay.cuts} states after a power cut")


@pytest.mark.parametrize(
    "options",
    [
        "",
        "?journal_mode=DELETE",
        "?synchronous=FULL",
        "?synchronous=FULL&journal_mode=DELETE",
        "?synchronous=FULL&journal_mode=TRUNCATE",
    ],
)
def test_a_new_database_is_there_when_the_storage_has_opened_it(options: str, path: Path) -> None:
    """With FULL, what is saved as well."""
    script = (
        "import sys; from poker_therapist import get_pattern_storage\n"
        "with get_pattern_storage(sys.argv[1]) as storage:\n"
        "    print('opened', flush=True)\n"
        "    storage.save_pattern(7, 'tilt', 'bad_beat', 1)\n"
        "    print('saved', flush=True)\n"
    )

    def is_saved(folder: Path) -> bool:
        with get_pattern_storage(folder / path.name, migrate=False) as storage:
            return bool(storage.get_pattern(USER, "tilt", "bad_beat") == 1)

    disk, cut = Disk(path.parent), path.parent.with_name("cut")
    opening = [sys.executable, "-c", script, f"sqlite:///{path}{options}"]
    for world in disk.replay(record(opening, path.parent)):
        world.write(cut)
        applied = state(cut / path.name).applied
        assert applied == (IDS if world.said else IDS[: len(applied)])
        assert "saved" not in world.said or "FULL" not in options or is_saved(cut)
    assert "saved" in world.said


@pytest.mark.parametrize(("before", "wanted"), [("WAL", "DELETE"), ("DELETE", "WAL")])
def test_another_journal_mode_loses_nothing(before: str, wanted: str, path: Path) -> None:
    make(path, IDS[-1], before)
    script = "import sys; from poker_therapist import get_pattern_storage; get_pattern_storage(sys.argv[1])"
    replay = Replay(path, states(path))
    replay.run(sys.executable, "-c", script, f"sqlite:///{path}?journal_mode={wanted}")

    assert query(path, "PRAGMA journal_mode") == [(wanted.lower(),)]


# The operator's commands


@pytest.mark.parametrize("mode", ["WAL", "DELETE"])
def test_what_backup_has_named_is_there(mode: str, path: Path) -> None:
    make(path, IDS[-1], mode)
    before = states(path)
    with app_connected(path):
        replay = Replay(path, before + states(path), [f"{path.name}-wal"])
        left = replay.run(*OURS, "backup", "--database", f"sqlite:///{path}?journal_mode={mode}")
    (name,) = (name for name in left.files if name.endswith(".backup"))
    assert name in left.said


@pytest.mark.parametrize("case", ["app connected", "no log", "new", "other pages"])
def test_what_restore_has_said_to_be_done_is_there(case: str, path: Path) -> None:
    mode = "DELETE" if case == "no log" else "WAL"
    make(path, IDS[-1], mode)
    backup = path.parent / "kept.db"
    shutil.copy(path, backup)
    if case == "other pages":
        run_sql(backup, "PRAGMA journal_mode = DELETE; PRAGMA page_size = 1024; VACUUM")
    restored = state(backup)
    run_sql(path, "DELETE FROM user_patterns")
    before = states(path)
    if case == "new":
        path.unlink()
    with app_connected(path) if case == "app connected" else nullcontext():
        replay = Replay(path, [*before, *states(path), restored, NOTHING], [f"{path.name}-wal"])
        replay.run(*OURS, "restore", backup, "--database", f"sqlite:///{path}?journal_mode={mode}")

        assert replay.left == restored


def test_a_damaged_file_that_restore_replaces_is_kept(path: Path) -> None:
    make(path, IDS[-1])
    backup = path.parent / "kept.db"
    shutil.copy(path, backup)
    damaged = path.read_bytes()[:-4096]
    path.write_bytes(damaged)
    disk, cut = Disk(path.parent), path.parent.with_name("cut")
    for world in disk.replay(record([*OURS, "restore", backup, "--database", path], path.parent)):
        assert damaged in world.files.values()
    world.write(cut)
    assert state(cut / path.name) == state(backup)


@pytest.mark.parametrize("mode", ["WAL", "DELETE"])
def test_what_copy_has_said_to_be_done_is_there(mode: str, path: Path, tmp_path: Path) -> None:
    source = tmp_path / "source.db"
    make(source, IDS[-1])
    _, copied = states(path, lambda target: command("copy", source, target, folder=target.parent))
    replay = Replay(path, [*applying(path), copied])
    replay.run(*OURS, "copy", source, f"sqlite:///{path}?journal_mode={mode}")

    assert replay.left == copied


def test_what_forget_has_said_to_be_deleted_is_not_there(path: Path) -> None:
    """Neither in the database nor in the log."""
    make(path, IDS[-1])
    with app_connected(path):
        with get_pattern_storage(path) as storage:
            storage.save_pattern(USER, "tilt", "bad_beat", "a secret of the player")
        backup = back_up(path)

        def forget(copied: Path) -> None:
            command("forget", str(USER), "--yes", "--database", copied, folder=copied.parent)

        replay = Replay(path, states(path, forget))
        left = replay.run(*OURS, "forget", str(USER), "--yes", "--backups", "--database", path)

        assert replay.left == state(path)
        assert f"deleted {backup}" in left.said
    assert [name for name, content in left.files.items() if b"a secret of" in content] == []


def test_what_export_has_written_is_there_before_the_player_may_be_forgotten(path: Path) -> None:
    make(path, IDS[-1])
    replay = Replay(path, states(path))
    left = replay.run(*OURS, "export", str(USER - 5), "--database", path, "--output", "player.json")

    assert json.loads(left.files["player.json"])["patterns"]
