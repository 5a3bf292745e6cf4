"""The parameter-randomisation check of Adebayo et al. 2018: whether a map depends on what the model has learned.

It works on a copy of the model: the given one is never written to.
"""

import copy
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from scipy.stats import rankdata
from torch import Tensor, nn

from clip_explain.checks import checked, finite, one_of
from clip_explain.errors import MethodError, TensorError
from clip_explain.maps import degenerate, normalize
from clip_explain.models.model import Model
from clip_explain.request import Request

Maps = Float[Tensor, "*axes grid_h grid_w"]
PerMap = Float[Tensor, "*axes"]


@checked()
def parameter_randomisation(
    request: Request, explainer: Callable[[Request], Tensor], seed: int, order: str = "cascading", by: str = "spearman"
) -> dict[str, Float[Tensor, "images targets"]]:
    """How alike maps stay when the image tower's weights become random: stage -> similarity to the true map, each map.

    The first entry, "none", is with no weight changed: 1, unless the explainer draws at random itself. `explainer`
    takes a request, as METHODS[name].image does; bind its options first. `order` and stages as in `randomised`, `by` a
    name in SIMILARITIES. A method whose maps stay alike to the end does not show what was learned. The targets
    stay as they are.
    """
    one_of("by", by, SIMILARITIES)
    true, found = explainer(request), {}
    found["none"] = SIMILARITIES[by](explainer(Request(request.model, request.pixels, request.targets)), true)
    for stage, model in randomised(request.model, seed, order):
        found[stage] = SIMILARITIES[by](explainer(Request(model, request.pixels, request.targets)), true)
    return found


@checked()
def randomised(model: Model, seed: int, order: str = "cascading") -> Iterator[tuple[str, Model]]:
    """Copies of a model with random weights in its image tower, stage by stage from the output to the input.

    `order="cascading"`: each stage's and all before it; "independent": each stage's alone. Use each before the next is
    asked for: all are one copy that is changed as it goes. The stages: of a ViT the projection, each block, the
    embedding of patches; of a ResNet the attention pool, each of its four stages, the stem.

    A parameter is drawn from a normal distribution with its own mean and standard deviation, which keeps the scale of
    activations; Adebayo et al. draw each layer's initial distribution, which a trained file no longer tells. The draws
    are the same on every device. A ResNet's running means and variances stay.
    """
    if order not in ("cascading", "independent"):
        raise MethodError(f"got order={order!r}, expected 'cascading' or 'independent'")
    network = copy.deepcopy(model.network)
    changed = replace(model, network=network, name=f"{model.name}, randomised", sha256="")
    generator = torch.Generator().manual_seed(seed)
    for stage, parameters in _stages(network.visual):
        kept = [parameter.detach().clone() for parameter in parameters]
        for parameter in parameters:
            _randomise(parameter, generator)
        yield stage, changed
        if order == "independent":
            for parameter, value in zip(parameters, kept, strict=True):
                parameter.data.copy_(value)


# -- similarity of maps; of two degenerate maps 1 (both say nothing), of one degenerate map and another 0


@checked()
def spearman(maps: Maps, others: Maps) -> PerMap:
    """Spearman's rank correlation over the cells of each pair of maps, -1 to 1; equal values share their mean rank."""
    _alike(maps, others)
    return _agreeing(_pearson(_ranks(maps), _ranks(others)), maps, others)


@checked()
def pearson(maps: Maps, others: Maps) -> PerMap:
    """Pearson's correlation over the cells of each pair of maps, -1 to 1."""
    _alike(maps, others)
    return _agreeing(_pearson(maps.flatten(-2).double(), others.flatten(-2).double()), maps, others)


@checked()
def ssim(maps: Maps, others: Maps, window: int = 7) -> PerMap:
    """Structural similarity (Wang et al. 2004) of each pair of maps scaled to [0, 1], -1 to 1: the mean over windows.

    An even window of `window` cells, or of the shorter side if that is less, where it fits into the map; C1 = 0.01^2,
    C2 = 0.03^2, variances divided by the number of cells.
    """
    _alike(maps, others)
    if window < 2:
        raise MethodError(f"got window={window}, expected at least 2 cells")
    side = min(window, *maps.shape[-2:])
    x, y = (normalize(each).double().reshape(-1, 1, *maps.shape[-2:]) for each in (maps, others))
    mean_x, mean_y, xx, yy, xy = (F.avg_pool2d(each, side, stride=1) for each in (x, y, x * x, y * y, x * y))
    var_x, var_y, both = xx - mean_x**2, yy - mean_y**2, xy - mean_x * mean_y
    top = (2 * mean_x * mean_y + 0.01**2) * (2 * both + 0.03**2)
    values = top / ((mean_x**2 + mean_y**2 + 0.01**2) * (var_x + var_y + 0.03**2))
    return _agreeing(values.mean(dim=(1, 2, 3)).reshape(maps.shape[:-2]), maps, others)


SIMILARITIES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "spearman": spearman,
    "ssim": ssim,
    "pearson": pearson,
}


def _stages(visual: nn.Module) -> list[tuple[str, list[nn.Parameter]]]:
    """An image tower's parameters from the output to the input, every one in one stage, the rest in the last."""
    parts: dict[str, list[nn.Module]]
    extra: dict[str, list[Any]]
    if hasattr(visual, "class_embedding"):
        blocks = reversed(list(enumerate(visual.transformer.resblocks)))
        parts = {"projection": [visual.ln_post], **{f"block {i}": [block] for i, block in blocks}}
        last, extra = "patches", {"projection": [visual.proj]}
    else:
        parts = {"pool": [visual.attnpool], **{f"stage {i}": [getattr(visual, f"layer{i}")] for i in (4, 3, 2, 1)}}
        last, extra = "stem", {}
    stages = [(name, extra.get(name, []) + [p for m in of for p in m.parameters()]) for name, of in parts.items()]
    named = {id(parameter) for _, parameters in stages for parameter in parameters}
    return [*stages, (last, [parameter for parameter in visual.parameters() if id(parameter) not in named])]


def _randomise(parameter: nn.Parameter, generator: torch.Generator) -> None:
    value = parameter.detach().float().cpu()
    drawn = torch.randn(value.shape, generator=generator, dtype=torch.float32) * value.std(correction=0) + value.mean()
    parameter.data.copy_(drawn)


def _alike(maps: Tensor, others: Tensor) -> None:
    if maps.shape != others.shape:
        raise TensorError(f"got maps {tuple(maps.shape)} and {tuple(others.shape)}, expected the same shape")
    finite("maps", maps)
    finite("maps", others)


def _agreeing(values: Tensor, maps: Tensor, others: Tensor) -> Tensor:
    """The rule for degenerate maps, and float32."""
    first, second = degenerate(maps), degenerate(others)
    return torch.where(first | second, (first & second).double(), values).float()


def _ranks(maps: Tensor) -> Float[Tensor, "*axes cells"]:
    ranks = rankdata(maps.detach().flatten(-2).cpu().double().numpy(), axis=-1)
    return torch.from_numpy(np.asarray(ranks)).to(maps.device)


def _pearson(x: Tensor, y: Tensor) -> Tensor:
    """Over the last axis, in float64; NaN for a constant."""
    x, y = x - x.mean(dim=-1, keepdim=True), y - y.mean(dim=-1, keepdim=True)
    return (x * y).sum(dim=-1) / (x.norm(dim=-1) * y.norm(dim=-1))
