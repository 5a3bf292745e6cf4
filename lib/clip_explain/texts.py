"""Prompt templates as data, the texts that are made of them, and the removal of words or tokens from a text."""

import re
from collections.abc import Sequence
from typing import Annotated

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from clip_explain.checks import checked
from clip_explain.errors import TextError, nearest
from clip_explain.models.adapted import text_tower
from clip_explain.models.model import Model
from clip_explain.models.tokenizer import Vocabulary, encoded
from clip_explain.models.vit import own_tokens

# The 80 templates for ImageNet of OpenAI's CLIP, in its order: notebooks/Prompt_Engineering_for_ImageNet.ipynb of
# github.com/openai/CLIP, MIT License, Copyright (c) 2021 OpenAI.
IMAGENET_TEMPLATES: tuple[str, ...] = (
    "a bad photo of a {}.",
    "a photo of many {}.",
    "a sculpture of a {}.",
    "a photo of the hard to see {}.",
    "a low resolution photo of the {}.",
    "a rendering of a {}.",
    "graffiti of a {}.",
    "a bad photo of the {}.",
    "a cropped photo of the {}.",
    "a tattoo of a {}.",
    "the embroidered {}.",
    "a photo of a hard to see {}.",
    "a bright photo of a {}.",
    "a photo of a clean {}.",
    "a photo of a dirty {}.",
    "a dark photo of the {}.",
    "a drawing of a {}.",
    "a photo of my {}.",
    "the plastic {}.",
    "a photo of the cool {}.",
    "a close-up photo of a {}.",
    "a black and white photo of the {}.",
    "a painting of the {}.",
    "a painting of a {}.",
    "a pixelated photo of the {}.",
    "a sculpture of the {}.",
    "a bright photo of the {}.",
    "a cropped photo of a {}.",
    "a plastic {}.",
    "a photo of the dirty {}.",
    "a jpeg corrupted photo of a {}.",
    "a blurry photo of the {}.",
    "a photo of the {}.",
    "a good photo of the {}.",
    "a rendering of the {}.",
    "a {} in a video game.",
    "a photo of one {}.",
    "a doodle of a {}.",
    "a close-up photo of the {}.",
    "a photo of a {}.",
    "the origami {}.",
    "the {} in a video game.",
    "a sketch of a {}.",
    "a doodle of the {}.",
    "a origami {}.",
    "a low resolution photo of a {}.",
    "the toy {}.",
    "a rendition of the {}.",
    "a photo of the clean {}.",
    "a photo of a large {}.",
    "a rendition of a {}.",
    "a photo of a nice {}.",
    "a photo of a weird {}.",
    "a blurry photo of a {}.",
    "a cartoon {}.",
    "art of a {}.",
    "a sketch of the {}.",
    "a embroidered {}.",
    "a pixelated photo of a {}.",
    "itap of the {}.",
    "a jpeg corrupted photo of the {}.",
    "a good photo of a {}.",
    "a plushie {}.",
    "a photo of the nice {}.",
    "a photo of the small {}.",
    "a photo of the weird {}.",
    "the cartoon {}.",
    "art of the {}.",
    "a drawing of the {}.",
    "a photo of the large {}.",
    "a black and white photo of a {}.",
    "the plushie {}.",
    "a dark photo of a {}.",
    "itap of a {}.",
    "graffiti of the {}.",
    "a toy {}.",
    "itap of my {}.",
    "a photo of a cool {}.",
    "a photo of a small {}.",
    "a tattoo of the {}.",
)

# The 85 of CLIP Surgery, in use for segmentation since MaskCLIP: those and five that speak of a scene.
SURGERY_TEMPLATES: tuple[str, ...] = (
    *IMAGENET_TEMPLATES,
    "there is a {} in the scene.",
    "there is the {} in the scene.",
    "this is a {} in the scene.",
    "this is the {} in the scene.",
    "this is one {} in the scene.",
)

# The 59 classes of Pascal Context (Mottaghi et al. 2014): what CLIP Surgery's demonstration, and Grad-ECLIP's code
# after it, put beside the text that is explained.
CONTEXT_NOUNS: tuple[str, ...] = tuple(
    """airplane, bag, bed, bedclothes, bench, bicycle, bird, boat, book, bottle, building, bus, cabinet, car, cat,
    ceiling, chair, cloth, computer, cow, cup, curtain, dog, door, fence, floor, flower, food, grass, ground, horse,
    keyboard, light, motorbike, mountain, mouse, person, plate, platform, potted plant, road, rock, sheep, shelves,
    sidewalk, sign, sky, snow, sofa, table, track, train, tree, truck, tv monitor, wall, water, window,
    wood""".replace("\n    ", " ").split(", ")
)

TEMPLATE_SETS: dict[str, tuple[str, ...]] = {"imagenet": IMAGENET_TEMPLATES, "clip_surgery": SURGERY_TEMPLATES}
Templates = Annotated[str | Sequence[str], TextError, "a template or a list of them, or the name of a set"]
BARE = ("{}",)  # the text itself
# A word where no tokenizer of ours tells: a run of letters and digits, a sign of Chinese or Japanese, or another mark.
SIGNS = "\u3040-\u30ff\u3400-\u9fff"
WORD = re.compile(rf"[{SIGNS}]|[^\W{SIGNS}]+(?:['’-][^\W{SIGNS}]+)*|[^\w\s]")


@checked()
def template_list(templates: Templates) -> list[str]:
    """The templates of a set by name, one template, or several. TextError for an unknown set or one without {}."""
    if isinstance(templates, str) and templates in TEMPLATE_SETS:
        return list(TEMPLATE_SETS[templates])
    found = [templates] if isinstance(templates, str) else list(templates)
    if not found or not all(isinstance(template, str) and "{}" in template for template in found):
        named = nearest(str(templates), TEMPLATE_SETS)
        raise TextError(
            f"got templates {templates!r}, expected one or more with a {{}} for the text, or a set: {named}"
        )
    return found


def drop_tokens(
    tokens: Int[Tensor, "texts context"], dropped: Bool[Tensor, "texts context"], vocabulary: Vocabulary | None = None
) -> Tensor:
    """Tokens without the dropped ones: the rest closes up, and padding (zeros, or the vocabulary's) fills the end."""
    left = vocabulary is not None and vocabulary.left
    order = (~dropped if left else dropped).to(torch.int8).argsort(dim=-1, stable=True)
    return tokens.masked_fill(dropped, 0 if vocabulary is None else vocabulary.pad).gather(-1, order)


def spoken_words(text: str) -> list[str]:
    """The words of a text as it is written, for a model whose tokens are not read; see WORD."""
    return WORD.findall(text)


def without_each_word(text: str) -> list[str]:
    """A text without each of its `spoken_words` in turn; the spaces around it close up."""
    return [_cut(text, [found.span()]) for found in WORD.finditer(text)]


def without_said(text: str, word: str) -> str:
    """A text without every occurrence of one word, or of several in a row. TextError if there is none."""
    places, wanted = [found.span() for found in WORD.finditer(text)], [each.lower() for each in spoken_words(word)]
    said = [text[start:end].lower() for start, end in places]
    dropped = set()
    for start in range(len(said) - len(wanted) + 1):
        if wanted and said[start : start + len(wanted)] == wanted:
            dropped |= set(range(start, start + len(wanted)))
    if not dropped:
        raise TextError(f"there is no word {word!r} in the text {text!r}")
    return _cut(text, [places[index] for index in sorted(dropped)])


def _cut(text: str, places: Sequence[tuple[int, int]]) -> str:
    for start, end in reversed(places):
        text = text[:start] + text[end:]
    return " ".join(text.split())


def _occurrences(model: Model, row: Int[Tensor, " context"], word: str) -> Bool[Tensor, " context"]:
    """True for the tokens of every occurrence of whole word(s) in a text's tokens."""
    vocabulary = model.vocabulary
    places = own_tokens(text_tower(model.network), row[None])[0].nonzero()[:, 0]
    numbers = row[places].tolist()
    words, said = vocabulary.words(numbers), vocabulary.said(numbers)
    wanted = vocabulary.said(encoded(vocabulary, word))
    found = torch.zeros_like(row, dtype=torch.bool)
    for start in range(len(words) - len(wanted) + 1):
        if said[start : start + len(wanted)] == wanted:
            found[places[sum(words[start : start + len(wanted)], [])]] = True
    if not found.any():
        raise TextError(f"there is no word {word!r} in the text {vocabulary.decode(numbers).strip()!r}")
    return found
