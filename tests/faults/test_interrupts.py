"""An exception at any position of the code: nothing half, nothing left open, nothing lost that was acknowledged."""

import contextlib
import gc
import sqlite3
import sys
import threading
from collections import Counter
from collections.abc import Callable
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


class Injection:
    """A trace function that raises before the N-th bytecode instruction of the files."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.seen = 0
        self.where: tuple[CodeType, int] | None = None

    def __call__(self, frame: FrameType, event: str, argument: Any) -> Any:
        if frame.f_code.co_filename not in FILES:
            return None
        frame.f_trace_opcodes = True
        return self._step

    def _step(self, frame: FrameType, event: str, argument: Any) -> Any:
        if event == "opcode":
            self.seen += 1
            if self.seen == self.number:
                self.where = (frame.f_code, frame.f_lasti)
                raise Interrupted
        return self._step


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

    def saved(self, round_: str) -> set[str]:
        rows = self._connection.execute(
            "SELECT pattern_key FROM user_patterns WHERE user_id = 7 AND pattern_type = 't'"
            f" AND pattern_key > '{round_} ' AND pattern_key < '{round_} {{'"
        ).fetchall()
        return {key.removeprefix(f"{round_} ") for (key,) in rows}

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


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_debug(migrated: str, scenario, unraisable, report) -> None:
    url = with_options(migrated, "timeout=0.3&connections=1" if is_server(migrated) else "timeout=0.3")
    witness = Witness(migrated)
    problems = Counter()
    number = 0
    step = 1 if not is_server(migrated) else 11
    storage = get_pattern_storage(url)
    scenario(storage, "warm")
    while True:
        number += step
        injection = Injection(number)
        key = f"{number}"
        caught = None
        before = sys.gettrace()
        try:
            sys.settrace(injection)
            scenario(storage, key)
        except BaseException as error:
            caught = error
        finally:
            sys.settrace(before)
        if injection.where is None:
            break
        code, offset = injection.where
        import dis

        at = next((i for i in dis.get_instructions(code) if i.offset == offset), None)
        line = next((l for s, e, l in code.co_lines() if s <= offset < e), None)
        label = f"{Path(code.co_filename).name}:{line} {code.co_name} {offset} {at and at.opname} {
            at and at.argval
        }"

        def bad(what):
            problems[f"{label}: {what}"] += 1

        if not (
            isinstance(caught, (Interrupted, PokerTherapistError))
            or ((caught is None and unraisable) or (caught is None and scenario is nested_block_that_goes_on))
        ):
            bad(f"raised {caught!r}")
        unraisable.clear()
        # While the exception and its traceback are there
        held = None
        try:
            save(storage, f"{key} held")
            held = True
        except PokerTherapistError as e:
            held = str(e)
        caught = None
        gc.collect() if number % 50 == 0 else None
        try:
            save(storage, f"{key} after")
        except BaseException as e:
            bad(f"after: {e}")
        saved = witness.saved(key)
        if held is True and "held" not in saved:
            bad("held lost")
        if held is not True:
            bad(f"held {held}")
        if "after" not in saved:
            bad("after lost")
        rest = saved - {"held", "after"}
        if rest not in (set(), SCENARIOS[scenario]) and not (
            scenario is nested_block_that_goes_on and rest == {"a", "b"}
        ):
            bad(f"half {rest}")
        try:
            witness.require_nothing_open()
        except BaseException as e:
            bad(f"open {e}")
        lost = []

        def other():
            try:
                save(storage, f"{key} other")
            except BaseException as e:
                lost.append(e)

        if number % 10 == 0:
            t = threading.Thread(target=other)
            t.start()
            t.join()
            if lost:
                bad(f"other thread {lost}")
        if len(problems) > 60:
            break
    print(scenario.__name__, number)
    for p in problems:
        print("   ", p)
    witness.close()
    try:
        storage.close()
    except BaseException as e:
        print(e)
