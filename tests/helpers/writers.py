"""Processes that write until they are killed, and acknowledge what they have written."""

import os
import signal
import traceback

from poker_therapist import PatternStorage, get_pattern_storage
from tests.helpers.faults import fork


def write_until_killed(database: str, writer: int, pipe: int) -> None:
    """Save as a player of one's own, in three ways, and acknowledge each commit."""
    with get_pattern_storage(database) as storage:
        step = 0
        while True:
            match step % 3:
                case 0:
                    storage.save_pattern(writer, "step", str(step), step)
                case 1:
                    with storage.transaction():
                        storage.save_pattern(writer, "step", str(step), step)
                        storage.save_context(writer, "step", step)
                        storage.save_insight(writer, "step", step)
                case 2:
                    with storage.transaction():
                        count = storage.get_pattern(0, "count", "all", 0)
                        storage.save_pattern(0, "count", "all", count + 1)
                        storage.save_pattern(writer, "step", str(step), count)
            os.write(pipe, b".")
            step += 1


class Writer:
    """A process that writes as a player of its own and acknowledges each commit with a byte."""

    def __init__(self, database: str, player: int) -> None:
        self.player = player
        self.acknowledged = 0
        self.pipe, its = os.pipe()
        self.process = fork()
        if not self.process:
            try:
                os.close(self.pipe)
                write_until_killed(database, player, its)
            except BaseException:
                traceback.print_exc()
            os._exit(1)
        os.close(its)

    def read_acknowledgements(self) -> int:
        """Wait for commits that it acknowledges; return how many it did at once."""
        heard = len(os.read(self.pipe, 65_536))
        self.acknowledged += heard
        return heard

    def wait_for(self, count: int) -> None:
        """Return when so many more commits are acknowledged."""
        while count > 0:
            heard = self.read_acknowledgements()
            assert heard, "the writer ended by itself"
            count -= heard

    def kill(self) -> None:
        """Kill it, wherever it is."""
        os.kill(self.process, signal.SIGKILL)

    def reap(self) -> int:
        """Hear what it had still acknowledged before it was killed; return how much that is in all."""
        code = os.waitstatus_to_exitcode(os.waitpid(self.process, 0)[1])
        while self.read_acknowledgements():
            pass
        os.close(self.pipe)
        assert code == -signal.SIGKILL, f"a writer ended by itself, with {code}"
        return self.acknowledged


def check(storage: PatternStorage, dead: dict[int, int]) -> int:
    """Check what is left of writers, each with what it acknowledged; return how many commits are there."""
    counted, written = [], 0
    for player, acknowledged in dead.items():
        saved = storage.get_patterns_by_type(player, "step")
        # All that was acknowledged, and at most the one whose acknowledgement the kill came before.
        assert sorted(map(int, saved)) == list(range(len(saved)))
        assert acknowledged <= len(saved) <= acknowledged + 1
        together = [step for step in range(len(saved)) if step % 3 == 1]
        assert sorted(storage.get_context(player, "step")) == together
        assert sorted(one["data"] for one in storage.get_insights(player, limit=None)) == together
        counted += [row["value"] for key, row in saved.items() if int(key) % 3 == 2]
        written += len(saved)
    # Nobody has read a count before another wrote it.
    assert sorted(counted) == list(range(len(counted)))
    assert storage.get_pattern(0, "count", "all", 0) == len(counted)
    return written
