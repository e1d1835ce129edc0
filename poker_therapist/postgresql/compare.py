"""Rows of two schemas, compared inside the server: memory stays flat however many there are.

Values are compared as their texts: JSON has no equality of its own, and a text tells every float apart.
"""

from collections.abc import Iterable, Iterator
from typing import Any

import psycopg
from psycopg import sql

from poker_therapist.migrations.catalog import Catalog, RowDifference


class RowComparison:
    """The rows that were kept in one schema, and those that are in another."""

    def __init__(self, connection: psycopg.Connection[Any], before: str, now: str) -> None:
        self._connection = connection
        self._before = before
        self._now = now

    def keep(self, catalog: Catalog) -> None:
        """Copy every row that there is now, in the place of those that were kept earlier."""
        name = sql.Identifier(self._before)
        self._connection.execute(sql.SQL("DROP SCHEMA IF EXISTS {} CASCADE").format(name))
        self._connection.execute(sql.SQL("CREATE SCHEMA {}").format(name))
        for table in catalog.tables:
            kept = sql.SQL("CREATE TABLE {} AS TABLE {}")
            self._connection.execute(kept.format(*self._places(table)))

    def changed_rows(self, table: str, before: Catalog, now: Catalog) -> int:
        """Return how many rows of a table are gone, new or different; all, if only one side has it."""
        if table not in before.tables or table not in now.tables:
            place = self._places(table)[table not in before.tables]
            return self._count(sql.SQL("FROM {}").format(place))
        keys, columns = _keys(table, before, now), _columns(table, before, now)
        if not keys:
            return sum(
                self._count(sql.SQL("FROM ({}) AS one").format(part))
                for _, part in self._apart(table, columns)
            )
        unequal = sql.SQL(" OR ").join([*(_unequal(column) for column in columns), sql.SQL("FALSE")])
        missing = sql.SQL("a.{0} IS NULL OR b.{0} IS NULL").format(sql.Identifier(keys[0]))
        pairs = self._pairs(table, keys, "FULL JOIN")
        return self._count(sql.SQL("FROM {} WHERE {} OR {}").format(pairs, missing, unequal))

    def compare(self, table: str, before: Catalog, now: Catalog) -> Iterator[RowDifference]:
        """Yield what is not the same in a table that both have."""
        keys, columns = _keys(table, before, now), _columns(table, before, now)
        for side, part in self._apart(table, keys or columns):
            if count := self._count(sql.SQL("FROM ({}) AS one").format(part)):
                yield RowDifference(table, None, count, f"{side} {_shown(self._first(part))}")
        for column in columns if keys else ():
            source = sql.SQL("FROM {} WHERE {}").format(self._pairs(table, keys, "JOIN"), _unequal(column))
            if count := self._count(source):
                listed = [sql.SQL("CAST(a.{} AS TEXT)").format(sql.Identifier(key)) for key in keys]
                listed += [
                    sql.SQL("CAST({}.{} AS TEXT)").format(sql.SQL(side), sql.Identifier(column))
                    for side in "ab"
                ]
                *key, was, is_now = self._first(
                    sql.SQL("SELECT {} {}").format(sql.SQL(", ").join(listed), source)
                )
                example = f"{_shown(key)}: {_shown([was])} became {_shown([is_now])}"
                yield RowDifference(table, column, count, example)

    def _places(self, table: str) -> tuple[sql.Identifier, sql.Identifier]:
        return sql.Identifier(self._before, table), sql.Identifier(self._now, table)

    def _pairs(self, table: str, keys: list[str], join: str) -> sql.Composed:
        same = sql.SQL(" AND ").join(sql.SQL("a.{0} = b.{0}").format(sql.Identifier(key)) for key in keys)
        return sql.SQL("{} AS a {} {} AS b ON {}").format(
            self._places(table)[0],
            sql.SQL(join),
            self._places(table)[1],
            same,
        )

    def _apart(self, table: str, columns: list[str]) -> Iterator[tuple[str, sql.Composed]]:
        """Yield the queries for rows that only one side has; equal ones are counted."""
        listed = sql.SQL(", ").join(
            sql.SQL("CAST({} AS TEXT)").format(sql.Identifier(one)) for one in columns
        )
        before, now = (sql.SQL("SELECT {} FROM {}").format(listed, place) for place in self._places(table))
        yield "only before:", sql.SQL("{} EXCEPT ALL {}").format(before, now)
        yield "only after:", sql.SQL("{} EXCEPT ALL {}").format(now, before)

    def _count(self, source: sql.Composed) -> int:
        found = self._connection.execute(sql.SQL("SELECT count(*) {}").format(source)).fetchone()
        return int(found[0]) if found else 0

    def _first(self, query: sql.Composed) -> Any:
        return self._connection.execute(sql.SQL("{} LIMIT 1").format(query)).fetchone()


def _keys(table: str, before: Catalog, now: Catalog) -> list[str]:
    """Return the primary key of a table, none if it has not the same in both."""
    key = before.tables[table].primary_key
    return list(key) if set(key) <= set(now.tables[table].primary_key) else []


def _columns(table: str, before: Catalog, now: Catalog) -> list[str]:
    """Return the columns that both have and that are no key."""
    keys = _keys(table, before, now)
    return [
        one for one in before.tables[table].columns if one in now.tables[table].columns and one not in keys
    ]


def _unequal(column: str) -> sql.Composed:
    return sql.SQL("CAST(a.{0} AS TEXT) IS DISTINCT FROM CAST(b.{0} AS TEXT)").format(sql.Identifier(column))


def _shown(values: Iterable[object]) -> str:
    text = ", ".join(repr(value) for value in values)
    return text if len(text) <= 60 else f"{text[:57]}..."
