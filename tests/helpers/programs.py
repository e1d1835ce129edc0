"""Python programs served by a process that has imported what they need: most of their time goes there.

Run as a script, this file is that process: it forks for each program that is asked for, and ends when its
maker does. What it imports of ours comes from the checkout that PYTHONPATH names.
"""

import ast
import atexit
import gc
import importlib
import os
import runpy
import select
import shlex
import socket
import subprocess
import sys
import tempfile
import threading
import types
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

IMPORTED = (
    *("asyncio", "psycopg", "rich.table", "rich.progress", "sqlparse", "yoyo.backends.core.sqlite3"),
    *("yoyo.scripts.init", "yoyo.scripts.main", "yoyo.scripts.migrate", "yoyo.scripts.newmigration"),
    *("poker_therapist.aio", "poker_therapist.cli.migrating", "poker_therapist.cli.players"),
    *("poker_therapist.cli.backups", "poker_therapist.cli.checking", "poker_therapist.engines"),
    *("poker_therapist.postgresql.yoyo", "poker_therapist.postgresql.engine", "poker_therapist.schema"),
    *("poker_therapist.sqlite.yoyo", "poker_therapist.sqlite.engine"),
)

# Takes the place of a program: hands its arguments, folder, environment and files over, and ends as it does.
# What it does not know how to ask for, the program itself does.
_ASK = """
import _socket, os, sys
real, place, *words = sys.argv[1:]
rest = words[2:] if words[:2] == ["-W", "error"] else words
if real.endswith("/python") and rest[:1] != ["-c"]:
    os.execv(real, [real, *words])
asked = _socket.socket(_socket.AF_UNIX)
asked.connect(place)
said = ascii(([real, *words], os.getcwd(), dict(os.environ))).encode()
descriptors = b"".join(number.to_bytes(4, sys.byteorder) for number in (0, 1, 2))
asked.sendmsg([len(said).to_bytes(8, "big")], [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, descriptors)])
while said:
    said = said[asked.send(said):]
code = asked.recv(1)
os._exit(code[0] if code else 1)
"""


@contextmanager
def served_programs(folder: Path, environment: dict[str, str]) -> Iterator[None]:
    """Make a folder of programs to be first on PATH, which start soon; they import what is there now."""
    folder.mkdir()
    with tempfile.TemporaryDirectory() as short, socket.socket(socket.AF_UNIX) as listening:
        place = Path(short, "socket")  # whose path may be a hundred bytes long
        (folder / "ask").write_text(_ASK, encoding="utf-8")
        for name in ("poker-therapist", "yoyo", "python"):
            real = Path(sys.executable).with_name(name)
            words = (sys.executable, "-I", "-S", folder / "ask", real, place)
            (folder / name).write_text(
                f'#!/bin/sh\nexec {shlex.join(map(str, words))} "$@"\n', encoding="utf-8"
            )
            (folder / name).chmod(0o755)
        listening.bind(str(place))
        listening.listen()
        with subprocess.Popen(
            [sys.executable, __file__, str(listening.fileno())],
            env=environment,
            stdin=subprocess.PIPE,
            pass_fds=[listening.fileno()],
        ) as server:
            yield
            assert server.stdin
            server.stdin.close()


def _serve(listening: socket.socket) -> None:
    for name in IMPORTED:
        importlib.import_module(name)
    gc.freeze()
    children = 0
    while listening in select.select([listening, sys.stdin], [], [])[0]:
        asking = listening.accept()[0]
        if not os.fork():
            listening.close()
            _answer(asking)
        asking.close()
        children += 1
        while children and os.waitpid(-1, os.WNOHANG)[0]:
            children -= 1
    for _ in range(children):
        os.wait()


def _answer(asking: socket.socket) -> NoReturn:
    code = 1
    try:
        size, files, *_ = socket.recv_fds(asking, 8, 3)
        for number, file in enumerate(files):
            os.dup2(file, number)
            os.close(file)
        said = b""
        while len(said) < int.from_bytes(size, "big"):
            said += asking.recv(65_536)
        words, folder, environment = ast.literal_eval(said.decode())
        os.chdir(folder)
        os.environ.clear()
        os.environ.update(environment)
        # They stay open: a context manager would close them.
        sys.stdin = open(0, closefd=False)  # noqa: SIM115  # so
        sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115  # so
        sys.stderr = open(2, "w", closefd=False)  # noqa: SIM115  # so
        code = run_program(*words)
        threading._shutdown()  # type: ignore[attr-defined]  # as Python itself does, then
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
        asking.send(bytes([code % 256]))
    finally:
        os._exit(code)


def run_program(program: str, *arguments: str) -> int:
    """Run a program as Python would; return its exit code."""
    words = list(arguments)
    try:
        if program.endswith("/python"):
            if words[:2] == ["-W", "error"]:
                warnings.simplefilter("error")
                del words[:2]
            main = types.ModuleType("__main__")
            sys.modules["__main__"] = main
            sys.path.insert(0, "")
            sys.argv = ["-c", *words[2:]]
            exec(compile(words[1], "<string>", "exec"), main.__dict__)
        else:
            sys.argv = [program, *words]
            sys.path.insert(0, str(Path(program).parent))
            runpy.run_path(program, run_name="__main__")
    except SystemExit as end:
        if end.code is None or isinstance(end.code, int):
            return end.code or 0
        print(end.code, file=sys.stderr)
        return 1
    except BaseException:
        sys.excepthook(*sys.exc_info())
        return 1
    return 0


if __name__ == "__main__":
    del sys.path[0]  # the folder of this file
    _serve(socket.socket(fileno=int(sys.argv[1])))
