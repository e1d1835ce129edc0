"""The commands that export or delete players' data."""

import shutil
from pathlib import Path

import click

from poker_therapist.cli import screen
from poker_therapist.cli.options import Command, FilePath, Where, takes_database
from poker_therapist.engines import engine_for
from poker_therapist.errors import counted, escaped
from poker_therapist.location import Location, locate
from poker_therapist.migrations.engine import Holding
from poker_therapist.new_files import new_file, sync_folder
from poker_therapist.storage import PatternStorage, get_pattern_storage
from poker_therapist.tables import TABLES

# A player may have a number below 0.
_NEGATIVE_NUMBERS = {"ignore_unknown_options": True}


@click.command(
    context_settings=_NEGATIVE_NUMBERS, cls=Command, example="poker-therapist export 7 --output player.json"
)
@takes_database
@click.argument("user", type=int)
@click.option("--output", "-o", type=FilePath, metavar="FILE", help="A new file. Default: standard output.")
def export(where: Where, user: int, *, output: Path | None) -> None:
    """Export everything that is stored about a player, as JSON.

    USER is the player's id; write a negative id after --. The app's own tables, such as `users`, are not
    exported.
    """
    with _storage(where.name()) as storage, screen.progress(f"reading player {user}"):
        found = storage.export_user(user)
    if output is None:
        screen.print_json(found)
        return
    with new_file(output) as (_, descriptor), open(descriptor, "wb", closefd=False) as file:
        file.write(f"{screen.json_text(found, 'utf-8')}\n".encode())


@click.command(context_settings=_NEGATIVE_NUMBERS, cls=Command, example="poker-therapist forget 7 --yes")
@takes_database
@click.argument("users", type=int, nargs=-1, required=True, metavar="USER...")
@click.option("--yes", "-y", is_flag=True, help="Do not ask for confirmation.")
@click.option("--backups", is_flag=True, help="Also delete the backups that contain a player.")
def forget(where: Where, users: tuple[int, ...], *, yes: bool, backups: bool) -> None:
    """Delete everything that is stored about players.

    On SQLite the deleted bytes are also erased from the file. USER... are the players' ids; write negative
    ids after --. The app's own tables, such as `users`, are not changed.
    """
    name, each = where.name(changes=True), list(dict.fromkeys(users))
    location = locate(name)
    with _storage(name) as storage:
        if not yes:
            who = f"player{'s' * (len(each) > 1)} {', '.join(map(str, each))}"
            click.confirm(
                f"Permanently delete all data of {who} from {escaped(location.name)}?",
                abort=True,
            )
        with screen.progress("forgetting"):
            forgotten = storage.forget_users(each)
        for user, counts in forgotten.items():
            for table, count in counts.items():
                screen.say(f"{f'player {user}: ' if len(each) > 1 else ''}{table}: {count} deleted")
    for user in each:
        _report_backups(location, user, delete=backups)


def _report_backups(location: Location, user: int, *, delete: bool) -> None:
    """Name the backups that contain a player, or delete them."""
    for path, holding in engine_for(location).backups_holding(user, TABLES).items():
        if holding is Holding.UNKNOWN:
            screen.say(f"{path} cannot be read and may contain player {user}: check it, or delete it")
        elif holding is Holding.OF_OTHERS:
            screen.say(f"{path} still contains player {user}; another program made it: delete it yourself")
        elif delete:
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
            sync_folder(path.parent)
            screen.say(f"deleted {path}")
        elif holding is Holding.LEFT:
            screen.say(f"{path} is a leftover and may contain player {user}; --backups deletes it")
        else:
            screen.say(f"{path} still contains player {user}; --backups deletes such backups")


@click.command(cls=Command, example="poker-therapist purge --database RexVoice.db")
@takes_database
def purge(where: Where) -> None:
    """Delete the expired context of all players."""
    with (
        _storage(where.name(changes=True)) as storage,
        screen.progress("deleting expired rows") as progress,
    ):
        progress.say(f"{counted(storage.purge_expired(), 'expired row')} deleted")


def _storage(name: str) -> PatternStorage:
    """Open the database for a command of the storage, without migrating it: only `apply` does that."""
    return get_pattern_storage(name, migrate=False, on_connect=engine_for(locate(name)).limit)
