"""The command `clip-explain` and its subcommands.

The library is imported only when there is something to do, so that --help is quick.
"""

import sys
from collections.abc import Callable, Sequence

from clip_explain.errors import ClipExplainError


def explain(argv: Sequence[str]) -> None:
    from clip_explain.cli import explain

    explain.main(argv)


def sweep(argv: Sequence[str]) -> None:
    from clip_explain.cli import sweep

    sweep.main(argv)


def data(argv: Sequence[str]) -> None:
    from clip_explain.cli import data

    data.main(argv)


def train(argv: Sequence[str]) -> None:
    from clip_explain.cli import train

    train.main(argv)


def card(argv: Sequence[str]) -> None:
    from clip_explain.cli import card

    card.main(argv)


COMMANDS: dict[str, Callable[[Sequence[str]], None]] = {
    "explain": explain,
    "sweep": sweep,
    "data": data,
    "train": train,
    "card": card,
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command, `explain` where none is named; 0, or 2 after an error said in one line on stderr."""
    argv = list(sys.argv[1:] if argv is None else argv)
    name = argv[0] if argv and argv[0] in COMMANDS else None
    try:
        COMMANDS[name or "explain"](argv[1:] if name else argv)
    except ClipExplainError as error:
        print(f"clip-explain: {error}", file=sys.stderr)
        return 2
    return 0
