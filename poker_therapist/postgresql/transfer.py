"""The PostgreSQL half of copying: all rows from one snapshot, and a transaction that fills empty tables.

Rows are read in chunks and written by COPY, with few in memory at a time. Columns of `legacy_rows` with
values of any type contain JSON; bytes and infinities, which JSON does not have, are an object
with one special key.
"""

import json
import re
from collections.abc import Callable, Generator, Hashable, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, LiteralString, cast

import psycopg
from psycopg import sql

from poker_therapist.compat import override
from poker_therapist.location import PostgreSQLLocation
from poker_therapist.migrations.engine import Reader, RefusedRow, Row, Writer
from poker_therapist.postgresql.connect import WatchedConnection, connect, reason_of, translating_errors
from poker_therapist.postgresql.home import quoted
from poker_therapist.sqlfile import Placeholders, read_queries
from poker_therapist.tables import StoredTable, TypedColumn
from poker_therapist.values import decode

_QUERIES = read_queries(Placeholders.POSTGRESQL, Path(__file__).with_suffix(".sql"))
# So many rows are taken at once while the server sends the next. libpq before 17 gives single ones only.
_CHUNK = 1_000 if psycopg.capabilities.has_stream_chunked() else 1
_INFINITIES = (float("inf"), float("-inf"))


def to_json(value: object) -> str | None:
    """Return what a column of `legacy_rows` keeps for a value of SQLite's, of whatever type."""
    if value is None:
        return None
    if isinstance(value, bytes):
        return json.dumps({"hex": value.hex()})
    if value in _INFINITIES:
        return json.dumps({"real": json.dumps(value)})
    return json.dumps(value)


def from_json(text: str | None) -> Any:
    """Return the value that a column of `legacy_rows` keeps, of the type that it had."""
    if text is None:
        return None
    value = decode(text)
    if isinstance(value, dict):
        with suppress(KeyError, TypeError, ValueError):  # written by hand
            return bytes.fromhex(value["hex"]) if "hex" in value else float(value["real"])
        return text
    return text if isinstance(value, list) else value


class PostgreSQLReader(Reader):
    """The rows of a database in one snapshot."""

    location: PostgreSQLLocation

    def __init__(self, location: PostgreSQLLocation, connection: WatchedConnection) -> None:
        self.location = location
        self._connection = connection
        self._schema = connection.home.schema or "" if connection.home else ""

    def _name(self, table: StoredTable) -> sql.Identifier:
        return sql.Identifier(self._schema, table.name)

    @override
    def columns(self, table: StoredTable) -> list[str]:
        return [name for (name,) in self._ask("columns", quoted(self._schema, table.name))]

    @override
    def count(self, table: StoredTable) -> int:
        with translating_errors(self.location):
            query = sql.SQL("SELECT count(*) FROM {}").format(self._name(table))
            ((count,),) = self._connection.execute(query).fetchall()
        return int(count)

    @override
    def next_id(self, table: StoredTable) -> int:
        query = sql.SQL("SELECT last_value, is_called, (SELECT max({}) FROM {}) FROM {}").format(
            sql.Identifier(str(table.identity)), self._name(table), self._counter(table)
        )
        with translating_errors(self.location):
            ((last, is_called, highest),) = self._connection.execute(query).fetchall()
        return int(max(last + is_called, 1 if highest is None else highest + 1))

    def _counter(self, table: StoredTable) -> sql.SQL:
        ((name,),) = self._ask("counter_of", quoted(self._schema, table.name), table.identity)
        return sql.SQL(name)  # as the server itself has quoted it

    @override
    def rows(self, table: StoredTable, columns: Sequence[str]) -> Generator[Row, None, None]:
        decoded = _changing(_any_type(table, columns, from_json))
        query = sql.SQL("SELECT {} FROM {} ORDER BY {}").format(
            _listed(columns), self._name(table), _listed(table.key)
        )
        with (
            translating_errors(self.location),
            self._connection.cursor() as cursor,
            closing(cast(Generator[Row, None, None], cursor.stream(query, size=_CHUNK))) as rows,
        ):
            yield from map(decoded, rows)

    def _ask(self, name: str, *values: object) -> list[Row]:
        with translating_errors(self.location):
            return psycopg.RawCursor(self._connection).execute(_QUERIES[name], values).fetchall()


class PostgreSQLWriter(PostgreSQLReader, Writer):
    """A transaction that lets no other session write to the tables."""

    @override
    def write(self, table: StoredTable, columns: Sequence[str], rows: Iterable[Row]) -> None:
        changes = _any_type(table, columns, to_json)
        changes |= {columns.index(typed.name): partial(_require_type, typed) for typed in table.typed}
        encoded = _changing(changes)
        query = sql.SQL("COPY {} ({}) FROM STDIN").format(self._name(table), _listed(columns))
        number = 0
        with translating_errors(self.location):
            try:
                with self._connection.cursor().copy(query) as stream:
                    for number, row in enumerate(rows, start=1):  # noqa: B007  # the last one that was taken
                        stream.write_row(encoded(row))
            except (
                psycopg.DataError,
                psycopg.IntegrityError,
                psycopg.errors.ProgramLimitExceeded,  # a key that an index cannot hold
            ) as error:
                # The server's message about a value ends in the value, which may be a player's.
                reason = reason_of(error).partition(': "')[0]
                raise RefusedRow(_line(error, table.name) if error.sqlstate else number, reason) from error

    @override
    def set_next_id(self, table: StoredTable, next_id: int) -> None:
        ((counter,),) = self._ask("counter_of", quoted(self._schema, table.name), table.identity)
        if next_id > 1:
            self._ask("go_on_after", counter, next_id - 1)
        else:
            self._ask("start_over", counter)


def _listed(columns: Sequence[str]) -> sql.Composed:
    return sql.SQL(", ").join(map(sql.Identifier, columns))


_Change = Callable[[Any], Any]


def _any_type(table: StoredTable, columns: Sequence[str], change: _Change) -> dict[int, _Change]:
    """Return, by position, the change for each column that holds values of any type."""
    return {place: change for place, column in enumerate(columns) if column in table.any_type}


def _changing(changes: dict[int, _Change]) -> Callable[[Row], Row]:
    """Return what makes the changes in a row, by their places."""
    if not changes:
        return lambda row: row

    def changed(row: Row) -> Row:
        values = list(row)
        for place, change in changes.items():
            values[place] = change(values[place])
        return tuple(values)

    return changed


def _require_type(column: TypedColumn, value: object) -> object:
    """Refuse a value that SQLite has kept in a column and PostgreSQL cannot hold there."""
    if type(value) not in column.types:
        raise psycopg.DataError(column.refusal)
    return value


def _line(error: psycopg.Error, table: str) -> int | None:
    """Return which row a COPY rejected; the server names it last, and in its language."""
    found = re.findall(rf"^.*?\b{table}\b\D*(\d+)", error.diag.context or "", re.MULTILINE)
    return int(found[-1]) if found else None


@contextmanager
def reader(location: PostgreSQLLocation) -> Iterator[PostgreSQLReader]:
    """Open a database to read all of it as of one moment; it is not written."""
    with _transaction(location, "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY") as connection:
        yield PostgreSQLReader(location, connection)


@contextmanager
def writer(location: PostgreSQLLocation, tables: Sequence[StoredTable]) -> Iterator[PostgreSQLWriter]:
    """Open a database to fill it in one transaction, committed when the block ends well."""
    with _transaction(location, "BEGIN") as connection:
        filled = PostgreSQLWriter(location, connection)
        listed = sql.SQL(", ").join(map(filled._name, tables))
        connection.execute(sql.SQL("LOCK TABLE {} IN EXCLUSIVE MODE").format(listed))
        yield filled


@contextmanager
def _transaction(location: PostgreSQLLocation, begin: LiteralString) -> Iterator[WatchedConnection]:
    """Open a connection for one transaction, committed when the block ends well."""
    with translating_errors(location), closing(connect(location, WatchedConnection)) as connection:
        connection.execute(begin)
        try:
            connection.execute(_QUERIES["lift_limits"].encode())
            connection.execute("SET LOCAL row_security = off")  # rather none than some of the rows
            yield connection
            connection.execute("COMMIT")
        except BaseException:
            # At once, and not when the server finds that the connection is gone: what was made for the copy
            # is about to be taken away.
            with suppress(psycopg.Error):
                connection.rollback()
            raise


def identity(location: PostgreSQLLocation) -> Hashable:
    """Return which schema of which database of which server it is, whatever address leads to it."""
    with translating_errors(location), closing(connect(location, WatchedConnection)) as connection:
        schema = connection.home.schema if connection.home else None
        return cast(
            Hashable, psycopg.RawCursor(connection).execute(_QUERIES["identity"], (schema,)).fetchone()
        )
