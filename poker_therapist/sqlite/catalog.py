"""Reading the schema of an SQLite database."""

import contextlib
import re
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from poker_therapist.errors import DriftUnknown
from poker_therapist.migrations.catalog import (
    BOOKKEEPING,
    Catalog,
    Column,
    ForeignKey,
    Index,
    Table,
    TableMissing,
)
from poker_therapist.migrations.files import SQLMigration
from poker_therapist.sqlite.connect import Watch
from poker_therapist.sqlite.guard import MemoryGuard, Refused
from poker_therapist.sqlite.tokens import parts_of, text_of, words_of

_NO_TABLE = re.compile(r"no such table: (?:main\.)?(.*)")
# A schema is built in some milliseconds.
_SECONDS_TO_BUILD = 3
_LONGEST_TEXT = 1_000_000


# A row of sqlite_schema: the type, name, table and SQL of a table, index, trigger or view.
Entry = tuple[str, str, str, str | None]


def entries(connection: sqlite3.Connection) -> list[Entry]:
    """Return all that a schema holds."""
    sql = "SELECT type, name, tbl_name, sql FROM sqlite_schema ORDER BY name"
    return connection.execute(sql).fetchall()


def describe(
    connection: sqlite3.Connection, concerns: Callable[[Entry], bool] = lambda _entry: True
) -> Catalog:
    """Return the schema of an SQLite database; nothing is written.

    Args:
        connection: where the schema is.
        concerns: whether to look at an entry at all: what is the app's may be of any size and kind.
    """
    catalog = Catalog()
    rows = entries(connection)
    for kind, name, table, sql in filter(concerns, rows):
        if table.startswith(BOOKKEEPING) or sql is None:
            continue
        match kind:
            case "table" if sql.upper().startswith("CREATE VIRTUAL"):  # of a module that may not be there
                options = frozenset([text_of(words_of(sql))])
                nothing = frozenset[Any]()
                catalog.tables[name] = Table({}, (), nothing, nothing, nothing, options)
            case "table":
                catalog.tables[name] = _table(connection, name, sql)
            case "index":
                catalog.indexes[name] = _index(connection, name, table, sql)
            case "trigger":
                catalog.triggers[name] = (table, text_of(words_of(sql)))
            case "view":
                catalog.views[name] = text_of(words_of(sql))
    for setting in ("user_version", "application_id"):
        catalog.settings[setting] = str(connection.execute(f"PRAGMA {setting}").fetchone()[0])
    catalog.settings["statistics of ANALYZE"] = ", ".join(
        name for _, name, *_ in rows if name.startswith("sqlite_stat")
    )
    return catalog


def _table(connection: sqlite3.Connection, name: str, sql: str) -> Table:
    columns, primary_key = {}, {}
    rows = connection.execute(
        'SELECT name, type, "notnull", dflt_value, pk FROM pragma_table_xinfo(?)', (name,)
    ).fetchall()
    keys = connection.execute("SELECT name, origin FROM pragma_index_list(?)", (name,)).fetchall()
    # A key without an index is another name of the rowid, which is never NULL.
    has_rowid_alias = not any(origin == "pk" for _, origin in keys)
    words = words_of(sql)
    upper = [word.upper() for word in words]
    parts = {
        part[0].lower(): part[1:]
        for part in parts_of(words, words.index("(") if "(" in words else len(words))
    }
    for column, kind, not_null, default, place in rows:
        columns[column] = Column(
            text_of(words_of(kind)),
            not (not_null or (place and has_rowid_alias)),
            default and text_of(words_of(default)),
            _extra(parts.get(column.lower(), [])),
        )
        if place:
            primary_key[place] = column
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
        frozenset(_key_columns(connection, index) for index, origin in keys if origin == "u"),
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
    """Return the collation and the expression in a column's definition."""
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
    """Return the conditions of all CHECKs in a CREATE TABLE."""
    for start, word in enumerate(words):
        if word.upper() == "CHECK" and words[start + 1] == "(":
            yield ", ".join(text_of(part) for part in parts_of(words, start + 1))


def describe_beside(connection: sqlite3.Connection, expected: Catalog) -> Catalog:
    """Return of a schema what is expected, and what has been added to that.

    Raises:
        DriftUnknown: it cannot be read.
    """
    tables, named = expected.tables.keys(), {*expected.indexes, *expected.triggers, *expected.views}

    def concerns(entry: Entry) -> bool:
        kind, name, table, sql = entry
        reads = kind == "view" and any(one in (sql or "") for one in tables)
        return table in tables or name in named or reads

    try:
        return describe(connection, concerns).only(tables, expected)
    # A text that SQLite takes and our reading of it does not.
    except (AttributeError, IndexError, TypeError, ValueError) as error:
        raise DriftUnknown(f"drift cannot be checked, because the schema cannot be read: {error}") from error


def build_judged(migrations: list[SQLMigration], live: sqlite3.Connection) -> Catalog:
    """Return the schema that migrations build in memory, beside the app's tables that they name.

    Raises:
        DriftUnknown: they cannot be built again.
    """
    try:
        # A migration that is run now attaches its other databases itself.
        return build_beside(migrations, live, skips_other_databases=live.in_transaction)
    except Refused as error:
        raise DriftUnknown(f"drift cannot be checked: {error}") from error
    except sqlite3.Error as error:
        raise DriftUnknown(
            f"drift cannot be checked, because the applied migrations cannot be run again: {error}"
        ) from error


def build_beside(
    migrations: list[SQLMigration], live: sqlite3.Connection, *, skips_other_databases: bool = False
) -> Catalog:
    """Return the schema that migrations build in memory, beside those of the app's tables that they name.

    Raises:
        TableMissing: a table that they name is nowhere.
        Refused: one of them does what is not done here; the message names both.
        sqlite3.Error: they cannot be run again.
    """
    tables = {name.lower(): (name, sql) for kind, name, _, sql in entries(live) if kind in ("table", "view")}
    named: dict[str, str] = {}
    watch = Watch(_SECONDS_TO_BUILD)
    while True:
        try:
            return _build(migrations, named, watch, skips_other_databases=skips_other_databases)
        except TableMissing as error:
            missing = error.table.lower()
            if missing not in tables or tables[missing][0] in named:
                raise
            name, sql = tables[missing]
            named[name] = sql or ""


def _build(
    migrations: list[SQLMigration], named: Mapping[str, str], watch: Watch, *, skips_other_databases: bool
) -> Catalog:
    """Return the schema that migrations build in memory, without the tables that are there before."""
    with contextlib.closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
        guard = MemoryGuard(connection, watch, skips_other_databases=skips_other_databases)
        for sql in named.values():
            guard.run(sql)
        for migration in migrations:
            if migration.file is None and len(migration.apply_sql) > _LONGEST_TEXT:
                raise Refused(f"{migration.id} has {len(migration.apply_sql):,} characters: too many")
            for statement in migration.split(migration.apply_sql):
                try:
                    guard.run(statement.text)
                except Refused as error:
                    place = f"{migration.place()}:{statement.line}"
                    raise Refused(f"{place} cannot be run in memory: {error}\n    {statement}") from error
                except sqlite3.OperationalError as error:
                    if missing := _NO_TABLE.search(str(error)):
                        raise TableMissing(missing[1], migration.id) from error
                    raise
        guard.release()
        built = describe(connection)
        return built.only(built.tables.keys() - named.keys(), built)
