"""What is installed is enough: the wheel brings its SQL and needs no checkout."""

import shutil
import subprocess
import sys
import zipfile
from importlib.metadata import Distribution, distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from tests.helpers.checkout import ROOT, copy_checkout

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
        name
        for name in packed
        if name.startswith(("tests/", "docs/")) or name.endswith((".db", ".backup", ".pyc"))
    }


@pytest.fixture(scope="module")
def python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Python with the wheel, what that requires, and nothing else."""
    prefix = tmp_path_factory.mktemp("installed") / "venv"
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

    return python


def test_the_wheel_works_alone(python: Path, tmp_path: Path) -> None:
    """It makes a database in an empty folder and uses it."""
    done = subprocess.run(
        [python, "-I", "-W", "error", "-c", SCRIPT],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip

    assert (done.stdout, done.stderr, done.returncode) == ("{'bets_up': 1.8}\n", "", 0)
    assert (tmp_path / "RexVoice.db").exists()


def test_the_command_of_the_wheel_works_in_an_empty_folder(python: Path, tmp_path: Path) -> None:
    """It applies, lists, logs and rolls back with the SQL that the wheel brings."""

    def run(*arguments: str) -> str:
        done = subprocess.run(
            [python, "-I", "-m", "poker_therapist.cli", *arguments],
            cwd=tmp_path, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout

    ids = sorted(
        file.stem
        for file in (ROOT / "sql_migrations" / "sqlite").glob("*.sql")
        if not file.name.endswith(".rollback.sql")
    )
    applied = [line for line in run("apply").splitlines() if line.startswith("applied ")]
    assert [line.split()[1] for line in applied] == ids
    assert [line.split("\t")[:2] for line in run("list").splitlines()] == [[name, "A"] for name in ids]
    assert len(run("log").splitlines()) == len(ids)
    assert run("rollback").startswith(f"rolled back {ids[-1]} in ")


def test_yoyo_finds_the_backend_and_the_sql_of_the_wheel(python: Path, tmp_path: Path) -> None:
    """The SQL is named by its package, and a database that yoyo makes is its owner's alone."""
    command = [
        "apply",
        "--database",
        "sqlite+atomic:///RexVoice.db",
        "package:poker_therapist:sql_migrations/sqlite",
    ]
    done = subprocess.run(
        [python, "-I", "-m", "yoyo", *command], cwd=tmp_path, capture_output=True, text=True, check=False
    )

    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[1:] == [
        f"applied {file.stem}"
        for file in sorted((ROOT / "sql_migrations" / "sqlite").glob("*.sql"))
        if not file.name.endswith(".rollback.sql")
    ]
    assert (tmp_path / "RexVoice.db").stat().st_mode & 0o777 == 0o600


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
