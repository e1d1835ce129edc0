"""What the storage asks of an engine."""

from abc import ABC, abstractmethod
from collections.abc import Collection, Sequence
from contextlib import AbstractContextManager
from enum import Enum
from typing import Any, ClassVar

from poker_therapist.location import Location

CLOSED = "the storage is closed: open it again with get_pattern_storage()"


class Mode(Enum):
    """What a transaction is for."""

    # Several queries see the same snapshot.
    READ = "read"
    # Several statements that do not depend on what was read.
    WRITE = "write"
    # What is read does not change before what depends on it is written.
    READ_THEN_WRITE = "read, then write"


class Database(ABC):
    """An open database, used by any number of threads and processes concurrently; each engine has a subclass.

    The queries are those of the `.sql` files with which the database was opened, and are called by name.
    Values are bound in the order in which the query's header names its parameters.

    Every method raises a subclass of `PokerTherapistError` for an error of the driver's.

    Attributes:
        location: where the database is.
        threads: how many threads can use it concurrently with any benefit.
        writers: how many of them can write concurrently.
        can_pause: whether a fiber that uses it is paused instead of waiting.
    """

    location: Location
    threads: int
    writers: int
    can_pause: ClassVar[bool] = False

    @abstractmethod
    def fetch_all(self, query: str, values: Sequence[Any] = ()) -> list[Any]:
        """Return all rows of a query."""

    @abstractmethod
    def fetch_one(self, query: str, values: Sequence[Any] = ()) -> Any:
        """Return the first row of a query, None if there is none."""

    @abstractmethod
    def fetch_together(self, calls: Sequence[tuple[str, Sequence[Any]]]) -> list[list[Any]]:
        """Return all rows of several queries, each with its values, from one snapshot.

        Inside a transaction it is the transaction's.
        """

    @abstractmethod
    def execute(self, query: str, values: Sequence[Any] = ()) -> int:
        """Run a query that writes; return how many rows it changed. Outside a transaction it is committed."""

    @abstractmethod
    def execute_later(self, query: str, values: Sequence[Any] = ()) -> object:
        """Run a query that writes, like `execute`, where the caller does not need the number of rows.

        Inside a transaction the engine may run it later: before the transaction's next other statement, or at
        its end.
        """

    @abstractmethod
    def execute_many(self, query: str, rows: Sequence[Sequence[Any]]) -> Sequence[int]:
        """Run a query that saves a row, once for each of some rows of one player, as one transaction.

        On a server that is one round trip.

        Returns:
            the ids of the rows, if the query only adds.
        """

    @abstractmethod
    def lock_players(self, users: Collection[int]) -> None:
        """Take the locks of these players until the transaction ends, as others who write many rows do.

        So two of them never wait for each other's rows.
        """

    @property
    @abstractmethod
    def in_transaction(self) -> bool:
        """Whether this thread is inside a transaction."""

    @abstractmethod
    def transaction(self, mode: Mode) -> AbstractContextManager[None]:
        """Run a block as one transaction; inside another, as a part that can be rolled back by itself."""

    @abstractmethod
    def decode_legacy(self, column: str, stored: Any) -> Any:
        """Return what a column of `legacy_rows` holds, as a value that JSON can represent."""

    @abstractmethod
    def scrub_deleted(self) -> None:
        """Remove what the engine can of the bytes of deleted rows."""

    @abstractmethod
    def enable_writes(self) -> None:
        """Let this and all later connections write; until then the database is not changed."""

    @abstractmethod
    def close(self) -> None:
        """Close all connections; a second call does nothing."""
