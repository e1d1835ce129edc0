"""The checks that any folder of pairs can have, run on ours and on one that is not ours."""

import sqlite3
from contextlib import closing
from pathlib import Path

from poker_therapist import get_pattern_storage
from poker_therapist.migrations.testing import MigrationTests
from tests import old_app
from tests.migrating import FOLDER, IDS


class TestOurs(MigrationTests):
    """The project's own SQLite migrations, on the rows of the earlier app and of the storage."""

    folder = FOLDER

    def populate(self, database: Path, version: str | None) -> None:
        """Put in what the earlier app wrote, under our own 001; and what the storage writes, at the end."""
        with closing(sqlite3.connect(database)) as connection:
            if version is None:
                connection.executescript(old_app.APP_TABLES)
            elif version == IDS[0]:
                old = database.with_name("old.db")
                old_app.make(old, rows=36)
                old_app.add_odd_rows(old)
                connection.execute("ATTACH ? AS old", (str(old),))
                for table in old_app.TABLES:
                    connection.execute(f"INSERT INTO {table} SELECT * FROM old.{table}")
                connection.commit()
        if version == IDS[-1]:
            with get_pattern_storage(database) as storage:
                storage.save_pattern(7, "tilt", "new", {"a": 1})
