"""The rows and values that a rollback loses, counted inside its transaction before the commit.

The text of a rollback does not show what triggers, views, rules and functions do, nor what is committed
between the count that an operator has agreed to and the lock of a table. So the rows of every table, and the
non-null values of every column, are counted before the statements and after them.
"""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, NamedTuple

from poker_therapist.errors import StorageError, counted, escaped
from poker_therapist.migrations.clauses import PART, plain
from poker_therapist.migrations.effects import Reading
from poker_therapist.migrations.tracking import Table

_MOST_COLUMNS = 1_500
# Of each table, by its name in lower case: its name, and how many rows it has under "", how many values.
Counts = dict[str, dict[str, int]]


class Agreed(NamedTuple):
    """What an operator has agreed to lose.

    Attributes:
        last: the id of the migration that is rolled back last.
        most: how many rows of a table, under an empty name, and values of its columns.
        is_all: whether the operator agreed to a loss that cannot be counted.
    """

    last: str
    most: dict[tuple[str, str], float]
    is_all: bool = False


@contextmanager
def measured(backend: Any, migration: Any, statements: Sequence[Any]) -> Iterator[None]:
    """Refuse, before it is committed, a rollback that loses more than was agreed to."""
    agreed = backend.agreed or Agreed(migration.id, {})
    if backend.allow_loss is None or agreed.is_all:
        yield
        return
    reading = Reading()
    reading.all(statements)
    held = _places(backend)
    # Rows that others commit after the count would be lost uncounted.
    backend.hold([held[name][""] for name in sorted(reading.emptied) if name in held])
    before = _count(backend, held)
    yield
    found = _lost(reading, before, _count(backend, _places(backend)), agreed.most)
    if found:
        backend.allow_loss(", ".join(found), agreed.last, may_ask=False)


def key(backend: Any, name: str) -> str:
    """Return the name under which a table is counted, of one that is written in SQL."""
    parts = [plain(one) for one in re.findall(PART, name)]
    return ".".join(parts[1:] if parts[1:] and parts[0] in ("main", "public", _home(backend)) else parts)


def _home(backend: Any) -> str:
    return str(getattr(backend, "schema", "main")).lower()


def _places(backend: Any) -> dict[str, dict[str, str]]:
    """Return of each table, under an empty name, and of each column how it is written in SQL."""
    found: dict[str, dict[str, str]] = {}
    for schema, table, column, written, as_written in backend.query("countable"):
        name = table if schema.lower() == _home(backend) else f"{schema}.{table}"
        place = found.setdefault(name.lower(), {"": written})
        if place[""] != written:  # two names that differ only in case
            place = found.setdefault(name, {"": written})
        if column is not None:
            place[column.lower() if column.lower() not in place else column] = as_written
    return found


def _count(backend: Any, places: dict[str, dict[str, str]]) -> Counts:
    """Count the rows of each table and the values of each column, in one scan of each table."""
    found: Counts = {}
    for table, place in places.items():
        names = list(place)[:_MOST_COLUMNS]
        wanted = ", ".join(f"count(counted.{place[name]})" if name else "count(*)" for name in names)
        # A table of the app may need a module, a function or a collation that is not known here.
        with suppress(StorageError), backend.translating_errors():
            (row,) = backend.connection.execute(f"SELECT {wanted} FROM {place['']} AS counted").fetchall()
            found[table] = dict(zip(names, row, strict=True))
    return found


def _lost(reading: Reading, before: Counts, after: Counts, agreed: dict[tuple[str, str], float]) -> list[str]:
    """Return the losses that the operator did not agree to, and that the counts do not show elsewhere."""

    def gain(table: str, column: str) -> int:
        return after.get(table, {}).get(column, 0) - before.get(table, {}).get(column, 0)

    def is_kept(source: Table | None, table: str, column: str | None, many: int) -> bool:
        places = set(reading.places(source, column)) if source else set()
        if any(place is None for place in places):
            return True
        others = {one for one in places if one and one != (table, column or "")}
        return sum(max(0, gain(*one)) for one in others) >= many

    def is_agreed(table: str, column: str, many: int) -> bool:
        return agreed.get((table, column), agreed.get((table, ""), 0)) >= many

    found = []
    for table, had in before.items():
        source = reading.first.get(table)
        name = reading.now(source) or table if source else table
        now = after.get(name, {})
        rows = had[""] - now.get("", 0)
        if rows > 0 and not is_kept(source, name, None, rows):
            if not is_agreed(table, "", rows):
                found.append(f"{counted(rows, 'row')} of {escaped(table)}")
            continue
        # Its values are replaced or restored from a copy: the text shows which of these are lost.
        if name in reading.put_back or (rows > 0 and source and None in reading.places(source, None)):
            continue
        for column, many in had.items():
            as_now = source.name_now(column) if source else column
            lost = many - now.get(as_now if source and reading.now(source) else column, 0)
            if lost <= 0 or is_agreed(table, column, lost):
                continue
            if column and not is_kept(source, name, as_now, lost):
                found.append(f"{counted(lost, 'value')} of {escaped(f'{table}.{column}')}")
    return found
