"""M2IB (Wang et al. 2023): an information bottleneck put into one layer, of an image or of a text, and trained for it.

An intervener: only the blocks after the bottleneck run again, step by step, and no weight of the model changes.
"""

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from clip_explain.checks import check_counts, checked, number, out_of_memory, seeded
from clip_explain.errors import MethodError, TensorError
from clip_explain.models.adapted import image_tower, text_tower
from clip_explain.models.model import unit
from clip_explain.models.towers import Tower
from clip_explain.models.trace import GRADIENT_SCALE, Trace, on_grid, on_words, pooled_row
from clip_explain.models.vit import forward_block, project, trace_block
from clip_explain.request import Request, WordRequest

START = 5.0  # of alpha, so lambda = sigmoid(5) = 0.993: nearly everything passes at first


@checked()
def m2ib(
    request: Request,
    *,
    layer: int = 9,
    beta: float = 0.1,
    steps: int = 10,
    lr: float = 1.0,
    samples: int = 10,
    last_update: bool = True,
    noise: Float[Tensor, "steps samples tokens channels"] | None = None,
    batch_size: int = 64,
    generator: torch.Generator | int = 0,
) -> Float[Tensor, "images targets grid_h grid_w"]:
    """M2IB of the image: the information, in nats, that each patch lets through the bottleneck; raw, >= 0, float32.

    The tokens f leaving block `layer` (counted from 0) become z = lambda f + (1 - lambda) e, e ~ N(0, 1), with
    lambda = sigmoid(alpha) for every token and channel. alpha is trained from 5 by `steps` steps of Adam at `lr` to
    make the mean over `samples` noises of cos(embedding of z, target) large and `beta` times the mean over tokens and
    channels of KL(N(lambda f, (1 - lambda)^2) || N(0, 1)) small. The map is that KL summed over a patch's channels.

    `noise` is used if given; else it is drawn from `generator`, or a seed, and the same for all images and targets. At
    most `batch_size` noisy images, though at least the samples of one, are in memory at once. MethodError for
    an option out of range, for a layer that is the last (its patches reach no embedding), or out of memory.

    Differs from the authors' code, which reads the KL before the last update of alpha: `last_update=False`.
    """
    trace, noises = _begin(request, layer, steps, samples, batch_size, noise, generator)
    return on_grid(information(trace, request.targets, noises, beta, lr, last_update, batch_size), trace)


@checked()
def m2ib_words(
    request: WordRequest,
    *,
    layer: int = 9,
    beta: float = 0.1,
    steps: int = 10,
    lr: float = 1.0,
    samples: int = 10,
    last_update: bool = True,
    noise: Float[Tensor, "steps samples context channels"] | None = None,
    batch_size: int = 64,
    generator: torch.Generator | int = 0,
) -> Float[Tensor, "texts images tokens"]:
    """M2IB of the words: as `m2ib`, in the text tower, with an image's embedding as the target; raw, >= 0, float32.

    The mean of the KL is over the text's own tokens, start and end included; their weights here, and the padding's, are
    zero. Noise is (steps, samples, context, channels). Differs from the authors' code for OpenAI's models, which drops
    the causal mask and projects the text twice.
    """
    trace, noises = _begin(request, layer, steps, samples, batch_size, noise, generator)
    return on_words(information(trace, request.targets, noises, beta, lr, last_update, batch_size), trace)


def information(
    trace: Trace,
    targets: Float[Tensor, "targets embedding"],
    noises: Iterable[Float[Tensor, "samples context channels"]],
    beta: float,
    lr: float,
    last_update: bool,
    batch_size: int,
) -> Float[Tensor, "images targets tokens"]:
    """The KL of each token after training a bottleneck at the trace's first block for each image (text) and target."""
    beta, lr = number("beta", beta, 0), number("lr", lr, 0, above=True)
    with out_of_memory(batch_size), torch.inference_mode(False):
        f, targets = trace.blocks[0].input, targets.clone()
        f = f.to(torch.promote_types(f.dtype, torch.float32))
        own = torch.arange(f.shape[1], device=f.device) <= _last_own(trace)[:, None]
        alpha = torch.full((len(f), len(targets), *f.shape[1:]), START, dtype=f.dtype, device=f.device)
        optimizer, before = torch.optim.Adam([alpha], lr=lr), alpha
        for noise in noises:
            noise = noise[:, : f.shape[1]].to(f)
            alpha.grad = loss_gradient(trace, f, alpha, targets, noise, own, beta, max(1, batch_size // len(noise)))
            before = alpha.clone()
            optimizer.step()
        passed = divergence(alpha if last_update else before, f[:, None]).sum(dim=-1)
        return torch.where(own[:, None], passed, 0.0).float()


def loss_gradient(
    trace: Trace, features: Tensor, alpha: Tensor, targets: Tensor, noise: Tensor, own: Tensor, beta: float, pairs: int
) -> Float[Tensor, "images targets tokens channels"]:
    """d (beta * mean KL - mean cosine) / d alpha, for at most `pairs` pairs of an image and a target at once."""
    parts = []
    count = own.sum(dim=1) * features.shape[-1]
    owners = torch.arange(len(features), device=features.device).repeat_interleave(len(targets))
    for pair in torch.arange(len(owners), device=features.device).split(pairs):
        image, target = owners[pair], targets[pair % len(targets)]
        f, some = features[image], alpha.flatten(0, 1)[pair].detach().requires_grad_()
        with torch.enable_grad():
            passing = some.sigmoid()[:, None]
            z = passing * f[:, None] + (1 - passing) * noise
            embedding = embed_from(trace, z.flatten(0, 1), trace.pooled[image].repeat_interleave(len(noise)))
            fit = torch.einsum("psc,pc->ps", unit(embedding).unflatten(0, (len(pair), -1)), target.to(f)).mean(dim=1)
            kl = (divergence(some, f) * own[image][..., None]).sum(dim=(1, 2)) / count[image]
            (slope,) = torch.autograd.grad((beta * kl - fit).sum() * GRADIENT_SCALE, some)
        parts.append(slope / GRADIENT_SCALE)
    return torch.cat(parts).view_as(alpha)


def divergence(alpha: Tensor, features: Tensor) -> Tensor:
    """KL(N(lambda f, (1 - lambda)^2) || N(0, 1)), elementwise; the logarithm from alpha, so that it stays finite."""
    variance = torch.sigmoid(-alpha) ** 2
    return 0.5 * ((alpha.sigmoid() * features) ** 2 + variance - 1) - F.logsigmoid(-alpha)


def embed_from(
    trace: Trace, z: Float[Tensor, "rows tokens channels"], pooled: Int[Tensor, " rows"]
) -> Float[Tensor, "rows embedding"]:
    """The embedding of tokens entering the trace's first block; the last block for the pooled token alone."""
    x, tower = z, trace.tower
    for block in trace.blocks[:-1]:
        x = forward_block(block.layer, x, block.v.shape[1], tower.causal)
    last = trace.blocks[-1]
    x = trace_block(last.layer, x, last.v.shape[1], tower.causal, rows=pooled).output
    return project(tower, pooled_row(x, pooled))


def draw_noise(
    given: Tensor | None, shape: tuple[int, int, int, int], generator: torch.Generator | int
) -> Iterable[Tensor]:
    """The noise of each step, (samples, tokens, channels): given, or drawn when the step begins."""
    if given is None:
        source = seeded(generator)
        where = {"device": source.device, "dtype": torch.float32}
        return (torch.randn(shape[1:], generator=source, **where) for _ in range(shape[0]))
    if tuple(given.shape) != shape:
        raise TensorError(f"got noise of {tuple(given.shape)}, expected (steps, samples, tokens, channels) = {shape}")
    return given


def _begin(
    request: Request | WordRequest,
    layer: int,
    steps: int,
    samples: int,
    batch_size: int,
    noise: Tensor | None,
    generator: torch.Generator | int,
) -> tuple[Trace, Iterable[Tensor]]:
    """The trace of the blocks after the bottleneck, and each step's noise; for a text, the noise covers the padding."""
    check_counts(steps=steps, samples=samples, batch_size=batch_size)
    words = isinstance(request, WordRequest)
    tower = text_tower if words else image_tower
    trace = request.trace(layers=_blocks_after(tower(request.model.network), layer))
    _, tokens, channels = trace.blocks[0].input.shape
    context = request.tokens.shape[1] if words else tokens
    return trace, draw_noise(noise, (steps, samples, context, channels), generator)


def _blocks_after(tower: Tower, layer: int) -> int:
    depth = len(tower.layers)
    if not 0 <= layer < depth - 1:
        raise MethodError(f"got layer={layer}, expected 0 to {depth - 2}: the last of the {depth} layers is too late")
    return depth - 1 - layer


def _last_own(trace: Trace) -> Int[Tensor, " images"]:
    """The last token that belongs to the input: an image has no padding."""
    return trace.pooled if trace.tower.causal else torch.full_like(trace.pooled, trace.blocks[0].input.shape[1])
