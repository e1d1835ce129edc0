"""Give a pending migration the next number: in its files, its header, and references to it."""

import os
import re
import shutil
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

from poker_therapist.errors import InvalidInput, file_error
from poker_therapist.migrations.files import SQLMigration, rollback_file, shown
from poker_therapist.migrations.order import ancestors, in_order
from poker_therapist.migrations.scaffold import writing

_NUMBERED = re.compile(r"([^0-9]*)([0-9]+)(.*)", re.DOTALL)
_HEADER = re.compile(r"(?:\s++|--[^\n]*+(?:\n|\Z)|/\*.*?(?:\*/|\Z))*+", re.DOTALL)
_COMMENT_LINES = re.compile(r"(?:--[^\n]*(?:\n|\Z))*")
_DEPENDS = re.compile(
    r"^(\ufeff?[^\S\n]*--[^\S\n]*depends[^\S\n]*:)[^\n]*?(\r?(?:\n|\Z))", re.MULTILINE | re.IGNORECASE
)
# The suffix of a file until its successor is written; such a file is not a migration.
_ASIDE = ".renumbered"


class Change(NamedTuple):
    """A file that gets another name, another text, or both."""

    old: Path
    new: Path
    text: str


def renumber(
    name: str, folders: Sequence[Path], require_free: Callable[[Collection[str]], None]
) -> list[Change]:
    """Give a migration the number after all others, let it depend on the last of them, and write the files.

    Those of its folder that depend on it follow it with the next numbers. Either all is done or nothing.

    Args:
        name: its id.
        folders: those of all engines.
        require_free: called with the ids whose files will change; raises if one of them must not.

    Raises:
        InvalidInput: there is none of that name, it has no number, or a new name is in use.
        StorageError: a file cannot be read or written; all are as they were.
    """
    with writing(folders):
        changes = _changes_for(name, folders)
        ids = {change.old.name.removesuffix(".sql").removesuffix(".rollback") for change in changes}
        require_free(ids)
        _write(changes)
    return changes


def _changes_for(name: str, folders: Sequence[Path]) -> list[Change]:
    """Return what changes in all files."""
    read = {folder: _read(folder) for folder in folders}
    twins = [folder for folder, known in read.items() if name in known]
    if not twins:
        raise InvalidInput(f"there is no {name}.sql in {', '.join(map(shown, folders))}: correct the id")
    moving = {
        one.id: one
        for folder in twins
        for one in read[folder].values()
        if one.id == name or name in ancestors(one, read[folder])
    }
    names = _new_names(name, [one.id for one in in_order(moving.values())], read.values())
    changes = []
    for known in read.values():
        for one in known.values():
            depends = _depends(name, known, moving.keys()) if one.id == name else None
            changes += _changes(one, names, depends)
    return changes


def _read(folder: Path) -> dict[str, SQLMigration]:
    """Return the migrations of a folder, whatever else may be wrong with them."""
    names = [path for path in folder.glob("*.sql") if path.name[0] != "."]
    paths = [path for path in names if not path.name.endswith(".rollback.sql")]
    return {
        path.stem: SQLMigration(path.stem, path, str(folder), _text(path).removeprefix("\ufeff"), None)
        for path in paths
    }


def _text(path: Path) -> str:
    try:
        return path.read_bytes().decode()  # with its line endings
    except UnicodeDecodeError as error:
        raise InvalidInput(f"{shown(path)} is not UTF-8 (byte {error.start}): save it as UTF-8") from error
    except OSError as error:
        raise file_error(error, f"cannot read {shown(path)}") from error


def _new_names(
    name: str, moving: Sequence[str], read: Collection[Mapping[str, SQLMigration]]
) -> dict[str, str]:
    """Return the new ids of those that move: the numbers after all others of the same kind."""
    parts = {one: _NUMBERED.fullmatch(one) for known in read for one in (*known, *moving)}
    kinds = {one: found[1] for one, found in parts.items() if found}
    for one in moving:
        if kinds.get(one) is None or kinds[one] != kinds.get(name):
            raise InvalidInput(f"{one} is not numbered like the others: rename its files yourself")
    numbers = [
        int(found[2])
        for one, found in parts.items()
        if found and one not in moving and found[1] == kinds[name]
    ]
    names = {}
    for number, one in enumerate(moving, 1 + max(numbers, default=0)):
        found = parts[one]
        if found:
            names[one] = f"{found[1]}{number:0{len(found[2])}}{found[3]}"
    return names


def _depends(name: str, known: Mapping[str, SQLMigration], moving: Collection[str]) -> list[str] | None:
    """Return what a migration has to depend on to be the last one; None if no migration declares it."""
    others = [one for one in in_order(known.values()) if one.id not in moving]
    if not others or not any(one.depends_on for one in (*others, known[name])):
        return None
    last = others[-1]
    return [last.id, *sorted(known[name].depends_on - ancestors(last, {**known}) - {last.id})]


def _changes(one: SQLMigration, names: Mapping[str, str], depends: list[str] | None) -> list[Change]:
    """Return what changes in the pair of a migration."""
    path = one.file or Path()
    found = []
    for old in (path, rollback_file(path)):
        if not os.path.lexists(old):
            continue
        text = _text(old)
        header = _start(_HEADER, text)
        new = old
        if one.id in names:
            new = old.with_name(old.name.replace(one.id, names[one.id], 1))
            changed = _renamed(header, names)
            if depends is not None and old == path:
                changed = _depending(changed, depends)
        else:
            changed = _DEPENDS.sub(lambda line: _renamed(line[0], names), header)
        if (new, changed) != (old, header):
            found.append(Change(old, new, changed + text[len(header) :]))
    return found


def _renamed(text: str, names: Mapping[str, str]) -> str:
    """Return a text in which the new ids replace the old ones."""
    words = "|".join(map(re.escape, sorted(names, key=len, reverse=True)))
    return re.sub(rf"(?<![\w-])(?:{words})(?![\w-])", lambda found: names[found[0]], text)


def _depending(header: str, names: Sequence[str]) -> str:
    """Return a header whose `-- depends:` names some ids, in its place, or below the first comment."""
    said = f" {' '.join(names)}"
    first = _DEPENDS.search(header)
    if first:
        rest = _DEPENDS.sub("", header[first.end() :])
        return f"{header[: first.start()]}{first[1]}{said}{first[2]}{rest}"
    newline = "\r\n" if "\r\n" in header else "\n"
    above = _start(_COMMENT_LINES, header)
    below = header[len(above) :]
    above += newline if above.removeprefix("\ufeff") and not above.endswith("\n") else ""
    return f"{above}-- depends:{said}{newline}{below}"


def _start(pattern: re.Pattern[str], text: str) -> str:
    """Return what a pattern matches at the start of a text, and a byte order mark before it."""
    plain = text.removeprefix("\ufeff")
    found = pattern.match(plain)
    return text[: len(text) - len(plain) + (found.end() if found else 0)]


def _write(changes: Sequence[Change]) -> None:
    """Write all files, each under a name that is free, or leave all as they were."""
    old = {change.old for change in changes}
    for change in changes:
        for path in {change.new} - old | {_aside(change.old)}:
            if os.path.lexists(path):
                raise InvalidInput(f"{shown(path)} already exists: rename or delete it")
    undo: list[Callable[[], object]] = []
    path = Path()
    try:
        for path in sorted(old):
            path.rename(_aside(path))
            undo.append(partial(_aside(path).rename, path))
        for change in changes:
            path = change.new
            with path.open("xb") as file:  # nor through a link
                undo.append(path.unlink)
                file.write(change.text.encode())
                file.flush()
                os.fsync(file.fileno())
            shutil.copymode(_aside(change.old), path)
    except BaseException as error:
        for step in reversed(undo):
            step()
        if isinstance(error, OSError):
            raise file_error(error, f"cannot write {shown(path)}") from error
        raise
    for path in old:
        _aside(path).unlink()


def _aside(path: Path) -> Path:
    return path.with_name(path.name + _ASIDE)
