"""`poker-therapist copy`: from engine to engine with nothing lost, and with nothing left where it fails."""

import contextlib
import os
import shutil
import signal
import sqlite3
import stat
from collections.abc import Callable, Iterator
from itertools import count, cycle
from pathlib import Path
from typing import Any

import psycopg
import pytest

from poker_therapist import get_pattern_storage
from poker_therapist.engines import engine_for
from poker_therapist.errors import (
    DatabaseBusy,
    DatabaseFull,
    DatabaseUnreachable,
    InvalidInput,
    MigrationError,
    SchemaOutdated,
    SchemaTooNew,
    StorageError,
)
from poker_therapist.location import PostgreSQLLocation, SQLiteLocation, locate
from poker_therapist.migrations import transfer
from poker_therapist.migrations.atomic import AtomicBackend
from poker_therapist.postgresql import transfer as postgresql
from poker_therapist.postgresql.connect import WatchedConnection
from poker_therapist.postgresql.connect import connect as connect_to_server
from poker_therapist.postgresql.transfer import PostgreSQLWriter
from poker_therapist.schema import copy
from poker_therapist.sqlite import transfer as sqlite
from poker_therapist.sqlite.connect import open_connection
from poker_therapist.sqlite.transfer import SQLiteWriter
from poker_therapist.tables import TABLES as STORED
from poker_therapist.tables import StoredTable
from tests.helpers import old_app, players, snapshots
from tests.helpers.cli import command, in_child, refused, state_of
from tests.helpers.databases import Databases
from tests.helpers.engines import run_sql
from tests.helpers.migrating import IDS, down, up
from tests.helpers.postgresql import name_of
from tests.helpers.scripts import run_script
from tests.helpers.server import Server

pytestmark = pytest.mark.slow  # every row of two databases, on each pair of engines

KEYS = [table.name for table in STORED]
COUNTED = [table.name for table in STORED if table.identity]

ENGINES = ("sqlite", "postgresql")
DIRECTIONS = [(one, other) for one in ENGINES for other in ENGINES]
# What a migration had to keep, and what belongs to nobody: the operator looks at it and deletes it.
NOBODYS = """
    DELETE FROM legacy_rows
    WHERE typeof(user_id) <> 'integer' OR typeof(session_id) NOT IN ('text', 'null')
"""

New = Callable[..., str]


@pytest.fixture
def new(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[New]:
    """Return a maker of names of databases that hold nothing: a file that is not there, or an empty one.

    One of PostgreSQL's may be asked for with what another fixture has put into its template.
    """
    number = count()
    with contextlib.ExitStack() as stack:

        def make(engine: str, template: str = "") -> str:
            if engine == "sqlite":
                return str(tmp_path / f"new {next(number)}.db")
            databases: Databases = request.getfixturevalue("databases")
            like = request.getfixturevalue(template) if template else ""
            return stack.enter_context(databases.fresh(like))

        yield make


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """A database of the earlier app that has been adopted: every kind of value, rows kept of every type."""
    path = tmp_path / "old.db"
    old_app.make(path)
    old_app.add_odd_rows(path)
    up(path)
    run_sql(path, NOBODYS)
    return path


@pytest.fixture(scope="module")
def small_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database with two players, to be copied."""
    return players.make(tmp_path_factory.mktemp("small") / "small.db")


@pytest.fixture
def small(tmp_path: Path, small_file: Path) -> Path:
    """A database with two players."""
    return Path(shutil.copy(small_file, tmp_path / "small.db"))


@pytest.fixture(scope="module")
def small_template(databases: Databases, small_file: Path) -> Iterator[str]:
    """The name of a PostgreSQL database with the same."""
    with databases.fresh() as url:
        copy(locate(small_file), locate(url))
        yield name_of(url)


@pytest.fixture(scope="module")
def up_to_date(databases: Databases, migrated_template: str) -> Iterator[str]:
    """An empty PostgreSQL database with all tables; a copy that fails leaves it so."""
    with databases.fresh(migrated_template) as url:
        yield url


def filled(engine: str, new: New, small: Path) -> str:
    """Return the name of a database with two players."""
    return str(small) if engine == "sqlite" else new(engine, "small_template")


def contents(name: str | Path) -> dict[str, Any]:
    """Return the rows of each table in the form that both engines share, and the next ids."""
    with engine_for(locate(name)).reader() as reader:
        rows: dict[str, Any] = {
            table.name: list(reader.rows(table, sorted(reader.columns(table)))) for table in STORED
        }
        return rows | {
            f"next id of {table.name}": reader.next_id(table) for table in STORED if table.identity
        }


def exports(name: str | Path, users: range) -> str:
    """Return all that is told of some players."""
    with get_pattern_storage(name, migrate=False) as storage:
        told = repr([storage.export_user(user) for user in users])
    return told.replace("'Infinity'", "inf")  # as an engine without a word for it says it


def relations(name: str) -> list[str]:
    """Return what is in a PostgreSQL database."""
    with psycopg.connect(name) as connection:
        found = connection.execute(
            "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace ORDER BY relname"
        )
        return [row[0] for row in found]


def is_empty(name: str) -> bool:
    """Return whether there is no row, and none was."""
    found = contents(name)
    return all(found[table] == [] for table in KEYS) and next_ids(name) == [1, 1, 1]


def is_untouched(name: str) -> bool:
    """Return whether nothing is left of a copy: no file, or an empty database."""
    if "://" in name:
        return relations(name) == []
    return not list(Path(name).parent.glob(f"{Path(name).name}*"))


# What arrives


def test_an_adopted_database_goes_there_and_comes_back(old: Path, new: New) -> None:
    """Every row of every type, the counters of ids included: each player is told the same on both."""
    there, back = new("postgresql"), new("sqlite")
    copied = copy(locate(old), locate(there))
    copy(locate(there), locate(back))

    assert copied == {table: len(rows) for table, rows in contents(old).items() if table in KEYS}
    assert sorted({type(value).__name__ for row in contents(there)["legacy_rows"] for value in row}) == [
        "NoneType", "bytes", "float", "int", "str",
    ]  # fmt: skip
    rows, expected = snapshots.rows(Path(back)), snapshots.rows(old)
    assert repr(rows) == repr({table: expected[table] for table in rows})
    assert set(rows) == {*KEYS, "sqlite_sequence"}
    assert repr(contents(there)) == repr(contents(old))
    assert exports(there, range(-2, 7)) == exports(old, range(-2, 7))


@pytest.mark.parametrize(("one", "other"), DIRECTIONS)
def test_every_direction_gives_the_same(one: str, other: str, new: New, small: Path) -> None:
    """On the same engine too, where an operator moves house."""
    source, target = filled(one, new, small), new(other)
    copy(locate(source), locate(target))

    assert repr(contents(target)) == repr(contents(source))
    assert exports(target, range(7, 9)) == exports(source, range(7, 9))


@pytest.mark.parametrize(("one", "other"), DIRECTIONS)
def test_what_is_saved_next_gets_the_same_id_on_both(one: str, other: str, new: New, small: Path) -> None:
    """Also where the last rows are gone, and in a table that is empty: no id is given twice."""
    run_sql(
        small,
        """
        DELETE FROM user_insights;
        DELETE FROM conversation_context WHERE id > 2;
        UPDATE sqlite_sequence SET seq = 4000000000 WHERE name = 'user_patterns';
        """,
    )
    source, target = str(small), new(other)
    if one == "postgresql":
        source = new(one)
        copy(locate(small), locate(source))
    copy(locate(source), locate(target))
    for name in (source, target):
        with get_pattern_storage(name, migrate=False) as storage:
            players.fill(storage, 9)
    saved = ids_of(source, 9)

    assert ids_of(target, 9) == saved
    assert min(saved["user_patterns"]) == 4_000_000_001
    assert min(saved["conversation_context"]) > 6
    assert saved["user_insights"] == [3]


def ids_of(name: str, user: int) -> dict[str, list[int]]:
    """Return the ids of a player's rows."""
    with engine_for(locate(name)).reader() as reader:
        return {
            table.name: [row[0] for row in reader.rows(table, ["id", "user_id"]) if row[1] == user]
            for table in STORED
            if table.identity
        }


def next_ids(name: str) -> list[int]:
    return [contents(name)[f"next id of {table}"] for table in COUNTED]


def test_a_database_that_never_held_anything_is_copied(new: New) -> None:
    """And counts from 1, also where the target has counted before."""
    for one, other in DIRECTIONS:
        source, target = new(one), new(other)
        get_pattern_storage(source).close()
        with get_pattern_storage(target) as storage:
            players.fill(storage, 7)
            storage.forget_user(7)
        copied = copy(locate(source), locate(target))

        assert copied == dict.fromkeys(KEYS, 0)
        assert next_ids(target) == [1, 1, 1]


ODD_VALUES: list[Any] = [
    2**70, -(2**63), -0.0, 0.1, 1e300, "\x00", 'a "quote" \\ and a\ttab\r\n', "\\N", "\\.", "",
    "♠ \U0001f0a1 \u2028 \x7f", [[[[[[]]]]]], {"": {"é": None, "b": 1, "a": 2}}, {"\x00": "\U0001f0a1"},
    "NaN", None, True, [1, 1.0, "1"],
]  # fmt: skip


@pytest.mark.parametrize(("one", "other"), DIRECTIONS)
def test_odd_values_and_keys_come_back_to_the_letter(one: str, other: str, new: New) -> None:
    """What COPY, JSON or SQL would take for something else, and the players, ids and times at the ends."""
    source, target = new(one), new(other)
    deep: Any = 7
    for _ in range(490):
        deep = [deep]
    with get_pattern_storage(source) as storage:
        for number, value in enumerate([*ODD_VALUES, deep]):
            for user in (-(2**63), -1, 0, 2**63 - 1):
                storage.save_pattern(user, "\\N\t\n", f"ключ {number}\u2028", value, confidence=number % 2)
                storage.save_context(user, "topic", value, session_id="\\.", expires_minutes=-5)
                storage.save_insight(user, "'; DROP TABLE user_insights; --", value, importance=0.1 + 0.2)
            storage.save_context(1, "ends", value, expires_minutes=4_000_000_000)
    copy(locate(source), locate(target))

    assert repr(contents(target)) == repr(contents(source))
    with get_pattern_storage(target) as storage:
        for number, value in enumerate([*ODD_VALUES, deep]):
            assert repr(storage.get_pattern(-1, "\\N\t\n", f"ключ {number}\u2028")) == repr(value)


def test_a_score_of_minus_zero_is_zero(new: New) -> None:
    """SQLite keeps no sign of a zero, PostgreSQL does; they are equal."""
    source, target = new("postgresql"), new("sqlite")
    with get_pattern_storage(source) as storage:
        storage.save_pattern(7, "tilt", "never", 1, confidence=-0.0)
    copy(locate(source), locate(target))

    assert contents(source) == contents(target)


def test_json_is_kept_to_the_letter_and_not_only_in_meaning(new: New, small: Path) -> None:
    """Blanks, escapes, the order and repetition of keys, and how a number is written."""
    text = ' {"b" : 1.0e0, "a": "\\u0041\\u0000", "b": [ 1 ]}\n'
    with contextlib.closing(sqlite3.connect(small)) as connection:
        connection.execute("UPDATE user_patterns SET pattern_value = ?, confidence = -0.0", (text,))
        connection.execute("UPDATE conversation_context SET session_id = '' WHERE id % 2")
        connection.commit()
    there, back = new("postgresql"), new("sqlite")
    copy(locate(small), locate(there))
    copy(locate(there), locate(back))

    assert repr(snapshots.rows(Path(back))) == repr(snapshots.rows(small))
    assert text in contents(there)["user_patterns"][0]


def test_every_table_that_holds_players_is_copied(old: Path) -> None:
    """Whoever adds a table to the schema adds it to what is copied."""
    assert set(snapshots.tables(old)) - {"users", "messages"} == set(KEYS)


FILL = """
    WITH RECURSIVE number(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM number WHERE n < {rows} / 4)
    INSERT INTO {table} SELECT {columns} FROM number
"""
COLUMNS = {
    "user_patterns": (
        "n, n % 99, 'bet sizing', 'key ' || n, json_array('said ' || hex(randomblob(60))), 0.5,"
        "'2026-01-05T18:12:01.000000+00:00', '2026-01-05T18:12:01.123456+00:00'"
    ),
    "conversation_context": (
        "n, n % 99, 'topic', json_array('said ' || hex(randomblob(60))), 's' || n % 9,"
        "'2026-01-05T18:12:01.000000+00:00', NULL"
    ),
    "user_insights": (
        "n, n % 99, 'advice', json_array('said ' || hex(randomblob(60))), 0.7,"
        "'2026-01-05T18:12:01.000000+00:00'"
    ),
    "legacy_rows": (
        "'003_constrain_values', 'user_patterns', n, n % 99, 'tilt', n, x'ff00', 1.7, NULL, 7, 'never', NULL"
    ),
}
MEASURE = r"""
import re
import sys
from pathlib import Path
from poker_therapist.location import locate
from poker_therapist.schema import copy

source, target = sys.argv[1].split("|")
print(sum(copy(locate(source), locate(target)).values()))
print(int(re.search(r"VmHWM:\s*(\d+) kB", Path("/proc/self/status").read_text())[1]) // 1024)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="this system does not tell the peak")
def test_memory_stays_flat(new: New, tmp_path: Path, report: Callable[[str], None]) -> None:
    """There and back: 100,000 rows take hardly more than 10,000."""
    peaks: dict[str, list[int]] = {"there": [], "back": []}
    for rows in (10_000, 100_000):
        path, there, back = tmp_path / f"{rows}.db", new("postgresql"), new("sqlite")
        get_pattern_storage(path).close()
        for table, columns in COLUMNS.items():
            run_sql(path, FILL.format(rows=rows, table=table, columns=columns))
        for direction, ends in (("there", (path, there)), ("back", (there, back))):
            copied, peak = map(int, run_script(MEASURE, f"{ends[0]}|{ends[1]}"))
            peaks[direction].append(peak)

            assert copied == rows
        assert snapshots.rows(Path(back)) == snapshots.rows(path)

    for direction, (few, many) in peaks.items():
        report(f"a copy {direction} of 10,000 rows takes {few} MB of memory, of 100,000 rows {many} MB")
        assert many - few < 10


# Others meanwhile


@pytest.mark.parametrize(("one", "other"), DIRECTIONS)
def test_what_others_save_meanwhile_is_not_in_the_copy(one: str, other: str, new: New, small: Path) -> None:
    """The source is of one moment; whoever plays on is not kept waiting."""
    source, target = filled(one, new, small), new(other)
    before = contents(source)

    def save(doing: str, done: int, total: int) -> None:
        with get_pattern_storage(source) as storage:
            storage.save_insight(7, "meanwhile", doing)

    copy(locate(source), locate(target), progress=save)

    assert repr({**contents(target), "next id of user_insights": 0}) == repr(
        {**before, "next id of user_insights": 0}
    )
    assert len(contents(source)["user_insights"]) > len(before["user_insights"])


@pytest.mark.parametrize("engine", ENGINES)
def test_nobody_saves_into_the_target_meanwhile(engine: str, new: New, small: Path) -> None:
    """From the first row to the last comparison; who would is told to wait."""
    target = new(engine)
    impatient = f"sqlite:///{target}?timeout=0" if engine == "sqlite" else f"{target}&timeout=0.01"
    waited = []

    def save(doing: str, done: int, total: int) -> None:
        with pytest.raises(DatabaseBusy), get_pattern_storage(impatient, migrate=False) as storage:
            storage.save_insight(7, "meanwhile", doing)
        waited.append(doing)

    copy(locate(small), locate(target), progress=save)

    assert len(set(waited)) == 2 * len(KEYS)


@pytest.mark.parametrize("engine", ENGINES)
def test_a_target_that_somebody_writes_to_is_waited_for(engine: str, new: New, small: Path) -> None:
    """For the timeout of its URL, and then nothing has been done."""
    target = new(engine)
    get_pattern_storage(target).close()
    url = f"sqlite:///{target}?timeout=0" if engine == "sqlite" else f"{target}&timeout=0.01"
    with get_pattern_storage(target) as storage, storage.transaction():
        storage.save_pattern(1, "a", "b", 1)
        storage.get_pattern(1, "a", "b")  # so what was saved is sent
        with pytest.raises(DatabaseBusy):
            copy(locate(small), locate(url))
        storage.clear_user_patterns(1)

    assert copy(locate(small), locate(target))["user_patterns"] == 4


def test_the_source_is_not_written(small: Path, new: New, tmp_path: Path) -> None:
    """No byte of it changes, and nothing is left beside it."""
    folder = tmp_path / "source"
    folder.mkdir()
    source = small.rename(folder / "RexVoice.db")
    before = state_of(folder)
    copy(locate(source), locate(new("postgresql")))

    assert state_of(folder) == before


# Refused


@pytest.mark.parametrize("engine", ENGINES)
def test_a_target_that_holds_data_is_refused(engine: str, new: New, small: Path) -> None:
    """Be it one row; the table and the count are named, and nothing is changed."""
    target = new(engine)
    with get_pattern_storage(target) as storage:
        storage.save_insight(1, "advice", "first")
    before = contents(target)
    message = refused("copy", small, target, folder=small.parent)

    assert "already contains data (user_insights: 1), with which a copy is never merged" in message
    assert contents(target) == before


def test_rows_of_the_earlier_app_are_data_too(small: Path, tmp_path: Path) -> None:
    """No migration has been applied there yet, and none is."""
    path = tmp_path / "earlier.db"
    old_app.make(path, tables=["user_insights"], rows=3)
    before = state_of(tmp_path)
    message = refused("copy", small, path, folder=tmp_path)

    assert "(user_insights: 3)" in message
    assert state_of(tmp_path) == before


@pytest.mark.parametrize(("one", "other"), DIRECTIONS)
def test_a_source_that_is_not_up_to_date_is_refused(one: str, other: str, new: New) -> None:
    source, target = new(one), new(other)
    if one == "sqlite":
        Path(source).touch()
    message = refused("copy", source, target, folder=Path.cwd())

    assert "lacks 001_add_pattern_storage" in message
    assert "poker-therapist apply --database " in message
    assert is_untouched(target)


# Applied by a later version, which has kept its text.
FROM_THE_FUTURE = """
INSERT INTO _yoyo_migration (migration_id, applied_at_utc) VALUES ('999_from_the_future', '2030-01-01');
INSERT INTO _migration_text (migration_table, migration_id, applied_at, apply_sql)
VALUES ('_yoyo_migration', '999_from_the_future', '2030-01-01', 'SELECT 1;');
"""


def test_a_source_that_lacks_one_migration_or_has_one_too_many_is_refused(small: Path, new: New) -> None:
    target = new("postgresql")
    run_sql(small, FROM_THE_FUTURE)
    with pytest.raises(SchemaTooNew, match="999_from_the_future"):
        copy(locate(small), locate(target))
    run_sql(small, "DELETE FROM _yoyo_migration WHERE migration_id = '999_from_the_future'")
    down(small, "004_index_reads")
    with pytest.raises(SchemaOutdated, match="004_index_reads"):
        copy(locate(small), locate(target))

    assert is_untouched(target)


def test_a_target_ahead_of_this_version_is_refused(small: Path, new: New) -> None:
    target = new("sqlite")
    get_pattern_storage(target).close()
    run_sql(target, FROM_THE_FUTURE)
    before = snapshots.everything(Path(target))
    with pytest.raises(SchemaTooNew, match="999_from_the_future"):
        copy(locate(small), locate(target))

    assert snapshots.everything(Path(target)) == before


def test_a_database_is_not_copied_to_itself(small: Path, new: New) -> None:
    """By whatever name: another path, a link, another address of the server."""
    link, hard_link = small.with_name("link.db"), small.with_name("hard link.db")
    link.symlink_to(small)
    hard_link.hardlink_to(small)
    url = filled("postgresql", new, small)
    for source, target in (
        (str(small), f"{small.parent}/../{small.parent.name}/{small.name}"),
        (str(small), str(link)),
        (str(small), str(hard_link)),
        (url, f"{url}&application_name=other&schema=public"),
    ):
        assert "are the same database: name another target" in refused(
            "copy", source, target, folder=small.parent
        )


def test_two_schemas_of_one_database_are_two_databases(small: Path, new: New) -> None:
    """The target is migrated, indexes and all, before the source is held at one moment."""
    source = filled("postgresql", new, small)
    with psycopg.connect(source) as connection:
        connection.execute("CREATE SCHEMA second")
    copy(locate(source), locate(f"{source}&schema=second"))

    assert repr(contents(f"{source}&schema=second")) == repr(contents(source))


WRONG = {
    "nowhere/x.db": "there is no folder",
    "letter.txt": "is not an SQLite database",
    ".": "is a folder",
    "mysql://host/x": "is not a supported type of database",
    "postgresql://nobody@127.0.0.1:1/x": "cannot be reached",
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_name_is_one_message(name: str, small: Path) -> None:
    """On either side, and nothing is made."""
    (small.parent / "letter.txt").write_text("a letter to Ann " * 100)
    before = state_of(small.parent)

    assert WRONG[name] in refused("copy", small, name, folder=small.parent)
    assert WRONG[name] in refused("copy", name, "x.db", folder=small.parent)
    assert state_of(small.parent) == before


UNCHECKED = "PRAGMA ignore_check_constraints = ON"
UNFIT = {
    "a NUL in a key": (
        "UPDATE user_patterns SET pattern_key = 'a' || char(0) || 'b' WHERE id = 3",
        "row 3 of user_patterns",
        "NUL",
    ),
    "a NUL behind JSON": (
        "UPDATE user_insights SET insight_data = '5' || char(0) || 'after' WHERE id = 2",
        "row 2 of user_insights",
        "NUL",
    ),
    "a day that no calendar has": (
        "UPDATE conversation_context SET created_at = '2026-02-30T00:00:00.000000+00:00' WHERE id = 5",
        "row 5 of conversation_context",
        "date/time field value out of range)",
    ),
    "a year that no calendar has": (
        "UPDATE conversation_context SET expires_at = '0000-01-01T00:00:00.000000+00:00' WHERE id = 6",
        "row 6 of conversation_context",
        "date/time field value out of range)",
    ),
    "what is no JSON": (
        f"{UNCHECKED}; UPDATE user_patterns SET pattern_value = 'secret' WHERE id = 1",
        "row 1 of user_patterns",
        "invalid input syntax for type json)",
    ),
    "what breaks a rule": (
        f"{UNCHECKED}; UPDATE user_patterns SET confidence = 1.5 WHERE id = 4",
        "row 4 of user_patterns",
        "violates check constraint",
    ),
    "a row of a player without a number": (
        "UPDATE legacy_rows SET user_id = 'player-3' WHERE row_id = 4",
        "row 4 of user_insights (kept in legacy_rows)",
        "it belongs to no player (find all such rows with typeof(user_id) <> 'integer')",
    ),
    "half a player": (
        "UPDATE legacy_rows SET user_id = 7.0 WHERE row_id = 1",
        "row 1 of user_patterns (kept in legacy_rows)",
        "it belongs to no player",
    ),
    "a session of bytes": (
        "UPDATE legacy_rows SET session_id = x'00ff' WHERE row_id = 2",
        "row 2 of conversation_context (kept in legacy_rows)",
        "its session_id is not text",
    ),
    "a session with a NUL": (
        "UPDATE legacy_rows SET session_id = 'a' || char(0) WHERE row_id = 2",
        "row 2 of conversation_context (kept in legacy_rows)",
        "NUL",
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", UNFIT)
def test_a_row_that_postgresql_cannot_hold_is_named(kind: str, up_to_date: str, small: Path) -> None:
    """By table and id, without what it says; nothing is left, and once it is deleted the copy goes on."""
    sql, row, reason = UNFIT[kind]
    run_sql(small, sql)
    message = refused("copy", small, up_to_date, folder=small.parent)

    assert message.startswith(f"{row} cannot be stored in ")
    assert reason in message
    assert "correct or delete the row, then copy again" in message
    assert "secret" not in message
    assert is_empty(up_to_date)


def test_a_row_is_named_however_many_stand_before_it(up_to_date: str, small: Path) -> None:
    """The server finds what is wrong long after the row was sent; ids have gaps."""
    run_sql(small, FILL.format(rows=40_000, table="user_insights", columns=COLUMNS["user_insights"].replace(
        "n, n % 99", "3 * n + 100, n % 99", 1)))  # fmt: skip
    for row_id in (103, 29_800, 30_100):
        run_sql(
            small,
            f"""
            UPDATE user_insights SET created_at = '2026-01-05T18:12:01.000000+00:00';
            UPDATE user_insights SET created_at = '2026-13-05T18:12:01.000000+00:00' WHERE id = {row_id};
            """,
        )
        with pytest.raises(InvalidInput, match=f"^row {row_id} of user_insights cannot be stored"):
            copy(locate(small), locate(up_to_date))


UNFIT_FOR_SQLITE = {
    "a time before Christ": (
        "UPDATE user_insights SET created_at = '0044-03-15 12:00:00 BC' WHERE id = 2",
        "row 2 of user_insights",
    ),
    "a time that never comes": (
        "UPDATE conversation_context SET expires_at = 'infinity' WHERE id = 5",
        "row 5 of conversation_context",
    ),
    "a year of five digits": (
        "UPDATE user_patterns SET updated_at = '12026-01-05 18:12:01+00' WHERE id = 3",
        "row 3 of user_patterns",
    ),
    "a value too deep": (
        "UPDATE user_patterns SET pattern_value = concat(repeat('[', 3000), repeat(']', 3000))::json",
        "row 1 of user_patterns",
    ),
    "an id that is there twice": (
        "INSERT INTO user_patterns OVERRIDING SYSTEM VALUE VALUES (3, 99, 'a', 'b', '1')",
        "row 3 of user_patterns",
    ),
}


@pytest.mark.parametrize("kind", UNFIT_FOR_SQLITE)
def test_a_row_that_sqlite_cannot_hold_is_named(kind: str, new: New, small: Path) -> None:
    """What somebody else may have written on the server."""
    sql, row = UNFIT_FOR_SQLITE[kind]
    source, target = filled("postgresql", new, small), new("sqlite")
    with psycopg.connect(source) as connection:
        connection.execute(sql.encode())
    message = refused("copy", source, target, folder=small.parent)

    assert message.startswith(f"{row} cannot be stored in ")
    assert is_untouched(target)


@pytest.mark.parametrize("engine", ENGINES)
def test_bytes_that_are_no_text_are_named(engine: str, new: New, small: Path) -> None:
    """SQLite takes them where a text should be; the message does not repeat them."""
    run_sql(small, "UPDATE user_patterns SET pattern_key = CAST(x'736563726574ff' AS TEXT) WHERE id = 2")
    target = new(engine)
    message = refused("copy", small, target, folder=small.parent)

    assert message.startswith(
        f"row 2 of user_patterns of {small} has bytes in pattern_key that are not UTF-8"
    )
    assert "secret" not in message
    assert is_untouched(target)


@pytest.mark.parametrize(("one", "other"), DIRECTIONS)
def test_a_column_that_only_one_side_has_is_refused(
    one: str, other: str, new: New, up_to_date: str, small: Path
) -> None:
    """Somebody has added it by hand; it is not lost without a word."""
    source, target = filled(one, new, small), up_to_date if other == "postgresql" else new(other)
    if one == "sqlite":
        run_sql(small, "ALTER TABLE user_patterns ADD COLUMN mood TEXT")
    else:
        with psycopg.connect(source) as connection:
            connection.execute("ALTER TABLE user_patterns ADD COLUMN mood TEXT")
    message = refused("copy", source, target, folder=small.parent)

    assert "the columns of user_patterns in " in message
    assert " differ (mood): check both with " in message
    assert is_empty(target) if other == "postgresql" else is_untouched(target)


# Compared


TAMPERED: dict[str, tuple[str, Callable[[list[Any]], list[Any]], str]] = {
    "a value": ("user_patterns", lambda rows: [(*rows[0][:4], '"other"', *rows[0][5:]), *rows[1:]],
                "row 1 of user_patterns differs in pattern_value"),
    "a type": ("legacy_rows", lambda rows: [(*rows[0][:6], 7.0, *rows[0][7:]), *rows[1:]],
               "row 2 of conversation_context (kept in legacy_rows) differs in value"),
    "a missing row": ("user_insights", lambda rows: rows[1:], "row 1 of user_insights is missing"),
    "a missing last row": ("user_insights", lambda rows: rows[:-1], "row 2 of user_insights is missing"),
    "a row too many": ("conversation_context", lambda rows: [*rows, (99, *rows[0][1:])],
                       "row 99 of conversation_context is not in the source"),
    "an id": ("user_insights", lambda rows: [(3, *rows[0][1:]), rows[1]],
              "row 1 of user_insights is missing"),
}  # fmt: skip


@pytest.mark.parametrize("kind", TAMPERED)
@pytest.mark.parametrize("engine", ENGINES)
def test_a_row_that_does_not_arrive_as_it_was_is_found(
    engine: str, kind: str, new: New, up_to_date: str, small: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The comparison names table, id and column, not what a player said; nothing is kept."""
    table, tamper, difference = TAMPERED[kind]
    run_sql(small, "UPDATE legacy_rows SET value = 7")
    writer = SQLiteWriter if engine == "sqlite" else PostgreSQLWriter
    write = writer.write

    def tampered(self: Any, written: StoredTable, columns: list[str], rows: Iterator[Any]) -> None:
        write(self, written, columns, tamper(list(rows)) if written.name == table else rows)

    monkeypatch.setattr(writer, "write", tampered)
    target = up_to_date if engine == "postgresql" else new(engine)
    with pytest.raises(StorageError) as failed:
        copy(locate(small), locate(target))

    assert f"the copy differs from the source ({difference})" in str(failed.value)
    assert "other" not in str(failed.value)
    assert is_empty(target) if engine == "postgresql" else is_untouched(target)


# Failures


class Broken(Exception):
    """Nothing that the program knows."""


STAGES = (
    "applied 001_add_pattern_storage", "applied 003_constrain_values", "applied 004_index_reads",
    *(f"{doing} {table}" for doing in ("copying", "comparing") for table in KEYS),
    *(f"counting {table}" for table in COUNTED),
)  # fmt: skip


def at_stage(stage: str, act: Callable[[], None], patched: pytest.MonkeyPatch) -> Callable[..., None]:
    """Have something happen at a stage of a copy; return what is to be its `progress`."""

    def told(message: str) -> None:
        if message == stage:
            act()

    patched.setattr(AtomicBackend, "report", staticmethod(told))
    for writer in (SQLiteWriter, PostgreSQLWriter):
        set_next_id = writer.set_next_id

        def counted(self: Any, table: StoredTable, next_id: int, set_next_id: Any = set_next_id) -> None:
            told(f"counting {table.name}")
            set_next_id(self, table, next_id)

        patched.setattr(writer, "set_next_id", counted)
    return lambda doing, *_numbers: told(doing)


@pytest.mark.parametrize("engine", ENGINES)
def test_a_failure_at_any_stage_leaves_nothing(
    engine: str, new: New, small: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An error or Ctrl-C: no table, no file; and the same again works."""
    target = new(engine)
    # Each kind of stage has both, in turn.
    for stage, error in zip(STAGES, cycle([Broken, KeyboardInterrupt]), strict=False):

        def fail(error: type[BaseException] = error) -> None:
            raise error

        with monkeypatch.context() as patched, pytest.raises(error):
            copy(locate(small), locate(target), progress=at_stage(stage, fail, patched))

        assert is_untouched(target), stage

    assert sum(copy(locate(small), locate(target)).values()) == 17


@pytest.mark.parametrize("stage", ["applied 003_constrain_values", "copying user_insights"])
def test_what_the_app_keeps_in_the_target_stays(
    stage: str, small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its users and messages are not ours: after a failure only they are there, and after a copy, too."""
    path = tmp_path / "app.db"
    old_app.make(path, tables=())
    before = snapshots.everything(path)

    def fail() -> None:
        raise Broken

    with monkeypatch.context() as patched, pytest.raises(Broken):
        copy(locate(small), locate(path), progress=at_stage(stage, fail, patched))

    after = snapshots.everything(path)
    assert [part for part in after.schema if part[1] != "sqlite_sequence"] == before.schema
    assert (after.rows, after.applied) == (before.rows, [])
    assert not set(snapshots.BOOKKEEPING) & set(all_tables(path))

    copy(locate(small), locate(path))
    assert {table: snapshots.rows(path)[table] for table in before.rows} == before.rows


def all_tables(path: Path) -> list[str]:
    with snapshots.connect(path) as connection:
        return [name for (name,) in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")]


@pytest.mark.parametrize("engine", ENGINES)
def test_tables_that_were_there_stay_after_a_failure(
    engine: str, new: New, small: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Empty and up to date, as they were."""
    target = new(engine)
    get_pattern_storage(target).close()
    before = contents(target)

    def fail() -> None:
        raise Broken

    with monkeypatch.context() as patched, pytest.raises(Broken):
        copy(locate(small), locate(target), progress=at_stage("comparing legacy_rows", fail, patched))

    assert contents(target) == before
    assert sum(copy(locate(small), locate(target)).values()) == 17


@pytest.mark.parametrize("engine", ENGINES)
def test_what_somebody_else_has_saved_meanwhile_is_not_taken_away(
    engine: str, new: New, small: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The app was started too early: the copy fails, and what it saved is there."""
    target = new(engine)

    def save() -> None:
        with get_pattern_storage(target) as storage:
            storage.save_insight(1, "advice", "too early")

    with monkeypatch.context() as patched, pytest.raises(InvalidInput, match="user_insights: 1"):
        copy(locate(small), locate(target), progress=at_stage(f"applied {IDS[-1]}", save, patched))

    with get_pattern_storage(target, migrate=False) as storage:
        assert [one["data"] for one in storage.get_insights(1)] == ["too early"]


def test_a_full_disk_is_said_and_leaves_nothing(
    new: New, small: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SQLite undoes the transaction by itself."""
    run_sql(small, FILL.format(rows=8_000, table="legacy_rows", columns=COLUMNS["legacy_rows"]))

    def opened(location: SQLiteLocation) -> sqlite3.Connection:
        connection = open_connection(location)
        connection.execute("PRAGMA max_page_count = 60")
        return connection

    target = new("sqlite")
    with monkeypatch.context() as patched:
        patched.setattr(sqlite, "open_connection", opened)
        with pytest.raises(DatabaseFull, match="no space is left for"):
            copy(locate(small), locate(target))

    assert is_untouched(target)


@pytest.mark.parametrize("stage", ["copying user_patterns", "comparing user_patterns"])
@pytest.mark.parametrize("broken", ["source", "target"])
def test_a_lost_connection_is_said_and_leaves_nothing(
    broken: str, stage: str, new: New, small: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whichever of the two servers it was."""
    source, target = filled("postgresql", new, small), new("postgresql")
    lost = source if broken == "source" else target

    def end_sessions() -> None:
        with psycopg.connect(lost) as connection:
            connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )

    with monkeypatch.context() as patched, pytest.raises(DatabaseUnreachable):
        copy(locate(source), locate(target), progress=at_stage(stage, end_sessions, patched))

    assert is_untouched(target)
    assert sum(copy(locate(source), locate(target)).values()) == 17


def test_what_a_dead_server_keeps_is_said(
    private_server: Server, small: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing can be taken away there; once the server is back, the same works."""
    target = private_server.url()
    with (
        monkeypatch.context() as patched,
        pytest.raises(DatabaseUnreachable, match="Empty tables may be left"),
    ):
        copy(
            locate(small),
            locate(target),
            progress=at_stage("copying user_patterns", private_server.kill, patched),
        )
    private_server.start()

    assert sum(copy(locate(small), locate(target)).values()) == 17


def test_a_migration_that_fails_on_the_target_leaves_nothing(new: New, small: Path) -> None:
    """Something of somebody else's stands in the way of the last one, which is not transactional."""
    target = new("postgresql")
    with psycopg.connect(target) as connection:
        connection.execute("CREATE VIEW idx_user_patterns_updated AS SELECT 1")
    with pytest.raises(MigrationError, match="idx_user_patterns_updated"):
        copy(locate(small), locate(target))

    assert relations(target) == ["idx_user_patterns_updated"]


# Kills


def run_killed_at(step: int, source: str, target: str) -> int:
    """Copy in a child that dies at one of its steps; return minus the signal, 0 if it lived."""
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    steps, code = count(1), 1

    def die(*_what: object) -> None:
        if next(steps) == step:
            os.kill(os.getpid(), signal.SIGKILL)

    def connected(location: SQLiteLocation) -> sqlite3.Connection:
        connection = open_connection(location)
        connection.set_trace_callback(die)
        return connection

    class Traced(WatchedConnection):
        def execute(self, *arguments: Any, **options: Any) -> Any:
            die()
            return super().execute(*arguments, **options)

    def served(location: PostgreSQLLocation, kind: type[WatchedConnection]) -> WatchedConnection:
        connection = connect_to_server(location, kind)
        connection.__class__ = Traced
        return connection

    with contextlib.suppress(BaseException):
        patched = pytest.MonkeyPatch()
        patched.setattr(AtomicBackend, "report", staticmethod(die))
        patched.setattr(sqlite, "open_connection", connected)
        patched.setattr(postgresql, "connect", served)
        patched.setattr(transfer, "_STRIDE", 2)
        copy(locate(source), locate(target), progress=die)
        code = 0
    os._exit(code)


@pytest.mark.parametrize(("one", "other"), [("sqlite", "postgresql"), ("postgresql", "sqlite")])
def test_after_a_kill_the_same_command_simply_works(
    one: str, other: str, new: New, small: Path, report: Callable[[str], None]
) -> None:
    """At any step there is nothing or an empty database, or all of it after the commit."""
    source = filled(one, new, small)
    expected, kills = repr(contents(source)), 0
    for step in count(1, 3):
        target = new(other)
        if not (code := run_killed_at(step, source, target)):
            break
        kills += 1
        assert code == -signal.SIGKILL
        copy(locate(source), locate(target))

        assert repr(contents(target)) == expected, f"killed at step {step}"

    report(f"copy from {one} to {other}: 0 stuck of {kills} kills")
    assert kills > 12


# The command


def test_the_command_says_what_it_copied(new: New, small: Path) -> None:
    """By the program, in a pipe: a line for each table, and the names without the password."""
    target = new("postgresql").replace("postgres@", "postgres:secret@")
    ran = in_child("copy", small, target, folder=small.parent)

    assert (ran.code, ran.error) == (0, "")
    assert ran.lines == [
        "user_patterns: 4 copied",
        "conversation_context: 6 copied",
        "user_insights: 2 copied",
        "legacy_rows: 5 copied",
        f"copied {small} to {locate(target).name}",
    ]
    assert "secret" not in ran.out


def test_a_new_file_is_for_its_owner_alone(new: New, small: Path) -> None:
    target = Path(new("sqlite"))
    command("copy", small, target, folder=small.parent)

    assert stat.S_IMODE(target.stat().st_mode) == 0o600
    assert snapshots.is_whole(target)


def test_progress_counts_every_row_twice(new: New, small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As it is copied and as it is compared, from nothing to all."""
    monkeypatch.setattr(transfer, "_STRIDE", 1)
    steps: list[tuple[str, int, int]] = []
    copy(locate(small), locate(new("sqlite")), progress=lambda *step: steps.append(step))

    assert {doing for doing, _, _ in steps} == {
        f"{doing} {table}" for doing in ("copying", "comparing") for table in KEYS
    }
    assert [done for _, done, _ in steps] == sorted(done for _, done, _ in steps)
    assert (steps[0][1], steps[-1][1]) == (0, 34)
    assert {total for _, _, total in steps} == {34}
