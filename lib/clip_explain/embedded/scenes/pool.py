"""Cached pools of rendered scenes, and of paintings and faces, so that rendering never limits training.

Each field is an array on disk; picture i depends only on (seed, i).
"""

import json
import os
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from clip_explain import files
from clip_explain.embedded.scenes import domains, faces, paintings
from clip_explain.embedded.scenes.grounds import sample_ground
from clip_explain.embedded.scenes.raycast import Picture, render
from clip_explain.embedded.scenes.world import ATTRIBUTES, Scene, sample_scene

MOST = 10  # objects a scene can hold
RECIPES = {  # share, framing, fewest and most objects, lowest and highest zoom, width over height
    "train": (
        (0.30, "close", 1, 2, 3.2, 5.5, 1.0),
        (0.15, "framed", 1, 1, 2.1, 2.8, 1.0),
        (0.30, "framed", 2, 5, 2.1, 2.8, 1.0),
        (0.10, "framed", 5, 8, 1.7, 2.2, 1.0),
        (0.15, "wide", 3, 8, 1.0, 1.7, 1.0),
    ),
    "whole": (
        (0.20, "framed", 1, 1, 2.2, 2.7, 1.0),
        (0.50, "framed", 2, 5, 2.2, 2.7, 1.0),
        (0.10, "framed", 5, 8, 1.7, 2.2, 1.0),
        (0.20, "wide", 3, 8, 1.0, 1.7, 1.0),
    ),
    "mixed": (
        (0.15, "framed", 1, 1, 2.2, 2.7, 1.0),
        (0.45, "framed", 2, 5, 2.2, 2.7, 1.0),
        (0.10, "framed", 5, 8, 1.7, 2.2, 1.0),
        (0.10, "wide", 3, 8, 1.0, 1.7, 1.0),
        (0.20, "wide", 3, 10, 1.0, 1.3, 1.5),
    ),
    "training": (
        (0.20, "close", 1, 2, 3.2, 5.5, 1.0),
        (0.15, "framed", 1, 1, 2.1, 2.8, 1.0),
        (0.30, "framed", 2, 5, 2.1, 2.8, 1.0),
        (0.08, "framed", 5, 8, 1.7, 2.2, 1.0),
        (0.07, "wide", 3, 8, 1.0, 1.7, 1.0),
        (0.08, "wide", 3, 10, 1.0, 1.3, 1.5),
        (0.12, "object", 2, 6, 2.0, 5.2, 1.0),
    ),
    "dominant": ((1.0, "object", 3, 6, 2.3, 4.5, 1.0),),
    "xray": ((0.30, "framed", 1, 1, 2.2, 2.7, 1.0), (0.70, "framed", 2, 5, 2.2, 2.7, 1.0)),
    "one": ((1.0, "framed", 1, 1, 2.45, 2.45, 1.0),),
    "three": ((1.0, "framed", 3, 3, 2.45, 2.45, 1.0),),
    "several": ((1.0, "framed", 3, 5, 2.45, 2.45, 1.0),),
}
DOMAINS = {  # other recipes: render only
    "training": {"render": 0.82, "sketch": 0.06, "cartoon": 0.06, "noise": 0.06},
    "mixed": {"render": 0.79, "sketch": 0.07, "cartoon": 0.07, "noise": 0.07},
    "xray": {"xray": 1.0},
}
GROUNDS = {"training": 0.6, "dominant": 0.8}  # share of scenes with random ground and lamps; none in other recipes
NAMES = tuple(domains.DOMAINS)


@dataclass(frozen=True)
class Pool:
    """Fields over scenes; pictures that are wider than high are squashed to a square.

    There are always 10 objects; those that a scene lacks have attributes -1.

    images uint8 (scenes, height, width, 3)
    ids int8 (scenes, height, width), the object that each pixel shows, -1 for the ground
    attributes int8 (scenes, objects, 4), indices into `ATTRIBUTES`
    along float32 (scenes, objects, 2), place to the right and in depth, in world units, along the camera's directions
    areas float32 (scenes, objects), pixels if nothing stood before
    centers float32 (scenes, objects, 2), the middle (x, y) of each outline in pixels
    zoom float32 (scenes,)
    domain int8 (scenes,), index into `NAMES`
    """

    images: np.ndarray
    ids: np.ndarray
    attributes: np.ndarray
    along: np.ndarray
    areas: np.ndarray
    centers: np.ndarray
    zoom: np.ndarray
    domain: np.ndarray

    def __len__(self) -> int:
        return len(self.zoom)


def _fields(count: int, size: int) -> dict[str, tuple[tuple[int, ...], type]]:
    return {
        "images": ((count, size, size, 3), np.uint8),
        "ids": ((count, size, size), np.int8),
        "attributes": ((count, MOST, 4), np.int8),
        "along": ((count, MOST, 2), np.float32),
        "areas": ((count, MOST), np.float32),
        "centers": ((count, MOST, 2), np.float32),
        "zoom": ((count,), np.float32),
        "domain": ((count,), np.int8),
    }


def open_pool(folder: Path) -> Pool:
    """The pool in a folder, its arrays mapped from disk and not read into memory."""
    return Pool(**{name: np.load(folder / f"{name}.npy", mmap_mode="r") for name in _fields(1, 1)})


def make_pool(
    folder: Path, count: int, seed: int, recipe: str = "train", size: int = 224, workers: int | None = None
) -> Pool:
    """Render a pool into `folder`, or reuse the one that is there if it was made with the same arguments.

    `processes` of them render at once; None means one for each core.
    """
    made_with = {"count": count, "seed": seed, "recipe": recipe, "size": size}
    note = folder / "pool.json"
    if note.exists() and json.loads(note.read_text()) == made_with:
        return open_pool(folder)
    folder.mkdir(parents=True, exist_ok=True)
    note.unlink(missing_ok=True)
    for name, (shape, dtype) in _fields(count, size).items():
        np.lib.format.open_memmap(folder / f"{name}.npy", "w+", dtype, shape)
    tasks = [(folder, seed, recipe, start, min(start + 50, count)) for start in range(0, count, 50)]
    bar = tqdm(total=count, desc="rendering", unit="scene")
    with get_context("spawn").Pool(workers or os.cpu_count()) as processes, bar:
        for done in processes.imap_unordered(_render_slice, tasks):
            bar.update(done)
    files.write(note, lambda place: place.write_text(json.dumps(made_with)))
    return open_pool(folder)


def _render_slice(task: tuple[Path, int, str, int, int]) -> int:
    folder, seed, recipe, start, stop = task
    out = {name: np.load(folder / f"{name}.npy", mmap_mode="r+") for name in _fields(1, 1)}
    size = out["ids"].shape[1]
    shares = DOMAINS.get(recipe, {"render": 1.0})
    for i in range(start, stop):
        scene = draw(RECIPES[recipe], np.random.default_rng([seed, i]))
        scene = set_off(scene, GROUNDS.get(recipe, 0.0), np.random.default_rng([seed, i, 2]))
        aspect = scene.camera.half_width / scene.camera.half_height
        picture = render(scene, size, round(size * aspect))
        rng = np.random.default_rng([seed, i, 1])
        domain = str(rng.choice(list(shares), p=list(shares.values())))
        out["images"][i], out["ids"][i] = square(picture, domains.apply(picture, domain, rng))
        out["domain"][i] = NAMES.index(domain)
        for name, value in facts(scene, picture.areas / aspect, size).items():
            out[name][i] = value
    return stop - start


def square(picture: Picture, image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The image and its ids, squashed to squares of their height."""
    side = len(image)
    if image.shape[1] == side:
        return image, picture.ids
    ids = Image.fromarray((picture.ids + 1).astype(np.uint8)).resize((side, side), Image.Resampling.NEAREST)
    return np.asarray(Image.fromarray(image).resize((side, side), Image.Resampling.BICUBIC)), np.asarray(ids, int) - 1


def draw(recipe, rng: np.random.Generator) -> Scene:
    """A scene by a recipe's shares, never an empty one."""
    shares = np.array([row[0] for row in recipe])
    _, framing, fewest, most, low, high, aspect = recipe[rng.choice(len(recipe), p=shares / shares.sum())]
    zoom = float(np.exp(rng.uniform(np.log(low), np.log(high))))
    count = int(rng.integers(fewest, most + 1))
    dominant = framing == "object"  # a large object among small ones, seen from near
    fixed = ({"size": "large"}, *({"size": "small"},) * (count - 1)) if dominant else ()
    scene = sample_scene(rng, count, "close" if dominant else framing, aspect, zoom=zoom, fixed=fixed)
    return scene if scene.objects else draw(recipe, rng)


def set_off(scene: Scene, share: float, rng: np.random.Generator) -> Scene:
    """A share of scenes on a random ground under random lamps; the others are unchanged."""
    if rng.random() >= share:
        return scene
    strengths = tuple(np.exp(rng.uniform(-0.5, 0.4, 3)).tolist())
    return replace(scene, ground=sample_ground(rng), strengths=strengths)


def facts(scene: Scene, areas: np.ndarray, size: int) -> dict[str, np.ndarray | float]:
    """The facts about one scene, as the pool's arrays."""
    attributes, seen = np.full((MOST, 4), -1), np.zeros(MOST)
    along, centers = np.zeros((2, MOST, 2))
    for i, obj in enumerate(scene.objects):
        attributes[i] = [values.index(getattr(obj, key)) for key, values in ATTRIBUTES.items()]
        centers[i] = scene.camera.project(obj.center)[0, :2] * size
    along[: len(scene.objects)] = scene.along
    seen[: len(areas)] = areas
    return {
        "attributes": attributes,
        "along": along,
        "areas": seen,
        "centers": centers,
        "zoom": 16 / 35 / scene.camera.half_width,
    }


# -- paintings and faces


@dataclass(frozen=True)
class Art:
    """Paintings and faces: images uint8 (pictures, height, width, 3), and the sentences true of each."""

    images: np.ndarray
    captions: tuple[tuple[str, ...], ...]

    def __len__(self) -> int:
        return len(self.captions)


def make_art(folder: Path, count: int, seed: int, size: int = 224) -> Art:
    """Paintings and faces in turn, painted into `folder` unless they are there already."""
    made = [_draw_art(seed, i) for i in range(count)]
    captions = tuple(says for _, says in made)
    made_with, note = {"count": count, "seed": seed, "size": size}, folder / "art.json"
    if not (note.exists() and json.loads(note.read_text()) == made_with):
        folder.mkdir(parents=True, exist_ok=True)
        images = np.lib.format.open_memmap(folder / "images.npy", "w+", np.uint8, (count, size, size, 3))
        for i, (obj, _) in enumerate(tqdm(made, desc="painting", unit="picture")):
            images[i] = (paintings.paint if isinstance(obj, paintings.Painting) else faces.draw_face)(obj, size)
        images.flush()
        files.write(note, lambda place: place.write_text(json.dumps(made_with)))
    return Art(np.load(folder / "images.npy", mmap_mode="r"), captions)


def _draw_art(seed: int, i: int) -> tuple[paintings.Painting | faces.Face, tuple[str, ...]]:
    rng = np.random.default_rng([seed, i])
    if i % 2:
        face = faces.sample_face(rng)
        return face, faces.captions(face)
    painting = paintings.sample_painting(rng)
    return painting, paintings.captions(painting)
