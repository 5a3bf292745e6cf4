"""Models other than CLIP, presented so that a trace runs them: torchvision's ViT classifiers, BLIP, linear probes.

Above request.py. The explainers stay as they are: GE's appendix E (Fig 12) applies the same formula to these models.

| model | features | score | targets |
|---|---|---|---|
| torchvision ViT | class token after the last layer norm | logit: weight[c] . features (+ bias) | classes |
| linear probe on a CLIP | `encode_image`, not normalised, or at unit length | the same | classes |
| BLIP, image-text contrast (ITC) | class token after norm and `vision_proj` | cosine with `text_proj` of [CLS] | text |

None of the three has attention between image and text on the way to its score, so rollout and GAME go through the
vision blocks' self-attention alone. The blocks stand under OpenAI's names in a `Renamed`, which holds the model's own
modules and parameters: nothing is copied, patched or left changed. Move a model to its device before it is wrapped.
Words are not explained: BLIP's text encoder is a BERT, with its layer norms elsewhere.
"""

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from clip_explain.models.weights import checksum

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


class Renamed(nn.Module):
    """Another library's model, `whole`, and its vision transformer under OpenAI's names, `visual`.

    `features` (whole, pixels) are the image features by the model's own forward, with which ours must agree.
    """

    def __init__(self, whole: nn.Module, visual: nn.Module, features: Callable[[nn.Module, Tensor], Tensor]):
        super().__init__()
        self.whole, self.visual, self.features = whole, visual, features
        self.register_buffer(
            "logit_scale", torch.zeros((), device=visual.conv1.weight.device).float()
        )  # exp(0): none learnt

    def encode_image(self, pixels: Float[Tensor, "images 3 height width"]) -> Float[Tensor, "images embedding"]:
        return self.features(self.whole, pixels)


def module_of(**parts) -> nn.Module:
    """A module of these parts: modules, parameters, tensors and plain values, the objects themselves."""
    module = nn.Module()
    for name, part in parts.items():
        setattr(module, name, part)
    return module


def hub_checksum(transformers: Any, source: str) -> str:
    """The checksum of the weights file of a folder or of the hub's cache; empty where it is stored in several."""
    path = transformers.utils.cached_file(source, "model.safetensors", _raise_exceptions_for_missing_entries=False)
    return checksum(path) if path else ""


def first_line(error: Exception) -> str:
    """What an error says first, as one sentence."""
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".") + "."
