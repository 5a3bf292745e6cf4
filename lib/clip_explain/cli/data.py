"""The command `clip-explain data`: which datasets are here, where they are looked for, and how to get the others.

Above datasets/, which is imported only when there is something to print.
"""

import argparse
from collections.abc import Sequence


def main(argv: Sequence[str]) -> None:
    """Print each dataset's content, whether it is here, its size, its licence, its folder and its source."""
    parser = argparse.ArgumentParser("clip-explain data", description="Which datasets are here, and how to get others?")
    parser.add_argument("--root", help="the folder of all datasets (default: the variable CLIP_EXPLAIN_DATASETS)")
    root = parser.parse_args(argv).root
    from clip_explain import datasets

    for name, source in datasets.DATASETS.items():
        print(f"{name}: {datasets.state(name, root)}")
        print(f"  {source.holds}; {source.size}; {source.licence}")
        if source.folder:
            print(f"  looked for in {datasets.folder_of(name, root)} ({source.variable} names another place)")
            print(f"  from {source.get}")
