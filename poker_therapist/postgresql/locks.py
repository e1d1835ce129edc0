"""Which lock each kind of statement takes on which table, by PostgreSQL's manual, "Explicit Locking".

The text alone is judged: https://www.postgresql.org/docs/current/explicit-locking.html and the page of each
command.
"""

import re
from collections.abc import Iterator

from poker_therapist.migrations.clauses import NAME
from poker_therapist.migrations.effects import code
from poker_therapist.migrations.files import OUTSIDE_TRANSACTION
from poker_therapist.migrations.lock_report import Lock
from poker_therapist.postgresql.split import COPIES_ROWS, NO_ROWS, is_open, tokens

# From the weakest to the strongest, and what each blocks.
_BLOCKS = {
    "ACCESS SHARE": "",
    "ROW SHARE": "",
    "ROW EXCLUSIVE": "",
    "SHARE UPDATE EXCLUSIVE": "",
    "SHARE": "blocks writes",
    "SHARE ROW EXCLUSIVE": "blocks writes",
    "EXCLUSIVE": "blocks writes",
    "ACCESS EXCLUSIVE": "blocks reads and writes",
}
_ON = rf".*? ON (?:ONLY )?{NAME}"
_KINDS = tuple(
    (re.compile(pattern, re.I), mode)
    for pattern, mode in (
        (rf"CREATE (?:UNIQUE )?INDEX CONCURRENTLY{_ON}", "SHARE UPDATE EXCLUSIVE"),
        (rf"CREATE (?:UNIQUE )?INDEX{_ON}", "SHARE"),
        (rf"DROP INDEX CONCURRENTLY (?:IF EXISTS )?{NAME}", "SHARE UPDATE EXCLUSIVE"),
        (rf"DROP INDEX (?:IF EXISTS )?{NAME}", "ACCESS EXCLUSIVE"),
        (rf"REINDEX (?:\(.*?\) )?\w+ CONCURRENTLY {NAME}", "SHARE UPDATE EXCLUSIVE"),
        (rf"REINDEX (?:\(.*?\) )?\w+ {NAME}", "ACCESS EXCLUSIVE"),
        (rf"ALTER INDEX (?:IF EXISTS )?{NAME} (?:RENAME|(?:RE)?SET ?\()", "SHARE UPDATE EXCLUSIVE"),
        (rf"ALTER SEQUENCE (?:IF EXISTS )?{NAME} (?!RENAME|SET|OWNER TO)", "SHARE ROW EXCLUSIVE"),
        (rf"ALTER (?:INDEX|VIEW|MATERIALIZED VIEW|SEQUENCE) (?:IF EXISTS )?{NAME}", "ACCESS EXCLUSIVE"),
        (rf"DROP (?:TABLE|VIEW|MATERIALIZED VIEW|SEQUENCE) (?:IF EXISTS )?{NAME}", "ACCESS EXCLUSIVE"),
        (rf"CREATE (?:OR REPLACE )?(?:CONSTRAINT )?TRIGGER{_ON}", "SHARE ROW EXCLUSIVE"),
        (rf"(?:DROP TRIGGER|(?:CREATE|ALTER|DROP) POLICY|DROP RULE|ALTER TRIGGER){_ON}", "ACCESS EXCLUSIVE"),
        (rf"CREATE (?:OR REPLACE )?RULE .*? TO {NAME}", "ACCESS EXCLUSIVE"),
        (rf"CREATE OR REPLACE VIEW {NAME}", "ACCESS EXCLUSIVE"),
        (rf"CREATE STATISTICS .*? FROM {NAME}", "SHARE UPDATE EXCLUSIVE"),
        (rf"COMMENT ON (?:TABLE|INDEX|VIEW) {NAME}", "SHARE UPDATE EXCLUSIVE"),
        (rf"COMMENT ON COLUMN {NAME} ?\.", "SHARE UPDATE EXCLUSIVE"),
        (rf"CREATE PUBLICATION .*? FOR TABLE (?:ONLY )?{NAME}", "SHARE UPDATE EXCLUSIVE"),
        (rf"CREATE .*?\) ?INHERITS ?\( ?{NAME}", "SHARE UPDATE EXCLUSIVE"),
        (rf"REFRESH MATERIALIZED VIEW CONCURRENTLY {NAME}", "EXCLUSIVE"),
        (rf"REFRESH MATERIALIZED VIEW {NAME}", "ACCESS EXCLUSIVE"),
        (rf"TRUNCATE (?:TABLE )?(?:ONLY )?{NAME}", "ACCESS EXCLUSIVE"),
        (rf"CLUSTER (?:\(?VERBOSE\)? )?{NAME}", "ACCESS EXCLUSIVE"),
        (rf"VACUUM (?:\([^)]*\bFULL\b[^)]*\)|FULL(?: \w+)*?) {NAME}", "ACCESS EXCLUSIVE"),
        (rf"(?:VACUUM|ANALYZE) (?:\(.*?\) )?{NAME}", "SHARE UPDATE EXCLUSIVE"),
        (rf"(?:INSERT|MERGE) INTO {NAME}", "ROW EXCLUSIVE"),
        (rf"(?:DELETE FROM|UPDATE) (?:ONLY )?{NAME}", "ROW EXCLUSIVE"),
    )
)
# Of ALTER TABLE, the strongest of its actions counts; https://www.postgresql.org/docs/current/sql-altertable.html
_ALTER_TABLE = re.compile(rf"ALTER TABLE (?:IF EXISTS )?(?:ONLY )?{NAME} (.*)", re.I)
_WEAK_ACTIONS = tuple(
    (re.compile(pattern, re.I), mode)
    for pattern, mode in (
        (r"VALIDATE CONSTRAINT|ATTACH PARTITION|DETACH PARTITION .* CONCURRENTLY", "SHARE UPDATE EXCLUSIVE"),
        (r"ALTER (?:COLUMN )?\S+ (?:SET STATISTICS|(?:RE)?SET ?\()", "SHARE UPDATE EXCLUSIVE"),
        (r"(?:RE)?SET ?\(|CLUSTER ON|SET WITHOUT CLUSTER", "SHARE UPDATE EXCLUSIVE"),
        (r"ADD (?:CONSTRAINT \S+ )?FOREIGN KEY|(?:EN|DIS)ABLE TRIGGER", "SHARE ROW EXCLUSIVE"),
    )
)
_REFERENCES = re.compile(rf"\bREFERENCES {NAME}", re.I)
_PARTITION_OF = re.compile(rf"CREATE (?:\w+ )?TABLE (?:IF NOT EXISTS )?{NAME} PARTITION OF {NAME}", re.I)
_LOCK_TABLE = re.compile(rf"LOCK (?:TABLE )?(?:ONLY )?{NAME}", re.I)
_LOCK_MODE = re.compile(r" IN ([A-Z ]+?) MODE", re.I)
_NEXT = re.compile(rf" ?\*?(?: ?\([^()]*\))? ?, ?(?:ONLY )?{NAME}", re.I)
_WITH_LIST = re.compile(r"(?:DROP|TRUNCATE|LOCK|ANALYZE|VACUUM|CREATE PUBLICATION)\b", re.I)
_PARTITION = re.compile(rf"(?:AT|DE)TACH PARTITION {NAME}(?! .*CONCURRENTLY)", re.I)
_INHERIT = re.compile(rf"INHERIT {NAME}", re.I)
_OUTSIDE = re.compile(
    r"(?:CREATE (?:UNIQUE )?|DROP )INDEX CONCURRENTLY|REINDEX .*\bCONCURRENTLY"
    r"|REINDEX (?:SYSTEM|DATABASE|SCHEMA)|VACUUM|(?:CREATE|DROP) (?:DATABASE|TABLESPACE)|ALTER SYSTEM"
    r"|ALTER DATABASE .* SET TABLESPACE|ALTER TABLE .* DETACH PARTITION .* CONCURRENTLY|DISCARD ALL",
    re.I,
)


def locks(line: str) -> list[Lock]:
    """Return the locks that a statement takes on tables that are there, the strongest first.

    Args:
        line: the statement on one line, without comments, and with nothing in its texts.
    """
    found: list[tuple[str, str]] = []
    if alters := _ALTER_TABLE.match(line):
        modes = [_of_action(action) for action in re.split(r" ?, ?(?![^()]*\))", alters[2])]
        found.append((max(modes, key=list(_BLOCKS).index), alters[1]))
        if partition := _PARTITION.match(alters[2]):
            found.append(("ACCESS EXCLUSIVE", partition[1]))
        elif parent := _INHERIT.match(alters[2]):
            found.append(("SHARE UPDATE EXCLUSIVE", parent[1]))
    elif stated := _LOCK_TABLE.match(line):
        mode = _LOCK_MODE.search(line)
        found += [(mode[1].upper() if mode else "ACCESS EXCLUSIVE", name) for name in _named(stated)]
    elif parent := _PARTITION_OF.match(line):
        found.append(("ACCESS EXCLUSIVE", parent[2]))
    elif kind := next(((mode, match) for one, mode in _KINDS if (match := one.match(line))), None):
        found += [(kind[0], name) for name in _named(kind[1])]
    if line[:6].upper() in ("CREATE", "ALTER "):
        found += [("SHARE ROW EXCLUSIVE", name) for name in _REFERENCES.findall(line)]
    return [Lock(mode, table, _BLOCKS[mode]) for mode, table in dict.fromkeys(found) if mode in _BLOCKS]


def _named(first: re.Match[str]) -> Iterator[str]:
    """Yield the name that was found, and those of the list that it begins."""
    yield first[1]
    end = first.end()
    while _WITH_LIST.match(first.string) and (found := _NEXT.match(first.string, end)):
        yield found[1]
        end = found.end()


def _of_action(action: str) -> str:
    return next((mode for one, mode in _WEAK_ACTIONS if one.match(action)), "ACCESS EXCLUSIVE")


def fault(text: str, is_whole: bool) -> str:
    """Return what to do about a statement that cannot run, where a transaction holds it or not."""
    line = code(text)
    if is_whole and (found := _OUTSIDE.match(line)):
        return f"{found[0]} cannot run in a transaction: {OUTSIDE_TRANSACTION}"
    for one in tokens(text):
        word = text[one.start() :].split(maxsplit=1)[0].rstrip(";")
        if is_open(one):
            return f"what begins with this {one[0]} is not closed: close it"
        if one[0] == "\\" and word != "\\.":  # which ends the rows of COPY
            return f"{word} is a command of psql, not SQL: remove it"
    return NO_ROWS if COPIES_ROWS.match(line) else ""
