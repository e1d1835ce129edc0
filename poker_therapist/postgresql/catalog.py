"""Reading one schema of a PostgreSQL database."""

import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import psycopg
from psycopg.rows import tuple_row

from poker_therapist.migrations.catalog import BOOKKEEPING, Catalog, Column, ForeignKey, Index, Part, Table
from poker_therapist.sqlfile import Placeholders, read_queries

_HERE = Path(__file__)
_QUERIES = read_queries(Placeholders.POSTGRESQL, _HERE.with_suffix(".sql"), _HERE.with_name("parts.sql"))
_OF_USERS = "WHERE oid >= 16384"  # those with a lower number are the server's own
# Catalogs of which many databases have no row of their own; those of rare ones are told as they are.
_OWN = ("policy", "proc", "rewrite", "statistic_ext", "trigger", "ts_config")
_RARE = ("collation", "conversion", "opclass", "operator", "opfamily", "ts_dict", "ts_parser", "ts_template")
_RARE_BEYOND = (
    *("am", "amop", "amproc", "cast", "default_acl", "event_trigger", "extension", "foreign_data_wrapper"),
    *("foreign_server", "language", "publication", "publication_namespace", "transform"),
)
_OTHER_KINDS = {
    "attribute": "pg_attribute WHERE attrelid >= 16384 AND attacl IS NOT NULL",
    "composite": "pg_class WHERE relkind = 'c'",
    "description": "pg_description WHERE objoid >= 16384",
    "seclabel": "pg_seclabel",
    "type": f"pg_type {_OF_USERS} AND typtype NOT IN ('c', 'm') AND (typtype <> 'b' OR typarray <> 0)",
}
_PART = re.compile(r"^ *UNION ALL -- if ([\w ]+)\n.*?(?=^ *UNION ALL|^\)|^ORDER)", re.DOTALL | re.MULTILINE)
_ACTIONS = {"a": "NO ACTION", "r": "RESTRICT", "c": "CASCADE", "n": "SET NULL", "d": "SET DEFAULT"}


def describe(
    connection: psycopg.Connection[Any],
    schema: str,
    *,
    others: Collection[str] = (),
    path: Collection[str] = (),
    beyond: bool = False,
) -> Catalog:
    """Return some schemas; what the same SQL has built in two of another name is equal. Nothing is written.

    Args:
        connection: where they are; what it has been set to, and a transaction that is open, stay as they are.
        schema: the one whose objects have plain names.
        others: more schemas, whose objects are named with them.
        path: those whose names are left out in a definition as well, such as the schemas of extensions.
        beyond: whether to describe what is in no schema, too.
    """
    catalog = Catalog(schemas=tuple(others) if beyond else None)
    keys: dict[int, str] = {}
    prefixes: dict[int, str] = {}  # of the names of another schema
    schemas = [schema, *(name for name in others if name != schema)]
    plain = [schema, *(name for name in path if name != schema)]
    # The rollback undoes the setting of the search path.
    with (
        connection.transaction(force_rollback=True),
        psycopg.RawCursor(connection, row_factory=tuple_row) as cursor,
    ):

        def rows(query: str) -> list[tuple[Any, ...]]:
            return cursor.execute(_QUERIES[query], (schemas,)).fetchall()

        cursor.execute(_QUERIES["look_into"], (plain,))
        for oid, place, relation, kind, may_read, name, view, options in rows("relations"):
            prefixes[oid] = name.removesuffix(relation)
            if view is not None:
                keys[oid] = name
                catalog.views[name] = " ".join(["CREATE", *options, "VIEW", name, "AS", *view.split()])
            elif not relation.startswith(BOOKKEEPING):
                keys[oid] = name
                if kind != "f" and may_read:  # the rows of a foreign table are elsewhere
                    catalog.places[name] = (place, relation)
                catalog.tables[name] = Table(
                    columns={},
                    primary_key=(),
                    unique_keys=frozenset(),
                    foreign_keys=frozenset(),
                    checks=frozenset(),
                    options=frozenset(options),
                    constraints={},
                )
        for oid, name, *described in rows("columns"):
            if oid in keys:
                catalog.tables[keys[oid]].columns[name] = Column(*described)
        for oid, *constraint in rows("constraints"):
            if oid in keys:
                catalog.tables[keys[oid]] = _with(catalog.tables[keys[oid]], constraint)
        for oid, name, unique, columns, where, extra in rows("indexes"):
            if oid in keys:
                catalog.indexes[prefixes[oid] + name] = Index(keys[oid], tuple(columns), unique, where, extra)
        kinds = _kinds(cursor, beyond=beyond)
        for oid, name, definition in rows("triggers") if "trigger" in kinds else ():
            if oid in keys:
                catalog.triggers[f"{keys[oid]}.{name}"] = (keys[oid], definition)
        parts = _only(_QUERIES["parts"], kinds)
        found = cursor.execute(parts, (schemas, beyond, schemas if beyond else [])).fetchall()
        catalog.parts.update(_parts(found, keys, catalog.views, plain))
    return catalog


def _kinds(cursor: psycopg.RawCursor[Any], *, beyond: bool) -> frozenset[str]:
    """Return which kinds of objects there are, of those that many databases have not."""
    names = (*_OWN, *_RARE, *(_RARE_BEYOND if beyond else ()))
    asked = _OTHER_KINDS | {name: f"pg_{name} {_OF_USERS}" for name in names}
    query = ", ".join(f"EXISTS (SELECT FROM {rows})" for rows in asked.values())
    (found,) = cursor.execute(f"SELECT {query}".encode()).fetchall()
    present = [kind for kind, is_there in zip(asked, found, strict=True) if is_there]
    return frozenset((*present, "beyond") if beyond else present)


@cache
def _only(query: str, kinds: frozenset[str]) -> str:
    """Return a query without the parts that are about other kinds: to plan them takes long."""
    rare = " UNION ALL ".join(
        f"SELECT CAST('pg_{name}' AS REGCLASS), oid, to_jsonb(found) FROM pg_{name} AS found {_OF_USERS}"
        for name in kinds.intersection((*_RARE, *_RARE_BEYOND))
    )
    kinds = kinds | {"rare"} if rare else kinds
    query = _PART.sub(lambda part: "" if kinds.isdisjoint(part[1].split()) else part[0], query)
    return re.sub("SELECT.*-- all rare", lambda found: rare or found[0], query)


def _parts(
    found: Iterable[Sequence[Any]], keys: Mapping[int, str], views: Collection[str], plain: Collection[str]
) -> Iterator[tuple[str, Part]]:
    """Yield what the query has found, without the names of the schemas whose objects have plain names."""
    home, *others = map(_named, plain)
    # Of another schema's objects the names stay whole; where they are arguments, they are types.
    parts = [rf"""(?<![\w$"'.]){home}\.(?=\S)""", *(rf"(?<=[(,]){other}\.(?=\S)" for other in others)]
    prefix = re.compile("|".join(parts))
    for oid, about, name, definition, is_row, is_implied in found:
        if oid and oid not in keys:
            continue
        kind = "view" if keys.get(oid) in views else "table"
        of = f"{kind} {keys[oid]}" if oid else prefix.sub("", name)
        told = prefix.sub("", definition) if is_row else definition
        yield prefix.sub("", about), Part(of, told, is_implied=is_implied)


def describe_all(
    connection: psycopg.Connection[Any], schema: str, path: Collection[str] | None = None
) -> Catalog:
    """Return all schemas of a database but the server's and ours, and what is in none; see `describe`."""
    path = extension_schemas(connection) if path is None else path
    return describe(connection, schema, others=other_schemas(connection, schema), path=path, beyond=True)


def other_schemas(connection: psycopg.Connection[Any], schema: str) -> list[str]:
    """Return the schemas in which an operator's or a migration's objects may be, but one."""
    found = psycopg.RawCursor(connection).execute(_QUERIES["other_schemas"], (schema,)).fetchall()
    return [name for (name,) in found]


def extension_schemas(connection: psycopg.Connection[Any]) -> list[str]:
    """Return the schemas in which extensions have put their objects."""
    found = psycopg.RawCursor(connection).execute(_QUERIES["extension_schemas"]).fetchall()
    return [name for (name,) in found]


def _named(schema: str) -> str:
    """Return a pattern of a schema's name, in quotes or not."""
    quoted = schema.replace('"', '""')
    return f'"?{re.escape(quoted)}"?'


def _with(table: Table, constraint: Sequence[Any]) -> Table:
    """Return a table with one more key or check, a row of the query."""
    name, kind, on_delete, on_update, parent, definition, columns, condition, parent_columns = constraint
    named = replace(table, constraints={**(table.constraints or {}), name: definition})
    match kind:
        case "p":
            return replace(named, primary_key=tuple(columns))
        case "u":
            return replace(named, unique_keys=table.unique_keys | {tuple(columns)})
        case "f":
            actions = (_ACTIONS[on_delete], _ACTIONS[on_update])
            key = ForeignKey(tuple(columns), parent, tuple(parent_columns), *actions)
            return replace(named, foreign_keys=table.foreign_keys | {key})
        case "c":
            return replace(named, checks=table.checks | {condition})
    return named  # EXCLUDE is none of these
