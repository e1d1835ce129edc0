"""The effects of statements on data, and the rows and values that a run would lose, read from the text alone.

An overwritten value is lost if a constant or another column replaces it. A value from another table counts as
restored.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from itertools import islice
from typing import NamedTuple

from poker_therapist.migrations.clauses import (
    NAME,
    PART,
    SKIPPED,
    Item,
    assigned,
    enclosed,
    outside_brackets,
    plain,
    selected,
    sources,
    top_level,
)
from poker_therapist.migrations.files import Statement
from poker_therapist.migrations.tracking import Copy, Lost, Table

_TOKEN = re.compile(
    r"""
      (?P<blank> \s+ | --[^\n]* | /\*.*?\*/ )+
    | (?P<name> "(?:[^"]|"")*" | `[^`]*` | (?<![\w\]])\[[^\]]*\] )
    | [eE]'(?: [^'\\] | \\. | '' )*' | '[^']*'(?:'[^']*')* | (?P<tag>\$(?:[^\W\d]\w*)?\$).*?(?P=tag)
    """,
    re.VERBOSE | re.DOTALL,
)
_VERB = re.compile(rf"{SKIPPED}|\b(?:INSERT|UPDATE|DELETE|MERGE|SELECT)\b", re.I)
_LIST = rf"((?:ONLY )?{NAME}(?: ?\* ?)?(?: ?, ?(?:ONLY )?{NAME}(?: ?\* ?)?)*)"
_INNER_CHANGE = re.compile(r"\( ?(?=(?:INSERT INTO|UPDATE|DELETE FROM|MERGE INTO) )", re.I)
_MAKES_TABLE = re.compile(
    rf"CREATE (?:(?:TEMP|TEMPORARY|UNLOGGED|LOCAL|GLOBAL) )*TABLE (IF NOT EXISTS )?{NAME}", re.I
)
_AS_QUERY = re.compile(r"\bAS (?=\(? ?(?:SELECT|WITH|TABLE|VALUES)\b)", re.I)
_NO_ROWS = re.compile(r"\bWITH NO DATA\b", re.I)
_INTO = re.compile(rf"\bINTO (?:(?:TEMP|TEMPORARY|UNLOGGED) )?(?:TABLE )?{NAME}", re.I)
_ALTERS = re.compile(rf"ALTER (?:FOREIGN )?TABLE (?:IF EXISTS )?(?:ONLY )?{NAME} ?\*? (.*)", re.I)
_RENAMES = re.compile(rf"RENAME TO {NAME}", re.I)
_RENAMES_COLUMN = re.compile(rf"RENAME (?!TO\b|CONSTRAINT\b)(?:COLUMN )?({PART}) TO ({PART})", re.I)
_ADDS_COLUMN = re.compile(
    rf"ADD (?!CONSTRAINT\b|PRIMARY\b|UNIQUE\b|CHECK\b|FOREIGN\b|EXCLUDE\b)(?:COLUMN )?(?!IF NOT ){NAME}", re.I
)
_DROPS_COLUMN = re.compile(rf"DROP (?!CONSTRAINT\b)(?:COLUMN )?(?:IF EXISTS )?({PART})", re.I)
_DROPS_TABLES = re.compile(rf"DROP (?:FOREIGN )?TABLE (?:IF EXISTS )?{_LIST}", re.I)
_CHANGES_TYPE = re.compile(rf"ALTER (?:COLUMN )?({PART}) (?:SET DATA )?TYPE (.*)", re.I)
# A type that can store the values of every other type.
_HOLDS_ALL = re.compile(
    rf"(?:TEXT|VARCHAR|CHARACTER VARYING)(?: COLLATE \S+)?(?: USING {NAME} ?:: ?[a-z]+)? ?;?$", re.I
)
_EMPTIES = re.compile(rf"TRUNCATE (?:TABLE )?{_LIST}|DELETE FROM (?:ONLY )?{NAME}", re.I)
_INSERTS = re.compile(rf"(?:INSERT (?:OR \w+ )?|REPLACE )INTO {NAME}(?: AS {PART})?(.*)", re.I)
_COLUMNS = re.compile(r" ?\( ?([^()]+?) ?\)(?= ?(?:\(|(?:AS|OVERRIDING|SELECT|TABLE|WITH)\b))", re.I)
_UPDATES = re.compile(rf"UPDATE (?:OR \w+ )?(?:ONLY )?{NAME}", re.I)
_MERGES = re.compile(rf"MERGE INTO (?:ONLY )?{NAME}", re.I)
_SELECTS_ROWS = re.compile(
    r"\b(?:WHERE|DISTINCT|GROUP BY|HAVING|LIMIT|OFFSET|FETCH|EXCEPT|INTERSECT|OR IGNORE|DO NOTHING)\b",
    re.I,
)
# Statements that replace rows.
_REPLACES = re.compile(r"^(?:REPLACE|INSERT OR REPLACE|MERGE) |\bDO UPDATE\b", re.I)
_SETS = re.compile(r"\b(?:DO|THEN) UPDATE SET (.*?)(?= WHEN (?:NOT )?MATCHED|$)", re.I)
_ALIAS = re.compile(rf"^(?:UPDATE (?:OR \w+ )?|MERGE INTO )(?:ONLY )?{NAME} (?:AS )?(?!SET\b)({PART})", re.I)
_TEMPORARY = re.compile(r"\b(?:TEMP|TEMPORARY|pg_temp)\b", re.I)
# Statements that drop things that the text does not name.
_TAKES_ALONG = re.compile(
    r"(?:DROP (?!(?:TABLE|SCHEMA|VIEW|MATERIALIZED|INDEX|TRIGGER|POLICY|RULE|SEQUENCE)\b)|TRUNCATE\b)"
    r".* CASCADE\b"
    r"|(?:DROP (?:OWNED|DATABASE)|CALL)\b.*|ALTER TYPE .* DROP ATTRIBUTE .*",
    re.I,
)
_CODE_DELETES = re.compile(r"\b(?:DELETE|DROP|TRUNCATE|UPDATE|MERGE|EXECUTE)\b", re.I)
_SCHEMAS = re.compile(rf"DROP SCHEMA (?:IF EXISTS )?({PART}(?: ?, ?{PART})*) CASCADE\b", re.I)
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
        (rf"DELETE FROM (?:ONLY )?{NAME}(?!.* WHERE\b)", "deletes every row of {}"),
        (rf"DELETE FROM (?:ONLY )?{NAME}", "deletes rows of {}"),
        (rf"UPDATE (?:OR \w+ )?(?:ONLY )?{NAME}(?!.* WHERE\b)", "updates every row of {}"),
        (rf"UPDATE (?:OR \w+ )?(?:ONLY )?{NAME}", "updates rows of {}"),
        (rf"(?:INSERT OR REPLACE|REPLACE) INTO {NAME}", "inserts rows into {}, or replaces them"),
        (rf"INSERT (?:OR \w+ )?INTO {NAME}(?=.* DO UPDATE )", "inserts rows into {}, or updates them"),
        (rf"INSERT (?:OR \w+ )?INTO {NAME}", "inserts rows into {}"),
        (rf"MERGE INTO (?:ONLY )?{NAME}", "inserts, updates or deletes rows of {}"),
        (rf"DROP SCHEMA (?:IF EXISTS )?{NAME}(?=.* CASCADE)", "drops the schema {} and everything in it"),
        (rf"DROP DATABASE (?:IF EXISTS )?{NAME}", "drops the database {}"),
        (rf"REFRESH MATERIALIZED VIEW (?:CONCURRENTLY )?{NAME}", "recomputes the rows of {}"),
        (rf"(?:CLUSTER|VACUUM \(?.*\bFULL\b.*?\)?) (?!USING){NAME}", "rewrites the table {}"),
        (r"(VACUUM|CLUSTER) ?;?$", "rewrites all tables ({})"),
        (r"(DO|CALL)\b", "runs code ({}): its effect cannot be read from its text"),
    )
)


@lru_cache(1024)
def code(text: str) -> str:
    """Return a statement on one line, without comments, and with nothing in its texts."""
    return _TOKEN.sub(lambda found: found["name"] or (" " if found["blank"] else "''"), text).strip()


class _Effect(NamedTuple):
    """The effect of a statement, known when all that follow it are read; and its loss."""

    sentence: Callable[[], str] | str = ""
    lost: Callable[[], Lost | None] = lambda: None


def effects(statements: Sequence[Statement]) -> list[list[str]]:
    """Return what each statement of a migration does to data; nothing where it does nothing."""
    found = [
        [one.sentence if isinstance(one.sentence, str) else one.sentence() for one in each]
        for each in Reading().all(statements)
    ]
    return [[sentence for sentence in each if sentence] for each in found]


def losses(statements: Sequence[Statement]) -> list[Lost]:
    """Return what no longer exists after some statements, of one migration or more."""
    found = (one.lost() for each in Reading().all(statements) for one in each)
    return [one for one in found if one]


def tables_made(text: str) -> set[str]:
    """Return the table that a statement makes, if it makes one."""
    found = _MAKES_TABLE.match(text)
    return {bare(found[2])} if found else set()


def bare(name: str) -> str:
    """Return a name without its schema and quotes, in lower case."""
    return plain(re.findall(PART, name)[-1])


class Reading:
    """The statements of a run, read one after the other."""

    def __init__(self) -> None:
        self.tables: dict[str, Table] = {}
        self.first: dict[str, Table] = {}  # as they were called before
        self.emptied: set[str] = set()  # by their names before
        self._over: list[Table] = []

    def all(self, statements: Sequence[Statement]) -> list[list[_Effect]]:
        """Read statements, with a limit: a stored text cannot be trusted."""
        found = [list(self._read(one.text, code(one.text)[:100_000])) for one in statements[:2_000]]
        return found + [[_loses(Lost(other=each.text.split()[0]))] for each in statements[2_000:]]

    def _key(self, name: str) -> str:
        parts = [plain(one) for one in re.findall(PART, name)]
        return ".".join(parts[1:] if parts[0] in ("main", "public", "temp") and parts[1:] else parts)

    def _table(self, name: str) -> Table:
        key = self._key(name)
        if key not in self.tables:
            self.tables[key] = self.first[key] = Table(name)
        return self.tables[key]

    def _make(self, name: str, *, is_gone: bool = False) -> Table:
        self.tables[self._key(name)] = table = Table(name, is_made=True, is_gone=is_gone)
        return table

    def now(self, table: Table) -> str:
        """Return what a table is called at the end; empty if it is gone."""
        names = (name for name, one in self.tables.items() if one is table and not table.is_gone)
        return next(names, "")

    @property
    def put_back(self) -> set[str]:
        """The tables into which a statement has put rows over those that were there."""
        return {self.now(table) for table in self._over}

    def places(self, table: Table, column: str | None, depth: int = 0) -> Iterator[tuple[str, str] | None]:
        """Yield where the rows, or the values of a column, were put; None for a place that cannot be counted.

        Args:
            table: whose rows.
            column: its name now; None for the rows.
            depth: how many copies of copies have been gone through.
        """
        for copy in table.copies if depth < 20 else ():
            for name in [None] if column is None else copy.targets(column):
                if name in copy.into.dropped or (copy.into is table and name is None):
                    continue
                if copy.is_over or name == "":
                    yield None
                elif now := self.now(copy.into):
                    yield now, name or ""
                else:
                    yield from self.places(copy.into, name, depth + 1)

    def _read(self, raw: str, text: str) -> Iterator[_Effect]:
        verb = next(top_level(text, _VERB), None) if text[:4].upper() == "WITH" else None
        main = text[verb.start() :] if verb else text
        self._note(text, main)
        made = _MAKES_TABLE.match(text)
        if found := _DROPS_TABLES.match(text):
            for name in _names(found[1]):
                yield self._dropped(name)
        elif found := _ALTERS.match(text):
            for action in re.split(" ?, ?", outside_brackets(found[2])):
                yield from self._altered(found[1], action)
        elif made and _AS_QUERY.search(text):
            yield _Effect(f"copies rows into the new table {made[2]}")
        inner = _INNER_CHANGE.finditer(text) if main is not text else ()
        for part in (main, *(enclosed(text[found.end() :]) for found in islice(inner, 20))):
            yield from self._changed(part, outside_brackets(part))
        found = _TAKES_ALONG.match(text)
        if found or (text[:2].upper() == "DO" and _CODE_DELETES.search(raw)):
            yield _loses(Lost(other=found[0].rstrip(" ;") if found else "DO"))
        if found := _SCHEMAS.match(text):
            for name in _names(found[1]):
                yield _loses(Lost(schema=name))

    def _note(self, text: str, main: str) -> None:
        """Note the table that a statement makes, and what it puts from tables into another."""
        read, target, columns, is_new = text, "", "", False
        made, query = _MAKES_TABLE.match(text), _AS_QUERY.search(text)
        if found := _INSERTS.match(main):
            target, read = found[1], found[2] if main is text else text
            listed_before = _COLUMNS.match(found[2])
            columns = listed_before[1] if listed_before else ""
            names = sources(text)
        elif made:
            target, is_new, read = made[2], True, text[query.end() :] if query else ""
            listed_before = _COLUMNS.match(text, made.end())
            columns = listed_before[1] if listed_before else ""
            names = [] if _NO_ROWS.search(text) else sources(read)
        elif main[:6].upper() == "SELECT" and (found := _INTO.search(outside_brackets(main))):
            target, is_new, names = found[1], True, sources(text)
        elif found := _MERGES.match(main):
            target, names = found[1], sources(text)
        elif found := _UPDATES.match(main):
            table, items = self._table(found[1]), assigned(main)
            table.copies.append(Copy(table, _selects(main), items))
            for name in sources(text):  # whose other columns match each value to its row
                items = [*items, Item.of("", main)]
                self._table(name).copies.append(Copy(table, is_part=False, items=items, is_over=True))
                self._over.append(table)
            return
        else:
            return
        tables = [self._table(name) for name in names]
        is_there = is_new and made is not None and made[1]
        into = self._make(target) if is_new and not is_there else self._table(target)
        head = text[: made.end()] if made else found[0] if is_new and found else ""
        into.is_gone |= _TEMPORARY.search(head) is not None  # when the session ends
        items = [] if _MERGES.match(main) else selected(read, columns, is_named=is_new)
        is_over = _REPLACES.search(outside_brackets(main)) is not None
        self._over += [into] if is_over and tables and into not in tables else []
        for table in tables:
            table.copies.append(Copy(into, _selects(main), items, is_over and table is not into))

    def _changed(self, part: str, outside: str) -> Iterator[_Effect]:
        for pattern, sentence in _CHANGES:
            if found := pattern.match(outside):
                yield _Effect(sentence.format(found[1]))
                break
        if found := _EMPTIES.match(outside):
            for name in _names(found[1] or found[4]):
                table = self._table(name)
                is_part = _selects(outside) or re.search(r"\bUSING\b", outside, re.I) is not None
                yield _Effect(lost=self._rows(table, is_part=is_part))
                if not is_part:
                    table.is_gone = True
                    self._make(name)
        elif found := _MERGES.match(outside):
            if re.search(r"\bTHEN DELETE\b", outside, re.I):
                yield _Effect(lost=self._rows(self._table(found[1]), is_part=True))
            for setting in list(_SETS.finditer(part))[:20]:
                yield from self._overwritten(found[1], f"SET {setting[1]}", part, is_part=True)
        elif found := _UPDATES.match(outside):
            yield from self._overwritten(found[1], part, part, is_part=_selects(outside))
        elif (found := _INSERTS.match(part)) and _REPLACES.search(outside):
            if does := _SETS.search(part):
                yield from self._overwritten(found[1], f"SET {does[1]}", part, is_part=True)
            elif {self._key(name) for name in sources(part)} <= {self._key(found[1])}:
                yield _Effect(lost=self._rows(self._table(found[1]), is_part=True))

    def _overwritten(self, name: str, setting: str, part: str, *, is_part: bool) -> Iterator[_Effect]:
        """Yield what is lost where columns of a table are set; not what comes from another table."""
        table, own = self._table(name), self._key(name)
        owners = {bare(name), *(plain(one[-1]) for one in _ALIAS.findall(part)[:1])}
        is_put_back = any(self._key(one) != own for one in sources(part))
        for item in assigned(setting):
            is_lost = item.is_constant if is_put_back else not item.has_whole(item.target, owners)
            if is_lost:
                yield _Effect(lost=self._values(table, item.target, is_part=is_part))
                if table.is_made:
                    table.dropped.add(item.target)

    def _dropped(self, name: str) -> _Effect:
        table, key = self._table(name), self._key(name)
        lost = self._rows(table, is_part=False)
        table.is_gone = True
        self._make(name, is_gone=True)

        def sentence() -> str:
            if table.is_made:
                return f"drops {name}, which this migration created"
            if not table.keeps():
                return f"drops the table {name} and its rows"
            if self.tables[key].is_gone:
                return f"drops the table {name}, whose rows were copied before"
            return f"rebuilds the table {name} from rows that were copied before"

        return _Effect(sentence, lost)

    def _altered(self, name: str, action: str) -> Iterator[_Effect]:
        table = self._table(name)
        if found := _RENAMES.match(action):
            self._make(name, is_gone=True)
            schema = name.rpartition(".")[0]
            self.tables[self._key(f"{schema}.{found[1]}" if schema else found[1])] = table
        elif found := _RENAMES_COLUMN.match(action):
            was, now = plain(found[1]), plain(found[2])
            table.was_called[now] = table.was_called.pop(was, was)
            table.dropped.discard(now)
        elif found := _DROPS_COLUMN.match(action):
            sentence = f"drops the column {name}.{found[1]} and its values"
            yield _Effect(sentence, self._values(table, plain(found[1]), is_part=False))
            table.dropped.add(plain(found[1]))
        elif found := _CHANGES_TYPE.match(action):
            sentence = f"may rewrite every row of {name}"
            lost = self._values(table, plain(found[1]), is_part=True)
            yield _Effect(sentence) if _HOLDS_ALL.match(found[2]) else _Effect(sentence, lost)
        else:
            if found := _ADDS_COLUMN.match(action):
                table.was_called[plain(found[1])] = None
                table.dropped.discard(plain(found[1]))
            if _REWRITES.match(action):
                yield _Effect(f"may rewrite every row of {name}")

    def _note_loss(self, table: Table) -> None:
        self.emptied |= {name for name, one in self.first.items() if one is table}

    def _rows(self, table: Table, *, is_part: bool) -> Callable[[], Lost | None]:
        """Return a function that returns, after all is read, the loss of rows that are deleted here."""
        upto = len(table.copies)
        self._note_loss(table)

        def lost() -> Lost | None:
            is_kept = table.keeps(upto=upto)
            if table.is_made or (is_part and is_kept):
                return None
            if is_kept and table.keeps(upto=upto, whole=True):
                return Lost(table.name, kept=table)
            return Lost(table.name, is_part=is_part or is_kept)

        return lost

    def _values(self, table: Table, column: str, *, is_part: bool) -> Callable[[], Lost | None]:
        """Return a function that returns, after all is read, the loss of a column's values here."""
        upto, first = len(table.copies), table.was_called.get(column, column)
        self._note_loss(table)

        def lost() -> Lost | None:
            if table.is_made or first is None or table.keeps(column, upto=upto):
                return None
            return Lost(table.name, first, is_part)

        return lost


def _names(text: str) -> list[str]:
    """Return the names in a list of tables."""
    return [name for name in re.findall(NAME, text) if name.upper() != "ONLY"]


def _selects(text: str) -> bool:
    """Return whether a statement is about a part of the rows."""
    return _SELECTS_ROWS.search(outside_brackets(text)) is not None


def _loses(lost: Lost) -> _Effect:
    return _Effect(lost=lambda: lost)
