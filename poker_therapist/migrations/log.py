"""Who has done what with which migration, and when: yoyo's log, to which we add what failed."""

from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from poker_therapist.errors import MigrationError, StorageError, escaped
from poker_therapist.location import command_about

_MOST_CHARACTERS = 255  # yoyo's columns hold no more


@dataclass(frozen=True, slots=True)
class LogEntry:
    """One thing that was done with a migration, or tried.

    Attributes:
        at: when, in UTC; None for what was interrupted, whose time nobody has recorded.
        operation: apply, rollback, mark or unmark.
        outcome: done; failed, and undone; or interrupted, and not finished yet.
        place: the file and line that failed, or what else is known of it.
    """

    at: str | None
    operation: str
    migration: str
    outcome: str
    user: str = ""
    host: str = ""
    place: str = ""


def record_failure(backend: Any, migration: Any, operation: str, error: BaseException) -> None:
    """Record that a migration has failed, or was stopped, in a transaction of its own.

    What it did has been undone by then. Nothing of the error's text is kept, for it may repeat a player's
    row. Where there is no log yet, or nothing can be written, nothing is recorded: what counts is the error.
    """
    if not isinstance(error, Exception):
        backend.report_stopped(escaped(_what_is_left(backend, migration, operation)))
    if isinstance(error, StorageError):  # no room, no right, no server, or nobody's turn: it has not begun
        return
    place = "stopped"
    if isinstance(error, Exception):
        place = type(error).__name__
        if isinstance(error, MigrationError) and error.file:
            place = f"{error.file}:{error.line or ''}".rstrip(":")
    with suppress(Exception):
        if {backend.log_table, backend.version_table} <= set(backend.list_tables()):
            values = backend.get_log_data(migration, "failed")
            with backend.one_transaction():
                backend.execute(backend.format_sql(backend.log_migration_sql), values)
                comment = f"{operation}: {place}"[:_MOST_CHARACTERS]
                backend.query("comment_log", (comment, values["id"]))


def _what_is_left(backend: Any, migration: Any, operation: str) -> str:
    """Return what a signal, such as Ctrl-C, has left of a migration."""
    doing = {"apply": "applying", "rollback": "rolling back"}[operation]
    with suppress(Exception):
        if migration.id in backend.interrupted():
            return f"{migration.id}: {backend.how_to_finish(migration.id)}"
        is_done = (migration.id in backend.applied()) == (operation == "apply")
        if migration.is_hook and not migration.is_transactional(operation):
            return f"stopped while {doing} {migration.id}: what its last statements do has not been done"
        when, undone = ("after", "") if is_done else ("while", ": all that it did was undone")
        return f"stopped {when} {doing} {migration.id}{undone}"
    return f"stopped while {doing} {migration.id}: see `{command_about(backend.location, 'status')}`"


def read_log(backend: Any) -> list[LogEntry]:
    """Return what was done with migrations, oldest first, and last what was interrupted."""
    entries = []
    with backend.translating_errors():
        if backend.exists() and backend.log_table in backend.list_tables():
            for at, operation, migration, user, host, comment in backend.query("logged"):
                outcome, tried, place = "done", operation or "", comment or ""
                if operation == "failed":
                    outcome, (tried, _, place) = "failed", place.partition(": ")
                entries.append(LogEntry(at, tried, migration or "", outcome, user or "", host or "", place))
    applied = backend.applied()
    left = [] if backend.is_being_changed() else sorted(backend.interrupted())
    ways = {name: "rollback" if name in applied else "apply" for name in left}
    return entries + [LogEntry(None, way, name, "interrupted") for name, way in ways.items()]
