"""The waits for locks that a migration causes, measured by its rehearsal on a copy."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

# Who waits for a lock, the strongest lock first. The last does not affect the players.
EVERYBODY, WRITERS, SAME_ROWS = "readers and writers", "writers", "saves of the same rows"
MAINTENANCE = "other schema changes and VACUUM"
WHO = (EVERYBODY, WRITERS, SAME_ROWS, MAINTENANCE)


class Lock(NamedTuple):
    """What a statement locks until its transaction ends, and what that blocks; nothing if it is empty."""

    mode: str
    table: str
    blocks: str

    def __str__(self) -> str:
        """Return it as a sentence."""
        return f"takes {self.mode} on {self.table}: {self.blocks or 'blocks neither reads nor writes'}"


@dataclass(frozen=True, slots=True)
class Wait:
    """Who would wait for a table, and how long at most: from the first such lock to the commit."""

    who: str
    table: str
    seconds: float

    def __str__(self) -> str:
        """Return it as a sentence."""
        return f"{self.who} of {self.table} wait {self.seconds:.2f} s"


@dataclass(slots=True)
class StatementReport:
    """What a statement did.

    Attributes:
        line: its line in its file.
        seconds: how long it took.
        locks: the modes and tables of the locks that it took, and that were not held before.
        rewritten: the tables of which every row was rewritten.
        scanned: the tables of which every row was read.
        rows: of each table, how many rows were inserted, updated and deleted.
        is_foretold: whether the locks are derived from its text, because it runs where they cannot be seen.
    """

    line: int
    seconds: float
    locks: list[tuple[str, str]] = field(default_factory=list)
    rewritten: list[str] = field(default_factory=list)
    scanned: list[str] = field(default_factory=list)
    rows: dict[str, dict[str, int]] = field(default_factory=dict)
    is_foretold: bool = False

    def __str__(self) -> str:
        """Return it as a sentence."""
        parts = [f"{mode} on {table}" for mode, table in self.locks]
        parts += [f"rewrites {table}" for table in self.rewritten]
        parts += [f"reads all of {table}" for table in self.scanned]
        for table, counts in self.rows.items():
            parts += [f"{count:,} rows of {table} {how}" for how, count in counts.items() if count]
        return f"line {self.line}, {self.seconds:.2f} s" + (f": {', '.join(parts)}" if parts else "")


@dataclass(slots=True)
class LockReport:
    """One direction of a migration, statement by statement."""

    statements: list[StatementReport] = field(default_factory=list)
    waits: list[Wait] = field(default_factory=list)
    _held: dict[tuple[str, str], float] = field(default_factory=dict)

    def hold(self, who: str, table: str, since: float) -> None:
        """Note that some would wait for a table from a time on, until `release`."""
        self._held.setdefault((who, table), since)

    def held(self) -> Iterator[tuple[str, str, float]]:
        """Yield who would wait for which table, and since when; the weaker only if it was there before."""
        for table in dict.fromkeys(table for _, table in self._held):
            earliest = float("inf")
            for who in WHO:
                since = self._held.get((who, table), earliest)
                if since < earliest:
                    earliest = since
                    yield who, table, since

    def release(self, now: float) -> None:
        """Note that a transaction has ended, and all its locks with it. Of equal waits the longest counts."""
        longest = {(one.who, one.table): one for one in self.waits}
        for who, table, since in self.held():
            before = longest.get((who, table))
            if before is None or before.seconds < now - since:
                longest[who, table] = Wait(who, table, now - since)
        self.waits = list(longest.values())
        self._held.clear()

    def forget(self, keeping: int = 0) -> None:
        """Note that a transaction was rolled back, and may be tried again."""
        del self.statements[keeping:]
        self._held.clear()

    def too_long(self, most: float) -> list[Wait]:
        """Return the players' waits that are longer than some seconds."""
        return [one for one in self.waits if one.who != MAINTENANCE and one.seconds > most]

    def as_json(self) -> dict[str, Any]:
        """Return it for a program."""
        return {
            "waits": [
                {"who": one.who, "table": one.table, "seconds": round(one.seconds, 3)} for one in self.waits
            ],
            "statements": [
                {
                    "line": one.line,
                    "seconds": round(one.seconds, 3),
                    "locks": [{"mode": mode, "table": table} for mode, table in one.locks],
                    "foretold": one.is_foretold,
                    "rewritten": one.rewritten,
                    "scanned": one.scanned,
                    "rows": one.rows,
                }
                for one in self.statements
            ],
        }
