"""What an operator can do with a database, whichever engine it is on."""

from collections.abc import Collection, Generator, Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Protocol

from poker_therapist.database import Location, SQLiteLocation
from poker_therapist.migrations.atomic import AtomicBackend
from poker_therapist.migrations.catalog import Difference, RowDifference
from poker_therapist.migrations.files import SQLMigration


class Bench(Protocol):
    """A copy of a database, on which migrations are tried."""

    @property
    def reason(self) -> str:
        """Why the copy is of a lesser kind than it could be, empty if it is not."""

    @property
    def room(self) -> int:
        """How many bytes the real run needs at most, as far as was seen."""

    def backend(self) -> AtomicBackend:
        """Open the backend of the copy."""

    def keep_before(self) -> None:
        """Keep what there is, to compare with later."""

    def keep_after(self) -> None:
        """Keep what there is after applying, to return to."""

    def return_to_after(self) -> bool:
        """Return to what `keep_after` kept; false if that cannot be, and nothing more can be tried."""

    def damage(self) -> str:
        """Return what is broken inside the copy, an empty text if nothing is."""

    def changed_rows(self) -> Iterator[tuple[str, int]]:
        """Yield how many rows of each table are not what they were, for those with any."""

    def schema_differences(self) -> list[Difference]:
        """Return how the schema differs from what it was."""

    def row_differences(self) -> Iterator[RowDifference]:
        """Yield how the rows of the tables that were there and are there differ from what they were."""

    def tables_of_one(self) -> Iterator[tuple[str, int]]:
        """Yield the tables with rows that were there or are there, not both, and how many rows."""

    def texts_laid_out_differently(self) -> list[str]:
        """Return what has the same meaning as before and another text, where the engine keeps texts."""


Row = tuple[Any, ...]


class Reader(Protocol):
    """The rows of a database as of one moment, in the form in which they go from engine to engine.

    Every method raises an error of ours for one of the driver's.
    """

    @property
    def location(self) -> Location:
        """Where they are."""

    def columns(self, table: str) -> list[str]:
        """Return the columns of a table, in its order."""

    def count(self, table: str) -> int:
        """Return how many rows a table has."""

    def next_id(self, table: str) -> int:
        """Return the id that the next row of a table would get, or would if no row were in the way."""

    def rows(self, table: str, columns: Sequence[str]) -> Generator[Row, None, None]:
        """Yield the rows of a table by its key, a few in memory at a time."""


class Writer(Reader, Protocol):
    """A transaction that nobody else can write beside; it sees what it has written."""

    def write(self, table: str, columns: Sequence[str], rows: Iterable[Row]) -> None:
        """Write rows as they come, a few in memory at a time.

        Raises:
            RefusedRow: this engine cannot hold one of them.
        """

    def go_on_at(self, table: str, next_id: int) -> None:
        """Have the next row of a table get this id."""


class Engine(Protocol):
    """The tools for one database."""

    def backend(self) -> AtomicBackend:
        """Return the backend; nothing is opened yet."""

    def bench(self, files: Mapping[str, SQLMigration]) -> AbstractContextManager[Bench]:
        """Copy the database, to try migrations on; the copy goes when the block ends.

        Args:
            files: the migrations of the code, for those of which the database has kept no text.

        Raises:
            StorageError: the database cannot be read, or there is no room for a copy.
        """

    def save_backup(self, output: Path | None) -> Path:
        """Copy the database to a file while others use it, and return that file's path."""

    def restore(self, file: Path) -> Path | None:
        """Put a backup in the place of the database; return the backup of what was replaced, if any."""

    def backups_with_player(self, user_id: int) -> dict[Path, bool | None]:
        """Return the known backups that still hold something about a player; None: cannot be read."""

    def identity(self) -> Hashable:
        """Return what is the same for every name of the database and for no other; None if there is none."""

    def reader(self) -> AbstractContextManager[Reader]:
        """Open the database to read all of it as of one moment; it is not written."""

    def writer(self) -> AbstractContextManager[Writer]:
        """Open the database to fill it in one transaction, committed when the block ends well."""

    def unmake(self, before: Collection[str] | None) -> None:
        """Take away what we have made in a database where nothing of ours was.

        Args:
            before: the tables that were there, which stay; None if there was no database.
        """


def engine_for(location: Location) -> Engine:
    """Return the tools for the database at `location`."""
    if isinstance(location, SQLiteLocation):
        from poker_therapist.migrations.sqlite.engine import SQLiteEngine

        return SQLiteEngine(location)
    from poker_therapist.migrations.postgresql.engine import PostgreSQLEngine

    return PostgreSQLEngine(location)
