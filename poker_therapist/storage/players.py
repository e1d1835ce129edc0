"""The methods for whole players: everything stored about one, and which players are stored."""

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
        """Return everything that Rex needs for one prompt, from one snapshot.

        The result has all patterns by type and key, the last updated of each type first; the newest context
        that has not expired, of one session or of all; and the most important insights. `more_context` and
        `more_insights` are true if there are more rows than the limits. To read those, call
        `get_context_items` or `get_foremost_insights` with `before=` the last item of this result.

        Args:
            user_id: the player.
            session_id: the session of the context; None for all sessions.
            context_limit: the maximum number of context items (default 20); None for all.
            insight_limit: the maximum number of insights (default 10); None for all.
            min_confidence: the lowest confidence of patterns to return, from 0 to 1.
            min_importance: the lowest importance of insights to return, from 0 to 1.
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
        """Return the ids of all players with stored rows, in ascending order.

        Expired context counts until it is purged. On a Citus cluster only this method and `purge_expired`
        query every node.

        Args:
            after: return only higher ids; for the next page pass the last id of this one.
            limit: the maximum number of players; None for all.
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
        """Return the number of a player's rows in each table, from one snapshot.

        Expired context counts until it is purged.
        """
        user = check_user(user_id)
        found = self._database.fetch_together([(f"count_{table.name}", (user,)) for table in TABLES])
        return cast(Counts, {table.name: rows[0][0] for table, rows in zip(TABLES, found, strict=True)})

    def export_user(self, user_id: int) -> Export:
        """Return everything that is stored about a player, in a stable order."""
        user = check_user(user_id)
        found = self._database.fetch_together([(f"export_{table.name}", (user,)) for table in TABLES])
        exported = {
            table.exported_as: self._exported(table, rows) for table, rows in zip(TABLES, found, strict=True)
        }
        return cast(Export, {"user_id": user, **exported})

    def forget_user(self, user_id: int) -> Forgotten:
        """Delete everything that is stored about a player; on SQLite also all traces in the file and the WAL.

        On SQLite the pages of the file are rewritten, which takes time and free disk space in proportion to
        its size. Rows of other players do not change. Copies in tables of the app, in backups and in exports
        are not deleted.

        Raises:
            StorageError: it was called inside `transaction()`, where the WAL cannot be truncated; nothing was
                deleted.
            DatabaseBusy: the rows are deleted, but another connection still reads an older snapshot from the
                WAL; call it again to erase the rest.
        """
        (forgotten,) = self._forget([check_user(user_id)], "forget_user").values()
        return forgotten

    def forget_users(self, user_ids: Iterable[int]) -> dict[int, Forgotten]:
        """Forget several players at the cost of one; return the number of deleted rows by player.

        All of them are deleted, or none. The rest is as in `forget_user`.
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
