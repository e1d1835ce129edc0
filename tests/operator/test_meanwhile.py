"""The commands while somebody else migrates the same database."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from poker_therapist.engines import engine_for
from poker_therapist.errors import MigrationError
from poker_therapist.location import locate
from poker_therapist.new_files import Claim
from tests.helpers import snapshots
from tests.helpers.cli import command
from tests.helpers.engines import is_server, sqlite_only
from tests.helpers.project import Project


@contextmanager
def migrating(project: Project) -> Iterator[str]:
    """Hold what a migration holds; yield who that is."""
    if not is_server(project.database):
        with snapshots.connect(project.database) as connection:
            connection.execute("BEGIN IMMEDIATE")
            yield f"process {os.getpid()}" if sys.platform == "linux" else ""
        return
    with engine_for(locate(project.database)).backend() as other, other.migration_lock():
        ((pid,),) = other.connection.execute("SELECT pg_backend_pid()").fetchall()
        with other.migration_names():
            other.connection.execute("BEGIN; LOCK TABLE bets")
            yield f"process {pid} of the server"


def test_who_migrates_is_named_and_waited_for(two_migrations: Project) -> None:
    """By every command that changes something, for as long as the URL says; no row is counted meanwhile."""
    project = two_migrations
    project.yoyo("apply")
    project.run_sql("INSERT INTO bets VALUES (1)")
    project.write("003_more", "-- depends: 002_add_bets\nSELECT 1;", "SELECT 1;")
    project.loses_rows = False
    option = "&timeout=0.1" if is_server(project.database) else "?timeout=0.1"
    with migrating(project) as who:
        for call in ("rollback", "reapply", "develop", "apply", "mark", "unmark"):
            message = project.refuses(call, options=option)
            assert "migrat" in message
            assert "after 0.1 seconds" in message
            assert who in message
        url = project.url_for("sqlite" if option[0] == "?" else "postgresql", option)
        for call in ("apply", "rollback"):
            ran = command(call, "--database", url, "--sources", "sql", folder=project.folder)
            assert (ran.code, "migrat" in ran.error, who in ran.error) == (1, True, True)
    assert project.applied() == ["001_add_hands", "002_add_bets"]


@sqlite_only
def test_between_two_statements_that_no_transaction_holds_others_wait(two_migrations: Project) -> None:
    """What is not finished is not taken for interrupted, and run twice."""
    project = two_migrations
    project.yoyo("apply", "-m", "001")
    claim = Claim(project.database)
    claim.take()
    for call in ("apply", "rollback", "mark"):
        message = project.refuses(call, options="?timeout=0.1")
        assert "is still locked after 0.1 seconds" in message
        assert "wait for the migration or transaction to end" in message
    assert Claim(project.database).is_of_others()

    claim.release()
    assert project.yoyo("apply", options="?timeout=0.1").stdout == "applied 002_add_bets\n"
    assert list(project.folder.glob("*.migrating-*")) == []


def test_what_somebody_else_applies_meanwhile_is_not_rolled_back_over(two_migrations: Project) -> None:
    """What was applied last is not what was chosen: the command is to be run again."""
    project = two_migrations
    project.yoyo("apply", "-m", "001")
    engine = engine_for(locate(project.database))
    with engine.backend() as backend:
        chosen = backend.to_rollback(backend.read([str(project.sql)]))
        project.yoyo("apply")
        with pytest.raises(MigrationError, match=r"\(002_add_bets\): check it with `poker-therapist st"):
            backend.rollback_migrations(chosen)
        assert project.applied() == ["001_add_hands", "002_add_bets"]

        backend.rollback_migrations(backend.to_rollback(backend.read([str(project.sql)])))
    assert project.applied() == []
