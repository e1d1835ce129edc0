"""Databases that tests create on a PostgreSQL server, and drop there."""

import secrets
from collections.abc import Callable
from contextlib import closing, suppress
from dataclasses import replace
from itertools import count
from typing import Any
from urllib.parse import urlsplit

import psycopg
from psycopg import sql

from poker_therapist.compat import override
from poker_therapist.engines import engine_for
from poker_therapist.errors import InvalidInput
from poker_therapist.location import PostgreSQLLocation, locate
from poker_therapist.migrations import catalog
from poker_therapist.migrations.engine import Engine
from poker_therapist.postgresql.catalog import describe, describe_all
from poker_therapist.postgresql.connect import open_connection, translating_errors
from poker_therapist.testing.scratch import VARIES, Scratch

# Begins the name of every database; a killed run leaves some, and the next one drops them.
PREFIX = "poker_therapist_test_"
_READS = ("SELECT", "SET", "SHOW", "RESET", "DISCARD")

_SCHEMA = "SELECT current_schema()"
_ROWS = sql.SQL("SELECT CAST(t AS TEXT) FROM {} AS t ORDER BY 1")
_TABLES = (
    "SELECT schemaname, tablename FROM pg_tables "
    "WHERE schemaname NOT IN ('pg_catalog', 'information_schema') ORDER BY 1, 2"
)
# INVALID indexes, and sequences, which no rollback resets.
_UNDESCRIBED = (
    "SELECT CAST(i AS TEXT) FROM pg_index AS i WHERE NOT (indisvalid AND indisready) ORDER BY 1",
    "SELECT CAST(s AS TEXT) FROM pg_sequences AS s ORDER BY 1",
)


class PostgreSQLScratch(Scratch[str]):
    """Databases of one server, each named by its URL."""

    def __init__(self, url: str) -> None:
        """Connect to a database of the server, with a role that may create databases.

        Raises:
            InvalidInput, StorageError: it is no URL of PostgreSQL; the server cannot be used.
        """
        location = _place(url)
        self._url, self._location, self._run = url, location, f"{PREFIX}{secrets.token_hex(4)}"
        self._numbers, self._made = count(), set[str]()
        with translating_errors(location):
            self._connection = open_connection(replace(location, schema=None))
            self._ask("SELECT set_config('application_name', %s, FALSE)", self._run)
            self._drop_leftovers()

    @override
    def create(self) -> str:
        return self._make("template0")

    @override
    def copy(self, original: str) -> str:
        return self._make(_name_of(original))

    @override
    def drop(self, database: str) -> None:
        self._drop(_name_of(database))

    @override
    def close(self) -> None:
        with closing(self._connection), suppress(psycopg.Error):  # the server may be gone by now
            for name in list(self._made):
                self._drop(name)

    @override
    def engine(self, database: str) -> Engine:
        return engine_for(locate(database))

    @override
    def freeze(self, database: str) -> None:
        name = sql.Identifier(_name_of(database))
        self._ask(sql.SQL("ALTER DATABASE {} ALLOW_CONNECTIONS false").format(name))
        self._ask(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = %s",
            _name_of(database),
        )

    @override
    def differences(self, expected: str, actual: str) -> list[str]:
        places = _place(expected), _place(actual)
        with closing(open_connection(places[0])) as one, closing(open_connection(places[1])) as other:
            schemas = [str(_all(each, _SCHEMA)[0][0]) for each in (one, other)]
            catalogs = [describe(each, schema) for each, schema in zip((one, other), schemas, strict=True)]
            found = [str(difference) for difference in catalog.differences(*catalogs)]
            for table in catalogs[0].tables.keys() & catalogs[1].tables.keys():
                rows = [
                    _all(each, _ROWS.format(sql.Identifier(schema, table)))
                    for each, schema in zip((one, other), schemas, strict=True)
                ]
                if rows[0] != rows[1]:
                    found.append(f"the rows of {table} differ")
        return found

    @override
    def state(self, database: str) -> list[object]:
        with closing(open_connection(_place(database))) as connection:
            found: list[object] = [describe_all(connection, str(_all(connection, _SCHEMA)[0][0]))]
            found += [_all(connection, query) for query in _UNDESCRIBED]
            for names in _all(connection, _TABLES):
                rows = _all(connection, _ROWS.format(sql.Identifier(*names)))
                is_record = names[1].startswith(catalog.BOOKKEEPING)
                found += [names, *(VARIES.sub("", row) if is_record else row for (row,) in rows)]
        return found

    @override
    def watch(self, before: Callable[[str], None]) -> None:
        execute = psycopg.Cursor.execute

        def watched(self: psycopg.Cursor, query: Any, *arguments: Any, **options: Any) -> psycopg.Cursor:
            text = query.decode() if isinstance(query, bytes) else str(query)
            if not text.lstrip().upper().startswith(_READS):
                before(text)
            return execute(self, query, *arguments, **options)

        psycopg.Cursor.execute = watched  # type: ignore[assignment, method-assign]

    def _make(self, template: str) -> str:
        name = f"{self._run}_{next(self._numbers)}"
        with translating_errors(self._location):
            # The other strategy, WAL_LOG, takes twice as long.
            self._ask(
                sql.SQL("CREATE DATABASE {} TEMPLATE {} ENCODING 'UTF8' STRATEGY file_copy").format(
                    sql.Identifier(name), sql.Identifier(template)
                )
            )
        self._made.add(name)
        parts = urlsplit(self._url)
        return f"{parts.scheme}://{parts.netloc}/{name}" + (f"?{parts.query}" if parts.query else "")

    def _drop(self, name: str) -> None:
        self._ask(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))
        self._made.discard(name)

    def _drop_leftovers(self) -> None:
        """Drop what killed runs have left: no session uses it, and its run is not connected."""
        left = _all(
            self._connection,
            "SELECT datname FROM pg_database AS d WHERE datname ^@ %s AND NOT EXISTS (SELECT FROM "
            "pg_stat_activity AS a WHERE a.datname = d.datname OR (a.application_name ^@ %s "
            "AND d.datname ^@ a.application_name))",
            PREFIX,
            PREFIX,
        )
        for (name,) in left:
            with suppress(psycopg.Error):  # another role's, or another run drops it
                self._ask(sql.SQL("DROP DATABASE IF EXISTS {}").format(sql.Identifier(name)))

    def _ask(self, statement: Any, *values: str) -> None:
        self._connection.execute(statement, values or None)


def _all(connection: psycopg.Connection[Any], statement: Any, *values: str) -> list[Any]:
    return connection.execute(statement, values or None).fetchall()


def _place(url: str) -> PostgreSQLLocation:
    location = locate(url)
    if not isinstance(location, PostgreSQLLocation):
        raise InvalidInput(f"{location.name} is no PostgreSQL server: give a URL like postgresql://host/")
    return location


def _name_of(url: str) -> str:
    return urlsplit(url).path[1:]
