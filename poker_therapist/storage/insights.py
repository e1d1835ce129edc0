"""The methods for insights: what Rex concluded, and how important it is."""

from datetime import datetime

from poker_therapist import values
from poker_therapist.records import Insight
from poker_therapist.storage.base import Base, insights
from poker_therapist.values import (
    JSON,
    check_key,
    check_limit,
    check_new_key,
    check_page,
    check_place,
    check_score,
    check_user,
)


class Insights(Base):
    """The part of `PatternStorage` that is about insights."""

    def save_insight(
        self,
        user_id: int,
        insight_type: str,
        insight_data: JSON,
        importance: float = 0.5,
        *,
        created_at: datetime | None = None,
    ) -> None:
        """Add something that Rex concluded.

        Args:
            user_id: the player.
            insight_type: the kind of insight, such as `advice`.
            insight_data: any value that JSON returns unchanged.
            importance: how important it is, from 0 to 1.
            created_at: when it was concluded, an aware datetime, for an import (default: now). Rows are
                sorted by id, in the order in which they were saved, so import the oldest first.
        """
        self._database.execute_later(
            "save_insight",
            (
                check_user(user_id),
                check_new_key("insight_type", insight_type),
                values.encode(insight_data),
                check_score("importance", importance),
                values.creation(created_at),
            ),
        )

    def get_insights(
        self,
        user_id: int,
        insight_type: str | None = None,
        min_importance: float = 0.0,
        limit: int | None = 50,
        *,
        before: int | Insight | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
    ) -> list[Insight]:
        """Return a player's insights, newest first (default limit: 50).

        For the next page pass `before=` the last insight of this one. Pages neither overlap nor skip insights
        while others save and delete, even if the last insight is deleted.

        Args:
            user_id: the player.
            insight_type: the type; None for all types.
            min_importance: the lowest importance to return, from 0 to 1.
            limit: the maximum number of insights; None for all.
            before: only insights that were saved before this one; an id or an insight.
            since: only insights that were created at this time or later; an aware datetime.
            until: only insights that were created before this time; an aware datetime.
        """
        least, most = check_score("min_importance", min_importance), check_limit("limit", limit)
        user, page = check_user(user_id), (least, *check_page(before, since, until, "importance"), most)
        if insight_type is None:
            return insights(self._database.fetch_all("get_insights", (user, *page)))
        kind = check_key("insight_type", insight_type)
        return insights(self._database.fetch_all("get_insights_of_type", (user, kind, *page)))

    def get_foremost_insights(
        self,
        user_id: int,
        *,
        min_importance: float = 0.0,
        limit: int | None = 50,
        before: Insight | None = None,
    ) -> list[Insight]:
        """Return a player's insights, the most important first (default limit: 50).

        Of equally important insights the newer come first, as in `recall`. For the next page pass `before=`
        the last insight of this one. Pages neither overlap nor skip insights while others save and delete,
        even if the last insight is deleted.

        Args:
            user_id: the player.
            min_importance: the lowest importance to return, from 0 to 1.
            limit: the maximum number of insights; None for all.
            before: only insights that follow this one in this order; an insight as returned, because an id
                has no importance.
        """
        least, most = check_score("min_importance", min_importance), check_limit("limit", limit)
        user, (importance, row) = check_user(user_id), check_place(before)
        if importance < least:
            return []
        place = (user, importance, row, user, importance, least, most)
        return insights(self._database.fetch_all("get_foremost_insights", place))

    def delete_insight(self, user_id: int, insight_id: int) -> bool:
        """Delete one insight; return whether the player had it.

        Args:
            user_id: the player.
            insight_id: its `id`, as `get_insights` and `recall` return it.
        """
        user, row = check_user(user_id), check_user(insight_id, "insight_id")
        return (
            self._delete(("delete_legacy_row", (user, "user_insights", row)), ("delete_insight", (user, row)))
            > 0
        )

    def clear_user_insights(self, user_id: int, insight_type: str | None = None) -> int:
        """Delete a player's insights; return the number of deleted insights.

        Args:
            user_id: the player.
            insight_type: the type; None for all types.
        """
        user = check_user(user_id)
        if insight_type is None:
            return self._delete(
                ("delete_legacy_rows_of_table", (user, "user_insights")), ("delete_user_insights", (user,))
            )
        kind = check_key("insight_type", insight_type)
        return self._delete(
            ("delete_legacy_rows_of_type", (user, user, kind)), ("delete_insights_of_type", (user, kind))
        )
