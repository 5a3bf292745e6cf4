"""Cases to draw: one text of one record each, and several methods' maps of them side by side.

Above plots/, which draws, and datasets/, whose records have the pictures and the masks.
"""

from collections.abc import Collection, Mapping, Sequence

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from clip_explain import plots
from clip_explain.datasets import Record
from clip_explain.explainers import explain
from clip_explain.maps import centred
from clip_explain.metrics.segmentation import levels_on
from clip_explain.models.model import Model

Maps = Sequence[Float[Tensor, "_ _ _"]]  # one stack a record, one map for each of its texts


def first_cases(records: Sequence[Record], images: int, texts: int = 1) -> list[tuple[int, int]]:
    """The numbers of the first records, each with the numbers of its first texts."""
    found = []
    for number, record in enumerate(records[:images]):
        found += [(number, text) for text in range(min(texts, len(record.texts)))]
    return found


def misplaced_cases(records: Sequence[Record], maps: Maps, count: int) -> list[tuple[int, int]]:
    """The cases whose map is higher on another text's object than on its own by the most; one a record, worst first."""
    worst = []
    for number, (record, some) in enumerate(zip(records, maps, strict=True)):
        levels = levels_on(some, record.masks)
        others = levels - levels.diagonal()[:, None]
        others.fill_diagonal_(-torch.inf)
        excess, text = others.nan_to_num(nan=-torch.inf).amax(dim=1).max(dim=0)
        worst.append((float(excess), number, int(text)))
    worst.sort(reverse=True)
    return [(number, text) for _, number, text in worst[:count]]


def draw_cases(
    records: Sequence[Record],
    cases: Sequence[tuple[int | str, int]],
    maps: Mapping[str, Maps],
    titles: Mapping[str, str],
    less_mean: Collection[str] = (),
    first: Mapping[str, Image.Image] | None = None,
) -> np.ndarray:
    """A `plots.comparison` of cases (the record's number or id, the number of its text), outlined by their masks.

    `titles`: the methods that are drawn, in order, and the titles of their columns; `maps` has their maps. Those in
    `less_mean` are drawn less their means, with a sign, as a map of cosines is read. `first`: by text the picture that
    stands in the first column in place of the record's own, as a target that is an image. Returns a new figure's axes.
    """
    places = {record.id: number for number, record in enumerate(records)}
    numbered = [(places[record] if isinstance(record, str) else record, text) for record, text in cases]
    asked = [(records[number], text) for number, text in numbered]
    drawn = [[maps[name][number][text] for name in titles] for number, text in numbered]
    for row in drawn:
        row[:] = [centred(heat) if name in less_mean else heat for name, heat in zip(titles, row, strict=True)]
    pictures, texts = [record.image for record, _ in asked], [record.texts[text] for record, text in asked]
    axes = plots.comparison(pictures, texts, drawn, list(titles.values()))
    if first:
        for ax, text in zip(axes[:, 0], texts, strict=True):
            ax.images[0].remove()
            plots.show(first[text], ax)
    masks = [None if record.masks is None else record.masks[text] for record, text in asked]
    plots.outline_rows(axes[:, int(first is not None) :], masks)
    return axes


def draw_scored(model: Model, records: Sequence[Record], columns: int, fit: str = "full") -> np.ndarray:
    """Each record's picture and Grad-ECLIP's maps of all of its texts, in reading order, `columns` to a row.

    Above each map stand its text and the model's cosine; it is outlined by its mask, if there is one. Returns a new
    figure's axes.
    """
    pictures, heats, titles, masks = [], [], [], []
    for record in records:
        maps, scored = _scored(model, record, record.texts, fit)
        pictures += [record.image] * len(maps)
        heats += maps
        titles += scored
        masks += [None, *([None] * len(record.texts) if record.masks is None else record.masks)]
    axes = plots.grid(pictures, heats, titles, columns, panel=plots.WIDTH / columns)
    plots.outline_rows(axes.reshape(-1, 1), masks, 0.7)
    return axes


def _scored(
    model: Model, record: Record, texts: Sequence[str], fit: str
) -> tuple[list[Float[Tensor, "_ _"] | None], list[str]]:
    """The panels of a record: its bare picture, and Grad-ECLIP's map of each text under the text and its cosine."""
    found = explain(model, record.image, list(texts), fit=fit)
    titles = [f"{text}\n{score:.3f}" for text, score in zip(texts, found.scores[0].tolist(), strict=True)]
    return [None, *found.maps[0].cpu()], ["", *titles]


def draw_asked(model: Model, asked: Sequence[tuple[Record, Sequence[str]]], fit: str = "full") -> np.ndarray:
    """A row a record: its picture, and Grad-ECLIP's maps of the texts that are asked of it, as many of each.

    Above each map stand its text and the model's cosine. The picture is outlined by the record's first mask, if there
    is one. Returns a new figure's axes.
    """
    pictures, heats, titles, masks, across = [], [], [], [], 1 + len(asked[0][1])
    for record, texts in asked:
        maps, scored = _scored(model, record, texts, fit)
        pictures += [record.image] * len(maps)
        heats += maps
        titles += scored
        masks.append(None if record.masks is None else record.masks[0])
    axes = plots.grid(pictures, heats, titles, across, panel=plots.WIDTH / across)
    plots.outline_rows(axes[:, :1], masks, 0.7)
    return axes


def random_maps(records: Sequence[Record], grid: tuple[int, int], seed: int) -> list[Float[Tensor, "_ _ _"]]:
    """Uniform noise on a grid, a map for each text of each record: what every method must beat."""
    noise = torch.Generator().manual_seed(seed)
    return [torch.rand(len(record.texts), *grid, generator=noise) for record in records]
