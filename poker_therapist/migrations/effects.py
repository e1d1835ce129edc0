"""What a statement does to data, as far as its text alone says."""

import re
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import NamedTuple

from poker_therapist.migrations.files import Statement

_TOKEN = re.compile(
    r"""
      (?P<blank> \s+ | --[^\n]* | /\*.*?\*/ )+
    | [eE]'(?: [^'\\] | \\. | '' )*' | '[^']*'(?:'[^']*')* | (?P<tag>\$(?:[^\W\d]\w*)?\$).*?(?P=tag)
    """,
    re.VERBOSE | re.DOTALL,
)
_PART = r'(?:"[^"]+"|`[^`]+`|\[[^\]]+\]|[\w$]+)'
NAME = rf"((?:{_PART} ?\. ?)?{_PART})"
_LIST = rf"({NAME}(?: ?, ?{NAME})*)"
_FIRST_VERB = re.compile(r"WITH\b.*?\b(?=(?:INSERT|UPDATE|DELETE|MERGE|SELECT)\b)", re.I)
_INNER_CHANGE = re.compile(r"\( ?(?=(?:INSERT INTO|UPDATE|DELETE FROM|MERGE INTO) )", re.I)
_MAKES_TABLE = re.compile(
    rf"CREATE (?:(?:TEMP|TEMPORARY|UNLOGGED|LOCAL|GLOBAL) )*TABLE (?:IF NOT EXISTS )?{NAME}", re.I
)
_AS_QUERY = re.compile(r"\bAS (?:\(? ?SELECT|WITH|TABLE|VALUES)\b", re.I)
_RENAMES = re.compile(rf"ALTER TABLE (?:IF EXISTS )?(?:ONLY )?{NAME} RENAME TO {NAME}", re.I)
_ALTERS = re.compile(rf"ALTER TABLE (?:IF EXISTS )?(?:ONLY )?{NAME} (.*)", re.I)
_DROPS_COLUMN = re.compile(rf"DROP (?!CONSTRAINT\b)(?:COLUMN )?(?:IF EXISTS )?{NAME}", re.I)
_DROPS_TABLES = re.compile(rf"DROP TABLE (?:IF EXISTS )?{_LIST}", re.I)
# What an action of ALTER TABLE, or a statement, does; the name of its table is put in.
_REWRITES = re.compile(
    rf"ALTER (?:COLUMN )?{NAME} (?:SET DATA )?TYPE\b|SET (?:LOGGED|UNLOGGED|TABLESPACE|ACCESS METHOD)\b"
    r"|ADD .*\b(?:STORED|IDENTITY|(?:BIG|SMALL)?SERIAL)\b|ADD .*\bDEFAULT (?!now\b)[\w.]+ ?\(",
    re.I,
)
_CHANGES = tuple(
    (re.compile(pattern, re.I), sentence)
    for pattern, sentence in (
        (rf"TRUNCATE (?:TABLE )?(?:ONLY )?{_LIST}", "deletes every row of {}"),
        (rf"DELETE FROM (?:ONLY )?{NAME}(?!.* WHERE )", "deletes every row of {}"),
        (rf"DELETE FROM (?:ONLY )?{NAME}", "deletes rows of {}"),
        (rf"UPDATE (?:OR \w+ )?(?:ONLY )?{NAME}(?!.* WHERE )", "updates every row of {}"),
        (rf"UPDATE (?:OR \w+ )?(?:ONLY )?{NAME}", "updates rows of {}"),
        (rf"(?:INSERT OR REPLACE|REPLACE) INTO {NAME}", "inserts rows into {}, or replaces them"),
        (rf"INSERT (?:OR \w+ )?INTO {NAME}(?=.* DO UPDATE )", "inserts rows into {}, or updates them"),
        (rf"INSERT (?:OR \w+ )?INTO {NAME}", "inserts rows into {}"),
        (rf"MERGE INTO (?:ONLY )?{NAME}", "inserts, updates or deletes rows of {}"),
        (rf"DROP SCHEMA (?:IF EXISTS )?{NAME}(?=.* CASCADE)", "drops the schema {} and all that is in it"),
        (rf"DROP DATABASE (?:IF EXISTS )?{NAME}", "drops the database {}"),
        (rf"REFRESH MATERIALIZED VIEW (?:CONCURRENTLY )?{NAME}", "computes the rows of {} anew"),
        (rf"(?:CLUSTER|VACUUM \(?.*\bFULL\b.*?\)?) (?!USING){NAME}", "rewrites the table {}"),
        (r"(VACUUM|CLUSTER) ?;?$", "rewrites all tables ({})"),
        (r"(DO|CALL)\b", "runs code ({}): what that does, its text alone does not say"),
    )
)


class Lock(NamedTuple):
    """What a statement locks until its transaction ends, and what that blocks; nothing if it is empty."""

    mode: str
    table: str
    blocks: str

    def __str__(self) -> str:
        """Return it as a sentence."""
        return f"takes {self.mode} on {self.table}: {self.blocks or 'blocks neither reads nor writes'}"


def code(text: str) -> str:
    """Return a statement on one line, without comments, and with nothing in its texts."""
    return _TOKEN.sub(lambda found: " " if found["blank"] else "''", text).strip()


def effects(statements: Sequence[Statement]) -> list[list[str]]:
    """Return what each statement of a migration does to data; nothing where it does nothing."""
    # No more than this is judged: a text that a database has kept may be anybody's.
    codes = [code(one.text)[:100_000] for one in statements[:2_000]]
    last_made = {name: place for place, text in enumerate(codes) for name in _names_given(text)}
    made = set[str]()
    found: list[list[str]] = []
    for place, text in enumerate(codes):
        again = {name for name, last in last_made.items() if last > place}
        found.append([*_of_tables(text, made, codes[:place], again), *_changes(text)])
        made |= tables_made(text)
    return found + [[] for _ in statements[2_000:]]


def _names_given(text: str) -> set[str]:
    """Return the table that a statement makes, or gives a new name."""
    renamed = _RENAMES.match(text)
    return tables_made(text) | ({bare(renamed[2])} if renamed else set())


def tables_made(text: str) -> set[str]:
    """Return the table that a statement makes, if it makes one."""
    found = _MAKES_TABLE.match(text)
    return {bare(found[1])} if found else set()


def bare(name: str) -> str:
    """Return a name without its schema and quotes, in lower case."""
    return re.sub(r'["`\[\]]', "", re.sub(rf"^{_PART} ?\. ?(?={_PART}$)", "", name)).lower()


def _of_tables(text: str, made: set[str], before: Sequence[str], again: set[str]) -> Iterator[str]:
    if found := _DROPS_TABLES.match(text):
        for name in re.findall(NAME, found[1]):
            read = re.compile(rf"\bFROM {re.escape(name)}(?!\w)", re.I)
            if bare(name) in made:
                yield f"drops {name}, which this migration has made"
            elif bare(name) in again and any(read.search(one) for one in before):
                yield f"rebuilds the table {name}, with rows that were copied before"
            else:
                yield f"drops the table {name} and its rows"
    elif found := _ALTERS.match(text):
        for action in re.split(" ?, ?", _outside_brackets(found[2])):
            if column := _DROPS_COLUMN.match(action):
                yield f"drops the column {found[1]}.{column[1]} and its values"
            elif _REWRITES.match(action):
                yield f"may rewrite every row of {found[1]}"
    elif (found := _MAKES_TABLE.match(text)) and _AS_QUERY.search(text):
        yield f"copies rows into the new table {found[1]}"


def _changes(text: str) -> Iterator[str]:
    inner = _INNER_CHANGE.finditer(text) if text[:4].upper() == "WITH" else ()
    for start in (0, *(found.end() for found in islice(inner, 20))):
        part = _FIRST_VERB.sub("", _outside_brackets(text[start:]), count=1)
        for pattern, sentence in _CHANGES:
            if found := pattern.match(part):
                yield sentence.format(found[1])
                break


def _outside_brackets(text: str) -> str:
    """Return a text up to the bracket that closes more than was opened, with nothing in its brackets."""
    parts, depth = list[str](), 0
    for part in re.split(r"([()])", text):
        if part == ")":
            depth -= 1
            if depth < 0:
                break
        if depth == 0:
            parts.append(part)
        depth += part == "("
    return "".join(parts)
