"""What the catalog says of two schemas that are not the same: each kind in a sentence."""

import pytest

from tests.helpers.catalogs import HANDS, catalog, differences_between

LONG = f"CREATE VIEW v AS SELECT 1 WHERE 1 IN ({', '.join(['1'] * 200)})"
DIFFERENT = {
    "a long view": ("", LONG, [f"view v exists, but should not ({LONG[:297]}...)"]),
    "a column": (
        HANDS, HANDS.replace("stake REAL", "stake REAL, mood TEXT"),
        ["column hands.mood exists, but should not (TEXT)"],
    ),
    "no column": (HANDS, HANDS.replace(", stake REAL", ""), ["column hands.stake is missing (REAL)"]),
    "type": (HANDS, HANDS.replace("REAL", "TEXT"), ["column hands.stake is TEXT, not REAL"]),
    "nullable": (
        HANDS, HANDS.replace("REAL", "REAL NOT NULL"), ["column hands.stake is REAL NOT NULL, not REAL"]
    ),
    "default": (
        HANDS, HANDS.replace("REAL", "REAL DEFAULT 1"), ["column hands.stake is REAL DEFAULT 1, not REAL"]
    ),
    "text of a default": (
        HANDS.replace("TEXT", "TEXT DEFAULT 'a  b'"), HANDS.replace("TEXT", "TEXT DEFAULT 'a b'"),
        ["column hands.note is TEXT DEFAULT 'a b', not TEXT DEFAULT 'a  b'"],
    ),
    "primary key": (
        "CREATE TABLE a (b INT, c INT, PRIMARY KEY (b, c))",
        "CREATE TABLE a (b INT, c INT, PRIMARY KEY (c, b))",
        ["primary key of a is (c, b), not (b, c)"],
    ),
    "unique key": (
        HANDS, HANDS.replace("REAL", "REAL UNIQUE"),
        ["unique key of hands on (stake) exists, but should not"],
    ),
    "foreign key": (
        HANDS + "CREATE TABLE bets (hand INT REFERENCES hands (id))", HANDS + "CREATE TABLE bets (hand INT)",
        ["foreign key of bets (hand) -> hands (id) is missing"],
    ),
    "on delete": (
        HANDS + "CREATE TABLE bets (hand INT REFERENCES hands (id))",
        HANDS + "CREATE TABLE bets (hand INT REFERENCES hands (id) ON DELETE CASCADE)",
        [
            "foreign key of bets (hand) -> hands (id) is missing",
            "foreign key of bets (hand) -> hands (id) ON DELETE CASCADE exists, but should not",
        ],
    ),
    "check": (
        HANDS.replace("REAL", "REAL CHECK (stake > 0)"), HANDS.replace("REAL", "REAL CHECK (stake > 1)"),
        ["check of hands: stake > 0 is missing", "check of hands: stake > 1 exists, but should not"],
    ),
    "strict": (HANDS, HANDS.replace(");", ") STRICT;"), ["table hands is STRICT, not plain"]),
    "without rowid": (
        HANDS.replace(");", ") WITHOUT ROWID;"), HANDS, ["table hands is plain, not WITHOUT ROWID"]
    ),
    "autoincrement": (
        HANDS, HANDS.replace("KEY", "KEY AUTOINCREMENT"), ["table hands is AUTOINCREMENT, not plain"]
    ),
    "index": (
        HANDS + "CREATE INDEX i ON hands (note)", HANDS, ["index i is missing (on hands (note))"]
    ),
    "columns of an index": (
        HANDS + "CREATE INDEX i ON hands (note)", HANDS + "CREATE INDEX i ON hands (note, stake)",
        ["index i is on hands (note, stake), not on hands (note)"],
    ),
    "order of an index": (
        HANDS + "CREATE INDEX i ON hands (note)", HANDS + "CREATE INDEX i ON hands (note DESC)",
        ["index i is on hands (note DESC), not on hands (note)"],
    ),
    "collation of an index": (
        HANDS + "CREATE INDEX i ON hands (note)", HANDS + "CREATE INDEX i ON hands (note COLLATE NOCASE)",
        ["index i is on hands (note COLLATE NOCASE), not on hands (note)"],
    ),
    "unique index": (
        HANDS + "CREATE INDEX i ON hands (note)", HANDS + "CREATE UNIQUE INDEX i ON hands (note)",
        ["index i is unique on hands (note), not on hands (note)"],
    ),
    "rows of an index": (
        HANDS + "CREATE INDEX i ON hands (note)", HANDS + "CREATE INDEX i ON hands (note) WHERE stake > 1",
        ["index i is on hands (note) WHERE stake > 1, not on hands (note)"],
    ),
    "table of an index": (
        HANDS + "CREATE TABLE b (note); CREATE INDEX i ON hands (note)",
        HANDS + "CREATE TABLE b (note); CREATE INDEX i ON b (note)",
        ["index i is on b (note), not on hands (note)"],
    ),
    "view": (
        HANDS + "CREATE VIEW v AS SELECT id FROM hands", HANDS + "CREATE VIEW v AS SELECT note FROM hands",
        ["view v is CREATE VIEW v AS SELECT note FROM hands, not CREATE VIEW v AS SELECT id FROM hands"],
    ),
    "trigger": (
        HANDS + "CREATE TRIGGER t AFTER INSERT ON hands BEGIN SELECT 1; END",
        HANDS,
        ["trigger t is missing (CREATE TRIGGER t AFTER INSERT ON hands BEGIN SELECT 1 ; END)"],
    ),
    "table": (
        HANDS, HANDS + "CREATE TABLE b (c INT CHECK (c > 0)) STRICT",
        ["table b exists, but should not (STRICT)"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", DIFFERENT)
def test_each_kind_of_difference_is_said_in_one_sentence(kind: str) -> None:
    """By its name, with what is and what should be; and nothing else is said."""
    before, after, sentences = DIFFERENT[kind]

    assert differences_between(before, after) == sentences
    assert len(differences_between(after, before)) == len(sentences)
    assert differences_between(before, before) == []
    assert catalog(before).facts() != catalog(after).facts()


BETS = HANDS + "CREATE TABLE bets (hand INT REFERENCES hands (id));"
SUBTLE = {
    "order of columns": (HANDS, "CREATE TABLE hands (id INTEGER PRIMARY KEY, stake REAL, note TEXT)"),
    "expression of an index": (
        HANDS + "CREATE INDEX i ON hands (lower(note))", HANDS + "CREATE INDEX i ON hands (upper(note))"
    ),
    "collation of a column": (HANDS, HANDS.replace("TEXT", "TEXT COLLATE NOCASE")),
    "generated column": (
        "CREATE TABLE a (b INT, c INT AS (b + 1))", "CREATE TABLE a (b INT, c INT AS (b + 2))"
    ),
    "on update": (BETS, BETS.replace("(id));", "(id) ON UPDATE CASCADE);")),
    "deferred": (BETS, BETS.replace("(id));", "(id) DEFERRABLE INITIALLY DEFERRED);")),
    "on conflict": ("CREATE TABLE a (b UNIQUE)", "CREATE TABLE a (b UNIQUE ON CONFLICT REPLACE)"),
}  # fmt: skip


@pytest.mark.parametrize("kind", SUBTLE)
def test_no_difference_goes_unseen(kind: str) -> None:
    before, after = SUBTLE[kind]

    assert differences_between(before, after) != []
