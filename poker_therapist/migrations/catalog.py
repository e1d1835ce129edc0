"""What a live schema is, in a form that can be compared and drawn.

Two schemas are the same if their `facts` are: what a table is called in quotes, how its SQL is laid out and
what its comments say make no difference.
"""

import re
import sqlite3
from collections.abc import Iterator, Sequence, Set
from dataclasses import dataclass, field

import sqlparse
from sqlparse import tokens

# The tables of SQLite, yoyo and our own bookkeeping are no part of what the migrations build.
BOOKKEEPING = ("sqlite_", "_yoyo_", "yoyo_lock", "_migration_text")


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table."""

    type: str
    nullable: bool
    default: str | None

    def __str__(self) -> str:
        """Return the column as SQL would say it."""
        parts = [
            self.type,
            "" if self.nullable else "NOT NULL",
            f"DEFAULT {self.default}" if self.default else "",
        ]
        return " ".join(part for part in parts if part)


@dataclass(frozen=True, slots=True)
class ForeignKey:
    """A reference to another table."""

    columns: tuple[str, ...]
    parent: str
    parent_columns: tuple[str, ...]
    on_delete: str

    def __str__(self) -> str:
        """Return the key as SQL would say it."""
        deletion = "" if self.on_delete == "NO ACTION" else f" ON DELETE {self.on_delete}"
        return f"({', '.join(self.columns)}) -> {self.parent} ({', '.join(self.parent_columns)}){deletion}"


@dataclass(frozen=True, slots=True)
class Table:
    """A table: its columns in their order, its keys and its checks."""

    columns: dict[str, Column]
    primary_key: tuple[str, ...]
    unique_keys: frozenset[tuple[str, ...]]
    foreign_keys: frozenset[ForeignKey]
    checks: frozenset[str]
    options: frozenset[str]


@dataclass(frozen=True, slots=True)
class Index:
    """An index that was made by itself, not by a key of its table."""

    table: str
    columns: tuple[str, ...]
    unique: bool
    where: str | None

    def __str__(self) -> str:
        """Return the index as SQL would say it."""
        kind, rows = "unique " if self.unique else "", f" WHERE {self.where}" if self.where else ""
        return f"{kind}on {self.table} ({', '.join(self.columns)}){rows}"


@dataclass(frozen=True, slots=True)
class Catalog:
    """A schema; triggers and views by their SQL, without blanks and comments."""

    tables: dict[str, Table] = field(default_factory=dict)
    indexes: dict[str, Index] = field(default_factory=dict)
    triggers: dict[str, tuple[str, str]] = field(default_factory=dict)
    views: dict[str, str] = field(default_factory=dict)

    def facts(self) -> dict[str, str]:
        """Return the schema as short statements, each under the name of what it is about."""
        return dict(self._facts(self.tables.keys()))

    def _facts(self, detailed: Set[str]) -> Iterator[tuple[str, str]]:
        for name, table in self.tables.items():
            yield f"table {name}", ", ".join(sorted(table.options)) or "plain"
            if name not in detailed:
                continue
            for column, described in table.columns.items():
                yield f"column {name}.{column}", str(described)
            yield f"primary key of {name}", f"({', '.join(table.primary_key)})"
            for key in table.unique_keys:
                yield f"unique key of {name} on ({', '.join(key)})", "present"
            for foreign_key in table.foreign_keys:
                yield f"foreign key of {name} {foreign_key}", "present"
            for check in table.checks:
                yield f"check of {name}: {check}", "present"
        for name, index in self.indexes.items():
            yield f"index {name}", str(index)
        for name, (_, sql) in self.triggers.items():
            yield f"trigger {name}", sql
        for name, sql in self.views.items():
            yield f"view {name}", sql

    def only(self, tables: set[str]) -> "Catalog":
        """Return the part of a schema that concerns some tables; others may share the database."""
        return Catalog(
            {name: table for name, table in self.tables.items() if name in tables},
            {name: index for name, index in self.indexes.items() if index.table in tables},
            {name: trigger for name, trigger in self.triggers.items() if trigger[0] in tables},
            {name: sql for name, sql in self.views.items() if tables & set(re.findall(r"\w+", sql))},
        )


@dataclass(frozen=True, slots=True)
class Difference:
    """One statement that is not the same in two schemas; None where it is absent."""

    about: str
    expected: str | None
    actual: str | None

    def __str__(self) -> str:
        """Return the difference as a sentence."""
        if self.expected is None:
            return f"{self.about} is there and should not be" + _shown(self.actual)
        if self.actual is None:
            return f"{self.about} is missing" + _shown(self.expected)
        return f"{self.about} is {self.actual}, not {self.expected}"


def _shown(fact: str | None) -> str:
    return "" if fact in ("present", "plain") else f" ({fact})"


def differences(expected: Catalog, actual: Catalog) -> list[Difference]:
    """Return what is not the same, sorted; of a table that only one has, nothing but that."""
    both = expected.tables.keys() & actual.tables.keys()
    wanted, found = dict(expected._facts(both)), dict(actual._facts(both))
    return [
        Difference(about, wanted.get(about), found.get(about))
        for about in sorted(wanted.keys() | found.keys())
        if wanted.get(about) != found.get(about)
    ]


def describe(connection: sqlite3.Connection) -> Catalog:
    """Return the schema of an SQLite database; nothing is written."""
    catalog = Catalog()
    rows = connection.execute("SELECT type, name, tbl_name, sql FROM sqlite_schema ORDER BY name").fetchall()
    for kind, name, table, sql in rows:
        if table.startswith(BOOKKEEPING) or sql is None:
            continue
        match kind:
            case "table":
                catalog.tables[name] = _table(connection, name, sql)
            case "index":
                catalog.indexes[name] = _index(connection, name, table, sql)
            case "trigger":
                catalog.triggers[name] = (table, _text(_words(sql)))
            case "view":
                catalog.views[name] = _text(_words(sql))
    return catalog


def _table(connection: sqlite3.Connection, name: str, sql: str) -> Table:
    columns, primary_key = {}, {}
    for column, kind, not_null, default, place in connection.execute(
        'SELECT name, type, "notnull", dflt_value, pk FROM pragma_table_xinfo(?)', (name,)
    ):
        rowid_alias = place and kind == "INTEGER"
        columns[column] = Column(kind, not (not_null or rowid_alias), default and _text(_words(default)))
        if place:
            primary_key[place] = column
    unique = connection.execute(
        "SELECT name FROM pragma_index_list(?) WHERE origin = 'u'", (name,)
    ).fetchall()
    foreign: dict[int, list[tuple[str, str, str, str]]] = {}
    for number, *key in connection.execute(
        'SELECT id, "from", "table", "to", on_delete FROM pragma_foreign_key_list(?) ORDER BY id, seq',
        (name,),
    ):
        foreign.setdefault(number, []).append((key[0], key[1], key[2] or "", key[3]))
    words = _words(sql)
    options = {word for word in ("STRICT", "AUTOINCREMENT") if word in (item.upper() for item in words)}
    if "WITHOUT ROWID" in " ".join(words).upper():
        options.add("WITHOUT ROWID")
    return Table(
        columns,
        tuple(primary_key[place] for place in sorted(primary_key)),
        frozenset(_key_columns(connection, index) for (index,) in unique),
        frozenset(
            ForeignKey(
                tuple(part[0] for part in parts), parts[0][1], tuple(part[2] for part in parts), parts[0][3]
            )
            for parts in foreign.values()
        ),
        frozenset(_checks(words)),
        frozenset(options),
    )


def _index(connection: sqlite3.Connection, name: str, table: str, sql: str) -> Index:
    words = _words(sql)
    upper = [word.upper() for word in words]
    where = _text(words[upper.index("WHERE") + 1 :]) if "WHERE" in upper else None
    return Index(table, _key_columns(connection, name), "UNIQUE" in upper[: upper.index("ON")], where)


def _key_columns(connection: sqlite3.Connection, index: str) -> tuple[str, ...]:
    rows = connection.execute(
        'SELECT name, "desc", coll FROM pragma_index_xinfo(?) WHERE "key" ORDER BY seqno', (index,)
    )
    return tuple(
        (name or "expression")
        + (" DESC" if down else "")
        + ("" if order == "BINARY" else f" COLLATE {order}")
        for name, down, order in rows
    )


def _words(sql: str) -> list[str]:
    """Return the words of a statement without blanks, comments and the quotes of names."""
    return [
        token.value.strip('"`[]') if token.ttype is tokens.Literal.String.Symbol else token.value
        for token in sqlparse.parse(sql)[0].flatten()  # type: ignore[no-untyped-call]  # sqlparse is half typed
        if not token.is_whitespace and token.ttype not in tokens.Comment
    ]


def _text(words: Sequence[str]) -> str:
    """Return words as one line, laid out the same whatever the layout was."""
    line = ""
    for word in words:
        glued = not line or word in ",)." or line[-1] in "(." or (word == "(" and line[-1].islower())
        line += word if glued else f" {word}"
    return line


def _checks(words: list[str]) -> Iterator[str]:
    """Return the conditions of the CHECKs in a CREATE TABLE, wherever they stand."""
    for start, word in enumerate(words):
        if word.upper() == "CHECK" and words[start + 1] == "(":
            depth, end = 1, start + 2
            while depth:
                depth += {"(": 1, ")": -1}.get(words[end], 0)
                end += 1
            yield _text(words[start + 2 : end - 1])
