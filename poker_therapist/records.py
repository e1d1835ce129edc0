"""The records that the storage takes and returns: typed dicts.

Times are ISO 8601 strings in UTC, as stored; `poker_therapist.as_datetime` converts them to datetimes.
"""

from datetime import datetime
from typing import Any, NotRequired, TypedDict


class Pattern(TypedDict):
    """What Rex believes about a player."""

    id: int
    value: Any
    confidence: float
    created_at: str
    updated_at: str


class Context(TypedDict):
    """Something said in a conversation."""

    id: int
    key: str
    value: Any
    session_id: str | None
    created_at: str
    expires_at: str | None


class NewContext(TypedDict):
    """One item for `save_contexts`; the optional keys have the defaults of `save_context`."""

    key: str
    value: Any
    session_id: NotRequired[str | None]
    expires_minutes: NotRequired[float | None]
    created_at: NotRequired[datetime | None]


class Insight(TypedDict):
    """Something that Rex concluded; `data` is the same as `value`, under its name in 0.1.0."""

    id: int
    type: str
    value: Any
    data: Any
    importance: float
    created_at: str


class Recollection(TypedDict):
    """Everything that Rex needs for one prompt, and whether there are more rows than the limits."""

    patterns: dict[str, dict[str, Pattern]]
    context: list[Context]
    insights: list[Insight]
    more_context: bool
    more_insights: bool


class Export(TypedDict):
    """Everything that is stored about one player, each row with all of its columns."""

    user_id: int
    patterns: list[dict[str, Any]]
    context: list[dict[str, Any]]
    insights: list[dict[str, Any]]
    legacy_rows: list[dict[str, Any]]


class Counts(TypedDict):
    """The number of a player's rows in each table."""

    user_patterns: int
    conversation_context: int
    user_insights: int
    legacy_rows: int


class Forgotten(Counts):
    """The number of a player's rows that were deleted from each table."""
