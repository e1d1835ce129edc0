"""Freeing the space of deleted rows while others use the tables, or free it too."""

import random
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import psycopg

from poker_therapist.errors import DatabaseBusy
from poker_therapist.location import PostgreSQLLocation
from poker_therapist.sqlfile import Placeholders, read_queries

_QUERIES = read_queries(Placeholders.POSTGRESQL, Path(__file__).with_suffix(".sql"))


def free_room(
    connection: psycopg.Connection[Any], location: PostgreSQLLocation, tables: Iterable[str]
) -> None:
    """Vacuum some tables, or let others do so.

    No session queues, or many would each vacuum the same table. A session that finds a table locked
    tries again, and is done when another has finished that began later.

    Raises:
        DatabaseBusy: a table was locked for longer than the timeout.
    """
    skipped: list[bool] = []

    def heed(notice: psycopg.errors.Diagnostic) -> None:
        skipped.append(notice.sqlstate == "55P03")

    cursor = psycopg.RawCursor(connection)

    def vacuumed(table: str) -> int:
        return int((cursor.execute(_QUERIES["vacuumed"], (table,)).fetchone() or (0,))[0] or 0)

    left = {table: vacuumed(table) for table in tables}
    deadline, pause = time.monotonic() + location.timeout, 0.01
    connection.add_notice_handler(heed)
    try:
        while left:
            for table, times in list(left.items()):
                skipped.clear()
                # Without TRUNCATE FALSE it would wait for all readers, to truncate the file.
                cursor.execute(f"VACUUM (SKIP_LOCKED, TRUNCATE FALSE) {table}".encode())
                if not any(skipped) or vacuumed(table) >= times + 2:
                    del left[table]
            if left and time.monotonic() > deadline:
                raise DatabaseBusy(
                    f"{min(left)} in {location.name} is still locked after {location.timeout:g} seconds: "
                    "find the session that keeps a transaction open in pg_stat_activity"
                )
            if left:
                time.sleep(pause * random.uniform(0.5, 1))  # noqa: S311  # for no secret
                pause = min(pause * 1.5, 0.5)
    finally:
        connection.remove_notice_handler(heed)
