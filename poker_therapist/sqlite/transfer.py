"""The SQLite half of copying: all rows of a file as of one moment, and a transaction that fills another."""

import sqlite3
from collections.abc import Generator, Hashable, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path

from poker_therapist.compat import override
from poker_therapist.errors import InvalidInput
from poker_therapist.location import SQLiteLocation
from poker_therapist.migrations.engine import Reader, RefusedRow, Row, Writer
from poker_therapist.sqlfile import Placeholders, read_queries
from poker_therapist.sqlite.connect import find_file, is_there, open_connection, translating_errors, watched
from poker_therapist.tables import StoredTable

_QUERIES = read_queries(Placeholders.SQLITE, Path(__file__).with_suffix(".sql"))

# What is wrong with a row, and not with the file or the disk.
_REFUSALS = (
    sqlite3.IntegrityError,
    sqlite3.DataError,
    sqlite3.InterfaceError,
    sqlite3.ProgrammingError,
    OverflowError,
    UnicodeEncodeError,
)


class SQLiteReader(Reader):
    """The rows of a file in one snapshot."""

    location: SQLiteLocation

    def __init__(self, location: SQLiteLocation, connection: sqlite3.Connection) -> None:
        self.location = location
        self._connection = connection

    @override
    def columns(self, table: StoredTable) -> list[str]:
        return [name for (name,) in self._ask(_QUERIES["columns"], table.name)]

    @override
    def count(self, table: StoredTable) -> int:
        ((count,),) = self._ask(f"SELECT count(*) FROM {table.name}")
        return int(count)

    @override
    def next_id(self, table: StoredTable) -> int:
        counters = self._ask(_QUERIES["last_id"], table.name)
        highest = self._ask(f"SELECT max({table.identity}) FROM {table.name}")
        return max(0, *(last or 0 for (last,) in (*counters, *highest))) + 1

    @override
    def rows(self, table: StoredTable, columns: Sequence[str]) -> Generator[Row, None, None]:
        sql = f"SELECT {_listed(columns)} FROM {table.name} ORDER BY {', '.join(table.key)}"
        with translating_errors(self.location):
            try:
                yield from self._connection.execute(sql)
            except sqlite3.OperationalError as error:
                # The message repeats the text, which may be a player's.
                if not str(error).startswith("Could not decode"):
                    raise
                self._raise_no_text(table, columns, sql)

    def _raise_no_text(self, table: StoredTable, columns: Sequence[str], sql: str) -> None:
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
                        f"{table.label(columns, readable)} of {self.location.name} has bytes in {column} "
                        "that are not UTF-8: correct or delete the row, then copy again"
                    ) from None

    def _ask(self, sql: str, *values: object) -> list[Row]:
        with translating_errors(self.location):
            return self._connection.execute(sql, values).fetchall()


class SQLiteWriter(SQLiteReader, Writer):
    """A transaction that holds the write lock of a file."""

    @override
    def write(self, table: StoredTable, columns: Sequence[str], rows: Iterable[Row]) -> None:
        number = 0

        def counted() -> Iterator[Row]:
            nonlocal number
            for number, row in enumerate(rows, start=1):  # noqa: B007  # the last one that was taken
                yield row

        places = ", ".join("?" * len(columns))
        sql = f"INSERT INTO {table.name} ({_listed(columns)}) VALUES ({places})"
        with translating_errors(self.location):
            try:
                self._connection.executemany(sql, counted())
            except _REFUSALS as error:
                raise RefusedRow(number, str(error)) from error

    @override
    def set_next_id(self, table: StoredTable, next_id: int) -> None:
        self._ask(_QUERIES["forget_last_id"], table.name)
        if next_id > 1:
            self._ask(_QUERIES["keep_last_id"], table.name, next_id - 1)


def _listed(columns: Sequence[str]) -> str:
    """Return columns as SQL lists them; their names are the schema's own."""
    return ", ".join('"' + column.replace('"', '""') + '"' for column in columns)


@contextmanager
def reader(location: SQLiteLocation) -> Iterator[SQLiteReader]:
    """Open a file to read all of it as of one moment; it is not written."""
    find_file(location.path, create=False)
    with translating_errors(location), closing(open_connection(location)) as connection:
        watched(connection, location.path).execute("PRAGMA query_only = ON")
        connection.execute("BEGIN DEFERRED")
        yield SQLiteReader(location, connection)


@contextmanager
def writer(location: SQLiteLocation) -> Iterator[SQLiteWriter]:
    """Open a file to fill it in one transaction, committed when the block ends well."""
    find_file(location.path, create=False)
    durable = replace(location, synchronous="FULL")  # what was reported as copied is on the disk
    with translating_errors(location), closing(open_connection(durable)) as connection:
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
        if (file := Path(f"{location.path}{ending}")).exists():  # on a read-only disk it would be an error
            file.unlink()
