"""Other domains for a rendered scene: line drawing, cartoon, noisy photo, X-ray. Its masks and captions stay true.

Widths of lines and blurs are shares of the picture's longer side, so that a domain looks alike at every resolution.
"""

from dataclasses import replace

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageFilter

from clip_explain.embedded.scenes import raycast
from clip_explain.embedded.scenes.raycast import Picture, first_hits, thickness
from clip_explain.embedded.scenes.solids import dot
from clip_explain.embedded.scenes.world import COLORS
from clip_explain.errors import DatasetError, nearest

FINE = 2  # lines are drawn at this many times the resolution


def apply(picture: Picture, domain: str, rng: np.random.Generator) -> UInt8[np.ndarray, "height width 3"]:
    """The picture in a domain, one of `DOMAINS`; masks keep to within a pixel (an X-ray also shows what is hidden)."""
    if domain not in DOMAINS:
        raise DatasetError(f"unknown domain {domain!r}: {nearest(domain, DOMAINS)}")
    return DOMAINS[domain](picture, rng)


def render(picture: Picture, rng: np.random.Generator) -> UInt8[np.ndarray, "height width 3"]:
    """The rendered picture itself."""
    return picture.image


def sketch(picture: Picture, rng: np.random.Generator) -> UInt8[np.ndarray, "height width 3"]:
    """Grey pencil on white paper: wavering outlines and edges, light hatching where it is dark."""
    lines, tone = _lines(picture), _fine(_tone(picture))
    rows, columns = lines.shape
    unit = max(rows, columns) / 448
    lines = _thicken(_waver(lines, rng, 1.5 * unit), max(unit, 1.0))
    pressure = 0.75 + 0.25 * _clouds(rng, rows, columns, 12)
    ink = np.maximum(lines * pressure, 0.45 * pressure * _hatching(tone, 8 * unit, rng))
    paper = 247 - 3 * rng.random((rows // FINE, columns // FINE), np.float32)
    grey = paper - 185 * _coarse(_blur(ink, 0.6 * unit))
    return _grey(grey)


def cartoon(picture: Picture, rng: np.random.Generator) -> UInt8[np.ndarray, "height width 3"]:
    """Flat colours in three tones between dark outlines, on a pale ground."""
    tone, scene = _tone(picture), picture.scene
    flat = np.array([COLORS[obj.color] for obj in scene.objects] + [(226, 222, 214)], np.float32)
    color = flat[picture.ids] * np.where(tone < 0.85, 0.72, 1)[..., None]
    gleam = (tone >= 1.45) & (picture.ids >= 0)
    color[gleam] = 0.35 * color[gleam] + 0.65 * 255
    unit = max(color.shape[:2]) / 224
    lines = _thicken(_lines(picture), max(2.2 * unit, 1.0))
    ink = _coarse(_blur(lines, 0.7 * unit))[..., None]
    return _bytes(color * (1 - ink) + 28 * ink)


def noise(picture: Picture, rng: np.random.Generator) -> UInt8[np.ndarray, "height width 3"]:
    """A bad sensor in bad light: out of focus, grain in each channel, blotches of colour, dead and hot pixels."""
    height, width = picture.ids.shape
    unit = max(height, width) / 224
    soft = Image.fromarray(picture.image).filter(ImageFilter.GaussianBlur(1.1 * unit))
    signal = np.asarray(soft, np.float32)
    grain = rng.standard_normal((height, width, 3), np.float32) * (14 + 1.3 * np.sqrt(signal))
    blotches = np.stack([_clouds(rng, height, width, 40) for _ in range(3)], -1) * 26 - 13
    image = signal + grain + blotches
    spots = rng.random((height, width), np.float32)
    image[spots < 0.006], image[spots > 0.994] = 0, 255
    return _bytes(image)


def xray(picture: Picture, rng: np.random.Generator) -> UInt8[np.ndarray, "height width 3"]:
    """Bright objects on a dark plate, by Beer and Lambert's law of absorption; metal is denser.

    No ground, no shadows, no colour; where one object stands before another, both add up.
    """
    height, width = picture.ids.shape
    density = np.array([2.2 if obj.material == "metal" else 1.1 for obj in picture.scene.objects], np.float32)
    depth = np.tensordot(density, thickness(picture.scene, height, width), 1)
    unit = max(height, width) / 224
    glow = _blur(1 - np.exp(-depth), 0.9 * unit)
    halo = _blur(glow, 7 * unit)
    grain = rng.standard_normal((height, width), np.float32) * 3
    return _grey(14 + 8 * _clouds(rng, height, width, 4) + 190 * glow + 45 * halo + grain)


DOMAINS = {"render": render, "sketch": sketch, "cartoon": cartoon, "noise": noise, "xray": xray}
WITHOUT_COLOR = frozenset({"sketch", "xray"})  # captions in these domains do not mention colour


# -- lines and tones


def _lines(picture: Picture) -> np.ndarray:
    """Where two neighbouring rays meet different objects, faces or depths; boolean, at the fine resolution."""
    height, width = picture.ids.shape
    hits = first_hits(picture.scene, height * FINE, width * FINE)
    lines = np.zeros(hits.ids.shape, bool)
    for a, b in (np.s_[:-1, :], np.s_[1:, :]), (np.s_[:, :-1], np.s_[:, 1:]):
        objects = (hits.ids[a] >= 0) | (hits.ids[b] >= 0)
        bend = dot(hits.normals[:, *a], hits.normals[:, *b]) < 0.8
        step = np.abs(hits.depth[a] - hits.depth[b]) > 0.12
        lines[a] |= objects & ((hits.ids[a] != hits.ids[b]) | bend | step)
    return lines


def _tone(picture: Picture) -> np.ndarray:
    """Brightness relative to that of the whole object, or of the bare ground, so that dark colours do not count."""
    grey, scene = _luma(picture.image), picture.scene
    tone = grey / _luma(raycast.render(replace(scene, objects=()), *grey.shape, samples=1).image)
    for i in range(len(scene.objects)):
        own = picture.ids == i
        if own.any():
            tone[own] = grey[own] / np.percentile(grey[own], 65)
    return tone


def _luma(image: np.ndarray) -> np.ndarray:
    return np.maximum(image @ np.float32([0.3, 0.59, 0.11]), 1)


def _hatching(tone: np.ndarray, period: float, rng: np.random.Generator) -> np.ndarray:
    """Slanted strokes where the tone is dark, crossed ones where it is darker."""
    rows, columns = tone.shape
    y, x = np.arange(rows, dtype=np.float32)[:, None], np.arange(columns, dtype=np.float32)
    bend = period * 0.8 * _clouds(rng, rows, columns, 9)
    tone = 2 * _blur(tone / 2, period / 4)
    one, other = (np.sin(2 * np.pi / period * (y * u + x * v + bend)) > 0.5 for u, v in ((0.8, 0.6), (0.7, -0.7)))
    return (one & (tone < 0.88)) | (other & (tone < 0.66))


def _waver(lines: np.ndarray, rng: np.random.Generator, amount: float) -> np.ndarray:
    """Shift lines by up to `amount` pixels, smoothly, as a hand does."""
    rows, columns = lines.shape
    dy, dx = (amount * (2 * _clouds(rng, rows, columns, 14) - 1) for _ in range(2))
    y = np.clip(np.arange(rows)[:, None] + np.rint(dy).astype(int), 0, rows - 1)
    x = np.clip(np.arange(columns) + np.rint(dx).astype(int), 0, columns - 1)
    return lines[y, x]


def _thicken(lines: np.ndarray, radius: float) -> np.ndarray:
    size = 2 * round(radius) + 1
    return np.asarray(Image.fromarray(lines).convert("L").filter(ImageFilter.MaxFilter(size))) > 0


# -- fields and pixels


def _clouds(rng: np.random.Generator, rows: int, columns: int, cells: int) -> np.ndarray:
    """Smooth random values in [0, 1], with about `cells` hills across."""
    coarse = rng.random((cells, cells), np.float32)
    return np.asarray(Image.fromarray(coarse).resize((columns, rows), Image.Resampling.BILINEAR))


def _blur(values: np.ndarray, radius: float) -> np.ndarray:
    """Gaussian blur of values in [0, 1], to within 1/255."""
    return np.asarray(Image.fromarray(_bytes(values * 255)).filter(ImageFilter.GaussianBlur(radius)), np.float32) / 255


def _fine(values: np.ndarray) -> np.ndarray:
    return np.repeat(np.repeat(values, FINE, 0), FINE, 1)


def _coarse(values: np.ndarray) -> np.ndarray:
    return values.reshape(values.shape[0] // FINE, FINE, -1, FINE).mean((1, 3))


def _grey(values: np.ndarray) -> np.ndarray:
    return np.repeat(_bytes(values)[..., None], 3, 2)


def _bytes(values: np.ndarray) -> np.ndarray:
    return np.clip(values + 0.5, 0, 255).astype(np.uint8)
