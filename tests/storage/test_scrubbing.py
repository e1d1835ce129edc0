"""Forgetting in a file that the app shares: no byte of the player is left, and no row of the app's moves."""

import os
import random
import signal
import sqlite3
from collections.abc import Callable
from contextlib import closing, nullcontext, suppress
from pathlib import Path
from typing import Any

import pytest

from poker_therapist import DatabaseUnreadable, get_pattern_storage
from poker_therapist.location import SQLiteLocation
from poker_therapist.sqlite import backup, scrub
from poker_therapist.tables import TABLES
from tests.helpers import snapshots
from tests.helpers.app_tables import add_app_tables, connect_app

USER, OTHER = 7, 8
NOW = "2026-01-05T18:12:01.000000+00:00"
# Its bytes stand nowhere else, so that a piece of two is found, too; of four where pages are the largest, in
# which such numbers are places of cells.
MARK = "\u04aa"

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
CREATE VIRTUAL TABLE found USING fts5 (body, content = hands);
CREATE TRIGGER find_hands AFTER INSERT ON hands BEGIN
    INSERT INTO found (rowid, body) VALUES (new.rowid, new.body);
END;
CREATE TRIGGER find_no_more AFTER DELETE ON hands BEGIN
    INSERT INTO found (found, rowid, body) VALUES ('delete', old.rowid, old.body);
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
        connection.create_function("chance", 1, choose.randrange)
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
                run(f"DELETE FROM {table} WHERE user_id = {USER} AND chance(2)")
                run("DELETE FROM hands WHERE chance(4) = 0")
            if number % 50 == 0:
                run("COMMIT")
                run("PRAGMA incremental_vacuum(3)").fetchall()
                run("BEGIN")
        run("INSERT INTO hands VALUES ('the last hand', 1)")
        run("COMMIT")


def state(path: Path, connection: sqlite3.Connection | None = None) -> list[Any]:
    """Return all that is to stay, with the rowids; of the players' tables without the player."""
    with closing(sqlite3.connect(path)) if connection is None else nullcontext(connection) as connection:
        tables = [
            f"SELECT rowid, * FROM {name} ORDER BY rowid"
            for name in ("hands", "fired", "sqlite_sequence", "found", "sqlite_schema")
        ]
        tables += ["SELECT * FROM labels", "SELECT rowid FROM found WHERE found MATCH 'hand' ORDER BY 1"]
        of_other = f"SELECT id FROM user_insights WHERE user_id = {OTHER}"
        tables += [f"SELECT rowid, * FROM links WHERE insight IN ({of_other}) ORDER BY rowid"]
        tables += [
            f"SELECT * FROM {table.name} WHERE user_id IS NOT {USER} ORDER BY 1, 2" for table in TABLES
        ]
        return [connection.execute(sql).fetchall() for sql in tables]


def pieces(path: Path) -> int:
    """Return how many pieces of the mark are in any file of the folder; there are no backups.

    The log is empty: it has checksums, in which any two bytes may be. Its index has nothing else.
    """
    files = [file.read_bytes() for file in path.parent.iterdir() if not file.name.endswith("-shm")]
    length = 4 if path.read_bytes()[16:18] == b"\0\1" else 2  # the page size, or 1 for 65536
    text = MARK.encode() * 3
    return sum(file.count(text[start : start + length]) for file in files for start in (0, 1))


@pytest.mark.parametrize("auto_vacuum", [0, 1, 2])
@pytest.mark.parametrize("page_size", [512, 1024, 4096, 65536])
def test_no_byte_is_left_and_no_row_of_anybody_else_s_moves(
    page_size: int, auto_vacuum: int, tmp_path: Path
) -> None:
    """Free and split pages, overflow, and what a program that erases nothing left in pages of the app's."""
    path = tmp_path / "RexVoice.db"
    make(path, page_size, auto_vacuum)
    had = pieces(path)
    with get_pattern_storage(path) as storage:
        with closing(sqlite3.connect(path, isolation_level=None)) as app:
            state(path, app)  # which holds old pages in memory from now on
            storage.forget_user(USER)
            left = pieces(path)
            app.executescript("PRAGMA secure_delete = OFF; UPDATE hands SET who = -1; DELETE FROM labels;")
            app.executescript("INSERT INTO hands SELECT body, 1 FROM hands; DELETE FROM hands WHERE who = 1;")
            app.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
            left += pieces(path)

        assert storage.forget_user(USER)["user_insights"] == 0
    assert (had > 1_000, left, pieces(path)) == (True, 0, 0)
    assert snapshots.is_whole(path)
    assert [file.name for file in tmp_path.iterdir()] == ["RexVoice.db"]


def run_killed_in_forgetting(path: Path, step: int) -> int:
    """Forget the player in a child that is killed at a step, if there are so many; return its exit code."""
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    steps = iter(range(step))

    def count(*_: object) -> None:
        if next(steps, None) is None:
            os.kill(os.getpid(), signal.SIGKILL)

    def counting(location: SQLiteLocation) -> Callable[[int, int, int], None]:
        be_patient = backup.patience(location)

        def progress(*arguments: int) -> None:
            count()
            be_patient(*arguments)

        return progress

    code = 1
    with suppress(BaseException):
        setattr(scrub, "patience", counting)  # noqa: B010
        opened = get_pattern_storage(path, on_connect=lambda one: one.set_trace_callback(count))
        opened.forget_user(USER)
        code = 0
    os._exit(code)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    made = tmp_path / "RexVoice.db"
    make(made)
    return made


def test_every_row_of_others_stays_in_its_place_and_no_trigger_fires(path: Path) -> None:
    """Rowids, the found over them, counters, the schema; an app's row goes only with what it refers to."""
    before = state(path)
    with get_pattern_storage(path) as storage:
        storage.forget_user(USER)

    assert state(path) == before
    assert all(before)


def test_what_only_the_app_knows_does_not_stand_in_the_way(path: Path) -> None:
    """Its collations, functions and modules."""
    add_app_tables(path)
    with closing(connect_app(path)) as app:
        tables = ("users", "friends", "notes")
        before = [app.execute(f"SELECT rowid, * FROM {table} ORDER BY rowid").fetchall() for table in tables]
        with get_pattern_storage(path) as storage:
            storage.forget_user(USER)
        after = [app.execute(f"SELECT rowid, * FROM {table} ORDER BY rowid").fetchall() for table in tables]

    assert all(before)
    assert after == before
    assert pieces(path) == 0


def test_samples_of_keys_that_analyze_has_kept_go_and_those_of_the_app_stay(path: Path) -> None:
    """As a library keeps them that was built with SQLITE_ENABLE_STAT4."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("ANALYZE")
        connection.execute("PRAGMA writable_schema = ON")
        for name in ("sqlite_stat3", "sqlite_stat4"):
            connection.execute(f"CREATE TABLE {name} (tbl, idx, neq, nlt, ndlt, sample)")
            connection.execute(f"INSERT INTO {name} (tbl, sample) VALUES ('hands', 'a')")
            for table in TABLES:
                connection.execute(f"INSERT INTO {name} (tbl, sample) VALUES (?, ?)", (table.name, MARK * 3))
        averages = connection.execute("SELECT * FROM sqlite_stat1").fetchall()
        with get_pattern_storage(path) as storage:
            storage.forget_user(USER)

        assert pieces(path) == 0
        assert connection.execute("SELECT * FROM sqlite_stat1").fetchall() == averages
        for name in ("sqlite_stat3", "sqlite_stat4"):
            assert connection.execute(f"SELECT tbl, sample FROM {name}").fetchall() == [("hands", "a")]


def test_pages_that_nothing_refers_to_are_erased(path: Path) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("CREATE TABLE lost (body)")
        connection.execute("INSERT INTO lost VALUES (?)", (MARK * 9_000,))
        connection.execute("PRAGMA writable_schema = ON")
        connection.execute("DELETE FROM sqlite_schema WHERE name = 'lost'")
    with get_pattern_storage(path) as storage:
        storage.forget_user(USER)
        assert pieces(path) == 0


def test_a_file_that_is_damaged_is_left_as_it_is(path: Path) -> None:
    """The rows are deleted, and the message says what is left."""
    with closing(sqlite3.connect(path)) as connection:
        root, size = connection.execute(
            "SELECT rootpage, page_size FROM sqlite_schema, pragma_page_size WHERE name = 'hands_by_body'"
        ).fetchone()
    with path.open("r+b") as file:
        file.seek((root - 1) * size)
        file.write(b"\7")
    with get_pattern_storage(path) as storage:
        with pytest.raises(DatabaseUnreadable, match=r"^the rows are deleted, but .* damaged \(page"):
            storage.forget_user(USER)

        assert storage.get_insights(USER) == []
        assert len(storage.get_insights(OTHER)) > 0
    assert [file.name for file in path.parent.iterdir()] == ["RexVoice.db"]


@pytest.mark.slow
def test_a_kill_leaves_the_whole_state_and_a_second_call_does_the_rest(path: Path) -> None:
    """At every statement and every part of a copy."""
    before, content = state(path), path.read_bytes()
    for step in range(1, 1_000):
        path.write_bytes(content)
        code = run_killed_in_forgetting(path, step)
        files = {file.name.removeprefix("RexVoice.db") for file in path.parent.iterdir()}
        assert files <= {"", "-wal", "-shm"}
        assert state(path) == before
        assert snapshots.is_whole(path)
        with get_pattern_storage(path) as storage:
            storage.forget_user(USER)
            assert pieces(path) == 0
        if code == 0:
            break
        assert code == -signal.SIGKILL
    assert step > 20
