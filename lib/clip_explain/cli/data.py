"""The command `clip-explain data`: which datasets are here, where they are looked for, and how to get the others.

Beside __main__.py, which calls it; above datasets/, which is imported only when there is something to print.
"""

import argparse
from collections.abc import Sequence


def main(argv: Sequence[str]) -> None:
    """Of each dataset print what it is, whether it is here, size, licence, where it is looked for, where it is from."""
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
