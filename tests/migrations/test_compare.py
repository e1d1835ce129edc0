"""Two states of an SQLite file are equal where each value is identical, whatever a column is declared as."""

import sqlite3
from contextlib import closing
from itertools import product
from pathlib import Path

from poker_therapist.sqlite.compare import SQLiteRowComparison

VALUES = (
    None, 0, 1, -1, 0.0, 1.0, -0.5, 2**53 + 2, 2.0**53 + 2, -(2**63), -(2.0**63), "", "1", "1.0", "a", "A",
    "9007199254740994.0", b"", b"1", b"a",
)  # fmt: skip
PAIRS = list(product(VALUES, repeat=2))
DECLARED = (
    "", "ANY", "BLOB", "BLOB REAL", "CHARINT", "DOUBLE PRECISION", "FLOATING POINT", "INTEGER", "NUMERIC",
    "REAL", "REAL TEXT", "TEXT", "TEXT COLLATE NOCASE", "TIMESTAMP", "VARCHAR(9)", "clob", "COLLATE NOCASE",
)  # fmt: skip


def rows_of(path: Path, table: str) -> list[tuple[object, ...]]:
    """Return the rows of a table, each value with its type."""
    with closing(sqlite3.connect(path)) as connection:
        rows = connection.execute(f'SELECT * FROM "{table}" ORDER BY id').fetchall()
    return [tuple((type(value), value) for value in row) for row in rows]


def make(path: Path, side: int) -> Path:
    """Make a file with one side of each pair, in a column of each kind, and with keys of each kind."""
    with closing(sqlite3.connect(path)) as connection, connection:
        for kind in DECLARED:
            strict = "STRICT" if kind == "ANY" else ""
            connection.execute(f'CREATE TABLE "{kind}." (id INTEGER PRIMARY KEY, v {kind}) {strict}')
            rows = [(number, pair[side]) for number, pair in enumerate(PAIRS)]
            connection.executemany(f'INSERT INTO "{kind}." VALUES (?, ?)', rows)
            connection.execute(f'CREATE TABLE "{kind}!" (id {kind or "ANY"} PRIMARY KEY NOT NULL)')
            keys: tuple[object, ...] = ("3", 5.0, "b") if side else (3, 4, "B")
            keys = keys[:2] if kind == "INTEGER" else keys  # which takes no text
            connection.executemany(f'INSERT INTO "{kind}!" VALUES (?)', [(key,) for key in keys])
    return path


def test_values_are_equal_if_they_are_identical(tmp_path: Path) -> None:
    states = make(tmp_path / "before.db", 0), make(tmp_path / "after.db", 1)
    with SQLiteRowComparison(*states) as comparison:
        found = {(one.table, one.column): one.count for one in comparison.differences()}
        changed = dict(comparison.changed_rows())

    for kind in DECLARED:
        before, after = (rows_of(path, f"{kind}.") for path in states)
        differing = sum(was != now for was, now in zip(before, after, strict=True))
        was, now = (set(rows_of(path, f"{kind}!")) for path in states)

        assert 0 < differing < len(PAIRS)
        assert (found[f"{kind}.", "v"], changed[f"{kind}."]) == (differing, differing), kind
        assert changed.get(f"{kind}!", 0) == len(was ^ now), kind


def test_a_text_is_no_number_where_its_column_was_declared_anew(tmp_path: Path) -> None:
    """By PRAGMA writable_schema, which converts no value."""
    states = tmp_path / "before.db", tmp_path / "after.db"
    for path in states:
        with closing(sqlite3.connect(path)) as connection:
            connection.executescript(
                "CREATE TABLE bets (id INTEGER PRIMARY KEY, size TEXT); INSERT INTO bets VALUES (1, '5');"
                "PRAGMA writable_schema = ON; UPDATE sqlite_schema SET sql = replace(sql, 'TEXT', 'REAL');"
                f"PRAGMA writable_schema = RESET; UPDATE bets SET size = size WHERE {path == states[1]};"
            )
    with SQLiteRowComparison(*states) as comparison:
        assert [str(one) for one in comparison.differences()] == [
            "bets.size: 1 value differs, for example 1: '5' became 5.0"
        ]
