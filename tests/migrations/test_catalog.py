"""The catalog: what makes two schemas different, what does not, and what is said of it."""

from pathlib import Path

import pytest

from poker_therapist import get_pattern_storage
from poker_therapist.migrations.catalog import (
    Column,
    ForeignKey,
    Index,
    Table,
)
from poker_therapist.sqlite.catalog import describe
from tests.helpers import old_app, snapshots
from tests.helpers.catalogs import HANDS, catalog, differences_between


def test_everything_of_a_table_is_described() -> None:
    """Columns in their order, with type, nullability and default; keys, checks and options."""
    found = catalog(
        """
        CREATE TABLE players (id INTEGER PRIMARY KEY);
        CREATE TABLE bets (
            hand INTEGER NOT NULL,
            place INTEGER NOT NULL,
            player INTEGER REFERENCES players (id) ON DELETE CASCADE,
            note TEXT DEFAULT 'none; at all',
            size REAL NOT NULL DEFAULT (1.0 + 1) CHECK (size > 0),
            PRIMARY KEY (place, hand),
            UNIQUE (player, note),
            CHECK (place <> hand OR note IS NULL)
        ) STRICT, WITHOUT ROWID;
        """
    )

    assert found.tables["bets"] == Table(
        columns={
            "hand": Column("INTEGER", False, None),
            "place": Column("INTEGER", False, None),
            "player": Column("INTEGER", True, None),
            "note": Column("TEXT", True, "'none; at all'"),
            "size": Column("REAL", False, "1.0 + 1"),
        },
        primary_key=("place", "hand"),
        unique_keys=frozenset({("player", "note")}),
        foreign_keys=frozenset({ForeignKey(("player",), "players", ("id",), "CASCADE")}),
        checks=frozenset({"size > 0", "place <> hand OR note IS NULL"}),
        options=frozenset({"STRICT", "WITHOUT ROWID"}),
    )
    assert list(found.tables["bets"].columns) == ["hand", "place", "player", "note", "size"]
    assert found.tables["players"].columns == {"id": Column("INTEGER", False, None)}


@pytest.mark.parametrize(
    ("definition", "nullable"),
    [
        ("id INTEGER PRIMARY KEY", False),
        ("id INTEGER PRIMARY KEY AUTOINCREMENT", False),
        ("id INTEGER PRIMARY KEY ASC", False),
        ("id INTEGER PRIMARY KEY DESC", True),  # an index beside the rowid, as SQLite has always made it
        ("id INTEGER, PRIMARY KEY (id DESC)", False),
        ("id INT PRIMARY KEY", True),
        ("id INTEGER, other INTEGER, PRIMARY KEY (id, other)", True),
    ],
)
@pytest.mark.parametrize("options", ["", "STRICT", "WITHOUT ROWID"])
def test_a_column_of_a_key_is_nullable_where_sqlite_takes_null(
    definition: str, nullable: bool, options: str
) -> None:
    if "AUTOINCREMENT" in definition and options == "WITHOUT ROWID":
        options = ""
    found = catalog(f"CREATE TABLE hands ({definition}) {options}")

    assert found.tables["hands"].columns["id"].nullable is (nullable and not options)


def test_everything_of_an_index_a_trigger_and_a_view_is_described() -> None:
    found = catalog(
        HANDS + "CREATE UNIQUE INDEX big ON hands (note COLLATE NOCASE, stake DESC) WHERE stake > 1.5;"
        "CREATE VIEW notes AS SELECT note FROM hands; /* ; */"
        "CREATE TRIGGER noted AFTER INSERT ON hands BEGIN DELETE FROM hands; END;"
    )

    assert found.indexes == {
        "big": Index("hands", ("note COLLATE NOCASE", "stake DESC"), unique=True, where="stake > 1.5")
    }
    assert found.views == {"notes": "CREATE VIEW notes AS SELECT note FROM hands"}
    assert found.triggers.keys() == {"noted"}
    assert found.triggers["noted"][0] == "hands"


NOTED = HANDS + "CREATE INDEX i ON hands (id) WHERE note IS NOT NULL"
SAME = {
    "layout": (HANDS, "CREATE TABLE hands\n(\n  id INTEGER\n PRIMARY KEY ,note\tTEXT,\n\n    stake REAL )"),
    "comments": (HANDS, HANDS.replace("note", "-- what, (\n note").replace("stake", "/* , */ stake")),
    "quoted names": (HANDS, HANDS.replace("note", '"note"').replace("hands", '"hands"')),
    "if not exists": (HANDS, HANDS.replace("TABLE", "TABLE IF NOT EXISTS")),
    "a table that was renamed": (HANDS, HANDS.replace("hands", "new") + "ALTER TABLE new RENAME TO hands"),
    "a column that was added": (
        HANDS, HANDS.replace(", stake REAL", "") + "ALTER TABLE hands ADD stake REAL"
    ),
    "where a key stands": (
        "CREATE TABLE a (b INT PRIMARY KEY NOT NULL, c INT UNIQUE CHECK (c > 0))",
        "CREATE TABLE a (b INT NOT NULL, c INT, CHECK (c>0), UNIQUE (c), PRIMARY KEY (b))",
    ),
    "the name of a check": (
        "CREATE TABLE a (b INT CHECK (b > 0))", "CREATE TABLE a (b INT CONSTRAINT positive CHECK (b > 0))",
    ),
    "parentheses round a default": ("CREATE TABLE a (b INT DEFAULT 1)", "CREATE TABLE a (b INT DEFAULT (1))"),
    "layout of a check": (
        "CREATE TABLE a (b TEXT CHECK (json_valid(b) AND b <> '(;'))",
        'CREATE TABLE a (b TEXT CHECK(  json_valid ( "b" )\nAND -- so )\n b<>\'(;\' ))',
    ),
    "layout of an index": (
        HANDS + "CREATE INDEX i ON hands (note, stake) WHERE stake > 1;",
        HANDS + 'CREATE INDEX IF NOT EXISTS "i"\nON "hands"("note",stake)\n  WHERE stake>1;',
    ),
    "layout of a view": (
        HANDS + "CREATE VIEW v AS SELECT note, 'a  b' FROM hands",
        HANDS + "CREATE VIEW v AS\n  SELECT -- all\n \"note\",'a  b'\n  FROM hands",
    ),
    "layout of a trigger": (
        HANDS + "CREATE TRIGGER t AFTER INSERT ON hands BEGIN SELECT 1; END",
        HANDS + "CREATE TRIGGER t AFTER INSERT\nON hands\nBEGIN\n    SELECT 1; -- one;\nEND",
    ),
    "order of creation": (
        HANDS + "CREATE TABLE b (c); CREATE INDEX i ON b (c); CREATE INDEX j ON hands (note)",
        "CREATE TABLE b (c);" + HANDS + "CREATE INDEX j ON hands (note); CREATE INDEX i ON b (c)",
    ),
    "a line end inside IS NOT NULL": (NOTED, NOTED.replace("NOT NULL", "NOT\nNULL")),
    "blanks inside ORDER BY": (
        HANDS + "CREATE VIEW v AS SELECT id FROM hands ORDER BY id",
        HANDS + "CREATE VIEW v AS SELECT id FROM hands ORDER   BY id",
    ),
    "names in brackets": (
        "CREATE TABLE a (b INT CHECK (b > 0))", "CREATE TABLE [a] ([b] INT CHECK ([b] > 0))"
    ),
    "names in backticks": (
        "CREATE TABLE a (b INT CHECK (b > 0))", "CREATE TABLE `a` (`b` INT CHECK (`b` > 0))"
    ),
    "case of keywords": (
        "CREATE TABLE a (b INT CHECK (b BETWEEN 0 AND 1))", "create table a (b int check (b between 0 and 1))"
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", SAME)
def test_what_means_the_same_is_the_same(kind: str) -> None:
    before, after = SAME[kind]

    assert differences_between(before, after) == []
    assert catalog(before).facts() == catalog(after).facts()


def test_bookkeeping_is_no_part_of_it(tmp_path: Path) -> None:
    """Neither SQLite's tables, nor yoyo's, nor ours."""
    get_pattern_storage(tmp_path / "RexVoice.db").close()
    with snapshots.connect(tmp_path / "RexVoice.db") as connection:
        found = describe(connection)

    assert found.tables.keys() == {*old_app.TABLES, "legacy_rows"}
    assert not any(name.startswith("sqlite_") for name in found.indexes)


def test_a_part_of_it_is_what_concerns_some_tables() -> None:
    """With their indexes, triggers, and the views that read them; the rest belongs to somebody else."""
    whole = catalog(
        HANDS + "CREATE TABLE users (id INTEGER PRIMARY KEY, hand INT); CREATE INDEX u ON users (hand);"
        "CREATE INDEX h ON hands (note); CREATE VIEW v AS SELECT id FROM users;"
        "CREATE VIEW w AS SELECT users.id FROM users JOIN hands ON hands.id = hand;"
        "CREATE TRIGGER t AFTER INSERT ON users BEGIN SELECT 1; END;"
        "CREATE TRIGGER g AFTER INSERT ON hands BEGIN SELECT 1; END;"
    )
    part = whole.only({"hands"})

    assert [list(kind) for kind in (part.tables, part.indexes, part.triggers, part.views)] == [
        ["hands"], ["h"], ["g"], ["w"],
    ]  # fmt: skip


def test_describing_writes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "hands.db"
    with snapshots.connect(path) as connection:
        connection.executescript(HANDS)
    before = path.read_bytes(), path.stat().st_mtime_ns
    with snapshots.connect(path) as connection:
        describe(connection)

    assert (path.read_bytes(), path.stat().st_mtime_ns) == before
