"""The rows and values that statements move: copied, renamed, rebuilt, or deleted.

Rows that a run copies elsewhere, and leaves there, are not lost with their table or column.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from poker_therapist.migrations.clauses import Item


@dataclass(slots=True, eq=False)
class Table:
    """The rows of a table, whatever its current name.

    Attributes:
        name: what it was called first, as it is written.
        is_made: whether the run itself created it, so that it was empty before.
        is_gone: whether its rows have been deleted, or dropped with it.
        was_called: the first name of each column that was renamed; None for one that was added.
        dropped: the columns that are gone.
        copies: what was put elsewhere, in order.
    """

    name: str
    is_made: bool = False
    is_gone: bool = False
    was_called: dict[str, str | None] = field(default_factory=dict)
    dropped: set[str] = field(default_factory=set)
    copies: list["Copy"] = field(default_factory=list)

    def keeps(
        self, column: str | None = None, *, upto: int | None = None, whole: bool = False, depth: int = 0
    ) -> bool:
        """Return whether the rows, or the values of a column, are somewhere else at the end.

        Args:
            column: as it is called now; empty for one that is not known, None for the rows.
            upto: how many of the copies count; all unless given.
            whole: whether to leave out copies for which a condition has selected rows.
            depth: how many copies of copies have been gone through.
        """
        for copy in self.copies[:upto]:
            if (whole and copy.is_part) or depth > 20:
                continue
            for name in [None] if column is None else copy.targets(column):
                if copy.into is self and (not name or name == column):
                    continue
                if name in copy.into.dropped:
                    continue
                if not copy.into.is_gone or copy.into.keeps(name, whole=whole, depth=depth + 1):
                    return True
        return False

    def keeps_first(self, column: str) -> bool:
        """Return whether the values of a column are somewhere else at the end; as it was called first."""
        return self.keeps(self.name_now(column))

    def name_now(self, column: str) -> str:
        """Return what a column is called now; as it was called first."""
        return next((name for name, was in self.was_called.items() if was == column), column)


class Copy(NamedTuple):
    """A statement that has put rows or values of a table into a table.

    Attributes:
        is_part: whether a condition has selected the rows.
        items: what was put where; without any, all was put under its own name.
        is_over: whether it may have been put over rows that were there, which then are not more than before.
    """

    into: Table
    is_part: bool
    items: Sequence[Item]
    is_over: bool = False

    def targets(self, column: str) -> Iterator[str]:
        """Yield the columns into which a column's values were put; an empty name where that is not known."""
        if not self.items:
            yield column
        for one in self.items:
            if one.has_all or not column or one.has_whole(column):
                yield one.target or (column if one.has_all else "")


class Lost(NamedTuple):
    """Rows, or values of a column, that a run deletes, as far as its text shows.

    Attributes:
        table: its name before the run, as it is written.
        column: whose values; empty for rows.
        is_part: whether it may be a part of them.
        kept: the table, of which each column is to be asked whether it is kept as the rows are.
        schema: all tables of this schema, instead of a table.
        other: a statement whose text does not show what it deletes, instead of a table.
    """

    table: str = ""
    column: str = ""
    is_part: bool = False
    kept: Table | None = None
    schema: str = ""
    other: str = ""
