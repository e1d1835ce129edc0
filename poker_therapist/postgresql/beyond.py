"""What a statement does beyond the database that it runs in, which no copy of that keeps apart."""

import re
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psycopg

from poker_therapist.migrations.effects import code
from poker_therapist.sqlfile import Placeholders, read_queries

_QUERIES = read_queries(Placeholders.POSTGRESQL, Path(__file__).with_suffix(".sql"))
_SHARED = r"(?:DATABASE|GROUP|ROLE|SUBSCRIPTION|TABLESPACE|USER(?! MAPPING))"
# By how it begins. GRANT and REVOKE of a role have no ON.
_OF_THE_SERVER = (
    rf"(?:CREATE|ALTER|DROP|COMMENT ON) {_SHARED}\b|SECURITY LABEL (?:FOR \S+ )?ON {_SHARED}\b|ALTER SYSTEM\b"
    r"|(?:DROP|REASSIGN) OWNED\b|(?:GRANT|REVOKE) (?![^;]*\bON\b)|(?:GRANT|REVOKE) [^;]*?\bON "
    r"(?:DATABASE|PARAMETER|TABLESPACE)\b"
)
_BEGINS = re.compile(_OF_THE_SERVER, re.IGNORECASE)
_ANYWHERE = re.compile(rf"\b(?:{_OF_THE_SERVER})", re.IGNORECASE)
# What no transaction can roll back, anywhere in a statement.
_AT_ONCE = re.compile(
    r"\bCOPY\b[^;]*?\b(?:TO (?!STDOUT\b)(?:PROGRAM\b|(?:E|U&)?['$])|FROM PROGRAM\b)|\b(?:dblink\w*|lo_export"
    r"|pg_(?:cancel_backend|terminate_backend|reload_conf|rotate_logfile|promote|switch_wal|file_\w+"
    r"|create_restore_point|backup_st\w+|replication_origin_\w+|replication_slot\w+|stat_reset_shared"
    r"|(?:create|drop|copy|sync)_\w*replication_slots?\w*|(?:log|wal)\w*_(?:pause|resume)|stat_statements_reset"
    r")) ?\(",
    re.IGNORECASE,
)
_COMMENT = re.compile(r"--[^\n]*|/\*.*?\*/", re.DOTALL)
_RUNS_CODE = re.compile(r"DO\b", re.IGNORECASE)
_TRIES = 20


def beyond(text: str, *, is_undone: bool) -> str:
    """Return the effects of a statement outside its database, as far as its text shows; empty if none.

    Args:
        text: the statement.
        is_undone: whether it is rolled back before others see it, as far as that is possible.
    """
    line = code(text)
    found = _BEGINS.match(line) or _AT_ONCE.search(line)
    if found is None and (_RUNS_CODE.match(line) or line[:4].upper() == "COPY"):
        inside = " ".join(_COMMENT.sub(" ", text).split())
        found = _AT_ONCE.search(inside) or (None if is_undone else _ANYWHERE.search(inside))
    if found is None:
        return ""
    words = found[0].strip(" ('$").split()[:3]
    return "COPY to a file or a program" if words[0].upper() == "COPY" else " ".join(words)


def is_of_server(text: str) -> bool:
    """Return whether a statement is about what all databases of a server share, by how it begins."""
    return bool(_BEGINS.match(code(text)))


def changes_server(mine: psycopg.Connection[Any], other: psycopg.Connection[Any]) -> str:
    """Return what a session in a transaction has changed of the server's shared objects; empty if nothing.

    What only one session sees, it has changed itself: changes of others are seen by both in the end.
    """
    for _ in range(_TRIES):
        seen = [set(_ask(one, "shared")) for one in (mine, other)]
        if seen[0] == seen[1]:
            return ""
        time.sleep(0.01)
    return ", ".join(sorted({what for what, *_ in seen[0] ^ seen[1]}))


def reached(connection: psycopg.Connection[Any], schema: str) -> str:
    """Return a table outside a schema that the open transaction has changed or locked; empty if none."""
    found = _ask(connection, "reached", (schema,))
    return str(found[0][0]) if found else ""


def _ask(connection: psycopg.Connection[Any], query: str, values: Sequence[Any] = ()) -> list[Any]:
    return psycopg.RawCursor(connection).execute(_QUERIES[query], values).fetchall()
