"""A loaded model, `Model`: a plain, never patched network with its tokenizer, name and checksum.

The bottom of the package; loaders make one, the forwards in vit.py and resnet.py read it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from clip_explain.errors import ModelError
from clip_explain.models.adapted import Adapted
from clip_explain.models.head import Head
from clip_explain.models.towers import encoder_of
from clip_explain.models.weights import clip

MEAN = (0.48145466, 0.4578275, 0.40821073)  # CLIP's own, per colour channel, for pixels in [0, 1]
STD = (0.26862954, 0.26130258, 0.27577711)
DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


@dataclass(frozen=True)
class Model:
    """One loaded CLIP: the network and where it came from. It is run as in evaluation mode, and never changed.

    `sha256` is that of the weights file; `mean` and `std` normalise pixels in [0, 1]. What is no CLIP but explained as
    one (see adapters.py) has its parts under OpenAI's names in `network`, and no `tokenizer`; `head` if it is a
    classifier; `embed_texts` (texts, truncate) where its texts go another way than through CLIP's text tower.
    """

    network: nn.Module
    name: str
    sha256: str
    tokenizer: Any
    mean: tuple[float, float, float] = MEAN
    std: tuple[float, float, float] = STD
    head: Head | None = None
    embed_texts: Callable[[list[str], bool], Tensor] | None = None

    def __post_init__(self):
        """A network that is wrapped to run on several devices is read without its wrapper. ModelError for no CLIP."""
        if isinstance(self.network, nn.DataParallel | nn.parallel.DistributedDataParallel):
            object.__setattr__(self, "network", self.network.module)
        if not isinstance(self.network, Adapted) and not hasattr(self.network, "visual"):
            raise ModelError(
                f"got a {type(self.network).__name__} as the network of {self.name}, expected one laid out like "
                "OpenAI's or open_clip's CLIP; one of transformers is loaded by its name or folder, 'hf:NAME'"
            )

    @property
    def score(self) -> str:
        """What is explained: the "cosine" of features and target, or their "dot" product, a classifier's logit."""
        return "cosine" if self.head is None or self.head.features == "unit" else "dot"

    @property
    def logit_scale(self) -> float | Tensor:
        """What the score is multiplied by to be the model's logit: CLIP's learnt scale, 1 for a classifier."""
        return 1.0 if self.head is not None else self.network.logit_scale.detach().float().exp()

    @property
    def logit_bias(self) -> float | Tensor:
        """What is added to the scaled cosine to be the model's logit: SigLIP's learnt bias, else 0."""
        return self.network.logit_bias.float() if isinstance(self.network, Adapted) else 0.0

    @property
    def device(self) -> torch.device:
        return self._weight.device

    @property
    def dtype(self) -> torch.dtype:
        return self._weight.dtype

    @property
    def encoder(self) -> str:
        """What the image encoder is to us, one of ENCODERS: see towers.py."""
        return encoder_of(self.network)

    @property
    def is_vit(self) -> bool:
        """Whether the image encoder is a transformer that is traced, however it pools its tokens."""
        return self.encoder in ("class", "attention", "mean")

    @property
    def image_size(self) -> int:
        """The side in pixels of the square input that the network was trained on, or its short side if not square."""
        return min(self.image_shape)

    @property
    def image_shape(self) -> tuple[int, int]:
        """Height and width in pixels of the input that the network was trained on."""
        if isinstance(self.network, Adapted):
            return self.network.sizes.image, self.network.sizes.image
        visual = self.network.visual
        size = visual.input_resolution if hasattr(visual, "input_resolution") else visual.image_size
        height, width = (size, size) if isinstance(size, int) else size
        return int(height), int(width)

    @property
    def patch_size(self) -> int:
        """The side of one grid cell in pixels: a ViT's patch, a ResNet's total stride (32)."""
        if isinstance(self.network, Adapted):
            return self.network.sizes.patch
        return int(self.network.visual.conv1.weight.shape[-1]) if self.is_vit else 32

    @property
    def embedding_size(self) -> int:
        if isinstance(self.network, Adapted):
            return self.network.sizes.embedding
        visual = self.network.visual
        return int((visual.proj if self.is_vit else visual.attnpool.c_proj.weight.T).shape[-1])

    @property
    def context_length(self) -> int:
        """The most tokens that a text may have, its start and end tokens included."""
        return int(self.network.context_length)

    @property
    def _weight(self) -> Tensor:
        """A parameter of the image encoder, which tells device and number format."""
        return self.network.weight if isinstance(self.network, Adapted) else self.network.visual.conv1.weight


def place(network: nn.Module, device: torch.device, dtype: torch.dtype) -> nn.Module:
    """Move to the device and number format; the rule which parameters leave fp32 is OpenAI's `convert_weights`."""
    network = network.float()
    if dtype != torch.float32:
        clip.model.convert_weights(network)
        for parameter in network.parameters():
            if parameter.dtype == torch.float16:
                parameter.data = parameter.data.to(dtype)
    return network.to(device).eval().requires_grad_(False)
