"""Writes the part of STORAGE_ARCHITECTURE.md that repeats the schema, from a new database: `make docs`."""

import re
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from poker_therapist import get_pattern_storage
from poker_therapist.migrations.catalog import Catalog, Table
from poker_therapist.sqlite.catalog import describe

PAGE = Path(__file__).with_name("STORAGE_ARCHITECTURE.md")
BEGIN, END = "<!-- schema: written by `make docs` -->\n", "<!-- end of schema -->\n"


def main() -> None:
    """Replace what stands between the two marks of the page."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "fresh.db")
        get_pattern_storage(path).close()
        with closing(sqlite3.connect(path)) as database:
            schema = "\n".join(draw(describe(database)))
    before, rest = PAGE.read_text(encoding="utf-8").split(BEGIN)
    after = rest.split(END)[1]
    PAGE.write_text(f"{before}{BEGIN}\n{schema}\n\n{END}{after}", encoding="utf-8")


def draw(schema: Catalog) -> Iterator[str]:
    """Return the lines of the diagram, and of two lists for each table: columns and indexes."""
    yield from ("```mermaid", "erDiagram")
    yield from (f'    player ||..o{{ {name} : "user_id"' for name in schema.tables)
    for name, table in schema.tables.items():
        yield f"    {name} {{"
        for column, described in table.columns.items():
            key = {"primary": " PK", "unique": " UK"}.get(_key(table, column), "")
            yield f"        {described.type} {column}{key}"
        yield "    }"
    yield "```"
    for name, table in schema.tables.items():
        yield from ("", f"### `{name}`", "")
        yield from _columns(table)
        yield ""
        yield from _indexes(schema, name)


def _columns(table: Table) -> Iterator[str]:
    yield from ("| column | type | nullable | default | key | check |", "|---|---|---|---|---|---|")
    for name, column in table.columns.items():
        nullable = "yes" if column.nullable else ""
        checks = " and ".join(_code(check) for check in sorted(table.checks) if _is_about(check, name))
        yield (
            f"| `{name}` | {column.type} | {nullable} | {_code(column.default)} | {_key(table, name)} "
            f"| {checks} |"
        )


def _indexes(schema: Catalog, name: str) -> Iterator[str]:
    """Return the indexes of a table, and its keys, which SQLite keeps as indexes too."""
    yield from ("| index | columns | only where |", "|---|---|---|")
    for index, described in schema.indexes.items():
        if described.table == name:
            yield f"| `{index}` | {_code(', '.join(described.columns))} | {_code(described.where)} |"
    table = schema.tables[name]
    for key in sorted(table.unique_keys):
        yield f"| of the unique key | {_code(', '.join(key))} |  |"
    if "WITHOUT ROWID" in table.options:  # elsewhere it is the number of the row
        yield f"| of the primary key | {_code(', '.join(table.primary_key))} |  |"


def _key(table: Table, column: str) -> str:
    if column in table.primary_key:
        return "primary"
    return "unique" if any(column in key for key in table.unique_keys) else ""


def _is_about(check: str, column: str) -> bool:
    return re.search(rf"\b{column}\b", check) is not None


def _code(text: str | None) -> str:
    return f"`{text}`" if text else ""


if __name__ == "__main__":
    main()
