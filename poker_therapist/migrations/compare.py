"""Two states of a database, row by row, compared inside it: memory stays flat however large they are.

Values are equal if they are identical: of the same type, and of the same case under any collation.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, ClassVar

from poker_therapist.errors import counted


class Side(StrEnum):
    """One of the two states; in a query, the alias of its table."""

    BEFORE = "before"
    AFTER = "after"

    def value_of(self, column: str) -> str:
        """Return a column of this side as an SQL expression."""
        return f"{quoted(self)}.{quoted(column)}"


@dataclass(frozen=True, slots=True)
class ComparedTable:
    """What a comparison needs to know of a table on one side.

    Attributes:
        columns: the columns, in their order.
        key: columns that have different values in any two rows: the primary key; empty without one.
        counter: the column that says where ids continue, if the engine keeps the table for that.
    """

    columns: Sequence[str]
    key: Sequence[str] = ()
    counter: str | None = None


@dataclass(frozen=True, slots=True)
class RowDifference:
    """A difference in a table: values of one column, or, without a column, whole rows."""

    table: str
    column: str | None
    count: int
    example: str

    def __str__(self) -> str:
        """Return the difference as a sentence."""
        if self.column is None:
            differing = f"{self.table}: {counted(self.count, 'row differs', 'rows differ')}"
        else:
            many = counted(self.count, "value differs", "values differ")
            differing = f"{self.table}.{self.column}: {many}"
        return f"{differing}, for example {self.example}"


class RowComparison(ABC):
    """The rows of two states of a database; a subclass knows where they are, and the SQL of its engine.

    Attributes:
        differs: the operator of the engine that compares NULL like a value, and says whether two are unequal.
        tables: the tables of each side that hold data, by name.
    """

    differs: ClassVar[str]

    def __init__(self, before: Mapping[str, ComparedTable], after: Mapping[str, ComparedTable]) -> None:
        self.tables = {Side.BEFORE: before, Side.AFTER: after}

    @abstractmethod
    def place(self, side: Side, table: str) -> str:
        """Return the quoted name of a table of one side."""

    @abstractmethod
    def exact(self, value: str) -> Sequence[str]:
        """Return expressions of which at least one is unequal for two values that are not identical.

        Args:
            value: a column, as an SQL expression. The first expression is what an example shows.
        """

    @abstractmethod
    def same_key(self, table: str, column: str) -> str:
        """Return the condition that two keys are identical, in a form that an index or a hash can use.

        Args:
            table: a table that both sides have.
            column: a column of its key.
        """

    @abstractmethod
    def first_row(self, query: str) -> Any:
        """Return the first row of a query, which may have many."""

    def unequal(self, table: str, column: str) -> str:  # noqa: ARG002  # an engine may know more of it
        """Return the condition that the two rows of a pair do not have the same value in a column."""
        sides = (self.exact(side.value_of(column)) for side in Side)
        return f"({' OR '.join(f'{a} {self.differs} {b}' for a, b in zip(*sides, strict=True))})"

    def all_tables(self) -> list[str]:
        """Return the tables that hold data on either side."""
        return sorted(self.tables[Side.BEFORE].keys() | self.tables[Side.AFTER].keys())

    def shared_tables(self) -> list[str]:
        """Return the tables that hold data on both sides."""
        return sorted(self.tables[Side.BEFORE].keys() & self.tables[Side.AFTER].keys())

    def tables_on_one_side(self) -> Iterator[tuple[Side, str, int]]:
        """Yield each non-empty table that exists on one side only, with its row count."""
        for table in self.all_tables():
            sides = [side for side in Side if table in self.tables[side]]
            if len(sides) == 1 and (count := self._size(sides[0], table)):
                yield sides[0], table, count

    def changed_rows(self) -> Iterator[tuple[str, int]]:
        """Yield each table with deleted, new or changed rows, and their number."""
        counts = {table: count for _, table, count in self.tables_on_one_side()}
        for table in self.shared_tables():
            counts[table] = self._changed(table)
        yield from sorted((table, count) for table, count in counts.items() if count)

    def differences(self) -> Iterator[RowDifference]:
        """Yield the differences in the tables that exist on both sides."""
        for table in self.shared_tables():
            yield from self._compare_by_key(table) if self._key(table) else self._compare_whole_rows(table)

    def _changed(self, table: str) -> int:
        if not self._key(table):
            return sum(self._unmatched_whole_rows(table).values())
        unequal = " OR ".join(self.unequal(table, column) for column in self._columns(table))
        pairs, changed = self._count_pairs(table, [unequal or "1 = 0"])
        return changed + sum(self._size(side, table) - pairs for side in Side)

    def _compare_by_key(self, table: str) -> Iterator[RowDifference]:
        """Compare rows of the same key; what is on one side only is counted by what has no such pair."""
        key, columns = self._key(table), self._columns(table)
        pairs, *unequal = self._count_pairs(table, [self.unequal(table, column) for column in columns])
        for side, other in ((Side.BEFORE, Side.AFTER), (Side.AFTER, Side.BEFORE)):
            if count := self._size(side, table) - pairs:
                pair = f"SELECT 1 FROM {self._aliased(other, table)} WHERE {self._same_keys(table)}"
                lonely = f"{self._aliased(side, table)} WHERE NOT EXISTS ({pair})"
                example = self._first([self._shown(side, one) for one in key], lonely)
                yield self._only(side, table, count, example)
        for column, count in zip(columns, unequal, strict=True):
            if count:
                listed = [self._shown(Side.BEFORE, one) for one in (*key, column)]
                listed.append(self._shown(Side.AFTER, column))
                source = f"{self._pairs(table)} WHERE {self.unequal(table, column)}"
                *found, was, is_now = self._first(listed, source)
                example = f"{_text(found)}: {_text([was])} became {_text([is_now])}"
                yield RowDifference(table, column, count, example)

    def _compare_whole_rows(self, table: str) -> Iterator[RowDifference]:
        shown = [f"v{number}_0" for number, _ in enumerate(self._columns(table))]
        for side, count in self._unmatched_whole_rows(table).items():
            if count:
                sign = ">" if side is Side.BEFORE else "<"
                source = (
                    f"{self._surplus(table)} WHERE surplus {sign} 0" if shown else self.place(side, table)
                )
                yield self._only(side, table, count, self._first(shown or ["*"], source))

    def _unmatched_whole_rows(self, table: str) -> dict[Side, int]:
        """Return how many rows of each side have no equal row on the other; one pairs with one."""
        if not self._columns(table):  # nothing to recognize a row by
            return {side: self._size(side, table) for side in Side}
        sums = [f"coalesce(sum(surplus) FILTER (WHERE surplus {sign} 0), 0)" for sign in "><"]
        before, after = self._first(sums, self._surplus(table))
        return {Side.BEFORE: int(before), Side.AFTER: -int(after)}

    def _surplus(self, table: str) -> str:
        """Return a subquery: how many more rows the first side has than the second, for each kind of row."""
        values = [self.exact(quoted(column)) for column in self._columns(table)]
        parts = {
            f"v{column}_{part}": sql for column, each in enumerate(values) for part, sql in enumerate(each)
        }
        listed = ", ".join(f"{sql} AS {name}" for name, sql in parts.items())
        both = " UNION ALL ".join(
            f"SELECT {listed}, {sign} AS surplus FROM {self.place(side, table)}"
            for side, sign in ((Side.BEFORE, 1), (Side.AFTER, -1))
        )
        names = ", ".join(parts)
        return f"(SELECT {names}, sum(surplus) AS surplus FROM ({both}) AS rows GROUP BY {names}) AS kinds"

    def _count_pairs(self, table: str, conditions: Sequence[str]) -> Sequence[int]:
        """Count, in one scan, the pairs of rows with the same key, and those that meet each condition."""
        counts = [f"count(*) FILTER (WHERE {condition})" for condition in conditions]
        found: Sequence[int] = self._first(["count(*)", *counts], self._pairs(table))
        return found

    def _pairs(self, table: str) -> str:
        sides = " JOIN ".join(self._aliased(side, table) for side in Side)
        return f"{sides} ON {self._same_keys(table)}"

    def _same_keys(self, table: str) -> str:
        return " AND ".join(self.same_key(table, column) for column in self._key(table))

    def _key(self, table: str) -> Sequence[str]:
        """Return the primary key of a table; empty if it is not the same on both sides."""
        before, after = (self.tables[side][table].key for side in Side)
        return before if set(before) == set(after) else ()

    def _columns(self, table: str) -> list[str]:
        """Return the columns that both sides have and that are not in the key."""
        before, after = (self.tables[side][table].columns for side in Side)
        return [column for column in before if column in after and column not in self._key(table)]

    def _aliased(self, side: Side, table: str) -> str:
        return f"{self.place(side, table)} AS {quoted(side)}"

    def _shown(self, side: Side, column: str) -> str:
        return self.exact(side.value_of(column))[0]

    def _size(self, side: Side, table: str) -> int:
        return int(self._first(["count(*)"], self.place(side, table))[0])

    def _first(self, expressions: Iterable[str], source: str) -> Any:
        return self.first_row(f"SELECT {', '.join(expressions)} FROM {source}")

    def _only(self, side: Side, table: str, count: int, example: Iterable[object]) -> RowDifference:
        # The row of a counter is reported as a value.
        counter = self.tables[side][table].counter
        return RowDifference(table, counter, count, f"{_text(example)} (only {side})")


def quoted(name: str) -> str:
    """Return a name that the schema gave as an identifier."""
    escaped = name.replace('"', '""')
    return f'"{escaped}"'


def _text(values: Iterable[object]) -> str:
    text = ", ".join(repr(value) for value in values)
    return text if len(text) <= 60 else f"{text[:57]}..."
