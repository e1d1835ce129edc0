"""The methods for patterns: what Rex believes about a player, each with a type and a key."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from poker_therapist import values
from poker_therapist.errors import InvalidInput
from poker_therapist.records import Pattern
from poker_therapist.storage.base import Base, checked, pattern, with_values
from poker_therapist.values import JSON, check_key, check_new_key, check_page, check_score, check_user


class Patterns(Base):
    """The part of `PatternStorage` that is about patterns."""

    def save_pattern(
        self, user_id: int, pattern_type: str, pattern_key: str, pattern_value: JSON, confidence: float = 1.0
    ) -> None:
        """Save a pattern; it replaces the one with the same type and key.

        Args:
            user_id: the player.
            pattern_type: the kind of pattern, such as `tilt`.
            pattern_key: the subject, such as `after_bad_beat`.
            pattern_value: any value that JSON returns unchanged.
            confidence: how sure Rex is, from 0 to 1.
        """
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

    def save_patterns(
        self, user_id: int, pattern_type: str, patterns: Mapping[str, JSON], confidence: float = 1.0
    ) -> None:
        """Save many patterns of one type: all of them, or none. An empty mapping writes nothing.

        Args:
            user_id: the player.
            pattern_type: the type of all patterns.
            patterns: a dict of keys and values.
            confidence: how sure Rex is of each, from 0 to 1.

        Raises:
            InvalidInput: one pattern cannot be stored; the message says which, and none was written.
        """
        user, kind = check_user(user_id), check_new_key("pattern_type", pattern_type)
        sure, now = check_score("confidence", confidence), values.timestamp(values.now())
        if not isinstance(patterns, Mapping):
            raise InvalidInput(f"patterns must be a dict of keys and values (got {type(patterns).__name__})")
        rows = checked(
            patterns.items(),
            lambda item: (
                user,
                kind,
                check_new_key("pattern_key", item[0]),
                values.encode(item[1]),
                sure,
                now,
                now,
            ),
            lambda _, item: f"pattern {values.show(item[0])}",
        )
        if rows:  # a mapping of another library may name a key twice: the last one counts
            self._database.execute_many("save_pattern", list({row[2]: row for row in rows}.values()))

    def get_pattern(self, user_id: int, pattern_type: str, pattern_key: str, default: Any = None) -> Any:
        """Return the value of a pattern, `default` if there is none.

        Args:
            user_id: the player.
            pattern_type: the pattern's type.
            pattern_key: its key.
            default: what to return if there is none (default: None).
        """
        row = self._database.fetch_one(
            "get_pattern",
            (
                check_user(user_id),
                check_key("pattern_type", pattern_type),
                check_key("pattern_key", pattern_key),
            ),
        )
        return default if row is None else values.decode(row[0])

    def get_pattern_record(self, user_id: int, pattern_type: str, pattern_key: str) -> Pattern | None:
        """Return a pattern with its id, confidence and times, None if there is none.

        Args:
            user_id: the player.
            pattern_type: the pattern's type.
            pattern_key: its key.
        """
        row = self._database.fetch_one("get_pattern_record", _place(user_id, pattern_type, pattern_key))
        return None if row is None else pattern(row, values.decode(row[1]))

    def get_patterns_by_type(
        self,
        user_id: int,
        pattern_type: str,
        *,
        min_confidence: float = 0.0,
        since: datetime | None = None,
        until: datetime | None = None,
    ) -> dict[str, Pattern]:
        """Return all of a player's patterns of one type by their keys, last updated first.

        Args:
            user_id: the player.
            pattern_type: their type.
            min_confidence: the lowest confidence to return, from 0 to 1.
            since: only patterns that were updated at this time or later; an aware datetime.
            until: only patterns that were updated before this time; an aware datetime.
        """
        user, kind = check_user(user_id), check_key("pattern_type", pattern_type)
        least, (_, *times) = check_score("min_confidence", min_confidence), check_page(None, since, until)
        rows = self._database.fetch_all("get_patterns_by_type", (user, kind, least, *times))
        return {row[0]: pattern(row[1:], value) for row, value in with_values(rows, 2)}

    def list_pattern_types(self, user_id: int) -> list[str]:
        """Return all types of a player's patterns, sorted by code point."""
        return [kind for (kind,) in self._database.fetch_all("list_pattern_types", (check_user(user_id),))]

    def set_confidence(self, user_id: int, pattern_type: str, pattern_key: str, confidence: float) -> bool:
        """Change the confidence of a pattern; return whether there is such a pattern.

        Its value and its `updated_at` stay: that is the time when the value was saved, by which patterns are
        sorted.

        Args:
            user_id: the player.
            pattern_type: the pattern's type.
            pattern_key: its key.
            confidence: the new confidence, from 0 to 1.
        """
        place, sure = _place(user_id, pattern_type, pattern_key), check_score("confidence", confidence)
        return self._database.execute("set_confidence", (*place, sure, place[0])) > 0

    def delete_pattern(self, user_id: int, pattern_type: str, pattern_key: str) -> bool:
        """Delete one pattern; return whether there was one.

        Args:
            user_id: the player.
            pattern_type: the pattern's type.
            pattern_key: its key.
        """
        place = _place(user_id, pattern_type, pattern_key)
        return (
            self._delete(("delete_legacy_row_of_pattern", (place[0], *place)), ("delete_pattern", place)) > 0
        )

    def clear_user_patterns(self, user_id: int) -> int:
        """Delete all patterns of a player; return the number of deleted patterns."""
        user = check_user(user_id)
        return self._delete(
            ("delete_legacy_rows_of_table", (user, "user_patterns")), ("delete_user_patterns", (user,))
        )


def _place(user_id: int, pattern_type: str, pattern_key: str) -> tuple[int, str, str]:
    return (
        check_user(user_id),
        check_key("pattern_type", pattern_type),
        check_key("pattern_key", pattern_key),
    )
