"""The project's own migrations: their files, up and down and up, and databases of the earlier app."""

import itertools
import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from poker_therapist import get_pattern_storage
from poker_therapist.schema import migrations_folder, shipped_ids
from tests.helpers import old_app, snapshots
from tests.helpers.migrating import IDS, down, plain_up, up

CHECKOUT = Path(__file__).parents[2]
OURS = set(old_app.TABLES)


@pytest.mark.parametrize("engine", ["sqlite", "postgresql"])
def test_every_migration_has_a_verb_a_noun_and_a_reason(engine: str) -> None:
    """NNN_verb_noun, from 001 on, opening with a comment. `poker-therapist check` looks at the rest."""
    ids = sorted(shipped_ids(engine))

    assert ids[0].startswith("001_")
    for name in ids:
        assert re.fullmatch(r"\d{3}(_[a-z0-9]+){2,}", name)
        for ending in (".sql", ".rollback.sql"):
            text = (migrations_folder(engine) / (name + ending)).read_text(encoding="utf-8")
            assert text.startswith("-- ")
            assert "depends:" not in text.splitlines()[0]
            assert len(text.split()) > 10


@pytest.mark.parametrize("name", IDS)
def test_up_down_up_gives_the_schema_back_each_time(name: str, tmp_path: Path) -> None:
    """On a populated database: down is the schema before, to the letter, and up again the one after."""
    path = tmp_path / "RexVoice.db"
    before = IDS[IDS.index(name) - 1] if name != IDS[0] else None
    if before:
        up(path, before)
        if before == IDS[0]:
            fill_tables_of_001(path)
    else:
        with snapshots.connect(path) as connection:
            connection.executescript(old_app.APP_TABLES)
    schema_before, sql_before, rows_before = (
        snapshots.schema(path), snapshots.stored_sql(path), snapshots.rows(path),
    )  # fmt: skip
    up(path, name)
    schema_after, sql_after, rows_after = (
        snapshots.schema(path), snapshots.stored_sql(path), snapshots.rows(path),
    )  # fmt: skip
    down(path, name)
    back = read_rows(snapshots.rows(path))

    assert snapshots.schema(path) == schema_before
    assert [row for row in snapshots.stored_sql(path) if row[1] != "sqlite_sequence"] == [
        row for row in sql_before if row[1] != "sqlite_sequence"
    ]
    assert back.keys() - {"sqlite_sequence"} == rows_before.keys() - {"sqlite_sequence"}
    assert back == read_rows(rows_before) or name == IDS[0]

    up(path, name)

    assert snapshots.schema(path) == schema_after
    assert snapshots.stored_sql(path) == sql_after
    assert snapshots.rows(path) == rows_after
    assert snapshots.is_whole(path)


def fill_tables_of_001(path: Path) -> None:
    """Put the rows of an old database into tables that our own 001 has made."""
    old = path.with_name("old.db")
    old_app.make(old, rows=36)
    old_app.add_odd_rows(old)
    with snapshots.connect(path) as connection:
        connection.execute("ATTACH ? AS old", (str(old),))
        for table in old_app.TABLES:
            connection.execute(f"INSERT INTO {table} SELECT * FROM old.{table}")


def read_rows(rows: dict[str, list[tuple[Any, ...]]]) -> dict[str, list[str]]:
    """Return rows as the earlier app reads them: values decoded, times as moments."""

    def moment(item: Any) -> Any:
        form = re.fullmatch(r"(\d{4}-\d\d-\d\d)[ T](\d\d:\d\d:\d\d)(\.\d{6})?(\+00:00)?", str(item))
        return f"{form[1]} {form[2]}{form[3] or '.000000'}" if form else old_app.read(item)

    return {table: sorted(repr([moment(item) for item in row]) for row in rows[table]) for table in rows}


MISSING: list[Iterable[str]] = [
    tables for count in (3, 2, 1) for tables in itertools.combinations(old_app.TABLES, count)
]


@pytest.mark.parametrize("tables", MISSING, ids="+".join)
@pytest.mark.parametrize("rows", [0, 108])
def test_an_old_database_is_adopted_with_nothing_lost(
    tables: tuple[str, ...], rows: int, tmp_path: Path
) -> None:
    """Whole or half-made: ids stay, values read as they read, the app's own tables are untouched."""
    path = tmp_path / "RexVoice.db"
    old_app.make(path, tables=tables, rows=rows)
    check_adoption(path)


@pytest.mark.parametrize("table", old_app.TABLES)
def test_an_old_database_that_lacks_an_index_is_adopted(table: str, tmp_path: Path) -> None:
    """001 adds the index, so that 004 finds it."""
    path = tmp_path / "RexVoice.db"
    old_app.make(path, indexes=OURS - {table})
    check_adoption(path)


@pytest.mark.slow
def test_an_old_database_of_20_000_rows_a_table_is_adopted(tmp_path: Path) -> None:
    """The whole of a busy player base, with every odd value many times."""
    path = tmp_path / "RexVoice.db"
    old_app.make(path, rows=20_000)
    check_adoption(path)


def check_adoption(path: Path) -> None:
    """Apply all, compare; go back to 001, compare again."""
    up(path, IDS[0])  # so that missing tables read as empty ones
    before, app_before = old_app.read_all(path), app_rows(path)
    schema_before = snapshots.schema(path)
    up(path)
    after = old_app.read_all(path)

    for table, place in old_app.VALUE_PLACES.items():
        expected = {row[0]: repr(old_app.without_nan(row[place])) for row in before[table]}
        assert {row[0]: repr(row[place]) for row in after[table]} == expected
    assert app_rows(path) == app_before
    assert snapshots.is_whole(path)

    down(path, IDS[1])
    back = old_app.read_all(path)

    assert snapshots.schema(path) == schema_before
    assert app_rows(path) == app_before
    for table in before:
        assert read_rows({table: back[table]}) == read_rows({table: before[table]})


def app_rows(path: Path) -> list[Any]:
    """Return what is the app's own, schema text included."""
    with snapshots.connect(path) as connection:
        return [
            connection.execute(sql).fetchall()
            for sql in (
                "SELECT rootpage, sql FROM sqlite_schema WHERE tbl_name IN ('users', 'messages')",
                "SELECT * FROM users",
                "SELECT * FROM messages",
            )
        ]


@pytest.fixture
def odd(tmp_path: Path) -> Path:
    """An old database with rows that the rules of 003 refuse."""
    path = tmp_path / "RexVoice.db"
    old_app.make(path, rows=36)
    old_app.add_odd_rows(path)
    return path


def test_rows_that_the_rules_refuse_are_mended_and_kept_as_they_were(odd: Path) -> None:
    """What 003 makes of each is in its comment; what was there is in legacy_rows, word for word."""
    up(odd)
    with snapshots.connect(odd) as connection:
        repaired = connection.execute(
            "SELECT id, pattern_type, pattern_key, confidence, substr(created_at, 1, 10) FROM user_patterns "
            "WHERE id > 900000"
        ).fetchall()
        expiry = connection.execute(
            "SELECT id, context_key, expires_at FROM conversation_context WHERE id > 900000"
        ).fetchall()
        importance = connection.execute(
            "SELECT id, insight_type, importance FROM user_insights WHERE id > 900000"
        ).fetchall()
        kept = connection.execute(
            "SELECT row_id, user_id, kind, item_key, score, created_at, updated_at FROM legacy_rows "
            "WHERE migration_id = '003_constrain_values' AND table_name = 'user_patterns' ORDER BY row_id"
        ).fetchall()

    assert repaired == [
        (900001, "tilt", "too sure", 1.0, "2026-01-05"),
        (900002, "tilt", "less than nothing", 0.0, "2026-01-05"),
        (900003, "tilt", "no confidence", 1.0, "2026-01-05"),
        (900004, "tilt", "confidence in words", 1.0, "2026-01-05"),
        # 900005, the empty key, would have taken the place of 900006.
        (900006, "tilt", "(empty)", 1.0, "2026-01-05"),
        (900007, "(empty)", "empty type", 1.0, "2026-01-05"),
        (900008, "tilt", "6279746573", 1.0, "2026-01-05"),
        (900009, "tilt", "no times", 1.0, "1970-01-01"),
        (900010, "tilt", "times that are none", 1.0, "1970-01-01"),
        # 900011 belongs to no player that has a number.
        (900012, "tilt", "a NaN and too sure", 1.0, "2026-01-05"),
        (900013, "tilt", "a value of bytes", 1.0, "2026-01-05"),
    ]
    assert expiry == [
        (900001, "(empty)", None),
        (900002, "topic", None),
        (900003, "topic", None),
        (900005, "746F706963", "2999-01-01T00:00:00.000000+00:00"),
    ]
    assert importance == [(900001, "leak", 1.0), (900002, "leak", 0.5), (900003, "(empty)", 1.0)]
    assert kept == [
        (row[0], row[1], row[2], row[3], row[5], row[6], row[7])
        for row in old_app.ODD_ROWS["user_patterns"]
        if row[0] not in (900006, 900013)
    ]


def test_rows_that_were_mended_come_back_as_they_were(odd: Path) -> None:
    """Going back to 001, and to 002, the earlier app reads what it wrote, whatever it was."""
    up(odd, IDS[0])
    before = old_app.read_all(odd)
    up(odd)
    down(odd, IDS[1])
    back = old_app.read_all(odd)

    for table in before:
        assert read_rows({table: back[table]}) == read_rows({table: before[table]})


def test_what_was_saved_or_deleted_since_is_not_undone_by_a_rollback(odd: Path) -> None:
    """A kept row goes back only into a row that is still what the migration made of it."""
    up(odd)
    with get_pattern_storage(odd) as storage:
        storage.save_pattern(3, "tilt", "too sure", "surely", 0.9)
        storage.save_pattern(3, "tilt", "a NaN and too sure", {"a": 1}, 0.2)
        storage.clear_user_context(3)
    down(odd, IDS[1])
    back = {table: {row[0]: row for row in rows} for table, rows in old_app.read_all(odd).items()}

    assert back["user_patterns"][900001][4:6] == ("surely", 0.9)
    assert back["user_patterns"][900012][4:6] == ({"a": 1}, 0.2)
    assert back["user_patterns"][900002][5] == -0.2
    assert [row for row in back["conversation_context"].values() if row[1] == 3] == []


def test_ids_are_never_given_twice_across_a_rebuild(odd: Path) -> None:
    """The counters of ids survive, also where rows were deleted and where a table is empty."""
    with snapshots.connect(odd) as connection:
        connection.execute("DELETE FROM user_insights")
        before = dict(connection.execute("SELECT name, seq FROM sqlite_sequence"))
    up(odd)
    with snapshots.connect(odd) as connection:
        after = dict(connection.execute("SELECT name, seq FROM sqlite_sequence"))
    down(odd, IDS[1])
    with snapshots.connect(odd) as connection:
        back = dict(connection.execute("SELECT name, seq FROM sqlite_sequence"))

    assert before == after == back


def test_views_of_the_operator_survive_every_migration(tmp_path: Path) -> None:
    """A view on a table that is rebuilt keeps working, up and down."""
    path = tmp_path / "RexVoice.db"
    old_app.make(path)
    with snapshots.connect(path) as connection:
        connection.execute("CREATE VIEW sure AS SELECT * FROM user_patterns WHERE confidence > 0.5")
        before = connection.execute("SELECT count(*) FROM sure").fetchone()
    up(path)
    with snapshots.connect(path) as connection:
        assert connection.execute("SELECT count(*) FROM sure").fetchone() == before
    down(path, IDS[1])
    with snapshots.connect(path) as connection:
        assert connection.execute("SELECT count(*) FROM sure").fetchone() == before


def test_plain_yoyo_can_run_every_migration_too(tmp_path: Path) -> None:
    """Its splitter understands the files, and it comes to the same schema."""
    plain, ours = tmp_path / "plain.db", tmp_path / "ours.db"
    plain_up(plain)
    up(ours)

    assert snapshots.stored_sql(plain) == snapshots.stored_sql(ours)


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("1e400", id="infinite"),
        pytest.param("[1e400]", id="infinite inside"),
        pytest.param(' {"a": 1} ', id="blanks"),
        pytest.param("\ufeff5", id="byte order mark"),
        pytest.param('"\\ud800"', id="surrogate"),
        pytest.param("1" * 5000, id="digits"),
        pytest.param("[" * 600 + "]" * 600, id="deep"),
        pytest.param("-", id="minus"),
        pytest.param("01", id="leading zero"),
    ],
)
def test_what_json_readers_disagree_on_reads_as_before(text: str, tmp_path: Path) -> None:
    """SQLite and Python differ in what is JSON; the storage reads what the earlier app read."""
    path = tmp_path / "RexVoice.db"
    old_app.make(path, rows=0)
    with snapshots.connect(path) as connection:
        connection.execute(
            "INSERT INTO user_patterns (user_id, pattern_type, pattern_key, pattern_value) "
            "VALUES (1, 't', 'k', ?)",
            (text,),
        )
    try:
        expected = json.loads(text)
    except (ValueError, RecursionError):
        expected = text
    with get_pattern_storage(path) as storage:
        assert storage.get_pattern(1, "t", "k") == expected
