"""Copying the rows of some tables from one database to another, on the same engine or another one.

This module has the order of events; how rows are read and written is each engine's own, in its `transfer.py`.
Rows go between the two in one form: integers, floats, strings and None, values as their JSON text, times as
the text that the storage keeps, and a column of any type as that type.
"""

import hashlib
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import closing, contextmanager
from itertools import islice, zip_longest
from marshal import dumps

from poker_therapist.errors import InvalidInput, PokerTherapistError, StorageError
from poker_therapist.migrations.atomic import AtomicBackend
from poker_therapist.migrations.engine import Engine, Reader, RefusedRow, Row, Writer
from poker_therapist.migrations.progress import Progress, no_progress
from poker_therapist.tables import StoredTable

# So many rows between two calls of `progress`.
_STRIDE = 1_000


def copy(
    source: Engine,
    target: Engine,
    tables: Sequence[StoredTable],
    *,
    sources: Sequence[str],
    prepare: Callable[[], None],
    progress: Progress = no_progress,
) -> dict[str, int]:
    """Copy all rows of some tables into an empty database; all of them or none.

    Ids stay, and the next one is the same in both. The target is migrated first if it has to be, and locked
    against other writers until every row is there. Before it is committed, every row is read back and
    compared with what was read from the source. The source is read in one snapshot and never written; others
    can use it, but rows that they save during the copy are not copied.

    After a failure the target is as it was: what was created there is dropped again, unless another process
    has saved into it. Two things stay: empty tables that existed before are up to date then, and a file that
    held something of the app's has its backup beside it, as before any migration. A kill leaves empty tables
    at most. In each case the same call can be repeated.

    Args:
        source: a database that is up to date.
        target: another one, whose tables are empty or missing; an SQLite file need not exist.
        tables: which tables; copied in the reverse order, for a row that is refused is most likely one of the
            last.
        sources: the folders of the target's migrations, to roll back after a failure.
        prepare: creates the target if it does not exist, and brings it up to date.
        progress: called with what is being done, how many rows are done and how many there are, each of which
            counts twice: it is copied and compared.

    Returns:
        How many rows each table has.

    Raises:
        InvalidInput: the target is not empty, or is the source, or cannot store a row of it.
        StorageError: either cannot be used, or the copy is not equal to the source.
        MigrationError: the target cannot be brought up to date.
    """
    if source.identity() == target.identity():
        raise InvalidInput(
            f"{target.location.name} and {source.location.name} are the same database: name another target"
        )
    # The target is migrated before anything is read: an index that is built CONCURRENTLY waits for every
    # older transaction of its database, and the source may be another schema there.
    with (
        _prepared(target, tables, sources, prepare),
        source.reader() as reader,
        target.writer(tables) as writer,
    ):
        copying = _Copying(reader, writer, tables, progress)
        copying.require_room()
        for table in reversed(tables):
            copying.copy(table)
        for table in tables:
            copying.compare(table)
        for table in tables:
            if table.identity:
                # The very last: on PostgreSQL a sequence is not set back when a transaction is rolled back.
                writer.set_next_id(table, reader.next_id(table))
        return {table.name: count for table, count in copying.counts.items()}


class _Copying:
    """One copy."""

    def __init__(
        self, reader: Reader, writer: Writer, tables: Sequence[StoredTable], progress: Progress
    ) -> None:
        self.reader = reader
        self.writer = writer
        self.progress = progress
        self.counts = {table: reader.count(table) for table in tables}
        self.columns = {table: reader.columns(table) for table in tables}
        self.digests: dict[StoredTable, list[bytes]] = {table: [] for table in tables}
        self.done = 0

    def require_room(self) -> None:
        """Refuse a target that is no longer empty, or that has other columns."""
        target = self.writer.location
        _require_empty(target.name, {table.name: self.writer.count(table) for table in self.counts})
        for table, columns in self.columns.items():
            if unshared := sorted(set(columns) ^ set(self.writer.columns(table))):
                raise InvalidInput(
                    f"the columns of {table.name} in {self.reader.location.name} and {target.name} differ "
                    f"({', '.join(unshared)}): check both with `poker-therapist status`"
                )

    def copy(self, table: StoredTable) -> None:
        """Copy the rows of a table."""
        columns = self.columns[table]
        with closing(self.reader.rows(table, columns)) as rows:
            try:
                self.writer.write(table, columns, self._counted(table, rows))
            except RefusedRow as error:
                refused = error
            else:
                return
        raise InvalidInput(
            f"{self._found_again(table, refused.number)} cannot be stored in {self.writer.location.name} "
            f"({refused.reason}), so nothing was copied: in {self.reader.location.name}, correct or delete "
            "the row, then copy again"
        ) from refused

    def compare(self, table: StoredTable) -> None:
        """Compare the rows of a table with those that were read from the source, all and in order.

        The source is a snapshot, so its rows stay the same: it is read again, row by row, only if the digests
        differ.

        Raises:
            StorageError: they are not equal; the message names the first difference, but no data of a player.
        """
        doing = f"comparing {table.name}"
        self._report(doing)
        digests = []
        with closing(self.writer.rows(table, self.columns[table])) as rows:
            while some := list(islice(rows, _STRIDE)):
                digests.append(_digest(some))
                self._report(doing, len(some))
        if digests != self.digests[table]:
            self._require_equal(table)

    def _require_equal(self, table: StoredTable) -> None:
        columns = self.columns[table]
        with (
            closing(self.reader.rows(table, columns)) as expected,
            closing(self.writer.rows(table, columns)) as actual,
        ):
            for mine, copied in zip_longest(expected, actual):
                if not _equal(mine, copied):
                    difference = _difference(table, columns, mine, copied)
                    raise StorageError(
                        f"the copy differs from the source ({difference}), so it was rolled back: check "
                        f"{self.reader.location.name}, and copy again"
                    )

    def _counted(self, table: StoredTable, rows: Iterator[Row]) -> Iterator[Row]:
        """Pass rows on, keep their digests and report the progress."""
        doing = f"copying {table.name}"
        self._report(doing)
        while some := list(islice(rows, _STRIDE)):
            self.digests[table].append(_digest(some))
            yield from some
            self._report(doing, len(some))

    def _report(self, doing: str, more: int = 0) -> None:
        self.done += more
        self.progress(doing, self.done, 2 * sum(self.counts.values()))

    def _found_again(self, table: StoredTable, number: int | None) -> str:
        """Return what to call the row with a number, which the source gives again in the same order."""
        if number is not None:
            columns = self.columns[table]
            with closing(self.reader.rows(table, columns)) as rows:
                for row in islice(rows, number - 1, number):
                    return table.label(columns, row)
        return f"a row of {table.name}"


def _digest(rows: list[Row]) -> bytes:
    """Return the same for the same rows: for the same values of the same types.

    Version 2 of marshal's format writes out each value, and none as a reference to an equal one before it.
    """
    return hashlib.sha256(dumps(rows, 2)).digest()


def _equal(mine: Row | None, copied: Row | None) -> bool:
    """Return whether two rows are the same: 1 is not 1.0, but 0.0 is -0.0, of which SQLite keeps no sign."""
    return mine == copied and (mine is None or copied is None or [*map(type, mine)] == [*map(type, copied)])


def _difference(table: StoredTable, columns: Collection[str], mine: Row | None, copied: Row | None) -> str:
    """Return how two rows that are not equal differ."""
    if mine is None or copied is None:
        count = "missing" if copied is None else "not in the source"
        return f"{table.label(columns, mine or copied or ())} is {count}"
    differing = [
        column
        for column, *pair in zip(columns, mine, copied, strict=True)
        if not _equal((pair[0],), (pair[1],))
    ]
    if set(differing) & set(table.key):  # this is another row
        return f"{table.label(columns, mine)} is missing"
    return f"{table.label(columns, mine)} differs in {differing[0]}"


@contextmanager
def _prepared(
    target: Engine, tables: Sequence[StoredTable], sources: Sequence[str], prepare: Callable[[], None]
) -> Iterator[None]:
    """Migrate an empty target; after a failure, drop what was created there.

    Raises:
        InvalidInput: it is not empty.
        MigrationError: it cannot be brought up to date.
    """
    name = target.location.name
    with target.backend() as backend:
        before = None
        if backend.exists():
            _require_empty(name, _counts(backend, tables))
            before = list(backend.list_tables())
        is_bare = not backend.applied() and not {table.name for table in tables} & set(before or ())
    try:
        prepare()
        yield
    except BaseException as error:
        if is_bare:
            try:
                with target.backend() as backend:
                    is_used = backend.exists() and any(_counts(backend, tables).values())
                if not is_used:
                    target.drop_created(before, sources)
            except PokerTherapistError as trouble:
                if not isinstance(error, PokerTherapistError):
                    raise error from trouble
                raise error.with_message(
                    f"{error}\nEmpty tables may be left in {name} ({trouble}): run the same command again"
                ) from error
        raise


def _counts(backend: AtomicBackend, tables: Sequence[StoredTable]) -> dict[str, int]:
    """Return how many rows each of the tables that exist has."""
    with backend.translating_errors():
        existing = set(backend.list_tables())
        return {
            table.name: backend.execute(
                f"SELECT count(*) FROM {backend.quote_identifier(table.name)}"
            ).fetchone()[0]
            for table in tables
            if table.name in existing
        }


def _require_empty(name: str, counts: dict[str, int]) -> None:
    held = [f"{table}: {count:,}" for table, count in counts.items() if count]
    if held:
        raise InvalidInput(
            f"{name} already contains data ({', '.join(held)}), with which a copy is never merged: "
            "name an empty database"
        )
