"""The empty files of the next migration."""

import re
import unicodedata
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from pathlib import Path

from poker_therapist.errors import InvalidInput, file_error
from poker_therapist.migrations.files import rollback_file, shown
from poker_therapist.migrations.order import natural
from poker_therapist.new_files import one_at_a_time

# Folders of the engines, side by side with a pair of the same id in each, and what may lie beside them.
TWINS, OPTIONAL = ("sqlite", "postgresql"), ("citus",)
# The text of the template; the tests require that it is replaced.
REASON = "Why this change, in a sentence or two."
MOST_DIGITS = 4  # more are a date, and dates have gaps
PATIENCE = 10.0  # seconds, for others that write files of migrations into the same folders

_APPLY = f"-- {REASON}\n{{depends}}"
_ROLLBACK = f"-- {REASON} What does the rollback lose?\n"
_ID = re.compile(r"(\D*)(\d+)[_.-]*(.*)", re.DOTALL)


def with_twins(folders: Iterable[Path], *, optional: bool = False) -> list[Path]:
    """Return some folders, each folder of an engine with that of the other beside it.

    Args:
        folders: of migrations.
        optional: whether to name those as well that add to an engine's.
    """
    names, found = (*TWINS, *OPTIONAL) if optional else TWINS, {}
    for folder in folders:
        own = folder.absolute().name
        for name in names if own in names else (own,):
            one = folder.absolute().with_name(name) if own in names else folder
            if name == own or one.is_dir():
                found[one.resolve()] = one
    return list(found.values())


def new_migration(description: str, folders: Sequence[Path]) -> list[Path]:
    """Write the next pair, valid and empty, for each engine, and return the files.

    The pair is written to the first folder and to its twins, with a number after those of all folders.

    Args:
        description: what it does, a verb first: "add session mood" becomes 005_add_session_mood.
        folders: of migrations that are applied together; there is one at least.

    Raises:
        InvalidInput: the description has no verb and noun, or a migration of that name is there already.
        StorageError: a file cannot be written.
    """
    plain = unicodedata.normalize("NFKD", description).encode("ascii", "ignore").decode()
    words = re.findall(r"[a-z0-9]+", plain.lower())
    if len(words) < 2:
        raise InvalidInput(f"{description!r} is not a valid name: use verb and noun, as in add session mood")
    name = "_".join(words)
    if len(name) > 100:
        raise InvalidInput(f"the name has {len(name)} characters, more than 100: use fewer words")
    with writing(with_twins(folders)):
        return _write(name, folders)


def writing(folders: Sequence[Path]) -> AbstractContextManager[None]:
    """Wait for concurrent processes that write migration files: each takes the number after the last one.

    Raises:
        InvalidInput: for too long.
    """
    places = ", ".join(map(shown, folders))
    busy = InvalidInput(
        f"another program is writing migrations in {places}: wait until it has finished, and try again"
    )
    return one_at_a_time(folders, PATIENCE, busy)


def _write(name: str, folders: Sequence[Path]) -> list[Path]:
    """Write the pair of that name for each engine."""
    known = {folder: _ids(folder) for folder in with_twins(folders)}
    engines = list(known)[: len(with_twins(folders[:1]))]
    numbered = {one: found for ids in known.values() for one in ids if (found := _ID.fullmatch(one))}
    if same := [one for one, found in numbered.items() if found[3] == name]:
        raise InvalidInput(f"{same[0]} already exists: choose another name")
    own = [numbered[one] for folder in engines for one in known[folder] if one in numbered]
    prefix, digits = max(((one[1], one[2]) for one in own), key=lambda one: int(one[1]), default=("", "000"))
    number = 1 + max((int(one[2]) for one in numbered.values() if one[1] == prefix), default=0)
    if len(digits) > MOST_DIGITS:
        number = max(number, int(f"{datetime.now(UTC):%Y%m%d%H%M%S}"[: len(digits)]))
    written = []
    for engine in engines:
        path = engine / f"{prefix}{number:0{len(digits)}}_{name}.sql"
        beside = [one for one in known if one == engine or one.absolute().name not in (*TWINS, *OPTIONAL)]
        before = sorted((one for folder in beside for one in known[folder]), key=natural)
        depends = f"-- depends: {before[-1]}\n" if before else ""
        for file, text in ((path, _APPLY.format(depends=depends)), (rollback_file(path), _ROLLBACK)):
            try:
                with file.open("x", encoding="utf-8") as new:  # nor through a link
                    new.write(text)
            except OSError as error:
                raise file_error(error, f"cannot write {shown(file)}") from error
            written.append(file)
    return written


def _ids(folder: Path) -> list[str]:
    """Return the ids of a folder's migrations, hooks left out."""
    names = [path.stem for path in folder.glob("*.sql") if not path.name.endswith(".rollback.sql")]
    return [name for name in names if not name.startswith((".", "post-apply"))]
