"""The sizes of a CLIP read off its tensors' shapes, and OpenAI's nine models built without weights (EPFL Tab. I, II).

Above weights.py, whose `clip` package builds the networks; compared with the tables of published.py.
"""

from collections.abc import Mapping
from typing import Any

import pandas as pd
import torch
from torch import nn

from clip_explain.errors import ModelError, nearest
from clip_explain.models.weights import VOCABULARY, clip
from clip_explain.papers.published import published
from clip_explain.papers.tables import measured

CONTEXT = 77
HEAD_WIDTH = 64  # of every head of OpenAI's models; a ResNet's width is counted in it too

# OpenAI's published architectures (Radford et al. 2021, Tables 19 and 20). The released files are needed to confirm
# them. Embedding, input resolution, vision layers (of a ResNet: blocks of each stage), vision width (of a ResNet: of
# its first stage), patch (None: a ResNet), text width; the text has 12 layers in all.
OPENAI: dict[str, tuple[int, int, int | tuple[int, ...], int, int | None, int]] = {
    "RN50": (1024, 224, (3, 4, 6, 3), 64, None, 512),
    "RN101": (512, 224, (3, 4, 23, 3), 64, None, 512),
    "RN50x4": (640, 288, (4, 6, 10, 6), 80, None, 640),
    "RN50x16": (768, 384, (6, 8, 18, 8), 96, None, 768),
    "RN50x64": (1024, 448, (3, 15, 36, 10), 128, None, 1024),
    "ViT-B/32": (512, 224, 12, 768, 32, 512),
    "ViT-B/16": (512, 224, 12, 768, 16, 512),
    "ViT-L/14": (768, 224, 24, 1024, 14, 768),
    "ViT-L/14@336px": (768, 336, 24, 1024, 14, 768),
}
TEXT_LAYERS = 12
# The report's names for these models in its tables.
IN_REPORT = {"ViT-L/14@336px": "ViT-L/14-336px", "RN50": "ResNet50", "RN101": "ResNet101"}
IN_REPORT |= {f"RN50x{times}": f"ResNet50×{times}" for times in (4, 16, 64)}
# The report's section IV on the text encoders of the two models that it uses.
TEXT_IN_REPORT = {"Text layers": 12, "Text width": 512, "Text heads": 12}
USED_IN_REPORT = ("ViT-B/32", "RN101")


def openai_network(name: str) -> nn.Module:
    """OpenAI's network of this name on torch's meta device: its tensors have shapes but no values."""
    if name not in OPENAI:
        raise ModelError(f"no published architecture of {name!r}: {nearest(name, OPENAI)}")
    embedding, resolution, layers, width, patch, text_width = OPENAI[name]
    with torch.device("meta"):
        return clip.model.CLIP(
            embed_dim=embedding,
            image_resolution=resolution,
            vision_layers=layers,
            vision_width=width,
            vision_patch_size=patch,
            context_length=CONTEXT,
            vocab_size=VOCABULARY,
            transformer_width=text_width,
            transformer_heads=text_width // HEAD_WIDTH,
            transformer_layers=TEXT_LAYERS,
        )


def specification(network: nn.Module) -> dict[str, int]:
    """The sizes that EPFL Tab. I and II print, by their columns' names, and those of the text encoder.

    The sizes are read off the shapes in the state dict, except the numbers of heads, which the modules hold.
    """
    shapes = {key: tuple(value.shape) for key, value in network.state_dict().items()}
    vision = _vit(network, shapes) if "visual.proj" in shapes else _resnet(shapes)
    text = {
        "Text layers": _count(shapes, "transformer.resblocks."),
        "Text width": shapes["ln_final.weight"][0],
        "Text heads": network.transformer.resblocks[0].attn.num_heads,
    }
    return {"Embedding dimension": shapes["text_projection"][1], **vision, **text}


def against_report(networks: Mapping[str, nn.Module]) -> pd.DataFrame:
    """EPFL's numbers about OpenAI's models beside their `specification`: place, model, quantity, report, ours, agrees.

    A row for each number of Tab. I and II, and for the three that section IV gives of the text encoders.
    """
    tables = pd.concat([published("epfl", "table1"), published("epfl", "table2")])
    rows = []
    for name, network in networks.items():
        ours = specification(network)
        printed = tables[tables["row"] == IN_REPORT.get(name, name)]
        numbers = zip(printed["column"], printed["value"].astype(int), strict=True)
        place = "Table II" if "ViT layers" in ours else "Table I"
        rows += [(place, name, what, number, ours[what]) for what, number in numbers]
        said = TEXT_IN_REPORT if name in USED_IN_REPORT else {}
        rows += [("section IV", name, what, number, ours[what]) for what, number in said.items()]
    found = pd.DataFrame(rows, columns=["place", "model", "quantity", "report", "ours"])
    return found.assign(agrees=found["report"] == found["ours"])


def wrong_numbers(compared: pd.DataFrame) -> list[dict[str, Any]]:
    """Rows of how many of the report's numbers are wrong, of a table by `against_report`: by table, and of the text."""
    quantity, rows = compared["quantity"], []
    stated = {f"printed in {place}": compared["place"] == place for place in ("Table I", "Table II")}
    stated["printed of text layers and width"] = quantity.isin(["Text layers", "Text width"])
    stated["printed of text heads"] = quantity == "Text heads"
    for name, part in stated.items():
        wrong = int((part & ~compared["agrees"]).sum())
        rows += measured("all models", name, {"wrong numbers": wrong}, "specifications")
    return rows


def _vit(network: nn.Module, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, int]:
    width, _, patch, _ = shapes["visual.conv1.weight"]
    return {
        "Input resolution": patch * _side(shapes["visual.positional_embedding"][0]),
        "ViT layers": _count(shapes, "visual.transformer.resblocks."),
        "ViT width": width,
        "ViT heads": network.visual.transformer.resblocks[0].attn.num_heads,
    }


def _resnet(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, int]:
    """A ResNet's sizes. Its width is that of the last stage's output, which the pool projects to the embedding."""
    blocks = {f"ResNet blocks, stage {stage}": _count(shapes, f"visual.layer{stage}.") for stage in (1, 2, 3, 4)}
    resolution = 32 * _side(shapes["visual.attnpool.positional_embedding"][0])
    return {"Input resolution": resolution, **blocks, "ResNet width": shapes["visual.attnpool.c_proj.weight"][1]}


def _side(tokens: int) -> int:
    """The side of the square grid that all tokens but the first form."""
    return round((tokens - 1) ** 0.5)


def _count(shapes: Mapping[str, tuple[int, ...]], prefix: str) -> int:
    """The number of numbered modules under a prefix."""
    return len({key.removeprefix(prefix).split(".")[0] for key in shapes if key.startswith(prefix)})
