"""`poker-therapist forget` and `purge` to their end, on a file and on a server."""

from pathlib import Path

from poker_therapist import get_pattern_storage
from tests.helpers import players
from tests.helpers.cli import command
from tests.helpers.engines import query
from tests.helpers.players import add_legacy_rows


def rows_of(database: str, player: int) -> dict[str, int]:
    """Return how many rows of a player each table holds."""
    return {
        table: query(database, f"SELECT count(*) FROM {table} WHERE user_id = {player}")[0][0]
        for table in players.TABLES
    }


def fill(database: str) -> None:
    with get_pattern_storage(database) as storage:
        players.fill(storage, 7)
        players.fill(storage, 8)
    add_legacy_rows(database)


def test_forgetting_counts_what_it_deletes_and_touches_nobody_else(migrated: str, tmp_path: Path) -> None:
    """After a yes to the question, which names the database."""
    fill(migrated)
    mine, others = rows_of(migrated, 7), rows_of(migrated, 8)
    with get_pattern_storage(migrated) as storage:
        name = storage._database.location.name
    ran = command("forget", "7", "--database", migrated, folder=tmp_path, answer="y\n")

    assert (ran.code, ran.error) == (0, "")
    assert mine == {"user_patterns": 2, "conversation_context": 3, "user_insights": 1, "legacy_rows": 4}
    assert ran.out == f"Permanently delete all data of player 7 from {name}? [y/N]: " + "".join(
        f"{table}: {count} deleted\n" for table, count in mine.items()
    )
    assert set(rows_of(migrated, 7).values()) == {0}
    assert rows_of(migrated, 8) == others


def test_several_players_are_asked_about_once_and_counted_each(migrated: str, tmp_path: Path) -> None:
    """One who is named twice counts once."""
    fill(migrated)
    counts = {player: rows_of(migrated, player) for player in (8, 7, -9)}
    run = ["forget", "--database", migrated, "--", "8", "7", "8", "-9"]
    ran = command(*run, folder=tmp_path, answer="y\n")

    assert (ran.code, ran.error) == (0, "")
    assert ran.out.startswith("Permanently delete all data of players 8, 7, -9 from ")
    assert ran.out.partition("[y/N]: ")[2] == "".join(
        f"player {player}: {table}: {count} deleted\n"
        for player, tables in counts.items()
        for table, count in tables.items()
    )
    assert {count for player in counts for count in rows_of(migrated, player).values()} == {0}


def test_forgetting_that_is_not_confirmed_deletes_nothing(migrated: str, tmp_path: Path) -> None:
    fill(migrated)
    before = rows_of(migrated, 7)
    ran = command("forget", "7", "--database", migrated, "--backups", folder=tmp_path, answer="n\n")

    assert ran.code == 1
    assert "Aborted" in ran.error
    assert rows_of(migrated, 7) == before


def test_purging_deletes_what_has_expired_and_no_more(migrated: str, tmp_path: Path) -> None:
    fill(migrated)
    before = rows_of(migrated, 7)["conversation_context"]
    ran = command("purge", "--database", migrated, folder=tmp_path)

    assert (ran.code, ran.out, ran.error) == (0, "2 expired rows deleted\n", "")
    assert rows_of(migrated, 7)["conversation_context"] == before - 1
