"""The rows of two states of a PostgreSQL database, compared inside the server."""

from collections.abc import Mapping, Sequence
from typing import Any

import psycopg
from psycopg import sql

from poker_therapist.compat import override
from poker_therapist.migrations.catalog import Catalog
from poker_therapist.migrations.compare import ComparedTable, RowComparison, Side, quoted

# The types of most keys, of which equal values have equal texts; a text has, unless its collation is special.
_EQUAL_IS_SAME = frozenset({"bigint", "integer", "smallint", "text", "uuid"})


class PostgreSQLRowComparison(RowComparison):
    """The rows of a database and of what was kept of it, on one connection."""

    differs = "IS DISTINCT FROM"

    def __init__(
        self,
        connection: psycopg.Connection[Any],
        kept: Mapping[str, tuple[str, str]],
        catalogs: tuple[Catalog, Catalog],
    ) -> None:
        """Compare what `copy_rows` has kept with what is there now."""
        self._connection = connection
        self._places = {Side.BEFORE: kept, Side.AFTER: catalogs[1].places}
        self._catalogs = dict(zip(Side, catalogs, strict=True))
        super().__init__(*map(_compared, catalogs))

    @override
    def place(self, side: Side, table: str) -> str:
        return ".".join(map(quoted, self._places[side][table]))

    @override
    def exact(self, value: str) -> Sequence[str]:
        # A text distinguishes all floats, JSON has no equality of its own, and "C" knows no equal letters.
        return (f'CAST({value} AS TEXT) COLLATE "C"',)

    @override
    def same_key(self, table: str, column: str) -> str:
        values = [side.value_of(column) for side in Side]
        before, after = (self._catalogs[side].tables[table].columns[column] for side in Side)
        if before != after:  # there may be no operator for two types
            return " = ".join(self.exact(value)[0] for value in values)
        same = " = ".join(values)
        if before.type in _EQUAL_IS_SAME and "COLLATE" not in before.extra:
            return same
        return f"{same} AND NOT {self.unequal(table, column)}"

    @override
    def first_row(self, query: str) -> Any:
        # With LIMIT alone the planner may hope for an early hit, and scan the other table once for each row.
        first = f"WITH found AS MATERIALIZED ({query}) SELECT * FROM found LIMIT 1"
        return self._connection.execute(first.encode()).fetchone()


def copy_rows(
    connection: psycopg.Connection[Any], catalog: Catalog, target: str
) -> dict[str, tuple[str, str]]:
    """Copy every row into a new schema, without keys; it replaces one of that name.

    Returns:
        where the rows of each table are.
    """
    name = sql.Identifier(target)
    connection.execute(sql.SQL("DROP SCHEMA IF EXISTS {} CASCADE").format(name))
    connection.execute(sql.SQL("CREATE SCHEMA {}").format(name))
    kept = {table: (target, f"t{number}") for number, table in enumerate(catalog.places)}
    for table, copy in kept.items():
        connection.execute(
            sql.SQL("CREATE TABLE {} AS TABLE {}").format(
                sql.Identifier(*copy), sql.Identifier(*catalog.places[table])
            )
        )
    return kept


def _compared(catalog: Catalog) -> dict[str, ComparedTable]:
    return {
        name: ComparedTable(list(catalog.tables[name].columns), catalog.tables[name].primary_key)
        for name in catalog.places
    }
