"""The script that pg_restore writes for a dump, read as data: only pg_dump's statements for tables are run.

A dump is untrusted, and the role that restores it is powerful. So each statement must be one with which
pg_dump recreates the tables, views and sequences of one schema. It may call functions of PostgreSQL that
change nothing, and functions of roles that the restoring role already trusts. Each is sent by itself, so that
it cannot carry a second statement.
"""

import os
import re
from collections.abc import Iterator
from itertools import islice, takewhile
from pathlib import Path
from typing import IO, Any

import psycopg

from poker_therapist.errors import DatabaseUnreadable, escaped
from poker_therapist.migrations.progress import report_progress
from poker_therapist.postgresql.home import quoted, strangers_among
from poker_therapist.postgresql.split import split

# What only psql understands, what an older server does not know, and settings that the session has already.
_LEFT_OUT = re.compile(
    rb"\\(un)?restrict \w+\n|SET (lock|transaction)_timeout = 0;\n"
    rb"|SELECT pg_catalog\.set_config\('search_path', '', false\);\n"
)
_COPY = re.compile(rb"COPY (.+) \(.*\) FROM stdin;\n")
is_row = b"\\.\n".__ne__  # in what follows such a line

_WORD = r'(?:[a-z_]\w*|"(?:[^"]|"")+")'
# How each begins, {} being a name in the schema; texts are empty by then.
_FORMS = (
    r"SET \w+ = (?:\w+|'');",
    r"SELECT pg_catalog\.setval\('', \d+, (?:true|false)\);",
    r"CREATE (?:UNLOGGED )?TABLE {} \(",
    r"CREATE SEQUENCE {}\s[\w\s]*;",
    r"ALTER SEQUENCE {} OWNED BY {}\.[^.;]+;",
    r"CREATE VIEW {}(?: \([^()]*\))?(?: WITH \([^()]*\))? AS\s+(?:SELECT|WITH)\b",
    r"ALTER TABLE (?:ONLY )?{}\s+(?:ADD CONSTRAINT|ATTACH PARTITION {}|CLUSTER ON|REPLICA IDENTITY)",
    r"ALTER TABLE (?:ONLY )?{} (?:FORCE ROW|ENABLE|DISABLE)",
    r"ALTER TABLE (?:ONLY )?{} ALTER COLUMN \S+ (?:ADD GENERATED|SET (?:DEFAULT|STATISTICS|STORAGE|\())",
    r"CREATE (?:UNIQUE )?INDEX \S.* ON (?:ONLY )?{} USING ",
    r"ALTER INDEX {} ATTACH PARTITION {};",
    r"CREATE (?:CONSTRAINT )?TRIGGER \S.*? ON {} ",
    r"CREATE POLICY \S.*? ON {}[ ;]",
    r"CREATE RULE \S.*? AS\s+ON \w+ TO {}(?:\s+WHERE .*)? DO (?:INSTEAD )?NOTHING;",
    r"COMMENT ON [A-Z ]+ (?:\S.* ON )?(?:{}|{}\.[^.;]+) IS '';",
    r"SECURITY LABEL FOR [^;]* IS '';",
    r"COPY {} \([^()]*\) FROM stdin;",
)
_NEVER = re.compile(
    r"\$\w*\$|--|/\*|\bE''|\bOWNER\s+TO\b|\bSET\s+(?:SCHEMA|TABLESPACE)\b|\bTYPE\b.*\bUSING\b",
    re.IGNORECASE | re.DOTALL,
)
_TEXT = re.compile(r"""'(?:[^']|'')*'|"(?:[^"]|"")*\"""")
_CALL = re.compile(rf"(?:({_WORD})\s*\.\s*)?({_WORD})\s*\(", re.IGNORECASE)
_NAMED = re.compile(rf"({_WORD})\s*\.\s*({_WORD})", re.IGNORECASE)
# Words before a parenthesis that call no function.
_WORDS = frozenset(
    re.findall(
        r"\w+",
        """
    all and any array as bit brin btree by case cast char character check coalesce distinct except
    exclude exists extract filter foreign from generated gin gist greatest hash having identity in
    include index inherits intersect interval is join key least like limit list not null nullif numeric
    offset on or order over partition precision primary range references row select set some spgist then
    time timestamp to union unique using values varchar varying when where with
    """,
    )
)
# Functions of PostgreSQL's whose result changes from call to call, and which do nothing else.
_HARMLESS = {
    "clock_timestamp",
    "gen_random_uuid",
    "nextval",
    "random",
    "statement_timestamp",
    "uuidv4",
    "uuidv7",
}
_HARMLESS |= {"suppress_redundant_updates_trigger", "tsvector_update_trigger"}
_VOLATILE = (
    "SELECT proname FROM pg_proc WHERE pronamespace = CAST('pg_catalog' AS REGNAMESPACE) "
    "AND proname = ANY(CAST($1 AS TEXT[])) AND (provolatile = 'v' OR proname LIKE '%to\\_xml%')"
)


def parts(script: IO[bytes]) -> Iterator[str]:
    """Yield the statements of a script; the caller reads the rows of a COPY from the file."""
    script.seek(0)
    text = bytearray()
    for line in script:
        if _COPY.fullmatch(line):
            yield from (one.text for one in split(text.decode(errors="replace")))
            text.clear()
            yield line.decode(errors="replace").rstrip("\n")
        elif not _LEFT_OUT.fullmatch(line):
            text += line
    yield from (one.text for one in split(text.decode(errors="replace")))


def require_harmless(connection: psycopg.Connection[Any], schema: str, file: Path, script: IO[bytes]) -> None:
    """Refuse a script that holds more than what pg_dump writes of the tables of a schema.

    Raises:
        DatabaseUnreadable: with how the statement begins; no value of a player's is shown.
    """
    name = rf"(?:{re.escape(schema)}|{re.escape(quoted(schema))})\.{_WORD}"
    forms = re.compile("|".join(form.replace("{}", name) for form in _FORMS), re.DOTALL)
    calls, named, begins = set[str](), set[tuple[str, str]](), dict[str, str]()
    for statement in parts(script):
        if statement.startswith("COPY "):
            for _ in takewhile(is_row, script):
                pass
        bare = _TEXT.sub(lambda found: found[0] if found[0][0] == '"' else "''", statement)
        begin = forms.match(bare)
        if begin is None or _NEVER.search(bare):
            raise _refusal(file, statement)
        for found in _CALL.finditer(bare, begin.end()):
            if (found[1] or "pg_catalog").lower() == "pg_catalog":
                called = found[2].lower()
                if found[1] or called not in _WORDS:
                    calls.add(called)
                    begins[called] = statement
        for found in _NAMED.finditer(bare):
            pair = _plain(found[1]), _plain(found[2])
            named.add(pair)
            begins[".".join(pair)] = statement
    cursor = psycopg.RawCursor(connection)
    found_there = {one for (one,) in cursor.execute(_VOLATILE, (sorted(calls),)).fetchall()}
    for called in sorted(found_there - _HARMLESS):
        raise _refusal(file, begins[called])
    for stranger in strangers_among(connection, named):
        raise _refusal(file, begins[stranger])


def run(connection: psycopg.Connection[Any], script: IO[bytes]) -> None:
    """Run what `require_harmless` has let pass.

    The rows are frozen, so that a transaction that waited for a table, with a snapshot from before, sees them
    and not an empty table.
    """
    size = os.fstat(script.fileno()).st_size
    with connection.cursor() as cursor:
        for statement in parts(script):
            if statement.startswith("COPY "):
                frozen = statement.replace(" FROM stdin;", " FROM stdin WITH (FREEZE)")
                with cursor.copy(frozen.encode()) as copy:
                    rows = takewhile(is_row, script)
                    while some := b"".join(islice(rows, 100)):  # one by one would take several times as long
                        copy.write(some)
                        report_progress(f"restoring {connection.info.dbname}", script.tell(), size)
            else:
                report_progress(f"restoring {connection.info.dbname}: tables, constraints, indexes")
                cursor.execute(statement.encode(), binary=True)  # by a protocol that takes one alone


def _plain(name: str) -> str:
    return name[1:-1].replace('""', '"') if name[0] == '"' else name.lower()


def _refusal(file: Path, statement: str) -> DatabaseUnreadable:
    begin = escaped(" ".join(_TEXT.sub("…", statement).split())[:60])
    return DatabaseUnreadable(
        f"{file} has an unexpected statement ({begin}): nothing was changed; if you trust it, restore it "
        "with pg_restore"
    )
