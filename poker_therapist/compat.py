"""What a later Python has in its standard library.

`typing.override` is there from Python 3.12. `typing_extensions` has it for all, and takes a quarter of the
time of importing this package, so only the type checker reads it there.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from typing_extensions import override
else:
    _Method = TypeVar("_Method", bound=Callable[..., Any])

    def override(method: _Method) -> _Method:
        """Return the method of a subclass unchanged; the type checker compares it with the base class's."""
        return method


__all__ = ["override"]
