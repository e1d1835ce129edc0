"""Where a database stands against the code: each migration, and whether the schema is what they build."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path

from poker_therapist.errors import DriftUnknown, InvalidMigration, MigrationEdited, PokerTherapistError
from poker_therapist.location import command_about
from poker_therapist.migrations.atomic import AtomicBackend
from poker_therapist.migrations.catalog import Difference, TableMissing, differences
from poker_therapist.migrations.files import SQLMigration, renumber_call
from poker_therapist.migrations.header import is_compatible
from poker_therapist.migrations.order import forks, in_order, late_comers, natural

_GOES_ON = "this version does not know it and may go on, as its header says"


class State(StrEnum):
    """What a migration is to a database."""

    APPLIED = "applied"
    PENDING = "pending"
    # Its files are not what was applied.
    EDITED = "edited"
    # Applied, and its files are gone.
    MISSING = "missing"
    # Applied by a later version of the code than this; that may be well, if its header says so.
    UNKNOWN = "unknown"
    # Not transactional, and killed in the middle.
    INTERRUPTED = "interrupted"
    # Pending, though one that comes after it is applied.
    LATE = "late"
    # Pending, and another depends on the same one: two branches have added one each, say.
    FORKED = "forked"


@dataclass(frozen=True, slots=True)
class MigrationStatus:
    """One migration of a database."""

    id: str
    state: State
    applied_at: str | None = None
    # What was edited, what it is beside or late for, or that plain yoyo applied it: nothing can be verified.
    note: str = ""
    # Whether code that does not know it may go on: two versions run side by side, and that is no trouble.
    is_compatible: bool = False


@dataclass(frozen=True, slots=True)
class Status:
    """A database against the code."""

    exists: bool
    migrations: list[MigrationStatus]
    drift: list[Difference] = field(default_factory=list)
    # Why it cannot be said whether there is drift; empty if it can.
    drift_unknown_because: str = ""
    # Whether somebody migrates right now: what is missing may only be not done yet.
    is_changing: bool = False
    # What an older program has made again, though a migration has dropped it: the statements that mend it.
    mending: list[str] = field(default_factory=list)

    @property
    def is_trouble(self) -> bool:
        """Whether somebody must look: a migration in any other state than these, drift, or no judgement."""
        usual = (State.APPLIED, State.PENDING)
        return bool(self.drift or self.drift_unknown_because) or any(
            one.state not in usual and not one.is_compatible for one in self.migrations
        )

    @property
    def pending(self) -> list[str]:
        """The ids that `apply` would apply."""
        return [one.id for one in self.migrations if one.state is State.PENDING]


def read_status(backend: AtomicBackend, sources: Sequence[str]) -> Status:
    """Compare a database with the code; nothing is written, and nothing is created where there is none.

    Args:
        backend: the backend of the database.
        sources: folders of migrations.

    Raises:
        InvalidMigration: a file of the code's own cannot be used.
        StorageError: the database cannot be read.
    """
    files = {one.id: one for one in backend.read(sources)}
    found, changing = read_states(backend, files)
    drift, drift_unknown_because = _drift(backend, files) if backend.applied() and not changing else ([], "")
    drift_unknown_because = "\n".join(filter(None, (backend.unreadable, drift_unknown_because)))
    again = {one.about.lower() for one in drift if one.expected is None}
    if again:
        again &= {name for one in backend.history(files) for name in one.names_made()}
    mending = [dropping for name, dropping in backend.present().items() if name in again] if again else []
    return Status(backend.exists(), found, drift, drift_unknown_because, changing, mending)


def read_states(
    backend: AtomicBackend, files: Mapping[str, SQLMigration]
) -> tuple[list[MigrationStatus], bool]:
    """Return what each migration is to a database, and whether somebody migrates it now; nothing is run."""
    applied, kept, begun = backend.applied(), backend.records(), backend.interrupted()
    newest = max(files, default="", key=natural)
    last = max((applied.get(name, "") for name in files), default="")
    changing = backend.is_being_changed()
    late = {one.id: other.id for one, other in late_comers(files.values(), applied.keys() | begun)}
    beside = {one.id: other.id for pair in forks(files.values()) for one, other in (pair, pair[::-1])}

    def remedy(name: str) -> str:
        return f"`{renumber_call(backend.location, files[name])}` makes it the next one"

    before = _applied_before(backend, files)
    found = []
    # What has neither a file nor a kept text is somebody else's who uses yoyo in the same database.
    ours = {name for name, text in kept.items() if name in applied and text.is_text_of(applied[name])}
    for name in sorted(files.keys() | ours | begun, key=natural):
        text, file = kept.get(name), files.get(name)
        if name in begun and not changing:
            found.append(MigrationStatus(name, State.INTERRUPTED, note=backend.how_to_finish(name)))
        elif name in begun:
            state = State.APPLIED if name in applied else State.PENDING
            found.append(MigrationStatus(name, state, note="somebody is changing it right now"))
        elif name not in applied and name in late:
            note = f"{late[name]} comes after it and is applied: {remedy(name)}"
            found.append(MigrationStatus(name, State.LATE, note=note))
        elif name not in applied and name in beside:
            note = f"{beside[name]} depends on the same one: {remedy(name)}"
            found.append(MigrationStatus(name, State.FORKED, note=note))
        elif name not in applied:
            found.append(MigrationStatus(name, State.PENDING))
        elif file is None:
            goes_on = text is not None and applied[name] >= last and is_compatible(text.apply_sql or "")
            state = State.UNKNOWN if goes_on or natural(name) > natural(newest) else State.MISSING
            undo = command_about(backend.location, "rollback", "--to", name)
            note = _GOES_ON if goes_on else f"its text is kept: `{undo}` can undo it"
            found.append(MigrationStatus(name, state, applied[name], note, goes_on))
        else:
            note = "not verified" if backend.unreadable else "by plain yoyo: not verified"
            state = State.APPLIED
            if text is not None and text.checksum and text.applied_at == applied[name]:
                note = ""
                if name in before:
                    note = f"was applied after {before[name]}, which comes after it"
                elif name in beside:
                    note = f"depends on the same one as {beside[name]}"
                try:
                    backend.require_text(file, text)
                except (MigrationEdited, InvalidMigration) as error:
                    state, note = State.EDITED, str(error)
            found.append(MigrationStatus(name, state, applied[name], note))
    return found, changing


def _applied_before(backend: AtomicBackend, files: Mapping[str, SQLMigration]) -> dict[str, str]:
    """Return those that were applied after one of their folder that comes after them, and which one."""
    places = {one.id: place for place, one in enumerate(in_order(files.values()))}
    last = dict[Path, str]()
    found = {}
    for one in reversed(backend.in_rollback_order(files.values())):
        if one.file is not None:
            before = last.setdefault(one.file.parent, one.id)
            if places[before] > places[one.id]:
                found[one.id] = before
            else:
                last[one.file.parent] = one.id
    return found


def _drift(backend: AtomicBackend, files: dict[str, SQLMigration]) -> tuple[list[Difference], str]:
    """Return how the live schema differs from what the migrations build, or why that cannot be said."""
    try:
        with backend.translating_errors():
            expected = backend.build(backend.history(files))
            actual = backend.describe(expected)
    except TableMissing as error:
        return [error.difference], ""
    except DriftUnknown as error:
        return [], str(error)
    except PokerTherapistError as error:
        return [], f"drift cannot be checked: {error}"
    return differences(replace(expected, settings={}), actual), ""  # a setting of the file is the app's
