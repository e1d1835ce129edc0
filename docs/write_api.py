"""Writes api.md from the docstrings, the named queries and SQLite's plans of them: `make docs`."""

import inspect
import re
import sqlite3
import sys
import tempfile
import textwrap
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, get_type_hints

from poker_therapist import JSON, PatternStorage, get_pattern_storage, records
from poker_therapist.location import SQLiteLocation
from poker_therapist.sqlfile import Placeholders, read_queries
from poker_therapist.sqlite.connect import open_connection
from poker_therapist.tables import TABLES

PAGE = Path(__file__).with_name("api.md")
QUERIES_FILE = Path(__file__).parents[1] / "poker_therapist" / "queries.sql"
QUERIES = read_queries(Placeholders.SQLITE, QUERIES_FILE)

_HEAD = """
# The methods of the storage

Every public method of `PatternStorage`: its parameters, errors and default limits, the queries behind it,
and the indexes that each reads, as SQLite {version} plans it. [`make docs`](../Makefile) writes this page
from the docstrings, from [`queries.sql`](../poker_therapist/queries.sql) and from `EXPLAIN QUERY PLAN`.

`poker_therapist.aio.open_storage()` has the same methods as [coroutines](integrations.md#asyncio).
The errors, as a tree: [`errors.py`](../poker_therapist/errors.py).
"""


def main() -> None:
    """Write the page, or, with `-`, print it."""
    if sys.argv[1:] == ["-"]:
        sys.stdout.write(text())
    else:
        PAGE.write_text(text(), encoding="utf-8")


def text() -> str:
    """Return the page."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "fresh.db")
        get_pattern_storage(path).close()
        with closing(open_connection(SQLiteLocation(path))) as database:
            return "\n".join(_lines(database)).strip() + "\n"


def _lines(database: sqlite3.Connection) -> Iterator[str]:
    yield _HEAD.format(version=sqlite3.sqlite_version)
    yield from _method("PatternStorage", PatternStorage.__init__, database)
    yield from _prose(inspect.getdoc(PatternStorage) or "")
    groups = [PatternStorage, *(base for base in PatternStorage.__mro__[1:] if base is not object)]
    for group in groups:
        methods = [each for each in vars(group).items() if inspect.isfunction(each[1]) and each[0][0] != "_"]
        if methods:
            title = re.sub("(?<=[a-z])[A-Z]", lambda found: f" {found[0].lower()}", group.__name__)
            yield from (f"## {title if group is not PatternStorage else 'Blocks and closing'}", "")
        for name, method in methods:
            yield from (f"### {name}", "")
            yield from _method(name, method, database)
    yield from ("## What is returned", "")
    for name, record in vars(records).items():
        if hasattr(record, "__required_keys__") and name[0] != "_":
            yield from (f"### {name}", "")
            yield from _prose(inspect.getdoc(record) or "")
            yield from (
                f"- `{key}`: `{_plain(inspect.formatannotation(hint))}`"
                for key, hint in get_type_hints(record).items()
            )
            yield ""
    yield from ("## Queries", "")
    for name in QUERIES:
        yield from (f"### Query {name}", "", f"- {reads(database, name)}", "")
        yield from (textwrap.indent(QUERIES[name], "    "), "")


def _method(name: str, method: Callable[..., Any], database: sqlite3.Connection) -> Iterator[str]:
    """Yield the signature, the docstring, the default limits and the queries of a method."""
    signature = inspect.signature(method)
    parameters = [each for each in signature.parameters.values() if each.name != "self"]
    result = signature.return_annotation if name != "PatternStorage" else signature.empty
    call = name + _plain(str(signature.replace(parameters=parameters, return_annotation=result)))
    yield from (textwrap.fill(call, 106, initial_indent="    ", subsequent_indent=" " * 8), "")
    docstring = inspect.getdoc(method) or ""
    if "\nArgs:\n" not in docstring and "user_id" in signature.parameters:
        docstring += "\n\nArgs:\n    user_id: the player."  # what every method would say
    yield from _prose(docstring)
    limits = [f"`{each.name}={each.default}`" for each in parameters if "limit" in each.name]
    if limits:
        yield from (f"Unless given: {', '.join(limits)}.", "")
    if found := [query for query in QUERIES if query in queries_of(name)]:
        yield from ("Queries:", "")
        yield from (f"- [`{query}`](#query-{query}): {reads(database, query)}" for query in found)
        yield ""


def _plain(types: str) -> str:
    """Return types as one would write them, without the modules that they are of."""
    types, json = (re.sub(r"\b(?:[a-z_]+\.)+(?=[A-Za-z])", "", one) for one in (types, str(JSON)))
    return types.replace(json, "JSON").replace("NoneType", "None")


def _prose(docstring: str) -> Iterator[str]:
    """Yield a docstring, its sections `Args` and `Raises` as lists."""
    for paragraph in docstring.split("\n\n"):
        head, _, entries = paragraph.partition("\n")
        if head not in ("Args:", "Raises:", "Attributes:", "Returns:"):
            yield from (paragraph, "")
            continue
        yield from ({"Args:": "Parameters:", "Raises:": "Errors:"}.get(head, head), "")
        for entry in re.split(r"\n(?=\S)", textwrap.dedent(entries)):
            subject, _, what = " ".join(entry.split()).partition(": ")
            yield textwrap.fill(f"- `{subject}`: {what}", 110, subsequent_indent="  ")
        yield ""


def queries_of(name: str, seen: frozenset[str] = frozenset()) -> set[str]:
    """Return the names of the queries that a method runs, by itself or through others."""
    method = getattr(PatternStorage, name, None)
    if name in seen or not inspect.isfunction(method):
        return set()
    source = inspect.getsource(method).replace(inspect.getdoc(method) or "\0", "")
    found = set(re.findall(r'"(\w+)"', source)) & QUERIES.keys()
    for verb in re.findall(r'f"(\w+)_\{table\.name\}"', source):
        found |= {f"{verb}_{table.name}" for table in TABLES}
    for called in re.findall(r"self\.(\w+)\(", source):
        found |= queries_of(called, seen | {name})
    return found


def reads(database: sqlite3.Connection, name: str) -> str:
    """Return which indexes a query searches, and what else it costs."""
    sql = QUERIES[name]
    plan = [row[3] for row in database.execute(f"EXPLAIN QUERY PLAN {sql}", [None] * sql.count("?"))]
    steps = []
    for step in plan:
        if found := re.fullmatch(r"SEARCH (\w+) USING (COVERING )?(?:INDEX )?(.*?) ?\((.*)\)", step):
            index = f"`{found[3]}`"
            if found[3] == "INTEGER PRIMARY KEY":
                index = f"`{found[1]}`"
            elif "autoindex" in index or "PRIMARY KEY" in index:
                index = f"the key of `{found[1]}`"
            by = re.sub(r"=\?", "", found[4]).replace("rowid", "id").replace(" AND ", ", ")
            steps.append(f"search of {index} by {by}" + (", the index alone" if found[2] else ""))
        elif "TEMP B-TREE" in step:
            steps.append("sorted in memory")
    if written := re.match(r"INSERT INTO (\w+)", sql):
        count = len(database.execute(f"PRAGMA index_list({written[1]})").fetchall())
        steps.append(f"writes a row of `{written[1]}` and of its indexes, of which there are {count}")
    return "; ".join(steps)


if __name__ == "__main__":
    main()
