"""The status of a database: the state of each migration, and the drift of the schema."""

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

_GOES_ON = "this version does not know it, but is compatible with it, as its header declares"


class State(StrEnum):
    """The state of a migration in a database."""

    APPLIED = "applied"
    PENDING = "pending"
    # Its files differ from what was applied.
    EDITED = "edited"
    # Applied, but its files are missing.
    MISSING = "missing"
    # Applied by a later version of the code; no trouble if its header declares it compatible.
    UNKNOWN = "unknown"
    # Not transactional, and interrupted.
    INTERRUPTED = "interrupted"
    # Pending, though one that comes after it is applied.
    LATE = "late"
    # Pending, and another depends on the same one, for example from another branch.
    FORKED = "forked"


@dataclass(frozen=True, slots=True)
class MigrationStatus:
    """One migration of a database."""

    id: str
    state: State
    applied_at: str | None = None
    # The edit, the fork or the order; or that plain yoyo applied it, so that nothing can be verified.
    note: str = ""
    # Whether code that does not know it continues to work: two versions can run side by side.
    is_compatible: bool = False


@dataclass(frozen=True, slots=True)
class Status:
    """The status of a database, compared with the code."""

    exists: bool
    migrations: list[MigrationStatus]
    drift: list[Difference] = field(default_factory=list)
    # Why drift cannot be checked; empty if it can.
    drift_unknown_because: str = ""
    # Whether a migration is running: what is missing may not be done yet.
    is_changing: bool = False
    # The statements that drop what an older program created again after a migration had dropped it.
    mending: list[str] = field(default_factory=list)

    @property
    def is_trouble(self) -> bool:
        """Whether it needs attention: a migration in any other state than these, drift, or unknown drift."""
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
    """Return the state of each migration, and whether a migration is running; nothing is run."""
    applied, kept, begun = backend.applied(), backend.records(), backend.interrupted()
    newest = max(files, default="", key=natural)
    last = max((applied.get(name, "") for name in files), default="")
    changing = backend.is_being_changed()
    late = {one.id: other.id for one, other in late_comers(files.values(), applied.keys() | begun)}
    beside = {one.id: other.id for pair in forks(files.values()) for one, other in (pair, pair[::-1])}

    def remedy(name: str) -> str:
        return f"run `{renumber_call(backend.location, files[name])}` to give it the next number"

    before = _applied_before(backend, files)
    found = []
    # A record without a file and a stored text is of another program that uses yoyo in the same database.
    ours = {name for name, text in kept.items() if name in applied and text.is_text_of(applied[name])}
    for name in sorted(files.keys() | ours | begun, key=natural):
        text, file = kept.get(name), files.get(name)
        if name in begun and not changing:
            found.append(MigrationStatus(name, State.INTERRUPTED, note=backend.how_to_finish(name)))
        elif name in begun:
            state = State.APPLIED if name in applied else State.PENDING
            found.append(MigrationStatus(name, state, note="it is being applied or rolled back"))
        elif name not in applied and name in late:
            note = f"{late[name]} comes after it, but is applied: {remedy(name)}"
            found.append(MigrationStatus(name, State.LATE, note=note))
        elif name not in applied and name in beside:
            note = f"{beside[name]} depends on the same migration: {remedy(name)}"
            found.append(MigrationStatus(name, State.FORKED, note=note))
        elif name not in applied:
            found.append(MigrationStatus(name, State.PENDING))
        elif file is None:
            goes_on = text is not None and applied[name] >= last and is_compatible(text.apply_sql or "")
            state = State.UNKNOWN if goes_on or natural(name) > natural(newest) else State.MISSING
            undo = command_about(backend.location, "rollback", "--to", name)
            note = _GOES_ON if goes_on else f"its scripts are stored in the database: `{undo}` rolls it back"
            found.append(MigrationStatus(name, state, applied[name], note, goes_on))
        else:
            note = "not verified" if backend.unreadable else "applied by plain yoyo: not verified"
            state = State.APPLIED
            if text is not None and text.checksum and text.applied_at == applied[name]:
                note = ""
                if name in before:
                    note = f"was applied out of order, after {before[name]}"
                elif name in beside:
                    note = f"depends on the same migration as {beside[name]}"
                try:
                    backend.require_text(file, text)
                except (MigrationEdited, InvalidMigration) as error:
                    state, note = State.EDITED, str(error)
            found.append(MigrationStatus(name, state, applied[name], note))
    return found, changing


def _applied_before(backend: AtomicBackend, files: Mapping[str, SQLMigration]) -> dict[str, str]:
    """Return those that were applied after a later one of their folder, and which one."""
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
    """Return how the live schema differs from what the migrations build, or why that cannot be checked."""
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
