"""A caption grammar for scenes, with synonyms, and which captions are true of which pictures.

A `Caption` holds claims, and `say` puts them into words. `truth` compares them with a batch of facts and has three
values, since a picture that is grey, or that shows only a part of an object, leaves some claims open.
"""

from dataclasses import dataclass

import numpy as np

from clip_explain.embedded.scenes.world import ATTRIBUTES

WORDS = {  # the words for each value; the first is the plain name
    "large": ("large", "big"),
    "small": ("small", "tiny"),
    "metal": ("metal", "shiny", "metallic"),
    "rubber": ("rubber", "matte"),
    "cube": ("cube", "block"),
    "sphere": ("sphere", "ball"),
    "cylinder": ("cylinder",),
    "cone": ("cone",),
    "ring": ("ring", "donut"),
}
NOUNS = ("thing", "object")
RELATIONS = ("left of", "right of", "in front of", "behind")
RELATION_WORDS = {
    "left of": ("left of", "to the left of"),
    "right of": ("right of", "to the right of"),
    "in front of": ("in front of",),
    "behind": ("behind",),
}
PLACES = ("on the left", "on the right")
FRAMES = ("{}", "{}", "{}", "a photo of {}", "a picture of {}", "there is {}", "{} on grey ground")
# What `say_freely` has: frames, joints (all but the last, the last), articles, and the shares of its styles.
FREE_FRAMES = ("{}",) * 6 + (
    "a photo of {}", "a picture of {}", "there is {}", "{} on grey ground", "an image of {}", "this is {}", "{} here",
    "we see {}", "photo of {}", "picture: {}", "{}, seen from above", "look, {}",
)  # fmt: skip
JOINTS = ((", ", " and "),) * 3 + ((" and ", " and "), (", ", ", "), (" with ", " and "), (" ", " "))
ARTICLES = ("a", "the", "one", "this", "some")
BETWEEN = (", ", " that is ", " in ")  # a noun and the adjectives that follow it
STYLES = {"plain": 0.35, "bare": 0.35, "article": 0.15, "after": 0.15}
CONFUSED = {  # the shapes that a shape is most easily taken for
    "cube": ("cylinder",),
    "cylinder": ("cube", "cube", "cone"),
    "sphere": ("cylinder", "ring"),
    "cone": ("cylinder", "sphere"),
    "ring": ("sphere", "cylinder"),
}
NOT_SAID = -2


@dataclass(frozen=True)
class Caption:
    """Claims that distinct objects exist, a phrase for each: indices into size, color, material, shape (-2: not said).

    `relation` holds between the first two objects; `place` is where in the picture the first one stands.
    """

    phrases: tuple[tuple[int, int, int, int], ...]
    relation: str | None = None
    place: str | None = None


@dataclass(frozen=True)
class Facts:
    """The facts about a batch of pictures: attributes (images, objects, 4), -1 where there is no object;
    seen (images, objects): 1 clearly, 0 not at all, -1 hardly; along (images, objects, 2): right and depth on the
    ground; across (images, objects): horizontal place in the picture, 0 to 1; color and size (images,): whether they
    are visible.
    """

    attributes: np.ndarray
    seen: np.ndarray
    along: np.ndarray
    across: np.ndarray
    color: np.ndarray
    size: np.ndarray


def phrase(**said: str) -> tuple[int, int, int, int]:
    """Indices of a phrase from names: phrase(color="red", shape="cube")."""
    numbers = [values.index(said[key]) if key in said else NOT_SAID for key, values in ATTRIBUTES.items()]
    size, color, material, shape = numbers
    return size, color, material, shape


def say(caption: Caption, rng: np.random.Generator | None = None) -> str:
    """The caption in words; without `rng` always the plain wording."""
    parts = [_say_phrase(p, rng) for p in caption.phrases]
    if caption.relation:
        parts[:2] = [f"{parts[0]} {_pick(RELATION_WORDS[caption.relation], rng)} {parts[1]}"]
    if caption.place:
        parts[0] += f" {caption.place}"
    joined = parts[0] if len(parts) == 1 else ", ".join(parts[:-1]) + " and " + parts[-1]
    return _pick(FRAMES, rng).format(joined)


def _pick(options: tuple[str, ...], rng: np.random.Generator | None) -> str:
    return options[0] if rng is None else options[rng.integers(len(options))]


def _say_phrase(said: tuple[int, ...], rng: np.random.Generator | None) -> str:
    words = [_word(values[i], rng) for i, values in zip(said, ATTRIBUTES.values(), strict=True) if i != NOT_SAID]
    if said[3] == NOT_SAID:
        words.append(_pick(NOUNS, rng))
    return f"a {' '.join(words)}"


def say_freely(caption: Caption, rng: np.random.Generator) -> str:
    """The caption in a wider choice of words than `say` has, so that only its content words carry its meaning.

    At random it has no articles or others than "a", the noun before its adjectives, or one word for one claim.
    """
    style = str(rng.choice(list(STYLES), p=list(STYLES.values())))
    parts = [_say_phrase_freely(p, style, rng) for p in caption.phrases]
    if caption.relation:
        parts[:2] = [f"{parts[0]} {_pick(RELATION_WORDS[caption.relation], rng)} {parts[1]}"]
    if caption.place:
        parts[0] += f" {caption.place}"
    joint, last = JOINTS[rng.integers(len(JOINTS))]
    joined = parts[0] if len(parts) == 1 else joint.join(parts[:-1]) + last + parts[-1]
    return _pick(FREE_FRAMES, rng).format(joined)


def _say_phrase_freely(said: tuple[int, ...], style: str, rng: np.random.Generator) -> str:
    words = [_word(values[i], rng) for i, values in zip(said, ATTRIBUTES.values(), strict=True) if i != NOT_SAID]
    if style == "bare" and len(words) == 1 and rng.random() < 0.7:
        return words[0]
    if said[3] == NOT_SAID:
        words.append(_pick(NOUNS, rng))
    if style == "bare":
        return " ".join(words)
    article = "a" if style == "plain" or rng.random() < 0.5 else _pick(ARTICLES, rng)
    if style == "after" and len(words) > 1:
        return f"{article} {words[-1]}{_pick(BETWEEN, rng)}{' and '.join(words[:-1])}"
    return f"{article} {' '.join(words)}"


def _word(value: str, rng: np.random.Generator | None) -> str:
    return _pick(WORDS.get(value, (value,)), rng)


# -- truth


def truth(captions: list[Caption], facts: Facts) -> np.ndarray:
    """int8 (images, captions): 1 true, 0 false, -1 undecidable from the picture."""
    sure, may = np.zeros((2, len(facts.seen), len(captions)), bool)
    for kind in {(len(c.phrases), c.relation, c.place) for c in captions}:
        columns = [i for i, c in enumerate(captions) if (len(c.phrases), c.relation, c.place) == kind]
        asked = np.array([captions[i].phrases for i in columns])  # (captions, phrases, 4)
        for out, certain in ((sure, True), (may, False)):
            out[:, columns] = _holds(asked, kind[1], kind[2], facts, certain)
    return np.where(sure, 1, np.where(may, -1, 0)).astype(np.int8)


def _holds(asked: np.ndarray, relation: str | None, place: str | None, facts: Facts, certain: bool) -> np.ndarray:
    """Whether distinct objects fit the phrases, (images, captions). `certain` counts only facts that are visible."""
    fits = [_matches(asked[:, i], facts, certain) for i in range(asked.shape[1])]  # each (images, captions, objects)
    if place:
        fits[0] &= _placed(place, facts, certain)[:, None]
    if len(fits) == 1:
        return np.any(fits[0], -1)
    pairs = fits[0][..., :, None] & fits[1][..., None, :] & ~np.eye(fits[0].shape[-1], dtype=bool)
    if relation:
        pairs &= _related(relation, facts)[:, None]
    if len(fits) == 2:
        return np.any(pairs, (-2, -1))
    apart = ~np.eye(pairs.shape[-1], dtype=bool)
    third = fits[2][..., None, None, :] & apart[:, None, :] & apart[None, :, :]
    return np.any(pairs[..., None] & third, (-3, -2, -1))


def _matches(asked: np.ndarray, facts: Facts, certain: bool) -> np.ndarray:
    """Whether each object fits a phrase, (images, captions, objects)."""
    fits = np.ones((len(facts.seen), len(asked), facts.seen.shape[1]), bool)
    known = {0: facts.size, 1: facts.color}
    for key in range(4):
        said = asked[None, :, None, key]
        same = facts.attributes[:, None, :, key] == said
        open_ = np.zeros((1, 1, 1), bool) if certain or key not in known else ~known[key][:, None, None]
        told = known[key][:, None, None] if certain and key in known else True
        fits &= (said == NOT_SAID) | (same & told) | open_
    seen = facts.seen == 1 if certain else facts.seen != 0
    return fits & (seen & (facts.attributes[:, :, 0] >= 0))[:, None]


def _placed(place: str, facts: Facts, certain: bool) -> np.ndarray:
    across = facts.across if place == "on the left" else 1 - facts.across
    return across < (0.4 if certain else 0.55)


def _related(relation: str, facts: Facts) -> np.ndarray:
    axis, sign = {"left of": (0, -1), "right of": (0, 1), "in front of": (1, -1), "behind": (1, 1)}[relation]
    along = facts.along[..., axis] * sign
    return along[:, :, None] - along[:, None, :] > 0.2


# -- drawing captions that are true of a picture

KINDS = {  # the share of each set of attributes (size, color, material, shape) in captions of an object
    "single": (((0, 0, 0, 1), 0.4), ((0, 1, 0, 0), 0.25), ((0, 0, 1, 0), 0.15), ((1, 0, 0, 0), 0.2)),
    "double": (
        ((0, 1, 0, 1), 0.5),
        ((0, 0, 1, 1), 0.15),
        ((1, 0, 0, 1), 0.15),
        ((0, 1, 1, 0), 0.1),
        ((1, 1, 0, 0), 0.1),
    ),
    "full": (((1, 1, 0, 1), 0.3), ((0, 1, 1, 1), 0.3), ((1, 0, 1, 1), 0.1), ((1, 1, 1, 1), 0.3)),
}


def draw_caption(facts: Facts, i: int, shares: dict[str, float], rng: np.random.Generator) -> Caption | None:
    """A caption true of picture i, of a kind drawn by `shares`: those of KINDS, "place", "pair", "relation", "triple".

    None where no object is clearly seen. Size and colour are named only where they are visible.
    """
    visible = np.flatnonzero(facts.seen[i] == 1)
    if not len(visible):
        return None
    kind = str(rng.choice(list(shares), p=np.array(list(shares.values())) / sum(shares.values())))
    wanted = {"pair": 2, "relation": 2, "triple": 3}.get(kind, 1)
    objects = rng.permutation(visible)[:wanted]
    level = kind if kind in KINDS else str(rng.choice(["double", "full"], p=[0.75, 0.25]))
    phrases = tuple(_draw_phrase(facts, i, int(t), level, rng) for t in objects)
    if kind == "place" and abs(facts.across[i, objects[0]] - 0.5) > 0.1:
        return Caption(phrases, place=PLACES[int(facts.across[i, objects[0]] > 0.5)])
    if kind == "relation" and len(objects) == 2:
        true = [r for r in RELATIONS if _related(r, facts)[i, objects[0], objects[1]]]
        return Caption(phrases, relation=str(rng.choice(true))) if true else Caption(phrases)
    return Caption(phrases)


def draw_swap(facts: Facts, i: int, rng: np.random.Generator) -> Caption | None:
    """A caption with one seen object's colour and another's shape: a hard negative, mostly false of picture i.

    None where colour is not visible or no two seen objects differ in both.
    """
    visible = np.flatnonzero(facts.seen[i] == 1)
    names = facts.attributes[i, visible]
    pairs = [(a, b) for a in names for b in names if a[1] != b[1] and a[3] != b[3]]
    if not pairs or not facts.color[i]:
        return None
    one, other = pairs[rng.integers(len(pairs))]
    return Caption(((NOT_SAID, int(one[1]), NOT_SAID, int(other[3])),))


def draw_confusion(facts: Facts, i: int, rng: np.random.Generator) -> Caption | None:
    """A caption that calls a seen object by the shape that is most similar: a cylinder a cube, and so on.

    Its colour, size or material is true. None where no object is clearly seen.
    """
    visible = np.flatnonzero(facts.seen[i] == 1)
    if not len(visible):
        return None
    size, color, material, shape = facts.attributes[i, rng.choice(visible)].tolist()
    shapes = ATTRIBUTES["shape"]
    said = [NOT_SAID, NOT_SAID, NOT_SAID, shapes.index(str(rng.choice(CONFUSED[shapes[shape]])))]
    kind = rng.random()
    if kind < 0.7 and facts.color[i]:
        said[1] = color
    elif kind < 0.85:
        said[2] = material
    elif facts.size[i]:
        said[0] = size
    return Caption((tuple(said),))


def all_pairs() -> list[Caption]:
    """Every colour, size and material with every shape: 60 captions, most of them false of any one picture."""
    found = []
    for key in ("color", "size", "material"):
        found += [Caption((phrase(**{key: a, "shape": b}),)) for a in ATTRIBUTES[key] for b in ATTRIBUTES["shape"]]
    return found


def _draw_phrase(facts: Facts, i: int, obj: int, level: str, rng: np.random.Generator) -> tuple[int, ...]:
    options = KINDS[level]
    keep = options[rng.choice(len(options), p=[share for _, share in options])][0]
    told = (facts.size[i], facts.color[i], True, True)
    said = [int(v) if k and t else NOT_SAID for v, k, t in zip(facts.attributes[i, obj], keep, told, strict=True)]
    return (
        tuple(said)
        if any(v != NOT_SAID for v in said)
        else (NOT_SAID, NOT_SAID, NOT_SAID, int(facts.attributes[i, obj, 3]))
    )
