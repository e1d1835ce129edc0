"""Reading one schema of a PostgreSQL database."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import psycopg
from psycopg.rows import tuple_row

from poker_therapist.migrations.catalog import BOOKKEEPING, Catalog, Column, ForeignKey, Index, Table
from poker_therapist.sqlfile import Placeholders, read_queries

_QUERIES = read_queries(Placeholders.POSTGRESQL, Path(__file__).with_suffix(".sql"))
_ACTIONS = {"a": "NO ACTION", "r": "RESTRICT", "c": "CASCADE", "n": "SET NULL", "d": "SET DEFAULT"}


def describe(connection: psycopg.Connection[Any], schema: str) -> Catalog:
    """Return one schema; what the same SQL has built in two schemas is equal. Nothing is written.

    Args:
        connection: where the schema is; what it has been set to, and a transaction that is open, stay as they
            are.
        schema: its name.
    """
    catalog = Catalog()
    # The rollback undoes the setting of the search path.
    with (
        connection.transaction(force_rollback=True),
        psycopg.RawCursor(connection, row_factory=tuple_row) as cursor,
    ):

        def rows(query: str) -> list[tuple[Any, ...]]:
            return cursor.execute(_QUERIES[query], (schema,)).fetchall()

        rows("look_into")
        for name, view, options in rows("relations"):
            if view is not None:
                catalog.views[name] = " ".join(["CREATE", *options, "VIEW", name, "AS", *view.split()])
            elif not name.startswith(BOOKKEEPING):
                catalog.tables[name] = Table(
                    columns={},
                    primary_key=(),
                    unique_keys=frozenset(),
                    foreign_keys=frozenset(),
                    checks=frozenset(),
                    options=frozenset(options),
                    constraints={},
                )
        for table, name, *described in rows("columns"):
            if table in catalog.tables:
                catalog.tables[table].columns[name] = Column(*described)
        for table, *constraint in rows("constraints"):
            if table in catalog.tables:
                catalog.tables[table] = _with(catalog.tables[table], constraint)
        for name, table, unique, columns, where, extra in rows("indexes"):
            if table in catalog.tables:
                catalog.indexes[name] = Index(table, tuple(columns), unique, where, extra)
        for table, name, definition in rows("triggers"):
            if table in catalog.tables:
                catalog.triggers[name] = (table, definition)
    return catalog


def _with(table: Table, constraint: Sequence[Any]) -> Table:
    """Return a table with one more key or check, a row of the query."""
    name, kind, on_delete, on_update, parent, definition, columns, condition, parent_columns = constraint
    named = replace(table, constraints={**(table.constraints or {}), name: definition})
    match kind:
        case "p":
            return replace(named, primary_key=tuple(columns))
        case "u":
            return replace(named, unique_keys=table.unique_keys | {tuple(columns)})
        case "f":
            actions = (_ACTIONS[on_delete], _ACTIONS[on_update])
            key = ForeignKey(tuple(columns), parent, tuple(parent_columns), *actions)
            return replace(named, foreign_keys=table.foreign_keys | {key})
        case "c":
            return replace(named, checks=table.checks | {condition})
    return named  # EXCLUDE is none of these
