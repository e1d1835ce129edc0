"""Whose migrations a command is about: `sources` of the ini file, --sources, or what this version ships."""

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from poker_therapist import schema
from tests.helpers.checkout import ROOT
from tests.helpers.cli import command, refused
from tests.helpers.engines import is_server
from tests.helpers.project import Project


def write_ini(folder: Path, sources: str, database: str) -> Path:
    file = folder / "yoyo.ini"
    file.write_text(f"[DEFAULT]\nsources = {sources}\ndatabase = {database.replace('%', '%%')}\n")
    return file


def ids(project: Project, *options: str) -> list[str]:
    ran = command("status", "--json", *options, folder=project.folder)
    return [one["id"] for one in ran.json["migrations"]]


def test_the_sources_of_the_ini_are_those_of_each_command(two_migrations: Project) -> None:
    """As those that yoyo lists: three were pending, and `status` said that all is well."""
    write_ini(two_migrations.folder, "%(here)s/sql", two_migrations.url_for(two_migrations.atomic, ""))
    folder = two_migrations.folder

    ran = command("status", folder=folder)
    assert (ran.code, [line.split("\t")[:2] for line in ran.lines[:2]]) == (
        3, [["001_add_hands", "pending"], ["002_add_bets", "pending"]],
    )  # fmt: skip
    assert command("apply", "--to", "001", folder=folder).code == 0
    rehearsed = command("rehearse", "--json", folder=folder).json["migrations"]
    assert [one["id"] for one in rehearsed] == ["002_add_bets"]
    assert command("apply", folder=folder).code == 0
    assert two_migrations.applied() == ["001_add_hands", "002_add_bets"]
    assert command("status", folder=folder).code == 0
    assert len(command("list", folder=folder).lines) == 2
    assert command("rollback", folder=folder).code == 0
    assert two_migrations.tables() == ["hands"]


def test_a_named_ini_a_glob_and_a_folder_with_blanks(two_migrations: Project) -> None:
    folder = two_migrations.folder
    names = ["001_add_hands", "002_add_bets"]
    file = write_ini(folder, "%(here)s/s?l", "game.db").rename(folder / "other.ini")
    assert ids(two_migrations, "--config", file.name) == names

    two_migrations.sql.rename(folder / "my sql")
    write_ini(folder, "%(here)s/my sql", "game.db")
    assert ids(two_migrations) == names
    assert ids(two_migrations, "--no-config", "--sources", "my sql") == names


def test_sources_given_count_more_and_may_be_several(two_migrations: Project) -> None:
    folder = two_migrations.folder
    (folder / "more").mkdir()
    for file in two_migrations.sql.glob("002*"):
        file.rename(folder / "more" / file.name)
    write_ini(folder, "nowhere", "game.db")

    given = ("--sources", "sql", "--sources", "more")
    assert ids(two_migrations, *given) == ["001_add_hands", "002_add_bets"]
    assert "there is no migration in nowhere" in refused("status", folder=folder)


def test_the_ini_says_where_migrations_are_for_another_database_too(two_migrations: Project) -> None:
    """As with yoyo, whose --database stands for the database alone."""
    write_ini(two_migrations.folder, "%(here)s/sql", "game.db")

    assert ids(two_migrations, "-d", "other.db") == ["001_add_hands", "002_add_bets"]
    assert "001_add_hands" not in ids(two_migrations, "-d", "other.db", "--no-config")


def test_shipped_sources_are_those_of_the_engine(database: str, tmp_path: Path) -> None:
    """In a checkout, whose ini names SQLite's folder, a server's database has those for PostgreSQL."""
    write_ini(tmp_path, str(schema.migrations_folder("sqlite")), "game.db")
    engine = "postgresql" if is_server(database) else "sqlite"

    assert command("apply", "-d", database, folder=tmp_path).code == 0
    found = command("list", "--json", "-d", database, folder=tmp_path).json["migrations"]
    assert {one["source"] for one in found} == {str(schema.migrations_folder(engine))}


def test_an_optional_folder_belongs_to_a_database_that_an_ini_gives_it(postgresql_url: str) -> None:
    """Pending for yoyo.citus.ini, unheard of otherwise."""
    call = ("list", "--json", "-d", postgresql_url)
    (citus,) = schema.shipped_ids("citus")
    listed = command(*call, "-c", "yoyo.citus.ini", folder=ROOT).json["migrations"]
    assert {one["id"]: one["status"] for one in listed}[citus] == "U"
    assert citus not in {one["id"] for one in command(*call, folder=ROOT).json["migrations"]}


@pytest.mark.parametrize("way", ["poker-therapist", "yoyo"])
def test_the_folder_of_another_engine_is_refused(way: str, project: Project) -> None:
    """With the right call, before anything is changed."""
    wrong, right = ("sqlite", "postgresql")[:: 1 if is_server(str(project.database)) else -1]
    for name in (wrong, right):
        (project.folder / name).mkdir()
        (project.folder / name / "001_add_hands.sql").write_text("CREATE TABLE hands (id INTEGER);")
        (project.folder / name / "001_add_hands.rollback.sql").write_text("DROP TABLE hands;")

    if way == "yoyo":
        message = project.refuses("apply", sources=(wrong,))
    else:
        message = refused("apply", "-d", str(project.database), "--sources", wrong, folder=project.folder)
    assert message.startswith(f"the migrations in {wrong} are for another database engine than ")
    assert f"--sources {project.folder / right}`" in message
    assert project.is_untouched()


@pytest.mark.parametrize("name", ["a#b", "a?b", "a%b", "a b", "100%(here)s", "a%20b", "a&b=c"])
def test_the_database_of_an_ini_is_in_its_folder_whatever_that_is_called(name: str, tmp_path: Path) -> None:
    """yoyo itself cannot read its ini below a folder with a % in its name."""
    project = Project(tmp_path / name)
    project.write_two()
    write_ini(project.folder, "%(here)s/sql", "X").write_text(
        "[DEFAULT]\nsources = %(here)s/sql\ndatabase = sqlite+atomic:///%(here)s/game.db\n"
    )

    assert command("apply", folder=project.folder).code == 0
    assert project.database.is_file()
    assert [path.name for path in tmp_path.iterdir()] == [name]
    if "%" not in name:
        project.database.unlink()
        ran = project.bare_yoyo("apply", "--batch")
        assert (ran.returncode, ran.stderr) == (0, "")
        assert project.database.is_file()
        assert [path.name for path in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize("name", ["a#b/x.db", "a?b/x.db"])
def test_yoyo_cuts_no_url_short(name: str, two_migrations: Project) -> None:
    """It would make, and use, a database `a`."""
    if is_server(str(two_migrations.database)):
        pytest.skip("SQLite's URL alone is a path")
    ran = two_migrations.bare_yoyo("apply", "--no-config-file", "-b", "-d", f"sqlite+atomic:///{name}", "sql")

    assert ran.returncode == 1
    assert ran.stderr.startswith("yoyo: ")
    assert "Traceback" not in ran.stderr
    assert not (two_migrations.folder / "a").exists()


_BY_ITSELF = """
import sys
from yoyo.scripts.main import main
try:
    main()
except BaseException as error:
    print(type(error).__name__, any(name.startswith("poker_therapist") for name in sys.modules))
"""


@pytest.mark.parametrize(
    ("database", "error"),
    [
        ("/plain/path.db", "BadConnectionURI"),
        ("postgresql://127.0.0.1:9/x", "ModuleNotFoundError"),
        (None, "InterpolationSyntaxError"),
    ],
)
def test_what_yoyo_refuses_by_itself_is_taken_by_our_command(
    database: str | None, error: str, two_migrations: Project
) -> None:
    """It loads nothing of ours before: a path, another backend, an ini with a single %."""
    if error == "ModuleNotFoundError" and find_spec("psycopg2"):
        pytest.skip("yoyo's own backend can be loaded")
    folder = two_migrations.folder
    if database is None:
        (folder / "yoyo.ini").write_text(
            "[DEFAULT]\nsources = sql\ndatabase = postgresql://rex:hunter%2@x/y\n"
        )
    call = ["apply", "-b", "sql", *(("--no-config-file", "-d", database) if database else ())]
    done = subprocess.run(
        [sys.executable, "-c", _BY_ITSELF, *call], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.stdout == f"{error} False\n"

    options = ("-d", database, "--sources", "sql") if database else ()
    ran = command("apply", *options, folder=folder)
    message = ran.error.removeprefix("poker-therapist: ")
    assert (ran.code, "hunter" in ran.error) == (1, False)
    assert message.startswith(
        {
            "BadConnectionURI": "there is no folder /plain",
            "ModuleNotFoundError": "postgresql://127.0.0.1:9/x cannot be reached",
            "InterpolationSyntaxError": f"`database` in {folder}/yoyo.ini cannot be read: write %% for",
        }[error]
    )


def test_a_table_of_its_own_for_yoyo_is_refused_and_not_passed_by(two_migrations: Project) -> None:
    """With the table that is usual, all would be pending, and be applied again."""
    ini = write_ini(two_migrations.folder, "%(here)s/sql", "game.db")
    ini.write_text(f"{ini.read_text()}migration_table = _mine\n")

    for name in ("status", "list", "apply", "rollback"):
        assert "sets migration_table to _mine" in refused(name, folder=two_migrations.folder)
    assert not (two_migrations.folder / "game.db").exists()


def test_an_empty_variable_names_no_database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POKER_THERAPIST_DATABASE", "")

    ran = command("status", "--json", folder=tmp_path)
    assert ran.json["database"] == f"{tmp_path}/RexVoice.db"


def test_the_options_about_migrations_are_taken_by_every_command_about_them(two_migrations: Project) -> None:
    """`check` takes folders either way; what has no meaning for `log` is said; `copy` asks no ini file."""
    folder, given = two_migrations.folder, ("--sources", "sql")
    checked = command("check", *given, folder=folder)
    assert checked == command("check", "sql", folder=folder)
    assert "sql" in checked.out
    assert "correct --sources" in refused("check", "--sources", "nowhere", folder=folder)

    call = ("-d", "new.db")
    assert "apply --database" in (missing := command("log", *call, *given, folder=folder)).error
    assert f"--sources {folder}/sql" in missing.error
    command("apply", *call, *given, folder=folder)
    ran = command("log", *call, *given, folder=folder)
    assert (ran.code, len(ran.lines)) == (0, 2)
    assert "--sources is ignored" in ran.error
    assert "--no-config" in command("copy", "--help", folder=folder).out
