"""What the storage returns: plain dicts, typed. Times are ISO 8601 in UTC."""

from typing import Any, TypedDict


class Pattern(TypedDict):
    """What Rex believes about a player."""

    value: Any
    confidence: float
    created_at: str
    updated_at: str


class Context(TypedDict):
    """Something said in a conversation."""

    key: str
    value: Any
    session_id: str | None
    created_at: str
    expires_at: str | None


class Insight(TypedDict):
    """Something that Rex concluded."""

    type: str
    data: Any
    importance: float
    created_at: str


class Recollection(TypedDict):
    """Everything that Rex needs for one prompt."""

    patterns: dict[str, dict[str, Pattern]]
    context: list[Context]
    insights: list[Insight]


class Export(TypedDict):
    """Everything that is stored about one player, each row with all of its columns."""

    user_id: int
    patterns: list[dict[str, Any]]
    context: list[dict[str, Any]]
    insights: list[dict[str, Any]]
    legacy_rows: list[dict[str, Any]]


class Forgotten(TypedDict):
    """How many rows of one player were deleted from each table."""

    user_patterns: int
    conversation_context: int
    user_insights: int
    legacy_rows: int
