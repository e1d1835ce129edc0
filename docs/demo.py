"""A short coaching session on the checkout's RexVoice.db; `make demo` runs it after `yoyo apply`."""

import json
import shlex
import sys
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.tree import Tree

from poker_therapist import PatternStorage, PokerTherapistError, get_pattern_storage

# The file that yoyo.ini names. The app's players have positive ids, so this one is never a real one.
DATABASE = Path(__file__).parents[1] / "RexVoice.db"
PLAYER, SESSION = -52, "demo"

NEXT = (
    ("poker-therapist", "status"),
    ("poker-therapist", "export", "--", str(PLAYER)),
    ("poker-therapist", "plan", "--rollback"),
)


def main() -> None:
    """Save what Rex notices of a player, and show what he remembers when they meet again."""
    try:
        with get_pattern_storage(DATABASE, migrate=False) as storage:
            storage.forget_user(PLAYER)  # so that a second demo shows the same
            print(f"\nRex and a made-up player, number {PLAYER}, in {storage.db_path}\n")
            _play(storage)
            _meet_again(storage)
    except PokerTherapistError as error:
        sys.exit(str(error))
    print("\nTry next:")
    for command in NEXT:
        print(f"  {_program(command[0])} {' '.join(command[1:])}")


def _program(name: str) -> str:
    """Return how to call a program of this environment from the working folder."""
    path = Path(sys.executable).with_name(name)
    return shlex.quote(str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path))


def _play(storage: PatternStorage) -> None:
    """Save patterns, context and an insight: all of it or none of it."""
    with storage.transaction():
        storage.save_pattern(PLAYER, "tilt", "after_bad_beat", {"bets_up": 1.8}, confidence=0.6)
        storage.save_pattern(PLAYER, "tilt", "after_bad_beat", {"bets_up": 2.1}, confidence=0.8)
        storage.save_pattern(PLAYER, "bet_sizing", "river", ["half pot", "all in"], confidence=0.7)
        storage.save_context(PLAYER, "mood", "tired, wants to win it back", SESSION, expires_minutes=60)
        storage.save_context(PLAYER, "promise", "stops at midnight", SESSION)
        storage.save_context(PLAYER, "joke", "the one about the river", SESSION, expires_minutes=-1)
        storage.save_insight(PLAYER, "advice", "Take ten minutes off after a lost big pot.", importance=0.9)
    print("Saved in one transaction: three patterns (one replaces another), three things said (one of")
    print("which has expired already) and one insight. Recalled in one call:\n")


def _meet_again(storage: PatternStorage) -> None:
    """Draw what the storage recalls for a prompt."""
    recalled = storage.recall(PLAYER, SESSION)
    tree = Tree("[bold]What Rex remembers[/]")
    patterns = tree.add("[green]patterns[/]: what he believes, and how sure he is")
    for kind, found in recalled["patterns"].items():
        for key, pattern in found.items():
            patterns.add(
                f"{kind} / {key}: {escape(json.dumps(pattern['value']))}  {pattern['confidence']:.0%}"
            )
    context = tree.add("[green]context[/]: what was said, newest first")
    for said in recalled["context"]:
        until = f"until {said['expires_at'][11:16]} UTC" if said["expires_at"] else "for good"
        context.add(f"{said['key']}: {escape(str(said['value']))}  {until}")
    insights = tree.add("[green]insights[/]: what he concluded, the most important first")
    for insight in recalled["insights"]:
        insights.add(
            f"{insight['type']}: {escape(str(insight['value']))}  importance {insight['importance']}"
        )
    Console(highlight=False).print(tree)


if __name__ == "__main__":
    main()
