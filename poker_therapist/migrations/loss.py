"""Which rows a rollback would delete: those of the tables that its text drops or empties."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from poker_therapist.errors import MigrationError, escaped

_NAME = r'(?:"(?:[^"]|"")+"|`[^`]+`|\[[^\]]+\]|[\w$]+)'
_TABLE = rf"{_NAME}(?:\s*\.\s*{_NAME})?"
_TABLES = rf"(?P<tables>{_TABLE}(?:\s*\*?\s*,\s*(?:ONLY\s+)?{_TABLE})*)"
# Texts and comments say nothing of tables; quoted names do.
_SILENT = re.compile(r"'(?:[^']|'')*'|--[^\n]*|/\*.*?\*/", re.DOTALL)
_EMPTIES = re.compile(
    rf"(?:DROP\s+TABLE\s+(?:IF\s+EXISTS\s+)?|TRUNCATE\s+(?:TABLE\s+)?(?:ONLY\s+)?){_TABLES}"
    rf"|(?:WITH\b.*\)\s*)?DELETE\s+FROM\s+(?:ONLY\s+)?(?P<rows_of>{_TABLE})(?P<part>.*\b(?:WHERE|USING)\b)?",
    re.IGNORECASE | re.DOTALL,
)
_RENAMES = re.compile(
    rf"ALTER\s+TABLE\s+(?:IF\s+EXISTS\s+)?({_TABLE})\s+RENAME\s+TO\s+({_NAME})", re.IGNORECASE
)
_COPIES = re.compile(r"(?:INSERT|REPLACE|UPDATE|MERGE|WITH|CREATE)\b", re.IGNORECASE)
_READS = re.compile(rf"\b(?:FROM|JOIN)\s+(?:ONLY\s+)?({_TABLE})", re.IGNORECASE)
_MOST = 1_000_000


def emptied(statements: Iterable[str]) -> Iterator[tuple[str, bool]]:
    """Yield the tables, as they are written, that statements drop or empty without having copied their rows.

    With each comes whether a condition selects the rows that go. That a table is rebuilt, or its rows are put
    where they were before, loses nothing.
    """
    copied, renamed = set[str](), dict[str, str]()
    for statement in statements:
        text = _SILENT.sub(" ", statement).strip()
        if found := _EMPTIES.match(text):
            for name in re.findall(_TABLE, found["tables"] or found["rows_of"]):
                name = renamed.get(_plain(name), name)  # noqa: PLW2901  # what it was called before
                if _plain(name) not in copied:
                    yield name, bool(found["part"])
        elif found := _RENAMES.match(text):
            renamed[_plain(found[2])] = renamed.get(_plain(found[1]), found[1])
        elif _COPIES.match(text):
            copied |= {_plain(renamed.get(_plain(name), name)) for name in _READS.findall(text)}


def _plain(name: str) -> str:
    """Return the last part of a name, without quotes and in lower case."""
    last: str = re.findall(_NAME, name)[-1]
    return last.strip('[]`"').replace('""', '"').lower()


def rows_lost(backend: Any, migrations: Iterable[Any]) -> dict[str, int]:
    """Return the tables that hold rows now and that rolling some migrations back would drop or empty."""
    lost: dict[str, int] = {}
    with backend.translating_errors(), backend.migration_names():
        there = {name.lower() for name in backend.list_tables()}
        for migration in migrations:
            for name, is_part in emptied(one.text for one in migration.statements("rollback")):
                if (plain := _plain(name)) in there and plain not in lost:
                    # To count more would take long, which is not for a question.
                    count_sql = f"SELECT count(*) FROM (SELECT 1 FROM {name} LIMIT {_MOST}) AS counted"
                    ((count,),) = backend.connection.execute(count_sql).fetchall()
                    lost |= {f"{plain} at most" if is_part else plain: count} if count else {}
    return lost


def described(rows: Mapping[str, int]) -> str:
    """Return how many rows of which tables there are."""
    more = {_MOST: " or more"}
    return ", ".join(
        f"{count:,}{more.get(count, '')} row{'s' * (count != 1)} of {escaped(name)}"
        for name, count in rows.items()
    )


def refusal(rows: Mapping[str, int], ways: Sequence[str]) -> MigrationError:
    """Return the error for a rollback that nobody has allowed to delete rows."""
    return MigrationError(
        f"this rollback would delete {described(rows)}, so nothing was changed: "
        f"if they may go, {', or '.join(ways)}"
    )
