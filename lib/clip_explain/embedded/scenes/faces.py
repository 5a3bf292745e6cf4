"""Simple drawn faces, happy or sad, with exact masks of mouth and eyes: the mouth's curve and the brows carry the mood.

A face is a list of filled shapes in its own coordinates (head 2 units high, centre at the origin, y down), which are
turned about the neck, scaled, moved and drawn in order.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, UInt8
from PIL import Image, ImageDraw

from clip_explain.errors import DatasetError, nearest

MOODS = ("happy", "sad")
SKINS = ((255, 222, 196), (240, 194, 158), (214, 160, 118), (168, 112, 76), (116, 74, 50))
HAIR = {
    "black": (32, 28, 30),
    "brown": (104, 66, 36),
    "blond": (228, 190, 104),
    "red": (176, 72, 34),
    "gray": (158, 158, 162),
}
STYLES = ("short", "long", "curly")
BACKGROUNDS = {
    "white": (242, 240, 236),
    "blue": (110, 150, 216),
    "green": (124, 178, 120),
    "yellow": (244, 216, 110),
    "pink": (240, 172, 190),
    "purple": (160, 122, 190),
    "gray": (150, 152, 156),
}
SHIRTS = ((58, 84, 130), (140, 50, 56), (64, 110, 84), (90, 90, 96), (210, 170, 80), (232, 230, 224))
IRISES = ((74, 50, 32), (60, 100, 150), (70, 110, 70), (40, 34, 32))
BODY = ("shirt", "neck")  # these stay upright when the head tilts
NECK = np.array([0, 0.9])
FINE = 3  # drawn at this many times the size, then averaged

Shape = tuple[str, tuple[int, int, int], np.ndarray]  # which part it belongs to, colour, outline (points, 2)


@dataclass(frozen=True)
class Face:
    """How a face looks. `curve`: height of the mouth's corners over its middle, in head units, below zero when sad.

    `gap`: how far the lips are apart; `brows`: how much the inner ends stand above the outer ones. `tilt` in radians;
    `scale`: half the head's height, and `x`, `y` its middle, in shares of the picture.
    """

    mood: str
    skin: int
    hair: str
    style: str
    background: str
    shirt: int
    iris: int
    curve: float
    gap: float
    mouth_width: float
    brows: float
    eyes: float
    tilt: float
    scale: float
    x: float
    y: float


def sample_face(rng: np.random.Generator, mood: str | None = None) -> Face:
    """Draw a face of a mood, "happy" or "sad" (either, if none is given); only mouth and brows depend on it."""
    if mood is None:
        mood = str(rng.choice(MOODS))
    elif mood not in MOODS:
        raise DatasetError(f"unknown mood {mood!r}: {nearest(mood, MOODS)}")
    happy = mood == "happy"
    return Face(
        mood=mood,
        skin=int(rng.integers(len(SKINS))),
        hair=str(rng.choice(list(HAIR))),
        style=str(rng.choice(STYLES)),
        background=str(rng.choice(list(BACKGROUNDS))),
        shirt=int(rng.integers(len(SHIRTS))),
        iris=int(rng.integers(len(IRISES))),
        curve=float(rng.uniform(0.13, 0.24) if happy else rng.uniform(-0.2, -0.11)),
        gap=float(rng.choice([0.0, rng.uniform(0.06, 0.13)]) if happy else 0.0),
        mouth_width=float(rng.uniform(0.28, 0.38)),
        brows=float(rng.uniform(-0.04, 0.03) if happy else rng.uniform(0.07, 0.14)),
        eyes=float(rng.uniform(0.8, 1.15)),
        tilt=float(rng.uniform(-0.25, 0.25)),
        scale=float(rng.uniform(0.26, 0.34)),
        x=float(rng.uniform(0.43, 0.57)),
        y=float(rng.uniform(0.45, 0.54)),
    )


def draw_face(face: Face, size: int = 224) -> UInt8[np.ndarray, "size size 3"]:
    """The face as pixels."""
    image = Image.new("RGB", (size * FINE, size * FINE), BACKGROUNDS[face.background])
    for part, color, outline in shapes(face):
        _fill(image, _place(face, outline, 0.0 if part in BODY else face.tilt), color)
    return np.asarray(image.reduce(FINE))


def parts(face: Face, size: int = 224) -> dict[str, Bool[np.ndarray, "size size"]]:
    """Masks of "mouth" and "eyes": the pixels of which they cover at least half."""
    masks = {}
    for name in ("mouth", "eyes"):
        image = Image.new("L", (size * FINE, size * FINE))
        for part, _, outline in shapes(face):
            if part == name:
                _fill(image, _place(face, outline, face.tilt), 255)
        masks[name] = np.asarray(image.reduce(FINE)) >= 128
    return masks


def captions(face: Face) -> tuple[str, ...]:
    """Sentences that are true of the face; most say its mood."""
    hair = f"{face.hair} hair"
    return (
        f"a {face.mood} face",
        f"a picture of a {face.mood} face",
        f"a drawing of a {face.mood} face",
        f"a {face.mood} person",
        f"a {face.mood} face with {hair}",
        f"a {face.mood} face with {face.style} {hair}",
        f"a {face.mood} face on a {face.background} background",
        "a smiling face" if face.mood == "happy" else "a frowning face",
        f"a face with {hair}",
        f"a face on a {face.background} background",
    )


def other_mood(caption: str) -> str | None:
    """The caption with the opposite mood, or None if it does not mention the mood."""
    opposite = {"happy": "sad", "sad": "happy", "smiling": "frowning", "frowning": "smiling"}
    words = [opposite.get(word, word) for word in caption.split()]
    return " ".join(words) if words != caption.split() else None


# -- the shapes of a face


def shapes(face: Face) -> list[Shape]:
    """All shapes of a face, the hindmost first."""
    return [*_body(face), *_hair_behind(face), *_head(face), *_hair(face), *_eyes(face), *_brows(face), *_mouth(face)]


def _ellipse(x: float, y: float, width: float, height: float, start: int = 0, stop: int = 360) -> np.ndarray:
    """Outline of an ellipse, or of the slice between two angles in degrees, clockwise from the right."""
    angle = np.radians(np.linspace(start, stop, 48))
    return np.stack([x + width * np.cos(angle), y + height * np.sin(angle)], 1)


def _stroke(points: np.ndarray, width: np.ndarray | float) -> np.ndarray:
    """Outline of a brush drawn along points (n, 2), `width` wide at each."""
    along = np.gradient(points, axis=0)
    aside = np.stack([-along[:, 1], along[:, 0]], 1) / np.linalg.norm(along, axis=1, keepdims=True)
    half = np.broadcast_to(width, len(points))[:, None] / 2
    return np.concatenate([points + aside * half, (points - aside * half)[::-1]])


def _shade(color: tuple[int, int, int], by: float) -> tuple[int, int, int]:
    red, green, blue = (min(255, int(value * by)) for value in color)
    return red, green, blue


def _body(face: Face) -> list[Shape]:
    skin = SKINS[face.skin]
    neck = np.array([(-0.3, 0.5), (0.3, 0.5), (0.34, 1.5), (-0.34, 1.5)])
    return [("shirt", SHIRTS[face.shirt], _ellipse(0.0, 2.35, 1.35, 1.1)), ("neck", _shade(skin, 0.86), neck)]


def _head(face: Face) -> list[Shape]:
    skin = SKINS[face.skin]
    ears = [("ear", _shade(skin, 0.93), _ellipse(side * 0.78, 0.05, 0.13, 0.2)) for side in (-1, 1)]
    t = np.linspace(0, 1, 12)
    nose = np.stack([0.08 * np.sin(np.pi * t * 0.9), 0.02 + 0.26 * t], 1)
    return [*ears, ("head", skin, _ellipse(0.0, 0.0, 0.78, 1.0)), ("nose", _shade(skin, 0.8), _stroke(nose, 0.045))]


def _hair_behind(face: Face) -> list[Shape]:
    color = _shade(HAIR[face.hair], 0.8)
    if face.style == "long":
        around = _ellipse(0.0, 0.0, 1.0, 1.0)
        squared = np.sign(around) * np.sqrt(np.abs(around))
        return [("hair", color, np.where(around[:, 1:] < 0, around, squared) * (0.96, 1.08) + (0, 0.1))]
    if face.style == "curly":
        spots = np.radians(np.linspace(150, 390, 13))
        return [("hair", color, _ellipse(0.88 * np.cos(a), -0.15 + 0.92 * np.sin(a), 0.24, 0.24)) for a in spots]
    return [("hair", color, _ellipse(0.0, -0.12, 0.86, 0.98, 180, 360))]


def _hair(face: Face) -> list[Shape]:
    """Hair over the forehead: the cap of the head above a fringe."""
    cap, fringe = _ellipse(0.0, -0.08, 0.84, 1.0, 190, 350), _ellipse(0.0, -0.3, 0.78, 0.28, 350, 190)
    if face.style == "curly":
        spots = np.radians(np.linspace(205, 335, 8))
        curls = [_ellipse(0.62 * np.cos(a), -0.02 + 0.8 * np.sin(a), 0.21, 0.19) for a in spots]
        return [("hair", HAIR[face.hair], outline) for outline in curls]
    return [("hair", HAIR[face.hair], np.concatenate([cap, fringe]))]


def _eyes(face: Face) -> list[Shape]:
    out: list[Shape] = []
    for side in (-1, 1):
        x, y, r = side * 0.32, -0.08, 0.15 * face.eyes
        out.append(("eyes", (250, 250, 248), _ellipse(x, y, r, r * 0.72)))
        out.append(("eyes", IRISES[face.iris], _ellipse(x, y, r * 0.55, r * 0.6)))
        out.append(("eyes", (16, 14, 14), _ellipse(x, y, r * 0.28, r * 0.3)))
        out.append(("eyes", (255, 255, 255), _ellipse(x + 0.03, y - 0.03, r * 0.13, r * 0.13)))
    return out


def _brows(face: Face) -> list[Shape]:
    t = np.linspace(-1, 1, 12)
    out: list[Shape] = []
    for side in (-1, 1):
        y = -0.31 + face.brows * t - 0.05 * (1 - t**2)
        points = np.stack([side * (0.32 + 0.18 * t), y], 1)
        out.append(("brows", _shade(HAIR[face.hair], 0.7), _stroke(points, 0.055)))
    return out


def _mouth(face: Face) -> list[Shape]:
    """A line bent by `curve`; with a gap, an open mouth with teeth below it."""
    t = np.linspace(-1, 1, 25)
    x, y = face.mouth_width * t, 0.5 + face.curve * (0.5 - t**2)
    lip = _shade(SKINS[face.skin], 0.45)[0], _shade(SKINS[face.skin], 0.28)[1], _shade(SKINS[face.skin], 0.3)[2]
    line = _stroke(np.stack([x, y], 1), 0.05 + 0.03 * (1 - t**2))
    if not face.gap:
        return [("mouth", lip, line)]
    below = np.stack([x, y + face.gap * (1 - t**2) * 1.6], 1)
    teeth = np.stack([x * 0.9, np.interp(x * 0.9, x, y) + face.gap * (1 - t**2) * 0.6], 1)
    upper = np.stack([x, y], 1)
    inside = ("mouth", (96, 22, 30), np.concatenate([upper, below[::-1]]))
    shine = ("mouth", (250, 248, 242), np.concatenate([upper[1:-1], teeth[::-1]]))
    return [inside, shine, ("mouth", lip, line), ("mouth", lip, _stroke(below, 0.045))]


def _place(face: Face, outline: np.ndarray, tilt: float) -> np.ndarray:
    """From head coordinates to shares of the picture."""
    c, s = np.cos(tilt), np.sin(tilt)
    turned = (outline - NECK) @ np.array([[c, s], [-s, c]]) + NECK
    return turned * face.scale + (face.x, face.y)


def _fill(image: Image.Image, outline: np.ndarray, color: tuple[int, int, int] | int) -> None:
    ImageDraw.Draw(image).polygon([(x, y) for x, y in outline * image.width], color)
