"""OpenAI's network built for a state dict: its sizes are read from the tensors, the rest is its `Architecture`.

Above weights.py, which reads the state dict; below the loaders.
"""

import json
import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from clip_explain.errors import WeightsError, nearest
from clip_explain.models.towers import square
from clip_explain.models.weights import clip, fill, one_line, read_metadata, some

HEAD_WIDTH = 64  # channels of a head in all that OpenAI published
ACTIVATIONS = {"quick_gelu": clip.model.QuickGELU, "gelu": nn.GELU}


@dataclass(frozen=True)
class Architecture:
    """What the tensors of a CLIP do not contain. None stands for OpenAI's choice: heads of 64 channels, QuickGELU.

    A .safetensors file may carry these as its metadata, under the same names.
    """

    vision_heads: int | None = None
    text_heads: int | None = None
    activation: str | None = None
    grid: tuple[int, int] | None = None  # height and width in patches

    def __post_init__(self):
        for value in (self.vision_heads, self.text_heads, *(self.grid or ())):
            if value is not None and value < 1:
                raise WeightsError(f"got heads or sides of a grid of {value}, expected at least 1")
        if self.activation is not None and self.activation not in ACTIVATIONS:
            raise WeightsError(f"unknown activation {self.activation!r}: {nearest(self.activation, ACTIVATIONS)}")


def architecture_of(metadata: Mapping[str, str], source: object) -> Architecture:
    """The architecture that a file's metadata tell. WeightsError for a number of heads that is not a whole number."""
    heads = {}
    for key in ("vision_heads", "text_heads"):
        if key in metadata:
            if not metadata[key].isdecimal() or not int(metadata[key]):
                raise WeightsError(f"{source} says {key}={metadata[key]!r}, expected a whole number above 0")
            heads[key] = int(metadata[key])
    grid = metadata.get("grid")
    if grid is not None and not re.fullmatch(r"[1-9]\d*x[1-9]\d*", grid):
        raise WeightsError(f"{source} says grid={grid!r}, expected HEIGHTxWIDTH in patches, such as 7x28")
    sides = tuple(map(int, grid.split("x"))) if grid else None
    return Architecture(**heads, activation=metadata.get("activation"), grid=sides)


def architecture_at(path: str | Path) -> Architecture:
    """The architecture of a weights file, by its own metadata or by the config.json of transformers beside it."""
    config = Path(path).parent / "config.json"
    if not config.is_file() or read_metadata(path).keys() & {"vision_heads", "text_heads", "activation"}:
        return architecture_of(read_metadata(path), path)
    try:
        found = json.loads(config.read_text())
        vision, text = found["vision_config"], found["text_config"]
        return Architecture(vision["num_attention_heads"], text["num_attention_heads"], vision["hidden_act"])
    except (ValueError, KeyError, TypeError) as error:
        raise WeightsError(f"{config}, beside the weights, is not the config of a CLIP: it lacks {error}") from error


def build(
    state: Mapping[str, Tensor], source: object = "the state dict", architecture: Architecture | None = None
) -> nn.Module:
    """OpenAI's network for a state dict in its layout, in float32.

    Raises WeightsError naming the keys that are missing, unexpected or of a wrong shape.
    """
    architecture = architecture or Architecture()
    _check_layout(state, source)
    try:
        # Without storage: no random start to wait for.
        with torch.device("meta"), warnings.catch_warnings(action="ignore"):
            network = _text_tower(state, architecture.text_heads)
            network.visual = _image_tower(state, architecture)
    except Exception as error:  # shapes that describe no network fail anywhere in its construction
        raise WeightsError(f"{source} does not fit the CLIP that its shapes describe: {one_line(error)}") from error
    _check_grid(network.visual, state, source)
    fill(network, {key: value.clone() for key, value in state.items()}, source, assign=True)
    for block in network.transformer.resblocks:
        block.attn_mask = network.build_attention_mask().float()
    _set_activation(network, architecture.activation or "quick_gelu")
    return network.float().eval()


def head_count(heads: int | None, width: int, source: object = "the state dict") -> int:
    """The number of heads of a tower, by default one for 64 channels. WeightsError if it does not divide them."""
    count = heads or max(1, width // HEAD_WIDTH)
    if width % count:
        raise WeightsError(f"{source} has {width} channels, which {count} heads do not divide")
    return count


def block_count(state: Mapping[str, Tensor], prefix: str = "") -> int:
    """The number of transformer blocks under a prefix."""
    start = f"{prefix}transformer.resblocks."
    return len({key.removeprefix(start).partition(".")[0] for key in state if key.startswith(start)})


def _check_layout(state: Mapping[str, Tensor], source: object) -> None:
    vision = "visual.proj" if "visual.proj" in state else "visual.layer1.0.conv1.weight"
    positions = "visual.positional_embedding" if "visual.proj" in state else "visual.attnpool.positional_embedding"
    text = ("text_projection", "positional_embedding", "token_embedding.weight", "ln_final.weight")
    absent = [key for key in (vision, positions, "visual.conv1.weight", *text) if key not in state]
    if absent:
        raise WeightsError(f"{source} is not a CLIP in OpenAI's layout: it has no {some(absent)}")


def _text_tower(state: Mapping[str, Tensor], heads: int | None) -> nn.Module:
    """A CLIP with the text tower of the state dict, and the smallest of image towers, which is replaced."""
    vocabulary, width = state["token_embedding.weight"].shape
    embedding, context = state["text_projection"].shape[1], len(state["positional_embedding"])
    return clip.model.CLIP(
        embedding, 32, 1, 64, 32, context, vocabulary, width, head_count(heads, width), block_count(state)
    )


def _image_tower(state: Mapping[str, Tensor], architecture: Architecture) -> nn.Module:
    embedding, heads = state["text_projection"].shape[1], architecture.vision_heads
    if "visual.proj" not in state:
        return _resnet(state, heads, embedding)
    width, _, _, patch = state["visual.conv1.weight"].shape
    height, across = architecture.grid or square(len(state["visual.positional_embedding"]) - 1)
    layers = block_count(state, "visual.")
    visual = clip.model.VisionTransformer(patch, patch, width, layers, head_count(heads, width), embedding)
    visual.positional_embedding = nn.Parameter(torch.empty(height * across + 1, width))
    visual.grid_size = (height, across)
    visual.input_resolution = height * patch if height == across else (height * patch, across * patch)
    return visual


def _check_grid(visual: nn.Module, state: Mapping[str, Tensor], source: object) -> None:
    """WeightsError if the number of positions does not fit the given grid, or a square."""
    if isinstance(visual, clip.model.ModifiedResNet):
        return
    count, (height, width) = len(state["visual.positional_embedding"]) - 1, visual.grid_size
    if height * width != count:
        raise WeightsError(
            f"{source} has visual.positional_embedding for {count} patches, not for {height} x {width}: "
            "pass its height and width in patches as grid=(HEIGHT, WIDTH)"
        )


def _resnet(state: Mapping[str, Tensor], heads: int | None, embedding: int) -> nn.Module:
    numbers = [{key.split(".")[2] for key in state if key.startswith(f"visual.layer{stage}.")} for stage in range(1, 5)]
    width = len(state["visual.layer1.0.conv1.weight"])
    positions, channels = state["visual.attnpool.positional_embedding"].shape
    side = round((positions - 1) ** 0.5) * 32
    layers = tuple(map(len, numbers))
    return clip.model.ModifiedResNet(layers, embedding, head_count(heads, channels), side, width)


def _set_activation(network: nn.Module, activation: str) -> None:
    towers = [network.transformer, getattr(network.visual, "transformer", None)]
    for tower in filter(None, towers):
        for block in tower.resblocks:
            block.mlp.gelu = ACTIVATIONS[activation]()
