"""Forgetting in a file that the app shares: no byte of the player is left, and no row of the app's moves."""

import random
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from poker_therapist import get_pattern_storage
from poker_therapist.tables import TABLES
from tests.helpers import snapshots

USER, OTHER = 7, 8
NOW = "2026-01-05T18:12:01.000000+00:00"
# Of two bytes that stand nowhere else, so that a piece of it is found, too.
MARK = "\u04aa"
PIECES = [b"\xd2\xaa", b"\xaa\xd2"]

APP_TABLES = """
CREATE TABLE hands (body TEXT, who INTEGER);
CREATE INDEX hands_by_body ON hands (body);
CREATE TABLE labels (name TEXT PRIMARY KEY, body TEXT) WITHOUT ROWID;
CREATE TABLE links (insight INTEGER REFERENCES user_insights (id) ON DELETE CASCADE, note TEXT);
CREATE TABLE fired (what TEXT);
CREATE TRIGGER note_insights AFTER INSERT ON user_insights BEGIN INSERT INTO fired VALUES ('insert'); END;
CREATE TRIGGER note_changes AFTER UPDATE ON user_insights BEGIN INSERT INTO fired VALUES ('update'); END;
CREATE TRIGGER note_deletes AFTER DELETE ON user_insights WHEN old.user_id = 8 BEGIN
    INSERT INTO fired VALUES ('delete');
END;
CREATE VIRTUAL TABLE search USING fts5 (body, content = hands);
CREATE TRIGGER search_hands AFTER INSERT ON hands BEGIN
    INSERT INTO search (rowid, body) VALUES (new.rowid, new.body);
END;
CREATE TRIGGER search_no_more AFTER DELETE ON hands BEGIN
    INSERT INTO search (search, rowid, body) VALUES ('delete', old.rowid, old.body);
END;
"""


def make(path: Path, page_size: int = 4096, auto_vacuum: int = 0, steps: int = 1_500, seed: int = 1) -> None:
    """Let a program that erases nothing write and delete rows of two players and of the app, at random."""
    choose = random.Random(f"{page_size} {auto_vacuum} {seed}")
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute(f"PRAGMA page_size = {page_size}")
        connection.execute(f"PRAGMA auto_vacuum = {auto_vacuum}")
        connection.execute("VACUUM")
    get_pattern_storage(path).close()
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        run = connection.execute
        run("PRAGMA secure_delete = OFF")
        connection.executescript(APP_TABLES)
        run("BEGIN")
        for number in range(steps):
            user = choose.choice([USER, USER, OTHER])
            word = MARK if user == USER else "ok"
            text = word * choose.choice([1, 2, 3, 9, 40, 150, 1_500])
            key, value = f"{text}{choose.randrange(300)}", f'"{text}{choose.choice(["", "x", "yz"])}"'
            what = choose.randrange(10)
            if what < 2:
                run(
                    "INSERT OR REPLACE INTO user_patterns (user_id, pattern_type, pattern_key, pattern_value)"
                    " VALUES (?, ?, ?, ?)",
                    (user, word, key, value),
                )
            elif what < 4:
                run(
                    "INSERT INTO conversation_context (user_id, context_key, context_value, session_id)"
                    " VALUES (?, ?, ?, ?)",
                    (user, word, value, key),
                )
            elif what < 6:
                row = run(
                    "INSERT INTO user_insights (user_id, insight_type, insight_data) VALUES (?, ?, ?)",
                    (user, key, value),
                )
                run("INSERT INTO links VALUES (?, 'linked')", (row.lastrowid,))
            elif what < 7:
                run(
                    "INSERT INTO legacy_rows (migration_id, table_name, row_id, user_id, item_key, value)"
                    " VALUES ('002', ?, ?, ?, ?, ?)",
                    (word * 9, number, user, key, value),
                )
            elif what < 8:
                body = "hand " * choose.choice([1, 9, 300, 2_000])
                run("INSERT INTO hands VALUES (?, ?)", (f"a{number} {body}", number))
                run("INSERT OR REPLACE INTO labels VALUES (?, ?)", (f"{number % 97} {body}", body))
            else:
                table = choose.choice(TABLES).name
                run(f"DELETE FROM {table} WHERE user_id = {USER} AND random() % 2")
                run("DELETE FROM hands WHERE random() % 4 = 0")
            if number % 50 == 0:
                run("COMMIT")
                run("PRAGMA incremental_vacuum(3)").fetchall()
                run("BEGIN")
        run("COMMIT")


def state(path: Path) -> list[Any]:
    """Return all that is to stay, with the rowids; of the players' tables without the player."""
    with closing(sqlite3.connect(path)) as connection:
        tables = [
            f"SELECT rowid, * FROM {name} ORDER BY rowid"
            for name in ("hands", "fired", "sqlite_sequence", "search", "sqlite_schema")
        ]
        tables += ["SELECT * FROM labels", "SELECT rowid FROM search WHERE search MATCH 'hand' ORDER BY 1"]
        tables += [
            f"SELECT rowid, * FROM links WHERE insight IN (SELECT id FROM user_insights WHERE user_id = {OTHER})"
        ]
        tables += [
            f"SELECT * FROM {table.name} WHERE user_id IS NOT {USER} ORDER BY 1, 2" for table in TABLES
        ]
        connection.execute("INSERT INTO search (search) VALUES ('integrity-check')")
        connection.rollback()
        return [connection.execute(sql).fetchall() for sql in tables]


def pieces(path: Path) -> int:
    """Return how many pieces of the mark are in any file of the folder; there are no backups."""
    return sum(file.read_bytes().count(piece) for file in path.parent.iterdir() for piece in PIECES)


@pytest.mark.parametrize("auto_vacuum", [0, 1, 2])
@pytest.mark.parametrize("page_size", [512, 1024, 4096, 65536])
def test_no_byte_is_left_and_no_row_of_anybody_else_s_moves(
    page_size: int, auto_vacuum: int, tmp_path: Path
) -> None:
    """Free pages, split pages, overflow, and what a program that erases nothing left in pages of the app's."""
    path = tmp_path / "RexVoice.db"
    make(path, page_size, auto_vacuum)
    before, had = state(path), pieces(path)
    with get_pattern_storage(path) as storage:
        with closing(sqlite3.connect(path)) as app:
            app.execute("SELECT count(*) FROM hands").fetchone()
            storage.forget_user(USER)
        left = pieces(path)

        assert storage.forget_user(USER)["user_insights"] == 0
    assert (had > 1_000, left, pieces(path)) == (True, 0, 0)
    assert state(path) == before
    assert snapshots.is_whole(path)
    assert [file.name for file in tmp_path.iterdir()] == ["RexVoice.db"]
