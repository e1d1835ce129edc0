"""A file of pg_dump's: reading it through, and finding out whether it is ours."""

import os
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from poker_therapist.errors import (
    DatabaseNotFound,
    DatabaseUnreadable,
    PokerTherapistError,
    SchemaTooNew,
    StorageError,
)
from poker_therapist.postgresql.backend import AtomicPostgreSQLBackend
from poker_therapist.postgresql.programs import ProgramFailed, running

TEXTS = "_migration_text"

# How a statement begins that names what it makes; a name may be quoted, and stand behind that of its schema.
_MAKES = re.compile(
    r"""
    (?: CREATE \s+ (?:OR\s+REPLACE\s+)? (?:UNLOGGED\s+)? (?:RECURSIVE\s+)? (?:MATERIALIZED\s+)?
        (?:TABLE|VIEW|SEQUENCE) \s+ (?:IF\s+NOT\s+EXISTS\s+)?
    |   ALTER \s+ (?:MATERIALIZED\s+)? (?:TABLE|VIEW|SEQUENCE) \b .*? \s RENAME \s+ TO \s+
    )
    (?: (?:\w+|"(?:[^"]|"")+") \s*\.\s* )?
    (?: (?P<plain>\w+) | "(?P<quoted>(?:[^"]|"")+)" )
    """,
    re.VERBOSE | re.IGNORECASE | re.DOTALL,
)

# A line of the list of a dump: what it is, its schema, its name. PostgreSQL writes the kinds in capitals.
_ENTRY = re.compile(r"\d+; \d+ \d+ ([A-Z ]+) (\S+) (.+) \S+")
_RELATIONS = {"TABLE", "VIEW", "MATERIALIZED VIEW"}
# What comes with a table or view, and goes with it.
_PARTS = {
    "TABLE DATA",
    "TABLE ATTACH",
    "MATERIALIZED VIEW DATA",
    "SEQUENCE",
    "SEQUENCE SET",
    "SEQUENCE OWNED BY",
    "DEFAULT",
    "CONSTRAINT",
    "CHECK CONSTRAINT",
    "FK CONSTRAINT",
    "INDEX",
    "INDEX ATTACH",
    "TRIGGER",
    "RULE",
    "POLICY",
    "ROW SECURITY",
    "STATISTICS",
    "STATISTICS DATA",
    "ACL",
    "COMMENT",
    "SECURITY LABEL",
}

# A row in COPY's text form: https://www.postgresql.org/docs/current/sql-copy.html
_ESCAPE = re.compile(r"\\(.)")
_ESCAPED = {"b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v"}


@dataclass(frozen=True)
class Dump:
    """A file of pg_dump's that was read through, and found to be of ours.

    Attributes:
        file: its absolute path.
        schema: where its tables were, and are made again.
        tables: their names.
        applied: the ids of the migrations that it records.
    """

    file: Path
    schema: str
    tables: frozenset[str]
    applied: frozenset[str]


def made_by(
    backend: AtomicPostgreSQLBackend,
    applied: Collection[str],
    kept: Mapping[str, str | None],
    sources: Sequence[str],
) -> set[str]:
    """Return the names of what migrations have made, and of the tables in which they are recorded.

    Args:
        backend: of the database.
        applied: the ids of what is applied; plain yoyo keeps no text of it, so its file is the best guess.
        kept: the texts that the database has kept, those of interrupted migrations included.
    """
    files = {one.id: one for one in backend.read(sources)}
    names = {backend.migration_table, backend.log_table, backend.version_table, backend.lock_table, TEXTS}
    for one in {*applied, *kept}:
        text = kept.get(one) or (files[one].apply_sql if one in files else "")
        for statement in backend.split(text):
            if found := _MAKES.match(statement.text):
                names.add(found["plain"].lower() if found["plain"] else found["quoted"].replace('""', '"'))
    return names


def read_dump(file: Path, backend: AtomicPostgreSQLBackend, sources: Sequence[str]) -> Dump:
    """Read a dump through; nothing is asked of a server.

    Raises:
        DatabaseNotFound: there is no such file.
        DatabaseUnreadable: it is no dump or damaged, is none of ours, or holds what is not ours.
        SchemaTooNew: it was made by a later version of the code.
        StorageError: pg_restore is missing, or too old for it.
    """
    _find(file)
    path = file.absolute()
    try:
        entries = _entries(path)
        schemas = [
            schema for kind, schema, name in entries if (kind, name) == ("TABLE", backend.migration_table)
        ]
        if len(schemas) != 1:
            raise DatabaseUnreadable(f"{file} is a dump, but none of Poker Therapist's: correct the path")
        read_through(path)
        applied = {str(row["migration_id"]) for row in _rows(path, schemas[0], backend.migration_table)}
        kept = {
            str(row["migration_id"]): row["apply_sql"]
            for row in _rows(path, schemas[0], TEXTS)
            if row["migration_table"] == backend.migration_table
        }
    except ProgramFailed as error:
        raise _unreadable(error, file) from error
    known = {one.id for one in backend.read(sources[:1])}
    if newer := sorted(
        one for one in applied - {one.id for one in backend.read(sources)} if one > max(known)
    ):
        raise SchemaTooNew(f"{file} was made by a later version ({', '.join(newer)}): update the code")
    ours = made_by(backend, applied, kept, sources)
    others = sorted(
        name
        for kind, schema, name in entries
        if kind not in _PARTS and (kind not in _RELATIONS or schema != schemas[0] or name not in ours)
    )
    if others:
        raise DatabaseUnreadable(
            f"{file} was not made by `poker-therapist backup`: it holds more than is Poker Therapist's "
            f"({', '.join(others[:3])}{', …' if others[3:] else ''}): restore it with pg_restore itself"
        )
    tables = frozenset(name for kind, _, name in entries if kind == "TABLE")
    return Dump(path, schemas[0], tables, frozenset(applied))


def _find(file: Path) -> None:
    try:
        if not file.exists():
            raise DatabaseNotFound(f"there is no file {file}: name a backup")
    except OSError as error:  # a folder that may not be entered, a name that is too long
        raise DatabaseNotFound(f"cannot look for {file} ({error.strerror}): correct the path") from error
    if file.is_dir():
        raise DatabaseNotFound(f"{file} is a folder: name the backup in it")


def _unreadable(error: ProgramFailed, file: Path) -> PokerTherapistError:
    reason = str(error)
    if "unsupported version" in reason:
        return StorageError(
            f"{file} was made by a later pg_dump than this pg_restore can read ({reason}): install "
            "PostgreSQL's client programs of that version, and put their folder first on PATH"
        )
    if re.search("does not appear to be|appears to be|too short", reason):
        return DatabaseUnreadable(f"{file} is no dump of a PostgreSQL database ({reason}): correct the path")
    return DatabaseUnreadable(f"{file} is damaged ({reason}): use another backup")


def _entries(file: Path) -> list[tuple[str, str, str]]:
    """Return the kind, schema and name of everything that a dump lists."""
    with running("pg_restore", "--list", file) as output:
        lines = output.read().decode(errors="replace").splitlines()
    return [(found[1], found[2], found[3]) for line in lines if (found := _ENTRY.fullmatch(line))]


def read_through(file: Path) -> None:
    """Read every byte of a dump: its list, at the start, says nothing of what is cut off or torn.

    Raises:
        ProgramFailed: something is.
    """
    with running("pg_restore", f"--file={os.devnull}", file):
        pass


def _rows(file: Path, schema: str, table: str) -> list[dict[str, str | None]]:
    """Return the rows of one table of a dump; none if it is not in it."""
    with running(
        "pg_restore", "--data-only", f"--schema={schema}", f"--table={table}", "--file=-", file
    ) as output:
        lines = iter(output.read().decode().split("\n"))
    for line in lines:
        if found := re.fullmatch(r"COPY .* \((.*)\) FROM stdin;", line):
            columns = found[1].split(", ")
            fields = (row.split("\t") for row in iter(lines.__next__, "\\."))
            return [dict(zip(columns, map(_value, row), strict=True)) for row in fields]
    return []


def _value(field: str) -> str | None:
    return None if field == r"\N" else _ESCAPE.sub(lambda found: _ESCAPED.get(found[1], found[1]), field)
