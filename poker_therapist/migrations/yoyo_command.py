"""YoyoCommandMixin for an operator: what a backend does when it is the ordinary `yoyo` command that loads it.

yoyo's command reads the files itself and lets every error end in a traceback. It has no hook for either, so
the backend, which yoyo makes before it reads anything, puts our reading in the place of yoyo's and lets our
errors end in one message and exit status 1 (-vv shows the traceback too).
"""

import contextlib
import io
import logging
import signal
import sys
import threading
import warnings
from collections.abc import Iterator
from types import FrameType, TracebackType
from typing import Any

from yoyo import default_migration_table
from yoyo.migrations import MigrationList
from yoyo.scripts import main, migrate

from poker_therapist.errors import DatabaseNotFound, PokerTherapistError
from poker_therapist.migrations.atomic import AtomicBackend


class YoyoCommandMixin(AtomicBackend):
    """What a backend does where the yoyo command makes it."""

    def __init__(self, uri: Any, migration_table: str = default_migration_table) -> None:
        """Take over the yoyo command, if that is who asks."""
        if _is_running_command(sys._getframe()):
            write_any_character()
            stop_on_sigterm()
            self.report = print
            migrate.read_migrations = self._read_migrations
            sys.excepthook = _report
            warnings.showwarning = _warn
        super().__init__(uri, migration_table)

    def _read_migrations(self, *sources: str) -> MigrationList:
        """Return the migrations of the sources, and those that are applied and have no file any more."""
        return self.read(sources, self.kept_migrations())

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
        for migration in self._known:
            if migration.file is None:
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
            print(f"there is no database {self.name} yet: nothing is applied", file=sys.stderr)
        return super().to_rollback(migrations)


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


def _is_running_command(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_code is main.main.__code__:
            return True
        frame = frame.f_back
    return False


def _report(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Print an error of ours, or the operator's Ctrl-C, as one message; leave every other to Python."""
    if isinstance(error, KeyboardInterrupt):
        print("yoyo: stopped; a migration that was not finished has been undone", file=sys.stderr)
        return
    ours = isinstance(error, PokerTherapistError)
    if not ours or logging.getLogger().isEnabledFor(logging.INFO):
        sys.__excepthook__(kind, error, trace)
    if ours:
        print(f"yoyo: {error}", file=sys.stderr)


def _warn(message: Warning | str, *_where: Any, **_more: Any) -> None:
    """Print a warning, of yoyo's say, without the place in the code that an operator cannot use.

    That nobody can be warned must not undo a migration.
    """
    with contextlib.suppress(OSError, ValueError):
        print(f"yoyo: warning: {message}", file=sys.stderr)
