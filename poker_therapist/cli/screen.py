"""What the operator's commands print: tables and colours on a terminal, plain lines in a pipe.

Rich, which draws them, takes half as long to import as all the rest: only a terminal waits for it.
"""

import json
import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import Any, TextIO

from poker_therapist.errors import escaped
from poker_therapist.location import Location, command_about
from poker_therapist.migrations.engine import BackupFile
from poker_therapist.migrations.lock_report import MAINTENANCE
from poker_therapist.migrations.log import LogEntry
from poker_therapist.migrations.plan import PlannedMigration
from poker_therapist.migrations.progress import watched_by
from poker_therapist.migrations.rehearse import Rehearsal, Verdict
from poker_therapist.migrations.status import MigrationStatus, State, Status

# Styles that are readable on dark and on light backgrounds: yellow on white is not, nor blue on black.
GOOD, NOTICE, BAD = "green", "magenta", "bold red"

STYLES: dict[str, str] = {
    "readable": GOOD,
    "A": GOOD,
    "U": NOTICE,
    "done": GOOD,
    State.APPLIED: GOOD,
    State.PENDING: NOTICE,
    Verdict.EXACT: GOOD,
    Verdict.SCHEMA_EXACT: NOTICE,
    Verdict.ADOPTED: NOTICE,
}

# The shortest wait for a lock, in seconds, that is reported.
_NOTICED = 0.1

# Seconds after which progress is shown, and between two updates of it.
_SHORT, _EVERY = 2, 0.1


@contextmanager
def progress(doing: str = "", *, quiet: bool = False) -> Iterator["Progress"]:
    """Show on a terminal what a block does, from two seconds on, and remove that at the end.

    It begins with `doing`, if that is given, else when it reports something.
    """
    is_watched = not quiet and sys.stderr.isatty()
    shown = Progress(is_watched=is_watched)
    try:
        with watched_by(shown if is_watched else None):
            if doing:
                shown(doing, 0, 0)
            yield shown
    finally:
        shown.stop()


class Progress:
    """Shows what is being done; a thread draws it, which no Ctrl-C interrupts in the middle."""

    def __init__(self, *, is_watched: bool) -> None:
        self._is_watched = is_watched
        self._drawing: threading.Thread | None = None
        self._total = 0

    def __call__(self, doing: str, done: int, total: int) -> None:
        """Take note of what is being done, how much of it is done and how much there is, 0 if unknown."""
        if not self._is_watched:
            return
        if self._drawing is None or total != self._total:
            self._total, self._since = total, (time.monotonic(), done)
        self._now = doing, done, total, *self._since
        if self._drawing is None:
            self._started, self._ended = time.monotonic(), threading.Event()
            self._drawing = threading.Thread(target=self._draw)
            with suppress(RuntimeError):  # there may be no room for a thread
                self._drawing.start()

    def say(self, line: str) -> None:
        """Remove what is shown, and print a line."""
        self.stop()
        say(line)

    def stop(self) -> None:
        """Remove what is shown, until something else is being done."""
        if self._drawing is not None:
            self._ended.set()
            with suppress(RuntimeError):  # it was not started
                self._drawing.join()
            self._drawing = None

    def _draw(self) -> None:
        if self._ended.wait(_SHORT) or not (console := _console(sys.stderr)) or not console.is_interactive:
            return
        from rich.live import Live
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        def line() -> Table:
            doing, done, total, since, before = self._now
            now, left = time.monotonic(), ""
            if total and done > before:
                seconds = (now - since) * (total - done) / (done - before)
                left = f", {timedelta(seconds=int(seconds))} left"
            bar = ProgressBar(
                total or None, done, width=30, style="dim", complete_style=GOOD, pulse_style=GOOD
            )
            table = Table.grid(padding=(0, 1))
            times = Text(f"{timedelta(seconds=int(now - self._started))}{left}")
            table.add_row(Text(escaped(doing), no_wrap=True, overflow="ellipsis"), bar, times)
            return table

        # Standard output may lead elsewhere, and the terminal may be gone.
        how: dict[str, Any] = {"transient": True, "auto_refresh": False, "redirect_stdout": False}
        with suppress(OSError), Live(get_renderable=line, console=console, **how) as live:
            live.refresh()
            while not self._ended.wait(_EVERY):
                live.refresh()


def print_status(location: Location, found: Status) -> None:
    """Print the status of a database, the summary last; on a terminal what needs attention comes first."""
    apply = command_about(location, "apply")
    print_rows(
        ("migration", "state", "applied at (UTC)"),
        [
            (one.id, one.state, (one.applied_at or "")[:19])
            for one in sorted(found.migrations, key=_urgency if _is_watched(sys.stdout) else lambda _: 0)
        ],
    )
    for one in found.migrations:
        if one.note:
            _print(
                one.note if one.note.startswith(one.id) else f"{escaped(one.id)}: {one.note}",
                NOTICE if one.is_compatible else STYLES.get(one.state, BAD),
            )
    for difference in found.drift:
        _print(f"drift: {difference}", BAD)
    if found.mending:
        _print(
            "An older program, such as the earlier app, has used this database and created objects again "
            "that the migrations drop. Update that program, and repair the schema with:",
            NOTICE,
        )
        for statement in found.mending:
            _print(f"    {statement}", NOTICE)
    if found.drift_unknown_because:
        _print(found.drift_unknown_because, NOTICE)
    if not found.exists:
        _print(_missing(location), NOTICE)
    elif found.is_trouble and found.drift_unknown_because and not found.drift:
        _print(f"{location.name}: the schema cannot be checked, see above.", BAD)
    elif found.is_trouble:
        _print(f"{location.name}: needs attention, see above.", BAD)
    elif found.is_changing:
        _print(f"{location.name}: a migration is running; check again when it has finished.", NOTICE)
    elif found.pending:
        _print(
            f"{location.name}: {len(found.pending)} pending; `{apply}` applies them.",
            NOTICE,
        )
    else:
        _print(f"{location.name}: up to date.", GOOD)


def _urgency(migration: MigrationStatus) -> int:
    return {State.PENDING: 1, State.APPLIED: 2}.get(migration.state, 0)


def print_rehearsal(location: Location, found: Rehearsal, max_lock: float) -> None:
    """Print the verdicts, then the reasons, the summary last."""
    if not found.migrations:
        _print(f"{location.name}: nothing is pending, so there is nothing to rehearse.", GOOD)
        return
    print_rows(
        ("migration", "verdict", "seconds", "rows changed"),
        [
            (
                one.id,
                one.verdict or "failed",
                f"{one.seconds:.2f}",
                ", ".join(f"{table} {count:,}" for table, count in one.changed.items()) or "none",
            )
            for one in found.migrations
        ],
    )
    for one in found.migrations:
        for reason in one.reasons:
            _print(f"{escaped(one.id)}: {reason}", STYLES.get(one.verdict or State.EDITED, BAD))
        for why in one.broken_promises:
            _print(f"{escaped(one.id)} declares `-- compatible: true`, but {why}", BAD)
    if found.fallback_reason:
        _print(found.fallback_reason, NOTICE)
    _print_locks(found, max_lock)
    _print(f"The real run needs up to {found.disk_space_needed:,} bytes of disk space.")
    if found.not_tried:
        _print(f"Not rehearsed, because the rehearsal ended before: {', '.join(found.not_tried)}.", BAD)
    lost = [one.id for one in found.migrations if one.verdict is Verdict.IRREVERSIBLE]
    failed = [one.id for one in found.migrations if one.verdict is None]
    if found.is_safe:
        adopted = any(one.verdict is Verdict.ADOPTED for one in found.migrations)
        how = " (if it adopted tables, by restoring its backup)" if adopted else ""
        _print(f"Every migration can be applied and rolled back{how}.", GOOD)
    if failed:
        _print(f"{failed[0]} fails: see above.", BAD)
    if lost:
        _print(f"Only a backup can restore what the rollback of {', '.join(lost)} loses.", BAD)


def _print_locks(found: Rehearsal, max_lock: float) -> None:
    """Print the waits for locks, the slowest statement of each, and last the longest wait of all."""
    longest = 0.0
    for one in found.migrations:
        for way, report in one.locks.items():
            about = f"{escaped(one.id)}, {way}"
            waits = [wait for wait in report.waits if wait.who != MAINTENANCE]
            longest = max(longest, *(wait.seconds for wait in waits), 0.0)
            if told := [escaped(str(wait)) for wait in waits if wait.seconds >= _NOTICED]:
                slowest = max(report.statements, key=lambda statement: statement.seconds)
                _print(f"{about}: {'; '.join(told)} (longest: {escaped(str(slowest))})")
            for wait in report.too_long(max_lock):
                _print(f"{about}: {escaped(str(wait))}, longer than --max-lock {max_lock:g}", BAD)
    _print(f"Other sessions would wait for a lock for {longest:.2f} seconds at most.")


def print_plan(location: Location, planned: list[PlannedMigration]) -> None:
    """Print each statement that would be run, with its place, and under it what it does."""
    if not planned:
        _print(f"{location.name}: nothing to run.", GOOD)
    for one in planned:
        how = "in one transaction" if one.is_transactional else "without a transaction"
        found = f"; it adopts {escaped(', '.join(one.found))}, which its rollback will not drop"
        _print(f"{one.direction} {escaped(one.migration.id)}, {how}{found if one.found else ''}")
        for each in one.statements:
            _print(f"  {one.file}:{each.statement.line}: {escaped(str(each.statement))}")
            for does in each.effects:
                _print(f"      {escaped(does)}", NOTICE)
            for lock in each.locks:
                _print(f"      {escaped(str(lock))}", NOTICE if lock.blocks else None)


def print_log(location: Location, entries: list[LogEntry]) -> None:
    """Print what was done with migrations, oldest first."""
    if not entries:
        _print(f"{location.name}: no migration has been applied or rolled back yet.", NOTICE)
        return
    rows = [
        (
            one.migration,
            one.outcome,
            one.operation,
            (one.at or "")[:19],
            f"{one.user}@{one.host}".strip("@"),
            one.place,
        )
        for one in entries
    ]
    print_rows(("migration", "outcome", "operation", "at (UTC)", "by", "place"), rows)


def _missing(location: Location) -> str:
    return f"There is no database {location.name} yet; `{command_about(location, 'apply')}` creates it."


def tell_if_missing(location: Location, *, exists: bool) -> None:
    """Print, on standard error, that there is no database."""
    if not exists:
        print(escaped(_missing(location)), file=sys.stderr)


def print_backups(location: Location, found: list[BackupFile]) -> None:
    """Print the backups beside a database."""
    if not found:
        _print(f"There is no backup beside {location.name}.", NOTICE)
        return
    print_rows(
        ("file", "state", "created at (UTC)", "bytes", "before", "schema version"),
        [
            (
                one.path.name,
                {True: "readable", False: "cannot be read", None: "not checked"}[one.is_readable],
                one.made_at,
                str(one.size),
                one.before or "manual",
                one.schema_version or "none",
            )
            for one in found
        ],
    )


def print_json(value: Any) -> None:
    """Print a value for a program."""
    print(json_text(value, sys.stdout.encoding or "utf-8"))


def json_text(value: Any, encoding: str) -> str:
    """Return a value as JSON that can be written in an encoding.

    Characters that the encoding lacks are escaped, such as the lone surrogates that the earlier app could
    write.
    """
    text = "\n".join(map(_in_json, json.dumps(value, ensure_ascii=False, indent=2).split("\n")))
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        return json.dumps(value, indent=2)
    return text


def _in_json(line: str) -> str:
    """Return a line of JSON with the escapes that JSON has for what a terminal would obey."""
    return (
        line
        if line == escaped(line)
        else "".join(c if c == escaped(c) else json.dumps(c)[1:-1] for c in line)
    )


def say(line: str) -> None:
    """Print a line unchanged, except for control characters in names."""
    print(escaped(line, keeping="\n"))


def _is_watched(stream: TextIO) -> bool:
    """Return whether there is a terminal, or the environment declares one (Rich's variables)."""
    return stream.isatty() or any(os.environ.get(name) for name in ("FORCE_COLOR", "TTY_COMPATIBLE"))


def _print(line: str, style: str | None = None) -> None:
    """Print a line, coloured on a terminal that shows colours, and never broken in a pipe.

    A terminal breaks a line between words, but not one with a command, which is pasted as one line.
    """
    line = escaped(line, keeping="\n")
    if console := _console(sys.stdout, highlight=False, emoji=False):
        console.print(line, style=style, markup=False, soft_wrap="`" in line)
    else:
        print(line)


def print_rows(titles: tuple[str, ...], rows: list[tuple[Any, ...]]) -> None:
    """Print a table on a terminal, its second column coloured; in a pipe, lines with tabs.

    On a terminal that is too narrow, the last columns are printed below the first, one line each.
    """
    rows = [tuple(escaped(str(item)) for item in row) for row in rows]
    console = _console(sys.stdout, highlight=False, markup=False, emoji=False)
    if console is None:
        for row in rows:
            print("\t".join(row).rstrip())
        return
    from rich.box import SIMPLE_HEAD
    from rich.console import Group
    from rich.padding import Padding
    from rich.table import Table
    from rich.text import Text

    shown = len(titles)
    while shown > 2 and _least_width((titles, *rows), shown) > console.width:
        shown -= 1
    table = Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for title in titles[:shown]:
        table.add_column(title, overflow="fold")
    for name, state, *rest in rows:
        below = zip(titles[shown:], rest[shown - 2 :], strict=True)
        lines = [Padding(f"{title}: {item}", (0, 0, 0, 2)) for title, item in below if item]
        styled = Text(state, style=STYLES.get(state, BAD))
        table.add_row(Group(name, *lines), styled, *rest[: shown - 2])
    console.print(table)


def _least_width(rows: tuple[tuple[str, ...], ...], shown: int) -> int:
    """Return the least width of a terminal for so many columns of a table, with no word broken."""
    columns = zip(*rows, strict=True)
    widest = [max(len(word) for text in column for word in ("", *text.split())) for column in columns]
    return sum(widest[:shown]) + 3 * (shown - 1)


def _console(stream: TextIO, **options: Any) -> Any:
    """Return Rich's console of a terminal; None of a pipe, for which Rich takes too long to import."""
    if not stream.isatty() and not {"FORCE_COLOR", "TTY_COMPATIBLE"} & os.environ.keys():
        return None
    from rich.console import Console

    console = Console(file=stream, **options)
    return console if console.is_terminal else None
