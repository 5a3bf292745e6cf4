"""Texts as token numbers, by any tokenizer: start, the text's own, end, padding. `Vocabulary` describes a tokenizer."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import torch
from jaxtyping import Int
from torch import Tensor

from clip_explain.errors import TextError

Texts = Annotated[str | Sequence[str], TextError, "a text or a list of texts"]
LETTERS_A_TOKEN = 50  # more than any token has: a text of so many for each token of the context is too long
BROKEN = "\ufffd"  # stands for bytes that do not form a whole character


@dataclass(frozen=True)
class Vocabulary:
    """How a text becomes numbers: `start`, the text's own (`encode`), `end`, then `pad` up to the context.

    `ends_word` says of each of a text's own numbers whether a word ends there. With `left` the padding stands before
    the start.
    """

    encode: Callable[[str], list[int]]
    decode: Callable[[Sequence[int]], str]
    ends_word: Callable[[Sequence[int]], list[bool]]
    start: tuple[int, ...]
    end: tuple[int, ...]
    pad: int = 0
    left: bool = False

    @property
    def special(self) -> tuple[int, ...]:
        """The numbers that belong to no text: start, end and padding."""
        return (*self.start, *self.end, self.pad)

    def words(self, numbers: Sequence[int]) -> list[list[int]]:
        """The words of a text's own numbers, each as the places of its numbers."""
        found, word = [], []
        for place, ends in enumerate(self.ends_word(numbers)):
            word.append(place)
            if ends:
                found.append(word)
                word = []
        return [*found, word] if word else found

    def said(self, numbers: Sequence[int]) -> list[str]:
        """The words of a text's own numbers as they are written."""
        return [self.decode([numbers[place] for place in word]).strip() for word in self.words(numbers)]


def openai_vocabulary(tokenizer: Any) -> Vocabulary:
    """OpenAI's (and open_clip's) `SimpleTokenizer`: start and end are its last two numbers, a word ends in </w>."""
    count = len(tokenizer.encoder)

    def ends_word(numbers: Sequence[int]) -> list[bool]:
        return [tokenizer.decoder[number].endswith("</w>") for number in numbers]

    return Vocabulary(tokenizer.encode, tokenizer.decode, ends_word, (count - 2,), (count - 1,))


def hub_vocabulary(tokenizer: Any) -> Vocabulary:
    """A tokenizer of transformers: what it puts around a text is read off one text, with and without."""
    own = tokenizer("a", add_special_tokens=False)["input_ids"]
    full = tokenizer("a")["input_ids"]
    first = next(place for place in range(len(full)) if full[place : place + len(own)] == own)

    def encode(text: str) -> list[int]:
        return tokenizer(text, add_special_tokens=False)["input_ids"]

    def ends_word(numbers: Sequence[int]) -> list[bool]:
        return word_ends(tokenizer.convert_ids_to_tokens(list(numbers)))

    return Vocabulary(
        encode,
        lambda numbers: tokenizer.decode(list(numbers)),
        ends_word,
        start=tuple(full[:first]),
        end=tuple(full[first + len(own) :]),
        pad=tokenizer.pad_token_id or 0,
        left=tokenizer.padding_side == "left",
    )


def word_ends(tokens: Sequence[str]) -> list[bool]:
    """Where words end among tokens that mark a word's end by </w>, as CLIP's, or its beginning by a space's sign."""
    if any(token.endswith("</w>") for token in tokens):
        return [token.endswith("</w>") for token in tokens]
    begins = [token.startswith(("▁", "Ġ", " ")) for token in tokens]
    return [*begins[1:], True] if tokens else []


# -- texts as numbers


def token_numbers(
    vocabulary: Vocabulary, context: int, texts: Sequence[str], truncate: bool = False
) -> Int[Tensor, "texts context"]:
    """Token numbers of texts: start, the text's, end, then padding up to `context` numbers (CLIP: zeros up to 77).

    With `truncate` a longer text loses its tail, the end token stays. Raises TextError for an empty text or list, a
    text of which the tokenizer leaves nothing ("&nbsp;"), one that holds the tokenizer's own marks
    ("<|endoftext|>"), and one that is too long.
    """
    if not texts:
        raise TextError("no texts: expected at least one")
    tokens = torch.full((len(texts), context), vocabulary.pad, dtype=torch.int32)
    for row, text in zip(tokens, texts, strict=True):
        numbers = torch.tensor(_encode(vocabulary, context, text, truncate))
        place = row[-len(numbers) :] if vocabulary.left else row[: len(numbers)]
        place.copy_(numbers)
    return tokens


def encoded(vocabulary: Vocabulary, text: str) -> list[int]:
    """A text's own numbers, without start and end. TextError if it has none, or holds one of the tokenizer's marks."""
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


def _encode(vocabulary: Vocabulary, limit: int, text: str, truncate: bool) -> list[int]:
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
