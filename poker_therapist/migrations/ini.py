"""The ini file: found, judged whether somebody else may have written it, and read for what we ask of it."""

import configparser
import os
import re
import shlex
import stat
from pathlib import Path
from urllib.parse import quote

from yoyo import config as yoyo_config

from poker_therapist.errors import InvalidInput

_WRITERS = {stat.S_IWGRP: "its group", stat.S_IWOTH: "everybody"}
_OTHERWISE = "or say what you mean with --config FILE, --no-config or --database"


def find_ini(*, writers: int = stat.S_IWGRP | stat.S_IWOTH) -> Path | None:
    """Return the yoyo.ini of the working folder, or the nearest above it, None if there is none.

    Folders above are looked at while they have the same owner, and not beyond the home folder, a repository's
    root or the border of a file system. What lies beyond, somebody else may have put there.

    Args:
        writers: who else must not be able to write the file or its folder.

    Raises:
        InvalidInput: somebody else can write the file or its folder, or owns it.
    """
    here = Path.cwd()
    start = here.stat()
    home = Path(os.path.expanduser("~")).resolve()  # noqa: PTH111  # Path's raises where there is none
    for folder in (here, *here.parents)[:-1]:  # as yoyo: not in the root of all
        try:
            found = folder.stat()
        except OSError:
            break
        if (found.st_uid, found.st_dev) != (start.st_uid, start.st_dev):
            break
        file: Path = folder / yoyo_config.CONFIG_FILENAME
        if os.path.lexists(file):
            _require_trusted(file, writers)
            return file
        if folder == home or any(os.path.lexists(folder / name) for name in (".git", ".hg")):
            break
    return None


def ini_beyond() -> str | None:
    """Return why a yoyo.ini that yoyo alone would find is not used; None if there is none."""
    found: str | None = yoyo_config.find_config()
    return found and (
        f"{found} is not used: above the working folder, only folders of the same owner are looked at, up to "
        f"the home folder, the repository's or the file system's root: move it down, {_OTHERWISE}"
    )


def ini_value(file: Path, option: str, *, is_given: bool) -> str | None:
    """Return what an ini file, with those that it inherits or includes, says; None if it says nothing.

    Args:
        file: its absolute path.
        option: what is asked for, in its section DEFAULT.
        is_given: the operator has named the file, so that it may lie anywhere.

    Raises:
        InvalidInput: one of the files is no ini file, cannot be read, or others can write it. The message
            repeats nothing of what is in it.
    """
    for config, here in _read_all(file, (), is_given=is_given):
        try:
            if config.get("DEFAULT", option, raw=True, fallback=None) is None:
                continue
            value: str = config.get("DEFAULT", option)
            if "://" in value:  # a folder in a URL is quoted, or it would end at a # or ?
                quoted = quote(here, safe="/:\\").replace("%", "%%")
                value = config.get("DEFAULT", option, vars={"here": quoted})
        except (configparser.Error, ValueError):
            raise InvalidInput(
                f"`{option}` in {file} cannot be read: write %% for each % that is not %(here)s"
            ) from None
        return value
    return None


def where_to_write(file: Path, option: str, value: str) -> str:
    """Return what to do with which line of an ini file, so that it says something for one run."""
    lines = file.read_text(encoding="utf-8", errors="replace").splitlines()
    is_there, is_section = rf"\s*{option}\s*[=:]", r"\[DEFAULT\]"
    said = [number for number, line in enumerate(lines, 1) if re.match(is_there, line, re.IGNORECASE)]
    start = [number for number, line in enumerate(lines, 1) if re.match(is_section, line)]
    how = f"change line {said[0]}" if said else f"add a line below line {start[0]}" if start else "add a line"
    return f"{how} of {file.absolute()} for this run: `{option} = {value}`"


def _read_all(
    file: Path, above: tuple[Path, ...], *, is_given: bool
) -> list[tuple[configparser.ConfigParser, str]]:
    """Return an ini file with its folder, before those that it inherits and after those that it includes.

    yoyo would raise errors of its own, and cannot read its file in a folder with a % in its name.
    """
    shown = f"{file} (to which {above[-1]} leads)" if above else str(file)
    if file in above:
        raise InvalidInput(f"{shown} leads back to itself: correct %inherit and %include")
    if not file.is_file():  # a pipe, say, would be waited for
        raise InvalidInput(f"there is no ini file {shown}: correct the path")
    if not is_given:
        _require_trusted(file, stat.S_IWGRP | stat.S_IWOTH)
    names: dict[str, list[str]] = {}
    here = str(file.resolve().parent)
    try:
        defaults = yoyo_config.get_interpolation_defaults() | {"here": here.replace("%", "%%")}
        config = yoyo_config.get_configparser(defaults)
        read = config.read([str(file)])
        for key in (yoyo_config.INCLUDE, yoyo_config.INHERIT):
            names[key] = config["DEFAULT"].get(key, "").split()
    except (configparser.Error, ValueError) as error:  # a ValueError: the encoding
        # Nothing else of the error: it repeats a line, and the file may be anything, one of passwords say.
        errors = getattr(error, "errors", ())
        line = errors[0][0] if errors else getattr(error, "lineno", None)
    else:
        if not read:  # yoyo would go on without it
            raise InvalidInput(f"{shown} may not be read: correct its rights, or the path")
        found: dict[str, list[tuple[configparser.ConfigParser, str]]] = {key: [] for key in names}
        for key, name in [(one, name) for one in names for name in names[one]]:
            path = file.resolve().parent / name.removeprefix("?")
            if path.exists() or not name.startswith("?"):
                more = _read_all(path, (*above, file), is_given=is_given)
                # Of what is included the last counts, of what is inherited the first.
                found[key] = more + found[key] if key == yoyo_config.INCLUDE else found[key] + more
        return [*found[yoyo_config.INCLUDE], (config, here), *found[yoyo_config.INHERIT]]
    raise InvalidInput(
        f"{shown} is no ini file that can be read{f', from line {line}' if line else ''}: such a file begins "
        "with [DEFAULT], in UTF-8 without a byte order mark, and has %% for each % in a value; "
        "correct it, or its path"
    )


def _require_trusted(file: Path, writers: int) -> None:
    """Refuse an ini file that somebody else may have written: not the user, not root, not the one owner.

    Root may work in a checkout of somebody else's, which is mounted into a container say: whose folder it
    works in, root trusts.
    """
    if not hasattr(os, "geteuid"):  # on Windows neither owner nor rights are those of POSIX
        return
    trusted = {0, os.geteuid()} | ({Path.cwd().stat().st_uid} if os.geteuid() == 0 else set())
    try:
        places = [(file, file.stat())]
        places += [(folder, folder.stat()) for folder in sorted(_folders(file))]
    except OSError as error:
        raise InvalidInput(
            f"{file} cannot be read ({error.strerror}): correct or delete it, {_OTHERWISE}"
        ) from error
    for place, found in reversed(places):  # folders first: who writes them can also replace the file
        what = f"{file} is not used: " + ("it" if place == file else f"the folder {place}")
        if found.st_uid not in trusted:
            raise InvalidInput(
                f"{what} belongs to another user (number {found.st_uid}), neither to you nor to root: "
                f"move the file to a folder of yours, {_OTHERWISE}"
            )
        if mode := found.st_mode & writers:
            who = [word for bit, word in _WRITERS.items() if mode & bit]
            rights = ("g" if mode & stat.S_IWGRP else "") + ("o" if mode & stat.S_IWOTH else "")
            remedy = (
                "move the file to a folder of yours"
                if found.st_mode & stat.S_ISVTX and place != file  # /tmp, say, is meant to be like that
                else f"run `chmod {rights}-w {shlex.quote(str(place))}`"
            )
            raise InvalidInput(f"{what} can be written by {' and '.join(who)}: {remedy}, {_OTHERWISE}")


def _folders(file: Path) -> set[Path]:
    """Return the folders that settle what a path leads to: its own, and each symbolic link's on the way."""
    folders = {file.parent}
    for link in (file, *file.parents):
        if link.is_symlink():
            folders |= {link.parent} | _folders(link.parent / link.readlink())
    return folders
