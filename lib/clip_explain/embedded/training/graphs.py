"""Training steps on a GPU, recorded as CUDA graphs.

A step of a small network is thousands of small kernels, which take several times longer to launch one by one than to
run. A graph launches them at once, for inputs of the shapes that it was recorded with. Below loop.py and dino.py.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int, Int8
from torch import Tensor, nn

from clip_explain.embedded.training.batches import Batch
from clip_explain.embedded.training.losses import learn
from clip_explain.embedded.training.towers import (
    embed_cells,
    embed_ends,
    embed_patches,
    first_to_read,
    grid_of,
    places_in_grid,
    positions_of,
)
from clip_explain.embedded.training.windows import normalized

TEXTS, LENGTH = 128, 8  # numbers of texts and of their tokens are padded to multiples, so that few shapes are met


def recorded(
    step: Callable[..., None], optimizer: torch.optim.Optimizer, device: str
) -> Callable[[Sequence[Tensor | None]], None]:
    """A function that runs `step(*parts)`, which must leave what it finds in tensors that exist before.

    Parts of new shapes are computed as they are; when these shapes come again the step is recorded, then replayed.
    """
    stream, pool = torch.cuda.Stream(), torch.cuda.graph_pool_handle()
    torch.cuda.set_stream(stream)  # gradients are added up on the stream of the forward: there is one for all
    for group in optimizer.param_groups:
        group.update(lr=torch.tensor(float(group["lr"]), device=device), capturable=True)
    met, graphs = set(), {}

    def run(parts: Sequence[Tensor | None]) -> None:
        shapes = tuple(None if part is None else part.shape for part in parts)
        if shapes not in met:
            met.add(shapes)
            return step(*parts)
        if shapes not in graphs:
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph, pool=pool, stream=stream):
                step(*parts)
            graphs[shapes] = graph, parts
        graph, places = graphs[shapes]
        for place, part in zip(places, parts, strict=True):
            if part is not None and place is not None and place is not part:
                place.copy_(part)
        return graph.replay()

    return run


def moved(part: Tensor | None, device: str) -> Tensor | None:
    """The tensor on the device, which need not have finished with what came before."""
    if part is None or device == "cpu":
        return part
    return part.contiguous().pin_memory().to(device, non_blocking=True)


# -- a step of CLIP


@dataclass(frozen=True)
class Inputs:
    """A batch as tensors alone; see `Batch` and `embed_patches`. `image_first`, `text_first`: a block's number."""

    pixels: Float[Tensor, "images 3 height width"]
    places: Int[Tensor, " grid"]
    kept: Int[Tensor, "images patches"] | None
    cells: Int[Tensor, " grid"] | None
    image_first: Int[Tensor, ""]
    tokens: Int[Tensor, "texts length"]
    last: Int[Tensor, " texts"]
    text_first: Int[Tensor, ""]
    truth: Int8[Tensor, "images texts"]


def inputs_of(network: nn.Module, batch: Batch, device: str) -> Inputs:
    """The batch on the device, with texts that are left out of the loss and tokens after the end to fill it up."""
    visual, shown = network.visual, batch.shown
    last = shown.tokens.argmax(1)
    length = min(shown.tokens.shape[1], -(-(int(last.max()) + 1) // LENGTH) * LENGTH)
    more = -len(last) % TEXTS
    places = places_in_grid(len(positions_of(visual)), batch.corner, grid_of(visual, shown.pixels.shape[2:]))
    towers = [getattr(tower, "transformer", None) for tower in (visual, network)]
    firsts = [0 if tower is None else first_to_read(batch.reads_from, tower.resblocks) for tower in towers]
    image_first, text_first = (torch.tensor(first) for first in firsts)
    tokens, last = F.pad(shown.tokens[:, :length], (0, 0, 0, more)), F.pad(last, (0, more))
    truth = F.pad(shown.truth, (0, more), value=-1)
    rest = (places, batch.kept, batch.cells, image_first, tokens, last, text_first, truth)
    return Inputs(normalized(moved(shown.pixels, device)), *(moved(part, device) for part in rest))


def step_by_parts(
    network: nn.Module, optimizer: torch.optim.Optimizer, figures: Float[Tensor, "3"], *parts: Tensor | None
) -> None:
    """One step as `loop.take_step` takes it, by the parts of `Inputs`.

    `figures` become the loss, the share of best captions, and the scale.
    """
    inputs = Inputs(*parts)
    with torch.autocast(inputs.pixels.device.type, torch.bfloat16, cache_enabled=False):
        images = embed_inputs(network.visual, inputs)
        texts = embed_ends(network, inputs.tokens, inputs.last, inputs.text_first)
    figures.copy_(learn(network, optimizer, images, texts, inputs.truth))


def embed_inputs(visual: nn.Module, inputs: Inputs) -> Float[Tensor, "images embedding"]:
    """The image embeddings of a batch, by a transformer or a ModifiedResNet."""
    if hasattr(visual, "attnpool"):
        return embed_cells(visual, inputs.pixels, inputs.places)
    return embed_patches(visual, inputs.pixels, inputs.places, inputs.image_first, inputs.kept, inputs.cells)


def parts_of(inputs: Inputs) -> list[Tensor | None]:
    return [getattr(inputs, field.name) for field in fields(Inputs)]
