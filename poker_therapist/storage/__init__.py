"""The storage that the app calls: one short method for each query, no SQL.

>>> with get_pattern_storage("RexVoice.db") as storage:
...     storage.save_pattern(7, "tilt", "after_bad_beat", {"bets_up": 1.8}, confidence=0.7)
...     storage.get_pattern(7, "tilt", "after_bad_beat")
{'bets_up': 1.8}
"""

import os
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import NoReturn, Self

from poker_therapist import schema
from poker_therapist.database import Mode
from poker_therapist.location import OnConnect, locate
from poker_therapist.storage.insights import Insights
from poker_therapist.storage.patterns import Patterns
from poker_therapist.storage.players import Players

_QUERIES = Path(__file__).parents[1] / "queries.sql"


class PatternStorage(Patterns, Insights, Players):
    """A player's patterns, context and insights, in a database whose schema is migrated when it is opened.

    Any number of threads and processes may use it concurrently, also after a fork. A method that writes
    commits before it returns, unless it is called inside a `transaction()`.

    Every method raises InvalidInput, before anything is written, for an argument that cannot be stored: a
    `user_id` that is not an integer of at most 64 bits; a key, type or session that is not a string, is
    empty, is longer than 255 characters or contains NUL; a confidence or importance outside 0 to 1; a value
    that JSON cannot return unchanged. Every method raises a subclass of StorageError if the database fails;
    then nothing was changed.
    """

    def __init__(
        self,
        db_path: str | os.PathLike[str] = "RexVoice.db",
        *,
        migrate: bool = True,
        on_connect: OnConnect | None = None,
    ) -> None:
        """Open a database, create it if it does not exist, and bring its schema up to date.

        Args:
            db_path: a path, or a URL such as `sqlite:////path/to.db?synchronous=FULL&timeout=5`:
                `synchronous` is NORMAL (survives a crash of the app) or FULL (also survives a power failure),
                and `timeout` is the number of seconds to wait for a lock (default 30). For PostgreSQL a URL
                such as `postgresql://user@host/database?timeout=5&connections=20&sslmode=require`:
                `connections` is the maximum number of connections (default 10), `schema` is the schema of the
                tables, and all other options are libpq's. With `slow_ms=50`, both engines log statements that
                take 50 milliseconds or longer.
            migrate: whether to apply pending migrations; if not, an outdated or missing database is an error.
            on_connect: called with each new `sqlite3.Connection` or `psycopg.Connection`, so that the app can
                register what its own tables need: collations, functions, extensions.

        Raises:
            InvalidInput: `db_path` is not a valid path or URL.
            StorageError: the database cannot be opened; the subclass says why.
            MigrationError: a migration failed, or the database is newer than this version of the code.
        """
        self._database = schema.open_current(
            replace(locate(db_path), on_connect=on_connect), [_QUERIES], migrate=migrate
        )
        try:
            self._database.enable_writes()
        except BaseException:
            self._database.close()
            raise

    @property
    def db_path(self) -> Path | str:
        """The path of the file as it was given, or the URL of the server's database without a password."""
        return self._database.location.db_path

    def __repr__(self) -> str:
        return f"PatternStorage({str(self.db_path)!r})"

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            "a PatternStorage cannot be pickled: its connections belong to this process. Pass its db_path "
            "to the other process, and open it there"
        )

    def transaction(self) -> AbstractContextManager[None]:
        """Run a `with` block as one transaction: it commits at its end, and is rolled back when it raises.

        On SQLite it holds the write lock from its start, so keep it short. A block inside a block is a
        savepoint: it is rolled back alone when it raises, and is kept only if the outer block commits.
        On PostgreSQL saves are sent in batches, so an error of the server may be raised by a later call in
        the block, or at its end.

        The transaction belongs to the thread and the asyncio task that began it. If another task uses the
        storage in the same thread before the end of the block, it gets a StorageError and nothing is done:
        end the block before its task awaits, or run it in a worker thread. If another thread or task ends
        the block, it is rolled back with a StorageError.
        """
        self._purge_what_is_due()
        return self._database.transaction(Mode.READ_THEN_WRITE)

    def close(self) -> None:
        """Close the connections of all threads; a second call does nothing."""
        self._database.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def get_pattern_storage(
    db_path: str | os.PathLike[str] = "RexVoice.db",
    *,
    migrate: bool = True,
    on_connect: OnConnect | None = None,
) -> PatternStorage:
    """Open a storage: the same call as `PatternStorage`."""
    return PatternStorage(db_path, migrate=migrate, on_connect=on_connect)
