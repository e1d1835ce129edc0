"""The SQLite half of copying: all rows of a file as of one moment, and a transaction that fills another."""

import sqlite3
from collections.abc import Generator, Hashable, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

from poker_therapist.database import SQLiteLocation, read_queries
from poker_therapist.errors import InvalidInput
from poker_therapist.migrations.copy import KEYS, RefusedRow, named
from poker_therapist.migrations.engine import Row
from poker_therapist.migrations.sqlite.backup import explained
from poker_therapist.sqlite_file import find_file, is_there, open_connection

_QUERIES = read_queries(Path(__file__).with_suffix(".sql"))

# What is wrong with a row, and not with the file or the disk.
_REFUSALS = (
    sqlite3.IntegrityError,
    sqlite3.DataError,
    sqlite3.InterfaceError,
    sqlite3.ProgrammingError,
    OverflowError,
    UnicodeEncodeError,
)


class SQLiteReader:
    """The rows of a file as of one moment."""

    def __init__(self, location: SQLiteLocation, connection: sqlite3.Connection) -> None:
        self.location = location
        self._connection = connection

    def columns(self, table: str) -> list[str]:
        """Return the columns of a table, in its order."""
        return [name for (name,) in self._ask(_QUERIES["columns"], table)]

    def count(self, table: str) -> int:
        """Return how many rows a table has."""
        ((count,),) = self._ask(f"SELECT count(*) FROM {table}")
        return int(count)

    def next_id(self, table: str) -> int:
        """Return the id that the next row of a table would get."""
        counters = self._ask(_QUERIES["last_id"], table)
        highest = self._ask(f"SELECT max(id) FROM {table}")
        return max(0, *(last or 0 for (last,) in (*counters, *highest))) + 1

    def rows(self, table: str, columns: Sequence[str]) -> Generator[Row, None, None]:
        """Yield the rows of a table by its key, one in memory at a time."""
        sql = f"SELECT {_listed(columns)} FROM {table} ORDER BY {', '.join(KEYS[table])}"
        with explained(self.location):
            try:
                yield from self._connection.execute(sql)
            except sqlite3.OperationalError as error:
                # The message repeats the text, which may be a player's.
                if not str(error).startswith("Could not decode"):
                    raise
                self._raise_no_text(table, columns, sql)

    def _raise_no_text(self, table: str, columns: Sequence[str], sql: str) -> None:
        """Raise InvalidInput for the first row with a text that is none."""
        self._connection.text_factory = bytes
        for row in self._connection.execute(sql):
            for column, value in zip(columns, row, strict=True):
                try:
                    if isinstance(value, bytes):
                        value.decode()
                except UnicodeDecodeError:
                    readable = tuple(
                        part.decode(errors="replace") if isinstance(part, bytes) else part for part in row
                    )
                    raise InvalidInput(
                        f"{named(table, columns, readable)} of {self.location.name} holds bytes in {column} "
                        "that are no text (UTF-8): correct or delete it, and copy again"
                    ) from None

    def _ask(self, sql: str, *values: object) -> list[Row]:
        with explained(self.location):
            return self._connection.execute(sql, values).fetchall()


class SQLiteWriter(SQLiteReader):
    """A transaction that holds the write lock of a file."""

    def write(self, table: str, columns: Sequence[str], rows: Iterable[Row]) -> None:
        """Write rows as they come, one in memory at a time."""
        number = 0

        def counted() -> Iterator[Row]:
            nonlocal number
            for number, row in enumerate(rows, start=1):  # noqa: B007  # the last one that was taken
                yield row

        places = ", ".join("?" * len(columns))
        sql = f"INSERT INTO {table} ({_listed(columns)}) VALUES ({places})"
        with explained(self.location):
            try:
                self._connection.executemany(sql, counted())
            except _REFUSALS as error:
                raise RefusedRow(number, str(error)) from error

    def go_on_at(self, table: str, next_id: int) -> None:
        """Have the next row of a table get this id."""
        self._ask(_QUERIES["forget_last_id"], table)
        if next_id > 1:
            self._ask(_QUERIES["keep_last_id"], table, next_id - 1)


def _listed(columns: Sequence[str]) -> str:
    """Return columns as SQL lists them; their names are the schema's own."""
    return ", ".join('"' + column.replace('"', '""') + '"' for column in columns)


@contextmanager
def reader(location: SQLiteLocation) -> Iterator[SQLiteReader]:
    """Open a file to read all of it as of one moment; it is not written."""
    find_file(location.path, create=False)
    with explained(location), closing(open_connection(location)) as connection:
        connection.execute("PRAGMA query_only = ON")
        connection.execute("BEGIN DEFERRED")
        yield SQLiteReader(location, connection)


@contextmanager
def writer(location: SQLiteLocation) -> Iterator[SQLiteWriter]:
    """Open a file to fill it in one transaction, committed when the block ends well."""
    find_file(location.path, create=False)
    with explained(location), closing(open_connection(location)) as connection:
        # What has been said to be copied is on the disk.
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("BEGIN IMMEDIATE")
        try:
            yield SQLiteWriter(location, connection)
            connection.execute("COMMIT")
        finally:
            connection.rollback()  # which does nothing after the commit


def identity(location: SQLiteLocation) -> Hashable:
    """Return which file it is, whatever links lead to it; None if there is none."""
    if not is_there(location.path):
        return None
    found = location.path.stat()
    return found.st_dev, found.st_ino


def remove(location: SQLiteLocation) -> None:
    """Remove a file that we have made, and what SQLite puts beside it."""
    for ending in ("", "-journal", "-wal", "-shm"):
        Path(f"{location.path}{ending}").unlink(missing_ok=True)
