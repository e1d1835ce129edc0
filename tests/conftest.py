"""What every test may ask for."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from poker_therapist import PatternStorage, get_pattern_storage


@pytest.fixture
def database_path(tmp_path: Path) -> Path:
    """Where a database may be made; nothing is there yet."""
    return tmp_path / "RexVoice.db"


@pytest.fixture
def storage(database_path: Path) -> Iterator[PatternStorage]:
    """An empty, up-to-date storage."""
    with get_pattern_storage(database_path) as opened:
        yield opened
