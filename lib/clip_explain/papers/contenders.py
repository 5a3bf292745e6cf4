"""The methods of the field's shared table (notebook 24): each row's method and options, its family, and its colour.

Below asked.py, which asks them all about an image.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from clip_explain import plots
from clip_explain.explainers.registry import title_of
from clip_explain.papers.tables import titled

FIRST_ORDER = (
    *("self_attention", "rollout", "grad_cam", "last_gradient", "game", "legrad", "grad_eclip", "attn_lrp"),
    *("maskclip", "reversed_itsm", "clip_surgery", "gem", "head_effects", "nib", "m2ib"),
)
CEILING = "exact mask"
COLOURS = {"interaction": plots.LINES[1], "perturbation": plots.LINES[2], "floor": "0.5", "ceiling": "0.5"}


@dataclass(frozen=True)
class Contender:
    """A method with its options, and its family: "first order", "interaction", "perturbation" or "floor"."""

    method: str
    options: Mapping[str, Any] = field(default_factory=dict)
    family: str = "first order"


def contenders(masked: int, steps: int) -> dict[str, Contender]:
    """The methods by the name of their row, each as its own paper has it and explaining one text at a time.

    Left out are a method of words alone (leave_one_out), one of ICLIP alone, variants of last_gradient (all_gradients,
    attention_grad_cam), and itsm, which is reversed_itsm with the other sign. Since a text is explained alone, CLIP
    Surgery takes away the empty text. `masked`: how many masked images RISE, Shapley values and FIxLIP may embed for a
    map; Shapley values' two ends, the whole and the empty image, are among them. `steps`: those on exCLIP's path.
    """
    found = {name: Contender(name) for name in FIRST_ORDER}
    found["clip_surgery"] = Contender("clip_surgery", {"redundant": ""})
    found["m2ib"] = Contender("m2ib", {"samples": 1})
    found["grad_eclip heads=native"] = Contender("grad_eclip", {"heads": "native"})
    found["fixlip"] = Contender("fixlip", {"images": masked}, "interaction")
    found["exclip"] = Contender("exclip", {"steps": steps}, "interaction")
    found["rise"] = Contender("rise", {"masks": masked}, "perturbation")
    found["shapley"] = Contender("shapley", {"samples": masked - 2}, "perturbation")
    return found | {name: Contender(name, family="floor") for name in ("random", "constant")}


def family_of(name: str, found: Mapping[str, Contender]) -> str:
    """A row's family; that of the exact mask is "ceiling"."""
    return "ceiling" if name == CEILING else found[name].family


def shared_table(
    means: pd.DataFrame,
    table: pd.DataFrame,
    found: Mapping[str, Contender],
    order: Sequence[str],
    columns: Sequence[str],
) -> pd.DataFrame:
    """The means of a summary by metric, a row a method in this order, with its "cost" and its "family" behind.

    "cost" is the median of the long table's "seconds" in units of the model's own "encode_image".
    """
    wide = plots.table(means).reindex(order)
    seconds = table[table["metric"] == "seconds"].groupby("method")["value"].median()
    wide["cost"] = (seconds / seconds["encode_image"]).map("{:.1f}".format).reindex(wide.index).fillna("-")
    wide["family"] = [family_of(name, found) for name in order]
    found_table: pd.DataFrame = wide[[*columns, "cost", "family"]]
    return found_table


def draw_families(
    means: pd.DataFrame,
    titles: Mapping[str, str],
    found: Mapping[str, Contender],
    order: Sequence[str],
    levels: Mapping[str, float] | None = None,
) -> np.ndarray:
    """A panel for each metric, whose methods' names have the colours of their families; the figure's axes.

    `titles`: the metrics and their panels' titles. `levels`: dashed lines.
    """
    shown = titled(means).assign(setting="")
    axes = plots.panels(shown, titles, [title_of(name) for name in order], levels, columns=len(titles))
    for label, name in zip(axes[0, 0].get_yticklabels(), order, strict=True):
        label.set_color(COLOURS.get(family_of(name, found), "black"))
    return axes
