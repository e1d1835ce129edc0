"""What the app calls: one short method for each query, and never any SQL.

>>> with get_pattern_storage("RexVoice.db") as storage:
...     storage.save_pattern(7, "tilt", "after_bad_beat", {"bets_up": 1.8}, confidence=0.7)
...     storage.get_pattern(7, "tilt", "after_bad_beat")
{'bets_up': 1.8}
"""

import os
from collections.abc import Iterable
from contextlib import AbstractContextManager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, NoReturn, Self, cast

from poker_therapist import schema, values
from poker_therapist.database import Mode
from poker_therapist.errors import StorageError
from poker_therapist.location import OnConnect, locate
from poker_therapist.records import Context, Export, Forgotten, Insight, Pattern, Recollection
from poker_therapist.tables import TABLES, StoredTable
from poker_therapist.values import (
    JSON,
    check_key,
    check_limit,
    check_new_key,
    check_new_session,
    check_score,
    check_session,
    check_user,
)

_QUERIES = Path(__file__).with_name("queries.sql")

# One context save in so many also purges so many expired rows, so that purging keeps up at little cost.
_SAVES_PER_PURGE = 128
# A purge that was due inside a transaction() is tried again at one save in so many.
_SAVES_PER_LOOK = 8
_ROWS_PER_PURGE = 512
_ROWS_PER_BIG_PURGE = 1_000


class PatternStorage:
    """A player's patterns, context and insights, in a database that is brought up to date when it is opened.

    May be used by any number of threads and processes at once, and after a fork. Each method but those that
    read is committed when it returns, unless it stands in a `transaction()`.

    Every method raises InvalidInput, before anything is written, for an argument that cannot be stored: a
    `user_id` that is no integer of 64 bits; a key, type or session that is no text, is empty, longer than 255
    characters or holds NUL; a confidence or importance outside 0 to 1; a value that JSON cannot give back
    equal. Every method raises StorageError, by its subclasses, where the database fails, and then nothing was
    changed.
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
            db_path: a path, or a URL such as `sqlite:////path/to.db?synchronous=FULL&timeout=5`.
                `synchronous` is NORMAL (survives a crash of the app) or FULL (also survives a power failure);
                `timeout` is how many seconds to wait for a lock, 30 unless given. Or a URL of PostgreSQL, as
                `postgresql://user@host/database?timeout=5&connections=20&sslmode=require`: `connections` is
                how many to open at most, 10 unless given, `schema` where the tables are, and all else is
                libpq's.
            migrate: whether to apply pending migrations; if not, an outdated or missing database is an error.
            on_connect: called with each new `sqlite3.Connection` or `psycopg.Connection`, so that the app can
                register what its own tables need: collations, functions, extensions.

        Raises:
            InvalidInput: `db_path` is neither a path nor a URL that can be used.
            StorageError: the database cannot be opened; its subclasses say why.
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
        self._context_saves = 0
        self._latest = datetime.min.replace(tzinfo=UTC)
        # Whose expired context is to be purged, outside of any block.
        self._to_purge: int | None = None

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

    def save_pattern(
        self, user_id: int, pattern_type: str, pattern_key: str, pattern_value: JSON, confidence: float = 1.0
    ) -> None:
        """Save a pattern, in the place of the one with the same type and key if there is one."""
        now = values.timestamp(values.now())
        self._database.execute_later(
            "save_pattern",
            (
                check_user(user_id),
                check_new_key("pattern_type", pattern_type),
                check_new_key("pattern_key", pattern_key),
                values.encode(pattern_value),
                check_score("confidence", confidence),
                now,
                now,
            ),
        )

    def get_pattern(self, user_id: int, pattern_type: str, pattern_key: str, default: Any = None) -> Any:
        """Return the value of a pattern, `default` if there is none."""
        row = self._database.fetch_one(
            "get_pattern",
            (
                check_user(user_id),
                check_key("pattern_type", pattern_type),
                check_key("pattern_key", pattern_key),
            ),
        )
        return default if row is None else values.decode(row[0])

    def get_patterns_by_type(self, user_id: int, pattern_type: str) -> dict[str, Pattern]:
        """Return a player's patterns of one type by their keys, last updated first."""
        rows = self._database.fetch_all(
            "get_patterns_by_type", (check_user(user_id), check_key("pattern_type", pattern_type))
        )
        return {row[0]: _pattern(row[1:], value) for row, value in _with_values(rows, 1)}

    def save_context(
        self,
        user_id: int,
        context_key: str,
        context_value: JSON,
        session_id: str | None = None,
        expires_minutes: float | None = None,
    ) -> None:
        """Add something said in a conversation.

        It is not seen any more after `expires_minutes`: None and zero never expire, less than zero already
        has. Expiry goes by the clock, which does not go back for an open storage: what has expired stays so.
        """
        now = values.now()
        row = (
            check_user(user_id),
            check_new_key("context_key", context_key),
            values.encode(context_value),
            check_new_session(session_id),
            values.timestamp(now),
            None if expires_minutes is None else values.expiry(max(now, self._latest), expires_minutes),
        )
        if self._context_saves % _SAVES_PER_PURGE == 0:
            self._to_purge = row[0]
        # A block sees its snapshot: if it purged what others have purged since, it would fail.
        if self._to_purge is None or self._context_saves % _SAVES_PER_LOOK or self._database.in_transaction:
            self._database.execute_later("save_context", row)
        else:
            with self._database.transaction(Mode.WRITE):
                self._purge_a_part(row[0])
                self._database.execute_later("save_context", row)
            self._to_purge = None
        self._context_saves += 1

    def _now(self) -> datetime:
        """Return the time that expiry is compared with: the clock's, but never earlier than it was before.

        So nothing that has been reported as expired comes back when the clock is set back.
        """
        self._latest = now = max(values.now(), self._latest)
        return now

    def _purge_a_part(self, user: int) -> None:
        now = values.timestamp(self._now())
        self._database.execute_later("purge_expired", (user, user, now, _ROWS_PER_PURGE))

    def get_context(
        self, user_id: int, context_key: str, session_id: str | None = None, limit: int | None = None
    ) -> list[Any]:
        """Return the live values of a key, newest first: of one session, or of all if it is None."""
        now, most = values.timestamp(self._now()), check_limit("limit", limit)
        session = check_session(session_id)
        if session is None:
            rows = self._database.fetch_all(
                "get_context",
                (check_user(user_id), check_key("context_key", context_key), now, most),
            )
        else:
            rows = self._database.fetch_all(
                "get_context_of_session",
                (
                    check_user(user_id),
                    check_key("context_key", context_key),
                    session,
                    now,
                    most,
                ),
            )
        return values.decode_all([text for (text,) in rows])

    def save_insight(
        self, user_id: int, insight_type: str, insight_data: JSON, importance: float = 0.5
    ) -> None:
        """Add something that Rex concluded."""
        self._database.execute_later(
            "save_insight",
            (
                check_user(user_id),
                check_new_key("insight_type", insight_type),
                values.encode(insight_data),
                check_score("importance", importance),
                values.timestamp(values.now()),
            ),
        )

    def get_insights(
        self,
        user_id: int,
        insight_type: str | None = None,
        min_importance: float = 0.0,
        limit: int | None = 50,
    ) -> list[Insight]:
        """Return a player's insights of one type, or of all, that are at least so important, newest first."""
        least, most = check_score("min_importance", min_importance), check_limit("limit", limit)
        if insight_type is None:
            rows = self._database.fetch_all("get_insights", (check_user(user_id), least, most))
        else:
            rows = self._database.fetch_all(
                "get_insights_of_type",
                (check_user(user_id), check_key("insight_type", insight_type), least, most),
            )
        return _insights(rows)

    def recall(
        self,
        user_id: int,
        session_id: str | None = None,
        *,
        context_limit: int | None = 20,
        insight_limit: int | None = 10,
    ) -> Recollection:
        """Return everything that Rex needs for one prompt, as of one moment.

        That is all patterns, by type and key, of each type the last updated first; the newest live context of
        one session, or of all if it is None; and the insights that matter most.
        """
        user, session = check_user(user_id), check_session(session_id)
        context_most, insight_most = (
            check_limit("context_limit", context_limit),
            check_limit("insight_limit", insight_limit),
        )
        now = values.timestamp(self._now())
        context_call = (
            ("recall_context", (user, now, context_most))
            if session is None
            else ("recall_context_of_session", (user, session, now, context_most))
        )
        pattern_rows, context_rows, insight_rows = self._database.fetch_together(
            [("recall_patterns", (user,)), context_call, ("recall_insights", (user, insight_most))]
        )
        patterns: dict[str, dict[str, Pattern]] = {}
        for row, value in _with_values(pattern_rows, 2):
            patterns.setdefault(row[0], {})[row[1]] = _pattern(row[2:], value)
        context: list[Context] = [
            {"key": row[0], "value": value, "session_id": row[2], "created_at": row[3], "expires_at": row[4]}
            for row, value in _with_values(context_rows, 1)
        ]
        return {"patterns": patterns, "context": context, "insights": _insights(insight_rows)}

    def clear_user_patterns(self, user_id: int) -> int:
        """Delete all patterns of a player; return how many there were."""
        user = check_user(user_id)
        with self._database.transaction(Mode.WRITE):
            self._database.execute("delete_legacy_rows_of_table", (user, "user_patterns"))
            return self._database.execute("delete_user_patterns", (user,))

    def clear_user_context(self, user_id: int, session_id: str | None = None) -> int:
        """Delete a player's context of one session, or of all if it is None; return how much there was."""
        user, session = check_user(user_id), check_session(session_id)
        with self._database.transaction(Mode.WRITE):
            if session is None:
                self._database.execute("delete_legacy_rows_of_table", (user, "conversation_context"))
                return self._database.execute("delete_conversation_context", (user,))
            self._database.execute("delete_legacy_rows_of_session", (user, session))
            return self._database.execute("delete_context_of_session", (user, session))

    def purge_expired(self) -> int:
        """Delete the expired context of all players, a part at a time; return how much there was.

        On PostgreSQL what another session is deleting at that moment is left to it.
        """
        now, purged, next_player = values.timestamp(self._now()), 0, -(2**63)
        while found := self._database.fetch_one("next_player_with_expired", (next_player, now)):
            player: int = found[0]
            while deleted := self._database.execute(
                "purge_expired", (player, player, now, _ROWS_PER_BIG_PURGE)
            ):
                purged += deleted
            if player == 2**63 - 1:
                break
            next_player = player + 1
        return purged

    def export_user(self, user_id: int) -> Export:
        """Return everything that Rex remembers of a player, in an order that stays the same."""
        user = check_user(user_id)
        found = self._database.fetch_together([(f"export_{table.name}", (user,)) for table in TABLES])
        exported = {
            table.exported_as: self._exported(table, rows) for table, rows in zip(TABLES, found, strict=True)
        }
        return cast(Export, {"user_id": user, **exported})

    def forget_user(self, user_id: int) -> Forgotten:
        """Delete everything that Rex remembers of a player, and every trace of it in the file and its log.

        The pages of the file are written anew for that, which takes time and free room in proportion to its
        size. No row of anybody else's changes. What the app has copied to tables of its own is not reached,
        nor are backups and exports made before.

        Raises:
            StorageError: called inside `transaction()`, where the log cannot be emptied; nothing was deleted.
            DatabaseBusy: everything is deleted, but another connection kept reading an older state from the
                log; calling it again erases the rest.
        """
        (forgotten,) = self.forget_users([user_id]).values()
        return forgotten

    def forget_users(self, user_ids: Iterable[int]) -> dict[int, Forgotten]:
        """Forget several players, at the cost of one; return how many rows there were, by player.

        All of them are deleted, or none. Otherwise it is as `forget_user`.
        """
        users = [check_user(user) for user in user_ids]
        if self._database.in_transaction:
            raise StorageError("forget_user() cannot be part of a transaction(): call it after the block")
        with self._database.transaction(Mode.WRITE):
            forgotten = {user: self._delete_all(user) for user in dict.fromkeys(users)}
        if users:
            self._database.scrub_deleted()
        return forgotten

    def _delete_all(self, user: int) -> Forgotten:
        counts = {table.name: self._database.execute(f"delete_{table.name}", (user,)) for table in TABLES}
        return cast(Forgotten, counts)

    def transaction(self) -> AbstractContextManager[None]:
        """Make a block all or nothing: one commit at its end, or none of it when it raises.

        It holds the write lock from its start, so keep it short. A block inside a block is rolled back by
        itself when it raises, and is kept only if the outer one is. PostgreSQL is sent its saves many at a
        time, so what the server refuses of them may be raised by a later call in the block, or at its end.

        The block belongs to the thread and the asyncio task that began it. Another task that uses the storage
        in the same thread meanwhile gets a StorageError, and nothing is done: end the block before its task
        awaits, or run it in a worker thread. A block that another thread or task ends is rolled back, and
        that is a StorageError too.
        """
        user = self._to_purge
        if user is not None and not self._database.in_transaction:
            self._to_purge = None
            self._purge_a_part(user)
        return self._database.transaction(Mode.READ_THEN_WRITE)

    def close(self) -> None:
        """Close the connections of all threads; a second time does nothing."""
        self._database.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _exported(self, table: StoredTable, rows: list[Any]) -> list[dict[str, Any]]:
        exported = [dict(zip(table.exported_columns, row, strict=True)) for row in rows]
        for row in exported:
            for name, stored in row.items():
                if table.any_type:
                    row[name] = self._database.decode_legacy(name, stored)
                elif name == "value":
                    row[name] = values.decode(stored)
        return exported


def get_pattern_storage(
    db_path: str | os.PathLike[str] = "RexVoice.db",
    *,
    migrate: bool = True,
    on_connect: OnConnect | None = None,
) -> PatternStorage:
    """Open a storage: the same call as `PatternStorage`."""
    return PatternStorage(db_path, migrate=migrate, on_connect=on_connect)


def _with_values(rows: list[Any], column: int) -> Iterable[tuple[Any, Any]]:
    """Return each row with the decoded value of one of its columns."""
    return zip(rows, values.decode_all([row[column] for row in rows]), strict=True)


def _pattern(row: Any, value: Any) -> Pattern:
    return {"value": value, "confidence": row[1], "created_at": row[2], "updated_at": row[3]}


def _insights(rows: list[Any]) -> list[Insight]:
    return [
        {"type": row[0], "data": value, "importance": row[2], "created_at": row[3]}
        for row, value in _with_values(rows, 1)
    ]
