"""The SQLite half of the atomic backend: one connection, BEGIN IMMEDIATE, foreign keys checked, a backup."""

import re
import sqlite3
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import replace
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from yoyo import default_migration_table
from yoyo.backends.core.sqlite3 import SQLiteBackend

from poker_therapist.compat import override
from poker_therapist.errors import DatabaseUnreadable, MigrationFailed, PokerTherapistError
from poker_therapist.location import SQLiteLocation, command_about
from poker_therapist.migrations.atomic import AtomicBackend
from poker_therapist.migrations.bookkeeping import BOOKKEEPING_SQL
from poker_therapist.migrations.catalog import Catalog
from poker_therapist.migrations.files import OUTSIDE_TRANSACTION, SQLMigration, Statement
from poker_therapist.new_files import Claim
from poker_therapist.sqlfile import Placeholders, read_queries
from poker_therapist.sqlite.backup import back_up, found_backups, holds_rows, prune
from poker_therapist.sqlite.catalog import build_judged, describe_beside
from poker_therapist.sqlite.connect import (
    Watch,
    end_watch,
    find_file,
    is_there,
    is_written,
    locate_parsed,
    locked,
    open_connection,
    translate_error,
)
from poker_therapist.sqlite.guard import Guard
from poker_therapist.sqlite.tokens import fault

_QUERIES = read_queries(Placeholders.SQLITE, BOOKKEEPING_SQL, Path(__file__).with_suffix(".sql"))
_SECONDS_TO_READ, _SECONDS_TO_REHEARSE, _MOST_BYTES = 10, 60, 64_000_000
_NEEDS_NO_TRANSACTION = re.compile("(within|inside) (a )?transaction")
_ROW_IDS = ("rowid", "_rowid_", "oid")


class AtomicSQLiteBackend(AtomicBackend, SQLiteBackend):
    """`sqlite+atomic://`: what `sqlite://` does, safely.

    Attributes:
        is_rehearsal: whether the file is a copy: nothing beyond it may be written, and all must end.
    """

    is_rehearsal = False
    _guard: Guard | None = None

    def __init__(self, uri: Any, migration_table: str = default_migration_table) -> None:
        """Take yoyo's parsed URL, or a `SQLiteLocation`; open nothing yet, so that looking writes nothing."""
        self.location: SQLiteLocation = uri if isinstance(uri, SQLiteLocation) else locate_parsed(uri)
        self.migration_table = migration_table
        self.DatabaseError = sqlite3.DatabaseError
        self._opened: sqlite3.Connection | None = None
        self._answers: dict[Any, list[Any]] = {}  # what is asked again and again in a transaction
        self._claim = Claim(self.location.path)
        self._backed_up = False
        self._backup: Path | None = None  # made by this run, which has changed nothing yet

    @property
    def connection(self) -> sqlite3.Connection:
        """The one connection, opened when it is first needed."""
        if self._opened is None:
            with self.translating_errors():
                find_file(self.location.path, create=False)
                # What is reported as done is on the disk; a copy is not needed after a power failure.
                level = "OFF" if self.is_rehearsal else "FULL"
                self._opened = open_connection(replace(self.location, synchronous=level))
                if self.location.on_connect is None:
                    Watch(_SECONDS_TO_READ, _MOST_BYTES).attach(self._opened, every=100)
                if self.is_rehearsal:
                    self._guard = Guard(self._opened)
            weakref.finalize(self, self._opened.close)
        return self._opened

    def __exit__(self, *error: object) -> None:
        """Close the connection."""
        if self._opened is not None:
            self._opened.close()

    @contextmanager
    def migration_lock(self) -> Iterator[None]:
        """Let what a migration sets for its connection end with it; the transaction is the lock."""
        try:
            yield
        finally:
            if self._backup is not None:  # nothing was changed
                with suppress(OSError):
                    self._backup.unlink()
                self._backup, self._backed_up = None, False
            self.__exit__()
            self._opened = None
            self._claim.release()

    def exists(self) -> bool:
        """Return whether there is a file."""
        return is_there(self.location.path)

    @override
    def is_being_changed(self) -> bool:
        # Only of a migration that no transaction holds does anything show before it is done.
        return bool(self.interrupted()) and (self._claim.is_of_others() or is_written(self.connection))

    def create_database(self) -> None:
        """Make an empty file, for its owner alone, if there is none."""
        is_new = not self.exists()
        find_file(self.location.path, create=True)
        if is_new:
            self.tell_operator(f"created {self.location.path}")

    def begin(self) -> None:
        """Take the write lock; foreign keys off first, for inside a transaction that does nothing.

        Rebuilding a table drops it, and with foreign keys on that would delete the rows that refer to it.
        """
        # What is in the file is to run from here on: triggers, and views that ALTER TABLE looks through.
        if self.location.on_connect is None:
            end_watch(self.connection)
        if self.is_rehearsal:
            self._end_in_time()
        self.connection.execute("PRAGMA foreign_keys = OFF")
        begin, undo = partial(self.connection.execute, "BEGIN IMMEDIATE"), self.connection.rollback
        if not self._claim.wait(begin, undo, self.location.timeout):  # between two statements of another
            raise locked()
        self._in_transaction, self._answers = True, {}

    def hold(self, _tables: Sequence[str]) -> None:
        """Do nothing: the transaction excludes other writers."""

    @override
    def _keep(self, one: SQLMigration, applied_at: str | None) -> None:
        super()._keep(one, applied_at)
        if applied_at is None:
            self._claim.take()

    def _end_in_time(self) -> None:
        """Let statements end that may never do so: after far longer than a migration of such a file takes."""
        seconds = _SECONDS_TO_REHEARSE + self.location.path.stat().st_size / 100_000
        Watch(seconds).attach(self.connection, trusted=True)

    def rollback(self) -> None:
        """Roll back the transaction, unless SQLite has already done so."""
        self.connection.rollback()
        self._in_transaction = False

    def savepoint_rollback(self, id: str) -> None:  # noqa: A002  # yoyo's signature
        """Roll back to a savepoint, unless SQLite has rolled back everything, as on a full disk."""
        if self.connection.in_transaction:
            super().savepoint_rollback(id)
        self._answers = {}  # what is undone is not counted back

    def commit(self) -> None:
        """Commit the transaction, or roll it back if that fails, for example because the disk is full."""
        # From here on the backup may be of a database that has changed: a signal could come right after that.
        backup, self._backup = self._backup, None
        try:
            self.connection.commit()
        except BaseException:
            if self.connection.in_transaction:
                self._backup = backup
            self.rollback()
            raise
        self._in_transaction = False
        if backup is not None:
            prune(self.location, backup)  # older ones make room for it

    def execute(self, sql: str, params: Mapping[str, Any] | None = None) -> Any:
        """Run a statement of yoyo's, with times as the text that plain yoyo stores for them."""
        values = {
            name: value.isoformat(" ") if isinstance(value, datetime) else value
            for name, value in (params or {}).items()
        }
        return super().execute(sql, values)

    def list_tables(self, **_unused: Any) -> list[str]:
        """Return the names of all tables, as yoyo asks for them."""
        return [name for (name,) in self.query("all_tables")]

    @override
    def query(self, name: str, values: Sequence[Any] = ()) -> list[Any]:
        # Until this transaction changes something, no one else can.
        is_alone = self._in_transaction and self.connection.in_transaction
        state = (name, *values, *self._changes()) if is_alone else ()
        if is_alone and state in self._answers:
            return self._answers[state]
        limit = _MOST_BYTES // 2 if name == "kept_texts" else -1  # which leaves it as it is
        limit = self.connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, limit)
        try:
            # One that is not read to its end would keep its table locked.
            with closing(self.connection.execute(_QUERIES[name], values)) as cursor:
                self._answers[state] = found = cursor.fetchall()
                return found
        except sqlite3.DataError:
            if name != "kept_texts":
                raise
            return self.query("kept_without_texts", values)
        finally:
            self.connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, limit)

    @override
    def run(self, migration: SQLMigration, statement: Statement, direction: str) -> None:
        guard, is_whole = self._guard, migration.is_transactional(direction)
        self._answers = {}  # for what no count shows: a migration may set PRAGMA schema_version
        if guard is None and migration.file is None:  # a text out of the database
            guard = Guard(self.connection)
            self._end_in_time()
        try:
            is_pragma = statement.text[:6].upper() == "PRAGMA"
            if is_whole and is_pragma and (advice := fault(statement.text, is_whole)):
                self.tell_operator(f"{migration.place(direction)}:{statement.line}: {advice}")
            self.show_rows(self.connection.execute(statement.text))
        except sqlite3.Error as error:
            is_sql = getattr(error, "sqlite_errorcode", 1) == sqlite3.SQLITE_ERROR
            reason = str(error if is_sql else self.translate_error(error))
            if is_whole and _NEEDS_NO_TRANSACTION.search(reason):
                reason += f": {OUTSIDE_TRANSACTION}"
            if guard and guard.refused:
                how = "rehearsed" if self.is_rehearsal else "run from the database (restore its files first)"
                reason = f"this cannot be {how}: {guard.refused}"
            raise MigrationFailed(
                f"{migration.place(direction)}:{statement.line}: {reason}\n    {statement}"
                + (f"\nAll changes of {migration.id} were undone." if is_whole else ""),
                migration_id=migration.id,
                file=migration.place(direction),
                line=statement.line,
            ) from error
        finally:
            if guard and not self.is_rehearsal:
                guard.release()
                self.connection.set_progress_handler(None, 0)

    @override
    def _run_unprotected(self, migration: SQLMigration, statements: list[Statement], direction: str) -> None:
        super()._run_unprotected(migration, statements, direction)
        self.__exit__()  # so that nothing that it has set changes how it is recorded
        self._opened = None

    @override
    def translate_error(self, error: Exception) -> PokerTherapistError | None:
        if isinstance(error, sqlite3.DataError) and self._opened and not self._opened.in_transaction:
            return DatabaseUnreadable(
                f"the bookkeeping tables of {self.location.path} are too large to be read: "
                "check _yoyo_migration and _migration_text"
            )
        return translate_error(error, self.location) if isinstance(error, sqlite3.Error) else None

    @override
    def describe(self, expected: Catalog) -> Catalog:
        return describe_beside(self.connection, expected)

    @override
    def present(self) -> Mapping[str, str]:
        return dict(self.query("present"))

    def build(self, migrations: Iterable[SQLMigration]) -> Catalog:
        """Return the schema that migrations build, in memory."""
        return build_judged(list(migrations), self.connection)

    @contextmanager
    def checked(self, migration: SQLMigration, direction: str) -> Iterator[None]:
        """Refuse new violations of foreign keys, which are off while the migration runs."""
        sql = (migration.apply_sql if direction == "apply" else migration.rollback_sql) or ""
        keys = ForeignKeys(self.connection, sql, self.quote_identifier)
        before = self._changes()
        yield
        # To compare takes long where each row of an old database is without its parent.
        if self._changes() != before:
            self._require_parents(migration, direction, keys)
        self.connection.execute(_QUERIES["drop_noted_violation"])

    def _require_parents(self, migration: SQLMigration, direction: str, keys: "ForeignKeys") -> None:
        refusal = ""
        for key, reason, is_parent_unchanged in keys.newly_unusable():
            if is_parent_unchanged:  # the app's own, of another shape than 001 took for granted
                self.tell_operator(f"cannot check the foreign key of {key.child} to {key.parent}: {reason}")
            else:
                refusal = f"the foreign key of {key.child} to {key.parent} would be invalid: {reason}"
        if violation := keys.new_violation(old_keys_only=direction == "rollback"):
            key, row = violation
            which = f"row {row}" if isinstance(row, int) else "a row"
            refusal = f"{which} of {key.child} would violate its foreign key to {key.parent}"
        if refusal:
            raise migration.failure(direction, f"{refusal}: correct the migration")

    def _changes(self) -> tuple[Any, ...]:
        """Return two counts, of rows and of schemas changed, that stay as they are while nothing changes."""
        version = self.connection.execute("PRAGMA main.schema_version").fetchall()
        return self.connection.total_changes, *version

    def back_up(self, before: str) -> None:
        """Back the database up, once in a run, if it holds data."""
        if self._backed_up or not self.location.backups:
            return
        if any(holds_rows(self.connection, name) for (name,) in self.query("user_tables")):
            self._backup = back_up(self.location, before)
            self.tell_operator(f"backup: {self._backup}")
            self._backed_up = True

    def room(self) -> str:
        """Return the disk space that migrations need: for a backup, a journal and rebuilt tables."""
        room = f"{3 * self.location.path.stat().st_size:,} bytes of disk space beside {self.location.path}"
        return f"{room} (`{command_about(self.location, 'rehearse')}` measures it)"

    @override
    def backup_before(self, migration_id: str) -> str:
        found = [one.path for one in found_backups(self.location) if one.before == f"apply-{migration_id}"]
        if not found:
            return super().backup_before(migration_id)
        return f"the backup from before it with `{command_about(self.location, 'restore', str(found[-1]))}`"


class ForeignKey(NamedTuple):
    """A key of a table; no targets where it means the parent's primary key."""

    child: str
    parent: str
    columns: tuple[str, ...]
    targets: tuple[str, ...]


class ForeignKeys:
    """The foreign keys that a migration may break, as they were before it.

    `PRAGMA foreign_key_check` would read every table of the app, stop at the first key that SQLite cannot
    use, and not distinguish the rows of a table WITHOUT ROWID.

    What names neither a table nor, through its triggers, one that writes to it cannot change its rows: such a
    table is not read.
    """

    def __init__(self, connection: sqlite3.Connection, sql: str, quote: Callable[[str], str]) -> None:
        """Note which rows have no parent, before the first statement of a migration with this text."""
        self._connection = connection
        self._sql = sql
        self._quote = quote
        self._answers: dict[tuple[Any, ...], list[Any]] = {}
        self._parents = self._tables()
        self._unusable: dict[ForeignKey, str] = {}
        connection.execute(_QUERIES["create_noted_violation"])
        for key in self._concerned():
            rows, self._unusable[key] = self._rows_without_parent(key)
            if not self._unusable[key]:
                connection.execute(
                    "INSERT INTO temp.noted_violation (child, parent, columns, row_key) "
                    f"SELECT ?, ?, ?, * FROM ({rows})",
                    (key.child, key.parent, ",".join(key.columns)),
                )

    def newly_unusable(self) -> list[tuple[ForeignKey, str, bool]]:
        """Return each key that SQLite could use, or that was not there, and cannot use now.

        With the reason, and whether the parent is as it was before: the key is new then.
        """
        self._answers.clear()  # the migration has run since
        self._now = {key: self._rows_without_parent(key) for key in self._concerned()}
        return [
            (key, reason, self._tables().get(key.parent.lower()) == self._parents.get(key.parent.lower()))
            for key, (_, reason) in self._now.items()
            if reason and not self._unusable.get(key)
        ]

    def new_violation(self, *, old_keys_only: bool) -> tuple[ForeignKey, Any] | None:
        """Return a key and the row that breaks it and did not, or was not there, before; after the other.

        Args:
            old_keys_only: a rollback may bring back a key that never held; ask only about those from before.
        """
        before = {(key.child, key.parent) for key in self._unusable}
        for key, (rows, unusable) in self._now.items():
            if unusable or (old_keys_only and (key.child, key.parent) not in before):
                continue
            found = self._connection.execute(
                f"SELECT * FROM ({rows}) EXCEPT SELECT row_key FROM temp.noted_violation "
                "WHERE child = ? AND parent = ? AND columns = iif(?, ?, columns) LIMIT 1",
                (key.child, key.parent, key in self._unusable, ",".join(key.columns)),
            ).fetchone()
            if found:
                return key, found[0]
        return None

    def _query(self, name: str, *values: str) -> list[Any]:
        if (name, *values) not in self._answers:
            self._answers[name, *values] = self._connection.execute(_QUERIES[name], values).fetchall()
        return self._answers[name, *values]

    def _tables(self) -> dict[str, str]:
        """Return the SQL of each table, by its name in lower case."""
        return {name.lower(): sql for name, sql in self._query("tables")}

    def _concerned(self) -> list[ForeignKey]:
        """Return the keys from and to the tables that the migration names, or a trigger of one of those."""
        text, named = self._sql.lower().replace('""', '"'), set[str]()
        triggers = [(table.lower(), sql.lower()) for table, sql in self._query("triggers")]
        names = {*self._tables(), *(table for table, _ in triggers)}  # a view may have triggers
        while more := {name for name in names if name in text} - named:
            named |= more
            text += "".join(sql for table, sql in triggers if table in more)
        keys: dict[tuple[str, int], ForeignKey] = {}
        for child, number, parent, column, target in self._query("foreign_keys"):
            if {child.lower(), parent.lower()} & named:
                key = keys.get((child, number), ForeignKey(child, parent, (), ()))
                targets = key.targets + ((target,) if target else ())
                keys[child, number] = key._replace(columns=(*key.columns, column), targets=targets)
        return list(keys.values())

    def _rows_without_parent(self, key: ForeignKey) -> tuple[str, str]:
        """Return a query for the keys of a table's rows without their parent, or why SQLite cannot ask."""
        child_columns = self._query("columns", key.child)
        names = {name.lower() for name, _ in child_columns}
        row = next((f"child.{name}" for name in _ROW_IDS if name not in names), "child.rowid")
        if self._query("without_rowid", key.child):
            row = " || ',' || ".join(
                f"quote(child.{self._quote(name)})" for name, place in child_columns if place
            )
        conditions = [f"child.{self._quote(name)} IS NOT NULL" for name in key.columns]
        if key.parent.lower() in self._tables():
            primary = sorted((place, name) for name, place in self._query("columns", key.parent) if place)
            targets = key.targets or tuple(name for _, name in primary)
            if len(targets) != len(key.columns) or not self._is_key(key.parent, targets, primary):
                return "", f"({', '.join(targets)}) is neither the primary key nor UNIQUE in {key.parent}"
            # As SQLite compares: with the parent's collation, and the child's value as the parent's type.
            same = " AND ".join(
                f"parent.{self._quote(target)} = +child.{self._quote(name)}"
                for name, target in zip(key.columns, targets, strict=True)
            )
            conditions.append(
                f"NOT EXISTS (SELECT 1 FROM main.{self._quote(key.parent)} AS parent WHERE {same})"
            )
        query = f"SELECT {row} FROM main.{self._quote(key.child)} AS child WHERE {' AND '.join(conditions)}"
        try:
            self._connection.execute(f"EXPLAIN {query}").fetchall()
        except sqlite3.OperationalError as error:  # the app's collation or function, which is not known here
            return "", str(error)
        return query, ""

    def _is_key(self, parent: str, targets: tuple[str, ...], primary: list[tuple[int, str]]) -> bool:
        unique = [{name.lower() for _, name in primary}]
        for (index,) in self._query("unique_indexes", parent):
            unique.append({(name or "").lower() for (name,) in self._query("index_columns", index)})
        return {name.lower() for name in targets} in unique
