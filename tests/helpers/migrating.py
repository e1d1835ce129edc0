"""Ways to migrate a database: in this process, and as an operator does."""

import os
import subprocess
import sys
from pathlib import Path

import yoyo
from yoyo.migrations import MigrationList

from poker_therapist.location import locate
from poker_therapist.migrations.files import read_migrations
from poker_therapist.schema import migrations_folder
from poker_therapist.sqlite.backend import AtomicSQLiteBackend

FOLDER = migrations_folder("sqlite")
IDS = sorted(path.stem for path in FOLDER.glob("*.sql") if not path.name.endswith(".rollback.sql"))

# The number of the migration that is not written yet.
NEXT = f"{int(IDS[-1][:3]) + 1:03}"

YOYO: tuple[str | Path, ...] = (sys.executable, Path(sys.executable).with_name("yoyo"))


def up(path: Path, to: str = IDS[-1], folder: Path = FOLDER) -> None:
    """Apply every migration up to one."""
    with AtomicSQLiteBackend(locate(f"sqlite:///{path}?backups=0")) as backend:
        pending = backend.to_apply(read_migrations([str(folder)]))
        backend.apply_migrations(pending.filter(lambda migration: migration.id <= to))


def down(path: Path, to: str, folder: Path = FOLDER) -> None:
    """Take one migration back and every one after it."""
    with AtomicSQLiteBackend(locate(f"sqlite:///{path}?backups=0")) as backend:
        done = backend.to_rollback(read_migrations([str(folder)]))
        backend.rollback_migrations(done.filter(lambda migration: migration.id >= to))


def plain_up(path: Path, folder: Path = FOLDER) -> None:
    """Apply every migration with plain yoyo."""
    with yoyo.get_backend(f"sqlite:///{path}") as backend:
        migrations: MigrationList = yoyo.read_migrations(str(folder))
        backend.apply_migrations(backend.to_apply(migrations))


def yoyo_command(
    *arguments: str | Path, folder: Path, environment: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run the yoyo command in a folder, as an operator does."""
    return subprocess.run(
        [*YOYO, *arguments],
        cwd=folder,
        env=os.environ | (environment or {}),
        capture_output=True,
        text=True,
        check=False,
    )
