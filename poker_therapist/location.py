"""From a path or a URL to the location of a database, and new files beside it; no engine is imported."""

import errno
import os
import re
import stat
import string
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit

from poker_therapist.errors import InvalidInput, StorageError, file_error

try:
    import fcntl
except ImportError:  # Windows, which deletes no file that is open
    fcntl = None  # type: ignore[assignment]

SQLITE_SCHEMES = ("sqlite", "sqlite+atomic")
POSTGRESQL_SCHEMES = ("postgresql", "postgresql+atomic", "postgresql+psycopg", "postgres")

# One letter before a colon is a drive of Windows, and no scheme.
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://|sqlite[+a-z]*:", re.IGNORECASE)

_LOWER = str.maketrans(string.ascii_uppercase, string.ascii_lowercase)


# Takes a connection of sqlite3's or psycopg's.
OnConnect = Callable[[Any], object]


@dataclass(frozen=True, slots=True)
class SQLiteLocation:
    """Where an SQLite database is and how it is opened.

    Attributes:
        path: the absolute path of the file.
        synchronous: NORMAL survives a crash of the app; FULL also survives a power failure.
        timeout: seconds to wait for another connection's lock.
        backups: how many backups to keep; none is made for 0.
        journal_mode: WAL; DELETE or TRUNCATE where processes cannot share memory, as on a network drive.
        given: the path as it was given; `path` unless it was given otherwise.
        on_connect: called with each new connection, before its settings are made.
    """

    path: Path
    synchronous: str = "NORMAL"
    timeout: float = 30.0
    backups: int = 5
    journal_mode: str = "WAL"
    given: Path | None = field(default=None, compare=False)
    on_connect: OnConnect | None = field(default=None, compare=False, repr=False)

    @property
    def db_path(self) -> Path:
        """What the app gave: the path as it was."""
        return self.given or self.path

    @property
    def name(self) -> str:
        """What an operator calls the database: its path."""
        return str(self.path)

    @property
    def described(self) -> str:
        """The database, for an operator who must see which one it is."""
        return str(self.path)

    @property
    def yoyo(self) -> str:
        """How an operator calls yoyo for it."""
        return "yoyo"


@dataclass(frozen=True, slots=True)
class PostgreSQLLocation:
    """Where a PostgreSQL database is and how it is reached.

    Attributes:
        conninfo: what libpq needs beyond its own defaults, the `PG*` variables and password files among them.
        name: what an operator calls the database: a URL without a password.
        url: the complete URL, without a password.
        schema: where the tables are; what the server's `search_path` says unless given.
        timeout: seconds to wait for a free connection, or for somebody else's migration.
        connections: how many connections the storage opens at most.
        on_connect: called with each new connection, before its settings are made.
    """

    conninfo: str = field(repr=False)
    name: str
    url: str
    schema: str | None = None
    timeout: float = 30.0
    connections: int = 10
    on_connect: OnConnect | None = field(default=None, compare=False, repr=False)

    @property
    def db_path(self) -> str:
        """What an app can give to open the database, but for the password."""
        return self.url

    @property
    def described(self) -> str:
        """The database with its port and schema, for an operator who must see which one it is."""
        port = "" if re.search(r":\d+[,/]|[?&]port=", self.name) else ", port 5432"
        return f"{self.name}{port}, schema {self.schema or 'as search_path says'}"

    @property
    def yoyo(self) -> str:
        """How an operator calls yoyo for it; without the option it would be about the file of yoyo.ini."""
        return "yoyo -c yoyo.postgresql.ini"


Location = SQLiteLocation | PostgreSQLLocation


def locate(database: str | os.PathLike[str]) -> Location:
    """Return where `database` is: a path, or a URL such as `sqlite:////path/to.db?synchronous=FULL`.

    Raises:
        InvalidInput: it is neither, or an option of the URL is unknown or out of range.
    """
    if not isinstance(database, str | os.PathLike) or isinstance(os.fspath(database), bytes):
        raise InvalidInput(f"the database must be a path or a URL, not {type(database).__name__}")
    name = os.fspath(database)
    if not _URL.match(name):
        return SQLiteLocation(_file(name), given=Path(name))
    scheme = name.partition(":")[0].lower()
    if scheme in SQLITE_SCHEMES:
        return _locate_file(name)
    if scheme in POSTGRESQL_SCHEMES:
        return _locate_server(name)
    raise InvalidInput(
        f"{scheme}:// is no database that this version knows: use sqlite:///path/to.db "
        "or postgresql://host/database"
    )


def _locate_file(name: str) -> SQLiteLocation:
    if re.search(r"[\t\r\n]", name):  # which urlsplit() would drop
        raise InvalidInput(f"{name!r} names no file: write %09, %0D and %0A for a tab and line ends in it")
    try:
        url = urlsplit(name)
    except ValueError as error:
        raise InvalidInput(f"{name!r} names no file ({error}): use sqlite:///path/to.db") from error
    if not name.partition(":")[2].startswith("///") or url.fragment or len(url.path) < 2:
        raise InvalidInput(
            f"{name!r} names no file: write sqlite:/// before a path and before a drive (sqlite:///C:/x.db), "
            "so that an absolute path follows four slashes, and %3F and %23 for ? and # in it"
        )
    options = dict(parse_qsl(url.query, keep_blank_values=True))
    synchronous = options.pop("synchronous", "NORMAL").upper()
    journal_mode = options.pop("journal_mode", "WAL").upper()
    timeout = _seconds(options)
    backups = options.pop("backups", "5")
    if synchronous not in ("NORMAL", "FULL"):
        raise InvalidInput(f"synchronous={synchronous} in the URL: it must be NORMAL or FULL")
    if journal_mode not in ("WAL", "DELETE", "TRUNCATE"):
        raise InvalidInput(f"journal_mode={journal_mode} in the URL: it must be WAL, DELETE or TRUNCATE")
    if not re.fullmatch(r"\d{1,3}", backups):
        raise InvalidInput(f"backups={backups} in the URL: it must be how many to keep, 0 for none")
    if options:
        raise InvalidInput(
            f"unknown option {min(options)!r} in the URL: there are backups, journal_mode, synchronous "
            "and timeout"
        )
    path = unquote(url.path[1:])
    return SQLiteLocation(_file(path), synchronous, timeout, int(backups), journal_mode, given=Path(path))


def _seconds(options: dict[str, str]) -> float:
    timeout = options.pop("timeout", "30")
    if not re.fullmatch(r"\d{1,6}(\.\d+)?", timeout):
        raise InvalidInput(f"timeout={timeout} in the URL: it must be a number of seconds")
    return float(timeout)


def _locate_server(name: str) -> PostgreSQLLocation:
    """Return where a URL leads; options that are not ours are libpq's, TLS and several hosts included."""
    try:
        from psycopg import Error, conninfo, pq
    except ImportError as error:
        raise InvalidInput(
            "PostgreSQL needs its driver: install it with pip install 'poker-therapist[postgresql]'"
        ) from error
    start, _, query = name.partition("://")[2].partition("?")
    options = dict(parse_qsl(query, keep_blank_values=True))
    patience = options.get("timeout", "30")
    timeout = _seconds(options)
    connections = options.pop("connections", "10")
    if not re.fullmatch(r"[1-9]\d{0,2}", connections):
        raise InvalidInput(f"connections={connections} in the URL: it must be a number from 1 to 999")
    schema = options.pop("schema", None)
    if schema is not None and not re.fullmatch(r"[A-Za-z_]\w{0,62}", schema):
        raise InvalidInput(f"schema={schema} in the URL: it must be a name of letters, digits and _")
    try:
        given = conninfo.conninfo_to_dict(
            f"postgresql://{start}" + (f"?{urlencode(options, quote_via=quote)}" if options else "")
        )
        known = pq.Conninfo.get_defaults()
    except Error as error:
        # libpq repeats the URL, password and all.
        reason = re.sub(r"\S*://\S*", "…", " ".join(str(error).split()))
        raise InvalidInput(
            f"a URL of PostgreSQL cannot be read ({reason}): use postgresql://user@host:5432/database"
        ) from error
    defaults = {one.keyword.decode(): one.val.decode() for one in known if one.val}
    secret = {
        one.keyword.decode() for one in known if one.dispchar
    }  # libpq's mark of what is not to be shown
    whole = {**defaults, **{key: str(value) for key, value in given.items()}}
    if schema:  # as the server does with a name that is not quoted
        schema = schema.translate(_LOWER)
    ours = {"timeout": patience, "connections": connections} | ({"schema": schema} if schema else {})
    unusual = {key: value for key, value in ours.items() if (key, value) not in _USUAL}
    shown = {key: str(value) for key, value in given.items() if key not in secret}
    return PostgreSQLLocation(
        conninfo.make_conninfo("", **given),
        _url(_named(whole)),
        _url(shown | unusual),
        schema,
        timeout,
        int(connections),
    )


# The options of ours that a URL need not say.
_USUAL = {("timeout", "30"), ("connections", "10")}


def _named(settings: dict[str, str]) -> dict[str, str]:
    """Return the settings that an operator calls a database by; without a name it is called as its user."""
    named = {key: settings[key] for key in settings.keys() & {"host", "port", "dbname"}}
    if set(named.get("port", "").split(",")) <= {"", "5432"}:
        named.pop("port", None)
    return {"dbname": settings.get("user", ""), **named}


def _url(settings: dict[str, str]) -> str:
    """Return the URL of a server's database, with everything quoted that has to be."""
    settings = dict(settings)
    hosts, ports = settings.pop("host", "").split(","), settings.pop("port", "").split(",")
    name, role = settings.pop("dbname", ""), settings.pop("user", "")
    if len(ports) == 1:
        ports *= len(hosts)
    if any(host.startswith(("/", "@")) for host in hosts):  # the folder of a socket
        settings = {"host": ",".join(hosts)} | ({"port": ",".join(ports)} if any(ports) else {}) | settings
        places = ""
    else:
        places = ",".join(
            (f"[{quote(host, safe=':')}]" if ":" in host else quote(host, safe=""))
            + (f":{port}" if port else "")
            for host, port in zip(hosts, ports, strict=False)
        )
    login = f"{quote(role, safe='')}@" if role else ""
    query = urlencode(settings, quote_via=quote, safe="/,") if settings else ""
    return f"postgresql://{login}{places}/{quote(name, safe='')}" + (f"?{query}" if query else "")


def time_for_names() -> str:
    """Return this moment in UTC for the name of a file beside a database, a backup say: names sort by it."""
    return datetime.now(UTC).strftime("%Y%m%dT%H%M%S.%fZ")


def _file(name: str) -> Path:
    if "\0" in name or not name.strip():
        raise InvalidInput(f"{name!r} is no path of a database: name a file, such as RexVoice.db")
    if name == ":memory:":
        raise InvalidInput(
            "a database in memory would be a different one for every thread: use a file in a temporary folder"
        )
    path = os.path.abspath(name)  # noqa: PTH100  # Path.absolute() would keep a/../b
    return Path(f"/{path.lstrip('/')}" if path.startswith("//") else path)


# Files. Others may be able to write in the folder that they are made in.

_NO_LINK = getattr(os, "O_NOFOLLOW", 0)
# In a private folder: what its maker holds the lock of, and what is made.
_OWNER, _NEW = "owner", "new"
_MADE_THERE = re.compile(r"owner|(new|(work|before|after)\.db)(-journal|-wal|-shm|-mj\w+)?")


class PrivateFolder:
    """A folder that nobody else may enter, for files that are being made: nobody can put a link there.

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

    def remove(self, names: Iterable[str]) -> None:
        """Remove files of it; others may do so, too."""
        for name in names:
            with suppress(FileNotFoundError):
                os.unlink(self._at / name, dir_fd=self.descriptor)


@contextmanager
def private_folder(parent: Path, prefix: str) -> Iterator[PrivateFolder]:
    """Make a private folder in another one; remove it, and the files in it, when the block ends.

    Its maker keeps a lock, which goes with the process: so others see what a killed one has left.
    """
    with ExitStack() as closing:
        while True:
            path = Path(tempfile.mkdtemp(prefix=prefix, dir=parent)).absolute()
            with suppress(FileNotFoundError):  # somebody took it for one that was left, in this moment
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
            with suppress(OSError):  # the disk has become read-only, say: what was done may have been done
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
            with suppress(OSError):  # no folder, somebody else's, or gone meanwhile
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
    """Take a lock that goes with this process; return false if it is taken, None if there are no such locks.

    Others see it who ask for it, be it in another container; nobody else does, SQLite neither.
    """
    try:
        if fcntl is None:
            return None
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except OSError as error:
        return False if error.errno in (errno.EAGAIN, errno.EACCES) else None
    return True


@contextmanager
def new_file(target: Path) -> Iterator[tuple[Path, int]]:
    """Make a file, for its owner alone, that has its name only when it is whole; it never replaces another.

    Gives the path at which it is made, in a private folder beside its place, and its descriptor, which is
    closed after the block.

    Raises:
        InvalidInput: something is at its place, be it a link.
        StorageError: it cannot be written; also for what the system says in the block.
    """
    there = f"{target} is there already: choose another name"
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
                raise StorageError(f"somebody has replaced {target} while it was made: use another folder")
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
