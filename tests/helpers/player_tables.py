"""What a table of players' rows must take part in, found by looking: export, forget, copy, backups.

Run as a script, it checks the package that it imports, with a database to fill and another to copy to.
"""

from contextlib import suppress
from pathlib import Path
from typing import Any

from poker_therapist import get_pattern_storage
from poker_therapist.engines import engine_for
from poker_therapist.location import locate
from poker_therapist.schema import copy
from poker_therapist.tables import TABLES
from tests.helpers import players
from tests.helpers.cli import command
from tests.helpers.engines import columns, is_server, query, run_sql

USER = 7


def player_tables(database: str) -> list[str]:
    """Return the tables that say whose a row is, in a database that holds what the migrations made."""
    return sorted(table for table, names in columns(database).items() if "user_id" in names)


def rows_of(table: str, database: str | Path) -> int:
    """Return how many rows a table has of the player."""
    return int(query(database, f"SELECT count(*) FROM {table} WHERE user_id = {USER}")[0][0])


def complaints(database: str, target: str) -> list[str]:
    """Fill an empty database, copy it to another, forget its player; return where a table was left out."""
    with get_pattern_storage(database) as storage:
        players.fill(storage, USER)
    players.add_legacy_rows(database)
    tables = player_tables(database)
    for table in tables:
        if not rows_of(table, database):
            run_sql(database, f"INSERT INTO {table} (user_id) VALUES ({USER})")
    counts = {table: rows_of(table, database) for table in tables}

    listed = [table.name for table in TABLES]
    exported = _count_exported(database)
    backups = {} if is_server(database) else _back_up_each_alone(Path(database), tables)
    searched = engine_for(locate(database)).backups_holding(USER, TABLES)
    copy(locate(database), locate(target))
    with suppress(KeyError):  # a table is listed, and there is no query for it
        command("forget", str(USER), "--yes", "--database", database, folder=Path.cwd())

    found = [f"{table} is not in poker_therapist/tables.py" for table in tables if table not in listed]
    found += [f"{table} is not exported" for table in tables if exported.get(table) != counts[table]]
    found += [f"{table} is not looked for in backups" for table in backups if backups[table] not in searched]
    found += [f"{table} is not copied" for table in tables if rows_of(table, target) != counts[table]]
    found += [f"{table} is not forgotten" for table in tables if rows_of(table, database)]
    return found


def _count_exported(database: str) -> dict[str, int]:
    """Return how many rows of each table are in the player's export."""
    with get_pattern_storage(database) as storage, suppress(KeyError):  # as above
        export: Any = storage.export_user(USER)
        return {table.name: len(export[table.exported_as]) for table in TABLES}
    return {}


def _back_up_each_alone(database: Path, tables: list[str]) -> dict[str, Path]:
    """Return for each table a backup that holds the player in that table and in no other."""
    backups = {table: database.with_name(f"{database.name}.{table}.backup") for table in tables}
    for table, backup in backups.items():
        run_sql(database, f"VACUUM INTO '{backup}'")
        for other in {*tables} - {table}:
            run_sql(backup, f"DELETE FROM {other} WHERE user_id = {USER}")
    return backups
