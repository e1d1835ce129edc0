"""No room on the disk, at every size: our own error, nothing lost, nothing half-done, and then it works."""

import errno
import os
import pickle
import re
import shutil
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from itertools import count, islice
from pathlib import Path
from typing import Any

import pytest

from poker_therapist import PatternStorage, PokerTherapistError, get_pattern_storage, schema
from poker_therapist.errors import DatabaseFull, DatabaseReadOnly, StorageError
from poker_therapist.location import SQLiteLocation
from poker_therapist.schema import copy, rehearse
from poker_therapist.sqlite.backup import save_backup
from poker_therapist.sqlite.connect import translate_error
from poker_therapist.sqlite.engine import SQLiteEngine
from poker_therapist.tables import TABLES
from tests.helpers import faults, old_app, snapshots
from tests.helpers.clock import Clock
from tests.helpers.engines import execute, fetch_all, sqlite_only
from tests.helpers.migrating import FOLDER, IDS, down, up
from tests.helpers.players import add_legacy_rows
from tests.helpers.postgresql import yoyo_in_child

USER, OTHER = 7, 8
MARK = b"forget-me"
# More than there are free bytes in any page, so that every save wants several.
LONG = "x" * 30_000

Step = Callable[[Path], object]


@dataclass(frozen=True)
class Deed:
    """Something that writes.

    Attributes:
        make: fills a folder for it.
        do: does it in the folder.
        steps: if it is more than one commit, what leads from whole state to whole state.
        stride: it is tried at each size; at one in so many, if it takes long.
    """

    name: str
    make: Step
    do: Step
    steps: tuple[Step, ...] = ()
    stride: int = 1


# What is there


def database(folder: Path) -> Path:
    return folder / "RexVoice.db"


def location(folder: Path, name: str = "RexVoice.db") -> SQLiteLocation:
    return SQLiteLocation(folder / name)


def make_current(folder: Path) -> None:
    """Two players, and no page that is not used."""
    with get_pattern_storage(database(folder)) as storage:
        for user, text in ((USER, MARK.decode()), (OTHER, "keep-it")):
            storage.save_pattern(user, "tilt", "bad_beat", text)
            storage.save_context(user, "topic", text, "monday")
            storage.save_insight(user, "leak", text * 200)
        storage.save_context(USER, "topic", "expired", expires_minutes=-1)
        add_legacy_rows(database(folder))
        execute(storage, "VACUUM")


def make_old(folder: Path, version: int = 0) -> None:
    """A database of the earlier app, with so many migrations applied."""
    old_app.make(database(folder), rows=36)
    old_app.add_odd_rows(database(folder))
    if version:
        up(database(folder), IDS[version - 1])


def make_backup(folder: Path) -> None:
    """A small database and a large backup."""
    make_current(folder)
    with get_pattern_storage(database(folder)) as storage:
        storage.save_pattern(USER, "tilt", "large", LONG)
    database(folder).rename(folder / "monday.backup")
    get_pattern_storage(database(folder)).close()


def make_backup_alone(folder: Path) -> None:
    make_backup(folder)
    database(folder).unlink()


def make_nothing(folder: Path) -> None:
    """Nothing is there yet."""


# What is done


def call(method: Callable[[PatternStorage], object]) -> Step:
    def do(folder: Path) -> None:
        with get_pattern_storage(database(folder), migrate=False) as storage:
            method(storage)

    return do


def save_a_block(storage: PatternStorage) -> None:
    with storage.transaction():
        storage.save_pattern(USER, "tilt", "bad_beat", LONG)
        storage.save_context(USER, "topic", LONG)
        with storage.transaction():
            storage.save_insight(USER, "leak", LONG)
        storage.clear_user_context(USER, "monday")


def bring_up_to_date(folder: Path) -> None:
    get_pattern_storage(database(folder)).close()


def to_version(migration: str) -> Step:
    return lambda folder: up(database(folder), migration)


def back_from(migration: str) -> Step:
    return lambda folder: down(database(folder), migration)


def rehearse_all(folder: Path) -> None:
    """Rehearse; what fails on the copy is told and not raised."""
    for one in rehearse(location(folder)).migrations:
        for reason in one.reasons:
            if "failed: " in reason:
                raise DatabaseFull(reason)


def restore_monday(folder: Path) -> None:
    SQLiteEngine(location(folder)).restore(
        folder / "monday.backup", schema.all_sources(location(folder)), TABLES
    )


SAVING = [
    Deed("save_pattern", make_current, call(lambda one: one.save_pattern(USER, "tilt", "cooler", LONG))),
    Deed("replace", make_current, call(lambda one: one.save_pattern(USER, "tilt", "bad_beat", LONG))),
    Deed("save_context", make_current, call(lambda one: one.save_context(USER, "topic", LONG, "monday"))),
    Deed("save_insight", make_current, call(lambda one: one.save_insight(USER, "leak", LONG))),
    Deed("transaction", make_current, call(save_a_block)),
    Deed("clear_user_patterns", make_current, call(lambda one: one.clear_user_patterns(USER))),
    Deed("clear_user_context", make_current, call(lambda one: one.clear_user_context(USER))),
    Deed("purge_expired", make_current, call(lambda one: one.purge_expired())),
]
# Deletes in one commit, and erases in others.
forget = call(lambda one: one.forget_user(USER))
FORGETTING = [Deed("forget_user", make_current, forget, steps=(forget,))]
MIGRATING = [
    Deed("make a database", make_nothing, bring_up_to_date, tuple(map(to_version, IDS))),
    Deed("adopt a database", make_old, bring_up_to_date, tuple(map(to_version, IDS))),
    *(
        Deed(f"apply {one}", partial(make_old, version=number), to_version(one))
        for number, one in enumerate(IDS)
    ),
    # Not 001: what it has adopted, it does not drop.
    *(
        Deed(f"roll back {one}", partial(make_old, version=number), back_from(one))
        for number, one in enumerate(IDS[1:], start=2)
    ),
]
COPYING = [
    Deed("backup", make_current, lambda folder: save_backup(location(folder), folder / "new.backup")),
    Deed("restore", make_backup, restore_monday),
    Deed("restore alone", make_backup_alone, restore_monday),
    Deed("rehearse", partial(make_old, version=3), rehearse_all, stride=8),
    Deed("copy", make_current, lambda folder: copy(location(folder), location(folder, "other.db"))),
]
DEEDS = {"saving": SAVING, "forgetting": FORGETTING, "migrating": MIGRATING, "copying": COPYING}


# What is left of it


_known: dict[bytes, snapshots.Snapshot] = {}


@pytest.fixture(autouse=True)
def _forget() -> Iterator[None]:
    """Free what one test has read: the next ones fork this process, which takes longer the larger it is."""
    yield
    _known.clear()


def look(folder: Path, scratch: Path) -> dict[str, Any]:
    """Return what each database in a folder holds; fail if one is damaged or anything else is left.

    Looking needs room, so it looks at a copy, once for the same bytes.
    """
    found = {}
    for path in sorted(folder.iterdir()):
        if path.name.endswith(("-wal", "-shm", "-journal")):
            continue
        assert path.name.endswith((".db", ".backup")), f"{path.name} is left"
        files = [file for ending in ("", "-wal", "-journal") if (file := Path(f"{path}{ending}")).exists()]
        content = [(file.name.removeprefix(path.name), file.read_bytes()) for file in files]
        key = sha256(pickle.dumps(content)).digest()
        if key not in _known:
            scratch.mkdir()
            for ending, data in content:
                (scratch / f"{path.name}{ending}").write_bytes(data)
            assert snapshots.is_whole(scratch / path.name)
            _known[key] = snapshots.everything(scratch / path.name)
            shutil.rmtree(scratch)
        found[path.name] = _known[key]
    return found


# A database that is not there has as much in it.
NOTHING = snapshots.Snapshot([], {}, [], [])


class Trial:
    """One deed, done with less room than it needs, and then with enough."""

    def __init__(self, deed: Deed, folder: Path) -> None:
        self.deed = deed
        self.template = folder / "template"
        self.scratch = folder / "scratch"
        self.template.mkdir(parents=True)
        deed.make(self.template)
        self.before = look(self.template, self.scratch)
        whole = shutil.copytree(self.template, folder / "whole")
        self.whole = [self.before.get("RexVoice.db", NOTHING)]
        for step in deed.steps:
            step(whole)
            self.whole.append(look(whole, self.scratch)["RexVoice.db"])
        if not deed.steps:
            deed.do(whole)
        self.after = look(whole, self.scratch)
        self.messages: list[str] = []
        # What failed deeds have left and doing it again has finished: it does the same from the same.
        self.finished: list[object] = []

    def run(self, at: Path, room: faults.Room, sizes: Iterable[int], reason: str) -> Counter[str]:
        """Do it with more and more room until there is enough; return how often it failed, by error."""
        failures: Counter[str] = Counter()
        for size in islice(sizes, 0, None, self.deed.stride):
            shutil.copytree(self.template, at)
            error = self._attempt(at, room, size, reason)
            if not error:
                self._require_done(at)
                shutil.rmtree(at)
                break
            failures[error] += 1
            left = self._require_whole(at), sorted(path.name.split(".before-")[0] for path in at.iterdir())
            # Of what is deleted, bytes may be left that no look at the rows shows.
            if self.deed in FORGETTING or left not in self.finished:
                self.deed.do(at)
                self._require_done(at)
                self.finished.append(left)
            shutil.rmtree(at)
        return failures

    def _attempt(self, at: Path, room: faults.Room, size: int, reason: str) -> str:
        """Return the name of the error; not the error, which would keep files open that take room."""
        with room(size):
            try:
                self.deed.do(at)
            except PokerTherapistError as error:
                name, message = type(error).__name__, str(error)
            else:
                return ""
        assert re.search(reason, message), f"{self.deed.name}, {size}: {message}"
        self.messages.append(message)
        # A statement that found no room is named.
        assert name != "MigrationFailed" or re.search(r"\.sql:\d+: ", message)
        return name

    def _require_whole(self, at: Path) -> list[snapshots.Snapshot]:
        """Require what was there, of what failed nothing or a whole step, and nothing else but backups."""
        found = look(at, self.scratch)
        assert found.get("RexVoice.db", NOTHING) in self.whole, self.deed.name
        for name, content in found.items():
            assert content in (self.before.get(name), *self.whole), f"{name} after {self.deed.name}"
            assert name in {*self.before, "RexVoice.db"} or ".before-" in name
        return [*found.values()]

    def _require_done(self, at: Path) -> None:
        """Require what there would be if there had been enough room from the start."""
        found = look(at, self.scratch)
        for name, content in self.after.items():
            if ".before-" not in name:  # which is named by the time
                assert found.get(name) == content, f"{name} after {self.deed.name}"
        if self.deed in FORGETTING:
            assert not [path for path in at.iterdir() if MARK in path.read_bytes()]


def told(failures: dict[str, Counter[str]]) -> str:
    total: Counter[str] = sum(failures.values(), Counter())
    assert total.total() > 20
    kinds = ", ".join(f"{name} {number:,}" for name, number in total.most_common())
    return f"no room {total.total():,} times in {len(failures)} ways ({kinds}), nothing lost or half-done"


@pytest.mark.slow
@pytest.mark.parametrize("what", ["saving", "migrating", "copying"])
def test_a_database_that_may_not_grow_loses_nothing(
    what: str, tmp_path: Path, clock: Clock, report: Callable[[str], None]
) -> None:
    """At every number of pages, from none to spare to enough."""
    failures, messages = {}, []
    for deed in DEEDS[what]:
        trial = Trial(deed, tmp_path / deed.name)
        # What is there is never too large, and only copies start from nothing.
        least = database(trial.template).stat().st_size // faults.PAGE if what == "saving" else 1
        failures[deed.name] = trial.run(
            tmp_path / "at", faults.pages_at_most, count(least), reason="no (disk )?space|free disk space"
        )
        messages += trial.messages

    assert what != "migrating" or any("no disk space is left for a backup of" in one for one in messages)
    report(f"pages, {what}: {told(failures)}")


@pytest.mark.slow
@pytest.mark.parametrize("what", DEEDS)
def test_files_that_may_not_grow_lose_nothing(
    what: str, tmp_path: Path, clock: Clock, report: Callable[[str], None]
) -> None:
    """Database, log, journal, index of the log, backups: no more than so many bytes, at every size."""
    at = tmp_path / "at"

    @contextmanager
    def limited(size: int) -> Iterator[None]:
        # Somebody else has the database open, and so the index of the log, which is larger than most logs,
        # has its size already: a log can end anywhere.
        with closing(sqlite3.connect(database(at))) as other:
            other.execute("SELECT count(*) FROM sqlite_schema").fetchone()
            with faults.bytes_at_most(size):
                yield

    failures = {}
    for deed in DEEDS[what]:
        room = limited if what in ("saving", "forgetting") else faults.bytes_at_most
        failures[deed.name] = Trial(deed, tmp_path / deed.name).run(
            at,
            room,
            count(0, 3_001),
            reason="no (disk )?space|free disk space|cannot be read or written|File too large",
        )

    report(f"bytes, {what}: {told(failures)}")


@pytest.mark.slow
@pytest.mark.parametrize("what", DEEDS)
def test_a_full_disk_loses_nothing(
    what: str, tmp_path: Path, clock: Clock, report: Callable[[str], None]
) -> None:
    """A small one in memory, where the system allows that."""

    place = tmp_path / "disk"

    def fill_it(disk: faults.SmallDisk) -> dict[str, Counter[str]]:
        return {
            deed.name: Trial(deed, tmp_path / deed.name).run(
                place / "at", disk.pages_free, count(), reason="no (disk )?space|free disk space"
            )
            for deed in DEEDS[what]
        }

    failures = faults.on_small_disk(place, fill_it)
    report(f"disk, {what}: {told(failures)}")


@pytest.mark.slow
def test_where_a_later_migration_finds_no_room_it_is_said_what_was_applied_and_what_it_needs(
    tmp_path: Path,
) -> None:
    """In the error itself, for the library, and for `yoyo apply`."""
    done, rest = IDS[:2], IDS[2:]
    told = f"{', '.join(done)} were applied; {', '.join(rest)} were not applied; this needs up to"

    place = tmp_path / "disk"

    def fill_it(disk: faults.SmallDisk) -> list[str]:
        old_app.make(tmp_path / "old.db", rows=300)
        path = place / "RexVoice.db"
        options: list[str | Path] = ["--no-config-file", "--batch", "-d", f"sqlite+atomic:///{path}", FOLDER]

        def open_it() -> str:
            try:
                get_pattern_storage(path).close()
            except PokerTherapistError as error:
                return str(error)
            return ""

        def apply_it() -> str:
            return yoyo_in_child("apply", *options, folder=tmp_path).error

        messages = []
        for run in (open_it, apply_it):
            for size in count(60, 4):
                for left in place.glob("RexVoice.db*"):
                    left.unlink()
                shutil.copy(tmp_path / "old.db", path)
                with disk.pages_free(size):
                    message = run()
                if told in message or not message:
                    break
            messages.append(message)
        return messages

    found = faults.on_small_disk(place, fill_it)
    for message in found:
        assert told in message, message
        assert re.search(r"needs up to [\d,]+ bytes of disk space beside .*RexVoice\.db", message)
        assert "nothing was changed" not in message
    assert found[1].startswith("yoyo: ")
    assert "Traceback" not in found[1]


@pytest.mark.parametrize(
    ("number", "kind", "advice"),
    [
        (errno.ENOSPC, DatabaseFull, "free disk space"),
        (errno.EDQUOT, DatabaseFull, "free disk space"),
        (errno.EIO, StorageError, "check the disk"),
        (errno.EROFS, DatabaseReadOnly, "correct the permissions"),
    ],
)
def test_what_the_system_says_of_a_backup_names_it_and_a_broken_disk_is_no_full_one(
    number: int, kind: type[Exception], advice: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_current(tmp_path)

    def fail(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(StorageError) as caught:
        save_backup(location(tmp_path), tmp_path / "new.backup")

    assert type(caught.value) is kind
    assert str(caught.value).startswith(
        f"cannot write {tmp_path / 'new.backup'} ({os.strerror(number)}): {advice}"
    )
    assert [one.name for one in tmp_path.iterdir() if "new" in one.name] == []


@pytest.mark.parametrize("code", ["SQLITE_IOERR_SHMSIZE", "SQLITE_IOERR_WRITE", "SQLITE_IOERR_FSYNC"])
def test_an_error_of_a_disk_with_room_is_no_want_of_room(code: str, tmp_path: Path) -> None:
    error = sqlite3.OperationalError("disk I/O error")
    error.sqlite_errorcode = getattr(sqlite3, code)

    assert type(translate_error(error, location(tmp_path))) is StorageError


@sqlite_only
def test_a_storage_that_is_open_goes_on_when_there_is_room_again(
    storage: PatternStorage,
) -> None:
    storage.save_pattern(USER, "tilt", "before", "x" * 10_000)
    (pages,) = fetch_all(storage, "PRAGMA page_count")[0]
    fetch_all(storage, f"PRAGMA max_page_count = {pages}")[0]

    def save_until_it_is_full() -> None:
        for number in range(10_000):
            storage.save_pattern(USER, "tilt", f"key {number}", "x" * 1_000)

    with pytest.raises(DatabaseFull, match=re.escape(str(storage.db_path))):
        save_until_it_is_full()
    kept = storage.get_patterns_by_type(USER, "tilt")

    # What was saved before is there to the last one, and the file is whole.
    assert set(kept) == {"before", *(f"key {number}" for number in range(len(kept) - 1))}
    with pytest.raises(DatabaseFull):
        storage.save_pattern(USER, "tilt", "before", "y" * 100_000)
    with pytest.raises(DatabaseFull):
        storage.save_context(USER, "topic", "y" * 100_000)
    with pytest.raises(DatabaseFull):
        storage.save_insight(USER, "leak", "y" * 100_000)
    assert storage.get_patterns_by_type(USER, "tilt") == kept
    assert fetch_all(storage, "PRAGMA integrity_check") == [("ok",)]

    fetch_all(storage, "PRAGMA max_page_count = 1000000")[0]
    storage.save_pattern(USER, "tilt", "after", "y" * 100_000)
    assert set(storage.get_patterns_by_type(USER, "tilt")) == {*kept, "after"}


# Descriptors that somebody else closes


def close_files(path: Path, endings: Iterable[str]) -> None:
    """Close what this process has open of a database, under SQLite."""
    files = [Path(f"{path}{ending}") for ending in endings]
    for number in list(Path("/proc/self/fd").iterdir()):
        with suppress(OSError):  # the one that listed them
            if number.readlink() in files:
                os.close(int(number.name))


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="asks Linux which files are open")
def test_a_closed_descriptor_gives_an_error_and_never_a_wrong_answer(
    tmp_path: Path, report: Callable[[str], None]
) -> None:
    """Of the database, its log or its index; what was acknowledged is there, and the file is whole."""
    make_current(tmp_path)
    path = database(tmp_path)
    before = get_saved(path)

    def use(endings: tuple[str, ...], saves: int) -> tuple[set[str], Counter[str]]:
        """Save, close, and go on; return what was acknowledged and how the calls ended."""
        storage, acknowledged, ends = get_pattern_storage(path), before.copy(), Counter[str]()
        # Without its index SQLite tries for ten seconds each time, so one call must do.
        for number in range(saves + 1 if "-shm" in endings else 20):
            if number == saves:
                close_files(path, endings)
            key = f"{endings} {saves} {number}"
            try:
                storage.save_pattern(USER, "tilt", key, LONG)
                acknowledged.add(key)
                ends["saved"] += 1
                assert set(storage.recall(USER)["patterns"]["tilt"]) == acknowledged
                assert storage.get_pattern(USER, "tilt", key) == LONG
                ends["read"] += 1
            except StorageError as error:
                ends[type(error).__name__] += 1
        return acknowledged, ends

    total: Counter[str] = Counter()
    cases: list[tuple[tuple[str, ...], int]] = [
        (endings, saves) for endings in (("",), ("-wal",), ("", "-wal")) for saves in (0, 1, 5)
    ]
    cases.append((("", "-wal", "-shm"), 5))
    for endings, saves in cases:
        acknowledged, ends = faults.in_child(partial(use, endings, saves))
        before = get_saved(path)
        total += ends

        assert before == acknowledged
        assert snapshots.is_whole(path)

    assert total["StorageError"] > total["saved"] > 0
    report(
        f"descriptors closed in {len(cases)} ways: {total['StorageError']} errors, "
        f"{total['saved']} saves and {total['read']} reads acknowledged, all of them right"
    )


def get_saved(path: Path) -> set[str]:
    with get_pattern_storage(path) as storage:
        return set(storage.get_patterns_by_type(USER, "tilt"))
