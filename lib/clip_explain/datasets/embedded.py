"""The embedded datasets: rendered on demand from (seed, index), with exact masks, and never trained on.

Above scenes/ and record.py. A record depends on its seed and index alone, so any part of a set can be made anywhere.
"""

import json
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import count as count_up
from pathlib import Path

import numpy as np

from clip_explain import files
from clip_explain.checks import count
from clip_explain.datasets.record import Dataset, Record, pick, picked, stack_masks
from clip_explain.embedded.scenes import domains, faces, paintings
from clip_explain.embedded.scenes.captions import Caption, phrase, say
from clip_explain.embedded.scenes.pool import GROUNDS, RECIPES, draw, set_off
from clip_explain.embedded.scenes.raycast import Picture, render
from clip_explain.embedded.scenes.world import COLORS, SHAPES, Object
from clip_explain.errors import DatasetError
from clip_explain.models.outside import rendered

HELD_OUT = 2_000_000  # seeds from here on: no training draws its scenes, nor does a card
FEWEST_PIXELS = 50  # an object of which less is in sight, at 224 pixels, is not asked for
DOMINANT = (0.05, 0.4)  # the share of its picture that a dominant object covers
SIZES = (16, 4096)  # of a picture, in pixels: in smaller ones nothing can be told from another
LENGTH = 1000  # records of an embedded set, unless another count is asked for
CAPTIONS = 5  # sentences for each picture, as COCO has
SETS = ("scenes", "objects", "scene_captions", "attributes", "paintings", "faces", "dominant_objects")
STREAM = {name: number for number, name in enumerate(SETS)}  # of random numbers, one for each set
PAIRS = tuple(f"a {color} {shape}" for color in COLORS for shape in SHAPES)
SHAPES_ALONE = tuple(f"a {shape}" for shape in SHAPES)
MOODS = tuple(f"a {mood} face" for mood in faces.MOODS)


def scenes(count: int, seed: int = 0, size: int = 224) -> Iterator[Record]:
    """The first `count` records of `scene_set`."""
    return iter(Dataset("scenes", PAIRS, range(count), scene_set(seed, size).one))


def scene_set(seed: int = 0, size: int = 224, domain: str = "render") -> Dataset:
    """Rendered scenes of 3 to 5 objects, a multi-label segmentation set of 40 classes "a COLOUR SHAPE".

    Asked is every object that is the only one of its colour and shape and has 50 pixels in sight; a scene with fewer
    than two such objects is drawn again. `labels` are the classes of all objects in sight, asked for or not.
    `facts["objects"]`: all objects. `domain` draws the same scenes in another domain of `object_set`; the texts still
    name the colours, even where the domain shows none.
    """
    pick(domain, tuple(domains.DOMAINS), "domain")
    return Dataset("scenes", PAIRS, range(LENGTH), partial(_scene, checked(seed, size), size, domain))


def object_set(seed: int = 0, size: int = 224, domain: str = "render") -> Dataset:
    """One object a picture, for classification, in one domain: render, sketch, cartoon, noise or xray.

    The classes are colour x shape (40), or the shape alone (5) in domains that show no colour. Record i shows the same
    object in every domain. `facts`: `domain`, `color`, `shape`.
    """
    pick(domain, tuple(domains.DOMAINS), "domain")
    classes = SHAPES_ALONE if domain in domains.WITHOUT_COLOR else PAIRS
    return Dataset("objects", classes, range(LENGTH), partial(_object, checked(seed, size), size, domain, classes))


def dominant_set(seed: int = 0, size: int = 224) -> Dataset:
    """One dominant object a picture, over 5 to 40 % of it, among smaller ones, as ImageNet-S has it; 40 classes.

    Four in five stand on a random ground under random lamps. Asked is the dominant object, the only one of its
    colour and shape. `facts`: `objects`, all of them, the dominant one first, and `share`, what it covers.
    """
    return Dataset("dominant_objects", PAIRS, range(LENGTH), partial(_dominant, checked(seed, size), size))


def scene_caption_set(seed: int = 0, size: int = 224) -> Dataset:
    """Scenes of three objects with five captions each, for retrieval; each caption names all three by colour and shape.

    The first caption is plain; the others order and word the objects anew, some with material. No masks of texts, but
    `parts`: each object's mask by its colour and shape. Of the first 1000 scenes at seed 0, 94 have a twin, another
    whose objects have the same colours and shapes: recall cannot reach 1.
    """
    return Dataset("scene_captions", (), range(LENGTH), partial(_captioned, checked(seed, size), size))


def painting_set(seed: int = 0, size: int = 224) -> Dataset:
    """Paintings, labelled by the emotion that they were drawn from, with five captions that never name it.

    `facts`: `background`, `colors`, `strokes`, and `posterior`, the best guess of one who knows how they are drawn.
    """
    return Dataset("paintings", paintings.EMOTIONS, range(LENGTH), partial(_painting, checked(seed, size), size))


def face_set(seed: int = 0, size: int = 224) -> Dataset:
    """Faces, happy or sad; both moods are asked of each. `parts`: masks of "mouth" and "eyes", which no text names."""
    return Dataset("faces", faces.MOODS, range(LENGTH), partial(_face, checked(seed, size), size))


def checked(seed: int, size: int) -> int:
    count("size", size, *SIZES, error=DatasetError)
    return HELD_OUT + count("seed", seed, 0, error=DatasetError)


# -- drawing


def pictures(
    recipe: str, seed: int, index: int, stream: str, size: int
) -> Iterator[tuple[Picture, np.random.Generator]]:
    """Scenes for one record, each with its generator: the first that suits is taken, so records need no others."""
    for attempt in count_up():
        rng = np.random.default_rng([seed, index, attempt, STREAM[stream]])
        yield render(draw(RECIPES[recipe], rng), size, size), rng


def in_sight(mask: np.ndarray) -> bool:
    """Are there FEWEST_PIXELS, at 224 pixels, of it?"""
    return bool(mask.sum() >= FEWEST_PIXELS * mask.size / 224**2)


def described(objects: Sequence[Object]) -> tuple[dict[str, str], ...]:
    """The objects' attributes by name."""
    return tuple({key: getattr(obj, key) for key in ("size", "color", "material", "shape")} for obj in objects)


def _scene(seed: int, size: int, domain: str, index: int) -> Record:
    for picture, rng in pictures("several", seed, index, "scenes", size):
        objects, masks = picture.scene.objects, picture.masks
        asked = [i for i in _alone(objects) if in_sight(masks[i])]
        if len(asked) < 2:
            continue
        texts = tuple(_name(objects[i]) for i in asked)
        seen = {_name(obj) for obj, mask in zip(objects, masks, strict=True) if in_sight(mask)}
        labels = tuple(sorted(PAIRS.index(name) for name in seen))
        name, facts = f"scene {seed - HELD_OUT}-{index}", {"objects": described(objects)}
        name += "" if domain == "render" else f" {domain}"
        image = rendered(domains.apply(picture, domain, rng))
        return Record(name, image, texts, masks[asked], labels, facts=facts)
    raise AssertionError("pictures are endless")


def _alone(objects: Sequence[Object]) -> list[int]:
    """Which objects share colour and shape with no other."""
    names = [_name(obj) for obj in objects]
    return [i for i, name in enumerate(names) if names.count(name) == 1]


def _name(obj: Object) -> str:
    return say(Caption((phrase(color=obj.color, shape=obj.shape),)))


def _object(seed: int, size: int, domain: str, classes: tuple[str, ...], index: int) -> Record:
    found = pictures("one", seed, index, "objects", size)
    picture, rng = next(pair for pair in found if in_sight(pair[0].masks[0]))
    obj = picture.scene.objects[0]
    text = f"a {obj.shape}" if domain in domains.WITHOUT_COLOR else _name(obj)
    image = rendered(domains.apply(picture, domain, rng))
    facts = {"domain": domain, "color": obj.color, "shape": obj.shape}
    name = f"object {seed - HELD_OUT}-{index} {domain}"
    return Record(name, image, (text,), picture.masks[:1], (classes.index(text),), facts=facts)


def _dominant(seed: int, size: int, index: int) -> Record:
    for attempt in count_up():
        rng = np.random.default_rng([seed, index, attempt, STREAM["dominant_objects"]])
        scene = set_off(draw(RECIPES["dominant"], rng), GROUNDS["dominant"], rng)
        if 0 not in _alone(scene.objects):
            continue
        picture = render(scene, size, size)
        mask, text = picture.masks[:1], _name(scene.objects[0])
        if DOMINANT[0] <= mask.mean() <= DOMINANT[1]:
            name, facts = f"dominant {seed - HELD_OUT}-{index}", {"objects": described(scene.objects)}
            facts["share"] = float(mask.mean())
            return Record(name, rendered(picture.image), (text,), mask, (PAIRS.index(text),), facts=facts)
    raise AssertionError("attempts are endless")


def _captioned(seed: int, size: int, index: int) -> Record:
    found = pictures("three", seed, index, "scene_captions", size)
    picture, rng = next(pair for pair in found if len(pair[0].scene.objects) == 3 and all(map(in_sight, pair[0].masks)))
    objects = picture.scene.objects
    plain = say(Caption(tuple(phrase(color=obj.color, shape=obj.shape) for obj in objects)))
    texts = (plain, *(_reworded(objects, rng) for _ in range(CAPTIONS - 1)))
    parts: dict[str, np.ndarray] = {}
    for obj, mask in zip(objects, picture.masks, strict=True):
        parts[_name(obj)] = mask | parts.get(_name(obj), np.zeros_like(mask))
    name, facts = f"scene-captions {seed - HELD_OUT}-{index}", {"objects": described(objects)}
    return Record(name, rendered(picture.image), texts, parts=parts, facts=facts)


def _reworded(objects: Sequence[Object], rng: np.random.Generator) -> str:
    """All objects in another order and other words."""
    said = []
    for i in rng.permutation(len(objects)):
        more = {"material": objects[i].material} if rng.random() < 0.3 else {}
        said.append(phrase(color=objects[i].color, shape=objects[i].shape, **more))
    return say(Caption(tuple(said)), rng)


def _painting(seed: int, size: int, index: int) -> Record:
    rng = np.random.default_rng([seed, index, 0, STREAM["paintings"]])
    painting = paintings.sample_painting(rng)
    image = rendered(paintings.paint(painting, size))
    sentences = sorted(set(paintings.captions(painting)))
    texts = tuple(str(text) for text in rng.choice(sentences, CAPTIONS, replace=False))
    facts = {"background": painting.background, "colors": painting.colors, "strokes": painting.strokes}
    facts["posterior"] = paintings.posterior(painting)
    label = paintings.EMOTIONS.index(painting.emotion)
    return Record(f"painting {seed - HELD_OUT}-{index}", image, texts, labels=(label,), facts=facts)


def _face(seed: int, size: int, index: int) -> Record:
    face = faces.sample_face(np.random.default_rng([seed, index, 0, STREAM["faces"]]))
    image, parts = rendered(faces.draw_face(face, size)), faces.parts(face, size)
    labels = (faces.MOODS.index(face.mood),)
    return Record(f"face {seed - HELD_OUT}-{index}", image, MOODS, labels=labels, parts=parts)


# -- attribute probes

KINDS = {  # which words a probe says; the last two are the paper's "small cube" and "left red object"
    "shape": ("shape",),
    "material": ("material",),
    "color": ("color",),
    "size": ("size",),
    "position": ("position",),
    "size and shape": ("size", "shape"),
    "color and position": ("color", "position"),
}
MIDDLE = 0.05  # an object so near the middle, in picture widths, is neither on the left nor on the right


def attribute_set(seed: int = 0, size: int = 224, kinds: Sequence[str] = tuple(KINDS)) -> Dataset:
    """Scenes of 3 to 5 objects with probes for one kind of attribute each (Grad-ECLIP 4.4, Figure 7), with masks.

    A text's mask holds all objects that it is true of; asked is only what is true of some objects in sight and not of
    all. `facts`: `kinds`, one for each text, and `objects`, those in sight.
    """
    chosen = picked(kinds, tuple(KINDS), "kind of attribute")
    return Dataset("attributes", (), range(LENGTH), partial(_attributes, checked(seed, size), size, chosen))


def probes(
    objects: Sequence[dict[str, str]], across: Sequence[float], kinds: Sequence[str]
) -> list[tuple[str, str, list[int]]]:
    """Kind, text and objects (their numbers) of each probe of a scene; `across`: where each object's middle is, 0 to 1.

    Every word is needed: what is asked is true of fewer objects than any one of its words. Positions are asked only in
    scenes where nothing stands in the middle.
    """
    placed = all(abs(x - 0.5) >= MIDDLE for x in across)
    objects = [
        {**obj, "position": "on the left" if x < 0.5 else "on the right"}
        for obj, x in zip(objects, across, strict=True)
    ]
    found = []
    for kind in kinds:
        keys = KINDS[kind]
        if "position" in keys and not placed:
            continue
        for values in sorted({tuple(obj[key] for key in keys) for obj in objects}):
            each = [
                {i for i, obj in enumerate(objects) if obj[key] == value}
                for key, value in zip(keys, values, strict=True)
            ]
            named = set.intersection(*each)
            if all(len(named) < len(wider) for wider in (each if len(keys) > 1 else [objects])):
                found.append((kind, _probe(dict(zip(keys, values, strict=True))), sorted(named)))
    return found


def _probe(said: dict[str, str]) -> str:
    words = {key: value for key, value in said.items() if key != "position"}
    return say(Caption((phrase(**words),), place=said.get("position")))


def _attributes(seed: int, size: int, kinds: Sequence[str], index: int) -> Record:
    for picture, _ in pictures("several", seed, index, "attributes", size):
        seen = [i for i, mask in enumerate(picture.masks) if in_sight(mask)]
        objects = [picture.scene.objects[i] for i in seen]
        across = [float(picture.scene.camera.project(obj.center)[0, 0]) for obj in objects]
        asked = probes(described(objects), across, kinds)
        if not asked:
            continue
        of_texts = [picture.masks[[seen[i] for i in named]].any(0) for _, _, named in asked]
        facts = {"kinds": tuple(kind for kind, _, _ in asked), "objects": described(objects)}
        texts, masks = tuple(text for _, text, _ in asked), stack_masks(of_texts, size, size)
        name = f"attributes {seed - HELD_OUT}-{index}"
        return Record(name, rendered(picture.image), texts, masks, facts=facts)
    raise AssertionError("pictures are endless")


# -- Karpathy's form


def export_karpathy(dataset: Dataset, folder: Path, split: str = "test") -> Path:
    """Write a captioned dataset as images and a `dataset_coco.json` in the form of Karpathy's splits; returns its path.

    The reader `coco_karpathy` reads it back. The json is moved into place last, so it names no missing image.
    """
    images, numbers = [], count_up()
    for i, record in enumerate(dataset):
        file = f"{i:012d}.png"
        files.write(folder / split / file, partial(record.image.save, format="PNG"))
        says = [
            {"tokens": text.lower().replace(",", "").split(), "raw": text, "imgid": i, "sentid": next(numbers)}
            for text in record.texts
        ]
        ids = [sentence["sentid"] for sentence in says]
        entry = {"filepath": split, "filename": file, "imgid": i, "cocoid": i, "split": split}
        images.append({**entry, "sentids": ids, "sentences": says})
    path = folder / "dataset_coco.json"
    content = json.dumps({"dataset": dataset.name, "images": images})
    files.write(path, lambda place: place.write_text(content))
    return path
