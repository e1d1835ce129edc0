"""What a migration does to foreign keys on SQLite, where they are off while it runs."""

import pytest

from tests.helpers import snapshots
from tests.helpers.project import Project

HANDS = """
CREATE TABLE hands (id INTEGER PRIMARY KEY, name TEXT UNIQUE);
INSERT INTO hands VALUES (1, 'a'), (2, 'b');
"""
DEPENDS = "-- depends: 001_first\n"
# What is there, what a migration does to it, and what it is told; nothing where it may do so.
CASES = {
    "without rowid, beside an old one": (
        (
            "CREATE TABLE bets (name TEXT PRIMARY KEY, hand INTEGER REFERENCES hands (id)) WITHOUT ROWID;"
            "INSERT INTO bets VALUES ('old', 99), ('good', 1);"
        ),
        "UPDATE bets SET hand = 98 WHERE name = 'good';",
        "a row of bets would violate its foreign key to hands",
    ),
    "without rowid, instead of an old one": (
        (
            "CREATE TABLE bets (name TEXT, n INTEGER, hand INTEGER REFERENCES hands, PRIMARY KEY (name, n))"
            "WITHOUT ROWID;"
            "INSERT INTO bets VALUES ('old', 1, 99), ('good', 2, 1);"
        ),
        "UPDATE bets SET hand = iif(n = 1, 1, 98);",
        "a row of bets would violate its foreign key to hands",
    ),
    "a second key of the same row": (
        (
            "CREATE TABLE bets (id INTEGER PRIMARY KEY, one REFERENCES hands (id),"
            "two REFERENCES hands (id));"
            "INSERT INTO bets VALUES (5, 99, 1);"
        ),
        "UPDATE bets SET two = 98;",
        "row 5 of bets would violate its foreign key to hands",
    ),
    "beside a key that SQLite cannot use": (
        (
            "CREATE TABLE items (code TEXT);"
            "CREATE TABLE bets (id INTEGER PRIMARY KEY, item REFERENCES items (code), hand REFERENCES hands);"
            "INSERT INTO bets VALUES (5, 'x', 1);"
        ),
        "DELETE FROM hands WHERE id = 1;",
        "row 5 of bets would violate its foreign key to hands",
    ),
    "through a trigger": (
        (
            "CREATE TABLE bets (id INTEGER PRIMARY KEY, hand REFERENCES hands);"
            "INSERT INTO bets VALUES (5, 1);"
            "CREATE TABLE notes (id INTEGER); CREATE TRIGGER spoil AFTER INSERT ON notes BEGIN"
            " UPDATE bets SET hand = 97; END;"
        ),
        "INSERT INTO notes VALUES (1);",
        "row 5 of bets would violate its foreign key to hands",
    ),
    "through a view's trigger": (
        (
            "CREATE TABLE bets (id INTEGER PRIMARY KEY, hand REFERENCES hands);"
            "INSERT INTO bets VALUES (5, 1);"
            "CREATE VIEW notes AS SELECT 1 AS id; CREATE TRIGGER spoil INSTEAD OF INSERT ON notes BEGIN"
            " UPDATE bets SET hand = 97; END;"
        ),
        "INSERT INTO notes VALUES (1);",
        "row 5 of bets would violate its foreign key to hands",
    ),
    "a name with a quote in it": (
        (
            'CREATE TABLE "a ""b" (id INTEGER PRIMARY KEY, hand REFERENCES hands);'
            'INSERT INTO "a ""b" VALUES (5, 1);'
        ),
        'UPDATE "a ""b" SET hand = 97;',
        'row 5 of a "b would violate its foreign key to hands',
    ),
    "a parent that loses its key": (
        "CREATE TABLE bets (id INTEGER PRIMARY KEY, hand TEXT REFERENCES hands (name));",
        "CREATE TABLE held AS SELECT * FROM hands; DROP TABLE hands; ALTER TABLE held RENAME TO hands;",
        "the foreign key of bets to hands would be invalid: (name) is neither the primary key nor UNIQUE",
    ),
    "a new key to a parent without one": (
        "",
        "CREATE TABLE items (code TEXT); CREATE TABLE orders (item TEXT REFERENCES items (code));",
        "the foreign key of orders to items would be invalid: (code) is neither the primary key nor UNIQUE",
    ),
    "an old violation, its table rebuilt": (
        "CREATE TABLE bets (id INTEGER PRIMARY KEY, hand REFERENCES hands); INSERT INTO bets VALUES (5, 99);",
        (
            "CREATE TABLE held (id INTEGER PRIMARY KEY, hand REFERENCES hands, note TEXT);"
            "INSERT INTO held (id, hand) SELECT id, hand FROM bets; DROP TABLE bets;"
            "ALTER TABLE held RENAME TO bets;"
        ),
        "",
    ),
    "a text that is the number of its parent": (
        "CREATE TABLE bets (id INTEGER PRIMARY KEY, hand TEXT REFERENCES hands (id));",
        "INSERT INTO bets VALUES (5, '1'), (6, NULL);",
        "",
    ),
    "a parent under a collation": (
        (
            "CREATE TABLE clubs (name TEXT COLLATE NOCASE PRIMARY KEY); INSERT INTO clubs VALUES ('Aces');"
            "CREATE TABLE bets (id INTEGER PRIMARY KEY, club TEXT REFERENCES clubs);"
        ),
        "INSERT INTO bets VALUES (5, 'ACES');",
        "",
    ),
}


@pytest.mark.parametrize("engine", ["sqlite"], indirect=True)
@pytest.mark.parametrize(("there", "does", "says"), CASES.values(), ids=CASES)
def test_what_a_migration_breaks_is_refused_and_nothing_else(
    there: str, does: str, says: str, project: Project
) -> None:
    project.run_sql(HANDS + there)
    project.write("001_first", "SELECT 1;")
    assert project.yoyo("apply").returncode == 0
    before = snapshots.everything(project.database)
    project.write("002_change", DEPENDS + does)

    if says:
        assert says in project.refuses("apply")
        assert snapshots.everything(project.database) == before
    else:
        done = project.yoyo("apply")
        assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("engine", ["sqlite"], indirect=True)
def test_a_key_to_a_table_of_the_app_s_that_has_no_such_column_is_told(project: Project) -> None:
    """The app's table is not what the migration made: it is applied, and the operator is told."""
    project.run_sql("CREATE TABLE users (user_id INTEGER PRIMARY KEY)")
    project.write("001_first", "CREATE TABLE hands (id INTEGER PRIMARY KEY, user REFERENCES users (id));")
    done = project.yoyo("apply")

    assert (done.returncode, done.stderr) == (0, "")
    assert "cannot check the foreign key of hands to users" in done.stdout
