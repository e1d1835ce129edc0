"""A table that holds rows of players takes part in everything that is about players."""

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers.checkout import copy_checkout
from tests.helpers.databases import Databases
from tests.helpers.faults import in_child
from tests.helpers.player_tables import complaints, player_tables
from tests.helpers.players import TABLES

# One pair of files for each engine.
CREATE = {
    "sqlite": "CREATE TABLE moods (id INTEGER PRIMARY KEY AUTOINCREMENT, user_id INTEGER NOT NULL) STRICT;",
    "postgresql": (
        "CREATE TABLE moods "
        "(id BIGINT GENERATED ALWAYS AS IDENTITY, user_id BIGINT NOT NULL, PRIMARY KEY (user_id, id));"
    ),
}
QUERIES = """
-- name: export_moods(user_id)
SELECT id FROM moods
WHERE user_id = :user_id
ORDER BY id;

-- name: delete_moods(user_id)
DELETE FROM moods
WHERE user_id = :user_id;
"""


@pytest.fixture
def target(engine: str, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[str]:
    """The path or URL of another database with nothing in it."""
    if engine == "sqlite":
        yield str(tmp_path / "target.db")
        return
    databases: Databases = request.getfixturevalue("databases")
    with databases.fresh() as url:
        yield url


@pytest.fixture
def checkout(engine: str, tmp_path: Path) -> Path:
    """A copy of the checkout with one more migration, which creates a table with a `user_id`."""
    copy = copy_checkout(tmp_path / "checkout")
    folder = copy / "sql_migrations" / engine
    *_, last = sorted(file.stem for file in folder.glob("*.sql") if ".rollback" not in file.name)
    (folder / "900_add_moods.sql").write_text(f"-- depends: {last}\n{CREATE[engine]}\n")
    (folder / "900_add_moods.rollback.sql").write_text("DROP TABLE moods;\n")
    return copy


def complaints_in(checkout: Path, database: str, target: str) -> list[str]:
    """Return what the check says of the package in a copy of the checkout."""

    def work() -> list[str]:
        for name in [name for name in sys.modules if name.partition(".")[0] in {"poker_therapist", "tests"}]:
            del sys.modules[name]
        sys.path.insert(0, str(checkout))
        copied = importlib.import_module("tests.helpers.player_tables")
        assert Path(sys.modules["poker_therapist"].__file__ or "").is_relative_to(checkout)
        found: list[str] = copied.complaints(database, target)
        return found

    return in_child(work)


def list_the_table(checkout: Path) -> None:
    file = checkout / "poker_therapist" / "tables.py"
    before, last = file.read_text().rsplit(")", 1)
    file.write_text(f'{before}    _counted("moods", "moods", "id"),\n){last}')


def add_the_queries(checkout: Path) -> None:
    with (checkout / "poker_therapist" / "queries.sql").open("a") as file:
        file.write(QUERIES)


def test_every_table_of_players_is_listed_exported_forgotten_copied_and_looked_for(
    database: str, target: str
) -> None:
    assert complaints(database, target) == []
    assert player_tables(database) == sorted(TABLES)


@pytest.mark.slow
def test_a_new_table_is_missed_in_each_place_until_it_is_listed(
    engine: str, checkout: Path, database: str, target: str
) -> None:
    """A file on a server is nowhere that we could look."""
    assert complaints_in(checkout, database, target) == [
        "moods is not in poker_therapist/tables.py",
        "moods is not exported",
        *(["moods is not looked for in backups"] if engine == "sqlite" else []),
        "moods is not copied",
        "moods is not forgotten",
    ]


@pytest.mark.slow
def test_a_new_table_that_is_listed_is_missed_until_it_has_its_queries(
    checkout: Path, database: str, target: str
) -> None:
    list_the_table(checkout)
    found = complaints_in(checkout, database, target)

    assert {"moods is not exported", "moods is not forgotten"} <= {*found}
    assert not [one for one in found if "tables.py" in one or "copied" in one or "backups" in one]


@pytest.mark.slow
def test_a_new_table_that_is_listed_and_has_its_queries_is_missed_nowhere(
    checkout: Path, database: str, target: str
) -> None:
    list_the_table(checkout)
    add_the_queries(checkout)

    assert complaints_in(checkout, database, target) == []
