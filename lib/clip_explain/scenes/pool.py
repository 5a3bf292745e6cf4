"""A cached pool of rendered scenes, so that rendering never limits training.

One array a field on disk; scene i is made from (seed, i) alone.
"""

import json
import os
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from tqdm import tqdm

from clip_explain.scenes.raycast import render
from clip_explain.scenes.world import ATTRIBUTES, Scene, sample_scene

MOST = 10  # things a scene can hold
RECIPES = {  # share, framing, fewest and most things, lowest and highest zoom
    "train": (
        (0.30, "close", 1, 2, 3.2, 5.5),
        (0.15, "framed", 1, 1, 2.1, 2.8),
        (0.30, "framed", 2, 5, 2.1, 2.8),
        (0.10, "framed", 5, 8, 1.7, 2.2),
        (0.15, "wide", 3, 8, 1.0, 1.7),
    ),
    "whole": (
        (0.20, "framed", 1, 1, 2.2, 2.7),
        (0.50, "framed", 2, 5, 2.2, 2.7),
        (0.10, "framed", 5, 8, 1.7, 2.2),
        (0.20, "wide", 3, 8, 1.0, 1.7),
    ),
    "one": ((1.0, "framed", 1, 1, 2.45, 2.45),),
    "three": ((1.0, "framed", 3, 3, 2.45, 2.45),),
    "several": ((1.0, "framed", 3, 5, 2.45, 2.45),),
}


@dataclass(frozen=True)
class Pool:
    """Fields over scenes. `things` is always 10; those that a scene lacks have attributes -1.

    images uint8 (scenes, height, width, 3)
    ids int8 (scenes, height, width), the thing that each pixel shows, -1 for the ground
    attributes int8 (scenes, things, 4), indices into `ATTRIBUTES`
    along float32 (scenes, things, 2), place to the right and in depth, in world units, along the camera's directions
    areas float32 (scenes, things), pixels if nothing stood before
    centers float32 (scenes, things, 2), the middle (x, y) of each outline in pixels
    zoom float32 (scenes,)
    """

    images: np.ndarray
    ids: np.ndarray
    attributes: np.ndarray
    along: np.ndarray
    areas: np.ndarray
    centers: np.ndarray
    zoom: np.ndarray

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
    }


def open_pool(folder: Path) -> Pool:
    """The pool in a folder, its arrays mapped from disk and not read into memory."""
    return Pool(**{name: np.load(folder / f"{name}.npy", mmap_mode="r") for name in _fields(1, 1)})


def make_pool(folder: Path, count: int, seed: int, recipe: str = "train", size: int = 224, workers: int = 2) -> Pool:
    """Render a pool into `folder` (or reuse the one that is there, if it was made with the same arguments)."""
    made_with = {"count": count, "seed": seed, "recipe": recipe, "size": size}
    note = folder / "pool.json"
    if note.exists() and json.loads(note.read_text()) == made_with:
        return open_pool(folder)
    folder.mkdir(parents=True, exist_ok=True)
    note.unlink(missing_ok=True)
    for name, (shape, dtype) in _fields(count, size).items():
        np.lib.format.open_memmap(folder / f"{name}.npy", "w+", dtype, shape)
    tasks = [(folder, seed, recipe, start, min(start + 50, count)) for start in range(0, count, 50)]
    with get_context("spawn").Pool(workers) as processes, tqdm(total=count, desc="rendering", unit="scene") as bar:
        for done in processes.imap_unordered(_render_slice, tasks):
            bar.update(done)
    note.with_suffix(".tmp").write_text(json.dumps(made_with))
    os.replace(note.with_suffix(".tmp"), note)
    return open_pool(folder)


def _render_slice(task: tuple[Path, int, str, int, int]) -> int:
    folder, seed, recipe, start, stop = task
    out = {name: np.load(folder / f"{name}.npy", mmap_mode="r+") for name in _fields(1, 1)}
    size = out["ids"].shape[1]
    for i in range(start, stop):
        scene = draw(RECIPES[recipe], np.random.default_rng([seed, i]))
        picture = render(scene, size, size)
        out["images"][i], out["ids"][i] = picture.image, picture.ids
        for name, value in facts(scene, picture.areas, size).items():
            out[name][i] = value
    return stop - start


def draw(recipe, rng: np.random.Generator) -> Scene:
    """A scene by a recipe's shares, never an empty one."""
    shares = np.array([row[0] for row in recipe])
    _, framing, fewest, most, low, high = recipe[rng.choice(len(recipe), p=shares / shares.sum())]
    zoom = float(np.exp(rng.uniform(np.log(low), np.log(high))))
    scene = sample_scene(rng, int(rng.integers(fewest, most + 1)), framing, zoom=zoom)
    return scene if scene.things else draw(recipe, rng)


def facts(scene: Scene, areas: np.ndarray, size: int) -> dict[str, np.ndarray]:
    """What is true of one scene, as the pool's arrays."""
    attributes, seen = np.full((MOST, 4), -1), np.zeros(MOST)
    along, centers = np.zeros((2, MOST, 2))
    for i, thing in enumerate(scene.things):
        attributes[i] = [values.index(getattr(thing, key)) for key, values in ATTRIBUTES.items()]
        centers[i] = scene.camera.project(thing.center)[0, :2] * size
    along[: len(scene.things)] = scene.along
    seen[: len(areas)] = areas
    return {
        "attributes": attributes,
        "along": along,
        "areas": seen,
        "centers": centers,
        "zoom": 16 / 35 / scene.camera.half_width,
    }
