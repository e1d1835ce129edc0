"""A folder with migrations of its own, and a database to run them on."""

import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.helpers import snapshots
from tests.helpers.engines import query, run_sql
from tests.helpers.postgresql import LOSES_ROWS, yoyo_in_child


class Project:
    """A folder with migrations of its own for an SQLite file, as an operator or a contributor has it."""

    # How plain yoyo names what it runs on, and how our backend is named.
    plain = "sqlite"
    atomic = "sqlite+atomic"
    # Whether an ini file allows it to roll back what deletes rows.
    loses_rows = True

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

    def write_two(self) -> None:
        """Write two pairs, of which the second depends on the first."""
        self.write("001_add_hands", "CREATE TABLE hands (id INTEGER PRIMARY KEY);", "DROP TABLE hands;")
        self.write(
            "002_add_bets", "-- depends: 001_add_hands\nCREATE TABLE bets (id INTEGER);", "DROP TABLE bets;"
        )

    def write_changes(self, changes: Mapping[str, tuple[str, str]], see: str) -> list[str]:
        """Write a migration for each change, before and after each one that notes what it sees; return all.

        Args:
            changes: each with its header, which its rollback does without.
            see: the statement that notes it, with `{}` for the name of the change before.
        """
        texts = [("see", "", see.format("nothing"))]
        for name, (header, text) in changes.items():
            texts += [("change", header, text), ("see", "", see.format(name))]
        written: list[str] = []
        for number, (what, header, text) in enumerate(texts, 1):
            depends = f"-- depends: {written[-1]}\n" if written else ""
            written.append(f"{number:03}_{what}")
            self.write(written[-1], f"{header}{depends}{text}", text)
        return written

    def yoyo(
        self, *arguments: str, scheme: str = "", options: str = "", sources: Sequence[str] = ("sql",)
    ) -> subprocess.CompletedProcess[str]:
        """Run yoyo on the database of this project, in a child of this process, which is quicker."""
        url = self.url_for(scheme or self.atomic, options)
        ini = ["--no-config-file"]
        if self.loses_rows and arguments[0] in {"rollback", "reapply", "develop"}:
            ini = ["--config", str(LOSES_ROWS)]
        return self.bare_yoyo(*arguments, *ini, "--batch", "--database", url, *sources)

    def bare_yoyo(self, *arguments: str, folder: Path | None = None) -> subprocess.CompletedProcess[str]:
        """Run yoyo with these arguments alone, so that it takes the ini file of the folder."""
        ran = yoyo_in_child(*arguments, folder=folder or self.folder)
        return subprocess.CompletedProcess(arguments, ran.code, ran.out, ran.error)

    def plain_yoyo(
        self, *arguments: str, sources: Sequence[str] = ("sql",)
    ) -> subprocess.CompletedProcess[str]:
        """Run yoyo with its own backend."""
        return self.yoyo(*arguments, scheme=self.plain, sources=sources)

    def url_for(self, scheme: str, options: str) -> str:
        """Return the URL of the database for one of yoyo's backends."""
        return f"{scheme}:///{self.database}{options}"

    def refuses(self, *arguments: str, options: str = "", sources: Sequence[str] = ("sql",)) -> str:
        """Run yoyo, check that it ends in one message and no traceback, and return that."""
        result = self.yoyo(*arguments, options=options, sources=sources)

        assert result.returncode == 1
        assert "Traceback" not in result.stderr + result.stdout
        messages = [part for part in result.stderr.split("yoyo: ")[1:] if not part.startswith("warning")]

        assert len(messages) == 1
        return messages[0]

    def is_untouched(self) -> bool:
        """Return whether nothing was made: there is no file."""
        return not self.database.exists()

    def tables(self) -> list[str]:
        """Return the tables that the migrations have made."""
        return snapshots.tables(self.database)

    def applied(self) -> list[str]:
        """Return the ids that yoyo's record holds."""
        return snapshots.applied(self.database)

    def run_sql(self, statements: str) -> None:
        """Run statements as another program would."""
        run_sql(self.database, statements)

    def query(self, statement: str) -> list[tuple[Any, ...]]:
        """Return the rows of a query."""
        return query(self.database, statement)


class ServerProject(Project):
    """The same for a PostgreSQL database."""

    plain = "postgresql+psycopg"
    atomic = "postgresql+atomic"

    def __init__(self, folder: Path, url: str) -> None:
        super().__init__(folder)
        self.url = url
        self.database = url  # type: ignore[assignment]  # as the operator's commands take it

    def url_for(self, scheme: str, options: str) -> str:
        """Return the URL of the database for one of yoyo's backends; options begin with `&`."""
        options = options if "?" in self.url else options.replace("&", "?", 1)
        return self.url.replace("postgresql:", f"{scheme}:", 1) + options

    def is_untouched(self) -> bool:
        """Return whether nothing was made: there is no table, neither ours nor yoyo's."""
        return self.query("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'") == [(0,)]
