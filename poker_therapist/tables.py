"""The players' tables: the only list of them.

Export, forget, copy, the search in backups and the clean-up of deleted rows go through this list. A new table
with a `user_id` column is added here, and a test fails until it is.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class TypedColumn:
    """A column that SQLite lets hold any type and PostgreSQL does not.

    Attributes:
        name: the column.
        types: the Python types that PostgreSQL can hold there.
        refusal: why a row with another type cannot be copied.
    """

    name: str
    types: tuple[type, ...]
    refusal: str


@dataclass(frozen=True, slots=True)
class StoredTable:
    """A table whose rows are copied, searched for a player and deleted with one.

    Attributes:
        name: the table.
        key: the columns that identify a row on both engines, in the order in which rows are read.
        row_label: the name of a row in messages, a format string over its columns.
        exported_as: the name of its rows in the export of a player.
        exported_columns: the names of the columns in that export, in the order of its `export_...` query;
            `value` is JSON.
        owner: the column with the player of a row.
        identity: the column that the database numbers, if there is one.
        any_type: columns that hold a value of any type: as it is on SQLite, as JSON on PostgreSQL.
        typed: columns that SQLite lets hold more than PostgreSQL.
    """

    name: str
    key: tuple[str, ...]
    row_label: str
    exported_as: str
    exported_columns: tuple[str, ...]
    owner: str = "user_id"
    identity: str | None = None
    any_type: frozenset[str] = frozenset()
    typed: tuple[TypedColumn, ...] = ()

    def label(self, columns: Collection[str], row: Sequence[Any]) -> str:
        """Return the name of a row for a message: its table and id, and no data of a player."""
        return self.row_label.format(table=self.name, **dict(zip(columns, row, strict=True)))


LEGACY_ROWS = StoredTable(
    name="legacy_rows",
    key=("user_id", "migration_id", "table_name", "row_id"),
    row_label="row {row_id} of {table_name} (kept in {table})",
    exported_as="legacy_rows",
    exported_columns=(
        "migration_id", "table_name", "row_id", "kind", "item_key", "value",
        "score", "session_id", "created_at", "updated_at", "expires_at",
    ),
    any_type=frozenset({"kind", "item_key", "value", "score", "created_at", "updated_at", "expires_at"}),
    typed=(
        TypedColumn(
            "user_id",
            (int,),
            "its user_id is not an integer, so it belongs to no player (find all such rows with "
            "typeof(user_id) <> 'integer')",
        ),
        TypedColumn(
            "session_id",
            (str, type(None)),
            "its session_id is not text (find all such rows with typeof(session_id) NOT IN ('text', 'null'))",
        ),
    ),
)  # fmt: skip


def _counted(name: str, exported_as: str, *exported_columns: str) -> StoredTable:
    # PostgreSQL does not guarantee that an id exists once in a table whose key begins with the player.
    return StoredTable(
        name, ("id", "user_id"), "row {id} of {table}", exported_as, exported_columns, identity="id"
    )


TABLES = (
    _counted(
        "user_patterns", "patterns", "id", "type", "key", "value", "confidence", "created_at", "updated_at"
    ),
    _counted(
        "conversation_context", "context", "id", "key", "value", "session_id", "created_at", "expires_at"
    ),
    _counted("user_insights", "insights", "id", "type", "value", "importance", "created_at"),
    LEGACY_ROWS,
)
