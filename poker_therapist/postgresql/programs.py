"""PostgreSQL's own programs, pg_dump and pg_restore: running them, and what they complain of."""

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import IO, Any

import psycopg
from psycopg import pq
from psycopg.conninfo import make_conninfo

from poker_therapist.errors import InvalidInput, StorageError

_INSTALL = "PostgreSQL's client programs, of the server's version or a later one"


class ProgramFailed(Exception):
    """A program ended with an error: the line of its complaint that says why."""


def require(*programs: str) -> None:
    """Make sure that some programs are there.

    They are looked for on PATH alone: where several versions are installed, that is where an operator says
    which one is meant.

    Raises:
        StorageError: one is missing; says what to install.
    """
    for program in programs:
        if shutil.which(program) is None:
            raise StorageError(
                f"{program} is not installed, or its folder is not on PATH: install {_INSTALL} "
                "(the package postgresql-client of Debian and Ubuntu, libpq of Homebrew)"
            )


@contextmanager
def running(
    program: str, *arguments: str | os.PathLike[str], environment: Mapping[str, str] | None = None
) -> Iterator[IO[bytes]]:
    """Run a program for as long as a block reads what it prints; it ends with the block.

    Raises:
        ProgramFailed: it ended with an error, which may show only after the last line was read.
        StorageError: it is missing, or older than the server.
    """
    require(program)
    with (
        tempfile.TemporaryFile() as complaints,
        subprocess.Popen(  # noqa: S603  # no shell, and paths are absolute or behind a `=`
            [shutil.which(program) or program, *arguments],
            # Complaints are in the language in which they are read here.
            env={**(os.environ if environment is None else environment), "LC_ALL": "C"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=complaints,
        ) as process,
    ):
        assert process.stdout is not None  # noqa: S101  # for the type
        try:
            yield process.stdout
            process.stdout.read()  # what the block has left
            process.wait()
        except BaseException:  # Ctrl-C, and what the block has raised
            process.kill()
            raise
        if process.returncode:
            complaints.seek(0)
            said = complaints.read().decode(errors="replace")
            _require_version(said)
            raise ProgramFailed(_reason(said))


def _require_version(said: str) -> None:
    found = re.search(r"server version: ((\d+)[\w.]*).*; (\w+) version: ([\w.]+)", said)
    if found:
        server, major, program, own = found.groups()
        raise StorageError(
            f"{program} {own} is older than the server, {server}, and cannot read it: install PostgreSQL's "
            f"client programs of version {major} or later (the package postgresql-client-{major} of Debian "
            "and Ubuntu), and put their folder first on PATH"
        )


def _reason(said: str) -> str:
    """Return the line that says why; what comes after it is the query, or a hint."""
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    for mark in ("detail: Error message from server:", "error:"):
        for line in lines:
            if mark in line:
                return " ".join(line.partition(mark)[2].split())
    return lines[-1] if lines else "it does not say why"


def led_to(connection: psycopg.Connection[Any]) -> tuple[list[str], dict[str, str]]:
    """Return the arguments and the environment that lead a program to where a connection leads.

    All settings are those that the connection has ended up with, wherever they come from: a URL, a variable,
    a service or password file; of several hosts, the one. They go by the environment, since every user of the
    machine sees the arguments of a program. What has no variable and is no secret becomes an argument.

    Raises:
        InvalidInput: a secret has no variable.
    """
    options = connection.pgconn.info
    # A service named by one of these would win over the others.
    environment = dict(os.environ)
    for option in (*options, *pq.Conninfo.get_defaults()):
        environment.pop((option.envvar or b"").decode(), None)
    arguments: dict[str, str] = {}
    for option in options:
        keyword, value = option.keyword.decode(), os.fsdecode(option.val or b"")
        if not value or option.val == option.compiled or keyword in {"service", "fallback_application_name"}:
            continue
        if option.envvar:
            environment[option.envvar.decode()] = value
        elif option.dispchar:  # libpq's own mark of what is not to be shown
            raise InvalidInput(
                f"{keyword} cannot be handed to pg_dump unseen: connect in a way that does without it"
            )
        else:
            arguments[keyword] = value
    info = connection.info
    environment |= {"PGHOST": info.host, "PGPORT": str(info.port), "PGDATABASE": info.dbname}
    if "PGHOSTADDR" in environment:
        environment["PGHOSTADDR"] = info.hostaddr
    if info.password:
        environment["PGPASSWORD"] = info.password
    return ([f"--dbname={make_conninfo('', **arguments)}"] if arguments else []), environment
