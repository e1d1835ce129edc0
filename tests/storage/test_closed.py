"""A storage that is closed stays closed, and a cleaning up that fails says what is done and what is left."""

import sqlite3
from contextlib import closing

import psycopg
import pytest

from poker_therapist import DatabaseBusy, PatternStorage, get_pattern_storage
from tests.helpers.engines import postgresql_only, query, sqlite_only, with_options
from tests.helpers.players import add_legacy_rows
from tests.helpers.scripts import run_in_child

USER, OTHER = 7, 8

CLOSED_BEFORE_THE_FORK = """
import os, sys
from poker_therapist import StorageClosed, get_pattern_storage

storage = get_pattern_storage(sys.argv[1])
storage.save_pattern(7, "from", "parent", 1)
storage.close()

def use(who):
    for what, call in {
        "reads": lambda: storage.get_pattern(7, "from", "parent"),
        "saves": lambda: storage.save_pattern(7, "from", who, 1),
        "begins": lambda: storage.transaction().__enter__(),
    }.items():
        try:
            call()
            print(who, what)
        except StorageClosed:
            print(who, "is refused")
    sys.stdout.flush()

child = os.fork()
if child == 0:
    use("child")
    os._exit(0)
os.waitpid(child, 0)
use("parent")
"""


def test_a_storage_that_is_closed_is_closed_in_a_forked_child_too(migrated: str) -> None:
    lines = run_in_child(CLOSED_BEFORE_THE_FORK, migrated)

    assert lines == ["child is refused"] * 3 + ["parent is refused"] * 3
    assert query(migrated, "SELECT pattern_key FROM user_patterns") == [("parent",)]


@postgresql_only
def test_forgetting_while_a_table_cannot_be_vacuumed_says_that_the_rows_are_deleted(
    migrated: str, storage: PatternStorage
) -> None:
    add_legacy_rows(migrated)
    storage.save_insight(USER, "leak", 1)
    with (
        psycopg.connect(migrated) as somebody,
        get_pattern_storage(with_options(migrated, "timeout=0.05")) as impatient,
    ):
        somebody.execute("LOCK TABLE user_insights IN SHARE UPDATE EXCLUSIVE MODE")
        with pytest.raises(
            DatabaseBusy,
            match=r"^the rows are deleted, but .* not freed yet; try again\. .*is still locked",
        ):
            impatient.forget_user(USER)
        somebody.rollback()

        assert set(impatient.forget_user(USER).values()) == {0}


@sqlite_only
def test_vacuuming_while_somebody_else_writes_says_that_the_rows_are_deleted(storage: PatternStorage) -> None:
    path = storage.db_path
    with (
        closing(sqlite3.connect(path, isolation_level=None)) as somebody,
        get_pattern_storage(with_options(str(path), "timeout=0.05")) as impatient,
    ):
        somebody.execute("BEGIN IMMEDIATE")
        with pytest.raises(DatabaseBusy) as refusal:
            impatient._database.scrub_deleted()
        somebody.execute("ROLLBACK")
        impatient._database.scrub_deleted()

    assert str(refusal.value).startswith(
        f"the rows are deleted, but traces are left in {path}; try again. {path} is still locked after 0.05 s"
    )
