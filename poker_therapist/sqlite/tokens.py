"""SQL as words, so that layout, comments, quotes of names and case of keywords make no difference."""

import re
import sqlite3
from collections.abc import Sequence

from sqlparse import lexer, tokens

from poker_therapist.migrations.files import OUTSIDE_TRANSACTION

# They have no case. sqlparse takes many more words for keywords, names of columns among them.
_KEYWORD = re.compile(
    r"""
    after | all | and | as | asc | autoincrement | before | begin | between | by | case | cast | check |
    collate | conflict | constraint | create | default | deferrable | deferred | delete | desc |
    distinct | else | end | exists | except | for | foreign | from | generated | glob | group | in |
    index | initially | insert | instead | into | is | join | key | left | like | limit | not | null |
    of | on | or | order | primary | references | replace | rowid | select | set | stored | strict |
    table | then | trigger | union | unique | update | using | values | view | virtual | when | where |
    without
    """,
    re.IGNORECASE | re.VERBOSE,
)


_OUTSIDE = re.compile(r"VACUUM\b|DETACH\b|PRAGMA (?:\w+\.)?(?:journal_mode|synchronous) ?[=(]", re.IGNORECASE)
_NO_EFFECT = re.compile(r"PRAGMA (?:\w+\.)?foreign_keys ?[=(]", re.IGNORECASE)


def has_end(text: str) -> bool:
    """Return whether a statement is complete: every string, name, comment and trigger in it is closed."""
    return "\0" in text or sqlite3.complete_statement(f"{text}\n;")


def fault(text: str, is_whole: bool) -> str:
    """Return the problem of a statement that is incomplete, has no effect, or cannot run in a transaction."""
    if not has_end(text):
        return "this statement is incomplete: look for a quote, a bracket or an END that is missing"
    from poker_therapist.migrations.effects import code  # what only applies has no use for it

    line = code(text) if is_whole else ""
    if found := _OUTSIDE.match(line):
        return f"{found[0].rstrip(' =(')} cannot run in a transaction: {OUTSIDE_TRANSACTION}"
    if _NO_EFFECT.match(line):
        return (
            "this has no effect in a transaction: delete it. Foreign keys are off while a migration runs, "
            "and are checked at its end"
        )
    return ""


def words_of(sql: str) -> list[str]:
    """Return the words of a statement without blanks, comments, the quotes of names and case of keywords."""
    words = []
    # Only its lexer, which reads a text of any length and depth.
    for kind, text in lexer.tokenize(sql):  # type: ignore[no-untyped-call]  # sqlparse is half typed
        if kind in tokens.Whitespace or kind in tokens.Comment:
            continue
        if kind in tokens.Keyword:  # some are of several words
            words += [word.upper() if _KEYWORD.fullmatch(word) else word for word in text.split()]
        elif kind is tokens.Literal.String.Symbol or kind in tokens.Name:
            words.append(text.strip('"`[]'))
        else:
            words.append(text)
    return words


def parts_of(words: Sequence[str], start: int) -> list[list[str]]:
    """Return the parts between the commas of the parentheses that open at `start`."""
    parts: list[list[str]] = [[]]
    depth = 0
    for word in words[start:]:
        depth += {"(": 1, ")": -1}.get(word, 0)
        if depth == 0:
            break
        if word == "," and depth == 1:
            parts.append([])
        elif not (word == "(" and depth == 1 and parts == [[]]):
            parts[-1].append(word)
    return [part for part in parts if part]


def text_of(words: Sequence[str]) -> str:
    """Return words as one line, laid out the same whatever the layout was."""
    line = ""
    for word in words:
        glued = not line or word in ",)." or line[-1] in "(." or (word == "(" and line[-1].islower())
        line += word if glued else f" {word}"
    return line
