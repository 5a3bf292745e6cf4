"""Deletion and insertion of words, as rows of the long table: their areas, and the heights of their curves.

Above metrics/word_faithfulness.py, which draws the curves, and curves.py.
"""

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor
from tqdm.auto import tqdm

from clip_explain.metrics.readouts import Readout
from clip_explain.metrics.word_faithfulness import MODES, perturbed_texts, recall_among_perturbed, word_curves
from clip_explain.papers.curves import Rows, areas, heights
from clip_explain.request import WordRequest

Weights = Mapping[str, Float[Tensor, "_ 1 _"]]  # of the words, by method


def word_areas(
    image: str,
    request: WordRequest,
    weights: Mapping[str, Float[Tensor, "1 1 tokens"]],
    readouts: Mapping[str, Readout],
    setting: str = "",
) -> Rows:
    """Rows of "word_deletion_ir", "word_insertion_tr" and so on of one text, by each method's weights of its tokens.

    `readouts` as `word_retrieval` makes them for one k: "IR@1" and "TR@1".
    """
    rows, together = [], torch.cat(list(weights.values()), dim=1)
    for mode in MODES:
        drawn = word_curves(request, together, readouts, mode)
        by_side = {name.partition("@")[0]: curve[0] for name, curve in drawn.items()}
        rows += areas(image, list(weights), by_side, f"word_{mode}", setting)
    return rows


def recall_curves(
    images: Sequence[str],
    requests: Sequence[WordRequest],
    weights: Sequence[Weights],
    pictures: Float[Tensor, "images embedding"],
    steps: int = 5,
    setting: str = "",
    seed: int = 0,
) -> tuple[Rows, Rows]:
    """Recall at 1 among perturbed texts (`recall_among_perturbed`) of each method: rows of areas, and of heights.

    For each image its name, its texts, the methods' weights of their tokens, and its embedding. An image's texts are
    averaged. Areas are called "word_deletion_ir" and so on, heights "deletion, IR", whose targets are the numbers of
    words. Image i's ties are drawn by `seed` + i.
    """
    texts = torch.tensor([len(request.tokens) for request in requests])
    image_of = torch.arange(len(requests)).repeat_interleave(texts).to(pictures.device)
    names, rows, points = list(weights[0]), [], []
    for mode in MODES:
        changed = []
        for number, request in enumerate(tqdm(requests, desc=f"{mode}, {setting}")):
            together = torch.cat(list(weights[number].values()), dim=1)
            changed.append(perturbed_texts(request, together, mode, steps=steps, seed=seed + number))
        recall = recall_among_perturbed(torch.cat(changed), pictures, image_of)
        for number, image in enumerate(images):
            of_image = {side: curve[image_of == number].mean(dim=0) for side, curve in recall.items()}
            rows += areas(image, names, of_image, f"word_{mode}", setting)
            for side, curve in of_image.items():
                points += heights(image, names, curve, f"{mode}, {side}", range(steps + 1), setting)
    return rows, points
