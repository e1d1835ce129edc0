"""The foreign keys of the tables that a migration names: what breaks them afterwards and did not before.

Foreign keys are off while a migration runs. `PRAGMA foreign_key_check` would read every table of the app's,
stop at the first key that SQLite cannot use, and tell no rows of a table WITHOUT ROWID apart.
"""

import sqlite3
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from poker_therapist.sqlfile import Placeholders, read_queries

_QUERIES = read_queries(Placeholders.SQLITE, Path(__file__).with_suffix(".sql"))
_ROW_IDS = ("rowid", "_rowid_", "oid")


class ForeignKey(NamedTuple):
    """A key of a table; no targets where it means the parent's primary key."""

    child: str
    parent: str
    columns: tuple[str, ...]
    targets: tuple[str, ...]


class ForeignKeys:
    """The keys that a migration may break, as they were before it.

    What names neither a table nor, through its triggers, one that writes to it cannot change its rows: such a
    table is not read.
    """

    def __init__(self, connection: sqlite3.Connection, sql: str) -> None:
        """Note which rows have no parent.

        Args:
            connection: in the transaction of the migration, before its first statement.
            sql: the text of the migration.
        """
        self._connection = connection
        self._sql = sql
        self._parents = self._tables()
        self._unusable: dict[ForeignKey, str] = {}
        self._query("create_noted_violation")
        for key in self._concerned():
            rows, self._unusable[key] = self._rows_without_parent(key)
            if not self._unusable[key]:
                connection.execute(
                    "INSERT INTO temp.noted_violation (child, parent, columns, row_key) "
                    f"SELECT ?, ?, ?, * FROM ({rows})",
                    (key.child, key.parent, ",".join(key.columns)),
                )

    def newly_unusable(self) -> list[tuple[ForeignKey, str, bool]]:
        """Return each key that SQLite could use, or that was not there, and cannot use now.

        With the reason, and whether the parent is as it was before: the key is new then.
        """
        found = [(key, self._rows_without_parent(key)[1]) for key in self._concerned()]
        tables = self._tables()
        return [
            (key, reason, tables.get(key.parent.lower()) == self._parents.get(key.parent.lower()))
            for key, reason in found
            if reason and not self._unusable.get(key)
        ]

    def new_violation(self, *, old_keys_only: bool) -> tuple[ForeignKey, Any] | None:
        """Return a key and the row that breaks it and did not, or was not there, before.

        Args:
            old_keys_only: a rollback may bring back a key that never held; ask only about those from before.
        """
        before = {(key.child, key.parent) for key in self._unusable}
        for key in self._concerned():
            rows, unusable = self._rows_without_parent(key)
            if unusable or (old_keys_only and (key.child, key.parent) not in before):
                continue
            found = self._connection.execute(
                f"SELECT * FROM ({rows}) EXCEPT SELECT row_key FROM temp.noted_violation "
                "WHERE child = ? AND parent = ? AND columns = iif(?, ?, columns) LIMIT 1",
                (key.child, key.parent, key in self._unusable, ",".join(key.columns)),
            ).fetchone()
            if found:
                return key, found[0]
        return None

    def forget(self) -> None:
        """Drop what was noted."""
        self._query("drop_noted_violation")

    def _query(self, name: str, values: Iterable[Any] = ()) -> list[Any]:
        return self._connection.execute(_QUERIES[name], tuple(values)).fetchall()

    def _tables(self) -> dict[str, str]:
        """Return the SQL of each table, by its name in lower case."""
        return {name.lower(): sql for name, sql in self._query("tables")}

    def _concerned(self) -> list[ForeignKey]:
        """Return the keys from and to the tables that the migration names, or a trigger of one of those."""
        text, named = self._sql.lower(), set[str]()
        triggers = [(table.lower(), sql.lower()) for table, sql in self._query("triggers")]
        tables = self._tables()
        while more := {name for name in tables if name in text} - named:
            named |= more
            text += "".join(sql for table, sql in triggers if table in more)
        keys: dict[tuple[str, int], ForeignKey] = {}
        for child, number, parent, column, target in self._query("foreign_keys"):
            if {child.lower(), parent.lower()} & named:
                key = keys.get((child, number), ForeignKey(child, parent, (), ()))
                targets = key.targets + ((target,) if target else ())
                keys[child, number] = key._replace(columns=(*key.columns, column), targets=targets)
        return list(keys.values())

    def _rows_without_parent(self, key: ForeignKey) -> tuple[str, str]:
        """Return a query for the keys of a table's rows without their parent, or why SQLite cannot ask."""
        child_columns = self._query("columns", (key.child,))
        names = {name.lower() for name, _ in child_columns}
        row = next((f"child.{name}" for name in _ROW_IDS if name not in names), "child.rowid")
        if self._query("without_rowid", (key.child,)):
            row = " || ',' || ".join(
                f"quote(child.{_quoted(name)})" for name, place in child_columns if place
            )
        conditions = [f"child.{_quoted(name)} IS NOT NULL" for name in key.columns]
        if key.parent.lower() in self._tables():
            primary = sorted((place, name) for name, place in self._query("columns", (key.parent,)) if place)
            targets = key.targets or tuple(name for _, name in primary)
            if len(targets) != len(key.columns) or not self._is_key(key.parent, targets, primary):
                return "", f"({', '.join(targets)}) is no primary key and no UNIQUE columns of {key.parent}"
            # As SQLite compares: with the parent's collation, and the child's value as the parent's type.
            same = " AND ".join(
                f"parent.{_quoted(target)} = +child.{_quoted(name)}"
                for name, target in zip(key.columns, targets, strict=True)
            )
            conditions.append(f"NOT EXISTS (SELECT 1 FROM {_quoted(key.parent)} AS parent WHERE {same})")
        query = f"SELECT {row} FROM {_quoted(key.child)} AS child WHERE {' AND '.join(conditions)}"
        try:
            self._connection.execute(f"EXPLAIN {query}").fetchall()
        except sqlite3.OperationalError as error:  # the app's collation or function, which is not known here
            return "", str(error)
        return query, ""

    def _is_key(self, parent: str, targets: tuple[str, ...], primary: list[tuple[int, str]]) -> bool:
        wanted = {name.lower() for name in targets}
        unique = [{name.lower() for _, name in primary}]
        for (index,) in self._query("unique_indexes", (parent,)):
            unique.append({(name or "").lower() for (name,) in self._query("index_columns", (index,))})
        return wanted in unique


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
