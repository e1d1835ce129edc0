"""`MigrationTests`: rows are put in at every version of a schema, the one before the first included."""

from pathlib import Path

import pytest

from poker_therapist.testing import MigrationTests

PAIRS = {"0001_add_hands": ("hands", ""), "0002_add_bets": ("bets", "-- depends: 0001_add_hands\n")}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of two pairs."""
    folder = tmp_path / "sql"
    folder.mkdir()
    for name, (table, depends) in PAIRS.items():
        (folder / f"{name}.sql").write_text(f"-- New.\n{depends}CREATE TABLE {table} (id INT);\n")
        (folder / f"{name}.rollback.sql").write_text(f"-- Gone.\nDROP TABLE {table};\n")
    return folder


def test_each_version_is_populated(folder: Path, tmp_path: Path) -> None:
    """A migration is tried on the version before it."""
    asked: list[str | None] = []

    class Checks(MigrationTests):
        def populate(self, database: Path, version: str | None) -> None:
            assert database.exists()
            asked.append(version)

    Checks.folder = folder
    Checks().test_every_migration_goes_up_and_down_and_up(tmp_path)

    # Each database goes through all the versions before its own.
    assert asked == [None, None, "0001_add_hands"]
