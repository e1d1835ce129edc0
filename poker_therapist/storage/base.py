"""The code that the methods for patterns, context, insights and players share."""

from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from typing import Any, TypeVar

from poker_therapist import values
from poker_therapist.database import Database, Mode
from poker_therapist.errors import InvalidInput
from poker_therapist.records import Insight, Pattern

Item = TypeVar("Item")


class Base:
    """An open database, and a clock for expiry that does not go back."""

    _database: Database
    _latest = datetime.min.replace(tzinfo=UTC)

    def _now(self) -> datetime:
        """Return the time that expiry is compared with: the clock's, but never earlier than before.

        So an item that has expired does not come back when the clock is set back.
        """
        self._latest = now = max(values.now(), self._latest)
        return now

    def _delete(self, *deletions: tuple[str, tuple[Any, ...]]) -> int:
        """Run queries about one player as one transaction; return how many rows the last one has deleted."""
        deleted = 0
        with self._database.transaction(Mode.WRITE):
            self._database.lock_players([deletions[0][1][0]])
            for query, its_values in deletions:
                deleted = self._database.execute(query, its_values)
        return deleted


def require_items(name: str, of: str, items: object, *refused: type) -> None:
    """Refuse anything but a list of items; a string or bytes would be iterated by its parts."""
    if not isinstance(items, Iterable) or isinstance(items, (str, bytes, bytearray, memoryview, *refused)):
        raise InvalidInput(f"{name} must be a list of {of} (got {type(items).__name__})")


def checked(
    items: Iterable[Item],
    make: Callable[[Item], tuple[Any, ...]],
    label: Callable[[int, Item], str] = lambda number, _: f"item {number}",
) -> list[tuple[Any, ...]]:
    """Return the rows of some items; raise InvalidInput with the number of an item that is refused."""
    require_items("items", "dicts", items, Mapping)
    rows = []
    for number, item in enumerate(items, 1):
        try:
            rows.append(make(item))
        except InvalidInput as error:
            raise InvalidInput(f"{label(number, item)}: {error}") from error
    return rows


def with_values(rows: list[Any], column: int) -> Iterable[tuple[Any, Any]]:
    """Return each row with the decoded value of one of its columns."""
    return zip(rows, values.decode_all([row[column] for row in rows]), strict=True)


def pattern(row: Any, value: Any) -> Pattern:
    """Return the record of a row: its id, JSON, confidence and times."""
    return {"id": row[0], "value": value, "confidence": row[2], "created_at": row[3], "updated_at": row[4]}


def insights(rows: list[Any]) -> list[Insight]:
    """Return the records of rows."""
    return [
        {
            "id": row[0],
            "type": row[1],
            "value": value,
            "data": value,
            "importance": row[3],
            "created_at": row[4],
        }
        for row, value in with_values(rows, 2)
    ]
