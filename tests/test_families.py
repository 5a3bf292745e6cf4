"""The table of families in docs/models.md is what docs/families.py makes of the models now."""

import re
import sys
from pathlib import Path

import pytest

pytest.importorskip("open_clip")
pytest.importorskip("timm")

ROOT = Path(__file__).resolve().parents[1]
sys.path.append(str(ROOT / "docs"))

import families  # noqa: E402


def test_the_table_of_the_page_is_as_measured():
    """Every column as it is; the differences, which are of rounding, as large as rounding may be."""
    page = families.PAGE.read_text()
    shown = page.partition(families.START)[2].partition(families.END)[0].strip().splitlines()
    assert shown[:2] == list(families.HEADER)
    made = [families.row(name, model) for name, model in families.models().items()]
    assert len(shown) == 2 + len(made) >= 28
    for line, (start, difference) in zip(shown[2:], made, strict=True):
        assert line.startswith(start)
        last = re.search(r"\| ([^|]+) \|$", line).group(1)
        assert float(last) < 2e-6 and difference < 2e-6


def test_the_readme_tells_how_many_families_there_are():
    said = re.search(r"has the (\d+) families that are tested", (ROOT / "README.md").read_text()).group(1)
    assert int(said) == len(families.models())


def test_a_family_without_a_tower_that_is_read_says_so():
    assert families.HEADER[0].count("|") == families.HEADER[1].count("|")
    row, difference = families.row("x", black_box())
    assert (
        difference is None and row == "| x | a model of which only the forward is known | 2 | directions are targets |"
    )


def black_box():
    import torch
    from torch import nn

    import clip_explain as cx
    from open_clip_models import PREPROCESS

    class Mean(nn.Module):
        def __init__(self):
            super().__init__()
            self.projection = nn.Linear(3, 8)

        def encode_image(self, pixels: torch.Tensor) -> torch.Tensor:
            return self.projection(pixels.mean(dim=(-2, -1)))

    return cx.load(Mean(), preprocess=PREPROCESS)
