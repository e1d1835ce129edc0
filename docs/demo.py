"""A short coaching session on the checkout's RexVoice.db; `make demo` runs it after `yoyo apply`."""

import json
import sys
from pathlib import Path

from poker_therapist import PatternStorage, PokerTherapistError, get_pattern_storage

# The file that yoyo.ini names. The app's players have positive ids, so this one is never a real one.
DATABASE = Path(__file__).parents[1] / "RexVoice.db"
PLAYER, SESSION = -52, "demo"


def main() -> None:
    """Save what Rex notices of a player, and print what he remembers when they meet again."""
    try:
        with get_pattern_storage(DATABASE, migrate=False) as storage:
            storage.forget_user(PLAYER)  # so that a second demo tells the same
            print(f"\nRex and a made-up player, number {PLAYER}, in {storage.db_path}\n")
            _play(storage)
            _meet_again(storage)
    except PokerTherapistError as error:
        sys.exit(str(error))
    print("\nNext: README.md does the same from Python, sql_migrations/README.md looks after the database;")
    print("`yoyo rollback` takes its last migration back, and `yoyo apply` brings it in again.")


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
    """Print what the storage recalls for a prompt."""
    recalled = storage.recall(PLAYER, SESSION)
    for kind, patterns in recalled["patterns"].items():
        for key, pattern in patterns.items():
            value, sure = json.dumps(pattern["value"]), f"{pattern['confidence']:.0%} sure"
            print(f"  pattern  {kind}/{key}: {value}, {sure}")
    for said in recalled["context"]:
        until = f"until {said['expires_at'][11:16]} UTC" if said["expires_at"] else "for good"
        print(f"  context  {said['key']}: {said['value']}, {until}")
    for insight in recalled["insights"]:
        print(f"  insight  {insight['type']}: {insight['value']}, importance {insight['importance']}")


if __name__ == "__main__":
    main()
