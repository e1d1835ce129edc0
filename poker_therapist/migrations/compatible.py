"""Whether a migration keeps the promise of `-- compatible: true`, as far as its schema shows that.

The promise: code that does not know the migration continues to work. Its queries and saves work as before,
and when it deletes an owner's rows, no other rows of that owner are left.
"""

import re
from collections.abc import Collection, Iterator, Mapping

from poker_therapist.migrations.catalog import Catalog, Table

_UNCHANGED = Table({}, (), frozenset(), frozenset(), frozenset(), frozenset())


def broken_promises(
    schemas: tuple[Catalog, Catalog],
    refused: tuple[Mapping[str, str], Mapping[str, str]],
    owners: Collection[str],
) -> list[str]:
    """Return why code that does not know a migration would not continue to work.

    Args:
        schemas: what the migration has changed, before and after; or all.
        refused: the queries of this version that could not be prepared before and after it, and why. What
            could not be prepared before is about a later migration.
        owners: the columns that name the owner of a row.
    """
    before, after = schemas
    queries = [
        f"the query {name} cannot be prepared any more: {why}"
        for name, why in refused[1].items()
        if name not in refused[0]
    ]
    return [*queries, *_of_tables(before, after, {owner.lower() for owner in owners})]


def _of_tables(before: Catalog, after: Catalog, owners: Collection[str]) -> Iterator[str]:
    for name, table in after.tables.items():
        if name in before.tables:
            yield from _of_table(name, before.tables[name], table)
        elif owned := [column for column in table.columns if column.lower() in owners]:
            yield (f"the new table {name} has {owned[0]}: older code neither exports nor deletes its rows")
    for name, index in after.indexes.items():
        is_new = index.table in after.tables and index.table not in before.tables
        if index.unique and before.indexes.get(name) != index and not is_new:
            # Of a table that is in neither, nothing has changed.
            was, table = (catalog.tables.get(index.table, _UNCHANGED) for catalog in (before, after))
            yield from _of_unique(index.table, was, table, index.columns)


def _of_table(name: str, was: Table, table: Table) -> Iterator[str]:
    for column, now in table.columns.items():
        old = was.columns.get(column)
        is_computed = now.default is not None or re.search(r"\b(AS|GENERATED)\b", now.extra)
        if not now.nullable and not is_computed and (old is None or old.nullable or old.default is not None):
            yield f"{name}.{column} requires a value, which older code may not set"
        if old is not None and old.type != now.type:
            yield f"{name}.{column} changes from {old.type} to {now.type}: older code may misread it"
    old_names = {column.lower() for column in was.columns}
    for check in table.checks - was.checks:
        if old_names & set(re.findall(r"\w+", check.lower())):
            yield f"a new check of {name} ({check}) may reject rows that were allowed"
    for option in (table.options - was.options) & {"STRICT", "ROW LEVEL SECURITY"}:
        yield f"{name} is now {option}, which may reject rows that were allowed"
    exclusions = (table.constraints or {}).items() - (was.constraints or {}).items()
    for constraint, definition in exclusions:
        if definition.startswith("EXCLUDE"):
            yield f"the new constraint {constraint} of {name} may reject rows that were allowed"
    for columns in table.unique_keys - was.unique_keys:
        yield from _of_unique(name, was, table, columns)
    for key in table.foreign_keys - was.foreign_keys:
        if not _has_new_null(was, table, key.columns):
            yield f"a new foreign key of {name} {key} may reject rows that were allowed"


def _of_unique(name: str, was: Table, table: Table, columns: Collection[str]) -> Iterator[str]:
    if not _has_new_null(was, table, columns):
        yield f"a new unique key of {name} on ({', '.join(columns)}) may reject rows that were allowed"


def _has_new_null(was: Table, table: Table, columns: Collection[str]) -> bool:
    """Return whether one of some columns is new and NULL unless it is given: no key refuses that."""
    new = [table.columns[one] for one in columns if one in table.columns and one not in was.columns]
    return any(one.nullable and one.default is None for one in new)
