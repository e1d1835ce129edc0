"""Pairs of SQL files, read and checked whole before any of them runs."""

import difflib
import glob
import hashlib
import os
import re
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import Any, NamedTuple

from yoyo.migrations import Migration, MigrationList, _expand_sources

from poker_therapist.errors import (
    InvalidMigration,
    MigrationEdited,
    MigrationFailed,
    MigrationOutOfOrder,
    escaped,
)
from poker_therapist.location import command_about
from poker_therapist.migrations.header import blank, directives, is_compatible, misplaced, unreadable
from poker_therapist.migrations.order import in_order, natural

# Statements that end their transaction, which only the backend may do.
_TRANSACTION_CONTROL = {
    "ABORT", "BEGIN", "COMMIT", "END", "PREPARE TRANSACTION", "RELEASE", "ROLLBACK", "SAVEPOINT", "START",
}  # fmt: skip
_FIRST_WORD = re.compile(r"prepare\s+transaction\b|\w*", re.IGNORECASE)
# How a command of these programs begins, and no SQL statement does.
_PROGRAMS = {"\\": "psql", ".": "sqlite3"}
_CREATES = re.compile(
    r"""
    ^CREATE\s+(?:(?!TABLE|INDEX|VIEW|TRIGGER)\w+\s+)*(?P<kind>TABLE|INDEX|VIEW|TRIGGER)\s+
    (?:CONCURRENTLY\s+)?(?P<unless_there>IF\s+NOT\s+EXISTS\s+)?(?:\w+\.)?(?P<name>"[^"]+"|`[^`]+`|\[[^\]]+\]|\w+)
    (?:[^;]*?\sON\s+(?:\w+\.)?(?P<table>"[^"]+"|`[^`]+`|\[[^\]]+\]|\w+))?
    """,
    re.IGNORECASE | re.VERBOSE,
)
_TOKEN = re.compile(
    r"""
      (?P<blank> [ \t\r\n\f]+ | --[^\n]*\n? | /\*.*?\*/ )
    | (?P<semicolon> ; )
    | (?P<quoted> '[^']*' | "[^"]*" | `[^`]*` | \[[^\]]*\] )
    | (?P<word> [\w$\x80-\U0010ffff]+ )
    | (?P<unfinished> /\* | ['"`\[] )
    | (?P<other> . )
    """,
    re.VERBOSE | re.DOTALL | re.ASCII,
)
# The states of SQLite's `sqlite3_complete()` (https://sqlite.org/c3ref/complete.html):
# nothing yet, complete, an ordinary statement, EXPLAIN, CREATE, a trigger's body, a semicolon and END in it.
_TOKEN_KINDS = {
    "semicolon": 0, "blank": 1, "EXPLAIN": 3, "CREATE": 4, "TEMP": 5, "TEMPORARY": 5, "TRIGGER": 6, "END": 7
}  # fmt: skip
_NEXT_STATE = (
    (1, 0, 2, 3, 4, 2, 2, 2),
    (1, 1, 2, 3, 4, 2, 2, 2),
    (1, 2, 2, 2, 2, 2, 2, 2),
    (1, 3, 3, 2, 4, 2, 2, 2),
    (1, 4, 2, 2, 2, 4, 5, 2),
    (6, 5, 5, 5, 5, 5, 5, 5),
    (6, 6, 5, 5, 5, 5, 5, 7),
    (1, 7, 5, 5, 5, 5, 5, 5),
)
# What to do with a statement that cannot run inside a transaction.
OUTSIDE_TRANSACTION = "move it to a separate migration with `-- transactional: false` in its header"
# The sources of applied migrations without files.
KEPT_IN_DATABASE = "(kept in the database)"


@dataclass(frozen=True, slots=True)
class Statement:
    """One SQL statement and the line of its file on which it starts."""

    text: str
    line: int

    @property
    def control(self) -> str:
        """Its effect on the transaction, such as COMMIT; empty if there is none."""
        found = _FIRST_WORD.match(self.text)
        word = " ".join(found[0].upper().split()) if found else ""
        return word if word in _TRANSACTION_CONTROL else ""

    @property
    def fault(self) -> str:
        """Why it is not an SQL statement, and what to do; empty if it may be one."""
        program = _PROGRAMS.get(self.text[:1])
        return f"{self.text.split()[0]} is a command of {program}, not SQL: remove it" if program else ""

    def __str__(self) -> str:
        """Return the statement on one line, shortened."""
        line = " ".join(self.text.split())
        return line if len(line) <= 100 else f"{line[:97]}..."


@lru_cache(1024)  # each step of a migration splits the same text
def split(text: str) -> list[Statement]:
    """Return the statements of a file, which end where SQLite's `sqlite3_complete()` ends them.

    So a semicolon in a string, a comment or the body of a trigger ends nothing. Each character is read once.
    """
    statements, ends = list[Statement](), list[int]()
    state, start, counted, line = 0, 0, 0, 1
    for token in _TOKEN.finditer(text):
        kind = str(token.lastgroup)
        if kind == "unfinished":
            break
        word = token[0].upper() if kind == "word" else kind
        state = _NEXT_STATE[state][_TOKEN_KINDS.get(word, 2)]
        if kind == "semicolon" and state == 1:
            ends.append(token.end())
            state = 0
    for end in (*ends, len(text)):
        code = text[blank(text, start) : end]
        if code.strip(" \t\r\n;"):
            begin = end - len(code)
            line, counted = line + text.count("\n", counted, begin), begin
            statements.append(Statement(code.strip(), line))
        start = end
    return statements


Split = Callable[[str], list[Statement]]


@lru_cache(1024)  # as split()
def _faults(text: str, split: Split, ends: str, headers: bool) -> Sequence[tuple[int, str]]:
    statements = split(text)
    found = [(one.line, one.fault) for one in statements if one.fault]
    controls = [one for one in statements if ends and one.control and not one.fault]
    found += [(one.line, f"{one.control} {ends}: remove it\n    {one}") for one in controls]
    if headers:
        of_comments = (*directives(text), *misplaced(text, [(one.text, one.line) for one in statements]))
        found += [*((one.line, one.fault) for one in of_comments if one.fault), *unreadable(text, split)]
    return sorted(found)


@lru_cache(1024)
def _names_made(text: str, split: Split, unless_there: bool) -> frozenset[str]:
    names = set[str]()
    for statement in split(text):
        found = _CREATES.search(statement.text)
        if found and (found["unless_there"] or not unless_there):
            kind, _, name, table = (part.strip('[]`"').lower() for part in found.groups(""))
            # PostgreSQL names a trigger in its table.
            names |= {f"{kind} {name}", f"{kind} {table}.{name}" if kind == "trigger" else f"{kind} {name}"}
    return frozenset(names)


class SQLMigration(Migration):
    """A migration of yoyo's whose texts are read, split and run by us."""

    def __init__(  # noqa: PLR0917  # what a pair of files is
        self,
        migration_id: str,
        path: Path | None,
        source: str,
        apply_sql: str,
        rollback_sql: str | None,
        split: Split = split,
    ) -> None:
        """Take the texts of a pair; there is no path if they were kept in the database."""
        super().__init__(migration_id, str(path or f"{migration_id}.sql"), source)
        self.split = split
        self.steps: list[object] = []  # yoyo takes it for loaded
        self.source = apply_sql
        self.file = path
        self.apply_sql = apply_sql
        self.rollback_sql = rollback_sql
        said = [one for one in directives(apply_sql) if one.is_exact]
        true = {one.key for one in said if one.value.lower() == "true"}
        true -= {one.key for one in said if one.value.lower() != "true"}  # given twice, with different values
        self.depends_on = {name for one in said if one.key == "depends" for name in one.value.split()}
        self.use_transactions = self._says_transactional("apply", unless_said=True)
        # It may be applied after one that comes later, and beside another with the same dependency.
        self.out_of_order = "out-of-order" in true
        # Code that does not know this migration continues to work.
        self.is_compatible = is_compatible(apply_sql)
        self._rolls_back_whole = self._says_transactional("rollback", unless_said=self.use_transactions)

    def _says_transactional(self, direction: str, *, unless_said: bool) -> bool:
        """Return whether the header of a direction's file declares a transaction.

        Raises:
            InvalidMigration: its header has another value than true or false.
        """
        text = (self.apply_sql if direction == "apply" else self.rollback_sql) or ""
        said = [one for one in directives(text) if one.key == "transactional" and one.is_exact]
        if self.file is not None and (wrong := next((one for one in said if one.fault), None)):
            place, why = self.place(direction), f":{wrong.line}: {wrong.fault}"
            raise InvalidMigration(place + why, migration_id=self.id, file=place, line=wrong.line)
        return all(one.value.lower() != "false" for one in said) if said else unless_said

    def is_transactional(self, direction: str) -> bool:
        """Return whether one transaction holds all statements of a direction, apply or rollback."""
        return self.use_transactions if direction == "apply" else self._rolls_back_whole

    def place(self, direction: str = "apply") -> str:
        """Return the file of a direction, relative to the working folder if it is below that."""
        if self.file is None:
            return escaped(f"{self.id} {self.source_dir}")
        return shown(self.file if direction == "apply" else rollback_file(self.file))

    def statements(self, direction: str) -> list[Statement]:
        """Return the statements of a direction, apply or rollback.

        Raises:
            InvalidMigration: its file is missing, or ends the transaction itself.
        """
        text = self.apply_sql if direction == "apply" else self.rollback_sql
        self._require_pair()
        if text is None:
            raise InvalidMigration(
                f"{escaped(self.id)} has no files here, and its scripts are not stored in the database: "
                "restore the files",
                migration_id=self.id,
            )
        for wrong_in in ("apply", "rollback") if direction == "apply" else ("rollback",):
            for line, problem in self.faults(wrong_in, headers=direction == "apply"):
                raise InvalidMigration(
                    f"{self.place(wrong_in)}:{line}: {problem}",
                    migration_id=self.id,
                    file=self.place(wrong_in),
                    line=line,
                )
        return self.split(text)

    def faults(self, direction: str, *, headers: bool = True) -> Sequence[tuple[int, str]]:
        """Return the line of each fault in the file of a direction, if wanted also in its directives."""
        text = (self.apply_sql if direction == "apply" else self.rollback_sql) or ""
        in_one = any(not one.fault for one in self.split(text)) and self.is_transactional(direction)
        ends = f"would end the transaction of {self.id}" if in_one else ""
        return _faults(text, self.split, ends, headers and self.file is not None)

    def names_made(self, *, unless_there: bool = False) -> frozenset[str]:
        """Return the kind and name, in lower case, of what it creates; or only with IF NOT EXISTS."""
        return _names_made(self.apply_sql, self.split, unless_there)

    @property
    def is_hook(self) -> bool:
        """Whether it runs after every apply, is never recorded and so never rolled back."""
        return bool(self.id.startswith("post-apply"))

    def _require_pair(self) -> None:
        if self.file is not None and self.rollback_sql is None and not self.is_hook:
            raise InvalidMigration(
                f"{self.place('rollback')} is missing, so {self.id} could not be rolled back: "
                "write it (a comment is enough if there is nothing to undo)",
                migration_id=self.id,
                file=self.place("rollback"),
            )

    @property
    def checksum(self) -> str:
        """The SHA-256 of both texts, independent of line endings."""
        texts = (normalised(self.apply_sql), normalised(self.rollback_sql or ""))
        return hashlib.sha256("\0".join(texts).encode()).hexdigest()

    def failure(self, direction: str, why: str) -> MigrationFailed:
        """Return the error for a problem of this migration, whose changes were undone."""
        return MigrationFailed(
            f"{self.place(direction)}: {why}. All changes of {self.id} were undone.",
            migration_id=self.id,
            file=self.place(direction),
        )

    def require_unedited(self, checksum: str, apply_sql: str, rollback_sql: str, accept: str) -> None:
        """Raise MigrationEdited, with what changed, if the files are not what was applied."""
        self._require_pair()
        if checksum == self.checksum:
            return
        changes: list[str] = []
        for direction, before, after in (
            ("apply", apply_sql, self.apply_sql),
            ("rollback", rollback_sql, self.rollback_sql or ""),
        ):
            old, new = normalised(before).splitlines(), normalised(after).splitlines()
            pairs = enumerate(zip(old, new, strict=False))
            same = next((number for number, (was, now) in pairs if was != now), len(new))
            # To compare two long texts completely may take hours.
            lines = difflib.unified_diff(old[: same + 500], new[: same + 500], n=0, lineterm="")
            changed = [f"    {line[:200]}" for line in list(lines)[2:]]
            if changed:
                changes += [f"  {self.place(direction)}", *changed[:12]]
        raise MigrationEdited(
            f"{self.id} was applied, and its file has been edited since:\n" + "\n".join(changes) + "\n"
            "Restore the file, and put the change into a new migration. If the edit changes nothing (a "
            f"comment), accept it with {accept}.",
            migration_id=self.id,
            file=self.place(),
        )


class AppliedRecord(NamedTuple):
    """The stored record of a migration; without texts if plain yoyo applied it."""

    applied_at: str | None
    checksum: str | None
    apply_sql: str | None
    rollback_sql: str | None

    @property
    def is_interrupted(self) -> bool:
        """Whether it was started, in either direction, and not finished."""
        return self.apply_sql is not None and self.applied_at is None

    def is_text_of(self, applied_at: str | None) -> bool:
        """Return whether this was applied at that time; plain yoyo may have applied another text since."""
        return self.apply_sql is not None and self.applied_at in (applied_at, None)


def normalised(text: str) -> str:
    """Return a text with normalised line endings, and without blanks at the end of lines."""
    return "\n".join(line.rstrip() for line in text.splitlines()).rstrip() + "\n"


def rollback_file(path: Path) -> Path:
    """Return the other half of a pair."""
    return path.with_name(f"{path.stem}.rollback.sql")


def renumber_call(location: Any, migration: SQLMigration) -> str:
    """Return the call that gives a migration the next number: in its folder, and for its database."""
    folder = (escaped(str(migration.file.parent.absolute())),) if migration.file else ()
    about = replace(location, yoyo=None, sources=location.sources or folder)
    return command_about(about, "renumber", migration.id)


def out_of_order(location: Any, migration: SQLMigration, why: str) -> MigrationOutOfOrder:
    """Return the error for a migration that is late, or one of a fork."""
    return MigrationOutOfOrder(
        f"{why}: run `{renumber_call(location, migration)}` to give {migration.id} the next number, "
        "or add `-- out-of-order: true` to its header if their order makes no difference",
        migration_id=migration.id,
        file=migration.place(),
    )


def shown(path: Path) -> str:
    """Return a path as an operator knows it: relative to the working folder if it is below that."""
    try:
        relative = os.path.relpath(path)
    except ValueError:  # on another drive of Windows
        return escaped(str(path))
    return escaped(str(path) if relative.startswith("..") else relative)


def read_migrations(
    sources: Sequence[str], kept: Collection[SQLMigration] = (), split: Split = split
) -> MigrationList:
    """Return the migrations of some folders, each linked to those that it depends on.

    Args:
        sources: folders, or whatever else yoyo takes for a source. yoyo splits its setting at blanks, so
            a folder with blanks in its name arrives in pieces; it is put together again.
        kept: applied migrations whose texts the database has kept; those without a file are added.
        split: how the engine divides a text into statements.

    Raises:
        InvalidMigration: a source has no migration, or one of its files cannot be used; the message names it.
    """
    found: dict[str, SQLMigration] = {}
    whole = " ".join(sources)
    for source in [whole] if whole and Path(whole).is_dir() else sources:
        files = list(_files(source))
        if not files:
            raise InvalidMigration(f"there is no migration in {source}: correct --sources or the ini file")
        for path in files:
            migration = read(path, source, split)
            if migration.id in found:
                raise InvalidMigration(
                    f"{shown(path)} and {found[migration.id].place()} have the same id: rename one of them",
                    migration_id=migration.id,
                    file=shown(path),
                )
            found[migration.id] = migration
    for migration in kept:
        found.setdefault(migration.id, migration)
    link(found)
    hooks = [found[name] for name in sorted(found, key=natural) if found[name].is_hook]
    return MigrationList(in_order(found.values()), hooks)


def _files(source: str) -> Iterable[Path]:
    """Return the migrations of one source, without their rollbacks."""
    expanded = _expand_sources([glob.escape(source) if Path(source).is_dir() else source])
    paths = [Path(path) for _, names in expanded for path in names]
    for path in (one for one in paths if one.name[0] != "."):  # macOS writes ._001_x.sql beside 001_x.sql
        if path.name != escaped(path.name):  # yoyo prints it as it is
            raise InvalidMigration(
                f"{shown(path)} has control characters in its name: rename it", file=shown(path)
            )
        if path.suffix != ".sql":
            raise InvalidMigration(
                f"{shown(path)} is not SQL: write it as a pair of .sql files", file=shown(path)
            )
        if not path.name.endswith(".rollback.sql"):
            yield path
        elif not (half := path.with_name(path.name.removesuffix(".rollback.sql") + ".sql")).exists():
            raise InvalidMigration(
                f"{shown(path)} is a rollback script: write its apply script {half.name}", file=shown(path)
            )


def read(path: Path, source: str, split: Split) -> SQLMigration:
    """Return the migration of a file and, if there is one, of its rollback.

    Raises:
        InvalidMigration: one of them cannot be read.
    """
    rollback = rollback_file(path)
    rollback_sql = _text(rollback) if rollback.is_file() else None
    return SQLMigration(path.stem, path, source, _text(path), rollback_sql, split)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise InvalidMigration(
            f"{shown(path)} is not UTF-8 (byte {error.start}): save it as UTF-8", file=shown(path)
        ) from error
    except OSError as error:
        raise InvalidMigration(
            f"{shown(path)} cannot be read ({error.strerror}): correct its permissions, or restore it",
            file=shown(path),
        ) from error


def link(migrations: dict[str, SQLMigration]) -> None:
    """Give each migration those that it depends on, as yoyo wants them."""
    for migration in migrations.values():
        unknown = sorted(migration.depends_on - migrations.keys())
        if unknown and migration.file is not None:
            raise InvalidMigration(
                f"{migration.place()} depends on {unknown[0]}, which does not exist: correct `-- depends:`",
                migration_id=migration.id,
                file=migration.place(),
            )
        migration._depends = {migrations[name] for name in migration.depends_on if name in migrations}
    try:
        TopologicalSorter({name: migrations[name].depends_on for name in migrations}).prepare()
    except CycleError as error:
        circle = f"circular dependency: {' -> '.join(reversed(error.args[1]))}"
        raise InvalidMigration(f"{circle}: correct one `-- depends:`") from error
