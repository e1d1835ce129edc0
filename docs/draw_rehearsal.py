"""Draws what `poker-therapist rehearse` prints on a terminal, for README.md: `make docs`."""

import os
import subprocess
import sys
import tempfile
from io import StringIO
from pathlib import Path

from old_database import create
from rich.ansi import AnsiDecoder
from rich.console import Console
from rich.terminal_theme import DEFAULT_TERMINAL_THEME, SVG_EXPORT_THEME, TerminalTheme

COLUMNS = 80
PICTURES = {"dark": SVG_EXPORT_THEME, "light": DEFAULT_TERMINAL_THEME}
# Rich's own format loads a font from another site. A reader's browser has one of its own.
FORMAT = """<svg viewBox="0 0 {width} {terminal_height}" xmlns="http://www.w3.org/2000/svg">
<style>
.{unique_id}-matrix {{
  font-family: ui-monospace, Menlo, Consolas, monospace; font-size: {char_height}px; white-space: pre;
}}
{styles}
</style>
<defs>{lines}</defs>
{backgrounds}
<rect width="{width}" height="{terminal_height}" rx="8" fill="BACKGROUND"/>
<g transform="translate({terminal_x}, {terminal_x})">
<g class="{unique_id}-matrix">{matrix}</g>
</g>
</svg>
"""


def main() -> None:
    """Write the pictures beside this file."""
    printed = rehearse()
    for name, theme in PICTURES.items():
        Path(__file__).with_name(f"rehearsal-{name}.svg").write_text(draw(printed, theme), encoding="utf-8")


def rehearse() -> str:
    """Return what the command prints on a terminal about a database of the earlier app."""
    with tempfile.TemporaryDirectory() as folder:
        create(Path(folder, "RexVoice.db"))
        return subprocess.run(  # noqa: S603  # our own program
            [Path(sys.executable).with_name("poker-therapist"), "rehearse", "--no-config"],
            cwd=folder,
            env=os.environ | {"FORCE_COLOR": "1", "COLUMNS": str(COLUMNS), "TERM": "xterm-256color"},
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            check=True,
        ).stdout


def draw(printed: str, theme: TerminalTheme) -> str:
    """Return a picture of what was printed."""
    console = Console(record=True, width=COLUMNS, file=StringIO(), force_terminal=True)
    console.print("$ poker-therapist rehearse", style="bold", highlight=False)
    for line in AnsiDecoder().decode(printed):
        console.print(line, no_wrap=True, overflow="ignore", crop=True)
    background = theme.background_color.hex
    return console.export_svg(
        title="", theme=theme, code_format=FORMAT.replace("BACKGROUND", background), unique_id="rehearsal"
    )


if __name__ == "__main__":
    main()
