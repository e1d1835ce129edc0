"""What PostgreSQL alone does: its addresses, its sessions, and what it says when something is wrong."""

import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import psycopg
import pytest
from psycopg.pq import TransactionStatus

from poker_therapist import (
    DatabaseBusy,
    DatabaseFull,
    DatabaseNotFound,
    DatabaseReadOnly,
    DatabaseUnreachable,
    DatabaseUnreadable,
    InvalidInput,
    PatternStorage,
    SchemaMissing,
    StorageError,
    TransactionConflict,
    get_pattern_storage,
)
from poker_therapist.location import PostgreSQLLocation, locate
from poker_therapist.postgresql.connect import translate_error
from poker_therapist.postgresql.connections import PostgreSQLDatabase
from poker_therapist.postgresql.pool import Connection, Lease
from tests.helpers.engines import execute, fetch_all, query, run_sql, with_options
from tests.helpers.sessions import REFUSED, USER, add_one, end_sessions, sessions, settings, wait_until


@pytest.fixture(scope="session")
def engine() -> str:
    """This one alone."""
    return "postgresql"


# Addresses


@pytest.mark.parametrize(
    "scheme", ["postgresql", "postgresql+atomic", "postgresql+psycopg", "postgres", "PostgreSQL"]
)
def test_every_form_of_the_url_names_the_same_database(
    migrated: str, storage: PatternStorage, scheme: str
) -> None:
    storage.save_pattern(USER, "tilt", "bad_beat", 1)
    with get_pattern_storage(migrated.replace("postgresql", scheme, 1)) as same:
        assert same.get_pattern(USER, "tilt", "bad_beat") == 1
        assert same.db_path == storage.db_path


def test_no_name_of_the_database_holds_the_password(migrated: str) -> None:
    with get_pattern_storage(migrated.replace("postgres@", "postgres:s3cret@")) as storage:
        assert "s3cret" not in str(storage.db_path)
        assert "s3cret" not in repr(vars(storage._database))


@pytest.mark.parametrize("name", ["poker", "Poker"])
def test_the_tables_are_in_the_schema_that_the_url_names(database: str, name: str) -> None:
    """Which is read as the server reads a name without quotes."""
    run_sql(database, f"CREATE SCHEMA {name}")
    with get_pattern_storage(with_options(database, f"schema={name}")) as storage:
        storage.save_pattern(USER, "tilt", "bad_beat", 1)
        end_sessions(database)

        assert storage.get_pattern(USER, "tilt", "bad_beat") == 1
    assert query(database, "SELECT pattern_key FROM poker.user_patterns") == [("bad_beat",)]
    assert query(database, "SELECT tablename FROM pg_tables WHERE schemaname = 'public'") == []


def test_options_that_are_not_ours_are_passed_on(migrated: str) -> None:
    with get_pattern_storage(with_options(migrated, "application_name=rex&keepalives_idle=77")) as storage:
        assert fetch_all(storage, "SELECT current_setting('application_name')")[0] == ("rex",)
        with borrowed(storage) as connection:
            assert connection.info.get_parameters()["keepalives_idle"] == "77"


def test_a_server_that_is_cut_off_is_given_up_in_time(storage: PatternStorage) -> None:
    """TCP alone would try for hours."""
    with borrowed(storage) as connection:
        found = connection.info.get_parameters()

    patience = {"connect_timeout", "keepalives_idle", "keepalives_interval", "keepalives_count"}
    assert {name: 0 < int(found[name]) <= 60 for name in patience} == dict.fromkeys(patience, True)
    assert 0 < int(found["tcp_user_timeout"]) <= 60_000


# Sessions


@contextmanager
def borrowed(storage: PatternStorage) -> Iterator[Connection]:
    assert isinstance(storage._database, PostgreSQLDatabase)
    lease = Lease(storage._database._pool)
    try:
        yield lease.acquire()
    finally:
        lease.release()


def test_what_a_server_s_settings_are_changes_nothing_that_is_returned(
    migrated: str, storage: PatternStorage
) -> None:
    odd = settings(
        TimeZone="Asia/Kathmandu",
        DateStyle="German",
        extra_float_digits="-10",
        client_encoding="LATIN1",
        IntervalStyle="sql_standard",
    )
    storage.save_pattern(USER, "tilt", "♠", "naïve", 0.1 + 0.2 - 0.1)
    storage.save_context(USER, "topic", "🂡", expires_minutes=1)
    with get_pattern_storage(with_options(migrated, odd)) as other:
        assert repr(other.export_user(USER)) == repr(storage.export_user(USER))
        other.save_pattern(USER, "tilt", "♠", "naïve 2")
        other.save_context(USER, "topic", "🂡", expires_minutes=1)
        assert repr(other.export_user(USER)) == repr(storage.export_user(USER))


def test_what_is_not_in_use_is_in_no_transaction_and_holds_no_lock(
    migrated: str, storage: PatternStorage
) -> None:
    add_one(storage)
    with suppress(ZeroDivisionError), storage.transaction():
        add_one(storage)
        raise ZeroDivisionError
    with suppress(InvalidInput), storage.transaction():
        execute(storage, REFUSED, (USER,))
    storage.recall(USER)

    (pid,) = sessions(migrated, "state = 'idle'")
    assert query(migrated, f"SELECT * FROM pg_locks WHERE pid = {pid}") == []


def test_a_connection_that_comes_back_inside_a_transaction_is_not_lent_again(
    storage: PatternStorage,
) -> None:
    with borrowed(storage) as left_open:
        left_open.execute("BEGIN")
    with borrowed(storage) as next_one:
        assert next_one.info.transaction_status == TransactionStatus.IDLE
    assert left_open.closed


def test_a_statement_that_takes_too_long_for_the_server_is_named(migrated: str) -> None:
    with (
        get_pattern_storage(with_options(migrated, settings(statement_timeout="300ms"))) as storage,
        pytest.raises(DatabaseBusy, match=r"statement timeout.*raise statement_timeout"),
    ):
        fetch_all(storage, "SELECT pg_sleep(60)")[0]


def test_a_server_that_takes_no_writes_is_read(migrated: str, storage: PatternStorage) -> None:
    """As a standby does."""
    storage.save_pattern(USER, "tilt", "bad_beat", 1)
    with get_pattern_storage(with_options(migrated, settings(default_transaction_read_only="on"))) as standby:
        for write in (
            lambda: standby.save_pattern(USER, "tilt", "bad_beat", 2),
            lambda: standby.save_context(USER, "topic", 2),
            lambda: standby.save_insight(USER, "leak", 2),
            lambda: standby.clear_user_patterns(USER),
            lambda: standby.forget_user(USER),
            lambda: add_one(standby),
        ):
            with pytest.raises(DatabaseReadOnly, match=re.escape(storage._database.location.name)):
                write()

        assert standby.get_pattern(USER, "tilt", "bad_beat") == 1
        assert standby.recall(USER)["patterns"]["tilt"]["bad_beat"]["value"] == 1


def test_a_block_that_idles_for_too_long_for_the_server_is_undone_and_says_so(
    migrated: str, storage: PatternStorage
) -> None:
    hasty_url = with_options(migrated, settings(idle_in_transaction_session_timeout="50ms"))

    def idle(hasty: PatternStorage) -> None:
        with hasty.transaction():
            hasty.save_pattern(USER, "tilt", "first", 1)
            wait_until(lambda: not sessions(migrated, "state = 'idle in transaction'"))
            hasty.save_pattern(USER, "tilt", "second", 1)

    with get_pattern_storage(hasty_url) as hasty:
        with pytest.raises(DatabaseUnreachable, match="keep transactions short"):
            idle(hasty)
        assert hasty.get_patterns_by_type(USER, "tilt") == {}


def explanation(code: str) -> tuple[type[Exception], str]:
    location = locate("postgresql://rex:s3cret@db.example.org/poker")
    assert isinstance(location, PostgreSQLLocation)
    error = translate_error(psycopg.errors.lookup(code)("what the server said"), location)
    return type(error), str(error)


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("08006", DatabaseUnreachable),
        ("57P01", DatabaseUnreachable),
        ("57P03", DatabaseUnreachable),
        ("28P01", DatabaseUnreachable),
        ("25P03", DatabaseUnreachable),
        ("3D000", DatabaseNotFound),
        ("53100", DatabaseFull),
        ("53200", DatabaseFull),
        ("53300", DatabaseBusy),
        ("55P03", DatabaseBusy),
        ("57014", DatabaseBusy),
        ("40001", TransactionConflict),
        ("40P01", TransactionConflict),
        ("25006", DatabaseReadOnly),
        ("42P01", SchemaMissing),
        ("42703", SchemaMissing),
        ("3F000", SchemaMissing),
        ("22P02", InvalidInput),
        ("23514", InvalidInput),
        ("54000", InvalidInput),
        ("XX001", DatabaseUnreadable),
        ("XX002", DatabaseUnreadable),
        ("42501", StorageError),
        ("25P02", StorageError),
        ("0A000", StorageError),
        ("XX000", StorageError),
    ],
)
def test_each_trouble_of_the_server_is_an_error_of_ours(code: str, kind: type[Exception]) -> None:
    found, message = explanation(code)

    assert found is kind
    assert "s3cret" not in message
