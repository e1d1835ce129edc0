"""A folder with migrations of its own, and a database to run them on."""

import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.helpers import snapshots
from tests.helpers.cli import Result
from tests.helpers.engines import query, run_sql
from tests.helpers.migrating import yoyo_command
from tests.helpers.postgresql import yoyo_in_child
from tests.helpers.snapshots import BOOKKEEPING, applied


class Project:
    """A folder with migrations of its own, as an operator or a contributor has it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.sql = folder / "sql"
        self.sql.mkdir(parents=True)
        self.database = folder / "game.db"

    def write(self, name: str, apply: str, rollback: str | None = "-- nothing to undo\n") -> Path:
        """Write a pair; without its rollback if that is None."""
        (self.sql / f"{name}.sql").write_text(apply, encoding="utf-8")
        if rollback is not None:
            (self.sql / f"{name}.rollback.sql").write_text(rollback, encoding="utf-8")
        return self.sql / f"{name}.sql"

    def yoyo(
        self,
        *arguments: str,
        scheme: str = "sqlite+atomic",
        options: str = "",
        sources: Sequence[str] = ("sql",),
    ) -> subprocess.CompletedProcess[str]:
        """Run yoyo on the database of this project."""
        url = f"{scheme}:///{self.database}{options}"
        return yoyo_command(
            *arguments, "--no-config-file", "--batch", "--database", url, *sources, folder=self.folder
        )

    def refuses(self, *arguments: str, options: str = "", sources: Sequence[str] = ("sql",)) -> str:
        """Run yoyo, check that it ends in one message and no traceback, and return that."""
        result = self.yoyo(*arguments, options=options, sources=sources)

        assert result.returncode == 1
        assert "Traceback" not in result.stderr + result.stdout
        messages = [part for part in result.stderr.split("yoyo: ")[1:] if not part.startswith("warning")]

        assert len(messages) == 1
        return messages[0]

    def tables(self) -> list[str]:
        """Return the tables that the migrations have made."""
        return snapshots.tables(self.database)


class ServerProject(Project):
    """A folder with migrations of its own for a PostgreSQL database."""

    def __init__(self, folder: Path, url: str) -> None:
        super().__init__(folder)
        self.url = url
        self.database = url  # type: ignore[assignment]  # as the operator's commands take it

    def yoyo(  # in a child, which is quicker
        self,
        *arguments: str,
        scheme: str = "postgresql+atomic",
        options: str = "",
        sources: Sequence[str] = ("sql",),
    ) -> Any:
        """Run yoyo on the database of this project; what runs plain yoyo or ours on SQLite, does so here."""
        scheme = {"sqlite": "postgresql+psycopg", "sqlite+atomic": "postgresql+atomic"}.get(scheme, scheme)
        options = options if "?" in self.url else options.replace("&", "?", 1)
        url = self.url.replace("postgresql:", f"{scheme}:", 1) + options
        ran = yoyo_in_child(
            *arguments, "--no-config-file", "--batch", "--database", url, *sources, folder=self.folder
        )
        return _Completed(ran)

    def tables(self) -> list[str]:
        """Return the tables that the migrations have made."""
        found = query(self.url, "SELECT tablename FROM pg_tables WHERE schemaname = 'public' ORDER BY 1")
        return [name for (name,) in found if name not in BOOKKEEPING]

    def applied(self) -> list[str]:
        """Return the ids that yoyo's record holds."""
        return applied(self.url)

    def run_sql(self, statements: str) -> None:
        """Run statements as another program would."""
        run_sql(self.url, statements)

    def query(self, statement: str) -> list[tuple[Any, ...]]:
        """Return the rows of a query."""
        return query(self.url, statement)


class _Completed:
    """A command that has ended, as `subprocess` tells it."""

    def __init__(self, ran: Result) -> None:
        self.returncode, self.stdout, self.stderr = ran
