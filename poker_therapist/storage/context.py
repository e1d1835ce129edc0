"""The methods for context: what was said in conversations, and when it expires."""

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

from poker_therapist import values
from poker_therapist.database import Mode
from poker_therapist.errors import InvalidInput
from poker_therapist.records import Context, NewContext
from poker_therapist.storage.base import Base, checked, with_values
from poker_therapist.values import (
    JSON,
    check_key,
    check_limit,
    check_new_key,
    check_new_session,
    check_page,
    check_session,
    check_user,
)

# One context save in so many also purges so many expired rows, so that purging keeps up at little cost.
_SAVES_PER_PURGE = 128
# A purge that was due inside a transaction() is tried again at one save in so many.
_SAVES_PER_LOOK = 8
_ROWS_PER_PURGE = 512
_ROWS_PER_BIG_PURGE = 1_000


class ContextItems(Base):
    """The part of `PatternStorage` that is about context."""

    _context_saves = 0
    # Whose expired context is to be purged, outside of any block.
    _to_purge: int | None = None

    def save_context(
        self,
        user_id: int,
        context_key: str,
        context_value: JSON,
        session_id: str | None = None,
        expires_minutes: float | None = None,
        *,
        created_at: datetime | None = None,
    ) -> None:
        """Add something that was said in a conversation.

        It expires after `expires_minutes` and is then not returned any more. None and 0 never expire; a
        negative number has already expired. For an open storage the clock does not go back: an expired item
        stays expired.

        Args:
            user_id: the player.
            context_key: the subject, such as `mood`.
            context_value: any value that JSON returns unchanged.
            session_id: the conversation; None or "" for none.
            expires_minutes: the number of minutes from now until it expires.
            created_at: when it was said, an aware datetime, for an import (default: now). Rows are sorted by
                id, in the order in which they were saved, so import the oldest first.
        """
        now = values.now()
        row = (
            check_user(user_id),
            check_new_key("context_key", context_key),
            values.encode(context_value),
            check_new_session(session_id),
            values.timestamp(now) if created_at is None else values.creation(created_at),
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

    def save_contexts(self, user_id: int, items: Iterable[NewContext]) -> list[int]:
        """Add many context items: all of them, or none. An empty list writes nothing.

        Args:
            user_id: the player.
            items: dicts with `key` and `value`, and optionally `session_id`, `expires_minutes` and
                `created_at`, as in `save_context`.

        Returns:
            their ids, in the order of the items.

        Raises:
            InvalidInput: one item cannot be stored; the message says which, and none was written.
        """
        user, now = check_user(user_id), values.now()
        created, latest = values.timestamp(now), max(now, self._latest)
        rows = checked(items, lambda item: _row(user, item, created, latest))
        if not rows:
            return []
        if -self._context_saves % _SAVES_PER_PURGE < len(rows):
            self._to_purge = user
        if self._to_purge is not None and not self._database.in_transaction:
            self._purge_a_part(user, len(rows))
            self._to_purge = None
        ids = self._database.execute_many("save_context", rows)
        self._context_saves += len(rows)
        return list(ids)

    def _purge_a_part(self, user: int, saves: int = 0) -> None:
        """Purge so much for a player that it keeps up with the saves."""
        rows = max(_ROWS_PER_PURGE, saves * _ROWS_PER_PURGE // _SAVES_PER_PURGE)
        self._database.execute_later("purge_expired", (user, user, values.timestamp(self._now()), rows))

    def _purge_what_is_due(self) -> None:
        """Purge what could not be purged inside a block, unless this is inside one."""
        user = self._to_purge
        if user is not None and not self._database.in_transaction:
            self._to_purge = None
            self._purge_a_part(user)

    def get_context(
        self, user_id: int, context_key: str, session_id: str | None = None, limit: int | None = None
    ) -> list[Any]:
        """Return the values of a key that have not expired, newest first.

        Args:
            user_id: the player.
            context_key: the subject.
            session_id: the session; None for all sessions.
            limit: the maximum number of values; None for all.
        """
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

    def get_context_items(
        self,
        user_id: int,
        context_key: str | None = None,
        session_id: str | None = None,
        *,
        limit: int | None = 50,
        before: int | Context | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
    ) -> list[Context]:
        """Return context that has not expired, with ids and times, newest first (default limit: 50).

        For the next page pass `before=` the last item of this one. Pages neither overlap nor skip items while
        others save and delete, even if the last item is deleted.

        Args:
            user_id: the player.
            context_key: the key; None for all keys.
            session_id: the session; None for all sessions.
            limit: the maximum number of items; None for all.
            before: only items that were saved before this one; an id or an item.
            since: only items that were created at this time or later; an aware datetime.
            until: only items that were created before this time; an aware datetime.
        """
        most, page = check_limit("limit", limit), check_page(before, since, until, "expires_at")
        query, which = self._items_query(user_id, context_key, session_id)
        return items(self._database.fetch_all(query, (*which, *page, most)))

    def _items_query(
        self, user_id: int, context_key: str | None, session_id: str | None
    ) -> tuple[str, tuple[Any, ...]]:
        """Return the query for some items, and its values up to the page."""
        user, session, now = check_user(user_id), check_session(session_id), values.timestamp(self._now())
        key = None if context_key is None else check_key("context_key", context_key)
        if key is None and session is None:
            return "context_items", (user, now)
        if session is None:
            return "context_items_of_key", (user, key, now)
        if key is None:
            return "context_items_of_session", (user, session, now)
        return "context_items_of_key_and_session", (user, key, session, now)

    def list_sessions(self, user_id: int) -> list[str]:
        """Return all sessions of a player with context that has not expired, the newest session first."""
        now = values.timestamp(self._now())
        return [found for (found,) in self._database.fetch_all("list_sessions", (check_user(user_id), now))]

    def delete_context(self, user_id: int, context_id: int) -> bool:
        """Delete one item, expired or not; return whether the player had it.

        Args:
            user_id: the player.
            context_id: its `id`, as `get_context_items` and `recall` return it.
        """
        user, row = check_user(user_id), check_user(context_id, "context_id")
        return (
            self._delete(
                ("delete_legacy_row", (user, "conversation_context", row)), ("delete_context", (user, row))
            )
            > 0
        )

    def clear_user_context(self, user_id: int, session_id: str | None = None) -> int:
        """Delete a player's context; return the number of deleted items.

        Args:
            user_id: the player.
            session_id: the session; None or "" for all sessions.
        """
        user, session = check_user(user_id), check_session(session_id)
        if session is None:
            return self._delete(
                ("delete_legacy_rows_of_table", (user, "conversation_context")),
                ("delete_conversation_context", (user,)),
            )
        return self._delete(
            ("delete_legacy_rows_of_session", (user, session)), ("delete_context_of_session", (user, session))
        )

    def purge_expired(self) -> int:
        """Delete the expired context of all players in batches; return the number of deleted items.

        On PostgreSQL rows that another session is deleting concurrently are skipped.
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


def items(rows: list[Any]) -> list[Context]:
    """Return the records of rows."""
    return [
        {
            "id": row[0],
            "key": row[1],
            "value": value,
            "session_id": row[3],
            "created_at": row[4],
            "expires_at": row[5],
        }
        for row, value in with_values(rows, 2)
    ]


_FIELDS = frozenset({"key", "value", "session_id", "expires_minutes", "created_at"})


def _row(user: int, item: NewContext, now: str, latest: datetime) -> tuple[Any, ...]:
    """Return the values with which `save_context` saves an item."""
    if not isinstance(item, Mapping) or not {"key", "value"} <= item.keys() <= _FIELDS:
        raise InvalidInput(
            "it must be a dict with key and value (optional: session_id, expires_minutes, created_at)"
        )
    minutes, created = item.get("expires_minutes"), item.get("created_at")
    return (
        user,
        check_new_key("key", item["key"]),
        values.encode(item["value"]),
        check_new_session(item.get("session_id")),
        now if created is None else values.creation(created),
        None if minutes is None else values.expiry(latest, minutes),
    )
