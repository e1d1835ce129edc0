"""An exception at any position of the code: nothing half, nothing left open, nothing lost that was acknowledged."""

import contextlib
import sqlite3
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import psycopg
import pytest

import poker_therapist
from poker_therapist import PatternStorage, PokerTherapistError, get_pattern_storage
from tests.helpers.engines import is_server, with_options

USER = 7
ROOT = Path(poker_therapist.__file__).parent
FILES = {
    str(ROOT / name)
    for name in (
        "ownership.py",
        "storage.py",
        "sqlite/connect.py",
        "sqlite/connections.py",
        "sqlite/transaction.py",
        "postgresql/connections.py",
        "postgresql/pool.py",
        "postgresql/transaction.py",
    )
}


class Interrupted(BaseException):
    """What a signal raises: no Exception, as KeyboardInterrupt is none."""


class Raised(Exception):
    """What a block raises by itself."""


# An instruction, and the how-manieth time that it is reached.
Position = tuple[CodeType, int, int]


def _may_be_injected(code: CodeType, offset: int, line: int) -> bool:
    """Return whether Python could deliver a signal there; it does so after calls, not before every instruction.

    Between the entry of a lock, which is written in C, and the block no signal can arrive, and none between the
    block and the lock's exit. The last instruction of `__enter__` returns to a `with` that then holds the block.
    """
    text = linecache.getline(code.co_filename, line)
    if "with " in text and ".lock:" in text:
        return False
    return not (code is Block.__enter__.__code__ and dis.opname[code.co_code[offset]] == "RETURN_VALUE")


class Tracer:
    """A trace function that sees each instruction of the files, and may raise before one."""

    def __init__(self, target: Position | None = None) -> None:
        self.target = target
        self.seen: Counter[tuple[CodeType, int]] = Counter()
        self.positions: list[Position] = []
        self.has_raised = False

    def __call__(self, frame: FrameType, event: str, argument: Any) -> Any:
        if frame.f_code.co_filename not in FILES or self.has_raised:
            return None
        frame.f_trace_lines = False
        frame.f_trace_opcodes = True
        return self._step

    def _step(self, frame: FrameType, event: str, argument: Any) -> Any:
        if event == "opcode" and not self.has_raised:
            code, offset = frame.f_code, frame.f_lasti
            self.seen[code, offset] += 1
            position = (code, offset, self.seen[code, offset])
            if self.target is None:
                if _may_be_injected(code, offset, frame.f_lineno):
                    self.positions.append(position)
            elif position == self.target:
                self.has_raised = True
                raise Interrupted
        return self._step


@contextlib.contextmanager
def tracing(tracer: Tracer) -> Iterator[None]:
    before = sys.gettrace()
    sys.settrace(tracer)
    try:
        yield
    finally:
        sys.settrace(before)


class Witness:
    """What another program sees of the database and of its locks, through a connection that it keeps."""

    def __init__(self, database: str) -> None:
        self._server = is_server(database)
        self._connection: Any = (
            psycopg.connect(database, autocommit=True)
            if self._server
            else sqlite3.connect(database, timeout=0, isolation_level=None)
        )
        if self._server:
            self._connection.execute("SET lock_timeout = 1")

    def saved(self, number: int) -> set[str]:
        rows = self._connection.execute(
            "SELECT pattern_key FROM user_patterns WHERE user_id = 7 AND pattern_type = 't'"
            f" AND pattern_key > '{number} ' AND pattern_key < '{number} {{'"
        ).fetchall()
        return {key.removeprefix(f"{number} ") for (key,) in rows}

    def require_nothing_open(self) -> None:
        """Write at once, which fails where a lock is held, and find no open transaction."""
        if not self._server:
            self._connection.execute("BEGIN IMMEDIATE")
            self._connection.execute("ROLLBACK")
            return
        found = self._connection.execute(
            "SELECT query FROM pg_stat_activity WHERE datname = current_database() "
            "AND application_name = 'poker-therapist' AND state <> 'idle'"
        ).fetchall()
        assert found == []

    def close(self) -> None:
        self._connection.close()


def save(storage: PatternStorage, *keys: str) -> None:
    for key in keys:
        storage.save_pattern(USER, "t", key, key)


# Each returns normally, or raises what was injected or an error of ours.


def plain_save(storage: PatternStorage, key: str) -> None:
    save(storage, f"{key} a")


def block(storage: PatternStorage, key: str) -> None:
    with storage.transaction():
        save(storage, f"{key} a", f"{key} b")


def nested_block(storage: PatternStorage, key: str) -> None:
    with storage.transaction():
        save(storage, f"{key} a")
        with contextlib.suppress(Raised), storage.transaction():
            save(storage, f"{key} inner")
            raise Raised
        save(storage, f"{key} b")


def nested_block_that_goes_on(storage: PatternStorage, key: str) -> None:
    with storage.transaction():
        save(storage, f"{key} a")
        with contextlib.suppress(Interrupted), storage.transaction():
            save(storage, f"{key} x", f"{key} y")
        save(storage, f"{key} b")


def block_that_raises(storage: PatternStorage, key: str) -> None:
    with contextlib.suppress(Raised), storage.transaction():
        save(storage, f"{key} never")
        raise Raised


def recall(storage: PatternStorage, key: str) -> None:
    storage.recall(USER)


# The keys that are saved when it is done.
SCENARIOS: dict[Callable[[PatternStorage, str], None], set[str]] = {
    plain_save: {"a"},
    block: {"a", "b"},
    nested_block: {"a", "b"},
    block_that_raises: set(),
    nested_block_that_goes_on: {"a", "x", "y", "b"},
    recall: set(),
}


@pytest.fixture
def unraisable(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What finalizers have raised, which Python can only print."""
    found: list[Any] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda event: found.append(event.exc_type))
    return found


def positions(scenario: Scenario, storage: PatternStorage) -> list[Position]:
    """Return where an exception is to be injected: at each instruction, the first time that it is reached.

    And the last time: another block or another statement is then on its way.
    """
    found: list[Position] = []
    for _ in range(2):  # first with a new connection to a server, then with one that is there
        tracer = Tracer()
        with tracing(tracer):
            scenario(storage, "recorded")
        found += tracer.positions
    last = {(code, offset): number for code, offset, number in found}
    wanted = [one for one in found if one[2] in (1, last[one[:2]])]
    return list(dict.fromkeys(wanted))


def is_free(storage: PatternStorage) -> bool:
    """Return whether another thread, this one, can use or close the connection that the first one keeps."""
    database = storage._database
    if isinstance(database, SQLiteDatabase):
        for session in list(database._sessions):
            if not session.lock.acquire(timeout=1):
                return False
            session.lock.release()
    return True


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_an_exception_anywhere_leaves_nothing_half_nothing_open_and_loses_nothing(
    migrated: str, scenario: Scenario, unraisable: list[Any], report: Callable[[str], None]
) -> None:
    options = "timeout=2&connections=1" if is_server(migrated) else "timeout=2"
    with (
        contextlib.closing(Witness(migrated)) as witness,
        ThreadPoolExecutor(1) as other_thread,
        get_pattern_storage(with_options(migrated, options)) as storage,
    ):
        wanted = positions(scenario, storage)
        for number, position in enumerate(wanted[:: 12 if is_server(migrated) else 1]):
            code, offset, _ = position
            where = f"{code.co_filename}, {code.co_qualname}, {offset}"
            tracer = Tracer(position)
            try:
                with tracing(tracer):
                    scenario(storage, f"{number}")
            except (Interrupted, PokerTherapistError):
                # While the exception is handled, its traceback holds everything that was in use.
                save(storage, f"{number} handling")
            save(storage, f"{number} after")
            saved = witness.saved(number)
            witness.require_nothing_open(where)
            assert other_thread.submit(is_free, storage).result(), where
            assert "after" in saved, where
            whole = [set(), {"handling"}] if scenario not in GO_ON else [GO_ON[scenario]]
            assert saved - {"after"} in (
                [SCENARIOS[scenario] | more for more in (set(), {"handling"})] + whole
            ), where
    assert {kind for kind in unraisable if kind is not Interrupted} == set()
    injected = number + 1
    report(f"{scenario.__name__}: exceptions injected at {injected} of {len(wanted)} positions: nothing lost")


@pytest.mark.parametrize("holder", ["another process"])
def test_ctrl_c_while_a_block_waits_for_a_lock_leaves_nothing_open(migrated: str, holder: str) -> None:
    with get_pattern_storage(migrated) as storage:
        storage.save_pattern(USER, "t", "before", 1)
        with contextlib.closing(hold_lock(migrated)) as lock:
            lines = Script(WAIT, migrated)
            lines.until("waits")
            until(lambda: lines.is_waiting(lock))
            lines.interrupt()
            lines.until("interrupted")
            lock.execute("ROLLBACK")
        assert lines.rest() == ["saved"]
        storage.save_pattern(USER, "t", "after", 1)
