"""The command `clip-explain` and its subcommands.

The library is imported only when there is something to do, so that --help is quick.
"""

import functools
import io
import re
import sys
import warnings
from collections.abc import Callable, Sequence
from typing import Any

from clip_explain.errors import ClipExplainError, OutsideWorldWarning


def run_explain(argv: Sequence[str]) -> None:
    from clip_explain.cli import explain

    explain.main(argv)


def run_sweep(argv: Sequence[str]) -> None:
    from clip_explain.cli import sweep

    sweep.main(argv)


def run_data(argv: Sequence[str]) -> None:
    from clip_explain.cli import data

    data.main(argv)


def run_train(argv: Sequence[str]) -> None:
    from clip_explain.cli import train

    train.main(argv)


def run_card(argv: Sequence[str]) -> None:
    from clip_explain.cli import card

    card.main(argv)


def run_check(argv: Sequence[str]) -> None:
    from clip_explain.cli import check

    check.main(argv)


def run_notebook(argv: Sequence[str]) -> None:
    from clip_explain.cli import notebook

    notebook.main(argv)


COMMANDS: dict[str, Callable[[Sequence[str]], None]] = {
    "explain": run_explain,
    "sweep": run_sweep,
    "data": run_data,
    "train": run_train,
    "card": run_card,
    "check": run_check,
    "notebook": run_notebook,
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command, `explain` where none is named; 0, or 2 after an error said in one line on stderr."""
    argv = list(sys.argv[1:] if argv is None else argv)
    name = argv[0] if argv and argv[0] in COMMANDS else None
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # names of files may hold bytes that are not letters
    with warnings.catch_warnings():
        warnings.simplefilter("always", OutsideWorldWarning)
        warnings.showwarning = functools.partial(say, warnings.showwarning)
        try:
            COMMANDS[name or "explain"](argv[1:] if name else argv)
        except ClipExplainError as error:
            print(f"clip-explain: {in_one_line(str(error))}", file=sys.stderr)
            return 2
    return 0


def say(other: Callable[..., None], message: Warning | str, category: type[Warning], *place: Any) -> None:
    """A warning of ours in one line on stderr; another package's as Python shows it."""
    if issubclass(category, OutsideWorldWarning):
        print(f"clip-explain: warning: {message}", file=sys.stderr)
    else:
        other(message, category, *place)


def in_one_line(text: str) -> str:
    """A message without line breaks, and with the beginnings of words that are longer than any name should be."""
    return re.sub(r"(\S{80})\S{120,}", r"\1...", " ".join(text.split()))
