"""The figures of an embedded CLIP's card, each with an interval: recognition, retrieval, maps and words.

All are measured on pictures that no training saw. Below clip.py, which writes them into the card.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, UInt8
from scipy.ndimage import distance_transform_edt
from torch import Tensor
from tqdm import tqdm

from clip_explain.datasets import FEWEST_PIXELS
from clip_explain.directions import targets
from clip_explain.embedded.scenes.captions import ARTICLES
from clip_explain.embedded.scenes.faces import MOODS
from clip_explain.embedded.scenes.pool import Pool, make_art, make_pool
from clip_explain.embedded.scenes.world import ATTRIBUTES
from clip_explain.embedded.training.removals import fill_in, pixels
from clip_explain.embedded.training.windows import normalized
from clip_explain.explainers import METHODS, explain_words
from clip_explain.images import encode_image, preprocess
from clip_explain.metrics.intervals import Interval, bootstrap
from clip_explain.metrics.pointing import pointing_game
from clip_explain.models.model import Model
from clip_explain.request import Request

HELD_OUT = 1_000_001  # the seed of the held-out pools; trainings use small ones
AT_ONCE = 50
NEAR = (
    8  # pixels around an object in which a maximum also counts; the pointing game's authors allow 15 in larger photos
)
MARGIN = 12  # pixels shown around an object that is shown alone
SQUARE = 16  # the side in pixels of patches that are removed
PAIRS = [f"a {color} {shape}" for color in ATTRIBUTES["color"] for shape in ATTRIBUTES["shape"]]
HEAVIEST, ALL = "heaviest word of content", "content words first"
LITTLE = (*ARTICLES, "and")  # words without content

Figures = dict[str, Interval]


def measure_clip(model: Model, folder: Path, scenes: int = 2000, values: int = 20) -> Figures:
    """All figures, on so many held-out pictures each (Shapley values on `values`); pools are rendered into `folder`.

    A ResNet points by Grad-CAM alone, and its words are explained as any.
    """
    recipes = ("one", "three", "several", "dominant")
    one, three, several, dominant = (held_out(folder, recipe, scenes) for recipe in recipes)
    found = recognition(model, one) | removals(model, one) | retrieval(model, three) | art(model, folder, scenes)
    found |= word_order(model, three, min(500, scenes))
    method = "grad_eclip" if model.is_vit else "grad_cam"
    found |= named("pointing game by chance", chance(several))
    found |= named("pointing game", pointing(model, several, method))
    found |= named("pointing game, one dominant object", pointing(model, dominant, method, dominant=True))
    if not model.is_vit:
        return found
    layers = len(model.network.visual.transformer.resblocks)
    found |= named("pointing game, native heads", pointing(model, several, heads="native"))
    found |= named("pointing game, maps of all layers summed", pointing(model, several, layers=layers))
    found |= named("pointing game, legrad", pointing(model, several, "legrad"))
    found |= named("pointing game, shapley values", pointing(model, several, "shapley", scenes=values))
    return found


def held_out(folder: Path, recipe: str, scenes: int) -> Pool:
    """A pool that no training draws from."""
    return make_pool(folder / f"held-out-{recipe}-{scenes}", scenes, HELD_OUT, recipe)


def share(hits) -> Interval:
    """The mean of hits, one for each picture, with its interval."""
    return bootstrap(np.asarray(hits, float), seed=0)


# -- recognition


def pictures_of(pool: Pool, rows: slice) -> UInt8[Tensor, "images 3 height width"]:
    """A pool's pictures."""
    return torch.from_numpy(pool.images[rows].copy()).permute(0, 3, 1, 2)


def pixels_of(pool: Pool, rows: slice) -> Float[Tensor, "images 3 height width"]:
    """Preprocessed pixels of a pool's pictures."""
    return normalized(pictures_of(pool, rows))


def features(model: Model, pool: Pool, change: Callable[[Tensor, int], Tensor] | None = None) -> Tensor:
    """Unit image embeddings of all of a pool's pictures; `change` (one picture, its row) alters each first."""
    found = []
    for start in tqdm(range(0, len(pool), AT_ONCE), "embedding", leave=False):
        shown = pictures_of(pool, slice(start, start + AT_ONCE))
        if change is not None:
            shown = torch.stack([change(image, start + i) for i, image in enumerate(shown)])
        found.append(encode_image(model, preprocess(model, normalized(shown))))
    return torch.cat(found)


def zero_shot(model: Model, embedded: Tensor, prompts: list[str]) -> Int[np.ndarray, " images"]:
    """The index of each picture's best prompt."""
    return (embedded @ targets(model, prompts).T).argmax(1).cpu().numpy()


def pair_of(attributes: Int[np.ndarray, "*objects 4"]) -> Int[np.ndarray, "*objects"]:
    """Index into `PAIRS` of objects' attributes."""
    return attributes[..., 1].astype(int) * len(ATTRIBUTES["shape"]) + attributes[..., 3]


def recognition(model: Model, pool: Pool) -> Figures:
    """Zero-shot accuracy on pictures of one object: colour and shape together, and each attribute by itself."""
    embedded, truth = features(model, pool), pool.attributes[:, 0]
    found = {"zero-shot color x shape": share(zero_shot(model, embedded, PAIRS) == pair_of(truth))}
    for column, (key, values) in enumerate(ATTRIBUTES.items()):
        prompts = [f"a {value}" if key == "shape" else f"a {value} object" for value in values]
        found[f"zero-shot {key}"] = share(zero_shot(model, embedded, prompts) == truth[:, column])
    return found


def removals(model: Model, pool: Pool) -> Figures:
    """Zero-shot accuracy, colour x shape, on pictures of one object of which parts are removed."""
    truth, found = pair_of(pool.attributes[:, 0]), {}
    for name, (draw, filling) in REMOVALS.items():
        embedded = features(model, pool, partial(remove, pool, draw, filling))
        found[f"color x shape, {name}"] = share(zero_shot(model, embedded, PAIRS) == truth)
    return found


def remove(pool: Pool, draw: Callable, filling: str, image: Tensor, row: int) -> Tensor:
    """A pool's picture less what `draw` (its ids, a generator) says; the row decides the generator."""
    rng = np.random.default_rng([HELD_OUT, row])
    return fill_in(image, draw(pool.ids[row], rng), filling, rng)


def around(ids: Int[np.ndarray, "height width"], rng) -> Bool[np.ndarray, "height width"]:
    """The pixels that lie more than `MARGIN` pixels from the first object."""
    return distance_transform_edt(ids != 0) > MARGIN


def some_pixels(share: float, ids: Int[np.ndarray, "height width"], rng) -> Bool[np.ndarray, "height width"]:
    """Single pixels, a share of all."""
    return pixels(len(ids), share, rng)


def half_the_patches(ids: Int[np.ndarray, "height width"], rng) -> Bool[np.ndarray, "height width"]:
    """Squares of 16 pixels, those of a ViT's grid, each with even odds."""
    cells = rng.random((len(ids) // SQUARE, len(ids) // SQUARE)) < 0.5
    return np.kron(cells, np.ones((SQUARE, SQUARE), bool))


REMOVALS = {  # what is removed, and what it is filled with
    "the object alone on black": (around, "black"),
    "the object alone on the mean": (around, "mean"),
    "20 % of single pixels black": (partial(some_pixels, 0.2), "black"),
    "50 % of single pixels black": (partial(some_pixels, 0.5), "black"),
    "50 % of patches black": (half_the_patches, "black"),
}


# -- retrieval


def retrieval(model: Model, pool: Pool, group: int = 100) -> Figures:
    """Text-to-image recall@1 among groups of pictures of three objects, by captions "a COLOR SHAPE, ... and ..."."""
    group = min(group, len(pool))
    embedded, captions, hits = features(model, pool), [list_objects(row) for row in pool.attributes], []
    for start in range(0, len(pool) - group + 1, group):
        first = {caption: i for i, caption in reversed(list(enumerate(captions[start : start + group])))}
        images = embedded[start : start + group][list(first.values())]
        best = (targets(model, list(first)) @ images.T).argmax(1).cpu()
        hits += (best == torch.arange(len(first))).tolist()
    return {f"text-to-image recall@1 of {group}": share(hits)}


def list_objects(attributes: Int[np.ndarray, "objects 4"]) -> str:
    """All objects of a scene by colour and shape."""
    names = [PAIRS[pair] for pair in pair_of(attributes[attributes[:, 0] >= 0])]
    return names[0] if len(names) == 1 else ", ".join(names[:-1]) + " and " + names[-1]


def art(model: Model, folder: Path, count: int, group: int = 100) -> Figures:
    """Zero-shot mood of faces, and recall@1 of paintings among `group` by their fullest caption."""
    made = make_art(folder / f"held-out-art-{count}", count, HELD_OUT)
    shown = torch.from_numpy(np.array(made.images)).permute(0, 3, 1, 2)
    parts = [normalized(some) for some in shown.split(AT_ONCE)]
    parts = tqdm(parts, "embedding", leave=False)
    embedded = torch.cat([encode_image(model, preprocess(model, part)) for part in parts])
    paintings, faces = embedded[0::2], embedded[1::2]
    group = min(group, len(paintings))
    moods = [f"a {mood} face" for mood in MOODS]
    right = zero_shot(model, faces, moods) == [moods.index(says[0]) for says in made.captions[1::2]]
    captions, found = [max(says, key=len) for says in made.captions[0::2]], []
    for start in range(0, len(paintings) - group + 1, group):
        best = (targets(model, captions[start : start + group]) @ paintings[start : start + group].T).argmax(1)
        found += (best.cpu() == torch.arange(len(best))).tolist()
    return {"zero-shot mood of faces": share(right), f"painting recall@1 of {group}": share(found)}


# -- maps


def named(figure: str, both: tuple[Interval, Interval]) -> Figures:
    """A pointing game's two figures by their names: on the object, and within NEAR pixels."""
    return {figure: both[0], f"{figure}, within {NEAR} pixels": both[1]}


def pointing(
    model: Model, pool: Pool, method: str = "grad_eclip", scenes: int | None = None, dominant: bool = False, **options
) -> tuple[Interval, Interval]:
    """Pointing game: is the map's maximum on the object that "a COLOR SHAPE" names; is it there or within NEAR pixels?

    Asked of every object that is the only one of its colour and shape in its picture and has 50 pixels in sight, or of
    the first, the dominant one, alone; pictures are what is resampled. On the first `scenes` pictures, or all.
    """
    directions, hits, owners = targets(model, PAIRS), [], []
    for scene, asked, masks in tqdm(askable(pool, scenes, dominant), "pointing", leave=False):
        request = Request(model, pixels_of(pool, slice(scene, scene + 1)), directions[asked])
        maps, objects = METHODS[method].image(request, **options)[0], torch.from_numpy(masks)
        hits.append(torch.stack([pointing_game(maps, objects, near) for near in (0, NEAR)], dim=1))
        owners += [scene] * len(asked)
    return _on_and_near(torch.cat(hits).numpy(), owners)


def chance(pool: Pool) -> tuple[Interval, Interval]:
    """The pointing game of a random point: how much of the picture is the named object; and with NEAR pixels around."""
    shares, owners = [], []
    for scene, _, masks in askable(pool):
        away = np.array([distance_transform_edt(~mask) for mask in masks], dtype=float)
        shares.append(np.stack([(away <= near).mean(axis=(1, 2)) for near in (0, NEAR)], axis=1))
        owners += [scene] * len(masks)
    return _on_and_near(np.concatenate(shares), owners)


def _on_and_near(hits: Float[np.ndarray, "objects 2"], owners: list[int]) -> tuple[Interval, Interval]:
    """The means of both columns, each with its interval over pictures."""
    on, near = (bootstrap(column.astype(float), seed=0, clusters=owners) for column in hits.T)
    return on, near


def askable(
    pool: Pool, scenes: int | None = None, dominant: bool = False
) -> Iterator[tuple[int, list[int], np.ndarray]]:
    """Each picture's row, the pairs that can be asked for in it, and their masks."""
    for scene, unique in enumerate(unique_objects(pool.attributes[:scenes])):
        ids = pool.ids[scene]
        asked = [(i, pair) for i, pair in unique if (ids == i).sum() >= FEWEST_PIXELS and not (dominant and i)]
        if asked:
            yield scene, [pair for _, pair in asked], np.stack([ids == i for i, _ in asked])


def unique_objects(attributes: Int[np.ndarray, "scenes objects 4"]) -> list[list[tuple[int, int]]]:
    """For each scene the objects that no other shares colour and shape with, and the index of their pair."""
    pairs = np.where(attributes[..., 0] >= 0, pair_of(attributes), -1)
    return [[(i, int(p)) for i, p in enumerate(row) if p >= 0 and (row == p).sum() == 1] for row in pairs]


# -- words


def word_order(model: Model, pool: Pool, count: int) -> Figures:
    """The shares of captions of three objects in which content words outweigh every article and "and".

    The heaviest content word, and all of them, by Grad-ECLIP's weights and by leaving one word out; each caption with
    its own picture. Grad-ECLIP gives many words exactly 0, so that all of them seldom outweigh an article.
    """
    captions = [list_objects(row) for row in pool.attributes[:count]]
    found = {f"{which}, {method}": [] for method in ("grad_eclip", "leave_one_out") for which in (HEAVIEST, ALL)}
    for row, caption in enumerate(tqdm(captions, "words", leave=False)):
        image = encode_image(model, preprocess(model, pixels_of(pool, slice(row, row + 1))))
        for method in ("grad_eclip", "leave_one_out"):
            ((words, weights),) = explain_words(model, image, caption, method, per="word")
            content, little = content_and_little(words, weights[0].tolist())
            found[f"{HEAVIEST}, {method}"].append(max(content) > max(little))
            found[f"{ALL}, {method}"].append(min(content) > max(little))
    return {name: share(hits) for name, hits in found.items()}


def content_and_little(words: Sequence[str], weights: Sequence[float]) -> tuple[list[float], list[float]]:
    """The weights of words of content, and those of articles and "and". Punctuation does not count."""
    weighed = list(zip(words, weights, strict=True))
    content = [weight for word, weight in weighed if word not in LITTLE and word.isalpha()]
    return content, [weight for word, weight in weighed if word in LITTLE]
