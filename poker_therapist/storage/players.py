"""The methods about all that is stored of a player, and of which players something is stored."""

from collections.abc import Iterable
from typing import Any, cast

from poker_therapist import values
from poker_therapist.database import Mode
from poker_therapist.errors import StorageError
from poker_therapist.records import Counts, Export, Forgotten, Pattern, Recollection
from poker_therapist.storage.base import insights, pattern, require_items, with_values
from poker_therapist.storage.context import ContextItems, items
from poker_therapist.tables import LEGACY_ROWS, TABLES, StoredTable
from poker_therapist.values import check_limit, check_page, check_place, check_score, check_user

_MOST = 2**63 - 1


class Players(ContextItems):
    """The part of `PatternStorage` that is about whole players."""

    def recall(
        self,
        user_id: int,
        session_id: str | None = None,
        *,
        context_limit: int | None = 20,
        insight_limit: int | None = 10,
        min_confidence: float = 0.0,
        min_importance: float = 0.0,
    ) -> Recollection:
        """Return everything that Rex needs for one prompt, as of one moment.

        That is all patterns, by type and key, of each type the last updated first; the newest live context of
        one session, or of all if it is None; and the insights that matter most. `more_context` and
        `more_insights` say whether there is more than the limits let in; `get_context_items` and
        `get_foremost_insights` return it, `before=` the last item that is here.

        Args:
            user_id: the player.
            session_id: whose context to return; of all sessions if it is None.
            context_limit: how many items of context at most, 20 unless given; None for all.
            insight_limit: how many insights at most, 10 unless given; None for all.
            min_confidence: how sure Rex must be of a pattern, from 0 to 1.
            min_importance: how much an insight must matter, from 0 to 1.
        """
        context_most = check_limit("context_limit", context_limit)
        insight_most = check_limit("insight_limit", insight_limit)
        sure, least = (
            check_score("min_confidence", min_confidence),
            check_score("min_importance", min_importance),
        )
        query, which = self._items_query(user_id, None, session_id)
        user, (start, before) = which[0], check_place(None)
        # One more of each, to see whether there is more.
        pattern_rows, context_rows, insight_rows = self._database.fetch_together(
            [
                ("recall_patterns", (user, sure)),
                (query, (*which, *check_page(None, None, None), min(context_most, _MOST - 1) + 1)),
                (
                    "get_foremost_insights",
                    (user, start, before, user, start, least, min(insight_most, _MOST - 1) + 1),
                ),
            ]
        )
        patterns: dict[str, dict[str, Pattern]] = {}
        for row, value in with_values(pattern_rows, 3):
            patterns.setdefault(row[0], {})[row[1]] = pattern(row[2:], value)
        return {
            "patterns": patterns,
            "context": items(context_rows[:context_most]),
            "insights": insights(insight_rows[:insight_most]),
            "more_context": len(context_rows) > context_most,
            "more_insights": len(insight_rows) > insight_most,
        }

    def list_users(self, *, after: int | None = None, limit: int | None = None) -> list[int]:
        """Return the players of whom anything is stored, by number: all of them unless `limit` is given.

        What has expired and is not deleted yet counts, too. This alone, with `purge_expired`, asks every
        node of a cluster.

        Args:
            after: only players with a higher number; the next page is `after=` the last one of this.
            limit: how many at most; None for all.
        """
        first = -(2**63) if after is None else check_user(after, "after") + 1
        most = check_limit("limit", limit)
        if first > _MOST:
            return []
        found = self._database.fetch_together(
            [
                (
                    f"users_of_{table.name}",
                    (first, _MOST, most) if table is LEGACY_ROWS else (first, most),
                )
                for table in TABLES
            ]
        )
        return sorted({int(user) for rows in found for (user,) in rows})[:most]

    def count(self, user_id: int) -> Counts:
        """Return how many rows of a player each table has, as of one moment.

        What has expired and is not deleted yet counts, too.
        """
        user = check_user(user_id)
        found = self._database.fetch_together([(f"count_{table.name}", (user,)) for table in TABLES])
        return cast(Counts, {table.name: rows[0][0] for table, rows in zip(TABLES, found, strict=True)})

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
        (forgotten,) = self._forget([check_user(user_id)], "forget_user").values()
        return forgotten

    def forget_users(self, user_ids: Iterable[int]) -> dict[int, Forgotten]:
        """Forget several players, at the cost of one; return how many rows there were, by player.

        All of them are deleted, or none. Otherwise it is as `forget_user`.
        """
        require_items("user_ids", "players", user_ids)
        return self._forget([check_user(user) for user in user_ids], "forget_users")

    def _forget(self, users: list[int], method: str) -> dict[int, Forgotten]:
        if self._database.in_transaction:
            raise StorageError(f"{method}() cannot be part of a transaction(): call it after the block")
        with self._database.transaction(Mode.WRITE):
            self._database.lock_players(set(users))
            forgotten = {user: self._delete_all(user) for user in dict.fromkeys(users)}
        if users:
            self._database.scrub_deleted()
        return forgotten

    def _delete_all(self, user: int) -> Forgotten:
        counts = {table.name: self._database.execute(f"delete_{table.name}", (user,)) for table in TABLES}
        return cast(Forgotten, counts)

    def _exported(self, table: StoredTable, rows: list[Any]) -> list[dict[str, Any]]:
        exported = [dict(zip(table.exported_columns, row, strict=True)) for row in rows]
        for row in exported:
            for name, stored in row.items():
                if table.any_type:
                    row[name] = self._database.decode_legacy(name, stored)
                elif name == "value":
                    row[name] = values.decode(stored)
        return exported
