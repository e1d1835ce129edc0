"""Catalogs of small SQLite schemas in memory, and the differences between them."""

import sqlite3
from contextlib import closing

from poker_therapist.migrations.catalog import Catalog, differences
from poker_therapist.sqlite.catalog import describe

HANDS = "CREATE TABLE hands (id INTEGER PRIMARY KEY, note TEXT, stake REAL);"


def catalog(sql: str) -> Catalog:
    """Return the catalog of a schema in memory."""
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.executescript(sql)
        return describe(connection)


def differences_between(before: str, after: str) -> list[str]:
    """Return the differences between two schemas, in words."""
    return [str(difference) for difference in differences(catalog(before), catalog(after))]
