"""Another library's network, described so that its towers are read where they are: `Adapted`.

Below model.py. Nothing is copied, patched or left changed: a description is made of the network's own modules whenever
a forward asks for one.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from clip_explain.errors import MethodError
from clip_explain.models.towers import Tower
from clip_explain.models.vocabulary import Vocabulary


class Sizes(NamedTuple):
    """Sides in pixels of the input that a network was trained on and of a cell of its maps; length of its embedding."""

    image: int
    patch: int
    embedding: int


@dataclass(frozen=True)
class Family:
    """How the networks of one kind are read, as functions of the network.

    `image` and `text` describe its towers: None where one is not a transformer that we can run, so that only the
    network's own forward is left; a text tower's description also takes the vocabulary. `encode_image` and
    `encode_text` are that forward, of pixels and of token numbers; the latter is None where texts go another way.
    `pooling` is the image tower's (see `Tower`).
    """

    name: str
    sizes: Callable[[nn.Module], Sizes]
    encode_image: Callable[[nn.Module, Tensor], Tensor]
    encode_text: Callable[[nn.Module, Tensor], Tensor] | None = None
    image: Callable[[nn.Module], Tower] | None = None
    text: Callable[[nn.Module, Vocabulary], Tower] | None = None
    pooling: str = "class"


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
        """The logarithm of what the cosine is multiplied by; 0 where the network has none."""
        return self._scalar("logit_scale")

    @property
    def logit_bias(self) -> Float[Tensor, ""]:
        """What is added to the logit, as in SigLIP, whose score is a sigmoid; 0 where the network has none."""
        return self._scalar("logit_bias")

    def _scalar(self, name: str) -> Tensor:
        value = getattr(self.whole, name, None)
        return (
            torch.zeros((), device=self.weight.device, dtype=torch.float32)
            if value is None
            else value.detach().reshape(())
        )
