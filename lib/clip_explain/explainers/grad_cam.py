"""Grad-CAM and its variants on one feature map of the image encoder: a ViT's tokens, or a convolutional one's stage."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from clip_explain.checks import checked, one_of
from clip_explain.errors import MethodError
from clip_explain.explainers.attention import layer_count, precise
from clip_explain.models.layers import evaluated
from clip_explain.models.model import compared, image_features
from clip_explain.models.resnet import stages_of
from clip_explain.models.stages import stage_embedding, stage_output
from clip_explain.models.trace import HEADS, gradients
from clip_explain.request import Request

VARIANTS = ("grad_cam", "grad_cam_plus_plus", "xgrad_cam", "layer_cam", "score_cam")
POOLS = ("patches", "tokens")
# The number of masked images that Score-CAM encodes at once.
MASKED_AT_ONCE = 32


@checked()
def grad_cam(
    request: Request,
    *,
    layer: int | None = None,
    variant: str = "grad_cam",
    heads: str = "native",
    pool: str = "patches",
    scale_logits: bool = False,
) -> Float[Tensor, "images targets grid_h grid_w"]:
    """Grad-CAM (Selvaraju et al. 2017; EP eq. 1-2): ReLU(sum_k a_k A^k), a_k the mean of dy/dA^k; raw, >= 0, float32.

    A is, for a ViT, the patch tokens entering block `layer` (counted from 0; None: the last) and, for a ResNet or
    another convolutional network, the output of stage `layer` (0 to 3; None: the last). The map is on A's grid. y is
    the cosine. `variant`: another a_k, see `plus_plus_weights` and `x_weights`; "layer_cam" (Jiang et al. 2021, eq. 6)
    is ReLU(sum_k ReLU(dy/dA^k) A^k); "score_cam" takes no gradient: a_k is the softmax over channels of y of the image
    masked by A^k, one forward for every channel. Their numbers are those of the package grad-cam (Gildenblat et al.).
    With `scale_logits` y is the logit: for "score_cam", whose softmax of cosines is nearly flat, and
    "grad_cam_plus_plus", whose constant 1e-6 outweighs the square of a cosine's gradient; the other maps it only
    multiplies. MethodError for an option out of range.

    Differs from the Grad-ECLIP authors' code for a ViT: there the last block has one head over all channels
    (`heads="single"`) and the mean takes in the class token (`pool="tokens"`, for "grad_cam" alone).
    """
    _check(request, variant, heads, pool)
    read = _entering_tokens if request.model.is_vit else _stage_output
    leaf, embedding, grid = read(request, layer, heads)
    features = _as_map(leaf.detach(), grid)
    scale = request.model.logit_scale if scale_logits else 1.0
    if variant == "score_cam":
        return _combine(score_weights(request, features, scale), features)
    slope = gradients(embedding, [leaf], request.targets, request.model.similarity)[0] * scale
    if pool == "tokens":
        return _combine(slope.mean(dim=-2), features)
    slope = _as_map(slope, grid)
    if variant == "layer_cam":
        return (slope.relu() * features[:, None]).sum(dim=2).relu().float()
    weigh = {"grad_cam": mean_weights, "grad_cam_plus_plus": plus_plus_weights, "xgrad_cam": x_weights}[variant]
    return _combine(weigh(features, slope), features)


def mean_weights(
    features: Float[Tensor, "images channels grid_h grid_w"],
    slope: Float[Tensor, "images targets channels grid_h grid_w"],
) -> Float[Tensor, "images targets channels"]:
    """Grad-CAM's weights (Selvaraju et al. 2017, eq. 1): the mean of the gradient over the grid."""
    return slope.mean(dim=(-2, -1))


def plus_plus_weights(
    features: Float[Tensor, "images channels grid_h grid_w"],
    slope: Float[Tensor, "images targets channels grid_h grid_w"],
) -> Float[Tensor, "images targets channels"]:
    """Grad-CAM++'s weights (Chattopadhay et al. 2018, eq. 19 and 21), g being the gradient: the sum over the grid of
    ReLU(g) g^2 / (2 g^2 + g^3 sum A)."""
    total = features.sum(dim=(-2, -1))[:, None, :, None, None]
    share = slope**2 / (2 * slope**2 + total * slope**3 + 1e-6)  # the package's constant
    return (slope.relu() * share).sum(dim=(-2, -1))


def x_weights(
    features: Float[Tensor, "images channels grid_h grid_w"],
    slope: Float[Tensor, "images targets channels grid_h grid_w"],
) -> Float[Tensor, "images targets channels"]:
    """XGrad-CAM's weights (Fu et al. 2020, eq. 8): the mean of the gradient, each cell weighted by its share of A."""
    share = features / (features.sum(dim=(-2, -1), keepdim=True) + 1e-7)  # the package's constant
    return (slope * share[:, None]).sum(dim=(-2, -1))


@checked()
def score_weights(
    request: Request, features: Float[Tensor, "images channels grid_h grid_w"], scale: float | Tensor = 1.0
) -> Float[Tensor, "images targets channels"]:
    """Score-CAM's weights (Wang et al. 2020, eq. 6-8): softmax over channels of the score of the masked image.

    A mask is a channel, resized to the image and min-max scaled. The numbers are those of the grad-cam package, but a
    masked image is encoded once for all targets.
    """
    pixels = request.pixels.detach()
    with torch.no_grad():
        scores = [
            _masked_cosines(request, image, some) * scale
            for image, channels in zip(pixels, features, strict=True)
            for some in channels.split(MASKED_AT_ONCE)
        ]
        return torch.cat(scores).unflatten(0, tuple(features.shape[:2])).softmax(dim=1).transpose(1, 2)


def _entering_tokens(request: Request, layer: int | None, heads: str) -> tuple[Tensor, Tensor, tuple[int, int]]:
    """All tokens entering a ViT's block, as a leaf; the embedding computed from them; the grid."""
    depth = layer_count(request, None)
    if layer is not None and not 0 <= layer < depth:
        raise MethodError(f"got layer={layer}, expected 0 to {depth - 1}: the model has {depth} layers")
    kept = 1 if layer is None else depth - layer
    trace = request.trace(heads=heads, layers=kept, single=1, start="input")
    return trace.blocks[0].input, trace.embedding, trace.grid


def _stage_output(request: Request, layer: int | None, heads: str) -> tuple[Tensor, Tensor, None]:
    """A stage's output, as a leaf; the embedding computed from it."""
    network, parts = request.model.network, stages_of(request.model.network)
    depth = len(parts.stages)
    count = depth if layer is None else layer + 1
    if not 1 <= count <= depth:
        raise MethodError(f"got layer={layer}, expected 0 to {depth - 1}: the image encoder has {depth} stages")
    with torch.inference_mode(False), evaluated(network):
        with torch.no_grad():
            features = stage_output(parts, request.pixels.detach(), count)
        with torch.enable_grad():
            return features.requires_grad_(), stage_embedding(parts, features, count), None


def _as_map(x: Tensor, grid: tuple[int, int] | None) -> Float[Tensor, "*axes channels grid_h grid_w"]:
    """The patches of tokens (*axes, tokens, channels) as a feature map; with no grid, x is one already."""
    if grid is None:
        return precise(x)
    patches = precise(x)[..., x.shape[-2] - grid[0] * grid[1] :, :]
    return patches.transpose(-2, -1).unflatten(-1, grid)


def _combine(
    weights: Float[Tensor, "images targets channels"], features: Float[Tensor, "images channels grid_h grid_w"]
) -> Float[Tensor, "images targets grid_h grid_w"]:
    return torch.einsum("itc,ichw->ithw", weights.to(features), features).relu().float()


def _masked_cosines(
    request: Request, image: Float[Tensor, "3 height width"], channels: Float[Tensor, "masks grid_h grid_w"]
) -> Float[Tensor, "masks targets"]:
    masks = F.interpolate(channels[None], size=image.shape[-2:], mode="bilinear", align_corners=True)[0]
    low, high = masks.amin(dim=(-2, -1), keepdim=True), masks.amax(dim=(-2, -1), keepdim=True)
    masks = (masks - low) / (high - low + 1e-8)  # the package's constant
    embedding = compared(image_features(request.model, image * masks[:, None].to(image)), request.model.similarity)
    return embedding @ request.targets.T.to(embedding)


def _check(request: Request, variant: str, heads: str, pool: str) -> None:
    one_of("variant", variant, VARIANTS)
    one_of("heads", heads, HEADS)
    one_of("pool", pool, POOLS)
    if not request.model.is_vit and (heads, pool) != ("native", "patches"):
        raise MethodError("heads='single' and pool='tokens' are for a ViT, and this model is none; leave them out")
    if pool == "tokens" and variant != "grad_cam":
        raise MethodError(f"pool='tokens' is for variant='grad_cam', got variant={variant!r}")
    if heads == "single" and variant == "score_cam":
        raise MethodError("variant='score_cam' encodes with the model's own heads, got heads='single'")
