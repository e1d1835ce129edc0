"""What can go wrong, one class each; every message says what to do next.

PokerTherapistError
├── InvalidInput           a value, key, number or database name that cannot be used; also a ValueError
├── StorageError           the database did not do what was asked
│   ├── DatabaseNotFound   there is no database, or no folder for one, at that path
│   ├── DatabaseUnreadable the file is not a database, or it is damaged
│   ├── DatabaseReadOnly   the file or its folder may not be written
│   ├── DatabaseFull       the disk, or the size allowed to the database, is used up
│   ├── DatabaseBusy       somebody else kept it locked for longer than the timeout
│   ├── DatabaseUnreachable the server does not answer, refuses the user, or broke the connection
│   ├── TransactionConflict somebody else changed the same data meanwhile
│   ├── SchemaMissing      a table that the storage needs is not there
│   └── StorageClosed      the storage was used after close()
└── MigrationError         the schema could not be brought to where the code needs it
    ├── InvalidMigration   a migration's files cannot be used
    ├── MigrationEdited    a file is not what was applied from it
    ├── MigrationFailed    a statement of a migration failed
    ├── MigrationOutOfOrder a migration comes too late, or two depend on the same one
    ├── MigrationInterrupted another migration was stopped in the middle
    ├── DriftUnknown       whether the schema is what the migrations build cannot be said
    ├── SchemaOutdated     migrations are pending and the caller asked not to apply them
    └── SchemaTooNew       the database has had migrations that this version does not know
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
    """Escape what an error of a driver says: Python shows it above ours, and names in it are anybody's."""
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
        """Return the same error, of want of room, with what of some migrations was done, and what was not.

        Args:
            word: what was done with them: `applied`.
            done: the ids of those with which that was done before.
            rest: the ids of the others.
            room: how much room the others need; empty if nobody knows.
        """
        message = re.sub("[;,] (so )?nothing was changed", "", str(self)) if done else str(self)
        told = f"{', '.join(done)} {'were' if done[1:] else 'was'} {word}; " if done else ""
        told += f"{', '.join(rest)} {'were' if rest[1:] else 'was'} not {word}"
        return self.with_message(f"{message}\n{told}{room and f', which needs up to {room}'}")


class InvalidInput(PokerTherapistError, ValueError):
    """A value, key, number or database name that cannot be used; nothing was written."""


class StorageError(PokerTherapistError):
    """The database did not do what was asked; what was not committed is not there."""


class DatabaseNotFound(StorageError):
    """There is no database, or no folder for one, at that path."""


class DatabaseUnreadable(StorageError):
    """The file is not a database, or it is damaged."""


class DatabaseReadOnly(StorageError):
    """The file or its folder may not be written."""


class DatabaseFull(StorageError):
    """The disk, or the size allowed to the database, is used up."""


class DatabaseBusy(StorageError):
    """Somebody else kept the database locked for longer than the timeout."""


class DatabaseUnreachable(StorageError):
    """The server cannot be used, or broke the connection; its message says if a write may have been saved."""


class TransactionConflict(StorageError):
    """Somebody else changed the same data meanwhile; nothing was saved, and doing it again may work."""


class SchemaMissing(StorageError):
    """A table that the storage needs is not there."""


class StorageClosed(StorageError):
    """The storage was used after close()."""


def file_error(error: OSError, doing: str) -> StorageError:
    """Return our error for one of the system's about a file that is written.

    Args:
        error: what the system says.
        doing: what could not be done, such as `cannot write x`.
    """
    kind, advice = StorageError, "look at the disk, and at the limits of this process"
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        kind, advice = DatabaseFull, "make room"
    elif error.errno in (errno.EROFS, errno.EACCES, errno.EPERM):
        kind, advice = DatabaseReadOnly, "correct the rights of the folder, or use another one"
    elif error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG):
        advice = "correct the path"
    return kind(f"{doing} ({error.strerror}): {advice}")


class MigrationError(PokerTherapistError):
    """The schema could not be brought to where the code needs it; the database is as it was.

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
    """A file is not what was applied from it; nothing ran."""


class MigrationFailed(MigrationError):
    """A statement of a migration failed, and the whole migration was rolled back."""


class MigrationOutOfOrder(MigrationError):
    """A migration comes too late, or two branches have added one each after the same one; nothing ran."""


class MigrationInterrupted(MigrationError):
    """Another migration was stopped in the middle and must be finished or rolled back first; nothing ran."""


class DriftUnknown(MigrationError):
    """It cannot be said whether the schema is what the applied migrations build; nothing was changed."""


class SchemaOutdated(MigrationError):
    """Migrations are pending and the caller asked not to apply them.

    Attributes:
        pending: the ids of those migrations.
    """

    def __init__(self, message: str, *, pending: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.pending = tuple(pending)


class SchemaTooNew(MigrationError):
    """The database has had migrations that this version of the code does not know.

    Attributes:
        unknown: the ids of those migrations.
    """

    def __init__(self, message: str, *, unknown: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.unknown = tuple(unknown)

    @classmethod
    def beside(cls, database: str, pending: Sequence[str], unknown: Sequence[str]) -> Self:
        """Return the error for what is pending beside what is unknown: nobody has tried one on the other."""
        ids = escaped(", ".join(unknown))
        return cls(
            f"{database} lacks {', '.join(pending)}, and has had {ids}, which this version of the code does "
            "not know: update the code to a version that has all of them (or restore their files), and let "
            "that apply them",
            unknown=unknown,
        )
