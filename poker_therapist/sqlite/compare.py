"""Two databases, row by row, compared inside SQLite: memory stays flat however large they are."""

import sqlite3
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Self

from poker_therapist.migrations.catalog import BOOKKEEPING, RowDifference


class RowComparison:
    """Two databases on one connection: `main`, what was before, and `other`, what came after."""

    def __init__(self, before: Path, after: Path) -> None:
        """Open both."""
        self._connection = sqlite3.connect(before, isolation_level=None)
        self._connection.text_factory = _readable
        self._connection.execute("ATTACH ? AS other", (str(after),))
        self._before, self._after = self._read_tables("main"), self._read_tables("other")

    def __enter__(self) -> Self:
        """Return this."""
        return self

    def __exit__(self, *error: object) -> None:
        """Close both."""
        self._connection.close()

    def all_tables(self) -> list[str]:
        """Return the tables that hold data in either."""
        return sorted(self._before.keys() | self._after.keys())

    def shared_tables(self) -> list[str]:
        """Return the tables that hold data in both."""
        return sorted(self._before.keys() & self._after.keys())

    def changed_rows(self, table: str) -> int:
        """Return how many rows of a table are gone, new or different; all, if only one has the table."""
        if table not in self.shared_tables():
            side = "main" if table in self._before else "other"
            return self._count(f"FROM {side}.{quoted(table)}")
        unequal = " OR ".join(_unequal(column) for column in self._columns(table)) or "0"
        complete, (changed,) = self._pass(table, [f"({unequal})"])
        missing = () if complete else self._missing(table)
        return changed + sum(self._count(f"FROM ({sql})") for _, sql in missing)

    def compare(self, table: str) -> Iterator[RowDifference]:
        """Yield what is not the same in a table that both have, types of values included."""
        counter = table == "sqlite_sequence"  # where ids go on; no row of anybody's
        columns = self._columns(table)
        complete, unequal = self._pass(table, [_unequal(column) for column in columns])
        for side, sql in () if complete else self._missing(table):
            if count := self._count(f"FROM ({sql})"):
                example = f"{side} {_shown(self._first(sql))}"
                yield RowDifference(table, "seq" if counter else None, count, example)
        same = " OR ".join(_unequal(key) for key in self._keys(table)) or "0"
        if count := self._pass(table, [f"({same})"])[1][0]:  # keys that only a collation takes for equal
            example = _shown(self._first(f"SELECT a.* FROM {self._pairs(table)} WHERE {same}"))
            yield RowDifference(table, None, count, example)
        listed = ", ".join(f"a.{quoted(key)}" for key in self._keys(table))
        for column, count in zip(columns, unequal, strict=True):
            if count:
                values = f"{listed}, a.{quoted(column)}, b.{quoted(column)}"
                *key, was, is_now = self._first(
                    f"SELECT {values} FROM {self._pairs(table)} WHERE {_unequal(column)}"
                )
                example = f"{_shown(key)}: {_shown([was])} became {_shown([is_now])}"
                yield RowDifference(table, column, count, example)

    def _pass(self, table: str, conditions: list[str]) -> tuple[bool, list[int]]:
        """Go once through the pairs of rows with the same key.

        Returns:
            Whether every row of both has its pair, and how many pairs meet each condition. A table without a
            key has no pairs.
        """
        if not self._keys(table):
            return False, [0] * len(conditions)
        sums = "".join(f", coalesce(sum({condition}), 0)" for condition in conditions)
        pairs, *met = self._first(f"SELECT count(*){sums} FROM {self._pairs(table)}")
        sizes = [self._count(f"FROM {side}.{quoted(table)}") for side in ("main", "other")]
        return sizes == [pairs, pairs], met

    def _read_tables(self, side: str) -> dict[str, dict[str, int]]:
        """Return the tables of one side: columns, and their places in the primary key."""
        names = self._connection.execute(
            f"SELECT name FROM {side}.sqlite_schema WHERE type = 'table'"
        ).fetchall()
        # 1: a column that a virtual table, an index for full text say, has for its own use
        columns = "SELECT name, pk FROM pragma_table_xinfo(?, ?) WHERE hidden <> 1"
        return {
            name: dict(self._connection.execute(columns, (name, side)).fetchall())
            for (name,) in names
            if name == "sqlite_sequence" or not name.startswith(BOOKKEEPING)
        }

    def _keys(self, table: str) -> list[str]:
        """Return the primary key of a table; none if it has none in both."""
        if table == "sqlite_sequence":
            return ["name"]
        after = self._after[table]
        return [column for column, place in self._before[table].items() if place and after.get(column)]

    def _columns(self, table: str) -> list[str]:
        """Return the columns that both have and that are no key."""
        keys = self._keys(table)
        return [
            column for column in self._before[table] if column in self._after[table] and column not in keys
        ]

    def _pairs(self, table: str) -> str:
        same = " AND ".join(f"a.{quoted(key)} IS b.{quoted(key)}" for key in self._keys(table))
        return f"main.{quoted(table)} AS a JOIN other.{quoted(table)} AS b ON {same}"

    def _missing(self, table: str) -> Iterator[tuple[str, str]]:
        """Yield the queries for rows that only one side has: by key, by whole rows where there is none."""
        keys, columns = self._keys(table), self._columns(table)
        same = " AND ".join(f"a.{quoted(key)} IS b.{quoted(key)}" for key in keys)
        for side, one, other in (("only before:", "main", "other"), ("only after:", "other", "main")):
            here, there = f"{one}.{quoted(table)}", f"{other}.{quoted(table)}"
            if keys:
                listed = ", ".join(quoted(key) for key in keys)
                unmatched = f"NOT EXISTS (SELECT 1 FROM {there} AS b WHERE {same})"
                yield side, f"SELECT {listed} FROM {here} AS a WHERE {unmatched}"
            elif columns:  # equal rows are counted, and types and case tell values apart
                values = ", ".join(f"{quoted(column)} COLLATE BINARY" for column in columns)
                types = ", ".join(f"typeof({quoted(column)})" for column in columns)
                counted = f"SELECT {values}, {types}, count(*) FROM {{}} GROUP BY {values}, {types}"
                yield side, f"{counted.format(here)} EXCEPT {counted.format(there)}"
            else:
                yield side, f"SELECT * FROM {here}"

    def _count(self, source: str) -> int:
        (count,) = self._connection.execute(f"SELECT count(*) {source}").fetchone()
        return int(count)

    def _first(self, sql: str) -> Any:
        return self._connection.execute(f"{sql} LIMIT 1").fetchone()


def stored_sql(connection: sqlite3.Connection) -> list[tuple[str, str]]:
    """Return the text of everything in the schema but bookkeeping, to the letter."""
    rows = connection.execute("SELECT name, tbl_name, sql FROM sqlite_schema WHERE sql IS NOT NULL")
    return sorted((name, sql) for name, table, sql in rows if not table.startswith(BOOKKEEPING))


def _unequal(column: str) -> str:
    """Return the condition that a column of a pair has another value, or one of another type."""
    value = quoted(column)
    return f"(a.{value} COLLATE BINARY IS NOT b.{value} OR typeof(a.{value}) <> typeof(b.{value}))"


def _readable(text: bytes) -> str:
    """Return a stored text for an example, also one that is no UTF-8."""
    return text.decode(errors="replace")


def quoted(name: str) -> str:
    """Return a name that the schema gave as an identifier."""
    escaped = name.replace('"', '""')
    return f'"{escaped}"'


def _shown(values: Iterable[object]) -> str:
    text = ", ".join(repr(value) for value in values)
    return text if len(text) <= 60 else f"{text[:57]}..."
