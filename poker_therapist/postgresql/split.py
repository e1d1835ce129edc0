"""Where a statement of PostgreSQL ends; psql judges alike."""

import re
from collections.abc import Iterator
from functools import lru_cache

from poker_therapist.migrations.files import Statement

_TOKEN = re.compile(
    r"""
      (?P<comment> --[^\n]* | /\* )
    | [eE]'(?: [^'\\] | \\. | '' )*'        # a backslash escapes only here
    | '[^']*'                               # a doubled quote is two texts with nothing between
    | "[^"]*"
    | (?P<tag> \$(?:[^\W\d]\w*)?\$ ) .*? (?P=tag)
    | (?P<word> [^\W\d][\w$]* )
    | [\d.]+\w*
    | \S                                    # what is left, and a quote without its end
    """,
    re.VERBOSE | re.DOTALL,
)
COPIES_ROWS = re.compile(r"COPY\b.*\b(STDIN|STDOUT)\b", re.IGNORECASE | re.DOTALL)
NO_ROWS = "COPY with STDIN or STDOUT cannot run in an SQL file: use INSERT"
_COMMENT_ENDS = re.compile(r"/\*|\*/")
_OPENS = re.compile(r"['\"] | \$(?:[^\W\d]\w*)?\$", re.VERBOSE)
_ROUTINE = re.compile(r"create (or replace )?(function|procedure)\b")


@lru_cache(1024)
def split(text: str) -> list[Statement]:
    """Return the statements of a file.

    A semicolon ends none inside a text, a comment, brackets, what dollar signs enclose, or the BEGIN ATOMIC
    of a routine.
    """
    statements: list[Statement] = []
    begin: int | None = None  # of the statement, after blanks and comments
    words: list[str] = []  # the first few of it
    brackets = blocks = counted = 0
    line = 1
    for token in tokens(text):
        if token["comment"]:
            continue
        found = token[0].lower()
        if found == ";" and brackets <= 0 and not blocks:
            if begin is not None:
                statements.append(Statement(text[begin : token.end()], line))
            begin, words, brackets = None, [], 0
            continue
        if begin is None:
            begin = token.start()
            line += text.count("\n", counted, begin)
            counted = begin
        brackets += (found == "(") - (found == ")")
        if token["word"]:
            words = [*words, found] if len(words) < 4 else words
            if brackets <= 0 and _ROUTINE.match(" ".join(words)):
                blocks += found == "begin" or (found == "case" and blocks > 0)
                blocks -= found == "end" and blocks > 0
    if begin is not None:
        statements.append(Statement(text[begin:].strip(), line))
    return statements


def tokens(text: str) -> Iterator[re.Match[str]]:
    """Yield the tokens of a text, without blanks and comments; of a comment that is not closed, its start.

    Comments nest. A quote or dollar quote that is not closed is a token of one character.
    """
    place = 0
    while token := _TOKEN.search(text, place):
        place, depth = token.end(), int(token["comment"] == "/*")
        while depth and (found := _COMMENT_ENDS.search(text, place)):
            depth += 1 if found[0] == "/*" else -1
            place = found.end()
        if depth:
            place = len(text)
        if depth or not token["comment"]:
            yield token


def is_open(token: re.Match[str]) -> bool:
    """Return whether a token begins a text, a name or a comment that has no end."""
    return token["comment"] is not None or bool(
        len(token[0]) == 1 and _OPENS.match(token.string, token.start())
    )
