"""A model's own token numbers and text features, `tokenize` and `encode_text`, as public functions.

What they and the explainers share are the methods of `Model`.
"""

import warnings

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from clip_explain.checks import checked
from clip_explain.models import model as models
from clip_explain.models.layers import evaluated
from clip_explain.models.model import Model, checked_embedding
from clip_explain.models.tokenizer import Texts


@checked()
def tokenize(model: Model, texts: Texts, truncate: bool = False) -> Int[Tensor, "texts context"]:
    """Token numbers of texts: start, the text's, end, then padding up to the model's context (CLIP: zeros up to 77).

    With `truncate` a longer text loses its tail, the end token stays. Raises TextError for an empty text or list, a
    text of which the tokenizer leaves nothing ("&nbsp;"), one that holds the tokenizer's own marks
    ("<|endoftext|>"), and one that is too long.
    """
    return model.tokenize(texts, truncate)


@checked()
def encode_text(model: Model, texts: Texts, truncate: bool = False) -> Float[Tensor, "texts embedding"]:
    """The model's own text features at unit length, in float32."""
    with torch.no_grad(), evaluated(model.network):
        if model.text_encoder is not None:
            embedding = model.text_encoder([texts] if isinstance(texts, str) else list(texts), truncate)
        else:
            embedding = model.encode_text(model.tokenize(texts, truncate))
        return nn.functional.normalize(checked_embedding(embedding).float(), dim=-1)


# Functions of an earlier release -> the method of `Model`, or the function, that is called now.
RENAMED = {
    "embed_images": Model.embed_images,
    "embed_texts": Model.embed_texts,
    "embed_tokens": Model.embed_tokens,
    "image_features": models.image_features,
    "unit": models.unit,
}


def __getattr__(name: str):
    if name not in RENAMED:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    now = RENAMED[name].__qualname__
    warnings.warn(f"clip_explain.models.embed.{name} is now {now} of models.model", DeprecationWarning, stacklevel=2)
    return RENAMED[name]
