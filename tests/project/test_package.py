"""The package's front door says all that is behind it."""

import inspect
import re

import poker_therapist
from poker_therapist import errors

ERRORS = {name for name, kind in vars(errors).items() if inspect.isclass(kind)}


def test_every_error_can_be_imported_from_the_package() -> None:
    """And nothing is named there that does not exist."""
    expected = ERRORS | {"PatternStorage", "get_pattern_storage"}

    assert set(poker_therapist.__all__) == expected
    assert all(hasattr(poker_therapist, name) for name in expected)


def test_the_tree_of_errors_shows_each_under_its_parent() -> None:
    """As the classes are, so is the drawing at the top of the module."""
    parents: dict[str, str] = {}
    above: list[str] = []
    for bars, name in re.findall(r"^([│├└─ ]*)([A-Z]\w+)", errors.__doc__ or "", re.MULTILINE):
        depth = len(bars) // 4
        above[depth:] = [name]
        if depth:
            parents[name] = above[depth - 1]

    assert parents.keys() | {"PokerTherapistError"} == ERRORS
    assert all(getattr(errors, name).__bases__[0].__name__ == parent for name, parent in parents.items())


def test_every_error_says_what_it_is_and_is_ours() -> None:
    """One sentence each, and one class to catch them all."""
    for name in ERRORS:
        kind = getattr(errors, name)

        assert issubclass(kind, errors.PokerTherapistError)
        assert (kind.__doc__ or "").endswith(".")
