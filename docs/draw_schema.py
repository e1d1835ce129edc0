"""Writes the part of STORAGE_ARCHITECTURE.md that repeats the schema, from a new database: `make docs`."""

import re
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from poker_therapist import get_pattern_storage

PAGE = Path(__file__).with_name("STORAGE_ARCHITECTURE.md")
BEGIN, END = "<!-- schema: written by `make docs` -->\n", "<!-- end of schema -->\n"


def main() -> None:
    """Replace what stands between the two marks of the page."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "fresh.db")
        get_pattern_storage(path).close()
        with closing(sqlite3.connect(path)) as database:
            schema = "\n".join(draw(database))
    before, rest = PAGE.read_text(encoding="utf-8").split(BEGIN)
    after = rest.split(END)[1]
    PAGE.write_text(f"{before}{BEGIN}\n{schema}\n\n{END}{after}", encoding="utf-8")


def draw(database: sqlite3.Connection) -> Iterator[str]:
    """Return the lines of the diagram, and of two lists for each table: columns and indexes."""
    tables = [
        name
        for (name,) in database.execute("SELECT name FROM sqlite_schema WHERE type = 'table' ORDER BY name")
        if not name.startswith(("sqlite_", "_yoyo", "yoyo_")) and name != "_migration_text"
    ]
    yield from ("```mermaid", "erDiagram")
    yield from (f'    player ||..o{{ {table} : "user_id"' for table in tables)
    for table in tables:
        unique = _unique_columns(database, table)
        yield f"    {table} {{"
        for _, name, kind, _, _, primary in database.execute(f"PRAGMA table_info({table})"):
            yield f"        {kind} {name}{' PK' if primary else ' UK' if name in unique else ''}"
        yield "    }"
    yield "```"
    for table in tables:
        yield from ("", f"### `{table}`", "")
        yield from _columns(database, table)
        yield ""
        yield from _indexes(database, table)


def _columns(database: sqlite3.Connection, table: str) -> Iterator[str]:
    yield from ("| column | type | nullable | default | key | check |", "|---|---|---|---|---|---|")
    checks, unique = _checks(_stored_sql(database, table)), _unique_columns(database, table)
    for _, name, kind, not_null, default, primary in database.execute(f"PRAGMA table_info({table})"):
        nullable = "" if not_null or primary else "yes"
        key = "primary" if primary else "unique" if name in unique else ""
        yield f"| `{name}` | {kind} | {nullable} | {_code(default)} | {key} | {_code(checks.get(name))} |"


def _indexes(database: sqlite3.Connection, table: str) -> Iterator[str]:
    yield from ("| index | columns | only where |", "|---|---|---|")
    for _, name, _, origin, _ in sorted(
        database.execute(f"PRAGMA index_list({table})"), key=lambda row: row[1]
    ):
        shown = {"c": f"`{name}`", "u": "of the unique key", "pk": "of the primary key"}[origin]
        condition = _stored_sql(database, name).partition("WHERE ")[2]
        yield f"| {shown} | {_code(', '.join(_indexed_columns(database, name)))} | {_code(condition)} |"


def _unique_columns(database: sqlite3.Connection, table: str) -> set[str]:
    indexes = list(database.execute(f"PRAGMA index_list({table})"))
    return {
        column
        for _, name, _, origin, _ in indexes
        if origin == "u"
        for column in _indexed_columns(database, name)
    }


def _indexed_columns(database: sqlite3.Connection, index: str) -> list[str]:
    return [column for _, _, column in database.execute(f"PRAGMA index_info({index})")]


def _checks(sql: str) -> dict[str, str]:
    """Return the CHECK of each column that has one; it is the last thing said of the column."""
    body = re.sub(r"--.*", "", sql).partition("(")[2].rpartition(")")[0]
    definitions, depth = [""], 0
    for character in body:
        depth += {"(": 1, ")": -1}.get(character, 0)
        if character == "," and not depth:
            definitions.append("")
        else:
            definitions[-1] += character
    found = (re.fullmatch(r"\s*(\w+)\s.*CHECK \((.*)\)\s*", text, re.DOTALL) for text in definitions)
    return {column[1]: column[2] for column in found if column}


def _stored_sql(database: sqlite3.Connection, name: str) -> str:
    row = database.execute("SELECT sql FROM sqlite_schema WHERE name = ?", (name,)).fetchone()
    return row[0] or "" if row else ""  # the index of a constraint has no SQL of its own


def _code(text: str | None) -> str:
    return f"`{text}`" if text else ""


if __name__ == "__main__":
    main()
