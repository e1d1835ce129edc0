"""`poker-therapist renumber`: of two migrations from two branches, one gets the next number."""

import sys
from collections.abc import Collection
from pathlib import Path

import click

from poker_therapist.cli import screen
from poker_therapist.cli.options import Command, Where, takes_migrations
from poker_therapist.engines import engine_for
from poker_therapist.errors import InvalidInput, PokerTherapistError, escaped
from poker_therapist.migrations.files import shown
from poker_therapist.migrations.renumber import renumber as renumber_files
from poker_therapist.migrations.scaffold import with_twins


@click.command(cls=Command, example="poker-therapist renumber 006_add_session_mood")
@takes_migrations
@click.argument("migration", metavar="ID")
def renumber(where: Where, migration: str) -> None:
    """Give a pending migration the next number.

    It renames the files of all engines, and updates the dependency and all references. Migrations that depend
    on it get the numbers after it. A migration that is released, or applied in the database, is refused.
    """
    folders = with_twins(where.folders(), optional=True)
    location = where.location()
    applied = set[str]()
    try:
        with engine_for(location).backend() as backend:
            applied |= backend.applied().keys() | backend.interrupted()
    except PokerTherapistError as error:
        print(escaped(f"cannot check whether it is applied: {error}", keeping="\n"), file=sys.stderr)
    released = {one for folder in folders for one in _released(folder.parent / "released.sha256")}

    def require_free(names: Collection[str]) -> None:
        for place, taken in ((f"applied in {location.name}", applied), ("released", released)):
            if found := sorted(taken & set(names)):
                others = "renumber the other migration, or add `-- out-of-order: true` to its header"
                raise InvalidInput(f"{', '.join(found)} is {place}, so its files must not change: {others}")

    changes = renumber_files(migration, folders, require_free)
    for change in changes:
        renamed = f" -> {change.new.name}" if change.new != change.old else ": changed"
        screen.say(f"{shown(change.old)}{renamed}")
    if not changes:
        screen.say(f"{migration} already has the next number")


def _released(file: Path) -> set[str]:
    """Return the ids of the migrations that have been released."""
    if not file.is_file():
        return set()
    names = [line.split()[-1] for line in file.read_text(encoding="utf-8").splitlines() if line.split()]
    return {Path(name).name.removesuffix(".sql").removesuffix(".rollback") for name in names}
