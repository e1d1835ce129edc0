"""Power cuts after each thing that a command does to a folder: recorded with strace, and replayed.

What the disk holds then is modelled as POSIX promises it: a write is there when its file has been
synchronised, a name when its folder has been. Whatever else was done may have arrived as well, or not.
"""

import random
import re
import shutil
import subprocess
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import pytest

_BY_DESCRIPTOR = (
    "fsync",
    "fdatasync",
    "ftruncate",
    "fallocate",
    "pwrite64",
    "write",
    "writev",
    "pwritev",
    "pwritev2",
)
_BY_NAME = (
    "openat",
    "open",
    "creat",
    "truncate",
    "rename",
    "renameat",
    "renameat2",
    "unlink",
    "unlinkat",
    "link",
    "linkat",
    "symlink",
    "symlinkat",
)
_CALL = re.compile(r"\d+ +(\w+)\((.*)\) += \d+")
_UNFINISHED = "<unfinished ...>"
_RESUMED = re.compile(r"\d+ +<\.\.\. \w+ resumed>(.*)")
_HEX = r"((?:\\x[0-9a-f]{2})*)"


class Call(NamedTuple):
    """A call of the system that ended well.

    Attributes:
        on: what its descriptors stand for, or the folders that its names are relative to.
        texts: what it was given: names, or what to write.
        rest: its other arguments.
    """

    name: str
    on: list[str]
    texts: list[bytes]
    rest: str


def record(command: Sequence[str | Path], folder: Path) -> list[Call]:
    """Run a command, which has to end well, in a folder; return what it asked of the system."""
    calls = folder.with_name(f"{folder.name}.calls")
    if shutil.which("strace") is None:
        pytest.skip("strace is not installed")
    traced = ",".join(_BY_DESCRIPTOR + _BY_NAME)
    trace = f"strace -f --seccomp-bpf -y -xx -s 100000000 -e trace={traced} -o".split()
    ran = subprocess.run([*trace, calls, *command], cwd=folder, capture_output=True, text=True, check=False)
    if "ptrace" in ran.stderr:
        pytest.skip("this system lets no process trace another")
    assert ran.returncode == 0, ran.stderr
    lines = _whole(calls.read_text().splitlines())
    return [_parsed(*match.groups()) for match in map(_CALL.match, lines) if match]


def _whole(lines: Iterable[str]) -> Iterator[str]:
    """Yield each call in one line: strace writes two of one during which another process makes its own."""
    begun: dict[str, str] = {}
    for line in lines:
        process = line.split(maxsplit=1)[0]
        if line.endswith(_UNFINISHED):
            begun[process] = line.removesuffix(_UNFINISHED)
        elif resumed := _RESUMED.match(line):
            yield begun.pop(process) + resumed[1]
        else:
            yield line


def _parsed(name: str, arguments: str) -> Call:
    texts = [_decoded(text) for text in re.findall(f'"{_HEX}"', arguments)]
    rest = re.sub(f'"{_HEX}"', "", arguments)
    return Call(name, [_decoded(path).decode() for path in re.findall(f"<{_HEX}>", rest)], texts, rest)


def _decoded(text: str) -> bytes:
    return bytes.fromhex(text.replace(r"\x", ""))


@dataclass(eq=False)
class _File:
    """What of a file is on the disk, and what was done since: bytes at a place, or None to end it there."""

    durable: bytes = b""
    pending: list[tuple[int, bytes | None]] = field(default_factory=list)

    def content(self, arrived: Iterable[tuple[int, bytes | None]]) -> bytes:
        content = bytearray(self.durable)
        for place, data in arrived:
            content.extend(bytes(max(place - len(content), 0)))
            if data is None:
                del content[place:]
            else:
                content[place : place + len(data)] = data
        return bytes(content)


class World(NamedTuple):
    """What a power cut may leave.

    Attributes:
        files: the files of the folder.
        said: what the command had printed.
    """

    files: dict[str, bytes]
    said: str

    def write(self, folder: Path) -> None:
        """Make it the content of a folder."""
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        for name, content in self.files.items():
            (folder / name).write_bytes(content)


class Disk:
    """A folder on a disk."""

    def __init__(self, folder: Path, unsynced: Sequence[str] = ()) -> None:
        """Take a folder as it is; the contents of some files may not be on the disk yet."""
        self.folder = folder
        self._chance = random.Random(7)
        self.names = dict[str, _File]()
        for path in folder.iterdir():
            if not path.name.endswith("-shm"):  # which is made anew
                content = path.read_bytes()
                is_durable = path.name not in unsynced
                self.names[path.name] = _File(content) if is_durable else _File(b"", [(0, content)])
        self._durable = dict(self.names)
        self._pending: list[dict[str, _File | None]] = []

    def replay(self, calls: Iterable[Call]) -> Iterator[World]:
        """Yield what the disk may hold after each call, the least of it last; none twice, but the last."""
        said, seen = "", set[int]()
        for call in calls:
            worlds = []
            if call.name in ("fsync", "fdatasync"):  # what it brings to the disk may be there in part before
                worlds = [World(self._files(self._chance.random(), 0.5), said) for _ in range(3)]
            is_said = call.name == "write" and call.rest.startswith(("1<", "2<"))
            said += call.texts[0].decode() if is_said else ""
            if self._do(call) or is_said:
                # Names alone, as after a rename that is in the disk's journal; contents alone; all; nothing.
                arrived = ((1, 0), (0, 1), (1, 1), (0, 0))
                worlds += [World(self._files(*one), said) for one in arrived]
            for world in worlds:
                key = hash((said, *sorted(world.files.items())))
                if key not in seen:
                    seen.add(key)
                    yield world
        yield World(self._files(0, 0), said)

    def _files(self, names: float, contents: float) -> dict[str, bytes]:
        """Return what is there if so much has arrived of the names, in order, and of the writes, in any."""
        changes = self._pending[: round(names * len(self._pending))]
        return {
            name: file.content(self._arrived(file, contents))
            for name, file in _changed(self._durable, changes).items()
            if "/" not in name  # what is left of a private folder is nothing to anybody
        }

    def _arrived(self, file: _File, share: float) -> Iterator[tuple[int, bytes | None]]:
        for place, data in file.pending:
            if self._chance.random() < share:
                yield place, data
            elif data and share and self._chance.random() < share:  # torn
                yield place, data[: len(data) // 1024 * 512]

    def _name(self, path: Path) -> str:
        """Return the name of a file in this folder or one in it, empty for others and what is made anew."""
        is_here = self.folder in path.parents and not path.name.endswith("-shm")
        return path.relative_to(self.folder).as_posix() if is_here else ""

    def _do(self, call: Call) -> bool:
        """Do what a call did; return whether it concerns this folder."""
        if "(deleted)" in call.rest:  # a file without a name is gone after a power cut
            return False
        if call.on == [str(self.folder)] and call.name in ("fsync", "fdatasync"):
            self._durable, self._pending = dict(self.names), []
            return True
        if call.name in _BY_DESCRIPTOR:
            paths = [Path(call.on[0])]
        else:  # by names
            is_relative = call.name.endswith(("at", "at2"))
            folders = call.on if is_relative else [str(self.folder)] * len(call.texts)
            paths = [Path(folder) / text.decode() for folder, text in zip(folders, call.texts, strict=False)]
        names = [self._name(path) for path in paths]
        if not any(names) or (call.name in _BY_DESCRIPTOR and names[0] not in self.names):
            return False  # elsewhere, or a folder
        match call.name:
            case "fsync" | "fdatasync":
                file = self.names[names[0]]
                file.durable, file.pending = file.content(file.pending), []
            case "pwrite64" | "ftruncate" | "truncate":
                data = call.texts[0] if call.name == "pwrite64" else None
                self.names[names[0]].pending.append((int(call.rest.split(", ")[-1]), data))
            case "write":  # one after the other
                file = self.names[names[0]]
                file.pending.append((len(file.content(file.pending)), call.texts[0]))
            case "open" | "openat" if "O_TRUNC" not in call.rest:
                if "O_CREAT" not in call.rest or names[0] in self.names:
                    return False
                self._rename({names[0]: _File()})
            case "unlink" | "unlinkat":
                self._rename({names[0]: None})
            case "link" | "linkat" if all(names):
                self._rename({names[1]: self.names[names[0]]})
            case "rename" | "renameat" | "renameat2" if all(names):
                self._rename({names[0]: None, names[1]: self.names[names[0]]})
            case _:
                raise NotImplementedError(call)
        return True

    def _rename(self, change: dict[str, _File | None]) -> None:
        self._pending.append(change)
        self.names = _changed(self.names, [change])


def _changed(names: dict[str, _File], changes: Iterable[dict[str, _File | None]]) -> dict[str, _File]:
    result: dict[str, _File | None] = dict(names)
    for change in changes:
        result |= change
    return {name: file for name, file in result.items() if file}
