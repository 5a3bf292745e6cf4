"""A loaded model, `Model`: a plain, never patched network, its tokenizer, and what may be asked of it.

Above the forwards of vit.py and resnet.py and the description of a network in towers.py; loaders make one.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from clip_explain.checks import finite
from clip_explain.errors import MethodError, ModelError
from clip_explain.models.adapted import Adapted, Reading, reading_of
from clip_explain.models.agreement import check_agreement
from clip_explain.models.head import Head, class_bias
from clip_explain.models.layers import evaluated
from clip_explain.models.resnet import resnet_embedding, resnet_stage
from clip_explain.models.shown import check_drops, embed_shown
from clip_explain.models.tokenizer import Texts, Vocabulary, openai_vocabulary, token_numbers
from clip_explain.models.towers import VITS
from clip_explain.models.vit import trace_image, trace_text
from clip_explain.models.weights import clip

MEAN = (0.48145466, 0.4578275, 0.40821073)  # CLIP's own, per colour channel, for pixels in [0, 1]
STD = (0.26862954, 0.26130258, 0.27577711)
DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
TEXTS_AT_ONCE = 256
IMAGES_AT_ONCE = 8  # on a CPU, whose caches hold no more: 64 at once cost a tenth (ViT-B/16) to a third (tiny-vit) more


@dataclass(frozen=True)
class Model:
    """A model that compares images with targets: a CLIP, a classifier, or an image encoder alone.

    `network` is run as in evaluation mode and never changed; `sha256` is the checksum of its weights file. `mean` and
    `std` normalise pixels in [0, 1]. `tokenizer` is None where words cannot be explained. `head` is a classifier's,
    whose classes are the targets. `text_encoder` (texts, truncate) embeds texts that do not go through a text tower of
    the network that we can read.
    """

    network: nn.Module
    name: str
    sha256: str
    tokenizer: Any
    mean: tuple[float, float, float] = MEAN
    std: tuple[float, float, float] = STD
    head: Head | None = None
    text_encoder: Callable[[list[str], bool], Tensor] | None = None

    def __post_init__(self):
        """A network that is wrapped to run on several devices is read without its wrapper. ModelError for no CLIP."""
        if isinstance(self.network, nn.DataParallel | nn.parallel.DistributedDataParallel):
            object.__setattr__(self, "network", self.network.module)
        if not isinstance(self.network, Adapted) and not hasattr(self.network, "visual"):
            raise ModelError(
                f"got a {type(self.network).__name__} as the network of {self.name}, expected one laid out like "
                "OpenAI's or open_clip's CLIP; one of transformers is loaded by its name or folder, 'hf:NAME'"
            )

    # -- embeddings and scores

    def embed_images(self, pixels: Float[Tensor, "images 3 height width"]) -> Float[Tensor, "images embedding"]:
        """Embeddings of preprocessed pixels as `score` takes them: at unit length, except for a classifier's logits.

        The sides of the images are multiples of the patch, or of a ResNet's stride.
        """
        check_agreement(self.network, self.name)
        parts = pixels.split(IMAGES_AT_ONCE) if pixels.device.type == "cpu" else [pixels]
        embedding = checked_embedding(torch.cat([image_features(self, part) for part in parts]))
        return compared(embedding, self.similarity)

    def embed_shown(
        self, pixels: Float[Tensor, "1 3 height width"], sets: Bool[Tensor, "sets patches"], batch_size: int = 64
    ) -> Float[Tensor, "sets embedding"]:
        """Embeddings of one image as `embed_images` gives them, for each set of patches that are seen alone.

        The tokens of the others are left out, so a set costs what its patches cost. At most `batch_size` sets run at
        once. ModelError for a model without a class token, or with rotary positions.
        """
        check_drops(self.network, self.name)
        check_agreement(self.network, self.name)
        embedding = checked_embedding(embed_shown(self.network, pixels, sets, batch_size))
        return compared(embedding, self.similarity)

    def embed_texts(self, texts: list[str], truncate: bool = False) -> Float[Tensor, "texts embedding"]:
        """Unit embeddings of texts. TextError for one that is empty or too long; `truncate` allows too long ones."""
        if self.text_encoder is not None:
            return unit(checked_embedding(self.text_encoder(texts, truncate)))
        return self.embed_tokens(self.tokenize(texts, truncate))

    def embed_tokens(self, tokens: Int[Tensor, "texts context"]) -> Float[Tensor, "texts embedding"]:
        """Unit embeddings of texts as token numbers, without any work on padding."""
        check_agreement(self.network, self.name)
        parts = [trace_text(self.network, part).embedding for part in tokens.split(TEXTS_AT_ONCE)]
        return unit(checked_embedding(torch.cat(parts)))

    def encode_image(self, pixels: Tensor) -> Float[Tensor, "images embedding"]:
        """The image features by the network's own forward, not normalised."""
        network: Any = self.network
        return network.encode_image(pixels)

    def encode_text(self, tokens: Tensor) -> Float[Tensor, "texts embedding"]:
        """The text features by the network's own forward, not normalised."""
        network: Any = self.network
        return network.encode_text(tokens)

    def score(
        self, embedding: Float[Tensor, "images embedding"], targets: Float[Tensor, "targets embedding"]
    ) -> Float[Tensor, "images targets"]:
        """The score of embeddings, as `embed_images` gives them, and unit targets; `score_name` says which it is.

        The cosine; for a classifier's targets, the rows of its head, the logit with its bias.
        """
        found = embedding @ targets.T.to(embedding)
        return found if self.head is None else found + class_bias(self.head, targets).to(found)

    @property
    def score_name(self) -> str:
        """What the score is called: "cosine", or "logit" of a classifier."""
        return "cosine" if self.head is None else "logit"

    @property
    def similarity(self) -> str:
        """How an embedding is compared with a target: by the "cosine", or, for a classifier, by the "dot" product."""
        return "cosine" if self.head is None or self.head.features == "unit" else "dot"

    @property
    def logit_scale(self) -> float | Tensor:
        """What the score is multiplied by to be the model's logit: CLIP's learnt scale, 1 for a classifier."""
        return 1.0 if self.head is not None else self.network.logit_scale.detach().float().exp()

    @property
    def logit_bias(self) -> float | Tensor:
        """What is added to the scaled cosine to be the model's logit: SigLIP's learnt bias, else 0."""
        bias = getattr(self.network, "logit_bias", None)
        return 0.0 if bias is None or self.head is not None else bias.detach().float()

    @property
    def probability(self) -> str:
        """How a logit becomes a probability: a "softmax" over the texts, or each text's own "sigmoid", as in SigLIP."""
        biased = getattr(self.network, "logit_bias", None) is not None and self.head is None
        return "sigmoid" if biased else "softmax"

    def probabilities(self, scores: Float[Tensor, "*images targets"]) -> Float[Tensor, "*images targets"]:
        """Probabilities of targets by their scores: a softmax among them, or each one's own sigmoid; see `probability`.

        Of the logits: the scores at the learnt scale, and with the learnt bias, where there is one.
        """
        logits = scores * self.logit_scale + self.logit_bias
        return logits.sigmoid() if self.probability == "sigmoid" else logits.softmax(dim=-1)

    # -- texts

    def tokenize(self, texts: Texts, truncate: bool = False) -> Int[Tensor, "texts context"]:
        """Texts as token numbers, see `token_numbers`. MethodError for a model whose text tower we cannot read."""
        listed = [texts] if isinstance(texts, str) else list(texts)
        return token_numbers(self.vocabulary, self.context_length, listed, truncate).to(self.device)

    @property
    def vocabulary(self) -> Vocabulary:
        """The tokenizer in our terms. MethodError for a model whose text tower we cannot read."""
        if self.tokenizer is None:
            raise MethodError(f"{self.name} has no text tower like CLIP's: its image can be explained, words cannot")
        return self.tokenizer if isinstance(self.tokenizer, Vocabulary) else openai_vocabulary(self.tokenizer)

    @property
    def context_length(self) -> int:
        """The most tokens that a text may have, its start and end tokens included."""
        return int(self.network.context_length)

    # -- the network

    @property
    def reading(self) -> Reading:
        """How the network is read: its towers and sizes."""
        return reading_of(self.network)

    @property
    def device(self) -> torch.device:
        return self.reading.weight.device

    @property
    def dtype(self) -> torch.dtype:
        return self.reading.weight.dtype

    @property
    def encoder(self) -> str:
        """What the image encoder is to us, one of ENCODERS: see towers.py."""
        return self.reading.encoder

    @property
    def is_vit(self) -> bool:
        """Whether the image encoder is a transformer that is traced, however it pools its tokens."""
        return self.encoder in VITS

    @property
    def image_size(self) -> int:
        """The side in pixels of the square input that the network was trained on, or its short side if not square."""
        return min(self.image_shape)

    @property
    def image_shape(self) -> tuple[int, int]:
        """Height and width in pixels of the input that the network was trained on."""
        return self.reading.sizes.image

    @property
    def patch_size(self) -> int:
        """The side of one grid cell in pixels: a ViT's patch, a ResNet's total stride (32)."""
        return self.reading.sizes.patch

    @property
    def embedding_size(self) -> int:
        return self.reading.sizes.embedding


def image_features(model: Model, pixels: Float[Tensor, "images 3 height width"]) -> Float[Tensor, "images embedding"]:
    """Embeddings, not normalised, of pixels of any size that the patch, or a ResNet's stride, divides."""
    return FORWARDS[model.encoder](model.network, pixels)


def _traced(network: nn.Module, pixels: Tensor) -> Tensor:
    return trace_image(network, pixels).embedding


def _resnet(network: Any, pixels: Tensor) -> Tensor:
    with torch.no_grad():
        return resnet_embedding(network.visual, resnet_stage(network.visual, pixels))


def _own(network: Any, pixels: Tensor) -> Tensor:
    with torch.no_grad(), evaluated(network):
        return network.encode_image(pixels)


# What an image encoder is -> its forward.
FORWARDS: dict[str, Callable[[nn.Module, Tensor], Tensor]] = {
    "class": _traced,
    "attention": _traced,
    "mean": _traced,
    "resnet": _resnet,
    "convolutional": _own,
    "other": _own,
}


def unit(vectors: Float[Tensor, "*axes embedding"]) -> Float[Tensor, "*axes embedding"]:
    """Vectors scaled to length 1, in float32 at least; by the largest entry first, so that no length overflows."""
    vectors = vectors.to(torch.promote_types(vectors.dtype, torch.float32))
    largest = vectors.abs().amax(dim=-1, keepdim=True).clamp_min(torch.finfo(vectors.dtype).tiny)
    return F.normalize(vectors / largest, dim=-1)


def compared(embedding: Float[Tensor, "*axes embedding"], similarity: str) -> Float[Tensor, "*axes embedding"]:
    """Embeddings in float32 at least, ready for a similarity: at unit length for the "cosine", unscaled for "dot"."""
    if similarity == "cosine":
        return unit(embedding)
    return embedding.to(torch.promote_types(embedding.dtype, torch.float32))


def checked_embedding(embedding: Float[Tensor, "*axes embedding"]) -> Float[Tensor, "*axes embedding"]:
    """The embedding itself. TensorError where it is not finite: nothing is near it, and its maps would be NaN."""
    finite(f"an embedding in {embedding.dtype}", embedding.detach())
    return embedding


def place(network: nn.Module, device: torch.device, dtype: torch.dtype) -> nn.Module:
    """Move to the device and number format; the rule which parameters leave fp32 is OpenAI's `convert_weights`."""
    network = network.float()
    if dtype != torch.float32:
        clip.model.convert_weights(network)
        for parameter in network.parameters():
            if parameter.dtype == torch.float16:
                parameter.data = parameter.data.to(dtype)
    return network.to(device).eval().requires_grad_(False)
