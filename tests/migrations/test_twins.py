"""The SQL of both engines, which is written twice, means the same twice."""

import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing

import psycopg
import pytest

from poker_therapist.migrations.catalog import Catalog, Column, Table
from poker_therapist.migrations.files import split
from poker_therapist.postgresql.catalog import describe as describe_postgresql
from poker_therapist.schema import migrations_folder
from poker_therapist.sqlite.catalog import describe as describe_sqlite
from poker_therapist.tables import TABLES

SQLITE, POSTGRESQL = migrations_folder("sqlite"), migrations_folder("postgresql")
IDS = sorted(path.stem for path in SQLITE.glob("*.sql") if not path.name.endswith(".rollback.sql"))
PLAYED = tuple(table.name for table in TABLES if table.identity)

# Every difference that there may be, by its reason: after which migrations, and of each fact what it is in
# SQLite and what in PostgreSQL; None where it is absent.
ALLOWED: dict[str, tuple[list[str], dict[str, tuple[str | None, str | None]]]] = {
    "Citus shards by player, so each PostgreSQL key holds the player": (
        IDS,
        {f"primary key of {table}": ("id", "user_id, id") for table in PLAYED},
    ),
    "an SQLite table is typed strictly when it says so, and laid out by its key": (
        IDS[1:],
        {"table legacy_rows": ("STRICT, WITHOUT ROWID", "")},
    ),
    "003 makes the tables of the earlier app strict; PostgreSQL's always are": (
        IDS[2:],
        {f"table {table}": ("STRICT", "") for table in PLAYED},
    ),
    "the earlier app knew SQLite alone: its tables are adopted as they are, PostgreSQL's start out right": (
        IDS[:2],
        {
            "foreign key of user_patterns (user_id) -> users (id)": ("present", None),
            "foreign key of conversation_context (user_id) -> users (id)": ("present", None),
            "foreign key of user_insights (user_id) -> users (id)": ("present", None),
            "column user_patterns.pattern_value": ("text NOT NULL", "JSON NOT NULL"),
            "column conversation_context.context_value": ("text NOT NULL", "JSON NOT NULL"),
            "column user_insights.insight_data": ("text NOT NULL", "JSON NOT NULL"),
        },
    ),
    "SQLite keeps a row that it had to change as it was, of any type; PostgreSQL gets it as JSON": (
        IDS[1:],
        {
            f"column legacy_rows.{column}": ("anything", "JSON")
            for column in ("kind", "item_key", "value", "score", "created_at", "updated_at", "expires_at")
        },
    ),
    "what is copied of such rows is looked for by the player, a number, and the session, a text": (
        IDS[1:],
        {
            "column legacy_rows.user_id": ("anything NOT NULL", "integer NOT NULL"),
            "column legacy_rows.session_id": ("anything", "text"),
        },
    ),
    "an SQLite index holds the id by itself, where it is the last to sort by": (
        IDS[3:4],
        {
            f"index {name}": (f"{columns})", f"{columns}, id)")
            for name, columns in {
                "idx_user_patterns_updated": "user_patterns (user_id, pattern_type, updated_at",
                "idx_conversation_context_key": "conversation_context (user_id, context_key, created_at",
                "idx_conversation_context_session": "conversation_context (user_id, session_id, created_at",
                "idx_conversation_context_created": "conversation_context (user_id, created_at",
                "idx_user_insights_type": "user_insights (user_id, insight_type, created_at",
                "idx_user_insights_created": "user_insights (user_id, created_at",
                "idx_user_insights_importance": "user_insights (user_id, importance, created_at",
            }.items()
        },
    ),
    "and so does each that 005 makes": (
        IDS[4:],
        {
            f"index {name}": (f"{columns}){where}", f"{columns}, id){where}")
            for name, columns, where in (
                ("idx_conversation_context_newest_of_key", "conversation_context (user_id, context_key", ""),
                (
                    "idx_conversation_context_newest_of_session",
                    "conversation_context (user_id, session_id",
                    " WHERE session_id IS NOT NULL",
                ),
                ("idx_user_insights_newest_of_type", "user_insights (user_id, insight_type", ""),
                ("idx_user_insights_foremost", "user_insights (user_id, importance", ""),
            )
        },
    ),
    "PostgreSQL's primary key is (user_id, id), and finds the newest of one player": (
        IDS[4:],
        {
            "index idx_conversation_context_newest": ("conversation_context (user_id)", None),
            "index idx_user_insights_newest": ("user_insights (user_id)", None),
        },
    ),
}

# What a type means. A PostgreSQL text that is not compared by its bytes, as in SQLite, is another type.
MEANINGS = {
    "INTEGER": "integer", "REAL": "number", "TEXT": "text", "TIMESTAMP": "time", "ANY": "anything",
    "bigint": "integer", "double precision": "number", 'text COLLATE "C"': "text", "json": "JSON",
    "timestamp with time zone": "time", "bigint GENERATED ALWAYS AS IDENTITY": "counted integer",
}  # fmt: skip
NOW = re.compile(r"CURRENT_TIMESTAMP|now\(\)|strftime\('%Y-%m-%dT%H:%M:%f000\+00:00', 'now'\)")
# How SQLite, which has neither type, says that a text is JSON or a time.
IS_JSON, IS_TIME = "json_valid({})", "{} GLOB '????-??-??T??:??:??.??????+00:00'"


@pytest.mark.parametrize("last", IDS)
def test_both_engines_mean_the_same(last: str, postgresql_url: str) -> None:
    """After each migration: tables, columns in order, keys, checks and indexes, but for what is allowed."""
    sqlite, postgresql = dict(_facts(_sqlite(last))), dict(_facts(_postgresql(last, postgresql_url)))
    found = {
        about: (sqlite.get(about), postgresql.get(about))
        for about in sqlite.keys() | postgresql.keys()
        if sqlite.get(about) != postgresql.get(about)
    }

    assert found == {
        about: pair for ids, pairs in ALLOWED.values() if last in ids for about, pair in pairs.items()
    }


def test_every_key_holds_the_player_and_everything_has_a_name(postgresql_url: str) -> None:
    """Citus can shard by the player, and a later migration can say what it changes."""
    tables = _postgresql(IDS[-1], postgresql_url).tables

    for name, table in tables.items():
        assert all("user_id" in key for key in (table.primary_key, *table.unique_keys))
        assert not table.foreign_keys
        assert all(constraint.startswith(f"{name}_") for constraint in table.constraints or {})
        # PostgreSQL itself would number a name that is taken.
        assert not any(re.search(r"\d$|_check$", constraint) for constraint in table.constraints or {})


def _sqlite(last: str) -> Catalog:
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
        for name in IDS[: IDS.index(last) + 1]:
            for statement in split((SQLITE / f"{name}.sql").read_text(encoding="utf-8")):
                connection.execute(statement.text)
        return describe_sqlite(connection)


def _postgresql(last: str, url: str) -> Catalog:
    with psycopg.connect(url, autocommit=True) as connection:
        for name in IDS[: IDS.index(last) + 1]:
            for statement in split((POSTGRESQL / f"{name}.sql").read_text(encoding="utf-8")):
                connection.execute(statement.text.encode())
        return describe_postgresql(connection, "public")


def _facts(catalog: Catalog) -> Iterator[tuple[str, str]]:
    """Return a schema as short statements in words that both engines share."""
    for name, table in catalog.tables.items():
        yield f"table {name}", ", ".join(sorted(table.options - {"AUTOINCREMENT"}))
        yield f"order of columns in {name}", ", ".join(table.columns)
        yield f"primary key of {name}", ", ".join(table.primary_key)
        for key in table.unique_keys:
            yield f"unique key of {name} ({', '.join(key)})", "present"
        for foreign in table.foreign_keys:
            yield f"foreign key of {name} {foreign}", "present"
        checks = set(table.checks)
        for column, described in table.columns.items():
            yield f"column {name}.{column}", _column(table, column, described, checks)
        for check in checks:
            yield f"check of {name}: {_condition(check)}", "present"
    for name, index in catalog.indexes.items():
        yield f"index {name}", str(index).removeprefix("on ")
    for name in (*catalog.triggers, *catalog.views):
        yield f"trigger or view {name}", "present"


def _column(table: Table, name: str, column: Column, checks: set[str]) -> str:
    """Return what a column holds; a check that only tells its type is taken out of the checks."""
    declared = f"{column.type} {column.extra}".strip()
    kind = MEANINGS.get(declared, f"{declared} (no known meaning)")
    for check, meaning in ((IS_JSON, "JSON"), (IS_TIME, "time")):
        if kind == "text" and check.format(name) in checks:
            kind = meaning
            checks.remove(check.format(name))
    if table.primary_key == (name,) and "AUTOINCREMENT" in table.options:
        kind = "counted integer"
    default = NOW.sub("now", f" DEFAULT {column.default}") if column.default else ""
    return f"{kind}{'' if column.nullable else ' NOT NULL'}{default}"


def _condition(check: str) -> str:
    """Return a condition as both engines could say it."""
    check = re.sub(r"(\w+) BETWEEN (\S+) AND (\S+)", r"\1 >= \2 AND \1 <= \3", check)
    check = re.sub(r"::(double precision|text|json)", "", check)
    return re.sub(r"(\d)\.0\b", r"\1", check)
