"""Methods with options, called as in the long table ("grad_eclip spatial=none"), and the options of GE's released code.

Above sweep/measures.py, which makes the maps; notebooks measure what comes out.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import islice
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from clip_explain.datasets import Record, load
from clip_explain.datasets.sources import known
from clip_explain.errors import DatasetError, MethodError
from clip_explain.explainers.grad_eclip import grad_eclip_parts
from clip_explain.models.model import Model
from clip_explain.request import Request, WordRequest, longest
from clip_explain.sweep.measures import maps_of, visible_masks, weights_of

Options = Mapping[str, Mapping[str, Any]]

# The code released with Grad-ECLIP, where it differs from the papers of the methods: last block with one head, rollout
# and GAME of one layer. A method that is missing here is as in its paper.
RELEASED: dict[str, dict[str, Any]] = {
    "self_attention": {"heads": "single"},
    "rollout": {"layers": 1},
    "grad_cam": {"heads": "single", "pool": "tokens"},
    "game": {"layers": 1},
    "maskclip": {"key_weight": True},
    "clip_surgery": {"normalize": "tokens"},
    "m2ib": {"last_update": False},
    "grad_eclip": {"spatial": "released"},
    "grad_eclip spatial=cosine": {"relu": "layer"},
}
SIXTY = 60  # the texts that the released code gives to CLIP Surgery: the class and 59 others


def variant(name: str) -> tuple[str, dict[str, Any]]:
    """The method and the options that a name of the long table spells: "game layers=1" is ("game", {"layers": 1}).

    MethodError for a part that is not of the form key=value.
    """
    method, *parts = name.split()
    options = {}
    for part in parts:
        key, equals, value = part.partition("=")
        if not (key and equals and value):
            raise MethodError(f"{name!r}: got {part!r} after the method, expected options as key=value")
        options[key] = int(value) if value.isdecimal() else value
    return method, options


def maps_by_name(
    request: Request, names: Sequence[str], options: Options | None = None, seed: int = 0
) -> dict[str, Float[Tensor, "targets grid_h grid_w"]]:
    """The raw maps of the request's first image by each of several methods, which may spell options (`variant`).

    `options` has further ones under a method's name. What draws at random draws by `seed`.
    """
    found = {}
    for name in names:
        method, spelled = variant(name)
        found[name] = maps_of(request, method, {**spelled, **(options or {}).get(name, {})}, seed)[0]
    return found


def weights_by_name(
    request: WordRequest, names: Sequence[str], options: Options | None = None, seed: int = 0
) -> dict[str, Float[Tensor, "texts images tokens"]]:
    """The same for the words of texts: each method's raw weights of the tokens, to the end of the longest text."""
    found, end = {}, longest(request)
    for name in names:
        method, spelled = variant(name)
        found[name] = weights_of(request, method, {**spelled, **(options or {}).get(name, {})}, seed)[..., :end]
    return found


def random_weights(request: WordRequest, seed: int = 0) -> Float[Tensor, "texts 1 tokens"]:
    """Uniform noise for each token of each text, what a method's weights must beat."""
    drawn = torch.rand(len(request.tokens), 1, longest(request), generator=torch.Generator().manual_seed(seed))
    return drawn.to(request.targets)


def signed_by_name(request: Request, names: Sequence[str]) -> dict[str, Float[Tensor, "targets grid_h grid_w"]]:
    """Maps of the request's first image before their ReLU: of "grad_eclip" and "grad_eclip spatial=none" only."""
    parts = grad_eclip_parts(request)
    known = {"grad_eclip": parts.signed[0], "grad_eclip spatial=none": parts.unplaced[0]}
    if unknown := [name for name in names if name not in known]:
        raise MethodError(f"got {unknown[0]!r}, whose map before its ReLU is not kept; expected {', '.join(known)}")
    return {name: known[name] for name in names}


def surgery_among(
    request: Request, others: Sequence[Float[Tensor, "_ embedding"]]
) -> Float[Tensor, "targets grid_h grid_w"]:
    """CLIP Surgery as GE's code runs it: each target among the first 59 of its `others`, whose common part it loses.

    `others` has for each of the request's targets the directions of other texts.
    """
    found = []
    for target, rivals in zip(request.targets, others, strict=True):
        sixty = Request(request.model, request.pixels, torch.cat([target[None], rivals[: SIXTY - 1]]))
        found.append(maps_of(sixty, "clip_surgery", RELEASED["clip_surgery"])[0, 0])
    return torch.stack(found)


def maps_as_released(
    request: Request,
    named: Request,
    others: Sequence[Float[Tensor, "_ embedding"]],
    m2ib_samples: int = 10,
    seed: int = 0,
) -> dict[str, Float[Tensor, "targets grid_h grid_w"]]:
    """Maps for classes as GE's code for its Table 1 makes them: RELEASED, with another text for some methods.

    `request` has the mean of a class's prompts as target, `named` the bare class name, which GAME and M2IB explain;
    `others` are the texts beside each class for `surgery_among`. The traces of these maps are not kept.
    """
    request = replace(request)
    options = RELEASED | {"m2ib": RELEASED["m2ib"] | {"samples": m2ib_samples}}
    by_name = ("game", "m2ib")
    by_prompts = [name for name in RELEASED if name not in (*by_name, "clip_surgery")]
    found = maps_by_name(request, by_prompts, options, seed) | maps_by_name(named, by_name, options, seed)
    return found | {"clip_surgery": surgery_among(request, others)}


def object_share(record: Record, fit: str = "crop") -> float:
    """The share of what is seen of a record's image that its first object covers, 0 to 1; 1 for one without masks."""
    return 1.0 if record.masks is None else float(visible_masks(record, fit)[0].mean())


def with_large_objects(
    name: str, count: int, least: float, seed: int = 0, fit: str = "crop", **reader: Any
) -> list[Record]:
    """The first `count` records of a dataset whose first object covers at least this share of what is seen of them.

    All records of a real dataset are looked through, `reader` having its options, and a hundred for each one wanted of
    an embedded set, which has no end. A record without masks counts. DatasetError where there are too few.
    """
    data = load(name, None if known(name).folder else 100 * count, seed, **reader)
    found = list(islice((record for record in data if object_share(record, fit) >= least), count))
    if len(found) < count:
        raise DatasetError(
            f"{name} has {len(found)} images whose object covers {least:.0%} of them or more, got {count} to read"
        )
    return found


def exact_mask(record: Record, count: int = 1, fit: str = "crop") -> dict[str, Float[Tensor, "targets height width"]]:
    """{"exact mask": the first mask of a record as a map, for `count` targets}; {} for a record without masks.

    A ceiling beside the maps of methods; `fit` says which part of the image they cover.
    """
    if record.masks is None:
        return {}
    mask = torch.tensor(visible_masks(record, fit)[:1]).float()
    return {"exact mask": mask.expand(count, -1, -1)}


def mask_of_parts(record: Record) -> dict[str, Float[Tensor, "1 height width"]]:
    """{"exact mask": all parts of a record's image together, as a map}; {} for a record without parts."""
    if not record.parts:
        return {}
    together = np.logical_or.reduce(list(record.parts.values()))
    return {"exact mask": torch.tensor(together)[None].float()}


def predicted_class(model: Model, pixels: Float[Tensor, "1 3 height width"], classes: Tensor) -> int:
    """The number of the class whose direction is nearest to the image, among `classes` (classes, embedding)."""
    return int((model.embed_images(pixels) @ classes.T).argmax())
