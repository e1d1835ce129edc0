"""docs/api.md is current, and says of every public method what it costs."""

import inspect
import re
import sqlite3
import subprocess
import sys

import pytest

from poker_therapist import PatternStorage
from tests.helpers.checkout import ROOT
from tests.helpers.queries import QUERIES

PAGE = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")


def test_the_page_is_current() -> None:
    command = [sys.executable, "docs/write_api.py", "-"]
    written = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    plans = re.compile(r"(?<=\): ).*|(?<=^- )(?=search|writes).*|SQLite [\d.]+ plans", re.MULTILINE)
    if f"SQLite {sqlite3.sqlite_version} plans" not in PAGE:  # another version says the same otherwise
        written, page = plans.sub("", written), plans.sub("", PAGE)
        assert written == page, "run `make docs`"
    else:
        assert written == PAGE, "run `make docs`"


@pytest.mark.parametrize(
    "name", [name for name in dir(PatternStorage) if name[0] != "_" and name != "db_path"]
)
def test_a_method_is_there_with_its_parameters_and_queries(name: str) -> None:
    section = re.search(rf"^### {name}\n(.*?)(?=^##)", PAGE, re.MULTILINE | re.DOTALL)
    assert section
    parameters = list(inspect.signature(getattr(PatternStorage, name)).parameters)[1:]
    signature = section[1].partition("\n\n")[0] + section[1]
    assert [each for each in parameters if each not in signature] == []
    assert name == "close" or "search of" in section[1] or "writes a row of" in section[1]


def test_every_query_is_linked_from_a_method_and_has_its_cost() -> None:
    for name in QUERIES:
        assert f"(#query-{name}): " in PAGE
        section = PAGE.partition(f"\n### Query {name}\n")[2].partition("\n### ")[0]
        assert re.match(r"\n- (search of|writes a row of) .*\n\n    \w", section)


def test_the_cost_is_what_sqlite_plans() -> None:
    """Two of them, written down once by hand."""
    assert (
        "(#query-get_pattern): search of the key of `user_patterns` by user_id, pattern_type, pattern_key\n"
        in PAGE
    )
    assert (
        "(#query-recall_patterns): search of the key of `user_patterns` by user_id; sorted in memory\n"
        in PAGE
    )
