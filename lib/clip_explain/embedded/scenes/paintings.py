"""Abstract paintings whose colours and strokes follow eight emotions (ArtEmis's), with captions of what they show.

An emotion is a pair of distributions, over colours and over kinds of strokes; they overlap. A painting is a background
and three layers of strokes drawn from them. Captions allow one to guess the emotion, but never name it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import permutations

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageDraw, ImageFilter

from clip_explain.errors import DatasetError, nearest

COLORS = {
    "red": (200, 30, 36),
    "orange": (240, 130, 30),
    "yellow": (250, 214, 50),
    "green": (52, 140, 60),
    "cyan": (60, 196, 204),
    "blue": (36, 72, 178),
    "purple": (120, 48, 160),
    "pink": (242, 140, 176),
    "brown": (118, 72, 36),
    "black": (24, 22, 26),
    "gray": (134, 134, 138),
    "white": (244, 242, 236),
}

COLOR_WEIGHTS = {  # how often an emotion takes a colour, in parts; the rest of the time it takes any
    "amusement": {"yellow": 30, "pink": 28, "cyan": 15, "orange": 15, "green": 6, "red": 3, "white": 6},
    "awe": {"blue": 26, "purple": 24, "white": 18, "yellow": 12, "cyan": 10, "black": 10},
    "contentment": {"green": 36, "cyan": 20, "white": 16, "blue": 10, "brown": 10, "yellow": 8},
    "excitement": {"orange": 32, "red": 24, "yellow": 18, "pink": 10, "purple": 12, "cyan": 4},
    "anger": {"red": 44, "black": 30, "orange": 12, "brown": 10, "purple": 4},
    "disgust": {"brown": 36, "green": 28, "yellow": 18, "purple": 8, "pink": 6, "gray": 4},
    "fear": {"black": 38, "purple": 20, "gray": 18, "white": 14, "red": 6, "blue": 4},
    "sadness": {"blue": 38, "gray": 34, "black": 10, "white": 8, "purple": 6, "brown": 4},
}
STROKE_WEIGHTS = {
    "amusement": {"dots": 46, "spirals": 20, "curves": 14, "bands": 10, "blocks": 10},
    "awe": {"spirals": 32, "washes": 28, "dots": 20, "curves": 20},
    "contentment": {"bands": 42, "washes": 28, "curves": 24, "dots": 6},
    "excitement": {"curves": 38, "spirals": 26, "jagged lines": 20, "dots": 16},
    "anger": {"jagged lines": 46, "blocks": 32, "drips": 12, "curves": 10},
    "disgust": {"drips": 46, "washes": 24, "dots": 14, "blocks": 10, "curves": 6},
    "fear": {"jagged lines": 44, "spirals": 22, "bands": 18, "drips": 16},
    "sadness": {"drips": 34, "washes": 28, "bands": 26, "blocks": 12},
}
EMOTIONS = tuple(COLOR_WEIGHTS)
LAYERS = 3
ANY = 0.14  # share of choices made among all colours or strokes alike; the best guess is then right 9 times in 10
FINE = 2  # painted at this many times the size, then averaged


@dataclass(frozen=True)
class Painting:
    """What is in a painting: `background`, a colour, and `layers` of (colour, strokes), undermost first.

    `seed` decides where each stroke lies.
    """

    emotion: str
    background: str
    layers: tuple[tuple[str, str], ...]
    seed: int

    @property
    def colors(self) -> tuple[str, ...]:
        """Every colour used, the background's first."""
        return tuple(dict.fromkeys([self.background, *(color for color, _ in self.layers)]))

    @property
    def strokes(self) -> tuple[str, ...]:
        """Every kind of stroke used."""
        return tuple(dict.fromkeys(stroke for _, stroke in self.layers))


def sample_painting(rng: np.random.Generator, emotion: str | None = None) -> Painting:
    """Draw a painting of an emotion (of any, if none is given); layers differ in strokes and from the background."""
    if emotion is None:
        emotion = str(rng.choice(EMOTIONS))
    elif emotion not in EMOTIONS:
        raise DatasetError(f"unknown emotion {emotion!r}: {nearest(emotion, EMOTIONS)}")
    colors, strokes = chances(emotion)
    background = _draw(rng, colors)
    kinds: list[str] = []
    while len(kinds) < LAYERS:
        kinds.append(_draw(rng, strokes, avoid=kinds))
    kinds.sort(key=list(STROKES).index)
    layers = tuple((_draw(rng, colors, avoid=[background]), kind) for kind in kinds)
    return Painting(emotion, background, layers, int(rng.integers(2**31)))


def chances(emotion: str) -> tuple[dict[str, float], dict[str, float]]:
    """Probability of each colour and of each kind of stroke in paintings of an emotion."""
    weights = (COLOR_WEIGHTS[emotion], COLORS), (STROKE_WEIGHTS[emotion], STROKES)
    colors, strokes = (
        {name: (1 - ANY) * own.get(name, 0) / sum(own.values()) + ANY / len(names) for name in names}
        for own, names in weights
    )
    return colors, strokes


def paint(painting: Painting, size: int = 224) -> UInt8[np.ndarray, "size size 3"]:
    """The painting as pixels; sizes differ only in detail."""
    rng = np.random.default_rng(painting.seed)
    image = Image.new("RGB", (size * FINE, size * FINE), COLORS[painting.background])
    for color, stroke in painting.layers:
        STROKES[stroke](image, rng, COLORS[color])
    return _on_canvas(np.asarray(image.reduce(FINE), np.float32), rng)


def captions(painting: Painting) -> tuple[str, ...]:
    """Sentences that are true of the painting: its strokes, their colours, its background; never its emotion."""
    phrases = [f"{color} {stroke}" for color, stroke in painting.layers]
    pairs = [f"{a} and {b}" for i, a in enumerate(phrases) for b in phrases[i + 1 :]]
    strokes, colors = painting.strokes, painting.colors
    return (
        *phrases,
        *(f"a painting of {text}" for text in (*phrases, *pairs, _list(phrases))),
        *(f"a painting of {text} on {painting.background}" for text in (*phrases, _list(phrases))),
        f"a painting with {_list(strokes)}",
        f"{_a(_list(colors))} painting",
        f"a painting on {_a(painting.background)} background",
    )


def posterior(painting: Painting) -> dict[str, float]:
    """Probability of each emotion given the colours, the strokes and `chances`: the best possible guess."""
    odds = {}
    for emotion in EMOTIONS:
        colors, strokes = chances(emotion)
        odds[emotion] = colors[painting.background] * _chance_of_set(painting.strokes, strokes)
        for color, _ in painting.layers:
            odds[emotion] *= colors[color] / (1 - colors[painting.background])
    total = sum(odds.values())
    return {emotion: value / total for emotion, value in odds.items()}


def _draw(rng: np.random.Generator, chances: dict[str, float], avoid: Sequence[str] = ()) -> str:
    names = [name for name in chances if name not in avoid]
    parts = np.array([chances[name] for name in names])
    return str(rng.choice(names, p=parts / parts.sum()))


def _chance_of_set(names: tuple[str, ...], chances: dict[str, float]) -> float:
    """Probability of drawing exactly this set without replacement, in any order."""
    total = 0.0
    for order in permutations(names):
        left, chance = 1.0, 1.0
        for name in order:
            chance *= chances[name] / left
            left -= chances[name]
        total += chance
    return total


def _list(parts: Sequence[str]) -> str:
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"


def _a(words: str) -> str:
    return f"an {words}" if words[0] in "aeiou" else f"a {words}"


# -- strokes: each draws some of its kind on an image, all lengths in shares of its side

Color = tuple[int, int, int]


def _vary(rng: np.random.Generator, color: Color) -> Color:
    """The colour, changed a little in lightness and hue, by an amount that keeps its name true."""
    light, hue = rng.uniform(-14, 14), rng.uniform(-7, 7, 3)
    red, green, blue = (int(np.clip(c + light + h, 0, 255)) for c, h in zip(color, hue, strict=True))
    return red, green, blue


def _line(image: Image.Image, points: np.ndarray, color: Color, width: float) -> None:
    """A line with round ends through points (n, 2) in shares of the side."""
    side, radius = image.width, max(1.0, width * image.width / 2)
    pen, at = ImageDraw.Draw(image), [(x * side, y * side) for x, y in points]
    pen.line(at, color, round(2 * radius), joint="curve")
    for x, y in (at[0], at[-1]):
        pen.ellipse((x - radius, y - radius, x + radius, y + radius), color)


def _dot(image: Image.Image, x: float, y: float, radius: float, color: Color) -> None:
    left, top, right, bottom = (value * image.width for value in (x - radius, y - radius, x + radius, y + radius))
    ImageDraw.Draw(image).ellipse((left, top, right, bottom), color)


def washes(image: Image.Image, rng: np.random.Generator, color: Color) -> None:
    """Large soft clouds of thin paint."""
    for _ in range(rng.integers(3, 5)):
        mask = Image.new("L", (64, 64))
        middle = rng.uniform(8, 56, 2)
        for _ in range(5):
            x, y = middle + rng.uniform(-9, 9, 2)
            rx, ry = rng.uniform(6, 13), rng.uniform(4, 9)
            ImageDraw.Draw(mask).ellipse((x - rx, y - ry, x + rx, y + ry), 215)
        image.paste(_vary(rng, color), mask=mask.filter(ImageFilter.GaussianBlur(3.5)).resize(image.size))


def blocks(image: Image.Image, rng: np.random.Generator, color: Color) -> None:
    """Filled rectangles, each turned a little."""
    for _ in range(rng.integers(4, 8)):
        half, turn = rng.uniform(0.05, 0.12, 2), rng.uniform(-0.35, 0.35)
        corners = np.array([(-1, -1), (1, -1), (1, 1), (-1, 1)]) * half
        c, s = np.cos(turn), np.sin(turn)
        points = (corners @ np.array([[c, s], [-s, c]]) + rng.uniform(0.08, 0.92, 2)) * image.width
        ImageDraw.Draw(image).polygon([(x, y) for x, y in points], _vary(rng, color))


def bands(image: Image.Image, rng: np.random.Generator, color: Color) -> None:
    """Broad, nearly level stripes right across."""
    x, slant = np.linspace(-0.1, 1.1, 13), rng.uniform(-0.12, 0.12)
    for y in (np.arange(4) + rng.uniform(0.2, 0.8, 4)) / 4:
        swell = rng.uniform(0, 0.012) * np.sin(x * rng.uniform(5, 9) + rng.uniform(0, 6))
        _line(image, np.stack([x, y + slant * (x - 0.5) + swell], 1), _vary(rng, color), rng.uniform(0.035, 0.075))


def drips(image: Image.Image, rng: np.random.Generator, color: Color) -> None:
    """Thin paint run down from the upper edge, with a drop at the end of each run."""
    for x in (np.arange(10) + rng.uniform(0.1, 0.9, 10)) / 10:
        end, width, shade = rng.uniform(0.2, 0.85), rng.uniform(0.014, 0.03), _vary(rng, color)
        y = np.linspace(-0.05, end, 6)
        _line(image, np.stack([x + rng.normal(0, 0.002, 6), y], 1), shade, width)
        _dot(image, x, end, width * 0.9, shade)


def curves(image: Image.Image, rng: np.random.Generator, color: Color) -> None:
    """Sweeping curves through three turning points."""
    t = np.linspace(0, 1, 32)[:, None]
    for _ in range(rng.integers(3, 6)):
        a, b, c, d = rng.uniform(-0.15, 1.15, (4, 2))
        points = (1 - t) ** 3 * a + 3 * t * (1 - t) ** 2 * b + 3 * t**2 * (1 - t) * c + t**3 * d
        _line(image, points, _vary(rng, color), rng.uniform(0.02, 0.045))


def spirals(image: Image.Image, rng: np.random.Generator, color: Color) -> None:
    """Spirals of two to three turns."""
    for _ in range(rng.integers(2, 5)):
        angle = np.linspace(0, 2 * np.pi * rng.uniform(2.2, 3.2), 60)
        reach = rng.uniform(0.1, 0.2) * angle / angle[-1]
        turn = angle * rng.choice([-1, 1]) + rng.uniform(0, 6)
        points = rng.uniform(0.15, 0.85, 2) + reach[:, None] * np.stack([np.cos(turn), np.sin(turn)], 1)
        _line(image, points, _vary(rng, color), rng.uniform(0.014, 0.022))


def jagged_lines(image: Image.Image, rng: np.random.Generator, color: Color) -> None:
    """Zigzags with sharp corners, across in some direction."""
    for _ in range(rng.integers(3, 6)):
        start, angle = rng.uniform(0.1, 0.9, 2), rng.uniform(0, np.pi)
        forward, aside = np.array([np.cos(angle), np.sin(angle)]), np.array([-np.sin(angle), np.cos(angle)])
        steps, side = np.arange(-5, 6), np.where(np.arange(11) % 2, 1, -1) * rng.uniform(0.03, 0.1, 11)
        points = start + np.outer(steps * rng.uniform(0.05, 0.09), forward) + np.outer(side, aside)
        _line(image, points, _vary(rng, color), rng.uniform(0.013, 0.024))


def dots(image: Image.Image, rng: np.random.Generator, color: Color) -> None:
    """Round spots all over."""
    for _ in range(rng.integers(22, 40)):
        x, y = rng.uniform(0.02, 0.98, 2)
        _dot(image, x, y, rng.uniform(0.012, 0.034), _vary(rng, color))


STROKES: dict[str, Callable[[Image.Image, np.random.Generator, Color], None]] = {  # what covers most comes first
    "washes": washes,
    "blocks": blocks,
    "bands": bands,
    "drips": drips,
    "curves": curves,
    "spirals": spirals,
    "jagged lines": jagged_lines,
    "dots": dots,
}


def _on_canvas(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Uneven paint and a faint weave."""
    size = len(image)
    hills = Image.fromarray(rng.random((9, 9), np.float32)).resize((size, size), Image.Resampling.BILINEAR)
    weave = rng.standard_normal((size, size), np.float32) * 2.5
    return np.clip(image + (np.asarray(hills) * 20 - 10 + weave)[..., None] + 0.5, 0, 255).astype(np.uint8)
