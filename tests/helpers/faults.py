"""Faults to put a database to: disks without room, and children that end or fail apart from the tests."""

import contextlib
import ctypes
import os
import pickle
import resource
import sqlite3
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, TypeVar
from unittest import mock

import pytest

PAGE = 4096

_Result = TypeVar("_Result")


def fork() -> int:
    """Fork; Python warns of that where there are threads, and the runner of the tests has some."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*use of fork", category=DeprecationWarning)
        return os.fork()


def in_child(work: Callable[[], _Result]) -> _Result:
    """Run something in a forked child and return its result; what it raises fails the test here."""
    ours, its = os.pipe()
    child = fork()
    if not child:
        try:
            answer: tuple[bool, Any] = (True, work())
        except BaseException:
            answer = (False, traceback.format_exc())
        with os.fdopen(its, "wb") as pipe:
            pickle.dump(answer, pipe)
        os._exit(0)  # without pytest's own end
    os.close(its)
    with os.fdopen(ours, "rb") as pipe:
        content = pipe.read()
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert (code, bool(content)) == (0, True), f"the child ended with {code}"
    is_done, result = pickle.loads(content)
    assert is_done, result
    return result  # type: ignore[no-any-return]  # it has been a pickle


def on_small_disk(place: Path, work: Callable[["SmallDisk"], _Result]) -> _Result:
    """Run something in a child for which a small disk in memory is mounted at `place`; return its result."""

    def mounted() -> tuple[bool, _Result | None]:
        place.mkdir()
        try:
            disk = SmallDisk(place)
        except OSError:
            return False, None
        return True, work(disk)

    is_mounted, result = in_child(mounted)
    if not is_mounted:
        pytest.skip("this system lets nobody mount a disk of his own")
    return result  # type: ignore[return-value]  # it is what `work` has returned


# No room, in three ways. Each is a context in which there is room for so much, and no more.


@contextlib.contextmanager
def pages_at_most(count: int) -> Iterator[None]:
    """Let no database grow beyond so many pages; one that is larger does not grow at all."""
    connect = sqlite3.connect

    def limited(*arguments: Any, **options: Any) -> sqlite3.Connection:
        connection: sqlite3.Connection = connect(*arguments, **options)
        with contextlib.suppress(sqlite3.Error):  # no database; its user will find out
            connection.execute(f"PRAGMA max_page_count = {max(count, 1)}")
        return connection

    with mock.patch.object(sqlite3, "connect", limited):
        yield


@contextlib.contextmanager
def bytes_at_most(count: int) -> Iterator[None]:
    """Let no file of this process be written beyond so many bytes; Python ignores the signal of it."""
    before, most = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (count, most))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (before, most))


class SmallDisk:
    """A disk in memory that can be made full, seen by this process alone and gone with it."""

    def __init__(self, folder: Path) -> None:
        """Mount it; this is for a child, for there is no rollback.

        Raises:
            OSError: this user may not, or the system around it cannot.
        """
        self.folder = folder
        user, group = os.getuid(), os.getgid()
        own_users, own_mounts, private, recursive = 0x10000000, 0x00020000, 1 << 18, 1 << 14
        _call("unshare", own_mounts | (own_users if user else 0))
        if user:
            Path("/proc/self/setgroups").write_text("deny")
            Path("/proc/self/uid_map").write_text(f"0 {user} 1")
            Path("/proc/self/gid_map").write_text(f"0 {group} 1")
        _call("mount", b"none", b"/", None, private | recursive, None)
        _call("mount", b"none", bytes(folder), b"tmpfs", 0, b"size=64m")

    @contextlib.contextmanager
    def pages_free(self, count: int) -> Iterator[None]:
        """Leave room for so many pages beyond what is there."""
        disk = os.statvfs(self.folder)
        used = disk.f_blocks - disk.f_bfree
        self._resize(str(max(used + count, 1) * disk.f_frsize))  # 0 would be without a limit
        try:
            yield
        finally:
            self._resize("64m")

    def make_read_only(self) -> None:
        """Let nothing be written on it any more."""
        self._resize("64m", flags=1)

    def _resize(self, size: str, flags: int = 0) -> None:
        remount = 32
        _call("mount", b"none", bytes(self.folder), b"tmpfs", remount | flags, f"size={size}".encode())


def _call(name: str, *arguments: Any) -> None:
    function = getattr(ctypes.CDLL(None, use_errno=True), name, None)
    if function is None:
        raise OSError(f"this system has no {name}")
    if function(*arguments):
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")


Room = Callable[[int], AbstractContextManager[None]]
