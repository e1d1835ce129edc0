"""An SQLite file: finding it, opening it, and translating SQLite's errors."""

import contextlib
import functools
import os
import re
import shutil
import sqlite3
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePath
from typing import Any
from urllib.parse import quote, urlencode

from poker_therapist.database import CLOSED
from poker_therapist.errors import (
    DatabaseBusy,
    DatabaseFull,
    DatabaseNotFound,
    DatabaseReadOnly,
    DatabaseUnreadable,
    InvalidInput,
    PokerTherapistError,
    SchemaMissing,
    StorageClosed,
    StorageError,
    counted,
    escape_driver_error,
    escaped,
)
from poker_therapist.location import SQLiteLocation, command_about, locate


def locate_parsed(uri: Any) -> SQLiteLocation:
    """Return the location in a URL that yoyo has parsed."""
    options = f"?{urlencode(uri.args, errors='surrogateescape')}" if uri.args else ""
    location = locate(f"sqlite://{uri.hostname or ''}/{uri.database or ''}{options}")
    assert isinstance(location, SQLiteLocation)  # noqa: S101  # for the type
    return location


def is_there(path: Path) -> bool:
    """Return whether there is something at a path.

    Raises:
        DatabaseNotFound: there is no folder for it, or one may not even look.
    """
    try:
        if not (found := path.exists()) and not (folder := Path(os.path.realpath(path)).parent).is_dir():
            raise DatabaseNotFound(f"there is no folder {folder}: create it, or correct the path {path}")
    except OSError as error:  # a folder that may not be entered, a name that is too long
        raise DatabaseNotFound(f"cannot access {path} ({error.strerror}): correct the path") from error
    return found


def find_file(path: Path, *, create: bool) -> None:
    """Make sure that there is a file at `path`, an empty one for its owner alone if `create`.

    Raises:
        DatabaseNotFound: there is none, or no folder for one.
        DatabaseReadOnly: none can be made there.
    """
    if is_there(path):
        if path.is_dir():
            raise DatabaseNotFound(f"{path} is a folder: give the path of a database file")
        if create:
            _require_not_planted(path)
        return
    if not create:
        raise DatabaseNotFound(
            f"there is no database {path}: correct the path, or create one with "
            f"`{command_about(SQLiteLocation(path), 'apply')}`"
        )
    _require_new_sqlite()
    try:
        # Through a symbolic link whose target does not exist yet, the target is created.
        descriptor = os.open(os.path.realpath(path), os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
        if hasattr(os, "fchmod"):
            os.fchmod(descriptor, 0o600)  # whatever the umask takes away
        os.close(descriptor)
    except FileExistsError:  # another process was quicker
        pass
    except OSError as error:
        raise DatabaseReadOnly(
            f"cannot create {path} ({error.strerror}): correct the permissions of its folder"
        ) from error


def _require_not_planted(path: Path) -> None:
    """Refuse to fill an empty file, or to follow a link, that a stranger has put into a shared folder.

    A stranger is neither this user, nor root, nor the owner of the folder.
    """
    found, folder = path.lstat(), path.parent.stat()
    if (found.st_size and not path.is_symlink()) or not folder.st_mode & 0o022 or not hasattr(os, "geteuid"):
        return
    if found.st_uid not in (os.geteuid(), 0, folder.st_uid):
        raise DatabaseReadOnly(
            f"{path} was created by another user, who could read what is saved: remove it, or use a folder "
            "that no other user can write to"
        )


def open_connection(location: SQLiteLocation) -> sqlite3.Connection:
    """Return a new connection to an existing file, with the settings of every connection of ours.

    A connection that takes the file for immutable is good for a single look: see `immutable_state`.

    Raises:
        StorageError: SQLite is too old.
        sqlite3.Error: the driver's error; `translate_error` turns it into one of ours.
    """
    _require_new_sqlite()
    # SQLite puts its log beside the file that a symbolic link leads to.
    path = Path(os.path.realpath(location.path))
    mode = "mode=rw" if immutable_state(path) is None else "mode=ro&immutable=1"
    connection = sqlite3.connect(
        uri(path, mode),
        uri=True,
        timeout=location.timeout,
        isolation_level=None,
        check_same_thread=False,  # close() may come from another; otherwise each thread has its own
    )
    try:
        if location.on_connect is not None:
            location.on_connect(connection)
            connection.row_factory, connection.text_factory = None, str
        # Without a log, FULL leaves the name of a deleted journal on the disk: after a power failure SQLite
        # would undo with it what was committed.
        level = "EXTRA" if location.synchronous == "FULL" else location.synchronous
        connection.execute(f"PRAGMA synchronous = {level}")
        connection.execute("PRAGMA foreign_keys = ON")
        connection.execute("PRAGMA secure_delete = ON")
        if location.on_connect is None:  # otherwise triggers may need the functions that the app has given it
            _trust(connection, False)
    except BaseException:
        connection.close()
        raise
    return connection


_SECONDS = 10  # in which an unharmed file of a usual size is read


class Watch:
    """Ends the reading of a malicious file, for example of a view or a column without end.

    What counts is the time of the processor in this thread: not what an operator takes to answer a question,
    and not what the app's other threads do.
    """

    def __init__(self, seconds: float, most: int | None = None) -> None:
        """Begin to count; take `most` for the bytes that may be read, half of it in one value."""
        self._end = time.thread_time() + seconds
        self._most = self._left = most or 0

    def is_over(self) -> bool:
        """Return whether the time is used up."""
        return time.thread_time() > self._end

    def attach(self, connection: sqlite3.Connection, *, every: int = 10_000, trusted: bool = False) -> None:
        """Watch over a connection, and let its file's schema do as little as can be unless it is trusted."""
        _trust(connection, trusted)
        connection.execute("PRAGMA cell_size_check = ON")
        connection.set_progress_handler(self.is_over, every)
        if self._most:
            connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, self._most // 2)
            connection.setlimit(sqlite3.SQLITE_LIMIT_LIKE_PATTERN_LENGTH, 1000)
            connection.row_factory = self._count

    def _count(self, _cursor: sqlite3.Cursor, row: tuple[Any, ...]) -> tuple[Any, ...]:
        self._left -= 100 + sum(len(part) for part in row if isinstance(part, str | bytes))
        if self._left < 0:
            self._left = self._most
            raise sqlite3.DataError("too much data to read")
        return row


def watched(connection: sqlite3.Connection, path: Path, most: int | None = None) -> sqlite3.Connection:
    """Let statements on a connection end within some seconds, and one more for each two million bytes."""
    size = path.stat().st_size if path.exists() else 0
    Watch(_SECONDS + size / 2_000_000, most).attach(connection)
    return connection


def end_watch(connection: sqlite3.Connection) -> None:
    """Watch over a connection no more, and let its file's schema do what it may."""
    _trust(connection, True)
    connection.set_progress_handler(None, 0)
    connection.row_factory = None
    for limit in (sqlite3.SQLITE_LIMIT_LENGTH, sqlite3.SQLITE_LIMIT_LIKE_PATTERN_LENGTH):
        connection.setlimit(limit, 2**31 - 1)  # which SQLite cuts to what it was compiled for


@functools.cache
def _can_distrust() -> bool:
    """Return whether this SQLite lets CHECKs call `json_valid` all the same; 3.38 to 3.40 do not."""
    with contextlib.closing(sqlite3.connect(":memory:")) as connection:
        connection.execute("PRAGMA trusted_schema = OFF")
        with contextlib.suppress(sqlite3.Error):
            connection.execute("CREATE TABLE t (value CHECK (json_valid(value)))")
            return True
    return False


def _trust(connection: sqlite3.Connection, trusted: bool) -> None:
    """Let what a schema calls be all functions and modules, or those alone that can do no harm."""
    if _can_distrust():
        connection.execute(f"PRAGMA trusted_schema = {'ON' if trusted else 'OFF'}")
    if sys.version_info >= (3, 12):
        connection.setconfig(sqlite3.SQLITE_DBCONFIG_DEFENSIVE, not trusted)


def _require_new_sqlite() -> None:
    """Refuse an SQLite that would take the database for a damaged one.

    Raises:
        StorageError: it is too old.
    """
    if sqlite3.sqlite_version_info < _OLDEST_SQLITE:
        needed = ".".join(map(str, _OLDEST_SQLITE))
        raise StorageError(
            f"this Python has SQLite {sqlite3.sqlite_version}, but {needed} or newer is required (for STRICT "
            "tables): use a Python that was built with a newer SQLite"
        )


def uri(path: PurePath, options: str) -> str:
    """Return the URI by which SQLite opens a file.

    `Path.as_uri` would name the server of a Windows share as the authority, which SQLite refuses.
    """
    name = path.as_posix()
    return f"file://{'' if name.startswith('/') else '/'}{quote(os.fsencode(name), safe='/:')}?{options}"


def immutable_state(path: Path) -> tuple[int, int, int] | None:
    """Return what identifies the content of a file that can only be read as immutable; None for any other.

    A database in WAL mode cannot be read where the files beside it cannot be created: in a read-only
    folder, on a read-only disk. Without a WAL no process has it open, and all data is in the one file. But a
    process with more permissions may open and write it at any time, so this must be asked again each time.
    """
    path = Path(os.path.realpath(path))
    if os.access(path.parent, os.W_OK) or Path(f"{path}-wal").exists():
        return None
    with contextlib.suppress(OSError), path.open("rb") as file:
        if file.read(20)[18:20] == b"\2\2":  # https://sqlite.org/fileformat.html: write and read version
            found = os.fstat(file.fileno())
            return found.st_ino, found.st_mtime_ns, found.st_size
    return None


def enlarge_cache(connection: sqlite3.Connection) -> None:
    """Let a connection that is kept hold the inner pages of the indexes of ten million rows."""
    connection.execute("PRAGMA cache_size = -16384")  # KiB


def set_journal_mode(connection: sqlite3.Connection, location: SQLiteLocation) -> None:
    """Let readers and a writer work concurrently, in WAL mode, unless the URL has another mode.

    WAL is kept in the file, so only the first connection writes.

    SQLite does not wait for the lock here as it does elsewhere: of many processes on a new file some fail at
    once, so this waits for them. A database that may not be written stays as it is.
    """
    deadline = time.monotonic() + location.timeout
    while True:
        try:
            (mode,) = connection.execute("PRAGMA journal_mode").fetchone()
            if mode.upper() != location.journal_mode:
                connection.execute(f"PRAGMA journal_mode = {location.journal_mode}").fetchone()
        except sqlite3.OperationalError as error:
            code = error.sqlite_errorcode & 0xFF
            if code == sqlite3.SQLITE_READONLY:
                return
            if code != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
            time.sleep(0.005)
        else:
            return


# The first version with STRICT tables; https://sqlite.org/stricttables.html
_OLDEST_SQLITE = (3, 37, 0)

# How integrity_check reports rows that violate a constraint, in a file that is not damaged.
_CONSTRAINTS = re.compile(r"NULL value in |CHECK constraint failed in |non-\w+ value in |\w+ value in ")

# By SQLite's primary result code; https://sqlite.org/rescode.html
_EXPLANATIONS: dict[int, tuple[type[PokerTherapistError], str]] = {
    sqlite3.SQLITE_BUSY: (
        DatabaseBusy,
        "{path} is still locked after {waited}{holder}: wait for the migration or transaction to end",
    ),
    sqlite3.SQLITE_READONLY: (
        DatabaseReadOnly,
        "{path} is not writable: correct the permissions of the file and its folder",
    ),
    sqlite3.SQLITE_FULL: (
        DatabaseFull,
        "no space is left for {path}: free disk space; nothing was changed",
    ),
    sqlite3.SQLITE_IOERR: (
        StorageError,
        "{path} cannot be read or written ({reason}): check the disk and the resource limits of this process",
    ),
    sqlite3.SQLITE_INTERRUPT: (
        StorageError,
        "reading {path} took too long ({reason}): check its schema for a view that may never end",
    ),
    sqlite3.SQLITE_NOTADB: (
        DatabaseUnreadable,
        "{path} is not an SQLite database: correct the path",
    ),
    sqlite3.SQLITE_CORRUPT: (
        DatabaseUnreadable,
        "{path} is damaged ({reason}): restore a backup",
    ),
    sqlite3.SQLITE_CANTOPEN: (
        DatabaseNotFound,
        "cannot open {path} ({reason}): check the path and the permissions of its folder",
    ),
    sqlite3.SQLITE_CONSTRAINT: (
        InvalidInput,
        "the database rejected a value ({reason}): correct it",
    ),
    sqlite3.SQLITE_TOOBIG: (
        InvalidInput,
        "a value is too large for the database ({reason}): save it in parts",
    ),
}


def translate_error(error: Exception, location: SQLiteLocation) -> PokerTherapistError:
    """Return our own error for one that the driver raised about the database at `location`."""
    # sqlite3 repeats a text that is no UTF-8, and that may be a player's.
    reason = re.sub(r"(Could not decode to UTF-8 .*?) with text .*", r"\1", str(error), flags=re.DOTALL)
    reason = escaped(reason)
    escape_driver_error(error)
    code = getattr(error, "sqlite_errorcode", 0)
    # A full disk has no room for the index of the log either, which SQLite reports as it does a broken disk.
    is_full = code == sqlite3.SQLITE_IOERR_SHMSIZE and shutil.disk_usage(location.path.parent).free < 2**16
    code = sqlite3.SQLITE_FULL if is_full else code & 0xFF
    kind: type[PokerTherapistError]
    if code == sqlite3.SQLITE_CORRUPT and not _is_damaged(location):
        kind, sentence = StorageError, "{path}: {reason}"
    elif code in _EXPLANATIONS:
        kind, sentence = _EXPLANATIONS[code]
    elif not isinstance(error, sqlite3.Error) or isinstance(error, sqlite3.DataError):
        kind, sentence = InvalidInput, "a value cannot be stored ({reason}): correct it"
    elif "closed database" in reason:
        kind, sentence = StorageClosed, CLOSED
    elif "no such table" in reason or "no such column" in reason:
        kind, sentence = (
            SchemaMissing,
            "the schema of {path} is incomplete ({reason}): see what is missing with `{status}`",
        )
    else:
        kind, sentence = StorageError, "{path}: {reason}"
    path, status = escaped(str(location.path)), escaped(command_about(location, "status"))
    waited = counted(location.timeout, "second")
    holder = _holder(location.path) if kind is DatabaseBusy else ""
    return kind(sentence.format(path=path, reason=reason, waited=waited, holder=holder, status=status))


def locked() -> sqlite3.OperationalError:
    """Return SQLite's error for a database that another connection has locked."""
    error = sqlite3.OperationalError("database is locked")
    error.sqlite_errorcode = sqlite3.SQLITE_BUSY
    return error


def is_written(connection: sqlite3.Connection) -> bool:
    """Return whether another connection has the write lock."""
    ((timeout,),) = connection.execute("PRAGMA busy_timeout").fetchall()
    connection.execute("PRAGMA busy_timeout = 0")
    try:
        connection.execute("BEGIN IMMEDIATE")
    except sqlite3.OperationalError as error:
        return error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_BUSY
    finally:
        connection.rollback()
        connection.execute(f"PRAGMA busy_timeout = {timeout}")
    return False


def _holder(path: Path) -> str:
    """Return which process has the write lock, where Linux knows (https://sqlite.org/walformat.html)."""
    with contextlib.suppress(OSError, ValueError):
        locks = [line.split() for line in Path("/proc/locks").read_text().splitlines()]
        for file, byte in ((Path(f"{path}-shm"), 120), (path, 0x40000001)):
            inode = str(file.stat().st_ino) if file.exists() else ""
            for _, kind, _, access, process, place, first, last in (one for one in locks if len(one) == 8):
                is_it = (kind, access, place.rpartition(":")[2]) == ("POSIX", "WRITE", inode)
                if is_it and int(first) <= byte <= int(last) and int(process) > 0:
                    name = Path(f"/proc/{process}/comm").read_text().strip()
                    return f" (by process {process}, {escaped(name)})"
    return ""


@contextlib.contextmanager
def translating_errors(location: SQLiteLocation) -> Iterator[None]:
    """Raise an error of this package for one that the driver raises in a block."""
    try:
        yield
    except sqlite3.Error as error:
        raise translate_error(error, location) from error


def integrity_error(connection: sqlite3.Connection, *, of_indexes: bool = True) -> str:
    """Return what SQLite finds damaged in a database, empty if nothing is.

    An app's NULL in a NOT NULL column is no damage, nor is an index whose collation this connection does not
    know: without those, the pages and tables are checked.

    Args:
        connection: the database.
        of_indexes: whether each row is looked for in each index, which takes as long again.
    """
    length = connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, 2**31 - 1)
    connection.execute("PRAGMA ignore_check_constraints = ON")  # which may call anything, and are no damage
    try:
        return _integrity_error(connection, ("integrity_check", "quick_check")[not of_indexes :])
    finally:
        connection.execute("PRAGMA ignore_check_constraints = OFF")
        connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, length)


def _integrity_error(connection: sqlite3.Connection, checks: Sequence[str]) -> str:
    for check in checks:
        try:
            # Of no number it would stop at a hundred, which may all be of rows.
            found = connection.execute(f"PRAGMA {check}({2**31 - 1})")
            return next((line for (line,) in found if line != "ok" and not _CONSTRAINTS.match(line)), "")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_ERROR:
                raise  # otherwise: an unknown collation, function or module
    return ""


def _is_damaged(location: SQLiteLocation) -> bool:
    """Return whether SQLite's own check finds damage; so it is where the check cannot even run."""
    try:
        with contextlib.closing(open_connection(location)) as connection:
            return bool(integrity_error(watched(connection, location.path)))
    except sqlite3.Error:
        return True
