"""Texts as CLIP's token numbers: start, the text's own, end, zeros."""

from collections.abc import Sequence
from typing import Annotated

import torch
from jaxtyping import Int
from torch import Tensor

from clip_explain.checks import checked
from clip_explain.errors import MethodError, TextError
from clip_explain.models.model import Model
from clip_explain.models.vocabulary import Vocabulary, openai_vocabulary

Texts = Annotated[str | Sequence[str], TextError, "a text or a list of texts"]
LETTERS_A_TOKEN = 50  # more than any token has: a text of so many for each token of the context is too long
BROKEN = "\ufffd"  # what stands for bytes that are no whole character


@checked()
def tokenize(model: Model, texts: Texts, truncate: bool = False) -> Int[Tensor, "texts context"]:
    """Token numbers of texts: start, the text's, end, then padding up to the model's context (CLIP: zeros up to 77).

    With `truncate` a longer text loses its tail, the end token stays. Raises TextError for an empty text or list, a
    text of which the tokenizer leaves nothing ("&nbsp;"), one that holds the tokenizer's own marks
    ("<|endoftext|>"), and one that is too long.
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


def encoded(vocabulary: Vocabulary, text: str) -> list[int]:
    """A text's own numbers, without start and end. TextError if it has none, or holds a mark that is no text."""
    try:
        numbers = vocabulary.encode(text)
    except UnicodeError as error:
        raise TextError(f"the text {text[:60]!r} cannot be written in UTF-8: {error}") from error
    if not numbers:
        raise TextError(f"the text {text[:60]!r} is empty, or the tokenizer leaves nothing of it")
    if set(numbers) & {*vocabulary.start, *vocabulary.end}:
        raise TextError(f"the text {text[:60]!r} holds a mark that the tokenizer keeps for start and end: take it out")
    return numbers


def character_ends(vocabulary: Vocabulary, numbers: Sequence[int]) -> list[bool]:
    """After which of a text's tokens no character is left unfinished: tokens are made of bytes, and may hold a part."""
    found, part = [], []
    for number, ends_word in zip(numbers, vocabulary.ends_word(numbers), strict=True):
        part.append(number)
        found.append(ends_word or BROKEN not in vocabulary.decode(part))
        part = [] if found[-1] else part
    return found


def spelled(vocabulary: Vocabulary, numbers: Sequence[int]) -> str:
    """Tokens as a text, without spaces around it; an ellipsis in the place of a character that truncation has cut."""
    return vocabulary.decode(numbers).strip().replace(BROKEN, "…")


def _encode(model: Model, vocabulary: Vocabulary, text: str, truncate: bool) -> list[int]:
    limit = model.context_length
    if not text.strip():
        raise TextError(f"the text {text[:60]!r} is empty")
    if len(text) > limit * LETTERS_A_TOKEN:
        if not truncate:
            raise TextError(f"the text has {len(text)} letters, too many for the {limit} tokens that the model takes")
        text = " ".join(text.split())[: limit * LETTERS_A_TOKEN]
    numbers = [*vocabulary.start, *encoded(vocabulary, text), *vocabulary.end]
    if len(numbers) > limit and not truncate:
        raise TextError(
            f"the text has {len(numbers)} tokens with its start and end, the model takes {limit}: {text[:60]!r}... "
            "Shorten it, or allow truncation (truncate=True)."
        )
    return numbers if len(numbers) <= limit else [*numbers[: limit - len(vocabulary.end)], *vocabulary.end]
