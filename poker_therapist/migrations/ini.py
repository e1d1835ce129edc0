"""The ini file: find it, refuse it if another user can write it, and read its options."""

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
_OTHERWISE = "or use --config FILE, --no-config or --database"


def find_ini(*, writers: int = stat.S_IWGRP | stat.S_IWOTH) -> Path | None:
    """Return the yoyo.ini of the working folder, or the nearest above it, None if there is none.

    Folders above are searched while they have the same owner, up to the home folder or the root of a
    repository or file system. Another user may have created what is beyond.

    Args:
        writers: the mode bits of those who must not be able to write the file or its folder.

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
        f"{found} is not used: above the working folder, only folders of the same owner are searched, up to "
        f"the home folder or the root of the repository or file system: move it down, {_OTHERWISE}"
    )


def ini_value(file: Path, option: str, *, is_given: bool) -> str | None:
    """Return an option of an ini file, with those that it inherits or includes; None if it is not set.

    Args:
        file: its absolute path.
        option: its name, in the section DEFAULT.
        is_given: the operator has named the file, so that it may be anywhere.

    Raises:
        InvalidInput: one of the files is not an ini file, cannot be read, or other users can write it. The
            message repeats nothing of its contents.
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
    """Return which line of an ini file to change, and how, to set an option for one run."""
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
    shown = f"{file} (named in {above[-1]})" if above else str(file)
    if file in above:
        raise InvalidInput(f"{shown} inherits or includes itself: correct %inherit and %include")
    if not file.is_file():  # to read a pipe would wait
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
        # Only the number of the line: the text of the error repeats the line, which may be a password.
        errors = getattr(error, "errors", ())
        line = errors[0][0] if errors else getattr(error, "lineno", None)
    else:
        if not read:  # yoyo would continue without it
            raise InvalidInput(f"{shown} cannot be read: correct its permissions, or the path")
        found: dict[str, list[tuple[configparser.ConfigParser, str]]] = {key: [] for key in names}
        for key, name in [(one, name) for one in names for name in names[one]]:
            path = file.resolve().parent / name.removeprefix("?")
            if path.exists() or not name.startswith("?"):
                more = _read_all(path, (*above, file), is_given=is_given)
                # Of what is included the last counts, of what is inherited the first.
                found[key] = more + found[key] if key == yoyo_config.INCLUDE else found[key] + more
        return [*found[yoyo_config.INCLUDE], (config, here), *found[yoyo_config.INHERIT]]
    raise InvalidInput(
        f"{shown} is not a valid ini file{f' (line {line})' if line else ''}: it must begin with "
        "[DEFAULT], be UTF-8 without a byte order mark, and have %% for each % in a value; "
        "correct it, or the path"
    )


def _require_trusted(file: Path, writers: int) -> None:
    """Refuse an ini file that anybody but the user, root or the one trusted owner may have written.

    Root may work in another user's checkout, such as one that is mounted into a container: root trusts the
    owner of its working folder.
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
    for place, found in reversed(places):  # folders first: their writers can also replace the file
        what = f"{file} is not used: " + ("it" if place == file else f"the folder {place}")
        if found.st_uid not in trusted:
            raise InvalidInput(
                f"{what} belongs to another user (uid {found.st_uid}), not to you or root: "
                f"move the file to a folder of yours, {_OTHERWISE}"
            )
        if mode := found.st_mode & writers:
            who = [word for bit, word in _WRITERS.items() if mode & bit]
            rights = ("g" if mode & stat.S_IWGRP else "") + ("o" if mode & stat.S_IWOTH else "")
            remedy = (
                "move the file to a folder of yours"
                if found.st_mode & stat.S_ISVTX and place != file  # such as /tmp, whose mode is intended
                else f"run `chmod {rights}-w {shlex.quote(str(place))}`"
            )
            raise InvalidInput(f"{what} is writable by {' and '.join(who)}: {remedy}, {_OTHERWISE}")


def _folders(file: Path) -> set[Path]:
    """Return the folders that decide what a path names: its own, and that of each symbolic link in it."""
    folders = {file.parent}
    for link in (file, *file.parents):
        if link.is_symlink():
            folders |= {link.parent} | _folders(link.parent / link.readlink())
    return folders
