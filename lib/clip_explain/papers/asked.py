"""What a model is asked about many records: maps, scores, and how well the maps lie on the records' masks.

Above the explainers and datasets/, below the notebooks. Targets are texts, or pictures of what a text names.
"""

import math
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor
from tqdm.auto import tqdm

from clip_explain.datasets import Record
from clip_explain.directions import targets
from clip_explain.errors import DatasetError
from clip_explain.explainers import METHODS
from clip_explain.images import colours, encode_image, pixels, preprocess
from clip_explain.metrics import registry
from clip_explain.metrics.pointing import energy_in, image_grid, own_and_others
from clip_explain.models.iclip import features, recognition
from clip_explain.models.model import Model
from clip_explain.papers.contenders import Contender
from clip_explain.papers.tables import measured
from clip_explain.request import Request, make_request
from clip_explain.sweep.measures import image_seed, maps_for_texts, visible, visible_masks
from clip_explain.texts import Templates

Rows = list[dict[str, Any]]
Directions = Mapping[str, Float[Tensor, "_"]]  # by text

# -- targets


def towards(model: Model, texts: Iterable[str], pictures: Mapping[str, Image.Image]) -> dict[str, Directions]:
    """EP's two kinds of target, by text: the direction of the text itself, and of a picture of what it names."""
    named = {text: targets(model, text)[0] for text in texts}
    return {"texts": named, "images": {text: targets(model, picture)[0] for text, picture in pictures.items()}}


def asked_of(records: Sequence[Record], known: Mapping[str, Directions]) -> dict[str, list[Record]]:
    """For each kind of target the records with the texts that have one; records and kinds without any are left out."""
    found = {}
    for kind, directions in known.items():
        some = [record.about(directions) for record in records]
        found[kind] = [record for record in some if record.texts]
    return {kind: some for kind, some in found.items() if some}


# -- maps and scores


def maps_towards(
    model: Model,
    methods: Sequence[str],
    records: Sequence[Record],
    directions: Directions,
    fit: str,
    asked: Sequence[Sequence[str]] | None = None,
) -> dict[str, list[Float[Tensor, "_ _ _"]]]:
    """For each method one stack of maps a record: of its own texts, or of those that are `asked` of it.

    The methods share a record's forwards.
    """
    asked = [record.texts for record in records] if asked is None else asked
    found: dict[str, list[Tensor]] = {method: [] for method in methods}
    for record, texts in zip(tqdm(records, desc=f"maps of {model.name}"), asked, strict=True):
        request = make_request(model, record.image, torch.stack([directions[text] for text in texts]), fit)
        for method in methods:
            found[method].append(METHODS[method].image(request)[0].cpu())
    return found


def maps_of_records(
    model: Model,
    methods: Sequence[str],
    records: Sequence[Record],
    names: Sequence[str],
    prompt: Templates,
    fit: str,
    asked: Sequence[Sequence[str]] | None = None,
) -> dict[str, list[Float[Tensor, "_ _ _"]]]:
    """`maps_towards` the texts `names`, all that occur, which are embedded together in the `prompt`."""
    directions = dict(zip(names, targets(model, list(names), prompt), strict=True))
    return maps_towards(model, methods, records, directions, fit, asked)


def absent_texts(records: Sequence[Record], names: Sequence[str], seed: int) -> list[list[str]]:
    """For each record as many texts as it has, of classes that it does not show, each drawn at random.

    DatasetError for a record that shows all of the classes `names`.
    """
    rng, found = np.random.default_rng(seed), []
    for record in records:
        absent = [number for number in range(len(names)) if number not in record.labels]
        if not absent:
            raise DatasetError(f"{record.id} shows all of the {len(names)} classes, expected one that it lacks")
        found.append([names[number] for number in rng.choice(absent, len(record.texts))])
    return found


def maps_of_own_and_strange(
    model: Model,
    methods: Sequence[str],
    records: Sequence[Record],
    strange: Sequence[Sequence[str]],
    names: Sequence[str],
    prompt: Templates,
    fit: str,
) -> tuple[dict[str, list[Float[Tensor, "_ _ _"]]], dict[str, list[Float[Tensor, "_ _ _"]]]]:
    """`maps_of_records` of the records' own texts, and of as many `strange` ones, made together."""
    asked = [[*record.texts, *others] for record, others in zip(records, strange, strict=True)]
    maps = maps_of_records(model, methods, records, names, prompt, fit, asked)
    own, another = {}, {}
    for method, stacks in maps.items():
        own[method] = [stack[: len(record.texts)] for stack, record in zip(stacks, records, strict=True)]
        another[method] = [stack[len(record.texts) :] for stack, record in zip(stacks, records, strict=True)]
    return own, another


def maps_of_images(
    model: Model,
    methods: Sequence[str],
    images: Sequence[Image.Image],
    directions: Float[Tensor, "targets embedding"],
    fit: str,
    batch_size: int = 32,
) -> dict[str, Float[Tensor, "images targets grid_h grid_w"]]:
    """For each method the maps of all images, each towards all targets. The images have one size under `fit`."""
    found: dict[str, list[Tensor]] = {method: [] for method in methods}
    for start in tqdm(range(0, len(images), batch_size), desc=f"maps of {model.name}"):
        request = make_request(model, list(images[start : start + batch_size]), directions, fit)
        for method in methods:
            found[method].append(METHODS[method].image(request).cpu())
    return {method: torch.cat(parts) for method, parts in found.items()}


def timed_maps(
    request: Request, texts: Sequence[str], methods: Mapping[str, Contender], image: str, seed: int
) -> tuple[dict[str, Float[Tensor, "targets grid_h grid_w"]], dict[str, float]]:
    """The maps of the request's first image by many methods, and the processor's seconds that each took.

    `methods`: by the name of a row the method, also one of pairs (`maps_for_texts`), with its options. Each starts
    from a copy of the request for which nothing is kept. What a row draws depends on `image`, its name and the seed.
    The seconds of "encode_image", the model's own forward, stand beside theirs.
    """
    start = time.process_time()
    encode_image(request.model, request.pixels)
    found, seconds = {}, {"encode_image": time.process_time() - start}
    for name, each in methods.items():
        fresh, start = replace(request), time.process_time()
        lot = image_seed(seed, image, name)
        found[name] = maps_for_texts(fresh, texts, each.method, each.options, lot)[0].cpu()
        seconds[name] = time.process_time() - start
    return found, seconds


def scores_of_records(
    model: Model, records: Sequence[Record], names: Sequence[str], prompt: Templates, fit: str
) -> Float[Tensor, "images classes"]:
    """The model's cosine of each record and each class; an ICLIP's by its first projections (IC 3.3)."""
    scorer = recognition(model)
    directions = targets(scorer, list(names), prompt)
    scores = [encode_image(scorer, pixels(scorer, record.image, fit)) @ directions.T for record in records]
    return torch.cat(scores).cpu()


def patch_features(
    model: Model, image: Image.Image
) -> tuple[dict[str, Float[Tensor, "1 tokens _"]], Float[Tensor, "1 patches"], tuple[int, int]]:
    """An image's tokens in two spaces, ICLIP's mask (IC eq. 9), and the grid of patches; squashed to the square.

    "embedding" is after the model's projection, "features" before it. Of an ICLIP the encoder is the frozen one, and
    the projection that of the branch.
    """
    encoder = getattr(model.network, "encoder", model)
    tokens, mask = features(encoder, preprocess(encoder, image, "squash"))
    spaces = {"embedding": tokens @ model.network.visual.proj.float(), "features": tokens}
    side = math.isqrt(mask.shape[1])
    return spaces, mask, (side, side)


# -- grids of pictures


def grids_of_four(
    model: Model, pictures: Iterable[Record], count: int
) -> list[tuple[Record, Float[Tensor, "1 3 height width"]]]:
    """Four pictures of different texts side by side in one image of the model's size, `count` times (grid pointing).

    Each comes as a record, whose text is that of one of the four, by turns, and its facts {"cell": its number}; and as
    the model's pixels. DatasetError if there are too few pictures.
    """
    source, found = iter(pictures), []
    for number in range(count):
        four: dict[str, Record] = {}
        while len(four) < 4:
            record = next(source, None)
            if record is None:
                raise DatasetError(f"the pictures are enough for {number} grids of four texts, expected {count}")
            four.setdefault(record.texts[0], record)
        cells = torch.cat([preprocess(model, record.image, "squash") for record in four.values()])
        pixels = image_grid(cells, 2, (cells.shape[-2], cells.shape[-1]))[None]
        shown = Image.fromarray(colours(model, pixels)[0].mul(255).round().byte().cpu().numpy())
        cell = number % 4
        found.append((Record(f"grid {number}", shown, (list(four)[cell],), facts={"cell": cell}), pixels))
    return found


# -- maps against masks


def localized(
    records: Sequence[Record],
    method: str,
    maps: Sequence[Float[Tensor, "_ _ _"]],
    metrics: Sequence[str],
    setting: str = "",
    fit: str = "full",
) -> Rows:
    """Rows of metrics of the registry for a method's maps, made under `fit`: a stack a record, a map for each text."""
    rows = []
    for record, heat in zip(records, maps, strict=True):
        masks = visible_masks(record, fit)
        ignore = None if record.ignore is None else visible(record.ignore, record, fit)
        found = {metric: registry.METRICS[metric](heat, masks, ignore) for metric in metrics}
        rows += measured(record.id, method, found, setting)
    return rows


def own_less_others(
    records: Sequence[Record], method: str, maps: Sequence[Float[Tensor, "_ _ _"]], setting: str = ""
) -> Rows:
    """Rows of "energy, own less others": the share of a map's positive values on its own object, less that on others'.

    The others are those that the record's other texts name; a record of one text has no row. Maps as in `localized`,
    made of the whole image.
    """
    rows = []
    for record, heat in zip(records, maps, strict=True):
        if len(record.texts) > 1:
            own, others = own_and_others(energy_in(heat, record.masks))
            rows += measured(record.id, method, {"energy, own less others": own - others}, setting)
    return rows
