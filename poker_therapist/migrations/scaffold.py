"""The empty files of the next migration."""

import re
import unicodedata
from pathlib import Path

from poker_therapist.errors import InvalidInput
from poker_therapist.migrations.files import rollback_file

# What a migration starts with; the tests demand that it be replaced.
REASON = "Why this change, in a sentence or two."

_APPLY = f"-- {REASON}\n{{depends}}"
_ROLLBACK = f"-- {REASON} What does the rollback lose?\n"


def new_migration(description: str, folder: Path) -> list[Path]:
    """Write the next pair for each engine, valid and empty, and return the files.

    Args:
        description: what it does, a verb first: "add session mood" becomes 005_add_session_mood.
        folder: where the engines' folders are, `sql_migrations`.

    Raises:
        InvalidInput: the description has no verb and noun, a migration of that name is there already, or
            there is no such folder.
    """
    if not (folder / "sqlite").is_dir():
        raise InvalidInput(f"there is no folder {folder / 'sqlite'}: run this in a checkout")
    plain = unicodedata.normalize("NFKD", description).encode("ascii", "ignore").decode()
    words = re.findall(r"[a-z0-9]+", plain.lower())
    if len(words) < 2:
        raise InvalidInput(f"{description!r} is no name for a migration: say verb and noun, add session mood")
    name = "_".join(words)
    if len(name) > 100:
        raise InvalidInput(f"{len(name)} letters are too long for a name: say it in a few words")
    engines = [folder / "sqlite", folder / "postgresql"]
    known = {engine: sorted(_ids(engine)) for engine in engines}
    if same := [one for ids in known.values() for one in ids if one.partition("_")[2] == name]:
        raise InvalidInput(f"there is {same[0]} already: choose another name")
    number = 1 + max((int(one[:3]) for ids in known.values() for one in ids), default=0)
    written = []
    for engine, ids in known.items():
        engine.mkdir(exist_ok=True)
        path = engine / f"{number:03}_{name}.sql"
        depends = f"-- depends: {ids[-1]}\n" if ids else ""
        for file, text in ((path, _APPLY.format(depends=depends)), (rollback_file(path), _ROLLBACK)):
            with file.open("x", encoding="utf-8") as new:  # nor through a link
                new.write(text)
            written.append(file)
    return written


def _ids(engine: Path) -> list[str]:
    """Return the ids of an engine's migrations that carry a number."""
    return [
        path.stem for path in engine.glob("[0-9][0-9][0-9]_*.sql") if not path.name.endswith(".rollback.sql")
    ]
