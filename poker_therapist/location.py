"""From a path or a URL to the location of a database; no engine is imported."""

import os
import re
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePath
from typing import Any, ClassVar, TypeVar
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit

from poker_therapist.errors import InvalidInput, InvalidMigration, escaped

SQLITE_SCHEMES = ("sqlite", "sqlite+atomic")
POSTGRESQL_SCHEMES = ("postgresql", "postgresql+atomic", "postgresql+psycopg", "postgres")

# One letter before a colon is a drive of Windows, and no scheme.
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://|sqlite[+a-z]*:", re.IGNORECASE)

# Where a password may be: between a colon and an @, after the colon of an authority, behind a key such as
# password=. The colon behind a scheme or a drive of Windows is none of these. It is compiled when it is
# first needed, as the next: most programs need neither.
_DOUBTFUL = (
    r"(?is)([a-z][a-z0-9+.-]*://|sqlite[+a-z]*:)?+/*+([a-z]:[\\/])?+.*:.*@|[a-z0-9+.-]+://[^/]*:"
    r"|.*(pass|secret|_key)\w*\s*="
)

# A server without a scheme: a path that reads like this can begin with ./ or be absolute.
_NO_PATH = r"(?is)(?![A-Za-z]:[\\/]|/(?!/)|\.{1,2}[\\/]|\\\\).*(\w\w:/|:.*(@|%40)|pass\w*\s*=)"

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
        slow_ms: a statement that takes so many milliseconds is logged; none is for None.
        given: the path as it was given; `path` unless it was given otherwise.
        on_connect: called with each new connection, before its settings are made.
        sources: the folders of its migrations, if commands in messages need `--sources`.
        yoyo: the options of the yoyo command, if it runs.
    """

    folders: ClassVar[tuple[str, ...]] = ("sqlite",)

    path: Path
    synchronous: str = "NORMAL"
    timeout: float = 30.0
    backups: int = 5
    journal_mode: str = "WAL"
    slow_ms: float | None = None
    given: Path | None = field(default=None, compare=False)
    on_connect: OnConnect | None = field(default=None, compare=False, repr=False)
    sources: tuple[str, ...] = field(default=(), compare=False)
    yoyo: tuple[str, ...] | None = field(default=None, compare=False)

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
        """The database, so that an operator sees which one it is."""
        return str(self.path)

    @property
    def url(self) -> str:
        """The complete URL."""
        names = ("synchronous", "timeout", "backups", "journal_mode", "slow_ms")
        usual = SQLiteLocation(self.path)
        given = {name: getattr(self, name) for name in names if getattr(self, name) != getattr(usual, name)}
        query = f"?{urlencode(given)}" if given else ""
        return f"sqlite:///{quote(self.path.as_posix(), safe='/:', errors='surrogatepass')}{query}"


@dataclass(frozen=True, slots=True)
class PostgreSQLLocation:
    """Where a PostgreSQL database is and how it is reached.

    Attributes:
        conninfo: what libpq needs beyond its own defaults, the `PG*` variables and password files among them.
        name: what an operator calls the database: a URL without a password.
        url: the complete URL, without a password.
        schema: where the tables are; the first of the server's `search_path` unless given.
        timeout: seconds to wait for a free connection, or for the migration of another session.
        connections: how many connections the storage opens at most.
        slow_ms: a statement that takes so many milliseconds is logged; none is for None.
        pooler: the mode of a pooler, if the URL has it: `transaction` or `session`.
        on_connect: called with each new connection, before its settings are made.
        sources: the folders of its migrations, if commands in messages need `--sources`.
        yoyo: the options of the yoyo command, if it runs.
    """

    folders: ClassVar[tuple[str, ...]] = ("postgresql", "citus")

    conninfo: str = field(repr=False)
    name: str
    url: str
    schema: str | None = None
    timeout: float = 30.0
    connections: int = 10
    slow_ms: float | None = None
    pooler: str = ""
    on_connect: OnConnect | None = field(default=None, compare=False, repr=False)
    sources: tuple[str, ...] = field(default=(), compare=False)
    yoyo: tuple[str, ...] | None = field(default=None, compare=False)

    @property
    def db_path(self) -> str:
        """What an app can give to open the database, but for the password."""
        return self.url

    @property
    def described(self) -> str:
        """The database with its port and schema, so that an operator sees which one it is."""
        port = "" if re.search(r":\d+[,/]|[?&]port=", self.name) else ", port 5432"
        return f"{self.name}{port}, schema {self.schema or 'from search_path'}"


Location = SQLiteLocation | PostgreSQLLocation


def command_about(location: Location, *words: str, sources: Iterable[str] = ()) -> str:
    """Return a command about a database, as an operator can paste it into a shell.

    Args:
        location: the database; where the yoyo command runs, what yoyo can do is a call of yoyo's.
        words: the command and its options, as `poker-therapist` takes them, or yoyo's `mark` and `unmark`.
        sources: the folders of the migrations, for `mark` and `unmark`.
    """
    command: tuple[str, ...]
    if location.yoyo is not None and words[0] in ("apply", "rollback", "mark", "unmark"):
        command = ("yoyo", *("--revision" if word == "--to" else word for word in words), *location.yoyo)
    elif words[0] in ("mark", "unmark"):
        options = ("--batch", "--no-config-file", "--database", yoyo_url(location))
        command = ("yoyo", *words, *options, *map(yoyo_source, sources))
    else:
        is_file = isinstance(location, SQLiteLocation) and "?" not in location.url
        command = ("poker-therapist", *words, "--database", location.name if is_file else location.url)
        command += tuple(word for source in location.sources for word in ("--sources", source))
    if os.name == "nt":
        from subprocess import list2cmdline

        return list2cmdline(command)
    from shlex import join

    return join(command)


def yoyo_source(source: str) -> str:
    """Return a folder of migrations for the yoyo command: a pattern if it has a %."""
    if "%" not in source:
        return source
    from glob import escape

    return (escape(source) if Path(source).is_dir() else source).replace("%", "[$-&]")


def yoyo_url(location: Location) -> str:
    """Return the URL of a database for the yoyo command, without a password.

    yoyo cannot read a URL of several servers with ports: those are given behind the `?`.
    """
    url = location.url.replace("://", "+atomic://", 1)
    found = re.fullmatch(r"([^/]+://(?:[^@/]*@)?)([^/?]*:\d+,[^/?]*|[^/?]*,[^/?]*:\d+)(/[^?]*)(\?.*)?", url)
    if found is None:
        return url
    places = [re.fullmatch(r"\[?(.*?)\]?(?::(\d*))?", one) for one in found[2].split(",")]
    hosts, ports = (",".join(one[part] or "" for one in places if one) for part in (1, 2))
    return f"{found[1]}{found[3]}{found[4] + '&' if found[4] else '?'}host={hosts}&port={ports}"


def require_own(location: Location, folders: Iterable[Path]) -> None:
    """Refuse a folder that is named for another engine, by InvalidMigration with the right call."""
    known = {*SQLiteLocation.folders, *PostgreSQLLocation.folders}
    for folder in sorted(set(folders)):
        if folder.name in known.difference(location.folders):
            right = folder.with_name(location.folders[0]).absolute()
            call = command_about(replace(location, yoyo=None, sources=(str(right),)), "apply")
            raise InvalidMigration(
                f"the migrations in {folder} are for another database engine than {location.name}: "
                + (f"use those for {right.name}, with `{call}`" if right.is_dir() else "correct `sources`")
            )


def redacted(name: str) -> str:
    """Return what was given for a database as a message may show it: no part that may hold a password."""
    if not re.match(_DOUBTFUL, unquote(unquote(name))):
        return name
    scheme = re.match(r"[A-Za-z][A-Za-z0-9+.-]*:/*", name)
    return f"{scheme.group() if scheme else ''}…"


def hide_passwords(text: str, given: Iterable[str]) -> str:
    """Return a text without the parts of a command's arguments that may hold a password.

    It is found as it is, and as a path, a message or a URL would show it.
    """
    found = set[str]()
    for one in given:
        if redacted(one) == one:
            continue
        scheme, _, url = one.partition("://")
        if scheme.lower() in POSTGRESQL_SCHEMES and not _unclear(url):
            authority = re.split("[/?]", url, maxsplit=1)[0]
            parts = {authority.rpartition("@")[0].partition(":")[2]}
        else:
            tail = re.split(r":/+|[:=]", one, maxsplit=1)[-1]
            login = one.rpartition("@")[0]
            parts = {tail, str(PurePath(tail)), os.path.normpath(tail)}
            parts |= {login[at.end() :] for at in re.finditer(":", login)}
        for shown in (one, unquote(one)):
            parts |= set(re.findall(r"(?:pass|secret|_key)\w*\s*=\s*([^&\s]*)", shown, re.IGNORECASE))
        for part in parts | {piece for whole in parts for piece in whole.split("/")[:-1]}:
            quoted = quote(part, safe="", errors="replace")
            found |= {part, unquote(part), quoted, repr(part)[1:-1], escaped(part)}
    for part in sorted(found, key=len, reverse=True):
        if len(part) > 2:
            text = text.replace(part, "…")
    return text


def locate(database: str | os.PathLike[str]) -> Location:
    """Return where `database` is: a path, or a URL such as `sqlite:////path/to.db?synchronous=FULL`.

    Raises:
        InvalidInput: it is neither, or an option of the URL is unknown or out of range.
    """
    if not isinstance(database, str | os.PathLike) or isinstance(os.fspath(database), bytes):
        raise InvalidInput(f"the database must be a path or a URL (got {type(database).__name__})")
    name = os.fspath(database)
    if not _URL.match(name):
        return SQLiteLocation(_file(name), given=Path(name))
    scheme = name.partition(":")[0].lower()
    if scheme in SQLITE_SCHEMES:
        return _locate_file(name)
    if scheme in POSTGRESQL_SCHEMES:
        return _locate_server(name)
    raise InvalidInput(
        f"{scheme}:// is not a supported type of database: use sqlite:///path/to.db "
        "or postgresql://host/database"
    )


def _locate_file(name: str) -> SQLiteLocation:
    if re.search(r"[\t\r\n]", name):  # which urlsplit() would drop
        raise InvalidInput(
            f"{redacted(name)!r} is not a valid SQLite URL: write tabs and line ends as %09, %0D and %0A"
        )
    url = None
    with suppress(ValueError):  # which may repeat a password
        url = urlsplit(name)
    if not (url and name.partition(":")[2].startswith("///")) or url.fragment or len(url.path) < 2:
        raise InvalidInput(
            f"{redacted(name)!r} is not a valid SQLite URL: write sqlite:/// before a path or drive "
            "(sqlite:///x.db, sqlite:////folder/x.db, sqlite:///C:/x.db), and %3F and %23 for ? and # in it"
        )
    options = _options(url.query)
    synchronous = options.pop("synchronous", "NORMAL").upper()
    journal_mode = options.pop("journal_mode", "WAL").upper()
    timeout = _number(options, "timeout", "seconds", 30.0)
    slow_ms = _number(options, "slow_ms", "milliseconds", None)
    backups = options.pop("backups", "5")
    if synchronous not in ("NORMAL", "FULL"):
        raise options.refusal("synchronous", synchronous, "NORMAL or FULL")
    if journal_mode not in ("WAL", "DELETE", "TRUNCATE"):
        raise options.refusal("journal_mode", journal_mode, "WAL, DELETE or TRUNCATE")
    if not re.fullmatch(r"\d{1,3}", backups):
        raise options.refusal("backups", backups, "a number from 0 to 999 (0: no backups)")
    if options:
        which = "" if options.is_doubtful else f"{min(options)!r} "
        raise InvalidInput(
            f"unknown option {which}in the URL: use backups, journal_mode, slow_ms, synchronous or timeout"
        )
    path = unquote(url.path[1:])
    return SQLiteLocation(
        _file(path), synchronous, timeout, int(backups), journal_mode, slow_ms, given=Path(path)
    )


class _Options(dict[str, str]):
    """The options of a URL."""

    is_doubtful = False

    def refusal(self, option: str, value: str, rule: str) -> InvalidInput:
        """Return the error for an option, without its value where that may be a part of a password."""
        shown = option if self.is_doubtful else f"{option}={value}"
        return InvalidInput(f"invalid option {shown} in the URL: use {rule}")


def _options(query: str) -> _Options:
    options = _Options(parse_qsl(query, keep_blank_values=True))
    options.is_doubtful = "@" in unquote(query) or re.match(_DOUBTFUL, unquote(query)) is not None
    return options


_Unless = TypeVar("_Unless", float, float | None)


def _number(options: _Options, name: str, unit: str, unless_given: _Unless) -> _Unless:
    if (given := options.pop(name, None)) is None:
        return unless_given
    if not re.fullmatch(r"[0-9]{1,6}(\.[0-9]+)?", given):
        raise options.refusal(name, given, f"a number of {unit}, such as 5 or 0.5, below 1,000,000")
    return float(given)


def _locate_server(name: str) -> PostgreSQLLocation:
    """Return where a URL leads; options that are not ours are libpq's, TLS and several hosts included."""
    try:
        from psycopg import Error, conninfo, pq
    except ImportError as error:
        raise InvalidInput(
            "the PostgreSQL driver is missing: install it with pip install 'poker-therapist[postgresql]'"
        ) from error
    start, _, query = name.partition("://")[2].partition("?")
    options = _options(query)
    own = {name: options[name] for name in ("timeout", "slow_ms") if name in options}
    timeout = _number(options, "timeout", "seconds", 30.0)
    slow_ms = _number(options, "slow_ms", "milliseconds", None)
    connections = options.pop("connections", "10")
    if not re.fullmatch(r"[1-9][0-9]{0,2}", connections):
        raise options.refusal("connections", connections, "a number from 1 to 999")
    pooler = options.pop("pooler", "")
    if pooler not in ("", "session", "transaction"):
        raise options.refusal("pooler", pooler, "transaction or session, the mode of the pooler")
    schema = options.pop("schema", None)
    if schema is not None and not re.fullmatch(r"[A-Za-z_]\w{0,62}", schema):
        raise options.refusal("schema", schema, "a name of letters, digits and _")
    known = pq.Conninfo.get_defaults()
    given: dict[str, Any] = {}
    reason = _unclear(name.partition("://")[2])
    if not reason:
        try:
            given = conninfo.conninfo_to_dict(
                f"postgresql://{start}" + (f"?{urlencode(options, quote_via=quote)}" if options else "")
            )
        except Error as error:
            unknown = options.keys() - {one.keyword.decode() for one in known}
            # libpq's message continues with a part of the URL, which may be a part of the password.
            reason = re.split(r"[:\"«„“]", str(error))[0].strip()
            if unknown and not options.is_doubtful:
                reason += f" {min(unknown)!r}"
        except UnicodeError:  # whose repr has the whole URL
            reason = "it is not UTF-8"
    if reason:  # raised here: the error above would be shown with this one
        raise InvalidInput(
            f"the PostgreSQL URL is not valid ({reason}): use postgresql://user@host:5432/database"
        )
    defaults = {one.keyword.decode(): one.val.decode() for one in known if one.val}
    # By libpq's mark of what is not to be shown.
    secret = {one.keyword.decode() for one in known if one.dispchar}
    public = {
        key: redacted(str(value)) if "://" in str(value) else str(value)
        for key, value in given.items()
        if key not in secret
    }
    whole = {**defaults, **public}
    ours = own | {"connections": connections}
    ours |= {key: value for key, value in (("schema", schema), ("pooler", pooler)) if value}
    unusual = {key: value for key, value in ours.items() if (key, value) not in _USUAL}
    return PostgreSQLLocation(
        conninfo.make_conninfo("", **given),
        _url(_named(whole)),
        _url(public | unusual),
        schema,
        timeout,
        int(connections),
        slow_ms,
        pooler,
    )


def _unclear(url: str) -> str:
    """Return why it is not clear which part of a URL, without its scheme, is the password; empty if it is."""
    authority = re.split("[/?]", url, maxsplit=1)[0]
    login, _, hosts = authority.rpartition("@")
    path, _, query = url[len(authority) :].partition("?")
    places = [re.fullmatch(r"(\[[^\]]*\]|[^\[\]:]*)(:\d*)?", one) for one in hosts.split(",")]
    if "@" in login or re.search("[@:]", path) or ("@" in query and not path) or not all(places):
        return "write %40, %2F, %3A, %3F and %25 for @, /, :, ? and % in a user, password or name"
    if re.search(r"[\x00-\x1f\x7f]", url):
        return "write %0A and so on for control characters in it"
    return ""


# The defaults of our options, which a URL need not repeat.
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


def _file(name: str) -> Path:
    if "\0" in name or not name.strip():
        raise InvalidInput(f"{redacted(name)!r} is not a valid path: give a file, such as RexVoice.db")
    if re.match(_NO_PATH, name):
        raise InvalidInput(
            f"{redacted(name)!r} looks like a server's address without its scheme: write postgresql:// "
            "before it, or ./ before a path"
        )
    if name == ":memory:":
        raise InvalidInput(
            "an in-memory database would be a different one in each thread: use a file in a temporary folder"
        )
    path = os.path.abspath(name)  # noqa: PTH100  # Path.absolute() would keep a/../b
    return Path(f"/{path.lstrip('/')}" if path.startswith("//") else path)
