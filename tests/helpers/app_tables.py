"""Tables of an app's own in the database file, of shapes that nobody promised."""

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

# The app's `users`, to which the foreign keys of 001 refer, and other tables with keys of their own.
REFERENCES = {
    "another column": "CREATE TABLE users (user_id INTEGER PRIMARY KEY, email TEXT);"
    "INSERT INTO users VALUES (7, 'seven@example.com');",
    "a text": "CREATE TABLE users (name TEXT PRIMARY KEY); INSERT INTO users VALUES ('seven');",
    "no key": "CREATE TABLE users (id INTEGER, email TEXT);"
    "INSERT INTO users VALUES (7, 'seven@example.com');",
    "two columns": "CREATE TABLE users (id INTEGER, club INTEGER, PRIMARY KEY (id, club));",
    "a view": "CREATE TABLE people (id INTEGER PRIMARY KEY); CREATE VIEW users AS SELECT id FROM people;",
    "others' keys": "CREATE TABLE items (code TEXT); CREATE TABLE orders (item TEXT REFERENCES items (code));"
    "INSERT INTO orders VALUES ('a');",
    "a missing column": "CREATE TABLE items (code TEXT UNIQUE);"
    "CREATE TABLE orders (item TEXT REFERENCES items (number)); INSERT INTO orders VALUES ('a');",
}


def connect_app(path: Path) -> sqlite3.Connection:
    """Connect as the app does: with its collation, its functions and foreign keys off."""
    connection = sqlite3.connect(path, isolation_level=None)
    register(connection)
    return connection


def register(connection: Any) -> None:
    """Give a connection what the app's tables need."""
    connection.create_collation("app_order", lambda one, other: (one > other) - (one < other))
    connection.create_function("app_fold", 1, lambda text: str(text).casefold(), deterministic=True)


def add_app_tables(path: Path) -> None:
    """Add tables that use a collation, functions and a module that only the app knows."""
    words, comment = ", ".join(["1"] * 10_000), "-- , ('\n" * 20_000
    with closing(connect_app(path)) as connection:
        connection.execute(f"CREATE TABLE long (a TEXT {comment})")
        connection.execute(f"CREATE VIEW words AS SELECT id FROM users WHERE 1 IN ({words})")
        connection.executescript(
            """
            CREATE TABLE users (id INTEGER PRIMARY KEY, name TEXT COLLATE app_order UNIQUE);
            CREATE TABLE friends (one TEXT REFERENCES users (name), other TEXT COLLATE app_order);
            CREATE TABLE notes (body TEXT, folded AS (app_fold(body)), CHECK (app_fold(body) <> 'none'));
            CREATE INDEX notes_by_fold ON notes (app_fold(body)) WHERE app_fold(body) <> '';
            CREATE TABLE tags (name TEXT COLLATE app_order PRIMARY KEY) WITHOUT ROWID;
            CREATE VIEW folded_notes AS
            SELECT app_fold(body) AS body FROM notes ORDER BY body COLLATE app_order;
            CREATE TRIGGER fold_notes AFTER INSERT ON notes WHEN app_fold(new.body) = 'x' BEGIN
                DELETE FROM tags WHERE name = app_fold(new.body);
            END;
            CREATE TABLE "Mixed case" (id INTEGER PRIMARY KEY DESC, a AS (app_fold(id)) STORED UNIQUE);
            CREATE VIRTUAL TABLE search USING fts5 (body);
            INSERT INTO users VALUES (7, 'Seven'), (8, 'Eight');
            INSERT INTO friends VALUES ('Seven', 'Eight'), ('Nobody', 'Eight');
            INSERT INTO notes VALUES ('One'), ('Two');
            INSERT INTO tags VALUES ('a'), ('b');
            INSERT INTO search VALUES ('a1'), ('a2');
            -- As if the module came from a library that only the app loads.
            PRAGMA writable_schema = ON;
            UPDATE sqlite_schema SET sql = replace(sql, 'fts5', 'app_search') WHERE name = 'search';
            """
        )


def app_rows(path: Path) -> dict[str, list[Any]]:
    """Return the rows of those tables with their rowids, as the app finds them."""
    with closing(connect_app(path)) as on_disk, closing(connect_app(Path(":memory:"))) as connection:
        on_disk.backup(connection)
        connection.executescript(
            """
            PRAGMA writable_schema = ON;
            UPDATE sqlite_schema SET sql = replace(sql, 'app_search', 'fts5') WHERE name = 'search';
            PRAGMA writable_schema = RESET;
            """
        )
        rows = {
            table: connection.execute(f"SELECT rowid, * FROM {table} ORDER BY rowid").fetchall()
            for table in ("users", "friends", "notes", "search")
        }
        rows["a2"] = connection.execute("SELECT rowid FROM search WHERE search MATCH 'a2'").fetchall()
        rows["tags"] = connection.execute("SELECT * FROM tags ORDER BY name").fetchall()
    return rows
