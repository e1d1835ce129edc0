"""What a live schema is, in a form that can be compared and drawn.

Two schemas are the same if their `facts` are: what a table is called in quotes, how its SQL is laid out and
what its comments say make no difference.
"""

import re
import sqlite3
from collections.abc import Iterator, Sequence, Set
from dataclasses import dataclass, field

from poker_therapist.migrations.sql_words import parts_of, text_of, words_of

# The tables of SQLite, yoyo and our own bookkeeping are no part of what the migrations build.
BOOKKEEPING = ("sqlite_", "_yoyo_", "yoyo_lock", "_migration_text")


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table."""

    type: str
    nullable: bool
    default: str | None
    # COLLATE and GENERATED, which PRAGMAs do not tell.
    extra: str = ""

    def __str__(self) -> str:
        """Return the column as SQL would say it."""
        default = f"DEFAULT {self.default}" if self.default else ""
        parts = [self.type, "" if self.nullable else "NOT NULL", default, self.extra]
        return " ".join(part for part in parts if part)


@dataclass(frozen=True, slots=True)
class ForeignKey:
    """A reference to another table."""

    columns: tuple[str, ...]
    parent: str
    parent_columns: tuple[str, ...]
    on_delete: str = "NO ACTION"
    on_update: str = "NO ACTION"

    def __str__(self) -> str:
        """Return the key as SQL would say it."""
        actions = {"DELETE": self.on_delete, "UPDATE": self.on_update}
        said = "".join(f" ON {event} {action}" for event, action in actions.items() if action != "NO ACTION")
        return f"({', '.join(self.columns)}) -> {self.parent} ({', '.join(self.parent_columns)}){said}"


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
    for name in both:  # the order says something only where the columns are the same
        orders = [", ".join(catalog.tables[name].columns) for catalog in (expected, actual)]
        if sorted(expected.tables[name].columns) == sorted(actual.tables[name].columns):
            wanted[f"order of columns in {name}"], found[f"order of columns in {name}"] = orders
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
                catalog.triggers[name] = (table, text_of(words_of(sql)))
            case "view":
                catalog.views[name] = text_of(words_of(sql))
    return catalog


def _table(connection: sqlite3.Connection, name: str, sql: str) -> Table:
    columns, primary_key = {}, {}
    words = words_of(sql)
    upper = [word.upper() for word in words]
    parts = {
        part[0].lower(): part[1:]
        for part in parts_of(words, words.index("(") if "(" in words else len(words))
    }
    for column, kind, not_null, default, place in connection.execute(
        'SELECT name, type, "notnull", dflt_value, pk FROM pragma_table_xinfo(?)', (name,)
    ):
        rowid_alias = place and kind == "INTEGER"
        columns[column] = Column(
            kind,
            not (not_null or rowid_alias),
            default and text_of(words_of(default)),
            _extra(parts.get(column.lower(), [])),
        )
        if place:
            primary_key[place] = column
    unique = connection.execute(
        "SELECT name FROM pragma_index_list(?) WHERE origin = 'u'", (name,)
    ).fetchall()
    foreign: dict[int, list[tuple[str, str, str, str, str]]] = {}
    for number, *key in connection.execute(
        'SELECT id, "from", "table", "to", on_delete, on_update FROM pragma_foreign_key_list(?) '
        "ORDER BY id, seq",
        (name,),
    ):
        foreign.setdefault(number, []).append((key[0], key[1], key[2] or "", key[3], key[4]))
    line = " ".join(upper)
    options: set[str] = {option for option in ("STRICT", "AUTOINCREMENT") if option in upper}
    options |= {option for option in ("WITHOUT ROWID", "INITIALLY DEFERRED") if option in line}
    options |= set(re.findall(r"ON CONFLICT \w+", line))
    return Table(
        columns,
        tuple(primary_key[place] for place in sorted(primary_key)),
        frozenset(_key_columns(connection, index) for (index,) in unique),
        frozenset(
            ForeignKey(
                tuple(key[0] for key in keys),
                keys[0][1],
                tuple(key[2] for key in keys),
                on_delete=keys[0][3],
                on_update=keys[0][4],
            )
            for keys in foreign.values()
        ),
        frozenset(_checks(words)),
        frozenset(options),
    )


def _index(connection: sqlite3.Connection, name: str, table: str, sql: str) -> Index:
    words = words_of(sql)
    upper = [word.upper() for word in words]
    where = text_of(words[upper.index("WHERE") + 1 :]) if "WHERE" in upper else None
    parts = parts_of(words, words.index("(", upper.index("ON")))
    return Index(table, _key_columns(connection, name, parts), "UNIQUE" in upper[: upper.index("ON")], where)


def _key_columns(
    connection: sqlite3.Connection, index: str, parts: Sequence[list[str]] = ()
) -> tuple[str, ...]:
    """Return the columns of an index; `parts` are their texts, for those that are expressions."""
    rows = connection.execute(
        'SELECT seqno, name, "desc", coll FROM pragma_index_xinfo(?) WHERE "key" ORDER BY seqno', (index,)
    )
    return tuple(
        (name + (" DESC" if down else "") + ("" if order == "BINARY" else f" COLLATE {order}"))
        if name
        else text_of(parts[place])
        for place, name, down, order in rows
    )


def _extra(definition: list[str]) -> str:
    """Return what a column's definition says of its collation and of what it is computed from."""
    upper = [word.upper() for word in definition]
    said = ""
    if "AS" in upper:
        start = upper.index("AS")
        (expression, *_) = parts_of(definition, start + 1) or [[]]
        said = f"AS ({text_of(expression)}){' STORED' if 'STORED' in upper else ''}"
    if "COLLATE" in upper:
        said += f" COLLATE {upper[upper.index('COLLATE') + 1]}"
    return said.strip()


def _checks(words: list[str]) -> Iterator[str]:
    """Return the conditions of the CHECKs in a CREATE TABLE, wherever they stand."""
    for start, word in enumerate(words):
        if word.upper() == "CHECK" and words[start + 1] == "(":
            yield ", ".join(text_of(part) for part in parts_of(words, start + 1))
