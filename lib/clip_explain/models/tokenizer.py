"""Texts as CLIP's token numbers: start, the text's own, end, zeros."""

from collections.abc import Sequence

import torch
from jaxtyping import Int
from torch import Tensor

from clip_explain.errors import MethodError, TextError
from clip_explain.models.model import Model
from clip_explain.models.vocabulary import Vocabulary, openai_vocabulary


def tokenize(model: Model, texts: str | Sequence[str], truncate: bool = False) -> Int[Tensor, "texts context"]:
    """Token numbers of texts: start, the text's, end, then padding up to the model's context (CLIP: zeros up to 77).

    With `truncate` a longer text loses its tail, the end token stays. Raises TextError for an empty text or list,
    for something that is no text, and for a text that is too long.
    """
    texts = [texts] if isinstance(texts, str) else list(texts)
    if not texts:
        raise TextError("no texts: expected at least one")
    vocabulary = vocabulary_of(model)
    tokens = torch.full((len(texts), model.context_length), vocabulary.pad, dtype=torch.int32)
    for row, text in zip(tokens, texts, strict=True):
        numbers = torch.tensor(_encode(model, vocabulary, text, truncate))
        place = row[-len(numbers) :] if vocabulary.left else row[: len(numbers)]
        place.copy_(numbers)
    return tokens.to(model.device)


def vocabulary_of(model: Model) -> Vocabulary:
    """The tokenizer of a model in our terms. MethodError for a model without a text tower that we can read."""
    if model.tokenizer is None:
        raise MethodError(f"{model.name} has no text tower like CLIP's: its image can be explained, words cannot")
    return model.tokenizer if isinstance(model.tokenizer, Vocabulary) else openai_vocabulary(model.tokenizer)


def _encode(model: Model, vocabulary: Vocabulary, text: str, truncate: bool) -> list[int]:
    if not isinstance(text, str):
        raise TextError(f"expected a text, got {type(text).__name__}")
    if not text.strip():
        raise TextError(f"the text {text!r} is empty")
    numbers = [*vocabulary.start, *vocabulary.encode(text), *vocabulary.end]
    limit = model.context_length
    if len(numbers) > limit and not truncate:
        raise TextError(
            f"the text has {len(numbers)} tokens with its start and end, the model takes {limit}: {text[:60]!r}... "
            "Shorten it, or allow truncation (truncate=True)."
        )
    return numbers if len(numbers) <= limit else [*numbers[: limit - len(vocabulary.end)], *vocabulary.end]
