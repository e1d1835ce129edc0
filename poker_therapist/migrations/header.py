"""The directives of a migration's file: `-- word: value`, a line of the comments before the first statement.

A comment counts as a misspelt directive only if its value fits, too: `-- transactions: one for each` is
an ordinary comment, `-- transaction: false` is refused.
"""

import difflib
import re
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

KNOWN = ("depends", "transactional", "out-of-order", "compatible")
_MEANT = {
    **dict(zip(KNOWN, KNOWN, strict=True)),
    **dict.fromkeys(("depends-on", "dependencies", "dependency"), "depends"),
    **dict.fromkeys(("transaction", "transactions"), "transactional"),
    "outoforder": "out-of-order",
    "compatibility": "compatible",
}
# `word: value`, or a known word without its colon.
_LINE = re.compile(
    rf"^[^\S\n]*--+[^\S\n]*(?:(?P<word>[a-z]+(?:[-_ ][a-z]+){{0,2}})[^\S\n]*(?P<colon>[:=])"
    rf"|(?P<bare>{'|'.join(KNOWN)})(?=[^\S\n]))[^\S\n]*(?P<value>[^\n]*)$",
    re.MULTILINE | re.IGNORECASE,
)
_LEADING_COMMENTS = re.compile(r"(?:\s++|--[^\n]*+(?:\n|\Z)|/\*.*?(?:\*/|\Z))*+", re.DOTALL)
_ID = re.compile(r"\w*[\d_][\w.-]*,?")
_TRUTHS = {"true", "false", "yes", "no", "on", "off", "0", "1"}


class Directive(NamedTuple):
    """A line that is a directive, or was meant as one.

    Attributes:
        key: the directive that it is, or that was meant.
        written: the text before the value.
        value: the rest of the line.
        line: of the file, from 1.
        is_exact: whether it is spelt as a directive, in any case.
        in_header: whether it is before the first statement.
    """

    key: str
    written: str
    value: str
    line: int
    is_exact: bool
    in_header: bool

    @property
    def fault(self) -> str:
        """Its problem, and what to do; empty if there is none."""
        if not self.in_header:
            return (
                f"`-- {self.written}` below the first statement has no effect: move "
                f"`-- {self.key}: {self.value}` above it, or delete it"
            )
        if not self.is_exact:
            return f"`-- {self.written}` is not a directive: write `-- {self.key}: {self.value}`"
        if self.key != "depends" and self.value.lower() not in ("true", "false"):
            return f"`-- {self.key}:` must be true or false"
        return ""


def blank(text: str, start: int = 0) -> int:
    """Return how far blanks and comments reach from a place in a text."""
    found = _LEADING_COMMENTS.match(text, start)
    return found.end() if found else start


@lru_cache(1024)  # as files.split
def directives(text: str) -> tuple[Directive, ...]:
    """Return the directives of a file's header."""
    return tuple(_directives(text, 0, blank(text), in_header=True))


def is_compatible(text: str) -> bool:
    """Return whether the header of a file declares that code which does not know it continues to work.

    Called for unknown migrations when a database is opened: nothing here imports yoyo.
    """
    said = [one for one in directives(text) if one.key == "compatible" and one.is_exact]
    return bool(said) and all(one.value.lower() == "true" and not one.fault for one in said)


def misplaced(text: str, statements: Sequence[tuple[str, int]]) -> list[Directive]:
    """Return the directives between and after the statements of a file, of each its text and line."""
    if not statements or not _LINE.search(text):
        return []
    lines = [0, *(found.end() for found in re.finditer("\n", text))]
    ends, begins = list[int](), list[int]()
    for statement, line in statements:
        begins.append(text.find(statement, max(ends[-1] if ends else 0, lines[line - 1])))
        ends.append(begins[-1] + len(statement))
    if not text.endswith(";", 0, ends[-1]):  # the last one has taken the comments that follow it
        while (end := text.rfind("\n", begins[-1], ends[-1])) >= 0:
            if text[end + 1 : ends[-1]].strip()[:2] not in ("", "--"):
                break
            ends[-1] = end
    places = zip(ends, (*begins[1:], len(text)), strict=True)
    return [one for begin, end in places for one in _directives(text, begin, end)]


def unreadable(text: str, split: Callable[[str], Sequence[Any]]) -> list[tuple[int, str]]:
    """Return the line of what hides statements that come after it, and what to do."""
    found = []
    if "\0" in text:  # at which one engine stops, and which the other refuses
        found.append((text.index("\0"), "contains a NUL character: delete it"))
    if "/*" in text and [one.text for one in split(f"{text}\n;SELECT 1")[-1:]] != ["SELECT 1"]:
        why = "this comment is not closed, so the statements after it would not be run: close it"
        found.append((text.rfind("/*"), why))
    return [(text.count("\n", 0, place) + 1, why) for place, why in found]


@lru_cache(1024)  # headers are alike, and each is read several times
def _meant(word: str) -> str:
    """Return the directive that a word in lower case is or was meant as, or nothing."""
    near = difflib.get_close_matches(re.sub("[ _]", "-", word), _MEANT, 1, 0.8)
    return _MEANT[near[0]] if near else ""


def _directives(text: str, begin: int, end: int, *, in_header: bool = False) -> Iterator[Directive]:
    for found in _LINE.finditer(text[begin:end]):
        written, value = found["word"] or found["bare"], found["value"].strip()
        is_exact = written.lower() in KNOWN and found["colon"] == ":"
        if not (key := _meant(written.lower())):
            continue
        words = value.lower().split()
        if key == "depends":
            is_meant = bool(words) and all(_ID.fullmatch(one) for one in words)
        else:
            is_meant = words[:1] != [] and words[0] in _TRUTHS and (is_exact or len(words) == 1)
            is_meant = is_meant or (is_exact and in_header and len(words) < 2)
        if is_meant or (is_exact and in_header and key in ("depends", "transactional")):  # as to yoyo
            line = text.count("\n", 0, begin + found.start()) + 1
            yield Directive(key, f"{written}{found['colon'] or ''}", value, line, is_exact, in_header)
