"""The clauses of a statement: what it selects, from where, and into which columns.

A statement is on one line here, without comments and with nothing in its texts, as `effects.code` returns it.
"""

import re
from collections.abc import Collection, Iterator, Sequence
from functools import lru_cache
from typing import NamedTuple

PART = r'(?:"(?:[^"]|"")+"|`[^`]+`|\[[^\]]+\]|[\w$]+)'
NAME = rf"((?:{PART} ?\. ?)?{PART})"
SKIPPED = r'"[^"]*"|`[^`]*`|[()]'  # by `top_level`
_COMMA = re.compile(rf"{SKIPPED}|,")
_SELECT = re.compile(rf"{SKIPPED}|\b(?:SELECT|FROM|UNION|EXCEPT|INTERSECT|INTO)\b", re.I)
_SET = re.compile(rf"{SKIPPED}|\b(?:SET|(?<!DISTINCT )FROM|WHERE|RETURNING)\b", re.I)
_STAR = re.compile(r"(?:^|SELECT|DISTINCT|[,.]) ?\*", re.I)
_NAMED = re.compile(rf"(?:^|\bAS |\. ?)({PART})$", re.I)
_NESTED = re.compile(r"^WITH\b|\( ?SELECT\b", re.I)
_STATEMENT = re.compile(r"\b(?:SELECT|UPDATE|MERGE|VALUES)\b", re.I)
_WHOLE = re.compile(
    rf"(?:'' ?\|\| ?)?(?:(?:json_quote|to_jsonb?|quote|quote_literal|coalesce|ifnull) ?\( ?)?{NAME}"
    rf"(?: ?,[^()]*)?(?: ?\))?(?: ?\|\| ?'')?(?: ?(?:AS )?{PART})? ?;?$",
    re.I,
)
_CONSTANTS = frozenset(("null", "true", "false", "default", "current_timestamp"))
_WORDS = re.compile(
    rf"""
      "[^"]*" | `[^`]*` | (?P<bracket>[()])
    | \b(?P<reads>(?:DELETE[ ]|(?<!DISTINCT[ ]))FROM|JOIN|USING|TABLE)[ ]
      (?:(?:ONLY|LATERAL)[ ])?(?P<name>{NAME})
    | \b(?P<condition>WHERE|ON|HAVING)\b | \b(?P<word>SELECT|UPDATE|DELETE)\b
    | \b(?P<end>SET|GROUP|ORDER|LIMIT|UNION|EXCEPT|INTERSECT|RETURNING|LEFT|INNER|CROSS)\b
    | (?P<comma>,)[ ]?(?:ONLY[ ])?(?P<other>{NAME})
    """,
    re.VERBOSE | re.IGNORECASE,
)


class Item(NamedTuple):
    """A column that is written, empty if it is not known which, and the names that its value is made of."""

    target: str
    names: frozenset[str]
    has_all: bool = False
    value: str = ""

    def has_whole(self, column: str, owners: Collection[str] = ()) -> bool:
        """Return whether a column's values can be read out of it, also if it is quoted, or NULL is filled.

        Args:
            column: in lower case.
            owners: what may stand before it, if not everything may.
        """
        if _STATEMENT.search(self.value):  # what becomes what is not told apart
            return column in self.names
        found = _WHOLE.match(self.value)
        parts = list(map(plain, re.findall(PART, found[1]))) if found else []
        return parts[-1:] == [column] and (not owners or not parts[1:] or parts[-2] in owners)

    @property
    def is_constant(self) -> bool:
        """Whether no column is in it."""
        return all(name[0].isdigit() or name in _CONSTANTS for name in self.names)

    @classmethod
    def of(cls, target: str, expression: str) -> "Item":
        """Read an expression, or a whole statement."""
        names = frozenset(map(plain, re.findall(PART, expression)))
        return cls(target, names, _STAR.search(expression) is not None, expression.strip())


def plain(name: str) -> str:
    """Return one part of a name without its quotes, in lower case."""
    return unquoted(name).lower()


def unquoted(name: str) -> str:
    """Return one part of a name as PostgreSQL keeps it, and as SQLite finds it, too."""
    return name[1:-1].replace('""', '"') if name[:1] in ('"', "`", "[") else name.lower()


@lru_cache(1024)  # a rollback reads the same statements again and again
def outside_brackets(text: str) -> str:
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


def top_level(text: str, pattern: re.Pattern[str]) -> Iterator[re.Match[str]]:
    """Yield where a pattern is found, outside brackets and quoted names, until one more is closed."""
    depth = 0
    for found in pattern.finditer(text):
        if found[0] in ("(", ")"):
            depth += 1 if found[0] == "(" else -1
            if depth < 0:
                return
        elif depth == 0 and found[0][0] not in '"`':
            yield found


def enclosed(text: str) -> str:
    """Return a text up to the bracket that closes more than was opened."""
    depth = 0
    for found in re.finditer(SKIPPED, text):
        depth += {"(": 1, ")": -1}.get(found[0], 0)
        if depth < 0:
            return text[: found.start()]
    return text


def listed(text: str) -> list[str]:
    """Return the parts of a list that commas divide, outside brackets."""
    parts, start = [], 0
    for comma in top_level(text, _COMMA):
        parts.append(text[start : comma.start()].strip())
        start = comma.end()
    return [*parts, text[start:].strip()]


@lru_cache(1024)
def selected(text: str, columns: str, *, is_named: bool) -> Sequence[Item]:
    """Return what a query selects.

    Args:
        text: the query.
        columns: the columns into which it is put, as they are listed; or an empty text.
        is_named: whether these columns are called as they are in the query, unless they are listed.
    """
    if _NESTED.search(text):  # what comes from where is not told apart
        return [Item.of("", text)]
    targets = listed(columns) if columns else []
    words = list(top_level(text, _SELECT))
    ends = [*(one.start() for one in words[1:]), len(text)]
    found: list[Item] = []
    for word, end in zip(words, ends[: len(words)], strict=True):
        chosen = listed(text[word.end() : end]) if word[0].upper() == "SELECT" else []
        for number, one in enumerate(chosen):
            name = _NAMED.search(one) if is_named and not columns else None
            item = Item.of(plain(name[1]) if name else "", one)
            if number < len(targets) and not any(each.has_all for each in found):
                item = item._replace(target=plain(targets[number]))
            found.append(item)
    return found


def assigned(text: str) -> Sequence[Item]:
    """Return the columns that an UPDATE sets, and what to."""
    marks = list(top_level(text, _SET))
    ends, found = [*(one.start() for one in marks[1:]), len(text)], list[Item]()
    for one in listed(text[marks[0].end() : ends[0]]) if marks else ():
        columns, _, value = one.partition("=")
        found += [Item.of(plain(name), value) for name in re.findall(PART, columns)]
    return found


@lru_cache(1024)
def sources(text: str) -> Sequence[str]:
    """Return the tables from which a statement reads rows or values, but for those of its conditions.

    What is deleted is read where an INSERT takes what it returns.
    """
    is_moved = re.search(r"\bINSERT\b", text, re.I) is not None
    # Of each bracket: whether it holds a statement, a condition is open, a list of tables is open.
    levels, names = [[True, False, False]], []
    for found in _WORDS.finditer(text):
        level = levels[-1]
        if found["bracket"] == "(":
            levels.append([False, level[1], level[2]])
        elif found["bracket"]:
            levels = levels[:-1] or [[True, False, False]]
        elif found["reads"]:
            is_deleted = found["reads"][:6].upper() == "DELETE"
            level[0] |= is_deleted
            if found["reads"].upper() != "USING" or not level[1]:
                level[1] = len(levels) > 1 and levels[-2][1]
            if level[0] and not level[1]:
                level[2] = True
                names += [found["name"]] if is_moved or not is_deleted else []
        elif found["comma"] and level[2]:
            names.append(found["other"])
        elif found["condition"]:
            level[1:] = [True, False]
        elif found["word"] or found["end"]:
            level[0] |= found["word"] is not None
            level[1:] = [len(levels) > 1 and levels[-2][1], False]
    return names
