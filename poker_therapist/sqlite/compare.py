"""The rows of two SQLite files, compared on one connection to which the second is attached."""

import contextlib
import re
import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

from poker_therapist.compat import override
from poker_therapist.migrations.catalog import BOOKKEEPING
from poker_therapist.migrations.compare import ComparedTable, RowComparison, Side, quoted
from poker_therapist.sqlite.connect import watched

_SCHEMAS = {Side.BEFORE: "main", Side.AFTER: "other"}
# By a declared type (https://sqlite.org/datatype3.html): such a column holds no number, or none but reals.
_AFFINITY = re.compile(r"(?is)(?!.*INT)(?:.*(?P<text>CHAR|CLOB|TEXT)|(?!.*BLOB).*(?P<real>REAL|FLOA|DOUB))")


class SQLiteRowComparison(RowComparison):
    """The rows of two files; closed when the block ends."""

    differs = "IS NOT"

    def __init__(self, before: Path, after: Path) -> None:
        """Open both."""
        self._kinds: dict[tuple[str, str], str | None] = {}  # the same on both sides
        self._connection = watched(sqlite3.connect(before, isolation_level=None), after)
        self._connection.text_factory = _readable
        self._connection.execute("ATTACH ? AS other", (str(after),))
        super().__init__(self._read_tables("main"), self._read_tables("other"))

    def __enter__(self) -> Self:
        """Return this."""
        return self

    def __exit__(self, *error: object) -> None:
        """Close both."""
        self._connection.close()

    @override
    def place(self, side: Side, table: str) -> str:
        return f"{_SCHEMAS[side]}.{quoted(table)}"

    @override
    def exact(self, value: str) -> Sequence[str]:
        return f"{value} COLLATE BINARY", f"typeof({value})"

    @override
    def unequal(self, table: str, column: str) -> str:
        if not self._kinds.get((table, column)):
            return super().unequal(table, column)
        # Equal, and of two types, are only an integer and a real; by the + no text is taken for a number.
        return " IS NOT ".join(f"+{self.exact(side.value_of(column))[0]}" for side in Side)

    @override
    def same_key(self, table: str, column: str) -> str:
        # The first half can use an index, whatever its collation.
        same = f"{Side.BEFORE.value_of(column)} IS {Side.AFTER.value_of(column)}"
        is_rowid = self._kinds.get((table, column)) == "rowid"
        return same if is_rowid else f"{same} AND NOT ({self.unequal(table, column)})"

    @override
    def first_row(self, query: str) -> Any:
        return self._connection.execute(f"{query} LIMIT 1").fetchone()

    def _read_tables(self, schema: str) -> dict[str, ComparedTable]:
        names = self._connection.execute(
            f"SELECT name, rootpage > 0 FROM {schema}.sqlite_schema WHERE type = 'table'"
        ).fetchall()
        tables = {}
        for name, is_stored in names:
            if name == "sqlite_sequence" or not name.startswith(BOOKKEEPING):
                # One of the app's that needs a module, collation or function that is not known here.
                with contextlib.suppress(sqlite3.OperationalError):
                    tables[name] = self._read_table(schema, name, is_stored=is_stored)
        return tables

    def _read_table(self, schema: str, table: str, *, is_stored: bool) -> ComparedTable:
        if table == "sqlite_sequence":  # where AUTOINCREMENT continues
            return ComparedTable(("name", "seq"), key=("name",), counter="seq")
        # 1: an internal column of a virtual table such as a full-text index
        sql = "SELECT name, pk, type FROM pragma_table_xinfo(?, ?) WHERE hidden <> 1"
        rows = self._connection.execute(sql, (table, schema)).fetchall()
        columns = {name: place for name, place, _ in rows}
        sql = "SELECT 1 FROM pragma_index_list(?, ?) WHERE origin = 'pk'"
        is_rowid = not self._connection.execute(sql, (table, schema)).fetchall()
        for name, place, declared in rows:
            found = _AFFINITY.match(declared) if is_stored else None  # a module returns what it likes
            kind = "rowid" if is_stored and place and is_rowid else found and found.lastgroup
            if self._kinds.setdefault((table, name), kind) != kind:
                self._kinds[table, name] = None
        key = [column for column, position in columns.items() if position]
        if key:  # which may be NULL in any number of rows, unless it is the rowid
            nulls = " OR ".join(f"{quoted(column)} IS NULL" for column in key)
            if self.first_row(f"SELECT 1 FROM {schema}.{quoted(table)} WHERE {nulls}"):
                key = []
        by_number = ", ".join(str(number + 1) for number, _ in enumerate(columns))
        self._connection.execute(f"EXPLAIN SELECT * FROM {schema}.{quoted(table)} ORDER BY {by_number}")
        return ComparedTable(list(columns), key)


def stored_sql(connection: sqlite3.Connection) -> list[tuple[str, str]]:
    """Return the text of everything in the schema but bookkeeping, to the letter."""
    rows = connection.execute("SELECT name, tbl_name, sql FROM sqlite_schema WHERE sql IS NOT NULL")
    return sorted((name, sql) for name, table, sql in rows if not table.startswith(BOOKKEEPING))


def _readable(text: bytes) -> str:
    """Return a stored text for an example, also one that is no UTF-8."""
    return text.decode(errors="replace")
