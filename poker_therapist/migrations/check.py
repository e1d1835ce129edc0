"""Folders of migrations checked without a database, for commit hooks and CI.

Reading the files to apply them ends at the first fault; this finds all, and some that nothing else finds.
"""

import hashlib
import os
import re
import shlex
import shutil
import subprocess
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise, zip_longest
from pathlib import Path
from typing import NamedTuple

import sqlparse

from poker_therapist.errors import InvalidInput, InvalidMigration, PokerTherapistError, escaped
from poker_therapist.migrations.files import Split, SQLMigration, link, normalised, rollback_file, shown
from poker_therapist.migrations.files import read as read_pair
from poker_therapist.migrations.header import directives
from poker_therapist.migrations.order import forks, natural
from poker_therapist.migrations.scaffold import MOST_DIGITS, OPTIONAL, REASON, TWINS

_HALF = ".rollback.sql"
_LIKE_A_HALF = re.compile(r"(?i:[._-](rollback|down|undo))$")
_LIKE_A_MIGRATION = re.compile(r"\d+[_-].*|.*\.sql\b.*", re.IGNORECASE)
_NUMBER = re.compile(r"([a-z]*)(\d+)", re.IGNORECASE)
_LONG = 1_000_000  # characters, for which sqlparse takes half a minute


class Dialect(NamedTuple):
    """How an engine reads the text of a migration.

    Attributes:
        split: divides it into statements.
        fault: returns what to do about a statement that cannot run, or does nothing, where a transaction
            holds all of them or not; empty if there is nothing to do.
    """

    split: Split
    fault: Callable[[str, bool], str]


@dataclass(frozen=True, slots=True, order=True)
class Finding:
    """A problem, and what to do.

    Attributes:
        file: its path, as an operator knows it.
        line: of that file, from 1; 0 if the problem has no line.
        problem: one sentence.
        is_note: whether it may stay.
    """

    file: str
    line: int
    problem: str
    is_note: bool = False

    def __str__(self) -> str:
        """Return it as a compiler would, for an editor to jump to."""
        place = f"{self.file}:{self.line}" if self.line else self.file
        return f"{place}: {'note: ' if self.is_note else ''}{self.problem}"


def check(
    folders: Sequence[Path],
    dialects: Callable[[Path], Sequence[Dialect]],
    *,
    own: str = "",
    since: str | None = None,
) -> list[Finding]:
    """Return all problems of some folders of migrations, by file and line.

    Args:
        folders: those that are applied together, each engine's and its optional ones.
        dialects: returns how the engine of a folder reads its files; of several, the best one counts.
        own: the engine of a folder whose name is not that of an engine.
        since: a git commit, branch or tag; the files that exist there must be unchanged.

    Raises:
        InvalidInput: a folder does not exist, or git does not know that name.
    """
    found: list[Finding] = []
    read: dict[Path, list[SQLMigration]] = {}
    ids: dict[Path, dict[str, Path]] = {}  # also of what cannot be read
    for folder in folders:
        if not folder.is_dir():
            raise InvalidInput(f"there is no folder {shown(folder)}: name one with migrations")
        judges = dialects(folder)
        paths = sorted(_migrations(folder, found), key=lambda path: natural(path.stem))
        ids[folder] = {path.stem: path for path in paths}
        read[folder] = []
        for path in paths:
            one, says = min(
                (_pair(path, folder, judge) for judge in judges),
                key=lambda pair: sum(not finding.is_note for finding in pair[1]),
            )
            read[folder] += [one] if one else []
            found += says
        if not paths:
            found.append(Finding(shown(folder), 0, "contains no migration: name another folder"))
    engines = defaultdict[str, list[Path]](list)
    for folder in folders:
        name = "postgresql" if folder.name in OPTIONAL else folder.name
        engines[name if name in TWINS else own].append(folder)
    # What is in a folder without an engine's name may be of both.
    nameless = [folder for folder in folders if folder.name not in (*TWINS, *OPTIONAL)]
    for beside in engines.values():
        there = dict.fromkeys((*beside, *nameless))
        known = [path for folder in there for path in ids[folder].values()]
        accepted = {one.id for folder in there for one in read[folder] if one.out_of_order}
        for folder in beside:
            found += _numbers(ids[folder].values(), known, accepted)
        found += _links([one for folder in beside for one in read[folder]], {path.stem for path in known})
    for folder, files in read.items():
        for other in (folder.parent / name for name in TWINS if folder.name in TWINS):
            if other != folder and other in read:
                found += _twins(files, ids[other].keys(), other)
    found += [one for parent in {one.parent for one in folders} for one in _released(parent)]
    if since is not None:
        found += [one for folder in folders for one in _since(folder, since)]
    return sorted(set(found))


def _migrations(  # noqa: PLR0912  # one for each kind of name
    folder: Path, found: list[Finding]
) -> Iterator[Path]:
    """Yield the files that hold migrations, without their rollbacks; note the other files."""
    names = dict[str, Path]()
    for path in sorted(folder.iterdir()):
        name = path.name

        def finding(problem: str, path: Path = path, **more: bool) -> None:
            found.append(Finding(shown(path), 0, problem, **more))

        if path.is_dir():
            if name.lower().endswith(".sql"):
                finding("is a folder, so it is ignored: rename it")
            below = sorted(path.rglob("*")) if not name.startswith(".") else ()
            for lost in (one for one in below if one.suffix.lower() == ".sql" and one.name[0] != "."):
                finding(f"is in a subfolder of {shown(folder)}, which is not read: move it up", lost)
        elif name.startswith((".", "yoyo-tmp")):
            if name.lower().endswith(".sql"):
                finding("is a hidden file, so it is ignored: delete it if it is not needed", is_note=True)
        elif not path.is_file():
            if name.lower().endswith(".sql"):
                finding("is not a file, or is a broken link: delete it, or restore its target")
        elif name != escaped(name):
            finding("has control characters in its name: rename it")
        elif path.suffix == ".py":
            finding("is not SQL: write it as a pair of .sql files")
        elif path.suffix != ".sql":
            if _LIKE_A_MIGRATION.fullmatch(name):
                ending = "is ignored: the name must end with .sql in lower case; rename or delete it"
                finding(ending)
        elif name.endswith(_HALF):
            if not (half := path.with_name(name.removesuffix(_HALF) + ".sql")).exists():
                finding(f"is a rollback script without an apply script: write {half.name} beside it")
        elif (like := _LIKE_A_HALF.search(path.stem)) and (
            like[0][0] == "." or path.with_name(f"{path.stem[: like.start()]}.sql").exists()
        ):
            wanted = path.stem[: like.start()] + _HALF
            finding(f"would be applied as a migration: rename the rollback script to {wanted}")
        elif other := names.setdefault(name.casefold(), path):
            if other != path:
                finding(f"is the same file as {other.name} on Windows and macOS: rename one of them")
            yield path


def _pair(path: Path, folder: Path, judge: Dialect) -> tuple[SQLMigration | None, list[Finding]]:
    """Return a pair and its problems; None if the pair cannot be read."""
    found = list[Finding]()
    try:
        one = read_pair(path, str(folder), judge.split)
    except InvalidMigration as error:
        problem = re.sub(rf"^{re.escape(error.file or '')}(:{error.line})?:? ", "", str(error))
        return None, [Finding(error.file or shown(path), error.line or 0, problem)]
    if one.rollback_sql is None and not one.is_hook:
        lacking = rollback_file(path).name
        found.append(Finding(shown(path), 0, f"has no rollback: write {lacking} (a comment is enough)"))
    for direction, text in (("apply", one.apply_sql), ("rollback", one.rollback_sql)):
        if text is not None:
            found += _text(one, direction, text, judge)
    return one, found


def _text(  # one for each kind of fault
    one: SQLMigration, direction: str, text: str, judge: Dialect
) -> Iterator[Finding]:
    """Yield the problems of one script of a pair."""
    file = one.place(direction)
    if not text.strip():
        yield Finding(file, 0, "is empty: write a comment that explains why")
        return
    if REASON in text:
        yield Finding(file, 1, "is an unfilled template: write why this change is made")
    faults = one.faults(direction)
    yield from (Finding(file, line, problem.partition("\n")[0]) for line, problem in faults)
    for said in directives(text):
        if direction == "rollback" and said.is_exact and said.key != "transactional":
            where = f"has no effect in a rollback script: move it to {one.id}.sql"
            yield Finding(file, said.line, f"`-- {said.written}` {where}", is_note=True)
        elif said.is_exact and said.key != said.written[:-1]:
            plain = f"is read as `-- {said.key}:`, but not by plain yoyo"
            yield Finding(file, said.line, f"`-- {said.written}` {plain}", is_note=True)
    statements = judge.split(text)
    for statement in statements:
        if problem := judge.fault(statement.text, one.is_transactional(direction)):
            yield Finding(file, statement.line, problem, is_note=" no effect " in problem)
    if faults or len(text) > _LONG:
        return
    parts = [judge.split(part) for part in sqlparse.split(text)]
    texts = [part[0].text if len(part) == 1 else "" for part in parts if part]
    for statement, alone in zip_longest(statements, texts):
        if statement and statement.text != alone:
            why = "plain yoyo would end this statement elsewhere"
            if is_escape := re.search(r"\\['\"]", statement.text):
                why += ", because it treats the backslash as an escape: write that character in another way"
            yield Finding(file, statement.line, why, is_note=not is_escape)
            return


def _numbers(paths: Iterable[Path], known: Iterable[Path], accepted: Collection[str]) -> Iterator[Finding]:
    """Yield the numbers in a folder that are used twice or missing.

    Args:
        paths: its files.
        known: those of all folders of its engine, these included.
        accepted: the ids of those that declare `-- out-of-order: true`.
    """
    taken = defaultdict[str, dict[int, list[Path]]](lambda: defaultdict(list))
    for path in sorted(known, key=lambda path: natural(path.stem)):
        if (found := _NUMBER.match(path.stem)) and len(found[2]) <= MOST_DIGITS:
            taken[found[1].lower()][int(found[2])].append(path)
    before = set[str]()
    for path in paths:
        found = _NUMBER.match(path.stem)
        if found is None or len(found[2]) > MOST_DIGITS:
            continue
        kind, number = found[1].lower(), int(found[2])
        numbers = taken[kind]
        if (place := numbers[number].index(path)) > 0:
            first = numbers[number][place - 1]
            is_beside = first.parent == path.parent
            problem = f"has the same number as {first.name if is_beside else shown(first)}"
            if not is_beside or {first.stem, path.stem} & {*accepted}:
                yield Finding(shown(path), 0, problem, is_note=True)
            else:
                yield Finding(shown(path), 0, f"{problem}: give it the next number")
        elif kind in before and number - 1 not in numbers:
            missing = f"{max(one for one in numbers if one < number) + 1:0{len(found[2])}}"
            problem = f"comes after a gap: there is no {found[1]}{missing}; give it that number"
            yield Finding(shown(path), 0, problem)
        before.add(kind)


def _links(files: Sequence[SQLMigration], there: Collection[str]) -> Iterator[Finding]:
    """Yield what is wrong with the order of migrations that are applied together.

    Args:
        files: those of an engine.
        there: the ids on which they may depend.
    """
    known = {one.id: one for one in files}
    for one in files:
        if (other := known[one.id]) is not one:
            yield Finding(one.place(), 0, f"has the same id as {other.place()}: rename one of them")
        for name in sorted(one.depends_on - {*there}):
            line = next((said.line for said in directives(one.apply_sql) if name in said.value.split()), 0)
            yield Finding(one.place(), line, f"depends on {name}, which does not exist: correct its header")
    sound = dict(known)
    while lost := [one.id for one in sound.values() if not one.depends_on <= sound.keys()]:
        sound = {name: one for name, one in sound.items() if name not in lost}
    try:
        link(sound)
    except PokerTherapistError as error:
        yield Finding(shown(Path(files[0].source_dir)), 0, str(error))
        return
    for first, second in forks(files):
        common = max(first.depends_on & second.depends_on, key=natural)
        places = dict.fromkeys(Path(one.source_dir).absolute() for one in (second, *files))
        named = [
            word for one in places if one.name not in OPTIONAL for word in ("--sources", escaped(str(one)))
        ]
        call = shlex.join(("poker-therapist", "renumber", second.id, *named))
        problem = (
            f"depends on {common}, as {first.place()} does: run `{call}` to give it the next number, or "
            "add `-- out-of-order: true` to its header"
        )
        yield Finding(second.place(), 0, problem)
    ordered = [one for one in files if not one.is_hook]
    if any(one.depends_on for one in ordered):
        for before, one in pairwise(ordered):
            if one.source_dir != before.source_dir and Path(one.source_dir).name not in OPTIONAL:
                continue  # the first of a folder
            if not (one.depends_on or one.out_of_order):
                problem = f"has no dependency, but is not the first: add `-- depends: {before.id}`"
                yield Finding(one.place(), 0, problem)


def _twins(files: Sequence[SQLMigration], others: Collection[str], folder: Path) -> Iterator[Finding]:
    """Yield what has no counterpart in the folder of the other engine."""
    for one in files:
        if one.id not in others:
            twin = shown(folder / f"{one.id}.sql")
            yield Finding(one.place(), 0, f"has no counterpart: write {twin} (a comment is enough)")


def _released(parent: Path) -> Iterator[Finding]:
    """Yield the files that differ from `released.sha256`, which `sha256sum --check` can read, too."""
    listed = parent / "released.sha256"
    for line in listed.read_text(encoding="utf-8", errors="replace").splitlines() if listed.is_file() else ():
        digest, _, name = line.partition(" ")
        path = parent / name.lstrip(" *").strip()
        if not name.strip():
            continue
        if not path.is_file():
            yield Finding(shown(path), 0, f"is listed in {shown(listed)}, but missing: restore it")
        elif hashlib.sha256(path.read_bytes().replace(b"\r\n", b"\n")).hexdigest() != digest.strip("\\"):
            problem = "has been edited since its release: restore it, and write the change as a new migration"
            yield Finding(shown(path), 0, problem)


def _since(folder: Path, since: str) -> Iterator[Finding]:
    """Yield the files of a folder that differ from those at a commit."""
    _git(folder, since, "rev-parse", "--verify", "--quiet", f"{since}^{{commit}}")
    for name in _git(folder, since, "ls-tree", "-z", "--name-only", since, "./").decode().split("\0"):
        path = folder / name
        if path.suffix != ".sql":
            continue
        if not path.is_file():
            yield Finding(shown(path), 0, f"existed at {escaped(since)}, but is missing: restore it")
            continue
        before = _git(folder, since, "show", f"{since}:./{name}").decode("utf-8-sig", "replace")
        now = path.read_bytes().decode("utf-8-sig", "replace")
        if normalised(before) != normalised(now):
            problem = f"has been edited since {escaped(since)}: restore it, and write a new migration"
            yield Finding(shown(path), 0, problem)


def _git(folder: Path, since: str, *arguments: str) -> bytes:
    program = shutil.which("git")
    if program is None:
        raise InvalidInput("--since needs git: install it, or add its folder to PATH")
    if since.startswith("-"):
        raise InvalidInput(f"{escaped(since)} is not a commit, branch or tag: name one")
    ran = subprocess.run(  # noqa: S603  # no shell, and nothing that begins with a dash
        [program, "-C", folder, *arguments],
        # A hook's are about the folder that it was started in.
        env={name: value for name, value in os.environ.items() if not name.startswith("GIT_")},
        capture_output=True,
        check=False,
    )
    if ran.returncode:
        said = ran.stderr.decode(errors="replace").strip() or "no such commit, branch or tag"
        raise InvalidInput(f"git cannot read {shown(folder)} at {escaped(since)} ({said}): correct --since")
    return ran.stdout
