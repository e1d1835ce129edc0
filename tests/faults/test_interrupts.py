"""An exception at any position of the code: nothing half, nothing left open, nothing acknowledged lost."""

import contextlib
import dis
import functools
import linecache
import sqlite3
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import psutil
import psycopg
import pytest

import poker_therapist
from poker_therapist import PatternStorage, PokerTherapistError, get_pattern_storage, ownership
from poker_therapist.errors import StorageError
from poker_therapist.ownership import Block
from poker_therapist.sqlite.connections import SQLiteDatabase
from tests.helpers.engines import is_server, with_options
from tests.helpers.scripts import run_script
from tests.helpers.sessions import wait_until

pytestmark = pytest.mark.slow

USER = 7
ROOT = Path(poker_therapist.__file__).parent
FILES = {
    str(ROOT / name)
    for name in (
        "ownership.py",
        "storage/__init__.py",
        "storage/base.py",
        "storage/context.py",
        "storage/insights.py",
        "storage/patterns.py",
        "storage/players.py",
        "sqlite/connect.py",
        "sqlite/connections.py",
        "sqlite/transaction.py",
        "postgresql/connections.py",
        "postgresql/pool.py",
        "postgresql/transaction.py",
    )
}
# On PostgreSQL an injection costs a new connection, so that only each so-manieth position is tried in a run.
ONE_OF = {"sqlite": 1, "postgresql": 6}

# Instructions that only put something on the stack: an exception after one is the same as before it.
HARMLESS = (
    *("LOAD_FAST", "LOAD_CONST", "LOAD_GLOBAL", "LOAD_DEREF", "PUSH_NULL", "PRECALL", "KW_NAMES", "COPY"),
    *("SWAP", "NOP", "RESUME", "IS_OP", "JUMP_FORWARD", "POP_JUMP"),
)

# An instruction, and the how-manieth time that it is reached.
Position = tuple[CodeType, int, int]
Scenario = Callable[[PatternStorage, str], None]


class Interrupted(BaseException):
    """What a signal raises: no Exception, as KeyboardInterrupt is none."""


class Raised(Exception):
    """What a block raises by itself."""


class Tracer:
    """A trace function that sees each instruction of the files, and may raise before one."""

    def __init__(self, target: Position | None = None) -> None:
        self.positions: list[Position] = []
        self.has_raised = self.is_warming = False
        self._target = target
        self._seen: Counter[tuple[CodeType, int]] = Counter()
        # Of a frame, the state after its last instruction, if that was harmless.
        self._last: dict[FrameType, object] = {}

    def __call__(self, frame: FrameType, _event: str, _argument: Any) -> Any:
        if frame.f_code.co_filename not in FILES or self.has_raised:
            return None
        if self.is_warming:
            frame.f_trace_opcodes = False
        frame.f_trace_lines, frame.f_trace_opcodes = False, True
        return self._step

    def _step(self, frame: FrameType, event: str, _argument: Any) -> Any:
        if event == "opcode" and not self.has_raised and not self.is_warming:
            code, offset = frame.f_code, frame.f_lasti
            self._seen[code, offset] += 1
            position = (code, offset, self._seen[code, offset])
            if self._target is None:
                handler = handler_of(code, offset)
                if self._last.pop(frame, None) != handler and can_be_interrupted(
                    code, offset, frame.f_lineno
                ):
                    self.positions.append(position)
                if dis.opname[code.co_code[offset]].startswith(HARMLESS):
                    self._last[frame] = handler
            elif position == self._target:
                self.has_raised = True
                raise Interrupted
        return self._step


@contextlib.contextmanager
def tracing(tracer: Tracer, warm_up: Callable[[], object]) -> Iterator[None]:
    before = sys.gettrace()
    # From Python 3.12 on, instructions are traced if a frame asked for that before tracing begins.
    sys._getframe().f_trace_opcodes = True
    sys.settrace(tracer)
    try:
        # Python 3.13 traces the instructions of a function from its next call on, if they were not traced
        # just before.
        if sys.version_info >= (3, 13):
            tracer.is_warming = True
            warm_up()
            tracer.is_warming = False
        yield
    finally:
        sys.settrace(before)


@functools.cache
def _handlers(code: CodeType) -> list[tuple[int, int, int]]:
    entries = dis.Bytecode(code).exception_entries  # type: ignore[attr-defined]  # typeshed lacks it
    return [(entry.start, entry.end, entry.target) for entry in entries]


def handler_of(code: CodeType, offset: int) -> int:
    """Return where an exception at an instruction would be handled, in its own function; or -1."""
    return next((target for start, end, target in _handlers(code) if start <= offset < end), -1)


def can_be_interrupted(code: CodeType, offset: int, line: int) -> bool:
    """Return whether Python could deliver a signal there: it does so after calls, not at each instruction.

    A lock is written in C: no signal can arrive between the lock and its block, nor between the block and the
    lock's release. The last instruction of `Block.__enter__` returns to a `with` that then ends the block.
    """
    text = linecache.getline(code.co_filename, line or 0).strip()
    if text.startswith("with ") and text.endswith(".lock:"):
        return False
    return not (code is Block.__enter__.__code__ and dis.opname[code.co_code[offset]] == "RETURN_VALUE")


def positions(scenario: Scenario, storage: PatternStorage) -> list[Position]:
    """Return where to inject: before each instruction, the first and the last time that it is reached.

    Not after a harmless one, but where another handler would see the exception.
    """
    found: list[Position] = []
    for _ in range(2):  # with a new connection to a server, and with one that is there
        tracer = Tracer()
        with tracing(tracer, lambda: scenario(storage, "recorded")):
            scenario(storage, "recorded")
        found += tracer.positions
    last = {(code, offset): number for code, offset, number in found}
    return list(dict.fromkeys(one for one in found if one[2] in (1, last[one[:2]])))


class Witness:
    """What another program sees of the database and of its locks, through a connection that it keeps."""

    def __init__(self, database: str) -> None:
        self._server = is_server(database)
        self._connection: Any = (
            psycopg.connect(database, autocommit=True)
            if self._server
            else sqlite3.connect(database, timeout=0, isolation_level=None)
        )

    def saved(self, start: str) -> set[str]:
        """Return the ends of the saved keys that start so."""
        rows = self._connection.execute(
            "SELECT pattern_key FROM user_patterns WHERE user_id = 7 AND pattern_type = 't' "
            f"AND pattern_key >= '{start} ' AND pattern_key < '{start} zz'"
        )
        return {key.removeprefix(f"{start} ") for (key,) in rows.fetchall()}

    def open(self) -> list[str]:
        """Return what storages keep open; on SQLite, whether one keeps this program from writing at once."""
        if self._server:
            rows = self._connection.execute(
                "SELECT query FROM pg_stat_activity WHERE datname = current_database() "
                "AND application_name = 'poker-therapist' AND state <> 'idle'"
            )
            return [text for (text,) in rows.fetchall()]
        try:
            self._connection.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError as error:
            return [str(error)]
        self._connection.execute("ROLLBACK")
        return []

    def close(self) -> None:
        self._connection.close()


def save(storage: PatternStorage, *keys: str) -> None:
    for key in keys:
        storage.save_pattern(USER, "t", key, key)


def plain_save(storage: PatternStorage, key: str) -> None:
    save(storage, f"{key} a")


def save_with_purge(storage: PatternStorage, key: str) -> None:
    storage._context_saves = 0
    storage.save_context(USER, "t", key)


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


def many_saves(storage: PatternStorage, key: str) -> None:
    storage.save_patterns(USER, "t", {f"{key} a": 1, f"{key} b": 2})


def recall(storage: PatternStorage, key: str) -> None:
    storage.recall(USER)


# What may be saved of each, and nothing else.
SCENARIOS: dict[Scenario, list[set[str]]] = {
    plain_save: [set(), {"a"}],
    save_with_purge: [set()],
    block: [set(), {"a", "b"}],
    nested_block: [set(), {"a", "b"}],
    nested_block_that_goes_on: [set(), {"a", "b"}, {"a", "b", "x", "y"}],
    block_that_raises: [set()],
    many_saves: [set(), {"a", "b"}],
    recall: [set()],
}


@pytest.fixture
def unraisable(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What finalizers have raised, which Python can only print."""
    found: list[Any] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda event: found.append(event.exc_type))
    return found


def locks_are_free(storage: PatternStorage) -> bool:
    """Return whether another thread, which this is, could close the connection that the first one keeps."""
    database = storage._database
    if isinstance(database, SQLiteDatabase):
        for session in list(database._sessions):
            if not session.lock.acquire(timeout=1):
                return False
            session.lock.release()
    return True


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.__name__)
def test_an_exception_anywhere_leaves_nothing_half_nothing_open_and_loses_nothing(
    engine: str, migrated: str, scenario: Scenario, unraisable: list[Any], report: Callable[[str], None]
) -> None:
    options = "timeout=2&connections=1" if is_server(migrated) else "timeout=2"
    injected = 0
    with (
        contextlib.closing(Witness(migrated)) as witness,
        ThreadPoolExecutor(1) as other_thread,
        get_pattern_storage(with_options(migrated, options)) as storage,
    ):
        wanted = positions(scenario, storage)
        for number, position in enumerate(wanted[:: ONE_OF[engine]]):
            code, offset, _ = position
            where = f"{code.co_filename}, {code.co_qualname}, {offset}"
            tracer = Tracer(position)
            handled = set()
            try:
                with tracing(tracer, lambda: scenario(storage, "warm")):
                    scenario(storage, f"{number}")
            except (Interrupted, PokerTherapistError):
                # Now the exception's traceback holds all that was in use.
                save(storage, f"{number} handling")
                handled = {"handling"}
            save(storage, f"{number} after")

            saved = witness.saved(str(number))
            assert saved & {"handling", "after"} == {"after"} | handled, where
            assert saved - {"handling", "after"} in SCENARIOS[scenario], where
            wait_until(
                lambda: witness.open() == []
            )  # a server takes a moment to see that a connection was closed
            assert other_thread.submit(locks_are_free, storage).result(), where
            injected += tracer.has_raised
        other_thread.submit(save, storage, "other thread").result()
    assert set(unraisable) <= {Interrupted}
    # What follows a new connection is not always reached.
    assert injected > 0.9 * len(wanted) / ONE_OF[engine]
    report(
        f"{engine}, {scenario.__name__}: exceptions injected at {injected} of {len(wanted)} positions: "
        "nothing half, nothing open, nothing lost"
    )


def cut_short(part: Callable[[], object], *_error: object) -> None:
    """Take the place of the end of a block, in which a signal arrives."""
    _held = part()
    raise Interrupted


@pytest.mark.parametrize("cut", ["the inner block", "both blocks"])
@pytest.mark.parametrize("outside", [contextlib.nullcontext, PatternStorage.transaction])
def test_what_is_saved_while_an_exception_is_handled_is_kept_though_no_block_could_end(
    cut: str,
    outside: Callable[[PatternStorage], AbstractContextManager[object]],
    storage: PatternStorage,
    migrated: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Several signals may arrive one after another; the traceback of the last one holds the transaction."""
    with outside(storage):
        storage.save_pattern(USER, "t", "before", 1)
        if cut == "both blocks":
            monkeypatch.setattr(ownership, "_end", cut_short)
        try:
            with storage.transaction():
                storage.save_pattern(USER, "t", "block", 1)
                monkeypatch.setattr(ownership, "_end", cut_short)
                with storage.transaction():
                    storage.save_pattern(USER, "t", "inner block", 1)
        except Interrupted:
            monkeypatch.undo()
            storage.save_pattern(USER, "t", "handled", 1)
            with storage.transaction():
                storage.save_pattern(USER, "t", "second block", 1)
    with get_pattern_storage(migrated) as witness:
        assert set(witness.get_patterns_by_type(USER, "t")) == {"before", "handled", "second block"}


def test_a_block_that_could_not_end_is_rolled_back_before_the_one_around_it_is_committed(
    storage: PatternStorage, migrated: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with storage.transaction():
        storage.save_pattern(USER, "t", "before", 1)
        monkeypatch.setattr(ownership, "_end", cut_short)
        with pytest.raises(Interrupted) as kept, storage.transaction():
            storage.save_pattern(USER, "t", "inner block", 1)
        monkeypatch.undo()
    with get_pattern_storage(migrated) as witness:
        assert set(witness.get_patterns_by_type(USER, "t")) == {"before"}
    assert kept.traceback  # which has held the inner block until here


def test_a_block_that_is_never_left_is_not_committed_with_the_one_around_it(
    storage: PatternStorage, migrated: str
) -> None:
    """Nothing says whether it is whole, so that all of it is refused."""

    def leave_one_open() -> None:
        with storage.transaction():
            with storage.transaction():
                block = storage.transaction()
                block.__enter__()
                storage.save_pattern(USER, "t", "half", 1)
            del block

    with pytest.raises(StorageError, match="failed"):
        leave_one_open()
    with get_pattern_storage(migrated) as witness:
        assert witness.get_patterns_by_type(USER, "t") == {}


HAIL = """
import logging, signal, sys, time
from poker_therapist import PokerTherapistError, get_pattern_storage

class Interrupted(BaseException):
    pass

armed = False

def interrupt(number, frame):
    if armed and frame.f_code is not note.__code__:
        raise Interrupted

# What a signal raises in a finalizer, Python can only print. psycopg's generators say in other ways that they
# were interrupted.
raised_elsewhere = []

def note(event):
    ours = "poker_therapist" in (getattr(event.object, "__module__", None) or "")
    if ours and event.exc_type is not Interrupted:
        raised_elsewhere.append(event.exc_value)

sys.unraisablehook = note
# It warns that a connection was closed, which a signal inside of it has done.
logging.getLogger("psycopg").setLevel(logging.ERROR)

storage = get_pattern_storage(sys.argv[1])
signal.signal(signal.SIGALRM, interrupt)
acknowledged, interrupted, other, step = [], 0, [], 0
deadline = time.monotonic() + 1.5
signal.setitimer(signal.ITIMER_REAL, 0.0003, INTERVAL)
while time.monotonic() < deadline:
    step += 1
    try:
        armed = True
        with storage.transaction():
            storage.save_pattern(7, "t", f"{step} a", 1)
            storage.save_pattern(7, "t", f"{step} b", 1)
        acknowledged.append(step)
        armed = False
    except Interrupted:
        armed = False
        interrupted += 1
        # Every tenth time something is saved while the exception is handled.
        if interrupted % 10 == 0:
            storage.save_pattern(7, "t", f"{step} handled", 1)
            acknowledged.append(f"{step} handled")
    except PokerTherapistError:
        armed = False
    except BaseException as error:
        armed = False
        other.append(error)
signal.setitimer(signal.ITIMER_REAL, 0)
storage.save_pattern(7, "t", "end", 1)
saved = set(storage.get_patterns_by_type(7, "t"))
with get_pattern_storage(sys.argv[2]) as witness:
    witness.save_pattern(7, "t", "another connection", 1)
    assert set(witness.get_patterns_by_type(7, "t")) - saved == {"another connection"}
lost = [one for one in acknowledged
        if not ({one} if isinstance(one, str) else {f"{one} a", f"{one} b"}) <= saved]
half = [step for step in range(step + 1) if len({f"{step} a", f"{step} b"} & saved) == 1]
print(interrupted > 0, lost, half, other, raised_elsewhere)
print(f"{interrupted} signals in {step} blocks, {len(acknowledged)} acknowledged")
"""


def test_a_hail_of_signals_leaves_nothing_half_nothing_open_and_loses_nothing(
    engine: str, migrated: str, report: Callable[[str], None]
) -> None:
    impatient = with_options(migrated, "timeout=1")
    one = with_options(migrated, "timeout=10&connections=1" if is_server(migrated) else "timeout=10")
    interval = "0.004" if is_server(migrated) else "0.0007"  # so that some blocks end and others do not
    script = HAIL.replace("sys.argv[2]", repr(impatient)).replace("INTERVAL", interval)
    found, counted = run_script(script, one)

    assert found == "True [] [] [] []"
    report(f"{engine}: {counted}: nothing half, nothing open, nothing lost")


WAIT = """
import signal, sys
from poker_therapist import get_pattern_storage

signal.signal(signal.SIGINT, signal.default_int_handler)
storage = get_pattern_storage(sys.argv[1])
print("about to wait", flush=True)
try:
    with storage.transaction():
        storage.save_pattern(7, "t", "child lost", 1)
        storage.get_pattern(7, "t", "child lost")
except KeyboardInterrupt:
    storage.save_pattern(7, "t", "child handling", 1)
storage.save_pattern(7, "t", "child after", 1)
print("saved", flush=True)
input()
"""


def test_ctrl_c_while_a_block_waits_for_another_process_leaves_nothing_open(migrated: str) -> None:
    with (
        contextlib.closing(Witness(migrated)) as witness,
        get_pattern_storage(migrated) as storage,
        subprocess.Popen(
            [sys.executable, "-c", WAIT, migrated], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as child,
    ):
        assert child.stdout
        with storage.transaction():
            save(storage, "parent in the block")
            storage.get_pattern(USER, "t", "parent in the block")
            assert child.stdout.readline() == "about to wait\n"
            wait_until(lambda: psutil.Process(child.pid).status() == psutil.STATUS_SLEEPING)
            child.send_signal(2)
        assert child.stdout.readline() == "saved\n"
        wait_until(lambda: witness.open() == [])
        assert witness.saved("child") == {"handling", "after"}
        save(storage, "parent after")
        child.communicate("\n", timeout=60)

    assert child.returncode == 0
