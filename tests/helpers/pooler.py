"""A PgBouncer in front of the server of a run, which ends with whoever started it."""

import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

PROGRAM = shutil.which("pgbouncer") or shutil.which("pgbouncer", path="/usr/sbin:/usr/local/sbin")
PORT = 6432
PATIENCE = 20
# Past the pooler, by the addresses through it.
_PAST: dict[str, str] = {}
_OPTION = "&pooler=transaction"


def past(url: str) -> str:
    """Return the URL of a database without the pooler that a URL may lead through."""
    through, option, _ = url.partition(_OPTION)
    return _PAST[through] if option else url


@contextmanager
def keep_pooler(server: str, mode: str, **settings: object) -> Iterator[Callable[[str], str]]:
    """Keep a pooler for as long as this block runs, and at most for as long as this process lives.

    Args:
        server: the URL of any database of the server.
        mode: the pooler's: `transaction` or `session`.
        settings: more of its settings.

    Yields:
        what returns the URL through the pooler for the URL of a database.
    """
    host, port = (parse_qs(urlsplit(server).query)[name][0] for name in ("host", "port"))
    folder = Path(tempfile.mkdtemp(prefix="poker-therapist-pooler-"))
    options = {
        "pool_mode": mode,
        "unix_socket_dir": folder,
        "listen_port": PORT,
        "auth_type": "any",
        "logfile": folder / "log",
        "max_client_conn": 500,
        "default_pool_size": 50,
        **settings,
    }
    lines = [f"{name} = {value}" for name, value in options.items()]
    databases = f"[databases]\n* = host={host} port={port} user=postgres\n"
    folder.joinpath("ini").write_text(databases + "[pgbouncer]\n" + "\n".join(lines) + "\n")
    account = {"user": "nobody", "group": "nogroup", "extra_groups": []} if os.geteuid() == 0 else {}
    if account:
        shutil.chown(folder, "nobody")
    # It ends when the pipe closes, whatever ends this process.
    script = '"$0" -q "$1" & read _; kill -9 $!; wait $!'
    with subprocess.Popen(
        ["/bin/sh", "-c", script, str(PROGRAM), folder / "ini"],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        **account,  # type: ignore[call-overload]  # as whom it runs
    ) as keeper:
        deadline = time.monotonic() + PATIENCE
        while not _listens(folder / f".s.PGSQL.{PORT}"):
            assert keeper.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.005)

        def through(url: str) -> str:
            parts = urlsplit(url)
            pooled = f"postgresql://postgres@{parts.path}?host={folder}&port={PORT}"
            _PAST[pooled] = url
            return pooled + (_OPTION if mode == "transaction" else "")

        try:
            yield through
        finally:
            keeper.stdin.close()
            keeper.wait(PATIENCE)
            shutil.rmtree(folder, ignore_errors=True)


def _listens(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as asking:
        return asking.connect_ex(str(path)) == 0


@pytest.fixture(scope="session", params=["sqlite", "postgresql", "pgbouncer"])
def engine_or_pooler(request: pytest.FixtureRequest) -> str:
    """Each engine in turn, and the server through a pooler: a module says `engine = engine_or_pooler`."""
    return str(request.param)
