"""Values that the checks before a query let through, and the driver or the server refuses: invalid input."""

from typing import Any

import pytest

from poker_therapist import InvalidInput, PatternStorage, StorageError
from poker_therapist.location import locate
from poker_therapist.sqlite.connect import translate_error
from tests.helpers.engines import execute_later, fetch_all, sqlite_only


@pytest.mark.parametrize("value", [2**63, -(2**63) - 1, "half a character: \ud83c"], ids=repr)
def test_a_value_that_the_driver_refuses_is_invalid_input(value: Any, storage: PatternStorage) -> None:
    sql = "SELECT CAST(?1 AS TEXT)" if isinstance(value, str) else "SELECT CAST(?1 AS BIGINT)"
    with pytest.raises(InvalidInput, match=r"correct it"):
        fetch_all(storage, sql, [value])
    with pytest.raises(InvalidInput, match=r"correct it"):
        execute_later(storage, sql, [value])

    assert fetch_all(storage, "SELECT 1") == [(1,)]


@sqlite_only
def test_an_error_that_is_about_no_value_is_not_called_invalid_input(storage: PatternStorage) -> None:
    with pytest.raises(StorageError, match="syntax error") as refusal:
        fetch_all(storage, "SELECT FROM WHERE")

    assert type(refusal.value) is StorageError


@pytest.mark.parametrize(
    "error", [OverflowError("too large"), UnicodeEncodeError("utf-8", "\ud83c", 0, 1, "no")]
)
def test_an_error_of_python_s_own_is_about_the_value(error: Exception) -> None:
    location: Any = locate("RexVoice.db")

    assert isinstance(translate_error(error, location), InvalidInput)
