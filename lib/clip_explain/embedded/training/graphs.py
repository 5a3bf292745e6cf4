"""Training steps on a GPU, recorded as CUDA graphs.

A step of a small CLIP is thousands of small kernels, which take several times longer to launch one by one than to run.
A graph launches them at once, for inputs of the shapes that it was recorded with. Below loop.py.
"""

from collections.abc import Callable
from dataclasses import dataclass, fields

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int, Int8
from torch import Tensor, nn

from clip_explain.embedded.training.batches import Batch
from clip_explain.embedded.training.losses import learn
from clip_explain.embedded.training.towers import embed_ends, embed_patches, first_to_read, places_in_grid
from clip_explain.embedded.training.windows import normalized

TEXTS, LENGTH = 128, 8  # numbers of texts and of their tokens are padded to multiples, so that few shapes are met


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
    side = shown.pixels.shape[-1] // visual.conv1.kernel_size[0]
    places = places_in_grid(len(visual.positional_embedding), batch.corner, (side, side))
    firsts = [first_to_read(batch.reads_from, tower.transformer.resblocks) for tower in (visual, network)]
    image_first, text_first = (torch.tensor(first) for first in firsts)
    tokens, last = F.pad(shown.tokens[:, :length], (0, 0, 0, more)), F.pad(last, (0, more))
    truth = F.pad(shown.truth, (0, more), value=-1)
    rest = (places, batch.kept, batch.cells, image_first, tokens, last, text_first, truth)
    return Inputs(normalized(moved(shown.pixels, device)), *(moved(part, device) for part in rest))


def moved(part: Tensor | None, device: str) -> Tensor | None:
    """The tensor on the device, which need not have finished with what came before."""
    if part is None or device == "cpu":
        return part
    return part.contiguous().pin_memory().to(device, non_blocking=True)


def step(network: nn.Module, optimizer: torch.optim.Optimizer, inputs: Inputs, figures: Float[Tensor, "3"]) -> None:
    """One step as `loop.take_step` takes it; `figures` become the loss, the share of best captions, and the scale."""
    with torch.autocast(inputs.pixels.device.type, torch.bfloat16, cache_enabled=False):
        images = embed_patches(
            network.visual, inputs.pixels, inputs.places, inputs.image_first, inputs.kept, inputs.cells
        )
        texts = embed_ends(network, inputs.tokens, inputs.last, inputs.text_first)
    figures.copy_(learn(network, optimizer, images, texts, inputs.truth))


def recorded(network: nn.Module, optimizer: torch.optim.Optimizer, device: str) -> Callable[[Batch], Tensor]:
    """A function that takes a step by a batch and returns its figures, as `step` does.

    Inputs of new shapes are computed as they are; when these shapes come again they are recorded, then replayed.
    """
    stream, pool = torch.cuda.Stream(), torch.cuda.graph_pool_handle()
    torch.cuda.set_stream(stream)  # gradients are added up on the stream of the forward: there is one for all
    for group in optimizer.param_groups:
        group.update(lr=torch.tensor(float(group["lr"]), device=device), capturable=True)
    figures, met, graphs = torch.zeros(3, device=device), set(), {}

    def take(batch: Batch) -> Tensor:
        inputs = inputs_of(network, batch, device)
        shapes = tuple(None if part is None else part.shape for part in parts_of(inputs))
        if shapes not in met:
            met.add(shapes)
            step(network, optimizer, inputs, figures)
            return figures
        if shapes not in graphs:
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph, pool=pool, stream=stream):
                step(network, optimizer, inputs, figures)
            graphs[shapes] = graph, inputs
        graph, places = graphs[shapes]
        for place, part in zip(parts_of(places), parts_of(inputs), strict=True):
            if part is not None and place is not None and place is not part:
                place.copy_(part)
        graph.replay()
        return figures

    return take


def parts_of(inputs: Inputs) -> list[Tensor | None]:
    return [getattr(inputs, field.name) for field in fields(Inputs)]
