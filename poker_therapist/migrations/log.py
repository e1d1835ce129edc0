"""The history of migrations: yoyo's log, with our records of what failed."""

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
        at: when, in UTC; None for what was interrupted, whose time is not recorded.
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
    """Record, in a separate transaction, that a migration has failed or was stopped.

    What it did has been undone by then. The text of the error is not recorded, because it may repeat a
    player's row. Without a log, or if it cannot be written, nothing is recorded: the error matters more.
    """
    if not isinstance(error, Exception):
        backend.report_stopped(escaped(_what_is_left(backend, migration, operation)))
    if isinstance(error, StorageError):  # no space, no permission, no server, or a lock: it has not started
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
    """Return the state in which a signal, such as Ctrl-C, left a migration."""
    doing = {"apply": "applying", "rollback": "rolling back"}[operation]
    with suppress(Exception):
        if migration.id in backend.interrupted():
            return f"{migration.id}: {backend.how_to_finish(migration.id)}"
        is_done = (migration.id in backend.applied()) == (operation == "apply")
        if migration.is_hook and not migration.is_transactional(operation):
            return f"stopped while {doing} {migration.id}: its last statements were not executed"
        when, undone = ("after", "") if is_done else ("while", ": all its changes were undone")
        return f"stopped {when} {doing} {migration.id}{undone}"
    return f"stopped while {doing} {migration.id}: run `{command_about(backend.location, 'status')}`"


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
