"""What the operator's commands share: YoyoCommandMixin, the ini file, signals, the console.

YoyoCommandMixin is what a backend does when it is the ordinary `yoyo` command that loads it. yoyo's command
reads the files itself and lets every error end in a traceback. It has no hook for either, so the backend,
which yoyo makes before it reads anything but the ini file, replaces yoyo's function that reads migrations and
prints each of our errors as one message with exit status 1 (-vv shows the traceback too).
"""

import configparser
import contextlib
import functools
import io
import itertools
import logging
import os
import shlex
import signal
import stat
import sys
import threading
import traceback
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any

from yoyo import config as yoyo_config
from yoyo import default_migration_table
from yoyo.migrations import MigrationList
from yoyo.scripts import main, migrate

from poker_therapist.errors import DatabaseNotFound, InvalidInput, PokerTherapistError, escaped
from poker_therapist.location import hide_passwords
from poker_therapist.migrations.atomic import AtomicBackend

_MOST_ROWS, _WIDEST = 20, 60


class YoyoCommandMixin(AtomicBackend):
    """What a backend does where the yoyo command makes it."""

    _function: Any = None  # of yoyo's, that is the command

    def __init__(self, uri: Any, migration_table: str = default_migration_table) -> None:
        """Take over the yoyo command, if that is who asks."""
        if command := _running_command(sys._getframe()):
            write_any_character()
            stop_on_sigterm()
            self.report = print
            self.show_rows = self._show_rows
            migrate.read_migrations = self._read_migrations
            migrate.migrations_to_revision = self._up_to_revision
            self._function = command.f_locals["args"].func
            given = (*sys.argv, str(command.f_locals["args"].database))
            sys.excepthook = functools.partial(_report, given)
            warnings.showwarning = _warn
            _judge_ini(command.f_locals["args"])
        super().__init__(uri, migration_table)

    def _read_migrations(self, *sources: str) -> MigrationList:
        """Return the migrations of the sources, and those that are applied and have no file any more."""
        # An id that no file may have is a forgery: yoyo would print it as it is.
        found = self.read(sources, [one for one in self.kept_migrations() if one.id == escaped(one.id)])
        if self._function is migrate.list_migrations:
            interrupted = self.interrupted()
            for one in found:
                one.source_dir += " (interrupted)" * (one.id in interrupted)
        return found

    def _up_to_revision(self, migrations: MigrationList, revision: str, direction: str) -> MigrationList:
        """Return what a revision selects: to roll it back, it and all that was applied after it."""
        chosen = _migrations_to_revision(migrations, revision, direction)
        if revision and direction == "rollback" and self._function is not migrate.unmark:
            target = next(one.id for one in migrations if revision in one.id)
            later = super().to_rollback_to(migrations, target)
            return migrations.filter(lambda one: one in chosen or one in later)
        return chosen

    def _show_rows(self, rows: Any) -> None:
        """Show the first rows that a statement returns, and read the rest: it is not done before the last."""
        table = [[escaped(str(column[0])) for column in rows.description or ()]]
        for row in itertools.islice(rows, _MOST_ROWS):
            cells = ["NULL" if value is None else escaped(str(value)) for value in row]
            table.append([cell if len(cell) <= _WIDEST else f"{cell[: _WIDEST - 3]}..." for cell in cells])
        more = sum(1 for _ in rows)
        if not table[0]:
            return
        widths = [max(map(len, column)) for column in zip(*table, strict=True)]
        table.insert(1, ["-" * width for width in widths])
        for row in table:
            cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=True)]
            self.tell_operator(" | ".join(cells).rstrip())
        count = len(table) - 2 + more
        shown = f", the first {_MOST_ROWS} are shown" if more else ""
        self.tell_operator(f"({count:,} row{'s' * (count != 1)}{shown})")

    def init_database(self) -> None:
        """Write nothing: yoyo's tables are made with the first change."""

    @contextlib.contextmanager
    def lock(self, timeout: float = 10) -> Iterator[None]:  # noqa: ARG002  # yoyo's signature
        """Lock nothing: each migration's own transaction is the lock."""
        yield

    def _require_database(self) -> None:
        if not self.exists():
            raise DatabaseNotFound(f"there is no database {self.name}: correct the path")

    def apply_migrations(self, migrations: MigrationList, force: bool = False) -> None:
        """Apply some migrations; tell of those that have no file."""
        interrupted = self.interrupted()
        for migration in self._known:
            if migration.file is None and migration.id not in interrupted:
                self.tell_operator(
                    f"{migration.id} is applied and has no file here: is the database newer than the code?"
                )
        super().apply_migrations(migrations, force)

    def break_lock(self) -> None:
        """Remove the row that a killed plain yoyo may have left; ours leaves none."""
        with self.one_transaction():
            if self.lock_table in self.list_tables():
                super().break_lock()

    def mark_migrations(self, migrations: MigrationList) -> None:
        """Record migrations as applied without running them, with the texts of their files."""
        self._require_database()
        with self.translating_errors(), self.migration_lock(), self.one_transaction():
            applied = self.applied()
            self._prepare()
            marked = [migration for migration in migrations if migration.id not in applied]
            for migration in marked:
                self._record(migration, operation="mark")
        for migration in marked:
            self.tell_operator(f"marked {migration.id} as applied")

    def unmark_migrations(self, migrations: MigrationList) -> None:
        """Remove the record of migrations without rolling them back."""
        self._require_database()
        with self.translating_errors(), self.migration_lock(), self.one_transaction():
            applied = self.applied()
            self._prepare()
            unmarked = [migration for migration in migrations if migration.id in applied]
            for migration in unmarked:
                self._unrecord(migration, operation="unmark")
        for migration in unmarked:
            self.tell_operator(f"unmarked {migration.id}")

    def to_rollback(self, migrations: MigrationList) -> MigrationList:
        """Return what is applied; say so where that is nothing for want of a database."""
        if not self.exists():
            print(f"there is no database {escaped(self.name)} yet: nothing is applied", file=sys.stderr)
        found = super().to_rollback(migrations)
        if self._function is migrate.list_migrations:  # which takes this for what is applied
            applied = self.applied()
            return found.filter(lambda one: one.id in applied)
        if self._function in {migrate.reapply, migrate.develop}:  # before it is rolled back
            self.require_in_order(found, again=True)
        return found


def write_any_character() -> None:
    """Let this process print what its console has no character for, as an escape: one of cp1252, say."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def stop_on_sigterm() -> None:
    """Let SIGTERM end this process as Ctrl-C does: with what is half done undone, and nothing left of it."""
    is_default = signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    if is_default and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, lambda number, _frame: sys.exit(128 + number))


def _running_command(frame: FrameType | None) -> FrameType | None:
    while frame is not None and frame.f_code is not main.main.__code__:
        frame = frame.f_back
    return frame


_migrations_to_revision = migrate.migrations_to_revision

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
    _read_all(file, (), is_given=is_given)
    try:
        value: str | None = yoyo_config.read_config(str(file)).get("DEFAULT", option, fallback=None)
    except (configparser.Error, ValueError):
        raise InvalidInput(
            f"`{option}` in {file} cannot be read: write %% for each % that is not %(here)s"
        ) from None
    return value


def _read_all(file: Path, above: tuple[Path, ...], *, is_given: bool) -> None:
    """Read an ini file and those that it inherits or includes, for the errors that yoyo would raise."""
    shown = f"{file} (to which {above[-1]} leads)" if above else str(file)
    if file in above:
        raise InvalidInput(f"{shown} leads back to itself: correct %inherit and %include")
    if not file.is_file():  # a pipe, say, would be waited for
        raise InvalidInput(f"there is no ini file {shown}: correct the path")
    if not is_given:
        _require_trusted(file, stat.S_IWGRP | stat.S_IWOTH)
    try:
        config = yoyo_config.get_configparser(yoyo_config.get_interpolation_defaults(str(file)))
        read = config.read([str(file)])
        keys = yoyo_config.INHERIT, yoyo_config.INCLUDE
        names = [name for key in keys for name in config["DEFAULT"].get(key, "").split()]
    except (configparser.Error, ValueError) as error:  # a ValueError: the encoding
        # Nothing else of the error: it repeats a line, and the file may be anything, one of passwords say.
        errors = getattr(error, "errors", ())
        line = errors[0][0] if errors else getattr(error, "lineno", None)
    else:
        if not read:  # yoyo would go on without it
            raise InvalidInput(f"{shown} may not be read: correct its rights, or the path")
        for name in names:
            path = file.resolve().parent / name.removeprefix("?")
            if path.exists() or not name.startswith("?"):
                _read_all(path, (*above, file), is_given=is_given)
        return
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


def _judge_ini(args: Any) -> None:
    """Refuse the ini file that yoyo has found by itself if it may be somebody else's; name it if it is above.

    That only the group can write it is borne, as everybody on a system with umask 002 has it like that.
    """
    if args.config or not args.use_config_file or (taken := yoyo_config.find_config()) is None:
        return
    if str(find_ini(writers=stat.S_IWOTH)) != taken:
        raise InvalidInput(f"{ini_beyond()}")
    if Path(taken).parent != Path.cwd():
        print(f"yoyo: {escaped(taken)} is used", file=sys.stderr)


def _report(
    given: Sequence[str], _kind: type[BaseException], error: BaseException, _trace: TracebackType | None
) -> None:
    """Print an error of ours, or the operator's Ctrl-C, as one message; every other as Python does.

    A password in the arguments that were given to the command, or in its database, is not printed.
    """
    if isinstance(error, KeyboardInterrupt):
        print("yoyo: stopped; a migration that was not finished has been undone", file=sys.stderr)
        return
    ours = isinstance(error, PokerTherapistError)
    said = ""
    if not ours or logging.getLogger().isEnabledFor(logging.INFO):
        said = "".join(traceback.format_exception(error))
    if ours:
        said += f"yoyo: {error}\n"
    print(escaped(hide_passwords(said, given), keeping="\n"), end="", file=sys.stderr)


def _warn(message: Warning | str, *_where: Any, **_more: Any) -> None:
    """Print a warning, of yoyo's say, without the place in the code that an operator cannot use.

    That nobody can be warned must not undo a migration.
    """
    with contextlib.suppress(OSError, ValueError):
        print(escaped(f"yoyo: warning: {message}", keeping="\n"), file=sys.stderr)
