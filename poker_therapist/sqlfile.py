"""The named queries of a `.sql` file, compiled to the placeholders of an engine.

A query starts with a header, `-- name: get_pattern(user_id, pattern_type)`, which names its parameters in the
order in which they stand in the SQL as `:user_id`, `:pattern_type`. Comments below the header give reasons.
A function's name, in lower case before a parenthesis, is one of `pg_catalog` on PostgreSQL.
"""

import re
from enum import Enum
from functools import cache
from pathlib import Path


class Placeholders(Enum):
    """How an engine writes a parameter."""

    # Not ?1: Python 3.12.0 to 3.12.3 warn about numbered parameters that are bound by position.
    SQLITE = "?"
    POSTGRESQL = "$"


_HEADER = re.compile(r"^-- name: (\w+)\(([\w, ]*)\)$", re.MULTILINE)
_LEADING_COMMENTS = re.compile(r"(?:\s+|--[^\n]*\n)*")
_TOKEN = re.compile(
    r"""
    --[^\n]* | /\*.*?\*/ | '[^']*' | "[^"]*" | (\$\w*\$).*?\1     # a colon or a plus in these is text
    | ::                                                          # a cast
    | :(?P<parameter>[a-z_]\w*)
    # On a server another role may have made a function of that name which fits a call better.
    | (?<![\w.])(?P<function>(?-i:(?!(?:any|cast|coalesce|greatest|least|nullif)\()[a-z_]\w*)(?=\())
    # A unary plus keeps SQLite's planner off an index; PostgreSQL's would not find the column.
    | (?P<before>(?:\b(?:AND|BY|NOT|ON|OR|SELECT|WHEN|WHERE)\b|[(,=<>])\s*)\+(?=[a-z_"])
    """,
    re.VERBOSE | re.DOTALL | re.IGNORECASE,
)


@cache
def read_queries(placeholders: Placeholders, *paths: Path) -> dict[str, str]:
    """Return the queries of some files by name; values are bound as a tuple, in the order of the header.

    Raises:
        ValueError: a header does not name the parameters of its query in their order, each once.
    """
    queries = {}
    for path in paths:
        _, *parts = _HEADER.split(path.read_text(encoding="utf-8"))
        for name, signature, body in zip(parts[::3], parts[1::3], parts[2::3], strict=True):
            declared = signature.replace(",", " ").split()
            queries[name] = _compile(f"{path.name}: {name}", declared, body, placeholders)
    return queries


def _compile(place: str, declared: list[str], body: str, placeholders: Placeholders) -> str:
    used: list[str] = []

    def replace(token: re.Match[str]) -> str:
        if token["parameter"]:
            used.append(token["parameter"])
            return "?" if placeholders is Placeholders.SQLITE else f"${len(used)}"
        if token["function"] and placeholders is Placeholders.POSTGRESQL:
            return f"pg_catalog.{token[0]}"
        if token["before"] and placeholders is Placeholders.POSTGRESQL:
            return token["before"]
        return token[0]

    sql = _TOKEN.sub(replace, _LEADING_COMMENTS.sub("", body, count=1)).strip().removesuffix(";")
    if used != declared:
        raise ValueError(f"{place} declares the parameters {declared} and uses {used}")
    return sql
