"""The power fails: what the disk holds at any moment opens whole, with exactly what was acknowledged.

A power cut is approximated by copies of the files, without the index of the log, which lies in memory. SQLite
brings the log to the disk before it acknowledges a commit if `synchronous` is FULL, so then what was written
is there. With NORMAL the end of the log may be missing or torn: then the last commits are, whole ones.
"""

import random
import shutil
import sqlite3
import struct
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from functools import partial
from pathlib import Path
from unittest import mock

import pytest

from poker_therapist import PatternStorage, get_pattern_storage
from poker_therapist.location import SQLiteLocation
from poker_therapist.sqlite import backend
from poker_therapist.sqlite.connect import open_connection
from poker_therapist.values import JSON
from tests.helpers import old_app, snapshots
from tests.helpers.engines import fetch_all
from tests.helpers.migrating import IDS, down, up

USER = 7
# The files that are on the disk.
ENDINGS = ("", "-wal", "-journal")

FRAME_HEADER, LOG_HEADER, PAGE = 24, 32, 4096


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A database that is up to date."""
    path = tmp_path / "RexVoice.db"
    get_pattern_storage(path).close()
    return path


@pytest.fixture
def careful(path: Path) -> Iterator[PatternStorage]:
    """A storage that brings each commit to the disk, and writes early what does not fit its little memory."""
    with get_pattern_storage(f"sqlite:///{path}?synchronous=FULL") as storage:
        fetch_all(storage, "PRAGMA cache_size = 4")
        yield storage


def copy_files(path: Path, folder: Path) -> Path:
    """Copy what is on the disk of a database into an empty folder; return the copy."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for ending in ENDINGS:
        with suppress(FileNotFoundError):
            shutil.copy(f"{path}{ending}", f"{folder / path.name}{ending}")
    return folder / path.name


def numbers(path: Path) -> list[int]:
    """Open a database after a power cut and return the numbers that it holds; each is there whole."""
    with snapshots.connect(path) as connection:
        connection.execute("PRAGMA synchronous = OFF")  # it is a copy
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        tables = [
            [
                number
                for (number,) in connection.execute(
                    f"SELECT json_extract({column}, '$[0]') FROM {table} ORDER BY 1"
                )
            ]
            for table, column in (
                ("user_patterns", "pattern_value"),
                ("conversation_context", "context_value"),
                ("user_insights", "insight_data"),
            )
        ]
    assert tables[0] == tables[1] == tables[2]
    return tables[0]


def save_number(storage: PatternStorage, number: int, size: int = 10) -> None:
    """Save a number in three tables, as one commit."""
    value: JSON = [number, "x" * size]
    with storage.transaction():
        storage.save_pattern(USER, "number", str(number), value)
        storage.save_context(USER, "number", value)
        storage.save_insight(USER, "number", value)


@pytest.mark.slow
def test_at_every_commit_what_was_acknowledged_is_on_the_disk(
    careful: PatternStorage, path: Path, tmp_path: Path, report: Callable[[str], None]
) -> None:
    """Through several checkpoints, with small and large rows."""
    chance = random.Random(7)
    fetch_all(careful, "PRAGMA wal_autocheckpoint = 30")[0]
    for number in range(150):
        save_number(careful, number, chance.choice([10, 3_000, 20_000]))

        assert numbers(copy_files(path, tmp_path / "copy")) == list(range(number + 1))

    report("power cut after each of 150 commits with synchronous=FULL: every acknowledged one was there")


def test_at_every_statement_of_a_transaction_nothing_of_it_is_there(
    careful: PatternStorage, path: Path, tmp_path: Path, report: Callable[[str], None]
) -> None:
    """Though its pages are on the disk already, for they did not fit into memory."""
    save_number(careful, 0)
    cuts, most = 0, 0
    with careful.transaction():
        careful.clear_user_patterns(USER)
        for number in range(1, 40):
            value: JSON = [number, "x" * 10_000]
            for save in (
                partial(careful.save_pattern, USER, "number", str(number), value),
                partial(careful.save_context, USER, "number", value),
                partial(careful.save_insight, USER, "number", value),
            ):
                save()
                copied = copy_files(path, tmp_path / "copy")
                most = max(most, Path(f"{copied}-wal").stat().st_size)
                cuts += 1

                assert numbers(copied) == [0]
        save_number(careful, 0)

    assert most > 100 * PAGE
    report(
        f"power cut after each of {cuts} statements of a transaction of {most:,} bytes: none of it was there"
    )


# A log that is cut or torn


def ends_of_commits(log: bytes) -> list[int]:
    """Return where in a log each commit ends, as https://sqlite.org/fileformat.html lays it out."""
    ends = []
    for start in range(LOG_HEADER, len(log) - FRAME_HEADER - PAGE + 1, FRAME_HEADER + PAGE):
        (pages_after_commit,) = struct.unpack(">I", log[start + 4 : start + 8])
        if pages_after_commit:
            ends.append(start + FRAME_HEADER + PAGE)
    return ends


@pytest.mark.slow
def test_a_log_that_is_cut_anywhere_gives_the_commits_before_the_cut(
    path: Path, tmp_path: Path, report: Callable[[str], None]
) -> None:
    """At each end of a frame and beside it; behind is nothing, or zeros or rubbish."""
    chance = random.Random(7)
    with get_pattern_storage(path) as storage:
        for number in range(12):
            save_number(storage, number, chance.choice([10, 10, 5_000]))
        copied = copy_files(path, tmp_path / "original")
    log = Path(f"{copied}-wal").read_bytes()
    ends = ends_of_commits(log)
    assert len(ends) == 12

    cuts, frame = 0, FRAME_HEADER + PAGE
    for start in range(LOG_HEADER, len(log) + 1, frame):
        for cut in (start, start - 1, start + 1, start + chance.randrange(frame)):
            rest = len(log[cut:])
            tails = (b"", bytes(rest), chance.randbytes(rest))
            one = copy_files(copied, tmp_path / "copy")
            left = log[:cut] + tails[cuts % len(tails)]  # a zero that was cut off may be there again
            Path(f"{one}-wal").write_bytes(left)
            cuts += 1

            assert numbers(one) == list(range(sum(left[:end] == log[:end] for end in ends)))

    report(f"a log of 12 commits cut in {cuts} places: always the commits before it, whole and in order")


def test_a_checkpoint_that_is_torn_at_any_page_loses_nothing(
    careful: PatternStorage, path: Path, tmp_path: Path, report: Callable[[str], None]
) -> None:
    """Any of its pages may be on the disk, or half of one: the log, which is whole, has them all."""
    chance = random.Random(7)
    for number in range(20):
        save_number(careful, number, chance.choice([10, 3_000]))
    original = copy_files(path, tmp_path / "original")
    fetch_all(careful, "PRAGMA wal_checkpoint(PASSIVE)")[0]
    before, after = original.read_bytes(), path.read_bytes()
    moved = [
        page for page in range(0, len(after), PAGE) if before[page : page + PAGE] != after[page : page + PAGE]
    ]
    assert len(moved) > 20

    for trial in range(100):
        torn = bytearray(before.ljust(len(after), b"\0"))
        for page in moved:
            if chance.random() < 0.7:
                there = chance.choice([PAGE, PAGE, PAGE // 2, 512])
                torn[page : page + there] = after[page : page + there]
        one = copy_files(original, tmp_path / "copy")
        one.write_bytes(torn[: chance.randrange(len(before), len(after))] if trial % 2 else torn)

        assert numbers(one) == list(range(20))

    report(f"a checkpoint of {len(moved)} pages torn in 100 ways: nothing lost")


# Migrating


def run_cut_at_every_step(path: Path, work: Callable[[], object], look: Callable[[], None]) -> int:
    """Run something that migrates; look before each of its statements, and in the middle of long ones.

    Returns:
        How often it looked.
    """
    cuts, is_looking = 0, False

    def cut(*_: object) -> None:
        nonlocal cuts, is_looking
        if not is_looking:  # which migrates, too
            is_looking = True
            look()
            cuts += 1
            is_looking = False

    def watched(location: SQLiteLocation) -> sqlite3.Connection:
        connection = open_connection(location)
        if location.path == path:
            # What does not fit into little memory is written before the end of the transaction.
            connection.execute("PRAGMA cache_size = 4")
            connection.set_trace_callback(cut)
            connection.set_progress_handler(cut, 10_000)
        return connection

    with mock.patch.object(backend, "open_connection", watched):
        work()
    return cuts


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["new", "old", "old, with a log"])
def test_at_every_statement_of_a_migration_the_next_start_comes_up_with_nothing_lost(
    kind: str, tmp_path: Path, report: Callable[[str], None]
) -> None:
    """Applying all, and rolling all back but the first: a copy opens, up to date and whole."""
    path = tmp_path / "RexVoice.db"
    if kind == "new":
        path.touch()
    else:
        old_app.make(path, rows=36)
        old_app.add_odd_rows(path)
    if "log" in kind:
        with closing(sqlite3.connect(path)) as connection:
            connection.execute("PRAGMA journal_mode = WAL").fetchone()
    whole = Path(shutil.copy(path, tmp_path / "whole.db"))
    up(whole)
    expected = snapshots.everything(whole)
    failed: list[str] = []
    last: dict[str, bytes] = {}
    states: Counter[str] = Counter()
    opened: list[object] = []

    def look() -> None:
        """Note what fails; SQLite would hide an error that is raised here."""
        nonlocal last
        one = copy_files(path, tmp_path / "copy")
        files = {file.name: file.read_bytes() for file in one.parent.iterdir()}
        if files == last:
            return
        last = files
        states.update(["all", *files])
        try:
            # SQLite gives back one of few states; who opens the same finds the same, and does the same.
            read = copy_files(path, tmp_path / "read")
            assert snapshots.is_whole(read)
            if (left := snapshots.left_by(read)) in opened:
                return
            opened.append(left)
            get_pattern_storage(f"sqlite:///{one}?backups=0").close()
            assert snapshots.is_whole(one)
            assert snapshots.everything(one) == expected
        except Exception:
            failed.append(traceback.format_exc())

    cuts = run_cut_at_every_step(path, lambda: up(path), look)
    assert snapshots.everything(path) == expected
    cuts += run_cut_at_every_step(path, lambda: down(path, IDS[1]), look)

    assert failed == []
    assert path.name + ("-wal" if "log" in kind else "-journal") in states
    report(
        f"power cut at {cuts} moments of migrating ({kind} database), {states['all']} states of the disk, "
        f"{len(opened)} of the database: all came up to date, nothing lost"
    )
