"""Rehearsals that change nothing and leave nothing behind, on either engine."""

from typing import Any, NamedTuple

from poker_therapist.location import locate
from poker_therapist.migrations.rehearse import Rehearsal
from poker_therapist.postgresql import rehearsal
from poker_therapist.schema import rehearse
from tests.helpers.cli import state_of
from tests.helpers.engines import query
from tests.helpers.project import Project, ServerProject
from tests.helpers.snapshots import everything


class Case(NamedTuple):
    """A migration and its rollback on HANDS, and what is said of it."""

    apply: str
    rollback: str
    # The first words of each reason.
    reasons: tuple[str, ...] = ()
    changed: dict[str, int] | None = None
    setup: str = ""


def left_of(url: str) -> list[tuple[str]]:
    """Return what rehearsals have left on the server of a database, and in that."""
    return query(url, f"SELECT datname FROM pg_database WHERE datname ^@ '{rehearsal._PREFIX}'") + query(
        url,
        "SELECT nspname FROM pg_namespace "
        "WHERE nspname NOT IN ('public', 'information_schema') AND nspname !~ '^pg_'",
    )


def rehearsed(project: Project, **options: Any) -> Rehearsal:
    """Rehearse what is pending; the original must be as it was, and nothing be left."""
    if isinstance(project, ServerProject):
        before: Any = everything(project.url), left_of(project.url)
        done = rehearse(locate(project.url), sources=["sql"], **options)
        assert (everything(project.url), left_of(project.url)) == before
        assert not [name for (name,) in before[1] if name.startswith("poker_therapist_")]
        return done
    before = state_of(project.folder)
    done = rehearse(locate(project.database), sources=["sql"], **options)
    assert state_of(project.folder) == before
    return done
