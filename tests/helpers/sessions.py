"""The sessions of storages on a PostgreSQL server, as an operator sees and ends them."""

import time
from collections.abc import Callable
from urllib.parse import quote

from poker_therapist import PatternStorage
from tests.helpers.engines import query

USER, OTHER = 7, 8
PATIENCE = 60  # seconds, for what takes less than one

# What nothing but the server can refuse.
REFUSED = "UPDATE user_patterns SET confidence = 1 / 0 WHERE user_id = ?1"


def wait_until(reached: Callable[[], object]) -> None:
    """Look again and again until something is so."""
    deadline = time.monotonic() + PATIENCE
    while not reached():
        assert time.monotonic() < deadline
        time.sleep(0.002)


def sessions(database: str, where: str = "true") -> list[int]:
    """Return the sessions of storages in a database."""
    found = query(
        database,
        "SELECT pid FROM pg_stat_activity WHERE datname = current_database() "
        f"AND application_name = 'poker-therapist' AND {where}",
    )
    return [pid for (pid,) in found]


def end_sessions(database: str) -> None:
    """End all sessions of storages in a database, as an operator may, and wait until they are gone."""
    for pid in sessions(database):
        query(database, f"SELECT pg_terminate_backend({pid})")
    wait_until(lambda: not sessions(database))


def settings(**values: str) -> str:
    """Return the option of a URL that gives a session other defaults."""
    return f"options={quote(' '.join(f'-c {name}={value}' for name, value in values.items()))}"


def add_one(storage: PatternStorage, user: int = USER) -> None:
    with storage.transaction():
        storage.save_pattern(user, "count", "all", storage.get_pattern(user, "count", "all", 0) + 1)
