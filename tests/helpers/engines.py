"""What the tests of the storage ask of a database beside the storage, whichever engine it is on."""

import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, cast

import psycopg
import pytest

from poker_therapist import PatternStorage
from poker_therapist.database import Database
from tests.helpers.pooler import past

# For tests of what one engine alone does.
sqlite_only = pytest.mark.parametrize("engine", ["sqlite"], indirect=True)
postgresql_only = pytest.mark.parametrize("engine", ["postgresql"], indirect=True)


def per_engine(cases: Mapping[str, Iterable[object]]) -> pytest.MarkDecorator:
    """Run a test with the cases of each engine on that engine; its argument is `case`."""
    pairs = [(engine, case) for engine, of_engine in cases.items() for case in of_engine]
    return pytest.mark.parametrize(("engine", "case"), pairs, indirect=["engine"])


def is_server(database: str | Path) -> bool:
    """Return whether a database is PostgreSQL's: a URL, and no path."""
    return str(database).startswith("postgresql://")


def with_options(database: str, options: str) -> str:
    """Return the URL of a database with options, such as `timeout=0.1`."""
    if is_server(database):
        return f"{database}{'&' if '?' in database else '?'}{options}"
    return f"sqlite:///{database}?{options}"


def query(database: str | Path, sql: str) -> list[tuple[Any, ...]]:
    """Return the rows of a query on a connection of its own, as another program would read them."""
    if is_server(database):
        with psycopg.connect(past(str(database)), autocommit=True) as connection:
            return connection.execute(sql.encode()).fetchall()
    with closing(sqlite3.connect(database)) as connection:
        return connection.execute(sql).fetchall()


def run_sql(database: str | Path, sql: str) -> None:
    """Run statements on a connection of their own, as another program would."""
    if is_server(database):
        with psycopg.connect(past(str(database)), autocommit=True) as connection:
            connection.execute(sql.encode())
    else:
        with closing(sqlite3.connect(database)) as connection:
            connection.executescript(sql)


def fetch_all(storage: PatternStorage, sql: str, values: Sequence[Any] = ()) -> list[Any]:
    """Return the rows of a query on the connection that the storage itself would use; `?1` is a parameter."""
    return _with_query(storage, sql).fetch_all("asked by a test", values)


def execute(storage: PatternStorage, sql: str, values: Sequence[Any] = ()) -> int:
    """Run a statement on the connection that the storage itself would use and count the rows."""
    return _with_query(storage, sql).execute("asked by a test", values)


def execute_later(storage: PatternStorage, sql: str, values: Sequence[Any] = ()) -> None:
    """Run a statement as a save is run: inside a transaction PostgreSQL may be sent it later."""
    _with_query(storage, sql).execute_later("asked by a test", values)


def _with_query(storage: PatternStorage, sql: str) -> Database:
    database: Any = storage._database
    mark = "$1" if is_server(database.location.name) else "?"
    if mark == "$1":
        sql = database.home.qualified(sql)
    database._queries = {**database._queries, "asked by a test": sql.replace("?1", mark)}
    return cast(Database, database)


def columns(database: str | Path) -> dict[str, set[str]]:
    """Return the names of all tables and of their columns."""
    found = query(
        database,
        "SELECT relname, attname FROM pg_class JOIN pg_attribute ON attrelid = pg_class.oid WHERE "
        "relnamespace = to_regnamespace('public') AND relkind IN ('r', 'p', 'v', 'f') AND attnum > 0 "
        "AND NOT attisdropped"
        if is_server(database)
        else "SELECT tables.name, columns.name "
        "FROM sqlite_schema AS tables, pragma_table_info(tables.name) AS columns WHERE tables.type = 'table'",
    )
    return {table: {column for of, column in found if of == table} for table, _ in found}
