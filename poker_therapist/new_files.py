"""New files beside a database: for their owner alone, complete or absent, never replacing another file.

Others may be able to write in the folder that they are made in.
"""

import errno
import os
import re
import stat
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

from poker_therapist.errors import InvalidInput, StorageError, file_error

try:
    import fcntl
except ImportError:  # Windows, which deletes no file that is open
    fcntl = None  # type: ignore[assignment]

_NO_LINK = getattr(os, "O_NOFOLLOW", 0)
# In a private folder: what its maker holds the lock of, and what is made.
_OWNER, _NEW = "owner", "new"
_MADE_THERE = re.compile(r"owner|(new|(work|before|after)\.db)(-journal|-wal|-shm|-mj\w+)?")


class PrivateFolder:
    """A folder that no other user may enter, for files that are being made, safe from planted links.

    Others may rename it and put another in its place: so it is used by its descriptor, if the system can.
    """

    def __init__(self, path: Path, closing: ExitStack) -> None:
        """Open a folder that is there, until `closing` ends; a link to one is refused."""
        self.path = self._at = path
        self.descriptor = None
        if os.open in os.supports_dir_fd and os.listdir in os.supports_fd:
            self.descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | _NO_LINK)
            closing.callback(os.close, self.descriptor)
            self._at = Path()

    def open(self, name: str, flags: int) -> int:
        """Open a file of it; one that is made is for its owner alone, whatever the umask."""
        flags |= _NO_LINK | getattr(os, "O_BINARY", 0)
        descriptor = os.open(self._at / name, flags, 0o600, dir_fd=self.descriptor)
        if flags & os.O_CREAT and hasattr(os, "fchmod"):
            os.fchmod(descriptor, 0o600)
        return descriptor

    def create(self, name: str) -> int:
        """Make a file and return its descriptor, which reads and writes."""
        return self.open(name, os.O_CREAT | os.O_EXCL | os.O_RDWR)

    def names(self) -> set[str]:
        """Return the names of the files in it."""
        return set(os.listdir(self._at if self.descriptor is None else self.descriptor))  # noqa: PTH208

    def replace(self, source: str, target: str) -> None:
        """Give a file of it the name of another, which is removed."""
        there = {"src_dir_fd": self.descriptor, "dst_dir_fd": self.descriptor}
        os.replace(self._at / source, self._at / target, **there)  # noqa: PTH105  # Path has no descriptors

    def remove(self, names: Iterable[str]) -> None:
        """Remove files of it; others may do so, too."""
        for name in names:
            with suppress(FileNotFoundError):
                os.unlink(self._at / name, dir_fd=self.descriptor)


@contextmanager
def private_folder(parent: Path, prefix: str) -> Iterator[PrivateFolder]:
    """Make a private folder in another one; remove it, and the files in it, when the block ends.

    Its maker holds a lock until the process ends, so others see what a killed process has left.
    """
    with ExitStack() as closing:
        while True:
            path = Path(tempfile.mkdtemp(prefix=prefix, dir=parent)).absolute()
            with suppress(FileNotFoundError):  # another process has just removed it as a leftover
                if path.lstat().st_mode & 0o700 != 0o700:  # for such a umask
                    path.chmod(0o700)
                folder = PrivateFolder(path, closing)
                owner = folder.create(_OWNER)
                lock(owner, wait=True)
                if os.fstat(owner).st_nlink:
                    break
                os.close(owner)
        try:
            yield folder
        finally:
            with suppress(OSError):  # for example a read-only disk: what was done stays
                folder.remove(folder.names() - {_OWNER})
            os.close(owner)
            with suppress(OSError):
                folder.remove([_OWNER])
                path.rmdir()


def private_folders(parent: Path, pattern: str, *, remove: bool = False) -> dict[Path, bool]:
    """Return the private folders in another one whose whole names match, and if a killed process left them.

    One with other files in it, or of another user, is none. Those that were left are removed if `remove`.
    """
    found = {}
    with suppress(OSError):  # a folder that may be entered and not listed
        for path in [one for one in parent.iterdir() if re.fullmatch(pattern, one.name)]:
            with suppress(OSError):  # not a folder, another user's, or removed since
                if (left := _look_into(path, remove=remove)) is not None:
                    found[path] = left
    return found


def _look_into(path: Path, *, remove: bool) -> bool | None:
    """Return whether a killed process has left a private folder, and remove it; None if it is none."""
    found = path.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != getattr(os, "geteuid", lambda: found.st_uid)():
        return None
    with ExitStack() as closing:
        folder = PrivateFolder(path, closing)
        names = folder.names()
        if not all(map(_MADE_THERE.fullmatch, names)):
            return None
        if _OWNER in names and fcntl is None:
            (path / _OWNER).rename(path / _OWNER)  # which Windows refuses while it is open
        elif _OWNER in names:
            owner = folder.open(_OWNER, os.O_RDWR)
            closing.callback(os.close, owner)
            if not lock(owner, wait=False):
                return False
        if remove:
            folder.remove(sorted(names, key=_OWNER.__ne__))  # first what Windows does not delete in use
            path.rmdir()
    return True


def lock(descriptor: int, *, wait: bool) -> bool | None:
    """Take a lock that ends with this process; return false if it is taken, None without such locks.

    Only those who ask for it see it, also in another container; SQLite does not.
    """
    try:
        if fcntl is None:
            return None
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except OSError as error:
        return False if error.errno in (errno.EAGAIN, errno.EACCES) else None
    return True


@contextmanager
def one_at_a_time(folders: Iterable[Path], timeout: float, busy: Exception) -> Iterator[None]:
    """Wait for others that do this in one of the folders, where the system has locks for that.

    Raises:
        Exception: the one that was given, for it took longer than so many seconds.
    """
    deadline = time.monotonic() + timeout
    with ExitStack() as closing:
        for folder in sorted({one.resolve() for one in folders}):
            with suppress(OSError):  # Windows opens no folder
                descriptor = os.open(folder, os.O_RDONLY)
                closing.callback(os.close, descriptor)
                while lock(descriptor, wait=False) is False:
                    if time.monotonic() > deadline:
                        raise busy
                    time.sleep(0.05)
        yield


class Claim:
    """Shows others that a process is changing a file; it ends with the process.

    It is a private folder beside the file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._held = ExitStack()
        self.is_ours = False

    def is_of_others(self, *, remove: bool = False) -> bool:
        """Return whether others have one; remove those that killed processes have left if `remove`."""
        pattern = re.escape(self._path.name) + r"\.migrating-\w{8}"
        return not (self.is_ours or all(private_folders(self._path.parent, pattern, remove=remove).values()))

    def wait(self, begin: Callable[[], object], undo: Callable[[], object], timeout: float) -> bool:
        """Begin something when no other process has one; undo it and return false after the timeout."""
        deadline = time.monotonic() + timeout
        begin()
        while self.is_of_others(remove=True):
            undo()
            if time.monotonic() > deadline:
                return False
            time.sleep(0.1)
            begin()
        return True

    def take(self) -> None:
        """Make it; not where nothing can be made, nor where, for want of locks, it would outlive us."""
        if self.is_ours:
            return
        with suppress(OSError):
            where = private_folder(self._path.parent, f"{self._path.name}.migrating-")
            again = self._held.enter_context(where).open(_OWNER, os.O_RDWR)
            self.is_ours = fcntl is None or lock(again, wait=False) is not None
            os.close(again)
        if not self.is_ours:
            self.release()

    def release(self) -> None:
        """Remove it."""
        self._held.close()
        self.is_ours = False


@contextmanager
def new_file(target: Path) -> Iterator[tuple[Path, int]]:
    """Make a file, for its owner alone, that has its name only when it is whole; it never replaces another.

    Gives the path at which it is made, in a private folder beside its place, and its descriptor, which is
    closed after the block.

    Raises:
        InvalidInput: something is at its place, be it a link.
        StorageError: it cannot be written; also for an OSError in the block.
    """
    there = f"{target} already exists: choose another name"
    if os.path.lexists(target):
        raise InvalidInput(there)
    try:
        private_folders(target.parent, re.escape(target.name) + r"\.part-\w{8}", remove=True)
        with private_folder(target.parent, f"{target.name}.part-") as folder:
            made, descriptor = folder.path / _NEW, folder.create(_NEW)
            try:
                yield made, descriptor
                os.fsync(descriptor)
                found = os.fstat(descriptor)
            finally:
                os.close(descriptor)
            try:
                os.link(made, target)
            except FileExistsError:
                raise
            except OSError:  # FAT and some network drives have no links; to rename would replace another file
                os.close(os.open(target, os.O_CREAT | os.O_EXCL | _NO_LINK, 0o600))
                made.replace(target)
            if not os.path.samestat(target.lstat(), found):
                raise StorageError(f"another user replaced {target} while it was written: use another folder")
        sync_folder(target.parent)
    except FileExistsError as error:
        raise InvalidInput(there) from error
    except OSError as error:
        raise file_error(error, f"cannot write {target}") from error


def sync_folder(folder: Path) -> None:
    """Bring the names in a folder to the disk, where the system can."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        if error.errno == errno.EIO:  # any other: Windows opens no folder, some file systems sync none
            raise


def time_for_names() -> str:
    """Return this moment in UTC for the name of a file such as a backup: names sort by it."""
    return datetime.now(UTC).strftime("%Y%m%dT%H%M%S.%fZ")
