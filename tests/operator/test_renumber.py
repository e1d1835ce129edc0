"""`poker-therapist renumber`: what two branches have added is put one after the other."""

import shlex
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from poker_therapist import MigrationOutOfOrder, get_pattern_storage, schema
from poker_therapist.location import locate
from poker_therapist.migrations.renumber import renumber
from poker_therapist.schema import read_status, rehearse
from tests.helpers.cli import command, refused
from tests.helpers.engines import is_server
from tests.helpers.project import Project


class Checkout(Project):
    """A checkout with folders for both engines, of which one has a database."""

    def __init__(self, folder: Path, engine: str, database: str | Path) -> None:
        self.folder = folder
        self.root = folder / "sql_migrations"
        self.sql = self.root / engine
        for name in ("sqlite", "postgresql"):
            (self.root / name).mkdir(parents=True)
        self.database = database  # type: ignore[assignment]
        self.url = str(database)
        url = f"{engine}+atomic:///%(here)s/game.db" if engine == "sqlite" else self.url.replace("%", "%%")
        (folder / "yoyo.ini").write_text(
            f"[DEFAULT]\nsources = %(here)s/sql_migrations/{engine}\ndatabase = {url}\nbatch_mode = on\n"
        )

    def url_for(self, scheme: str, options: str) -> str:  # noqa: ARG002  # ours alone is asked for
        if is_server(self.url):
            return self.url.replace("postgresql:", "postgresql+atomic:", 1)
        return f"sqlite+atomic:///{self.database}{options}"

    def add(self, name: str, depends: str = "", *, says: str = "") -> None:
        """Write a pair for each engine, which makes a table of its name."""
        line = f"-- depends: {depends}\n" if depends else ""
        for folder in ("sqlite", "postgresql"):
            path = self.root / folder / f"{name}.sql"
            path.write_text(f"-- {says or name}: why.\n{line}\nCREATE TABLE t_{name[-1]} (id INTEGER);\n")
            path.with_name(f"{name}.rollback.sql").write_text(f"-- {name} goes.\nDROP TABLE t_{name[-1]};\n")

    def texts(self) -> dict[str, bytes]:
        """Return all files and what is in them."""
        return {str(p.relative_to(self.root)): p.read_bytes() for p in self.root.rglob("*") if p.is_file()}

    def names(self, engine: str = "sqlite") -> list[str]:
        """Return the ids of an engine's migrations."""
        return sorted(p.stem for p in (self.root / engine).glob("*.sql") if ".rollback." not in p.name)

    def git(self, *arguments: str) -> None:
        """Run git in the checkout."""
        who = ("-c", "user.name=Ann", "-c", "user.email=ann@example.org", "-c", "commit.gpgsign=false")
        subprocess.run(["git", *who, *arguments], cwd=self.folder, check=True, capture_output=True)


@pytest.fixture
def checkout(engine: str, tmp_path: Path, request: pytest.FixtureRequest) -> Checkout:
    """A checkout with one migration."""
    folder = tmp_path / "checkout"
    is_file = engine == "sqlite"
    made = Checkout(
        folder, engine, folder / "game.db" if is_file else request.getfixturevalue("postgresql_url")
    )
    made.add("001_a")
    return made


@pytest.fixture
def files(tmp_path: Path) -> Checkout:
    """A checkout with one migration, and no database yet."""
    made = Checkout(tmp_path / "checkout", "sqlite", tmp_path / "checkout" / "game.db")
    made.add("001_a")
    return made


def test_two_branches_are_merged_refused_mended_and_applied(
    checkout: Checkout, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both add the next migration; git merges them without a word."""
    checkout.git("init", "--initial-branch=main")
    checkout.git("add", "sql_migrations")
    checkout.git("commit", "-m", "the first")
    for name in ("b", "c"):
        checkout.git("checkout", "-b", name, "main")
        checkout.add(f"002_{name}", "001_a")
        checkout.git("add", "sql_migrations")
        checkout.git("commit", "-m", name)
    checkout.git("merge", "b", "-m", "both")
    monkeypatch.setattr(schema, "folders_for", lambda _location, _applied: [checkout.sql])
    monkeypatch.setattr(schema, "migrations_folder", lambda _name: checkout.sql)
    location = locate(str(checkout.database))
    sources = (f"sql_migrations/{checkout.sql.name}",)
    monkeypatch.chdir(checkout.folder)

    messages = [checkout.refuses("apply", sources=sources).strip()]
    for refuse in (lambda: get_pattern_storage(str(checkout.database)), lambda: rehearse(location)):
        with pytest.raises(MigrationOutOfOrder) as refusal:
            refuse()
        messages.append(str(refusal.value))
    calls = [shlex.split(message.split("`")[1]) for message in messages]
    assert [call[:3] for call in calls] == [["poker-therapist", "renumber", "002_c"]] * 3
    call = calls[0][1:]

    ran = command(*call, folder=checkout.folder)

    assert (ran.code, ran.lines) == (
        0,
        [
            f"sql_migrations/{engine}/002_c{half}.sql -> 003_c{half}.sql"
            for engine in ("sqlite", "postgresql")
            for half in ("", ".rollback")
        ],
    )
    for engine in ("sqlite", "postgresql"):
        assert checkout.names(engine) == ["001_a", "002_b", "003_c"]
        text = (checkout.root / engine / "003_c.sql").read_text()
        assert text == "-- 003_c: why.\n-- depends: 002_b\n\nCREATE TABLE t_c (id INTEGER);\n"
        assert (checkout.root / engine / "003_c.rollback.sql").read_text().startswith("-- 003_c goes.\n")
    assert rehearse(location).is_safe
    applied = checkout.yoyo("apply", sources=sources).stdout.splitlines()
    assert [line for line in applied if line.startswith("applied")] == [
        "applied 001_a",
        "applied 002_b",
        "applied 003_c",
    ]
    found = read_status(location)
    assert (found.is_trouble, found.pending, [one.note for one in found.migrations]) == (False, [], [""] * 3)
    for name in ("003_c", "002_b", "001_a"):
        assert checkout.yoyo("rollback", sources=sources).stdout.splitlines()[-1] == f"rolled back {name}"


def test_those_that_depend_on_it_follow_it(files: Checkout) -> None:
    """A branch of three, merged into one of two."""
    for name, depends in (("002_b", "001_a"), ("003_c", "002_b")):
        files.add(name, depends)
    for name, depends in (("002_x", "001_a"), ("003_y", "002_x"), ("004_z", "003_y 001_a")):
        files.add(name, depends)

    assert command("renumber", "002_x", folder=files.folder).code == 0
    assert (
        files.names() == files.names("postgresql") == ["001_a", "002_b", "003_c", "004_x", "005_y", "006_z"]
    )
    said = [
        line
        for name in files.names()
        for line in (files.sql / f"{name}.sql").read_text().splitlines()
        if "depends" in line
    ]
    assert said == [f"-- depends: {names}" for names in ("001_a", "002_b", "003_c", "004_x", "005_y 001_a")]


def test_the_next_one_stays_as_it_is(files: Checkout) -> None:
    files.add("002_b", "001_a")
    before = files.texts()

    ran = command("renumber", "002_b", folder=files.folder)
    assert (ran.code, ran.lines) == (0, ["002_b already has the next number"])
    assert files.texts() == before


def test_only_what_it_depends_on_changes_where_the_number_is_the_last_already(files: Checkout) -> None:
    files.add("002_b", "001_a")
    files.add("003_c", "001_a")

    ran = command("renumber", "003_c", folder=files.folder)
    assert ran.lines == [f"sql_migrations/{engine}/003_c.sql: changed" for engine in ("sqlite", "postgresql")]
    assert "-- depends: 002_b\n" in (files.sql / "003_c.sql").read_text()


def test_a_plain_list_gets_no_headers(tmp_path: Path) -> None:
    """A folder of the app's own, as yoyo's manual shows it, in the ini file's sources."""
    (tmp_path / "yoyo.ini").write_text("[DEFAULT]\nsources = %(here)s/moves\ndatabase = sqlite:///game.db\n")
    (tmp_path / "moves").mkdir()
    for name in ("1_a", "2_b", "10_c"):
        (tmp_path / "moves" / f"{name}.sql").write_text("SELECT 1;\n")

    assert command("renumber", "2_b", folder=tmp_path).lines == ["moves/2_b.sql -> 11_b.sql"]
    assert (tmp_path / "moves" / "11_b.sql").read_text() == "SELECT 1;\n"
    assert sorted(path.name for path in (tmp_path / "moves").iterdir()) == ["10_c.sql", "11_b.sql", "1_a.sql"]


HEADERS = {
    "none": ("CREATE TABLE c (id INT);\n", "-- depends: 002_b\nCREATE TABLE c (id INT);\n"),
    "a comment": ("-- Why.\nSELECT 1;", "-- Why.\n-- depends: 002_b\nSELECT 1;"),
    "a comment alone": ("-- Why.", "-- Why.\n-- depends: 002_b\n"),
    "other directives": (
        "-- transactional: false\n-- Depends: 001_a\n\nSELECT 1;",
        "-- transactional: false\n-- Depends: 002_b\n\nSELECT 1;",
    ),
    "two lines of it": (
        "-- depends: 001_a\n-- and\n--depends:001_a\nSELECT 1;",
        "-- depends: 002_b\n-- and\nSELECT 1;",
    ),
    "of Windows": (
        "-- Why.\r\n-- depends: 001_a\r\nSELECT 1;\r\n",
        "-- Why.\r\n-- depends: 002_b\r\nSELECT 1;\r\n",
    ),
    "of Windows, without it": ("-- Why.\r\nSELECT 1;\r\n", "-- Why.\r\n-- depends: 002_b\r\nSELECT 1;\r\n"),
    "a mark of an editor": ("\ufeff-- depends: 001_a\nSELECT 1;", "\ufeff-- depends: 002_b\nSELECT 1;"),
    "a mark and no header": ("\ufeffSELECT 1;", "\ufeff-- depends: 002_b\nSELECT 1;"),
    "its own name": (
        "-- 002_c, not 002_c2 or x002_c: (002_c).\n-- depends: 001_a\nSELECT '-- depends: 002_c';",
        "-- 003_c, not 002_c2 or x002_c: (003_c).\n-- depends: 002_b\nSELECT '-- depends: 002_c';",
    ),
}


@pytest.mark.parametrize("what", HEADERS)
def test_its_header_says_what_is_now_the_last(what: str, files: Checkout) -> None:
    """And nothing else of the file changes."""
    text, expected = HEADERS[what]
    files.add("002_b", "001_a")
    files.add("002_c")
    (files.sql / "002_c.sql").write_bytes(text.encode())

    assert command("renumber", "002_c", folder=files.folder).code == 0
    assert (files.sql / "003_c.sql").read_bytes().decode() == expected


def test_a_folder_of_an_extension_that_names_it_is_changed_too(files: Checkout) -> None:
    """Its own numbers are of another kind, and stay."""
    files.add("002_b", "001_a")
    files.add("002_c", "001_a")
    (files.root / "citus").mkdir()
    path = files.root / "citus" / "c001_d.sql"
    path.write_text("-- Not 002_c.\n-- depends: 002_c\nSELECT 1;\n")

    ran = command("renumber", "002_c", folder=files.folder)

    assert ran.lines[-1] == "sql_migrations/citus/c001_d.sql: changed"
    assert path.read_text() == "-- Not 002_c.\n-- depends: 003_c\nSELECT 1;\n"


def test_what_is_applied_in_the_database_is_refused(checkout: Checkout) -> None:
    sources = (f"sql_migrations/{checkout.sql.name}",)
    checkout.add("002_b", "001_a")
    checkout.add("003_c", "002_b")
    assert checkout.yoyo("apply", sources=sources).returncode == 0
    checkout.add("002_x", "001_a")
    before = checkout.texts()

    message = refused("renumber", "002_b", folder=checkout.folder)
    assert message.startswith("002_b, 003_c is applied in ")
    assert checkout.texts() == before
    assert command("renumber", "002_x", folder=checkout.folder).code == 0
    assert checkout.names()[-1] == "004_x"


def test_what_is_released_is_refused(files: Checkout) -> None:
    files.add("002_b", "001_a")
    files.add("002_c", "001_a")
    (files.root / "released.sha256").write_text("ab12  sqlite/001_a.sql\nab12  sqlite/002_b.rollback.sql\n")
    before = files.texts()

    assert refused("renumber", "002_b", folder=files.folder).startswith("002_b is released")
    assert files.texts() == before
    assert command("renumber", "002_c", folder=files.folder).code == 0


def test_a_database_that_cannot_be_read_is_said_and_hinders_nothing(files: Checkout) -> None:
    files.add("002_b", "001_a")
    files.add("002_c", "001_a")
    Path(files.database).write_bytes(b"no database" * 500)

    ran = command("renumber", "002_c", folder=files.folder)

    assert (ran.code, files.names()[-1]) == (0, "003_c")
    assert ran.error.startswith("cannot check whether it is applied: ")


@pytest.mark.parametrize("name", ["002_d", "002", "../x", "", "001_a.sql"])
def test_one_that_is_not_there_is_refused(name: str, files: Checkout) -> None:
    assert refused("renumber", name, folder=files.folder).startswith(
        f"there is no {name}.sql in sql_migrations"
    )


def test_one_without_a_number_is_refused(files: Checkout) -> None:
    files.add("add_hands")

    assert "is not numbered like the others" in refused("renumber", "add_hands", folder=files.folder)


def test_nothing_is_overwritten_and_all_or_nothing_is_done(files: Checkout) -> None:
    """The last of four files cannot be written: a folder has its name."""
    files.add("002_b", "001_a")
    files.add("002_c", "001_a")
    obstacle = files.root / "postgresql" / "003_c.rollback.sql"
    obstacle.mkdir()
    before = files.texts()

    message = refused("renumber", "002_c", folder=files.folder)
    assert message == "sql_migrations/postgresql/003_c.rollback.sql already exists: rename or delete it"
    assert files.texts() == before


def test_a_write_that_fails_leaves_all_files_as_they_were(files: Checkout) -> None:
    """The third of four has too long a name to be put aside."""
    files.add("002_b", "001_a")
    long = f"002_{'c' * 231}"
    files.add(long, "001_a")
    (files.root / "postgresql" / f"{long}.rollback.sql").unlink()
    before = files.texts()

    message = refused("renumber", long, folder=files.folder)

    assert (
        message
        == f"cannot write sql_migrations/sqlite/{long}.rollback.sql (File name too long): correct the path"
    )
    assert files.texts() == before


def test_two_at_once_leave_sound_files(tmp_path: Path) -> None:
    """The second waits, and reads what the first has written."""
    checkout = Checkout(tmp_path, "sqlite", tmp_path / "game.db")
    checkout.add("001_a")
    for name in ("002_b", "002_c", "002_d"):
        checkout.add(name, "001_a")
    folders = [checkout.root / engine for engine in ("sqlite", "postgresql")]
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda name: renumber(name, folders, lambda _: None), ("002_c", "002_d")))

    assert [name[:3] for name in checkout.names()] == ["001", "002", "003", "004"]
    assert command("check", folder=tmp_path).code == 0
