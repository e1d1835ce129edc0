"""Where a statement of SQLite's ends: as SQLite itself judges, in a time that grows with the text alone."""

import re
import sqlite3

from hypothesis import example, given
from hypothesis import strategies as st

from poker_therapist.migrations.files import split
from poker_therapist.migrations.header import blank

WORDS = [
    *(
        ";",
        ";",
        ";",
        " ",
        "\n",
        "\t",
        "\f",
        "\r\n",
        "'",
        '"',
        "`",
        "[",
        "]",
        "--",
        "/*",
        "*/",
        "/",
        "-",
        "*",
        "(",
        ")",
    ),
    *(
        "CREATE",
        "create",
        "TEMP",
        "Temporary",
        "TRIGGER",
        "trigger",
        "BEGIN",
        "END",
        "end",
        "EXPLAIN",
        "CASE",
    ),
    *(
        "x",
        "1",
        "_a",
        "$b",
        "é",
        "\u2028",
        "@",
        "#",
        "\\",
        "CREATED",
        "TRIGGERS",
        "ENDED",
        "EXPLAIN QUERY PLAN",
    ),
    *("SELECT 1;", "CREATE TRIGGER t AFTER INSERT ON u BEGIN SELECT 1; END;", "'a;b'", "-- c;\n", "/* d; */"),
]


def split_by_sqlite(text: str) -> list[tuple[str, int]]:
    """Ask SQLite at each semicolon, which takes the square of the time."""
    found, start = [], 0
    for end in (*(one.end() for one in re.finditer(";", text)), len(text)):
        part = text[start:end]
        if end == len(text) or sqlite3.complete_statement(part):
            code = part[blank(part) :]
            if code.strip(" \t\r\n;"):
                found.append((code.strip(), text.count("\n", 0, end - len(code)) + 1))
            start = end
    return found


@given(st.lists(st.sampled_from(WORDS), max_size=40).map("".join))
@example("CREATE TEMP TRIGGER t AFTER INSERT ON u BEGIN SELECT ';' ; END ; SELECT 2")
@example("EXPLAIN CREATE TRIGGER t BEGIN x; END; y;")
@example("SELECT '; -- not closed")
def test_a_statement_ends_where_sqlite_says(text: str) -> None:
    assert [(one.text, one.line) for one in split(text)] == split_by_sqlite(text)


def test_many_statements_and_many_semicolons_are_read_once() -> None:
    """By the square of either this would take hours."""
    insert = "INSERT INTO hands VALUES (1, 'a;b'); -- one; two\n"
    many = split(insert * 80_000)
    assert (len(many), many[-1].line) == (80_000, 80_000)
    assert len(split(f"SELECT '{';' * 500_000}';\n{'/*;*/' * 100_000}SELECT 2;")) == 2
    assert len(split("'" * 200_001)) == 1
