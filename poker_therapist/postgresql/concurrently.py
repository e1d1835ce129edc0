"""CONCURRENTLY: statements that cannot run in a transaction and block no one, and what a failed one leaves.

Such a statement waits for every transaction that is older. Stopped in the middle it leaves an index that is
INVALID: no query uses it, every save keeps it up, and IF NOT EXISTS takes it for the one that is wanted.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, NamedTuple

import psycopg
from psycopg import sql

from poker_therapist.migrations.clauses import NAME
from poker_therapist.postgresql.connect import is_idle, is_lost

_BLANK_OR_TEXT = re.compile(
    r"""(?: \s | --[^\n]* | /\*.*?\*/ )+ | (?P<text> '[^']*' | (?P<tag>\$\w*\$).*?(?P=tag) ) | "[^"]*" """,
    re.VERBOSE | re.DOTALL,
)
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
    """An index that is not valid; whether it is REINDEX's own, and whether a valid one is like it."""

    oid: int
    schema: str
    name: str
    is_transient: bool
    has_twin: bool


def on_one_line(text: str) -> str:
    """Return a statement on one line, without comments, and with nothing in its texts."""

    def shortened(found: re.Match[str]) -> str:
        return "''" if found["text"] else found[0] if found[0][0] == '"' else " "

    return _BLANK_OR_TEXT.sub(shortened, text).strip()


@contextmanager
def building(backend: Any, line: str, limit: str) -> Iterator[str]:
    """Let a statement about an index be run, in the block, so that it leaves no INVALID one.

    Args:
        backend: runs it.
        line: the statement, as `on_one_line` returns it.
        limit: our own limit to the wait for a lock, except for statements that block no other session.

    Yields:
        what is to be run in its place; empty if it is to be run as it is.
    """
    connection: psycopg.Connection[Any] = backend.connection
    is_concurrent = ANY.search(line) is not None and is_idle(connection)
    waits = is_concurrent and connection.execute("SHOW lock_timeout").fetchone() == (limit,)
    if waits:
        backend.query("set_lock_timeout", ("0",))
    try:
        if (found := _DETACHES.match(line)) and backend.query("is_detaching", (found[2],)):
            yield f"ALTER TABLE {found[1]} DETACH PARTITION {found[2]} FINALIZE"
        elif created := _CREATES.match(line):
            with _leaving_none(backend, "TABLE", created[3], created[2] or "", is_concurrent=is_concurrent):
                yield ""
        elif again := _REINDEXES.match(line):
            with _leaving_none(backend, again[1].upper(), again[2], None, is_concurrent=is_concurrent):
                yield ""
        else:
            yield ""
    finally:
        if waits and is_idle(connection):
            backend.query("set_lock_timeout", (limit,))


@contextmanager
def _leaving_none(
    backend: Any, kind: str, scope: str | None, name: str | None, *, is_concurrent: bool
) -> Iterator[None]:
    """Drop the INVALID indexes that earlier tries of a statement have left, and what it leaves itself."""
    before = _invalid(backend, kind, scope)
    known = {one.oid for one in before}
    for one in before:
        if name and backend.query("is_named", (name, one.name)):
            _drop(backend, one, is_concurrent=is_concurrent)
        elif one.is_transient and kind in ("INDEX", "TABLE") and is_concurrent:
            _drop(backend, one, is_concurrent=True)
    try:
        yield
    except psycopg.Error:
        if is_concurrent and not is_lost(backend.connection):
            with suppress(psycopg.Error):  # the next try finds it
                for one in _invalid(backend, kind, scope):
                    if one.oid not in known:
                        _drop(backend, one, is_concurrent=True)
        raise
    for one in _invalid(backend, kind, scope) if is_concurrent else ():
        if one.oid not in known:
            raise psycopg.DataError(f"the index {one.name} is INVALID: run the migration again")
        if name == "" and one.has_twin:  # of which PostgreSQL has chosen the name
            _drop(backend, one, is_concurrent=True)


def _invalid(backend: Any, kind: str, scope: str | None) -> list[_Index]:
    if not backend.query("has_invalid_index"):  # to plan the other question takes as long as a small index
        return []
    return [_Index(*row) for row in backend.query("invalid_indexes", (kind, scope))]


def _drop(backend: Any, index: _Index, *, is_concurrent: bool) -> None:
    backend.tell_operator(f"dropping the index {index.name}, which a failed attempt has left INVALID")
    how = "DROP INDEX CONCURRENTLY IF EXISTS {}" if is_concurrent else "DROP INDEX IF EXISTS {}"
    backend.connection.execute(sql.SQL(how).format(sql.Identifier(index.schema, index.name)))
