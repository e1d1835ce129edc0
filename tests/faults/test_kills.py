"""One of four writers is killed, again and again: every write that was acknowledged is there, and whole."""

import random
import select
import time
from collections.abc import Callable

import psycopg
import pytest

from poker_therapist import get_pattern_storage
from tests.helpers.snapshots import is_whole
from tests.helpers.writers import Writer, check

WRITERS = 4


def kill_again_and_again(database: str, kills: int) -> dict[int, int]:
    """Kill one of four writers at a time and start another; return what each player had acknowledged."""
    chance = random.Random(7)
    dead: dict[int, int] = {}
    writers = [Writer(database, player) for player in range(1, WRITERS + 1)]
    try:
        for player in range(WRITERS + 1, WRITERS + 1 + kills):
            wait_for_any(writers, chance.randrange(20))
            victim = writers.pop(chance.randrange(WRITERS))
            victim.kill()
            dead[victim.player] = victim.reap()
            writers.append(Writer(database, player))
    finally:
        for writer in writers:
            writer.kill()
    return dead | {writer.player: writer.reap() for writer in writers}


def wait_for_any(writers: list[Writer], count: int) -> None:
    """Return when so many more commits of some writers are acknowledged."""
    of = {writer.pipe: writer for writer in writers}
    while count > 0:
        for pipe in select.select(of, [], [])[0]:
            heard = of[pipe].read_acknowledgements()
            assert heard, "a writer ended by itself"
            count -= heard


def wait_for_server(url: str) -> None:
    """Return when the server has noticed that all who were killed are gone: it may still commit for them."""
    with psycopg.connect(url, autocommit=True) as connection:
        others = (
            "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
        while connection.execute(others).fetchone():
            time.sleep(0.01)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("engine", "kills"),
    [("sqlite", 500), ("postgresql", 200)],
    indirect=["engine"],
    ids=str,
)
def test_a_writer_that_is_killed_loses_nothing_that_it_acknowledged(
    engine: str, kills: int, migrated: str, report: Callable[[str], None]
) -> None:
    """Nor does it leave half of a transaction, or anything that keeps the others from writing."""
    dead = kill_again_and_again(migrated, kills)
    if engine == "postgresql":
        wait_for_server(migrated)
    with get_pattern_storage(migrated) as storage:
        written = check(storage, dead)

    assert is_whole(migrated)
    report(
        f"{engine}: one of {WRITERS} writers killed {kills:,} times: {sum(dead.values()):,} commits "
        f"acknowledged, each there; {written - sum(dead.values()):,} more, whole, when the kill came first"
    )
