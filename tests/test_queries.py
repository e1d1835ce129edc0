"""queries.sql: every query is used, is answered by an index, and is about one player."""

import re
from pathlib import Path

import pytest

import poker_therapist.storage
from poker_therapist import PatternStorage
from poker_therapist.database import read_queries

SOURCE = Path(poker_therapist.storage.__file__)
QUERIES = read_queries(SOURCE.with_name("queries.sql"))

# What the storage's own columns and a table's own keys may be looked up by.
SEARCH = re.compile(r"SEARCH \w+ USING (COVERING INDEX|INDEX|INTEGER PRIMARY KEY|PRIMARY KEY)\b")


def test_every_query_of_the_file_is_found_by_its_name() -> None:
    names = re.findall(r"^-- name: (\w+)", SOURCE.with_name("queries.sql").read_text(), re.MULTILINE)

    assert len(names) > 20
    assert sorted(QUERIES) == sorted(names)


@pytest.mark.parametrize("name", QUERIES)
def test_every_query_is_used_by_the_storage(name: str) -> None:
    assert f'"{name}"' in SOURCE.read_text()


@pytest.mark.parametrize("name", QUERIES)
def test_no_query_reads_a_whole_table_or_sorts(storage: PatternStorage, name: str) -> None:
    sql = QUERIES[name]
    parameters = [None] * len(set(re.findall(r"\?\d+", sql)))
    plan = [row[3] for row in storage._database.rows(f"EXPLAIN QUERY PLAN {sql}", parameters)]

    others = [step for step in plan if not SEARCH.match(step) and not step.startswith("LIST SUBQUERY")]
    assert others == []
    assert plan or sql.startswith("INSERT")


@pytest.mark.parametrize("name", QUERIES)
def test_every_query_but_one_is_about_one_player_whom_it_names_first(name: str) -> None:
    """So that a single shard answers it, and a block knows whose rows it is about."""
    one_player = re.search(r"WHERE\s+user_id = \?1\b|INSERT INTO \w+ \(\s*user_id,", QUERIES[name])

    assert (one_player is None) == (name == "next_player_with_expired")


@pytest.mark.parametrize("name", [name for name, sql in QUERIES.items() if "ed_at DESC" in sql])
def test_newest_first_is_by_time_and_then_by_id(name: str) -> None:
    """Today's indexes give this order anyway; the query must not rely on them."""
    assert re.search(r"ORDER BY (\w+ DESC, )?(created|updated)_at DESC, id DESC\b", QUERIES[name])
