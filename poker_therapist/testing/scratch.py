"""Databases that tests create, copy and compare, for each engine."""

import contextlib
import re
import shutil
import sqlite3
from abc import ABC, abstractmethod
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Generic, TypeVar

from poker_therapist.compat import override
from poker_therapist.engines import engine_for
from poker_therapist.location import SQLiteLocation
from poker_therapist.migrations.catalog import BOOKKEEPING
from poker_therapist.migrations.engine import Engine

# An SQLite file, or the URL of a database on a server.
D = TypeVar("D")

# What differs from run to run in the record of migrations: times, yoyo's ids of its log.
VARIES = re.compile(r"\d{4}-\d\d-\d\d[ T][-\d:.+]+|\b[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f-]{22}\b")


class Scratch(ABC, Generic[D]):
    """Creates databases for tests; they are removed with the folder, or when it is closed."""

    @abstractmethod
    def create(self) -> D:
        """Make an empty database."""

    @abstractmethod
    def copy(self, original: D) -> D:
        """Copy a database that is not in use."""

    @abstractmethod
    def drop(self, database: D) -> None:
        """Delete a database."""

    @abstractmethod
    def engine(self, database: D) -> Engine:
        """Return the tools for a database, without backups."""

    @abstractmethod
    def differences(self, expected: D, actual: D) -> list[str]:
        """Return how the schema and the rows of two databases differ."""

    def state(self, database: D) -> object:
        """Return all on which it depends what a migration does next; leave the database as it is."""
        return database  # where that is not known, each is a state of its own

    @abstractmethod
    def watch(self, before: Callable[[str], None]) -> None:
        """Have this process call something before each statement of the migrations, COMMIT included.

        Not before one that only reads: to die there is to die before the next that writes.
        """

    def freeze(self, database: D) -> None:  # a file can be copied in any case
        """Allow no more connections to a database, so that it can be copied."""

    def close(self) -> None:  # pytest removes the folder
        """Delete what is left."""

    def migrate(self, database: D, folder: Path, direction: str = "apply") -> None:
        """Apply all migrations of a folder, or roll all of them back."""
        with self.engine(database).backend() as backend:
            files = backend.read([str(folder)])
            if direction == "apply":
                backend.apply_migrations(backend.to_apply(files))
            else:
                backend.rollback_migrations(backend.to_rollback(files))


class SQLiteScratch(Scratch[Path]):
    """SQLite files below a folder, each in one of its own."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._numbers = count(1)

    @override
    def create(self) -> Path:
        path = self._path()
        with contextlib.closing(sqlite3.connect(path)) as connection:
            connection.execute("VACUUM")  # a file with a header, still empty
        return path

    @override
    def copy(self, original: Path) -> Path:
        path = self._path()
        with (
            contextlib.closing(sqlite3.connect(original)) as source,
            contextlib.closing(sqlite3.connect(path)) as target,
        ):
            source.backup(target)
        return path

    @override
    def drop(self, database: Path) -> None:
        shutil.rmtree(database.parent, ignore_errors=True)  # on Windows a test may have left it open

    def _path(self) -> Path:
        folder = self._folder / f"database-{next(self._numbers)}"
        folder.mkdir()
        return folder / "database.db"

    @override
    def engine(self, database: Path) -> Engine:
        return engine_for(SQLiteLocation(database, backups=0))

    @override
    def differences(self, expected: Path, actual: Path) -> list[str]:
        from poker_therapist.sqlite.compare import SQLiteRowComparison, stored_sql

        texts = []
        with SQLiteRowComparison(expected, actual) as rows:
            sides = rows.tables_on_one_side()
            found = [f"the table {table} is in one database only" for _, table, _ in sides]
            found += [str(difference) for difference in rows.differences()]
        for path in (expected, actual):
            with contextlib.closing(sqlite3.connect(path)) as connection:
                texts.append(set(stored_sql(connection)))
                found += [
                    f"{line}" for (line,) in connection.execute("PRAGMA integrity_check") if line != "ok"
                ]
        return found + sorted(f"{name}: {sql}" for name, sql in texts[0] ^ texts[1])

    @override
    def state(self, database: Path) -> list[str]:
        copied = self._path()  # to read a database is to roll back what a kill has left in its journal
        shutil.copytree(database.parent, copied.parent, dirs_exist_ok=True)
        lines = sorted(path.name for path in copied.parent.iterdir())
        record = tuple(f'INSERT INTO "{name}' for name in BOOKKEEPING)
        with contextlib.closing(sqlite3.connect(copied)) as connection:
            for line in connection.iterdump():
                lines.append(VARIES.sub("", line) if line.startswith(record) else line)
            for about in ("integrity_check", "user_version", "application_id"):
                lines += [str(row) for row in connection.execute(f"PRAGMA {about}")]
        self.drop(copied)
        return lines

    @override
    def watch(self, before: Callable[[str], None]) -> None:
        from poker_therapist.sqlite import backend, backup
        from poker_therapist.sqlite.connect import open_connection

        def note(statement: str) -> None:
            # The last are SQLite's own, of the tables behind a PRAGMA.
            if not statement.lstrip().upper().startswith(("SELECT", "EXPLAIN", "PRAGMA", "--")):
                before(statement)

        def traced(location: SQLiteLocation) -> sqlite3.Connection:
            connection = open_connection(location)
            connection.set_trace_callback(note)
            return connection

        for module in (backend, backup):
            module.open_connection = traced  # type: ignore[attr-defined]  # the name that each has imported
