"""The embedded models, trained on rendered scenes: their files in data/models, each with its card."""

import json
import os
from pathlib import Path

from torch import Tensor, nn

from clip_explain.errors import ModelError, WeightsError, nearest
from clip_explain.files import data_folder
from clip_explain.models.network import architecture_of, build
from clip_explain.models.weights import read_metadata, read_weights

EMBEDDED = ("tiny-vit", "tiny-vit-plain", "tiny-vit-32", "tiny-resnet", "basic-clip")


def embedded_folder() -> Path:
    """The folder of the embedded models, data/models."""
    return data_folder() / "models"


def embedded_path(name: str) -> Path:
    """The file of an embedded model's weights; its card stands beside it as .json."""
    return embedded_folder() / f"{name}.safetensors"


def load_embedded(name: str) -> tuple[nn.Module, str]:
    """An embedded model's network, with the heads and activation that its file tells, and the file's sha256."""
    state, sha256 = read_embedded(name)
    path = embedded_path(name)
    return build(state, path, architecture_of(read_metadata(path), path)), sha256


def read_embedded(name: str) -> tuple[dict[str, Tensor], str]:
    """The weights of data/models/NAME.safetensors and their sha256, which must be that of its card, if there is one."""
    path = embedded_path(name)
    here = [known for known in EMBEDDED if embedded_path(known).is_file()]
    if not os.path.isfile(path):
        raise ModelError(
            f"the embedded model {name!r} is not at {path}. Embedded models live in the repository's data/models: "
            f"install from a clone (pip install -e .) or set CLIP_EXPLAIN_DATA. {nearest(name, here)}"
        )
    state, sha256 = read_weights(path)
    card = path.with_suffix(".json")
    expected = json.loads(card.read_text()).get("sha256", sha256) if card.is_file() else sha256
    if expected != sha256:
        raise WeightsError(f"{path} is damaged or not the file of its card: sha256 {sha256}, expected {expected}")
    return state, sha256
