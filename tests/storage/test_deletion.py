"""Deleting: what a method says it deletes is gone, and what it does not name stays."""

import itertools
import random
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from poker_therapist import DatabaseBusy, InvalidInput, PatternStorage, StorageError, get_pattern_storage
from poker_therapist.tables import TABLES
from tests.helpers.clock import Clock
from tests.helpers.engines import columns, run_sql, sqlite_only
from tests.helpers.players import add_legacy_rows, legacy_values
from tests.helpers.pooler import engine_or_pooler

engine = engine_or_pooler
USER, OTHER = 7, 8

# Only the player that is forgotten has it, in every text.
MARK = "forget-me"


def test_clearing_patterns_deletes_all_of_one_player_and_their_old_forms(
    migrated: str, storage: PatternStorage
) -> None:
    add_legacy_rows(migrated)
    for user, kind, key in [(USER, "tilt", "a"), (USER, "bluff", "a"), (OTHER, "tilt", "a")]:
        storage.save_pattern(user, kind, key, 1)

    assert storage.clear_user_patterns(USER) == 2
    assert storage.clear_user_patterns(USER) == 0
    assert storage.recall(USER)["patterns"] == {}
    assert storage.get_pattern(OTHER, "tilt", "a") == 1
    assert legacy_values(storage, USER) == ["old context", "old context", "old insight"]
    assert legacy_values(storage, OTHER) == ["somebody else"]


@pytest.mark.parametrize(
    ("session_id", "deleted", "left", "legacy"),
    [
        (None, 4, [], ["old insight", "old pattern"]),
        ("monday", 2, ["none", "t"], ["old context", "old insight", "old pattern"]),
    ],
)
def test_clearing_context_deletes_one_session_or_all_with_their_old_forms(
    migrated: str,
    storage: PatternStorage,
    session_id: str | None,
    deleted: int,
    left: list[str],
    legacy: list[str],
) -> None:
    add_legacy_rows(migrated)
    for value, session in [("m", "monday"), ("t", "tuesday"), ("none", None)]:
        storage.save_context(USER, "topic", value, session)
    storage.save_context(USER, "topic", "expired", "monday", expires_minutes=-1)
    storage.save_context(OTHER, "topic", "kept", "monday")

    assert storage.clear_user_context(USER, session_id) == deleted
    assert storage.clear_user_context(USER, session_id) == 0
    assert storage.get_context(USER, "topic") == left
    assert storage.get_context(OTHER, "topic") == ["kept"]
    assert sorted(legacy_values(storage, USER)) == legacy


def test_the_purge_deletes_all_that_has_expired_and_says_how_much(
    storage: PatternStorage, clock: Clock
) -> None:
    """More rows than it deletes at a time."""
    with storage.transaction():
        for number in range(2_500):
            storage.save_context(USER + number % 2, "topic", number, expires_minutes=10)
        storage.save_context(USER, "topic", "live", expires_minutes=11)
        storage.save_context(USER, "topic", "for ever")
    clock.advance(minutes=10)

    assert storage.purge_expired() == 2_500
    assert storage.purge_expired() == 0
    assert [row["value"] for row in storage.export_user(USER)["context"]] == ["live", "for ever"]
    assert storage.export_user(OTHER)["context"] == []


@pytest.mark.slow
def test_saving_context_purges_a_few_expired_rows_of_the_player_at_a_time(
    storage: PatternStorage, clock: Clock
) -> None:
    """Those of others go when they come back, or with the purge of all."""
    with storage.transaction():
        for number in range(1_000):
            for user in (USER, OTHER):
                storage.save_context(user, "topic", number, expires_minutes=1)
    clock.advance(minutes=1)
    left = [1_000]
    while left[-1] and len(left) < 400:
        storage.save_context(USER, "new", len(left))
        left.append(sum(row["key"] == "topic" for row in storage.export_user(USER)["context"]))

    assert left[-1] == 0
    assert max(before - after for before, after in itertools.pairwise(left)) <= 512
    assert len(storage.get_context(USER, "new")) == len(left) - 1
    assert len(storage.export_user(OTHER)["context"]) == 1_000


# Forgetting


def test_forgetting_deletes_every_row_of_one_player_and_says_how_many(
    migrated: str, storage: PatternStorage
) -> None:
    add_legacy_rows(migrated)
    for user in (USER, OTHER):
        storage.save_pattern(user, "tilt", "bad_beat", 1)
        storage.save_pattern(user, "tilt", "cooler", 1)
        storage.save_context(user, "topic", 1, "monday")
        storage.save_context(user, "topic", 1, expires_minutes=-1)
        storage.save_context(user, "topic", 1, expires_minutes=5)
        storage.save_insight(user, "leak", 1)
    before = storage.export_user(OTHER)

    assert storage.forget_user(USER) == {
        "user_patterns": 2,
        "conversation_context": 3,
        "user_insights": 1,
        "legacy_rows": 4,
    }
    assert set(storage.forget_user(USER).values()) == {0}
    exported = storage.export_user(USER)
    assert exported == {"user_id": USER, "patterns": [], "context": [], "insights": [], "legacy_rows": []}
    assert storage.export_user(OTHER) == before


def test_forgetting_reaches_every_table_that_names_a_player(migrated: str, storage: PatternStorage) -> None:
    about_players = {table for table, names in columns(migrated).items() if "user_id" in names}

    assert about_players == set(storage.forget_user(USER))


def test_several_players_are_forgotten_at_once_and_counted_each(
    migrated: str, storage: PatternStorage
) -> None:
    """One who is named twice counts once; of nobody, nothing is done."""
    add_legacy_rows(migrated)
    for user in (USER, OTHER, 9):
        storage.save_pattern(user, "tilt", "bad_beat", 1)
        storage.save_insight(user, "leak", user)
    none = dict.fromkeys((table.name for table in TABLES), 0)

    assert storage.forget_users(iter([9, USER, 9, 10])) == {
        9: none | {"user_patterns": 1, "user_insights": 1},
        USER: none | {"user_patterns": 1, "user_insights": 1, "legacy_rows": 4},
        10: none,
    }
    assert storage.forget_users([]) == {}
    assert [storage.get_insights(user) for user in (9, USER)] == [[], []]
    assert [insight["data"] for insight in storage.get_insights(OTHER)] == [OTHER]


def test_of_several_players_none_is_forgotten_if_one_is_none(storage: PatternStorage) -> None:
    storage.save_pattern(USER, "tilt", "bad_beat", 1)
    with pytest.raises(InvalidInput, match="user_id"):
        storage.forget_users([USER, 2**63])

    assert storage.get_pattern(USER, "tilt", "bad_beat") == 1


def test_forgetting_inside_a_transaction_is_refused_and_deletes_nothing(storage: PatternStorage) -> None:
    storage.save_pattern(USER, "tilt", "bad_beat", 1)
    with storage.transaction(), pytest.raises(StorageError, match=r"^forget_user\(\) .* after the block"):
        storage.forget_user(USER)
    with storage.transaction(), pytest.raises(StorageError, match=r"^forget_users\(\) .* after the block"):
        storage.forget_users([USER])

    assert storage.get_pattern(USER, "tilt", "bad_beat") == 1


# No byte is left in SQLite's files


def marks(storage: PatternStorage) -> int:
    """Return how often the mark stands in the files of the database; backups are not among them."""
    files = (Path(f"{storage.db_path}{suffix}") for suffix in ("", "-wal", "-shm", "-journal"))
    return sum(file.read_bytes().count(MARK.encode()) for file in files if file.exists())


def live_together(storage: PatternStorage, seed: int) -> None:
    """Save, replace and delete at random, for three players whose rows lie side by side in every page."""
    choose = random.Random(seed)
    for number in range(3_000):
        user = choose.choice([USER - 1, USER, OTHER])
        text = MARK if user == USER else "keep-it"
        key = f"{text}{choose.randrange(300)}" + "k" * choose.randrange(60)
        # The longest fill pages of their own.
        value = text * choose.choice([1, 5, 20, 100, 2_000 if number % 20 == 0 else 1])
        what = choose.random()
        if what < 0.4:
            storage.save_pattern(user, text + choose.choice("ab"), key, value)
        elif what < 0.7:
            storage.save_context(user, key, value, text + choose.choice("xyz"), choose.choice([None, 0, 5]))
        elif what < 0.95:
            storage.save_insight(user, text + choose.choice("ab"), value, choose.random())
        elif what < 0.97:
            storage.clear_user_context(user, text + choose.choice("xyz"))
        elif what < 0.98:
            storage.purge_expired()


@sqlite_only
@pytest.mark.parametrize("seed", range(8))
@pytest.mark.slow
def test_no_byte_of_a_forgotten_player_is_left_in_any_file(
    storage: PatternStorage, clock: Clock, seed: int
) -> None:
    live_together(storage, seed)
    before = storage.export_user(OTHER)
    in_some = marks(storage)
    storage.forget_user(USER)

    assert in_some > 0
    assert marks(storage) == 0
    assert storage.export_user(OTHER) == before


def test_no_byte_is_left_of_what_the_earlier_app_deleted_before(database_path: Path) -> None:
    """It did not erase what it deleted, so that still lies in pages that nothing uses."""
    run_sql(
        database_path,
        f"""
        PRAGMA secure_delete = OFF;
        CREATE TABLE user_insights (
            id INTEGER PRIMARY KEY AUTOINCREMENT, user_id INTEGER NOT NULL, insight_type TEXT NOT NULL,
            insight_data TEXT NOT NULL, importance REAL DEFAULT 0.5,
            created_at TIMESTAMP DEFAULT CURRENT_TIMESTAMP
        );
        WITH RECURSIVE number (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM number WHERE n < 500)
        INSERT INTO user_insights (user_id, insight_type, insight_data)
        SELECT {USER}, 'leak', '{MARK}' || printf('%.2000c', 'x') FROM number;
        DELETE FROM user_insights WHERE id > 1;
        """,
    )
    in_old = database_path.read_bytes().count(MARK.encode())
    with get_pattern_storage(database_path) as storage:
        forgotten = storage.forget_user(USER)

        assert in_old > 100
        assert forgotten["user_insights"] == 1
        assert marks(storage) == 0


@sqlite_only
def test_forgetting_while_another_connection_reads_the_old_state_says_so(
    storage: PatternStorage,
) -> None:
    """The rows are deleted; what is left in the log goes when it is asked for again."""
    storage.save_insight(USER, "leak", MARK)
    with (
        closing(sqlite3.connect(storage.db_path, isolation_level=None)) as reader,
        get_pattern_storage(f"sqlite:///{storage.db_path}?timeout=0.05") as impatient,
    ):
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM user_insights").fetchone()
        with pytest.raises(DatabaseBusy, match="try again"):
            impatient.forget_user(USER)
        deleted = impatient.get_insights(USER)
        reader.execute("COMMIT")
        impatient.forget_user(USER)

    assert deleted == []
    assert marks(storage) == 0
