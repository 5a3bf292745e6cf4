"""How a network is read: by OpenAI's layout or, if another library made it, by the description of its family.

Below the forwards. Nothing is copied, patched or changed: each forward has a description made from the network's own
modules, so the description is always up to date.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from clip_explain.errors import MethodError, ModelError
from clip_explain.models.stages import Stages
from clip_explain.models.tokenizer import Vocabulary
from clip_explain.models.towers import RESNET_STRIDE, Sizes, Tokens, Tower, patches_of, tower_layers


@dataclass(frozen=True)
class Family:
    """How the networks of one kind are read, as functions of the network.

    `image` and `text` describe its towers. They are None for a tower that is not a transformer we can run; then only
    the network's own forward is used. A text tower's description also takes the vocabulary. `encode_image` and
    `encode_text` are the network's own forwards, of pixels and of token numbers; `encode_text` is None if token numbers
    alone do not determine a text's embedding.
    `pooling` is the image tower's (see `Tower`). `stages` describes a convolutional image encoder instead.
    """

    name: str
    sizes: Callable[[nn.Module], Sizes]
    encode_image: Callable[[nn.Module, Tensor], Tensor]
    encode_text: Callable[[nn.Module, Tensor], Tensor] | None = None
    image: Callable[[nn.Module], Tower] | None = None
    text: Callable[[nn.Module, Vocabulary], Tower] | None = None
    pooling: str = "class"
    stages: Callable[[nn.Module], Stages] | None = None


class Adapted(nn.Module):
    """A network of another library, `whole`, its family, and the vocabulary of its texts, if we can read them."""

    def __init__(self, whole: nn.Module, family: Family, vocabulary: Vocabulary | None = None):
        super().__init__()
        self.whole, self.family, self.vocabulary = whole, family, vocabulary
        self.sizes = family.sizes(whole)

    def encode_image(self, pixels: Float[Tensor, "images 3 height width"]) -> Float[Tensor, "images embedding"]:
        return self.family.encode_image(self.whole, pixels)

    def encode_text(self, texts: Int[Tensor, "texts context"]) -> Float[Tensor, "texts embedding"]:
        if self.family.encode_text is None:
            raise MethodError(f"the texts of {self.family.name} are not read as token numbers alone")
        return self.family.encode_text(self.whole, texts)

    @property
    def encoder(self) -> str:
        """What the image encoder is, one of ENCODERS."""
        if self.family.image is None:
            return "other" if self.family.stages is None else "convolutional"
        return self.family.pooling

    def image_tower(self) -> Tower:
        """The description of the image tower. MethodError where only the network's own forward is known."""
        if self.family.image is None:
            raise MethodError(f"the image tower of {self.family.name} is not a transformer whose layers we can read")
        return self.family.image(self.whole)

    def text_tower(self) -> Tower:
        """The description of the text tower. MethodError where its words cannot be explained."""
        if self.family.text is None or self.vocabulary is None:
            raise MethodError(f"the text tower of {self.family.name} cannot be read, so its words cannot be explained")
        return self.family.text(self.whole, self.vocabulary)

    @property
    def has_text_tower(self) -> bool:
        return self.family.text is not None and self.vocabulary is not None

    @property
    def context_length(self) -> int:
        return len(self.text_tower().stem.positions)

    @property
    def weight(self) -> Tensor:
        """A parameter that tells device and number format."""
        return next(p for p in self.whole.parameters() if p.is_floating_point())

    @property
    def logit_scale(self) -> Float[Tensor, ""]:
        """The logarithm of the factor that multiplies the cosine; 0 for a network without one."""
        scale = getattr(self.whole, "logit_scale", None)
        if scale is None:
            return torch.zeros((), device=self.weight.device, dtype=torch.float32)
        return scale.detach().reshape(())

    @property
    def logit_bias(self) -> Float[Tensor, ""] | None:
        """The bias that is added to the logit, as in SigLIP, whose score is a sigmoid; None without one."""
        bias = getattr(self.whole, "logit_bias", None)
        return None if bias is None else bias.detach().reshape(())


@dataclass(frozen=True)
class OpenAILayout:
    """A network of OpenAI's, of open_clip's in the same layout, or one that is presented under their names.

    `encoder` is one of ENCODERS. `weight` is a parameter of the image encoder, which tells device and number format.
    """

    network: Any

    @property
    def encoder(self) -> str:
        visual = self.network.visual
        if hasattr(visual, "class_embedding"):
            return "class"
        return "resnet" if hasattr(visual, "attnpool") else "other"

    @property
    def sizes(self) -> Sizes:
        visual = self.network.visual
        size = visual.input_resolution if hasattr(visual, "input_resolution") else visual.image_size
        height, width = (size, size) if isinstance(size, int) else size
        if self.encoder == "class":
            return Sizes((int(height), int(width)), int(visual.conv1.weight.shape[-1]), int(visual.proj.shape[-1]))
        return Sizes((int(height), int(width)), RESNET_STRIDE, len(visual.attnpool.c_proj.weight))

    @property
    def weight(self) -> Tensor:
        return self.network.visual.conv1.weight

    @property
    def has_text_tower(self) -> bool:
        return hasattr(self.network, "text_projection")

    def image_tower(self) -> Tower:
        visual = self.network.visual
        if not hasattr(visual, "transformer"):
            raise ModelError(
                f"the image encoder is a {type(visual).__name__}; a trace needs a vision transformer (ViT)"
            )
        bias = getattr(visual, "proj_bias", None)  # BLIP's projection has one, CLIP's has not
        layers = tower_layers(visual.transformer)
        return Tower(patches_of(visual), layers, "class", visual.ln_post, visual.proj.detach(), bias)

    def text_tower(self) -> Tower:
        network, projection = self.network, self.network.text_projection.detach()
        stem = Tokens(network.token_embedding.weight.detach(), network.positional_embedding.detach(), projection.dtype)
        return Tower(stem, tower_layers(network.transformer), "end", network.ln_final, projection, causal=True)


Reading = Adapted | OpenAILayout


def reading_of(network: nn.Module) -> Reading:
    """How a network is read. This is the one place that tells the kinds of networks apart."""
    return network if isinstance(network, Adapted) else OpenAILayout(network)


def image_tower(network: nn.Module) -> Tower:
    """The image transformer of `network`; ModelError for a ResNet."""
    return reading_of(network).image_tower()


def text_tower(network: nn.Module) -> Tower:
    """The text transformer of `network`."""
    return reading_of(network).text_tower()
