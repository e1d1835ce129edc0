"""What is installed is enough: the wheel brings its SQL and needs no checkout."""

import shutil
import subprocess
import sys
import zipfile
from importlib.metadata import Distribution, distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from tests.checkout import ROOT, copy_checkout

SCRIPT = """
import sys
from pathlib import Path

import poker_therapist
from poker_therapist.storage import get_pattern_storage

assert Path(poker_therapist.__file__).is_relative_to(sys.prefix), poker_therapist.__file__
with get_pattern_storage("RexVoice.db") as storage:
    storage.save_pattern(7, "tilt", "after_bad_beat", {"bets_up": 1.8})
with get_pattern_storage("RexVoice.db", migrate=False) as storage:
    print(storage.get_pattern(7, "tilt", "after_bad_beat"))
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from a copy of the checkout so that nothing is left in it."""
    folder = tmp_path_factory.mktemp("wheel")
    checkout = copy_checkout(folder / "checkout")
    subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder, checkout],
        check=True,
        capture_output=True,
    )
    (built,) = folder.glob("*.whl")
    return built


def test_the_wheel_holds_the_sql_and_the_types(wheel: Path) -> None:
    """The wheel has each migration with its way back, the queries, and the mark of a typed package."""
    with zipfile.ZipFile(wheel) as archive:
        packed = set(archive.namelist())

    migrations = {
        f"poker_therapist/{file.relative_to(ROOT)}" for file in (ROOT / "sql_migrations").rglob("*.sql")
    }
    queries = {str(file.relative_to(ROOT)) for file in (ROOT / "poker_therapist").rglob("*.sql")}
    assert migrations
    assert packed >= migrations | queries | {"poker_therapist/py.typed"}
    assert not {
        name for name in packed if name.startswith(("tests/", "docs/")) or name.endswith((".db", ".pyc"))
    }


def test_the_wheel_works_alone(wheel: Path, tmp_path: Path) -> None:
    """With what it requires and nothing else, it makes a database in an empty folder and uses it."""
    prefix, empty = tmp_path / "venv", tmp_path / "empty"
    empty.mkdir()
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", prefix], check=True)
    python = next(
        path for path in (prefix / "bin" / "python", prefix / "Scripts" / "python.exe") if path.exists()
    )
    asked = subprocess.run(
        [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"],
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    packages = Path(asked.stdout.strip())
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(packages)
    for required in _required_by(distribution("poker-therapist"), {}).values():
        _install(required, packages)

    done = subprocess.run(
        [python, "-I", "-W", "error", "-c", SCRIPT], cwd=empty, capture_output=True, text=True, check=False
    )

    assert (done.stdout, done.stderr, done.returncode) == ("{'bets_up': 1.8}\n", "", 0)
    assert (empty / "RexVoice.db").exists()


def _required_by(asking: Distribution, known: dict[str, Distribution]) -> dict[str, Distribution]:
    """Return what a distribution requires, and what that requires in turn, without any extras."""
    for line in asking.requires or []:
        requirement = Requirement(line)
        if requirement.name not in known and (
            requirement.marker is None or requirement.marker.evaluate({"extra": ""})
        ):
            known[requirement.name] = distribution(requirement.name)
            _required_by(known[requirement.name], known)
    return known


def _install(required: Distribution, packages: Path) -> None:
    """Copy the files of a distribution from the running environment."""
    for file in required.files or []:
        if ".." not in file.parts and "__pycache__" not in file.parts:
            target = packages / file
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(required.locate_file(file).__str__(), target)
