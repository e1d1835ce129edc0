"""Single items, found and deleted by key or id, and the lists of what a player has."""

from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest

from poker_therapist import InvalidInput, PatternStorage, as_datetime, get_pattern_storage
from tests.helpers.clock import Clock
from tests.helpers.engines import is_server, run_sql, sqlite_only
from tests.helpers.players import add_legacy_rows, legacy_values

USER, OTHER = 7, 8
FIRST = "2026-01-05T18:12:01.000000+00:00"


def test_a_pattern_is_returned_with_its_id_confidence_and_times(
    storage: PatternStorage, clock: Clock
) -> None:
    storage.save_pattern(USER, "tilt", "bad_beat", ["raises"], 0.7)
    at = {"created_at": FIRST, "updated_at": FIRST}
    expected = {"id": 1, "value": ["raises"], "confidence": 0.7} | at

    assert storage.get_pattern_record(USER, "tilt", "bad_beat") == expected
    assert storage.get_pattern_record(OTHER, "tilt", "bad_beat") is None
    assert storage.get_pattern_record(USER, "tilt", "cooler") is None


def test_a_confidence_is_changed_and_nothing_else(storage: PatternStorage, clock: Clock) -> None:
    for user in (USER, OTHER):
        storage.save_pattern(user, "tilt", "bad_beat", "raises", 0.7)
    before = storage.get_pattern_record(USER, "tilt", "bad_beat")
    clock.advance(hours=1)

    assert before is not None
    assert storage.set_confidence(USER, "tilt", "bad_beat", 0.2) is True
    assert storage.set_confidence(USER, "tilt", "cooler", 0.2) is False
    assert storage.get_pattern_record(USER, "tilt", "bad_beat") == {**before, "confidence": 0.2}
    assert storage.get_patterns_by_type(OTHER, "tilt")["bad_beat"]["confidence"] == 0.7


def test_one_pattern_is_deleted(storage: PatternStorage) -> None:
    for user, key in [(USER, "a"), (USER, "b"), (OTHER, "a")]:
        storage.save_pattern(user, "tilt", key, key)

    assert storage.delete_pattern(USER, "tilt", "a") is True
    assert storage.delete_pattern(USER, "tilt", "a") is False
    assert list(storage.get_patterns_by_type(USER, "tilt")) == ["b"]
    assert storage.get_pattern(OTHER, "tilt", "a") == "a"


def test_one_item_of_context_or_insight_is_deleted_by_its_player_alone(storage: PatternStorage) -> None:
    for value in ("a", "b", "c"):
        storage.save_context(USER, "topic", value, expires_minutes=-1 if value == "c" else None)
        storage.save_insight(USER, "leak", value)
    said, concluded = storage.get_context_items(USER)[0]["id"], storage.get_insights(USER)[0]["id"]

    assert storage.delete_context(OTHER, said) is storage.delete_insight(OTHER, concluded) is False
    assert storage.delete_context(USER, said) is storage.delete_insight(USER, concluded) is True
    assert storage.delete_context(USER, said) is storage.delete_insight(USER, concluded) is False
    assert storage.delete_context(USER, said + 1) is True  # expired, and not purged yet
    assert storage.get_context(USER, "topic") == ["a"]
    assert [insight["value"] for insight in storage.get_insights(USER)] == ["b", "a"]


def test_insights_are_cleared_by_type_or_all(storage: PatternStorage) -> None:
    for user, kind in [(USER, "leak"), (USER, "goal"), (USER, "leak"), (OTHER, "leak")]:
        storage.save_insight(user, kind, kind)

    assert storage.clear_user_insights(USER, "leak") == 2
    assert storage.clear_user_insights(USER, "leak") == 0
    assert [insight["value"] for insight in storage.get_insights(USER)] == ["goal"]
    assert storage.clear_user_insights(USER) == 1
    assert len(storage.get_insights(OTHER)) == 1


def test_what_is_deleted_takes_its_old_form_with_it(migrated: str, storage: PatternStorage) -> None:
    """Rolling a migration back would bring it back otherwise. The ids are those of `add_legacy_rows`."""
    storage.save_pattern(USER, "tilt", "bad_beat", 1)
    storage.save_contexts(USER, [{"key": "topic", "value": number} for number in range(3)])
    for kind in ("a", "a", "a", "leak"):
        storage.save_insight(USER, kind, 1)
    add_legacy_rows(migrated)

    storage.delete_pattern(USER, "sleep", "hours")
    storage.delete_context(USER, 1)
    storage.clear_user_insights(USER, "a")
    assert legacy_values(storage, USER) == ["old context", "old context", "old insight", "old pattern"]
    storage.delete_context(USER, 3)
    assert legacy_values(storage, USER) == ["old context", "old insight", "old pattern"]
    storage.clear_user_insights(USER, "leak")
    storage.delete_pattern(USER, "tilt", "bad_beat")
    assert legacy_values(storage, USER) == ["old context"]
    assert legacy_values(storage, OTHER) == ["somebody else"]


@sqlite_only
def test_no_byte_of_a_deleted_item_is_left_in_the_file(migrated: str, storage: PatternStorage) -> None:
    mark = "forget this one"
    storage.save_pattern(USER, mark, mark, mark)
    storage.save_context(USER, mark, mark, mark)
    storage.save_insight(USER, mark, mark)

    def marks() -> int:
        run_sql(migrated, "PRAGMA wal_checkpoint(TRUNCATE)")
        return Path(migrated).read_bytes().count(mark.encode())

    before = marks()
    storage.delete_pattern(USER, mark, mark)
    storage.delete_context(USER, 1)
    storage.clear_user_insights(USER, mark)
    assert before > 0
    assert marks() == 0


def test_players_are_listed_by_number_and_page_by_page(migrated: str, storage: PatternStorage) -> None:
    """Each once, from whichever table; also who has nothing but rows that a migration had to change."""
    lowest, highest = -(2**63), 2**63 - 1
    for user in (highest, 7, lowest):
        storage.save_pattern(user, "tilt", "a", 1)
        storage.save_pattern(user, "tilt", "b", 1)
        storage.save_context(user, "topic", 1, expires_minutes=-1)
    storage.save_context(-3, "topic", 1)
    storage.save_insight(5, "leak", 1)
    add_legacy_rows(migrated)
    if not is_server(migrated):  # there the column takes what the earlier app had written
        odd = "INSERT INTO legacy_rows (migration_id, table_name, row_id, user_id) VALUES ('003', 'x', 1, {})"
        for user_id in ("'nine'", "x'09'", "6.5", "1e300"):
            run_sql(migrated, odd.format(user_id))
    everybody = [lowest, -3, 5, 7, 8, highest]

    assert storage.list_users() == everybody
    assert storage.list_users(limit=2) == everybody[:2]
    assert storage.list_users(after=-3, limit=2) == [5, 7]
    assert storage.list_users(after=7) == [8, highest]
    assert storage.list_users(after=highest) == storage.list_users(limit=0) == []


def test_sessions_are_listed_newest_first_while_they_hold_something_live(
    storage: PatternStorage, clock: Clock
) -> None:
    for session in ("monday", "tuesday", "gone", None, "monday"):
        storage.save_context(USER, "topic", 1, session, expires_minutes=1 if session == "gone" else None)
    storage.save_context(OTHER, "topic", 1, "somebody else's")

    assert storage.list_sessions(USER) == ["monday", "gone", "tuesday"]
    clock.advance(minutes=1)
    assert storage.list_sessions(USER) == ["monday", "tuesday"]


def test_types_are_listed_and_rows_counted(migrated: str, storage: PatternStorage) -> None:
    for kind, key in [("tilt", "a"), ("bluff", "a"), ("tilt", "b")]:
        storage.save_pattern(USER, kind, key, 1)
    storage.save_context(USER, "topic", 1, expires_minutes=-1)
    add_legacy_rows(migrated)
    counts = {"user_patterns": 3, "conversation_context": 1, "user_insights": 0, "legacy_rows": 4}

    assert storage.list_pattern_types(USER) == ["bluff", "tilt"]
    assert storage.list_pattern_types(OTHER) == []
    assert storage.count(USER) == counts
    assert storage.count(9) == dict.fromkeys(counts, 0)
    assert storage.forget_user(USER) == counts


# Time

HERE = timezone(timedelta(hours=-5))


def test_what_is_imported_has_the_time_that_is_given_and_stays_in_the_order_of_saving(
    storage: PatternStorage, clock: Clock
) -> None:
    long_ago = datetime(2024, 2, 29, 20, 0, 0, 5, tzinfo=HERE)
    for moment in (None, long_ago):
        storage.save_context(USER, "topic", "x", expires_minutes=1, created_at=moment)
        storage.save_insight(USER, "leak", "x", created_at=moment)
    stored = ["2024-03-01T01:00:00.000005+00:00", FIRST]

    assert [row["created_at"] for row in storage.get_context_items(USER)] == stored
    assert [row["created_at"] for row in storage.get_insights(USER)] == stored
    assert as_datetime(stored[0]) == long_ago
    assert len({row["expires_at"] for row in storage.get_context_items(USER)}) == 1  # from now, not from then


@pytest.mark.parametrize(
    ("stored", "moment"),
    [
        (FIRST, datetime(2026, 1, 5, 18, 12, 1, tzinfo=UTC)),
        ("2026-01-05 18:12:01", datetime(2026, 1, 5, 18, 12, 1, tzinfo=UTC)),
        ("2026-01-05T18:12:01-05:00", datetime(2026, 1, 5, 23, 12, 1, tzinfo=UTC)),
    ],
)
def test_a_stored_time_as_a_datetime(stored: str, moment: datetime) -> None:
    assert (as_datetime(stored), as_datetime(stored).tzinfo) == (moment, UTC)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (None, r"a time must be a string \(got None\): expires_at is None if a row never expires"),
        ("yesterday", "a time must be a string that the storage returned"),
        (5, "a time must be a string that the storage returned"),
        ("0001-01-01T00:00:00+23:00", "the time must be in the years 1 to 9999 in UTC"),
    ],
)
def test_what_is_no_time_as_a_datetime(bad: str, message: str) -> None:
    with pytest.raises(InvalidInput, match=f"^{message}"):
        as_datetime(bad)


def test_a_single_item_is_read_and_deleted_through_a_storage_that_is_opened_anew(migrated: str) -> None:
    with get_pattern_storage(migrated) as storage:
        (one,) = storage.save_contexts(USER, [{"key": "topic", "value": "x"}])
    with get_pattern_storage(migrated) as storage:
        assert [row["id"] for row in storage.get_context_items(USER)] == [one]
        assert storage.delete_context(USER, one)
