"""`python -m poker_therapist.cli`, where the command is not on PATH."""

from poker_therapist.cli import main

main()
