"""From a path or URL to a place, and from a .sql file to the queries for it: which engines there are."""

import os
import re
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from urllib.parse import parse_qsl, unquote, urlsplit

import aiosql

from poker_therapist.errors import InvalidInput

SCHEMES = ("sqlite", "sqlite+atomic")


@dataclass(frozen=True, slots=True)
class Location:
    """Where a database is and how it is opened.

    Attributes:
        path: the absolute path of the file.
        synchronous: NORMAL loses nothing when the app crashes, FULL nor when the power fails.
        timeout: seconds to wait for another connection's lock.
        backups: how many backups to keep; none is made for 0.
    """

    path: Path
    synchronous: str = "NORMAL"
    timeout: float = 30.0
    backups: int = 5


def locate(database: str | os.PathLike[str]) -> Location:
    """Return where `database` is: a path, or a URL such as `sqlite:////path/to.db?synchronous=FULL`.

    Raises:
        InvalidInput: it is neither, or an option of the URL is unknown or out of range.
    """
    if not isinstance(database, str | os.PathLike) or isinstance(os.fspath(database), bytes):
        raise InvalidInput(f"the database must be a path or a URL, not {type(database).__name__}")
    name = os.fspath(database)
    if not re.match(r"[A-Za-z][A-Za-z0-9+.-]*://|sqlite[+a-z]*:", name, re.IGNORECASE):
        return Location(_file(name))
    if re.search(r"[\t\r\n]", name):  # which urlsplit() would drop
        raise InvalidInput(f"{name!r} names no file: write %09, %0D and %0A for a tab and line ends in it")
    try:
        url = urlsplit(name)
    except ValueError as error:
        raise InvalidInput(f"{name!r} names no file ({error}): use sqlite:///path/to.db") from error
    if url.scheme not in SCHEMES:
        raise InvalidInput(
            f"{url.scheme}:// is no database that this version knows: use sqlite:///path/to.db"
        )
    if url.netloc or url.fragment or len(url.path) < 2:
        raise InvalidInput(
            f"{name!r} names no file: three slashes before a relative path, four before an absolute one, "
            "and %3F and %23 for ? and # in it"
        )
    options = dict(parse_qsl(url.query, keep_blank_values=True))
    synchronous = options.pop("synchronous", "NORMAL").upper()
    timeout = options.pop("timeout", "30")
    backups = options.pop("backups", "5")
    if synchronous not in ("NORMAL", "FULL"):
        raise InvalidInput(f"synchronous={synchronous} in the URL: it must be NORMAL or FULL")
    if not re.fullmatch(r"\d{1,6}(\.\d+)?", timeout):
        raise InvalidInput(f"timeout={timeout} in the URL: it must be a number of seconds")
    if not re.fullmatch(r"\d{1,3}", backups):
        raise InvalidInput(f"backups={backups} in the URL: it must be how many to keep, 0 for none")
    if options:
        raise InvalidInput(
            f"unknown option {min(options)!r} in the URL: there are backups, synchronous and timeout"
        )
    return Location(_file(unquote(url.path[1:])), synchronous, float(timeout), int(backups))


def _file(name: str) -> Path:
    if "\0" in name or not name.strip():
        raise InvalidInput(f"{name!r} is no path of a database: name a file, such as RexVoice.db")
    if name == ":memory:":
        raise InvalidInput(
            "a database in memory would be a different one for every thread: use a file in a temporary folder"
        )
    path = os.path.abspath(name)  # noqa: PTH100  # Path.absolute() would keep a/../b
    return Path(f"/{path.lstrip('/')}" if path.startswith("//") else path)


def read_queries(path: Path) -> dict[str, str]:
    """Return the queries of a .sql file by name, ready for a connection.

    Each `:name` becomes the number of that parameter in the query's `-- name:` line, so that values are bound
    as a tuple, which costs less than a dict on every call.
    """
    queries = aiosql.from_path(path, "sqlite3", encoding="utf-8")
    numbered = {}
    for query in (getattr(queries, name) for name in queries.available_queries):
        if query.parameters is not None:  # the cursor that aiosql adds to each query has none
            place = {parameter: f"?{number}" for number, parameter in enumerate(query.parameters, start=1)}
            numbered[query.__name__] = re.sub(r":([a-z_]+)", partial(_look_up, place), query.sql)
    return numbered


def _look_up(place: dict[str, str], found: re.Match[str]) -> str:
    return place[found[1]]
