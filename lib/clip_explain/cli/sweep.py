"""`clip-explain sweep`: the command line of sweep/run.py.

The library is imported only when there is something to do.
"""

import argparse
import inspect
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from clip_explain.errors import MethodError
from clip_explain.explainers.method import Option, option_of
from clip_explain.explainers.registry import METHODS


def main(argv: Sequence[str]) -> None:
    """Run the sweep and print its summary."""
    arguments = vars(parse(argv))
    from clip_explain.sweep.run import sweep

    pairs, given = arguments.pop("option"), arguments.pop("templates")
    if given:
        arguments["templates"] = given if len(given) > 1 else given[0]
    with stopped_by_signals() as check:
        summary = sweep(**arguments, options=options_by_owner(pairs), tick=check)
    print(summary.to_string(index=False, float_format="{:.4f}".format))


@contextmanager
def stopped_by_signals() -> Iterator[Callable[[], None]]:
    """End cleanly on Ctrl-C or SIGTERM (which clusters send): exit code 128 + the signal, and no unfinished file.

    Yields a check to be called now and then: it ends too, where a library swallowed the first exit. (A bare `except`
    in numpy's `Generator.choice` does: without the check one signal in fifty was lost.)
    """
    received: list[int] = []

    def check() -> None:
        if received:
            sys.exit(128 + received[-1])

    def stop(number: int, frame: Any) -> None:
        received.append(number)
        check()

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield check
    except SystemExit:
        print("stopped; the same command goes on", file=sys.stderr)
        raise
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        "clip-explain sweep",
        description="Methods x metrics on a dataset, as a table. Stop it at any moment; the same command goes on.",
    )
    add = parser.add_argument
    add("--model", default="tiny-vit", help="a name of --list, a weights file, or open_clip:ARCH/TAG")
    add("--dataset", default="scenes", help="a name of `clip-explain data` (default: scenes)")
    add("--methods", type=names, required=True, help="comma-separated, of --list, or random, constant")
    add("--metrics", type=names, required=True, help="comma-separated; an unknown one lists all")
    add("--out", required=True, help="a folder of this run alone, or an fsspec URL (s3://...)")
    add("--images", type=int, help="how many images, the first of the dataset (default: all; 1000 of a rendered one)")
    add("--seed", type=int, default=0)
    add(
        "--option",
        action="append",
        default=[],
        metavar="OWNER.NAME=VALUE",
        help="of a method, metric or dataset, as rise.masks=500; may be repeated",
    )
    add("--fit", metavar="crop|full|squash", help="what of each image is looked at (default: full; of a ResNet crop)")
    add("--templates", action="append", help="imagenet, clip_surgery, or 'a photo of a {}.'; the last may be repeated")
    add("--shard-size", type=int, default=16, help="images in one unit of work (default: 16)")
    add("--device", help="cpu, cuda, ... (default: cuda where there is one)")
    add("--dtype", metavar="fp32|fp16|bf16", help="(default: fp16 on cuda, fp32 elsewhere)")
    add("--processes", type=int, default=1, help="local processes of one thread each")
    add("--scheduler", metavar="ADDRESS", help="of a Dask scheduler, as tcp://HOST:8786")
    return parser.parse_args(argv)


def names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def options_by_owner(pairs: Sequence[str]) -> dict[str, dict[str, Any]]:
    """The values of the --option arguments by method, metric or dataset.

    An unknown owner or option keeps its text: `sweep` refuses it and names the nearest ones.
    """
    found: dict[str, dict[str, Any]] = {}
    for pair in pairs:
        owner, dot, rest = pair.partition(".")
        name, equals, text = rest.partition("=")
        if not dot or not equals:
            raise MethodError(f"got --option {pair}, expected OWNER.NAME=VALUE, as rise.masks=500")
        known = known_options(owner)
        found.setdefault(owner, {})[name] = known[name].read(text) if name in known else text
    return found


def known_options(owner: str) -> dict[str, Option]:
    """The options of a method, by its record, or of a metric or a dataset's reader, by its signature."""
    from clip_explain.datasets import DATASETS
    from clip_explain.sweep.measures import METRICS

    if owner in METHODS:
        method = METHODS[owner]
        return {option.name: option for option in method.options or method.pair_options or ()}
    owners = {name: source.reader for name, source in DATASETS.items()} | METRICS
    parameters = inspect.signature(owners[owner]).parameters if owner in owners else {}
    return {name: option_of(name, parameter.annotation) for name, parameter in parameters.items()}
