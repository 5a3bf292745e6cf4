"""Texts as CLIP's token numbers: start, the text's own, end, zeros."""

from collections.abc import Sequence

import torch
from jaxtyping import Int
from torch import Tensor

from clip_explain.errors import MethodError, TextError
from clip_explain.models.model import Model


def tokenize(model: Model, texts: str | Sequence[str], truncate: bool = False) -> Int[Tensor, "texts context"]:
    """Token numbers of texts: start, the text's, end, then zeros up to the model's context (77).

    With `truncate` a longer text loses its tail, the end token stays. Raises TextError for an empty text or list,
    for something that is no text, and for a text that is too long.
    """
    if model.tokenizer is None:
        raise MethodError(f"{model.name} has no text tower like CLIP's: its image can be explained, words cannot")
    texts = [texts] if isinstance(texts, str) else list(texts)
    if not texts:
        raise TextError("no texts: expected at least one")
    tokens = torch.zeros(len(texts), model.context_length, dtype=torch.int32)
    for row, text in zip(tokens, texts, strict=True):
        numbers = _encode(model, text, truncate)
        row[: len(numbers)] = torch.tensor(numbers)
    return tokens.to(model.device)


def _encode(model: Model, text: str, truncate: bool) -> list[int]:
    if not isinstance(text, str):
        raise TextError(f"expected a text, got {type(text).__name__}")
    if not text.strip():
        raise TextError(f"the text {text!r} is empty")
    start, end = len(model.tokenizer.encoder) - 2, len(model.tokenizer.encoder) - 1  # the vocabulary's last two
    numbers = [start, *model.tokenizer.encode(text), end]
    limit = model.context_length
    if len(numbers) > limit and not truncate:
        raise TextError(
            f"the text has {len(numbers)} tokens with its start and end, the model takes {limit}: {text[:60]!r}... "
            "Shorten it, or allow truncation (truncate=True)."
        )
    return numbers if len(numbers) <= limit else numbers[: limit - 1] + [end]
