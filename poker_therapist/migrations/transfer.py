"""Moving all players from one database to another, on the same engine or the other one.

The order of events; how rows are read and written is each engine's own, in its `transfer.py`. Rows go between
the two in one form: integers, floats, texts and None, values as the letters of their JSON, times as the text
that the storage keeps, and what `legacy_rows` holds of any type as that type.
"""

from collections.abc import Collection, Iterable, Iterator
from contextlib import closing, contextmanager
from itertools import islice, zip_longest
from typing import Any

from poker_therapist.database import Location, open_database
from poker_therapist.errors import InvalidInput, PokerTherapistError, StorageError
from poker_therapist.migrations import bring_up_to_date, folders_for
from poker_therapist.migrations.atomic import AtomicBackend
from poker_therapist.migrations.catalog import BOOKKEEPING
from poker_therapist.migrations.engine import Reader, Row, Writer, engine_for
from poker_therapist.migrations.rehearse import Progress, no_progress

# The tables that hold what is known of a player, and what their rows are read in the order of. PostgreSQL
# does not say that an id is there once, so the player is named too.
KEYS = {
    "user_patterns": ("id", "user_id"),
    "conversation_context": ("id", "user_id"),
    "user_insights": ("id", "user_id"),
    "legacy_rows": ("user_id", "migration_id", "table_name", "row_id"),
}
# Whose ids are counted.
COUNTED = tuple(table for table, key in KEYS.items() if "id" in key)

# So many rows between two calls of `progress`.
_STRIDE = 1_000


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


def copy(source: Location, target: Location, *, progress: Progress = no_progress) -> dict[str, int]:
    """Copy everything that is known of all players into an empty database; all of it or nothing.

    Ids stay, and the next one is the same in both. The target is migrated first if it has to be, and locked
    against others who write until all is there. Before it is committed, every row is read again on both sides
    and compared. The source is read as of one moment and never written; others may go on using it, but what
    they save meanwhile is not in the copy.

    After a failure the target is as it was: what had been made there is taken away again, unless somebody
    else has saved into it meanwhile. Two things stay: empty tables of ours that were there before are up to
    date then, and a file that held something of the app's has its backup beside it, as before any migration.
    A kill leaves empty tables at most. In each case the same call can simply be made again.

    Args:
        source: a database that is up to date.
        target: another one, which holds nothing yet, or the path of an SQLite file that is not there.
        progress: called with what is being done, how many rows are done and how many there are, each of which
            counts twice: it is copied and compared.

    Returns:
        How many rows each table has.

    Raises:
        SchemaOutdated: the source lacks migrations; SchemaTooNew: either has some that this version does not
            know.
        InvalidInput: the target holds something, or is the source, or cannot hold a row of it.
        StorageError: either cannot be used, or the copy is not equal to the source.
    """
    with closing(open_database(source, create=False)) as database:
        bring_up_to_date(database, migrate=False)
    one, other = engine_for(source), engine_for(target)
    if one.identity() == other.identity():
        raise InvalidInput(f"{target.name} is {source.name} itself: name another database to copy to")
    # The target is migrated before anything is read: an index that is built CONCURRENTLY waits for every
    # older transaction of its database, and the source may be another schema there.
    with _prepared(target), one.reader() as reader, other.writer() as writer:
        copying = _Copying(reader, writer, progress)
        copying.require_room()
        for table in reversed(KEYS):  # if a row is refused, it is most likely one of `legacy_rows`
            copying.copy(table)
        for table in KEYS:
            copying.compare(table)
        for table in COUNTED:
            # The very last: on PostgreSQL a counter is not set back when a transaction is undone.
            writer.go_on_at(table, reader.next_id(table))
        return copying.counts


class _Copying:
    """One copy on its way."""

    def __init__(self, reader: Reader, writer: Writer, progress: Progress) -> None:
        self.reader = reader
        self.writer = writer
        self.progress = progress
        self.counts = {table: reader.count(table) for table in KEYS}
        self.columns = {table: reader.columns(table) for table in KEYS}
        self.done = 0

    def require_room(self) -> None:
        """Refuse a target that holds something by now, or that could not take all that there is."""
        target = self.writer.location
        _require_empty(target, {table: self.writer.count(table) for table in KEYS})
        for table, columns in self.columns.items():
            if unshared := sorted(set(columns) ^ set(self.writer.columns(table))):
                raise InvalidInput(
                    f"{self.reader.location.name} and {target.name} do not have the same columns in {table}: "
                    f"{', '.join(unshared)} is in one of them alone: look at both with "
                    "`poker-therapist status`"
                )

    def copy(self, table: str) -> None:
        """Copy the rows of a table."""
        columns = self.columns[table]
        with closing(self.reader.rows(table, columns)) as rows:
            try:
                self.writer.write(table, columns, self._counted(f"copying {table}", rows))
            except RefusedRow as error:
                refused = error
            else:
                return
        raise InvalidInput(
            f"{self._found_again(table, refused.number)} cannot go to {self.writer.location.name} "
            f"({refused.reason}): nothing was copied; look at it in {self.reader.location.name}, correct or "
            "delete it, and copy again"
        ) from refused

    def compare(self, table: str) -> None:
        """Compare the rows of a table on both sides, one by one and in order.

        Raises:
            StorageError: they are not equal; the message names the first difference, but nothing of a player.
        """
        columns = self.columns[table]
        with (
            closing(self.reader.rows(table, columns)) as expected,
            closing(self.writer.rows(table, columns)) as actual,
        ):
            pairs = zip_longest(expected, actual)
            for mine, copied in self._counted(f"comparing {table}", pairs):
                if not _equal(mine, copied):
                    difference = _difference(table, columns, mine, copied)
                    raise StorageError(
                        f"the copy is not equal ({difference}), so nothing was kept: look at it in "
                        f"{self.reader.location.name}, and copy again"
                    )

    def _counted(self, doing: str, rows: Iterable[Any]) -> Iterator[Any]:
        """Pass rows on and tell of the progress."""
        total = 2 * sum(self.counts.values())
        self.progress(doing, self.done, total)
        number = 0
        for number, row in enumerate(rows, start=1):
            yield row
            if number % _STRIDE == 0:
                self.progress(doing, self.done + number, total)
        self.done += number

    def _found_again(self, table: str, number: int | None) -> str:
        """Return what to call the row with a number, which the source gives again in the same order."""
        if number is not None:
            columns = self.columns[table]
            with closing(self.reader.rows(table, columns)) as rows:
                for row in islice(rows, number - 1, number):
                    return named(table, columns, row)
        return f"a row of {table}"


def named(table: str, columns: Collection[str], row: Row) -> str:
    """Return what to call a row: its table and id."""
    values = dict(zip(columns, row, strict=True))
    if table == "legacy_rows":
        return f"row {values['row_id']} of {values['table_name']}, kept in {table},"
    return f"row {values['id']} of {table}"


def _equal(mine: Row | None, copied: Row | None) -> bool:
    """Return whether two rows are the same: 1 is not 1.0, but 0.0 is -0.0, of which SQLite keeps no sign."""
    return mine == copied and (mine is None or copied is None or [*map(type, mine)] == [*map(type, copied)])


def _difference(table: str, columns: Collection[str], mine: Row | None, copied: Row | None) -> str:
    """Return how two rows that are not equal differ."""
    if mine is None or copied is None:
        count = "missing" if copied is None else "one too many"
        return f"{named(table, columns, mine or copied or ())} is {count}"
    differing = [
        column
        for column, *pair in zip(columns, mine, copied, strict=True)
        if not _equal((pair[0],), (pair[1],))
    ]
    if set(differing) & set(KEYS[table]):  # another row stands here
        return f"{named(table, columns, mine)} is missing"
    return f"{named(table, columns, mine)} differs in {differing[0]}"


@contextmanager
def _prepared(target: Location) -> Iterator[None]:
    """Bring a target that holds nothing up to date; after a failure, take away what was made there.

    Raises:
        InvalidInput: it holds something.
        MigrationError: it cannot be brought up to date.
    """
    engine = engine_for(target)
    with engine.backend() as backend:
        before = None
        if backend.exists():
            _require_empty(target, _counts(backend))
            before = list(backend.list_tables())
        is_bare = not backend.applied() and not set(before or ()) & KEYS.keys()
    try:
        with closing(open_database(target, create=True)) as database:
            bring_up_to_date(database, migrate=True)
        yield
    except BaseException as error:
        if is_bare:
            try:
                with engine.backend() as backend:
                    is_used = backend.exists() and any(_counts(backend).values())
                if not is_used:
                    engine.unmake(before)
            except PokerTherapistError as trouble:
                if not isinstance(error, PokerTherapistError):
                    raise error from trouble
                raise type(error)(
                    f"{error}\nEmpty tables may be left in {target.name} ({trouble}): run the same again"
                ) from error
        raise


def _counts(backend: AtomicBackend) -> dict[str, int]:
    """Return how many rows each of our tables has, of those that are there."""
    with backend.explained():
        there = KEYS.keys() & set(backend.list_tables())
        return {
            table: backend.execute(f"SELECT count(*) FROM {table}").fetchone()[0]
            for table in KEYS
            if table in there
        }


def _require_empty(target: Location, counts: dict[str, int]) -> None:
    held = [f"{table}: {count:,}" for table, count in counts.items() if count]
    if held:
        raise InvalidInput(
            f"{target.name} holds data already ({', '.join(held)}), with which a copy is never mixed: "
            "name an empty database"
        )


def take_back(backend: AtomicBackend, before: Collection[str]) -> None:
    """Take back all migrations, and the bookkeeping with them, unless its tables were there before."""
    folders = folders_for(backend.location, backend.applied())
    backend.rollback_migrations(backend.to_rollback(backend.read([str(folder) for folder in folders])))
    with backend.one_transaction():
        for table in backend.list_tables():
            if table.startswith(BOOKKEEPING) and not table.startswith("sqlite_") and table not in before:
                backend.execute(f"DROP TABLE {backend.quote_identifier(table)}")
