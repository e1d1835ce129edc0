"""What the comment above the first statement of a migration says of it: `-- name: value`, a line each.

This imports no yoyo: opening a database reads the header of a migration that this version does not know.
"""

import re

COMMENTS = re.compile(r"(?:\s++|--[^\n]*+(?:\n|\Z)|/\*.*?(?:\*/|\Z))*+", re.DOTALL)
DIRECTIVE = re.compile(
    r"^[^\S\n]*--[^\S\n]*(depends|transactional|out-of-order|compatible)[^\S\n]*:(.*)$",
    re.MULTILINE | re.IGNORECASE,
)


def is_compatible(text: str) -> bool:
    """Return whether the header of a text says that code which does not know the migration may go on."""
    comments = COMMENTS.match(text)
    said = DIRECTIVE.findall(comments[0] if comments else "")
    values = {value.strip().lower() for name, value in said if name.lower() == "compatible"}
    return "true" in values <= {"true", "false"}
