"""The errors, one class for each kind; every message says what to do next.

PokerTherapistError
├── InvalidInput           a value, key, number or database name that cannot be used; also a ValueError
├── StorageError           the database did not do what was asked
│   ├── DatabaseNotFound   there is no database, or no folder for one, at that path
│   ├── DatabaseUnreadable the file is not a database, or it is damaged
│   ├── DatabaseReadOnly   the file or its folder is not writable
│   ├── DatabaseFull       the disk is full, or the database has reached its maximum size
│   ├── DatabaseBusy       another connection held a lock for longer than the timeout
│   ├── DatabaseUnreachable the server does not answer, refuses the user, or broke the connection
│   ├── TransactionConflict another transaction changed the same data concurrently
│   ├── SchemaMissing      a table that the storage needs is not there
│   └── StorageClosed      the storage was used after close()
└── MigrationError         the schema could not be migrated
    ├── InvalidMigration   a migration's files cannot be used
    ├── MigrationEdited    a file was edited after it was applied
    ├── MigrationFailed    a statement of a migration failed
    ├── MigrationOutOfOrder a migration comes too late, or two depend on the same one
    ├── MigrationInterrupted another migration was interrupted
    ├── DriftUnknown       the schema cannot be compared with what the migrations build
    ├── SchemaOutdated     migrations are pending and the caller asked not to apply them
    └── SchemaTooNew       the database has migrations that this version does not know
"""

import errno
import re
from collections.abc import Sequence
from copy import copy
from typing import Self

# What a terminal obeys, or shows elsewhere: controls, line ends, marks of the direction, lone surrogates.
_CONTROLS = re.compile(r"[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def escaped(text: str, *, keeping: str = "") -> str:
    """Return a text from a database, file or argument for a terminal: control characters as escapes.

    Args:
        text: what is to be shown.
        keeping: characters that stay, such as the line ends of a message of ours.
    """
    return _CONTROLS.sub(
        lambda one: one[0] if one[0] in keeping else one[0].encode("unicode_escape").decode(), text
    )


def counted(count: float, one: str, more: str = "") -> str:
    """Return how many there are of something, as one and as more of them are called."""
    number = f"{count:,}" if isinstance(count, int) else f"{count:g}"
    return f"{number} {one if count == 1 else more or f'{one}s'}"


def escape_driver_error(error: BaseException) -> None:
    """Escape the text of a driver's error, which Python shows above ours: its names are untrusted."""
    error.args = tuple(escaped(one, keeping="\n") if isinstance(one, str) else one for one in error.args)


class PokerTherapistError(Exception):
    """The base class of every error that this package raises on purpose."""

    def __str__(self) -> str:
        """Return the message; its lines are ours, every other control character is shown as an escape."""
        return escaped(super().__str__(), keeping="\n")

    def with_message(self, message: str) -> Self:
        """Return the same error, fields included, with another message."""
        changed = copy(self)
        changed.args = (message,)
        return changed

    def left_undone(self, word: str, done: Sequence[str], rest: Sequence[str], room: str) -> Self:
        """Return the same error of a full disk, with what was done with which migrations.

        Args:
            word: what was done: `applied`.
            done: the ids of the migrations that were done before.
            rest: the ids of the others.
            room: how much disk space the others need; empty if that is not known.
        """
        message = re.sub("[;,] (so )?nothing was changed", "", str(self)) if done else str(self)
        told = f"{', '.join(done)} {'were' if done[1:] else 'was'} {word}; " if done else ""
        told += f"{', '.join(rest)} {'were' if rest[1:] else 'was'} not {word}"
        return self.with_message(f"{message}\n{told}{room and f'; this needs up to {room}'}")


class InvalidInput(PokerTherapistError, ValueError):
    """A value, key, number or database name that cannot be used; nothing was written."""


class StorageError(PokerTherapistError):
    """The database did not do what was asked; what was not committed is rolled back."""


class DatabaseNotFound(StorageError):
    """There is no database, or no folder for one, at that path."""


class DatabaseUnreadable(StorageError):
    """The file is not a database, or it is damaged."""


class DatabaseReadOnly(StorageError):
    """The file or its folder is not writable."""


class DatabaseFull(StorageError):
    """The disk is full, or the database has reached its maximum size."""


class DatabaseBusy(StorageError):
    """Another connection held a lock for longer than the timeout."""


class DatabaseUnreachable(StorageError):
    """The server cannot be used, or the connection was lost; the message says if a write may be saved."""


class TransactionConflict(StorageError):
    """Another transaction changed the same data concurrently; nothing was saved, a retry may succeed."""


class SchemaMissing(StorageError):
    """A table that the storage needs is not there."""


class StorageClosed(StorageError):
    """The storage was used after close()."""


def file_error(error: OSError, doing: str) -> StorageError:
    """Return our error for one of the system's about a file that is written.

    Args:
        error: the error of the operating system.
        doing: what could not be done, such as `cannot write x`.
    """
    kind, advice = StorageError, "check the disk and the resource limits of this process"
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        kind, advice = DatabaseFull, "free disk space"
    elif error.errno in (errno.EROFS, errno.EACCES, errno.EPERM):
        kind, advice = DatabaseReadOnly, "correct the permissions of the folder, or use another folder"
    elif error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG):
        advice = "correct the path"
    return kind(f"{doing} ({error.strerror}): {advice}")


class MigrationError(PokerTherapistError):
    """The schema could not be migrated; the database is unchanged.

    Attributes:
        migration_id: the migration that the error is about; None if it is about none or about several.
        file: the path of its file as an operator knows it; None if it has none.
        line: the line of that file, from 1; None if no line is to blame.
    """

    def __init__(
        self,
        message: str,
        *,
        migration_id: str | None = None,
        file: str | None = None,
        line: int | None = None,
    ) -> None:
        super().__init__(message)
        self.migration_id = migration_id
        self.file = file
        self.line = line


class InvalidMigration(MigrationError):
    """A migration's files cannot be used; none of it ran."""


class MigrationEdited(MigrationError):
    """A file was edited after it was applied; nothing ran."""


class MigrationFailed(MigrationError):
    """A statement of a migration failed, and the whole migration was rolled back."""


class MigrationOutOfOrder(MigrationError):
    """A migration comes too late, or two branches each added one after the same one; nothing ran."""


class MigrationInterrupted(MigrationError):
    """Another migration was interrupted and must be finished or rolled back first; nothing ran."""


class DriftUnknown(MigrationError):
    """The schema cannot be compared with what the applied migrations build; nothing was changed."""


class SchemaOutdated(MigrationError):
    """Migrations are pending and the caller asked not to apply them.

    Attributes:
        pending: the ids of those migrations.
    """

    def __init__(self, message: str, *, pending: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.pending = tuple(pending)


class SchemaTooNew(MigrationError):
    """The database has migrations that this version of the code does not know.

    Attributes:
        unknown: the ids of those migrations.
    """

    def __init__(self, message: str, *, unknown: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.unknown = tuple(unknown)

    @classmethod
    def beside(cls, database: str, pending: Sequence[str], unknown: Sequence[str]) -> Self:
        """Return the error for pending beside unknown migrations: their combination is untested."""
        ids = escaped(", ".join(unknown))
        return cls(
            f"{database} lacks {', '.join(pending)}. It also has {ids}, which this version of the code does "
            "not know: update the code to a version that has all of them (or restore their files), then "
            "apply them",
            unknown=unknown,
        )
