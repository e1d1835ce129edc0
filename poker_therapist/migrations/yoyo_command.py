"""What the operator's commands share: YoyoCommandMixin, the ini file, signals, the console.

YoyoCommandMixin is what a backend does when the ordinary `yoyo` command loads it. yoyo's command
reads the files itself and lets every error end in a traceback. It has no hook for either, so the backend,
which yoyo makes before it reads anything but the ini file, replaces yoyo's function that reads migrations and
prints each of our errors as one message with exit status 1 (-vv shows the traceback too).
"""

import configparser
import contextlib
import functools
import io
import logging
import os
import re
import signal
import stat
import sys
import threading
import traceback
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any

from yoyo import config as yoyo_config
from yoyo import default_migration_table, utils
from yoyo.migrations import MigrationList
from yoyo.scripts import main, migrate

from poker_therapist.errors import (
    DatabaseNotFound,
    InvalidInput,
    MigrationInterrupted,
    PokerTherapistError,
    escaped,
)
from poker_therapist.location import Location, command_about, hide_passwords, locate, yoyo_source, yoyo_url
from poker_therapist.migrations.atomic import AtomicBackend
from poker_therapist.migrations.files import SQLMigration
from poker_therapist.migrations.ini import find_ini, ini_beyond, ini_value, where_to_write
from poker_therapist.migrations.meanwhile import refusal


class YoyoCommandMixin(AtomicBackend):
    """What a backend does if the yoyo command creates it."""

    allow_data_loss = False  # for a program: whether a rollback may delete rows and values
    _function: Any = None  # of yoyo's, that is the command
    _named: Sequence[str] = ()  # the ids that the command names, if they are complete

    def __init__(self, uri: Any, migration_table: str = default_migration_table) -> None:
        """Take over the yoyo command, if it is the caller."""
        if (command := _running_command(sys._getframe())) is None:
            self.allow_loss = self._require_permission
            super().__init__(uri, migration_table)
            return
        args = command.f_locals["args"]
        write_any_character()
        stop_on_sigterm()
        self.report, self.shows_rows = print, True
        self.report_stopped = lambda message: print(f"yoyo: {message}", file=sys.stderr)
        migrate.read_migrations = self._read_migrations
        migrate.migrations_to_revision = self._up_to_revision
        self._function = args.func
        named = (getattr(args, "revision", None) or "", getattr(args, "match", None) or "")
        self._named = [re.sub(r"[\^\\$]", "", one) for one in named]
        sys.excepthook = functools.partial(_report, (*sys.argv, str(args.database)))
        warnings.showwarning = _warn
        _judge_ini(args)
        super().__init__(_read_again(args) or uri, migration_table)
        options, sources = _options(args, self.location)
        self.location = replace(self.location, yoyo=options, sources=sources)
        if not _is_on(command.f_locals["config"], "allow_data_loss"):
            self.allow_loss = functools.partial(self._require_consent, args)

    def _require_permission(self, loss: str, *_: Any, **_more: Any) -> None:
        """Refuse a rollback that would delete rows, unless the program has allowed it."""
        if not self.allow_data_loss:
            raise refusal(loss, ["set `allow_data_loss = True` on the backend"])

    def _require_consent(self, args: Any, loss: str, last: str, *, may_ask: bool = True) -> None:
        """Refuse a rollback that would delete rows, unless the operator confirms it on a terminal."""
        if may_ask and not args.batch_mode and sys.stdin.isatty():
            if utils.confirm(f"This deletes {loss}. Continue?", default="n"):
                return
            raise refusal(loss, ["run the command again and answer y"])
        ini, ways = _ini_of(args), list[str]()
        if self.migration_table == default_migration_table:  # poker-therapist has no other
            call = command_about(replace(self.location, yoyo=None), "rollback", "--to", last, "--yes")
            again = command_about(self.location, "apply")
            ways.append(f"run `{call}`" + f" and then `{again}`" * (args.command_name != "rollback"))
        if ini:
            ways.append(where_to_write(Path(ini), "allow_data_loss", "on"))
        elif not ways:
            ways.append("write [DEFAULT] and `allow_data_loss = on` to a file, and pass it with --config")
        raise refusal(loss, ways)

    def _ours(self, migrations: Any) -> MigrationList:
        """Return migrations as we read them, where yoyo's documented `read_migrations` has read them."""
        hooks = getattr(migrations, "post_apply", [])
        found = [*migrations, *hooks]
        if all(isinstance(one, SQLMigration) for one in found):
            return migrations
        read = self.read(list(dict.fromkeys(str(one.source_dir) for one in found)))
        ours = {one.id: one for one in (*read, *read.post_apply)}
        return MigrationList([ours[one.id] for one in migrations], [ours[one.id] for one in hooks])

    def to_apply(self, migrations: MigrationList) -> MigrationList:
        """Return what is not applied, in the order of its dependencies."""
        return super().to_apply(self._ours(migrations))

    def apply_one(self, migration: Any, force: bool = False, mark: bool = True) -> None:
        """Apply one migration, unless a concurrent process has done so."""
        super().apply_one(self._ours([migration])[0], force, mark)

    def rollback_one(self, migration: Any, force: bool = False) -> None:
        """Roll one migration back, unless a concurrent process has done so."""
        super().rollback_one(self._ours([migration])[0], force)

    def rollback_migrations(self, migrations: MigrationList, force: bool = False) -> None:
        """Roll back some migrations, one after the other; the first that fails ends the run."""
        super().rollback_migrations(self._ours(migrations), force)

    def _read_migrations(self, *sources: str) -> MigrationList:
        """Return the migrations of the sources, and those that are applied and have no file any more."""
        # An id that no file may have is forged: yoyo would print it unescaped.
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
        """Apply some migrations; report those that have no file."""
        migrations = self._ours(migrations)
        self.tell_of_missing_files()
        super().apply_migrations(migrations, force)

    def break_lock(self) -> None:
        """Remove the row that a killed plain yoyo may have left; ours leaves none."""
        with self.one_transaction():
            if self.lock_table in self.list_tables():
                super().break_lock()

    def _require_named(self, migrations: Sequence[SQLMigration], word: str) -> None:
        """Refuse to forget that a migration was interrupted, unless the command names it."""
        for name in (one.id for one in migrations if one.id in self.interrupted()):
            if name not in self._named and (self._function or len(migrations) > 1):
                call = command_about(self.location, word, "-m", f"^{re.escape(name)}$", sources=self.sources)
                raise MigrationInterrupted(
                    f"{name} cannot be {word}ed with others: {self.how_to_finish(name)}; if you have "
                    f"finished it by hand, run `{call}`",
                    migration_id=name,
                )

    def mark_migrations(self, migrations: MigrationList) -> None:
        """Record migrations as applied without running them, with the texts of their files."""
        self._require_database()
        with self.translating_errors(), self.migration_lock(), self.one_transaction():
            applied = self.applied()
            self._prepare()
            marked = [migration for migration in self._ours(migrations) if migration.id not in applied]
            self._require_named(marked, "mark")
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
            unmarked = [migration for migration in self._ours(migrations) if migration.id in applied]
            self._require_named(unmarked, "unmark")
            for migration in unmarked:
                self._unrecord(migration, operation="unmark")
        for migration in unmarked:
            self.tell_operator(f"unmarked {migration.id}")

    def to_rollback(self, migrations: MigrationList) -> MigrationList:
        """Return what is applied; report on standard error if there is no database."""
        if not self.exists():
            print(f"there is no database {escaped(self.name)} yet: nothing is applied", file=sys.stderr)
        found = super().to_rollback(self._ours(migrations))
        if self._function is migrate.list_migrations:  # which takes this for what is applied
            applied = self.applied()
            return found.filter(lambda one: one.id in applied)
        if self._function in {migrate.reapply, migrate.develop}:  # before it is rolled back
            self.require_in_order(found, again=True)
        return found


def write_any_character() -> None:
    """Let this process print characters that its console lacks as escapes: on cp1252, for example."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def stop_on_sigterm() -> None:
    """Let SIGTERM end this process as Ctrl-C does: it rolls back, and deletes its temporary files."""
    is_default = signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    if is_default and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, lambda number, _frame: sys.exit(128 + number))


def _running_command(frame: FrameType | None) -> FrameType | None:
    while frame is not None and frame.f_code is not main.main.__code__:
        frame = frame.f_back
    return frame


_migrations_to_revision = migrate.migrations_to_revision


def _read_again(args: Any) -> Location | None:
    """Return the database if yoyo has read only a part of its URL; None if it has read all of it.

    yoyo puts the folder of an ini file into a URL unquoted, and reads a # or ? in it as the end of the path.
    """
    database = str(args.database)
    file = _ini_of(args)
    if file and database == _said(file, "database"):
        database = ini_value(Path(file).absolute(), "database", is_given=True) or database
    nameless = any("=" not in one for one in database.partition("?")[2].split("&") if one)
    return locate(database) if database != args.database or "#" in database or nameless else None


def _options(args: Any, location: Location) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the options with which yoyo is about the same database again, and the sources that it names."""
    file = _ini_of(args)
    options: tuple[str, ...] = () if args.use_config_file else ("--no-config-file",)
    options += ("-c", os.path.abspath(args.config)) if args.config else ()  # noqa: PTH100  # as it is
    if not file or args.database != _said(file, "database"):
        options += ("--database", yoyo_url(location))
    table = getattr(args, "migration_table", default_migration_table)
    if table not in (default_migration_table, file and _said(file, "migration_table")):
        options += ("--migration-table", table)
    sources = tuple(getattr(args, "sources", None) or ())
    is_said = file and list(sources) == (_said(file, "sources") or "").split()
    places = tuple(one if ":" in one else os.path.abspath(one) for one in sources)  # noqa: PTH100  # globs
    return options + (() if is_said else tuple(map(yoyo_source, places))), places


def _ini_of(args: Any) -> str | None:
    """Return the ini file that yoyo has read."""
    return (args.config or yoyo_config.find_config()) if args.use_config_file else None


def _said(file: str, option: str) -> str | None:
    """Return what yoyo has read in its ini file."""
    return yoyo_config.read_config(file).get("DEFAULT", option, fallback=None)  # type: ignore[no-any-return]


def _is_on(config: configparser.ConfigParser, option: str) -> bool:
    try:
        return config.getboolean("DEFAULT", option, fallback=False)
    except ValueError:
        raise InvalidInput(f"`{option}` in the ini file must be on or off") from None


def _judge_ini(args: Any) -> None:
    """Refuse the ini file that yoyo has found if another user can write it; name it if it is above.

    A file that only the group can write is accepted: with umask 002 all files are.
    """
    if args.config or not args.use_config_file or (taken := yoyo_config.find_config()) is None:
        return
    if str(find_ini(writers=stat.S_IWOTH)) != taken:
        raise InvalidInput(f"{ini_beyond()}")
    if Path(taken).parent != Path.cwd():
        print(f"yoyo: using {escaped(taken)}", file=sys.stderr)


def _report(
    given: Sequence[str], _kind: type[BaseException], error: BaseException, _trace: TracebackType | None
) -> None:
    """Print an error of ours, or the operator's Ctrl-C, as one message; every other as Python does.

    A password in the arguments that were given to the command, or in its database, is not printed.
    """
    if isinstance(error, KeyboardInterrupt):
        print("yoyo: stopped", file=sys.stderr)
        return
    ours = isinstance(error, PokerTherapistError)
    said = ""
    if not ours or logging.getLogger().isEnabledFor(logging.INFO):
        said = "".join(traceback.format_exception(error))
    if ours:
        said += f"yoyo: {error}\n"
    print(escaped(hide_passwords(said, given), keeping="\n"), end="", file=sys.stderr)


def _warn(message: Warning | str, *_where: Any, **_more: Any) -> None:
    """Print a warning, such as one of yoyo's, without the place in the code.

    A failure to print it must not undo a migration.
    """
    with contextlib.suppress(OSError, ValueError):
        print(escaped(f"yoyo: warning: {message}", keeping="\n"), file=sys.stderr)
