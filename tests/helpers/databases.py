"""Databases for tests on one PostgreSQL server: the run's own, or the one that the environment names."""

import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from itertools import count
from pathlib import Path
from urllib.parse import urlsplit

import psycopg
import pytest
from psycopg import sql

from tests.helpers.server import FAST, MODEL, Server, keep_server

VARIABLE = "POKER_THERAPIST_TEST_POSTGRESQL"
PREFIX = "poker_therapist_test_"


@dataclass(frozen=True)
class Run:
    """One run of the tests, as all its processes know it."""

    name: str  # begins the name of every database
    server: str  # the URL of the server that was named, or the folder of our own

    def open(self) -> str:
        """Return the URL of a database that is always there, having started our own server."""
        if "://" in self.server:
            return self.server
        server = Server(Path(self.server))
        server.start(**FAST)
        return server.url()


@contextmanager
def begin_run() -> Iterator[Run]:
    """Begin a run that leaves nothing behind; our own server starts when the first test wants it."""
    name = PREFIX + secrets.token_hex(4)
    if VARIABLE not in os.environ:
        with keep_server(MODEL) as server:
            yield Run(name, str(server.folder))
        return

    url = os.environ[VARIABLE]
    try:
        # It stays connected under the run's name: that shows other runs that this one is alive.
        opened = psycopg.connect(url, autocommit=True, application_name=name)
    except psycopg.Error as error:
        raise pytest.UsageError(f"{VARIABLE}: {error}") from error
    with opened as connection:
        _drop_leftovers(connection)
        try:
            yield Run(name, url)
        finally:
            for database in _names(connection, name):
                _drop(connection, database)


class Databases:
    """Makes databases on the server of the run. Each is used by one test."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self._url = run.open()
        self._connection = psycopg.connect(self._url, autocommit=True, application_name=run.name)
        self._names = (f"{run.name}_{os.getpid()}_{number}" for number in count())
        self._used: list[str] = []

    def close(self) -> None:
        """Close the connection. What is still there goes with the run."""
        self._connection.close()

    @contextmanager
    def fresh(self, template: str = "") -> Iterator[str]:
        """Give the URL of a new database, made like a template, which is empty if none is named."""
        name = next(self._names)
        self._create(name, template or self._empty)
        try:
            yield _at(self._url, name)
        finally:
            # A drop waits a tenth of a second for a session that has not quite ended; in some tests it has.
            self._used.append(name)
            while len(self._used) > 3:
                _drop(self._connection, self._used.pop(0))

    @cached_property
    def _empty(self) -> str:
        if "://" in self.run.server:
            return "template0"
        # The first session in a database writes down what each one looks up: in a copy, it is there.
        return self.template(lambda url: psycopg.connect(url).close(), "empty")

    def template(self, fill: Callable[[str], None], kind: str = "template") -> str:
        """Return the name of a template of the run; the process that is first makes it, the others wait."""
        name = f"{self.run.name}_{kind}"
        self._connection.execute("SELECT pg_advisory_lock(hashtext(%s))", [name])
        try:
            if not _names(self._connection, name):
                in_making = f"{self.run.name}_in_making_{kind}"
                _drop(self._connection, in_making)  # of a process that died over it
                self._create(in_making, "template0")
                fill(_at(self._url, in_making))
                # A database to which somebody is connected cannot be copied.
                self._alter(in_making, sql.SQL("ALLOW_CONNECTIONS false"))
                self._alter(in_making, sql.SQL("RENAME TO {}").format(sql.Identifier(name)))
        finally:
            self._connection.execute("SELECT pg_advisory_unlock(hashtext(%s))", [name])
        return name

    def _create(self, name: str, template: str) -> None:
        # The other strategy, WAL_LOG, writes every page twice: measured, it takes twice as long.
        self._connection.execute(
            sql.SQL("CREATE DATABASE {} TEMPLATE {} ENCODING 'UTF8' STRATEGY file_copy").format(
                sql.Identifier(name), sql.Identifier(template)
            )
        )

    def _alter(self, name: str, change: sql.Composable) -> None:
        self._connection.execute(sql.SQL("ALTER DATABASE {} {}").format(sql.Identifier(name), change))


def _drop_leftovers(connection: psycopg.Connection) -> None:
    """Drop the databases of killed runs: nobody is in them, and their run is not connected either."""
    left = connection.execute(
        """
        SELECT datname FROM pg_database AS d
        WHERE datname ^@ %s AND NOT EXISTS (
            SELECT FROM pg_stat_activity AS a
            WHERE a.datname = d.datname OR (a.application_name ^@ %s AND d.datname ^@ a.application_name)
        )
        """,
        [PREFIX, PREFIX],
    ).fetchall()
    for (name,) in left:
        # Another run may be dropping it too, or somebody has come.
        with suppress(psycopg.errors.ObjectInUse):
            connection.execute(sql.SQL("DROP DATABASE IF EXISTS {}").format(sql.Identifier(name)))


def _drop(connection: psycopg.Connection, name: str) -> None:
    connection.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))


def _names(connection: psycopg.Connection, beginning: str) -> list[str]:
    found = connection.execute("SELECT datname FROM pg_database WHERE datname ^@ %s", [beginning])
    return [name for (name,) in found]


def _at(url: str, database: str) -> str:
    """Return the URL of another database on the same server."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}/{database}" + (f"?{parts.query}" if parts.query else "")
