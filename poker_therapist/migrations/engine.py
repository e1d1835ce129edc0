"""What an engine does for an operator: its backend, backups, copies and whole-table transfers."""

from abc import ABC, abstractmethod
from collections.abc import Collection, Generator, Hashable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

from poker_therapist.location import Location
from poker_therapist.migrations.atomic import AtomicBackend
from poker_therapist.migrations.catalog import Catalog, Difference, differences
from poker_therapist.migrations.compare import RowComparison, RowDifference, Side
from poker_therapist.migrations.files import SQLMigration
from poker_therapist.migrations.lock_report import Lock, LockReport
from poker_therapist.tables import StoredTable

Row = tuple[Any, ...]


class RehearsalCopy(ABC):
    """A copy of a database, on which migrations are tried.

    Attributes:
        fallback_reason: why the copy is of a lesser kind than it could be; empty if it is not.
        lock_report: of what the last `backend` does.
    """

    fallback_reason: str = ""
    lock_report: LockReport

    @property
    @abstractmethod
    def disk_space_needed(self) -> int:
        """How many bytes the real run needs at most, as far as the rehearsal has seen."""

    @abstractmethod
    def backend(self) -> AbstractContextManager[AtomicBackend]:
        """Return the backend of the copy, for a block."""

    @abstractmethod
    def keep_before(self) -> None:
        """Keep the state before applying, to compare with it later."""

    @abstractmethod
    def keep_after(self) -> None:
        """Keep the state after applying, to return to it."""

    @abstractmethod
    def return_to_after(self) -> bool:
        """Return to the state that `keep_after` kept; false if that is impossible: the rehearsal ends."""

    @abstractmethod
    def integrity_error(self) -> str:
        """Return what the engine finds broken in the copy; empty if nothing is."""

    @abstractmethod
    def schemas(self) -> tuple[Catalog, Catalog]:
        """Return the schema that `keep_before` kept, and the one that the copy has now."""

    @abstractmethod
    def row_comparison(self) -> AbstractContextManager[RowComparison]:
        """Compare the rows that `keep_before` kept with those that the copy has now."""

    @abstractmethod
    def refused_queries(self, files: Sequence[Path]) -> dict[str, str]:
        """Return the named queries of `.sql` files that cannot be prepared on the copy as it is, and why."""

    def schema_differences(self) -> list[Difference]:
        """Return how the schema differs from `keep_before`."""
        return differences(*self.schemas())

    def changed_rows(self) -> dict[str, int]:
        """Return each table with rows that differ from `keep_before`, and how many do."""
        with self.row_comparison() as rows:
            return dict(rows.changed_rows())

    def row_differences(self) -> list[RowDifference]:
        """Return how the rows of the tables that exist on both sides differ from `keep_before`."""
        with self.row_comparison() as rows:
            return list(rows.differences())

    def tables_on_one_side(self) -> list[tuple[Side, str, int]]:
        """Return each non-empty table that exists on one side only, with its row count."""
        with self.row_comparison() as rows:
            return list(rows.tables_on_one_side())

    @abstractmethod
    def texts_laid_out_differently(self) -> list[str]:
        """Return what has the same meaning as before and another SQL text, where the engine keeps texts."""


class Reader(ABC):
    """The rows of a database in one snapshot, in the form in which they go from engine to engine.

    Every method raises an error of this package for one of the driver's.

    Attributes:
        location: where the database is.
    """

    location: Location

    @abstractmethod
    def columns(self, table: StoredTable) -> list[str]:
        """Return the columns of a table, in its order."""

    @abstractmethod
    def count(self, table: StoredTable) -> int:
        """Return how many rows a table has."""

    @abstractmethod
    def next_id(self, table: StoredTable) -> int:
        """Return the id that the next row of a table would get."""

    @abstractmethod
    def rows(self, table: StoredTable, columns: Sequence[str]) -> Generator[Row, None, None]:
        """Yield the rows of a table in the order of its key, with a few in memory at a time."""


class Writer(Reader):
    """A transaction that excludes other writers; it sees what it has written."""

    @abstractmethod
    def write(self, table: StoredTable, columns: Sequence[str], rows: Iterable[Row]) -> None:
        """Insert rows as they come, with a few in memory at a time.

        Raises:
            RefusedRow: this engine cannot hold one of them.
        """

    @abstractmethod
    def set_next_id(self, table: StoredTable, next_id: int) -> None:
        """Let the next row of a table get this id."""


class RefusedRow(Exception):
    """The target cannot hold a row.

    Attributes:
        number: which of the rows that were to be written, from 1; None where that is not known.
        reason: why, without anything of a player's in it.
    """

    def __init__(self, number: int | None, reason: str) -> None:
        super().__init__(reason)
        self.number = number
        self.reason = reason


class Holding(Enum):
    """The kind of a file beside a database that contains, or may contain, an owner's rows."""

    OURS = "a backup made by this package"
    OF_OTHERS = "a file that somebody else keeps"
    LEFT = "a leftover of a killed command, or of a restore over a damaged database"
    UNKNOWN = "a file that cannot be read"


@dataclass(frozen=True, slots=True)
class BackupFile:
    """A backup beside a database.

    Attributes:
        made_at: when, in UTC.
        before: what it precedes, such as `apply-003_x`; empty if an operator asked for it.
        schema_version: the last migration of ours that is applied in it; None if none is.
        is_readable: whether it is whole, by the engine's own check; None if that would take too long.
    """

    path: Path
    made_at: str
    size: int
    before: str
    schema_version: str | None
    is_readable: bool | None


class ScriptDialect(ABC):
    """The SQL that the program of an engine needs for a plan.

    Attributes:
        program: runs the script.
        prefix: the prefix of temporary names, which no migration may use.
        backend: of the database.
        begin: begins a transaction that may write.
        reset: resets the settings of a migration's session, inside or outside a transaction.
        close: does the same, and drops the temporary objects of the session.
        user: returns the user who runs the script.
        host: returns the host of the script.
        uuid: returns a new id for yoyo's log.
        recorded: returns the time in a row of yoyo's in our format.
        tables: the rows of the tables that are there, and a comparison of their names in lower case, to
            which a name is to be put.
        present: the query for what there is, as `AtomicBackend.present` asks it.
    """

    program: str
    prefix: str = "plan"
    begin: str
    reset: str = ""
    close: str = ""
    user: str
    host: str
    uuid: str
    recorded: str
    tables: str
    present: str
    backend: AtomicBackend

    @abstractmethod
    def calls(self, file: str) -> list[str]:
        """Return the commands of a shell that run the script of that name."""

    @abstractmethod
    def head(self) -> str:
        """Return the start of the script, which ends the run at the first error."""

    @abstractmethod
    def tail(self, done: str) -> str:
        """Return the end of the script, which prints what was done."""

    @abstractmethod
    def fault(self, text: str) -> tuple[int, str] | None:
        """Return the line, from 0, of what the program would not run unchanged, and why."""

    @abstractmethod
    def statement(self, text: str) -> str:
        """Return a statement of a migration in a form that the program runs unchanged."""

    @abstractmethod
    def now(self) -> str:
        """Return an expression for the time, in UTC, later than the one before."""

    @abstractmethod
    def require(self, problem: str, condition: str) -> str:
        """Return a statement that fails, with a message, unless a condition holds."""

    def before(self, direction: str) -> str:  # noqa: ARG002  # what one engine has to note
        """Return what notes, before a migration's statements, what must still hold after them."""
        return ""

    @abstractmethod
    def after(self, direction: str) -> str:
        """Return a statement that fails unless that condition holds."""

    def literal(self, value: str) -> str:
        """Return a text as a literal."""
        return "'{}'".format(value.replace("'", "''"))

    def has_table(self, name: str) -> str:
        """Return a condition: there is a table of that name, in upper or lower case."""
        return f"EXISTS (SELECT 1 FROM {self.tables} = {self.literal(name.lower())})"


class Engine(ABC):
    """The tools for one database.

    Attributes:
        location: where the database is.
    """

    location: Location

    @abstractmethod
    def backend(self) -> AtomicBackend:
        """Return the backend; nothing is opened yet."""

    def locks(self, code: str) -> list[Lock]:  # noqa: ARG002  # one writer locks all of a file
        """Return what a statement locks, by its text alone, as `effects.code` returns it."""
        return []

    @abstractmethod
    def script(self, backend: AtomicBackend) -> ScriptDialect:
        """Return what writes a plan as a file for the program of the engine."""

    def limit(self, connection: Any) -> None:  # noqa: B027  # a server has its own limits
        """Limit the queries of a connection, because those of a crafted database may never end."""

    @abstractmethod
    def rehearsal_copy(self, files: Mapping[str, SQLMigration]) -> AbstractContextManager[RehearsalCopy]:
        """Copy the database, to try migrations on; the copy is removed when the block ends.

        Args:
            files: the migrations of the code, for those of which the database has kept no text.

        Raises:
            StorageError: the database cannot be read, or there is no room for a copy.
        """

    @abstractmethod
    def save_backup(self, output: Path | None, sources: Sequence[str]) -> Path:
        """Copy the database to a file while others use it, and return that file's path.

        Args:
            output: a file that does not exist yet; named by the time unless given.
            sources: the folders of the migrations that this version of the code knows.

        Raises:
            InvalidInput: there is a file at `output` already.
            StorageError: the database cannot be read, or the file cannot be written.
        """

    @abstractmethod
    def list_backups(self, sources: Sequence[str]) -> list[BackupFile]:
        """Return the finished backups beside the database, oldest first.

        Raises:
            InvalidInput: such a database has no backups beside it.
        """

    @abstractmethod
    def restore(self, file: Path, sources: Sequence[str], tables: Sequence[StoredTable]) -> Path | None:
        """Replace the database with a backup; return the backup of what was replaced, None if nothing was.

        Args:
            file: the backup.
            sources: the folders of the migrations that this version of the code knows.
            tables: the tables of which a backup has at least one.

        Raises:
            DatabaseUnreadable: the file is no backup of such a database, or it is damaged.
            SchemaTooNew: the backup was made by a later version of the code.
            StorageError: the database cannot be written.
        """

    @abstractmethod
    def backups_holding(self, owner: int, tables: Sequence[StoredTable]) -> dict[Path, Holding]:
        """Return the known backups with a row of an owner in one of the tables, or that may have one."""

    @abstractmethod
    def identity(self) -> Hashable:
        """Return what the names of the database have in common, and no other database; None without one."""

    @abstractmethod
    def reader(self) -> AbstractContextManager[Reader]:
        """Open the database to read it in one snapshot; it is not written."""

    @abstractmethod
    def writer(self, tables: Sequence[StoredTable]) -> AbstractContextManager[Writer]:
        """Open the database to fill some tables in one transaction, committed when the block ends well."""

    @abstractmethod
    def drop_created(self, before: Collection[str] | None, sources: Sequence[str]) -> None:
        """Drop what was created in a database that held none of our tables.

        Args:
            before: the tables that existed before, which stay; None if there was no database.
            sources: the folders of the migrations to roll back.
        """
