"""`python -m clip_explain`: the command clip-explain."""

import sys

from clip_explain.cli import main

if __name__ == "__main__":
    sys.exit(main())
