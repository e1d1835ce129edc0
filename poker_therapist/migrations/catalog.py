"""A live schema, in a form that can be compared and drawn.

Two schemas are the same if their `facts` are: quotes, the layout of SQL and comments make no difference.
"""

import re
from collections.abc import Iterator, Set
from dataclasses import dataclass, field, replace

from poker_therapist.errors import DriftUnknown, escaped

# The tables of SQLite, yoyo and our own bookkeeping are no part of what the migrations build.
BOOKKEEPING = ("sqlite_", "_yoyo_", "yoyo_lock", "_migration_")


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table."""

    type: str
    nullable: bool
    default: str | None
    # COLLATE and GENERATED, which SQLite's PRAGMAs do not report.
    extra: str = ""

    def __str__(self) -> str:
        """Return the column as in SQL."""
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
        """Return the key as in SQL."""
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
    # What each key and check demands, by name, where a name is what the next migration needs: PostgreSQL.
    constraints: dict[str, str] | None = None


@dataclass(frozen=True, slots=True)
class Index:
    """An index that was made by itself, not by a key of its table."""

    table: str
    columns: tuple[str, ...]
    unique: bool
    where: str | None
    # What PostgreSQL knows besides: another method than a tree, INCLUDE, and whether the index is INVALID.
    extra: str = ""

    def __str__(self) -> str:
        """Return the index as in SQL."""
        kind, rows = "unique " if self.unique else "", f" WHERE {self.where}" if self.where else ""
        return f"{kind}on {self.table} ({', '.join(self.columns)}){rows} {self.extra}".rstrip()


@dataclass(frozen=True, slots=True)
class Part:
    """Another object of a server: a function, a type, an owner, a grant, a comment.

    Attributes:
        of: the table or view that it belongs to, such as `table hands`, or itself.
        is_implied: whether it is the default.
    """

    of: str
    definition: str
    is_implied: bool = field(default=False, compare=False)


# Of these the operator decides, unless the migrations define some of the same kind.
_OPERATORS_OWN = ("grant ", "owner ", "policy ", "security ")
_OPERATORS_OPTIONS = ("CLUSTER ON", "FORCE ROW LEVEL", "REPLICA IDENTITY", "ROW LEVEL", "TABLESPACE")
_NO_MATTER = "name of the "  # which a server has chosen


@dataclass(frozen=True, slots=True)
class Catalog:
    """A schema; triggers and views by their SQL, without blanks and comments."""

    tables: dict[str, Table] = field(default_factory=dict)
    indexes: dict[str, Index] = field(default_factory=dict)
    triggers: dict[str, tuple[str, str]] = field(default_factory=dict)
    views: dict[str, str] = field(default_factory=dict)
    # Settings of the whole database, which may be the app's.
    settings: dict[str, str] = field(default_factory=dict)
    parts: dict[str, Part] = field(default_factory=dict)
    # The schema and the name of each table that stores rows, where there are schemas.
    places: dict[str, tuple[str, str]] = field(default_factory=dict, compare=False)
    # Which schemas are here besides the one whose names are plain; None if what is in no schema is not.
    schemas: tuple[str, ...] | None = field(default=None, compare=False)

    def facts(self) -> dict[str, str]:
        """Return the schema as short statements, each under the name of its object."""
        return dict(self._facts(self.tables.keys()))

    def names(self) -> set[str]:
        """Return the kind and name of each table, column, index, trigger and view, in lower case."""
        kinds = ("table ", "column ", "index ", "trigger ", "view ")
        return {about.lower() for about in self.facts() if about.startswith(kinds)}

    def _facts(self, detailed: Set[str]) -> Iterator[tuple[str, str]]:
        for name, table in self.tables.items():
            yield f"table {name}", ", ".join(sorted(table.options)) or "plain"
            if name not in detailed:
                continue
            for column, described in table.columns.items():
                yield f"column {name}.{column}", str(described)
            if table.constraints is not None:
                for constraint, definition in table.constraints.items():
                    yield f"constraint {constraint} of {name}", definition
                continue
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
        yield from ((name, part.definition) for name, part in self.parts.items())
        for name, value in self.settings.items():
            yield f"setting {name}", value or "none"

    def _objects(self) -> set[str]:
        return (
            {f"table {name}" for name in self.tables}
            | {f"view {name}" for name in self.views}
            | {name for name, part in self.parts.items() if part.of == name}
        )

    def parts_since(self, before: "Catalog") -> dict[str, Part]:
        """Return the parts of what has changed since: those of the same kind and object stay together."""
        now, then = self.parts, before.parts
        changed = {
            (_kind(name), (now.get(name) or then[name]).of)
            for name in now.keys() | then.keys()
            if now.get(name) != then.get(name)
        }
        return {name: part for name, part in now.items() if (_kind(name), part.of) in changed}

    def only(self, tables: Set[str], other: "Catalog | None" = None) -> "Catalog":
        """Return the part of a schema for some tables; others may share the database.

        Args:
            tables: their names.
            other: a schema whose indexes, triggers and views belong to that part, too.
        """
        more = other or Catalog()
        indexes, triggers = self.indexes.items(), self.triggers.items()
        found = Catalog(
            {
                name: _judged(one, more.tables.get(name))
                for name, one in self.tables.items()
                if name in tables
            },
            {name: one for name, one in indexes if one.table in tables or name in more.indexes},
            {name: one for name, one in triggers if one[0] in tables or name in more.triggers},
            {
                name: sql
                for name, sql in self.views.items()
                if name in more.views or tables & set(re.findall(r"\w+", sql))
            },
            places={name: place for name, place in self.places.items() if name in tables},
            schemas=self.schemas,
        )
        objects = {f"table {name}" for name in tables} | more._objects()
        said = {(_kind(name), part.of) for name, part in more.parts.items()}
        for name, part in self.parts.items():
            if other is None:
                kept = not part.is_implied and not name.startswith(_NO_MATTER)
            elif name.startswith(_OPERATORS_OWN):
                is_said = (_kind(name), part.of) in said
                if name.startswith("grant "):  # to some role is an operator's, to all of them is not
                    of_table = part.of in objects and part.of.startswith(("table ", "view "))
                    is_said = name.startswith("grant to PUBLIC ") and (is_said or of_table)
                kept = name in more.parts or is_said
            else:
                kept = (name in more.parts or part.of in objects) and not name.startswith(_NO_MATTER)
            if kept:
                found.parts[name] = part
        return found


def _kind(about: str) -> str:
    return about.split(" ", 1)[0]


def _judged(table: Table, other: Table | None) -> Table:
    """Return a table without what an operator decides, such as row-level security and the tablespace."""
    if other is None:
        return table
    own = {one for one in table.options - other.options if one.startswith(_OPERATORS_OPTIONS)}
    return replace(table, options=table.options - own)


@dataclass(frozen=True, slots=True)
class Difference:
    """A statement that differs in two schemas; None where it is missing."""

    about: str
    expected: str | None
    actual: str | None

    def __str__(self) -> str:
        """Return the difference as a sentence."""
        if self.expected is None:
            return escaped(f"{self.about} exists, but should not{_shown(self.actual)}")
        if self.actual is None:
            return escaped(f"{self.about} is missing{_shown(self.expected)}")
        return escaped(f"{self.about} is {_shortened(self.actual)}, not {_shortened(self.expected)}")


class TableMissing(DriftUnknown):
    """A table that an applied migration needs, and that no migration creates, does not exist."""

    def __init__(self, table: str, migration_id: str) -> None:
        super().__init__(f"{migration_id} needs the missing table {table}", migration_id=migration_id)
        self.table = table
        self.difference = Difference(f"table {table}", f"{migration_id} needs it", None)


def _shown(fact: str | None) -> str:
    return "" if fact in ("present", "plain", None) else f" ({_shortened(fact)})"


def _shortened(fact: str) -> str:
    """Return a fact in a length that can be read."""
    return fact if len(fact) <= 300 else f"{fact[:297]}..."


def differences(expected: Catalog, actual: Catalog) -> list[Difference]:
    """Return the differences, sorted; for a table that only one has, only that."""
    both = expected.tables.keys() & actual.tables.keys()
    wanted, found = dict(expected._facts(both)), dict(actual._facts(both))
    alone = expected._objects() ^ actual._objects()
    for catalog, facts in ((expected, wanted), (actual, found)):
        for name, part in catalog.parts.items():
            if part.of in alone and part.of != name:
                facts.pop(name)
    for name in both:  # the order is compared only if the columns are the same
        orders = [", ".join(catalog.tables[name].columns) for catalog in (expected, actual)]
        if sorted(expected.tables[name].columns) == sorted(actual.tables[name].columns):
            wanted[f"order of columns in {name}"], found[f"order of columns in {name}"] = orders
    return [
        Difference(about, wanted.get(about), found.get(about))
        for about in sorted(wanted.keys() | found.keys())
        if wanted.get(about) != found.get(about)
    ]
