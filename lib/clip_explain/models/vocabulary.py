"""A tokenizer in the few terms that texts are read by, whoever made it: OpenAI's, or one of Hugging Face."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any


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
        """The numbers that are no text's own."""
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
