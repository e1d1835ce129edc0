"""PostgreSQL: how long a session of the storage waits for a lock, and for a server that is cut off."""

from contextlib import closing

import psycopg
import pytest

from poker_therapist import DatabaseBusy, PatternStorage, get_pattern_storage
from poker_therapist.postgresql.connect import open_connection
from tests.helpers.engines import fetch_all, run_sql, with_options
from tests.helpers.postgresql import server_location
from tests.helpers.sessions import USER


@pytest.fixture(scope="session")
def engine() -> str:
    """This one alone."""
    return "postgresql"


# 0 would be to wait for ever.
@pytest.mark.parametrize(
    ("timeout", "waits"), [("30", "30s"), ("0.25", "250ms"), ("0.0001", "1ms"), ("0", "1ms")]
)
def test_a_session_waits_for_a_lock_as_long_as_the_url_says(migrated: str, timeout: str, waits: str) -> None:
    """Whatever the server's own setting is."""
    run_sql(
        migrated,
        "DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET lock_timeout = 0', current_database()); END $$",
    )
    url = with_options(migrated, f"timeout={timeout}")
    with get_pattern_storage(url) as storage, closing(open_connection(server_location(url))) as operator:
        assert fetch_all(storage, "SELECT current_setting('lock_timeout')") == [(waits,)]
        assert operator.execute("SELECT current_setting('lock_timeout')").fetchone() == (waits,)


def test_a_save_that_somebody_else_s_lock_holds_up_is_given_up(
    migrated: str, storage: PatternStorage
) -> None:
    hasty_url = with_options(migrated, "timeout=0.05")
    with get_pattern_storage(hasty_url) as hasty, psycopg.connect(migrated) as somebody:
        assert fetch_all(hasty, "SELECT current_setting('lock_timeout')") == [
            ("50ms",)
        ]  # or this would not end
        somebody.execute("LOCK TABLE user_patterns")
        with pytest.raises(DatabaseBusy, match=r"is locked .*lock timeout.*pg_stat_activity"):
            hasty.save_pattern(USER, "tilt", "bad_beat", 1)
        somebody.rollback()
        hasty.save_pattern(USER, "tilt", "bad_beat", 2)

    assert storage.get_pattern(USER, "tilt", "bad_beat") == 2


def test_a_server_that_is_cut_off_is_given_up_within_a_minute_and_not_at_once(migrated: str) -> None:
    """To each of these settings 0 is no limit, or the system's own, which is hours."""
    with closing(open_connection(server_location(migrated))) as connection:
        found = connection.info.get_parameters()
    patience = {"connect_timeout", "keepalives_idle", "keepalives_interval", "keepalives_count"}

    assert {name for name in patience if not 1 <= int(found[name]) <= 60} == set()
    assert 1_000 <= int(found["tcp_user_timeout"]) <= 60_000
    assert int(found.get("keepalives", 1)) == 1
    assert (
        int(found["keepalives_idle"]) + int(found["keepalives_interval"]) * int(found["keepalives_count"])
        <= 60
    )
