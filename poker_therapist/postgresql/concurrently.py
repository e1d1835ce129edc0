"""Statements that no transaction may hold and that keep nobody waiting: CONCURRENTLY, and what is left of it.

Such a statement waits for every transaction that is older. Stopped in the middle it leaves an index that is
INVALID: no query uses it, every save keeps it up, and IF NOT EXISTS takes it for the one that is wanted.
"""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import psycopg
from psycopg import sql

from poker_therapist.migrations.effects import NAME
from poker_therapist.postgresql.connect import is_idle, is_lost
from poker_therapist.sqlfile import Placeholders, read_queries

_QUERIES = read_queries(Placeholders.POSTGRESQL, Path(__file__).with_suffix(".sql"))
_CREATES = re.compile(
    rf"CREATE (?:UNIQUE )?INDEX (CONCURRENTLY )?(?:IF NOT EXISTS )?(?:(?!ON ){NAME} ?)?ON (?:ONLY )?{NAME}",
    re.I,
)
_REINDEXES = re.compile(rf"REINDEX (?:\(.*?\) ?)?(INDEX|TABLE|SCHEMA|DATABASE) CONCURRENTLY ?{NAME}?", re.I)
_DETACHES = re.compile(
    rf"ALTER TABLE (?:IF EXISTS )?(?:ONLY )?{NAME} DETACH PARTITION {NAME} CONCURRENTLY", re.I
)
ANY = re.compile(r"\bCONCURRENTLY\b", re.I)


class _Index(NamedTuple):
    """An index that is not valid, what it is called with its schema, and whether it is REINDEX's own."""

    oid: int
    schema: str
    name: str
    is_transient: bool


@contextmanager
def building(
    connection: psycopg.Connection[Any], line: str, limit: str, tell: Callable[[str], None]
) -> Iterator[str]:
    """Let a statement about an index be run, in the block, so that it leaves no INVALID one.

    Args:
        connection: on which it is run.
        line: the statement on one line, as `effects.code` returns it.
        limit: our own limit to the wait for a lock, which does not hold where nobody else is kept waiting.
        tell: called with a sentence about what is done beside it.

    Yields:
        what is to be run in its place; empty if it is to be run as it is.
    """
    is_concurrent = ANY.search(line) is not None and is_idle(connection)
    waits = is_concurrent and connection.execute("SHOW lock_timeout").fetchone() == (limit,)
    if waits:
        connection.execute("SET lock_timeout = 0")
    try:
        if (found := _DETACHES.match(line)) and _ask(connection, "is_detaching", found[2]):
            yield f"ALTER TABLE {found[1]} DETACH PARTITION {found[2]} FINALIZE"
            return
        created, again = _CREATES.match(line), _REINDEXES.match(line)
        if created is None and again is None:
            yield ""
            return
        scope = created[3] if created else again[2] if again else None
        kind = "TABLE" if created else again[1].upper() if again else ""
        before = _invalid(connection, kind, scope)
        for one in before:
            named = created and created[2] and _ask(connection, "is_named", created[2], one.name)
            if named or (again and one.is_transient and kind in ("INDEX", "TABLE")):
                tell(f"{one.name} is INVALID, left by an earlier try: it is dropped first")
                _drop(connection, one, is_concurrent=is_concurrent)
        try:
            yield ""
        except psycopg.Error:
            if is_concurrent and not is_lost(connection):
                with suppress(psycopg.Error):  # the next try finds it
                    connection.execute("SELECT set_config('lock_timeout', %s, FALSE)", (limit,))
                    for one in set(_invalid(connection, kind, scope)) - set(before):
                        _drop(connection, one, is_concurrent=True)
            raise
        if is_concurrent and (left := set(_invalid(connection, kind, scope)) - set(before)):
            raise psycopg.DataError(f"the index {min(one.name for one in left)} is INVALID: run it again")
    finally:
        if waits and is_idle(connection):
            connection.execute("SELECT set_config('lock_timeout', %s, FALSE)", (limit,))


def _invalid(connection: psycopg.Connection[Any], kind: str, scope: str | None) -> list[_Index]:
    return [_Index(*row) for row in _ask(connection, "invalid_indexes", kind, scope)]


def _drop(connection: psycopg.Connection[Any], index: _Index, *, is_concurrent: bool) -> None:
    how = "DROP INDEX CONCURRENTLY IF EXISTS {}" if is_concurrent else "DROP INDEX IF EXISTS {}"
    connection.execute(sql.SQL(how).format(sql.Identifier(index.schema, index.name)))


def _ask(connection: psycopg.Connection[Any], name: str, *values: Any) -> list[Any]:
    return psycopg.RawCursor(connection).execute(_QUERIES[name], values).fetchall()
