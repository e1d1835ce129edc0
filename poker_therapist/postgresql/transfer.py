"""The PostgreSQL half of copying: all rows as of one moment, and a transaction that fills empty tables.

Both go through COPY, which streams. What `legacy_rows` holds of any type stands there as JSON; bytes and
infinities, for which JSON has no word, as an object of one key, which nothing else is.
"""

import json
import re
from collections.abc import Callable, Generator, Hashable, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any, LiteralString, cast

import psycopg
from psycopg import sql

from poker_therapist.database import PostgreSQLLocation, read_queries
from poker_therapist.migrations.copy import KEYS, RefusedRow
from poker_therapist.migrations.engine import Row
from poker_therapist.postgresql_server import explain, open_connection, reason_of
from poker_therapist.values import decode

_QUERIES = read_queries(Path(__file__).with_suffix(".sql"), "$")
_JSON = psycopg.adapters.types["json"].oid
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
    return value


class PostgreSQLReader:
    """The rows of a database as of one moment."""

    def __init__(self, location: PostgreSQLLocation, connection: psycopg.Connection[Any]) -> None:
        self.location = location
        self._connection = connection

    def columns(self, table: str) -> list[str]:
        """Return the columns of a table, in its order."""
        return list(self._types(table))

    def _types(self, table: str) -> dict[str, int]:
        return dict(self._ask("columns", table))

    def count(self, table: str) -> int:
        """Return how many rows a table has."""
        with explained(self.location):
            query = sql.SQL("SELECT count(*) FROM {}").format(sql.Identifier(table))
            ((count,),) = self._connection.execute(query).fetchall()
        return int(count)

    def next_id(self, table: str) -> int:
        """Return the id that the next row of a table would get, or would if no row were in the way."""
        query = sql.SQL("SELECT last_value, is_called, (SELECT max(id) FROM {}) FROM {}").format(
            sql.Identifier(table), self._counter(table)
        )
        with explained(self.location):
            ((last, is_called, highest),) = self._connection.execute(query).fetchall()
        return int(max(last + is_called, 1 if highest is None else highest + 1))

    def _counter(self, table: str) -> sql.SQL:
        ((name,),) = self._ask("counter_of", table)
        return sql.SQL(name)  # as the server itself has quoted it

    def rows(self, table: str, columns: Sequence[str]) -> Generator[Row, None, None]:
        """Yield the rows of a table by its key, one in memory at a time."""
        types = self._types(table)
        decoded = _changing(_originals(table, columns, types, from_json))
        query = sql.SQL("COPY (SELECT {} FROM {} ORDER BY {}) TO STDOUT").format(
            _listed(columns), sql.Identifier(table), _listed(KEYS[table])
        )
        # Whoever looks no further ends the COPY, and with it this part of the transaction alone.
        with (
            explained(self.location),
            self._connection.transaction(),
            self._connection.cursor().copy(query) as stream,
        ):
            stream.set_types([types[column] for column in columns])
            yield from map(decoded, stream.rows())

    def _ask(self, name: str, *values: object) -> list[Row]:
        with explained(self.location):
            return psycopg.RawCursor(self._connection).execute(_QUERIES[name], values).fetchall()


class PostgreSQLWriter(PostgreSQLReader):
    """A transaction that lets nobody else write to our tables."""

    def write(self, table: str, columns: Sequence[str], rows: Iterable[Row]) -> None:
        """Write rows as they come, a few in memory at a time."""
        changes = _originals(table, columns, self._types(table), to_json)
        if table == "legacy_rows":
            changes[columns.index("user_id")] = _require_player
            changes[columns.index("session_id")] = _require_session
        encoded = _changing(changes)
        query = sql.SQL("COPY {} ({}) FROM STDIN").format(sql.Identifier(table), _listed(columns))
        number = 0
        with explained(self.location):
            try:
                with self._connection.cursor().copy(query) as stream:
                    for number, row in enumerate(rows, start=1):  # noqa: B007  # the last one that was taken
                        stream.write_row(encoded(row))
            except (psycopg.DataError, psycopg.IntegrityError) as error:
                # What the server says of a value ends in the value, which may be a player's.
                reason = reason_of(error).partition(': "')[0]
                raise RefusedRow(_line(error, table) if error.sqlstate else number, reason) from error

    def go_on_at(self, table: str, next_id: int) -> None:
        """Have the next row of a table get this id."""
        ((counter,),) = self._ask("counter_of", table)
        if next_id > 1:
            self._ask("go_on_after", counter, next_id - 1)
        else:
            self._ask("start_over", counter)


def _listed(columns: Sequence[str]) -> sql.Composed:
    return sql.SQL(", ").join(map(sql.Identifier, columns))


_Change = Callable[[Any], Any]


def _originals(
    table: str, columns: Sequence[str], types: dict[str, int], change: _Change
) -> dict[int, _Change]:
    """Return, by their places, what to do with the columns that keep values of any type."""
    return {
        place: change
        for place, column in enumerate(columns)
        if table == "legacy_rows" and types.get(column) == _JSON
    }


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


def _require_player(user_id: object) -> object:
    """Refuse a row that SQLite kept because it is nobody's: no player can export it or have it forgotten."""
    if type(user_id) is not int:
        raise psycopg.DataError(
            "its user_id is no integer, so it belongs to no player, as do all with "
            "typeof(user_id) <> 'integer'"
        )
    return user_id


def _require_session(session_id: object) -> object:
    """Refuse a session that is no text."""
    if not isinstance(session_id, str | None):
        raise psycopg.DataError(
            "its session_id is no text, as in all with typeof(session_id) NOT IN ('text', 'null')"
        )
    return session_id


def _line(error: psycopg.Error, table: str) -> int | None:
    """Return which row a COPY did not take; the server says it last, and in a language of its own."""
    found = re.findall(rf"^.*?\b{table}\b\D*(\d+)", error.diag.context or "", re.MULTILINE)
    return int(found[-1]) if found else None


@contextmanager
def explained(location: PostgreSQLLocation) -> Iterator[None]:
    """Turn the driver's errors into our own."""
    try:
        yield
    except psycopg.Error as error:
        raise explain(error, location) from error


@contextmanager
def reader(location: PostgreSQLLocation) -> Iterator[PostgreSQLReader]:
    """Open a database to read all of it as of one moment; it is not written."""
    with _transaction(location, "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY") as connection:
        yield PostgreSQLReader(location, connection)


@contextmanager
def writer(location: PostgreSQLLocation) -> Iterator[PostgreSQLWriter]:
    """Open a database to fill it in one transaction, committed when the block ends well."""
    with _transaction(location, "BEGIN") as connection:
        tables = sql.SQL(", ").join(map(sql.Identifier, KEYS))
        connection.execute(sql.SQL("LOCK TABLE {} IN EXCLUSIVE MODE").format(tables))
        yield PostgreSQLWriter(location, connection)


@contextmanager
def _transaction(location: PostgreSQLLocation, begin: LiteralString) -> Iterator[psycopg.Connection[Any]]:
    """Open a connection for one transaction, committed when the block ends well."""
    with explained(location), closing(open_connection(location)) as connection:
        connection.execute(begin)
        try:
            connection.execute(_QUERIES["lift_limits"].encode())
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
    with explained(location), closing(open_connection(location)) as connection:
        return cast(Hashable, connection.execute(_QUERIES["identity"].encode()).fetchone())
