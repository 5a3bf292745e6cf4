"""Text that a figure can draw: additional fonts for more scripts, and a box for characters that no font has."""

import functools
import unicodedata

import matplotlib.pyplot as plt
from matplotlib.font_manager import FontProperties, findfont, get_font

# Fonts with Chinese, Japanese, Korean or emoji, as systems have them. No colour emoji: matplotlib cannot draw those.
FURTHER = (
    "Noto Sans CJK SC",
    "Noto Sans CJK JP",
    "Noto Sans SC",
    "Noto Sans JP",
    "Source Han Sans SC",
    "WenQuanYi Micro Hei",
    "WenQuanYi Zen Hei",
    "Droid Sans Fallback",
    "IPAexGothic",
    "IPAGothic",
    "Unifont",
    "PingFang SC",
    "Hiragino Sans",
    "Microsoft YaHei",
    "Yu Gothic",
    "Malgun Gothic",
    "Arial Unicode MS",
    "Noto Sans Symbols 2",
    "Noto Emoji",
    "Symbola",
    "Segoe UI Emoji",
)
BOX = "\N{WHITE SQUARE}"  # what stands for a character that no font here has


def families() -> list[str]:
    """The fonts to draw a text with, in order: matplotlib's own setting, then those of FURTHER that are here."""
    return [*plt.rcParams["font.family"], *_further()]


def drawable(text: str) -> str:
    """A text without control characters, and with a box for each character that no font here has.

    Line breaks stay, and a tab becomes a space. Marks without a shape, such as joiners, are dropped.
    """
    known = _known(tuple(families()))
    return "".join(_drawn(letter, known) for letter in text)


def _drawn(letter: str, known: frozenset[int]) -> str:
    kind = unicodedata.category(letter)
    if letter == "\n" or ord(letter) in known and kind[0] != "C":
        return letter
    if letter.isspace():
        return " "
    return "" if kind in ("Cc", "Cf", "Cs", "Mn", "Me") else BOX


@functools.cache
def _further() -> tuple[str, ...]:
    return tuple(name for name in FURTHER if _is_here(name))


def _is_here(name: str) -> bool:
    try:
        findfont(name, fallback_to_default=False)
    except ValueError:
        return False
    return True


@functools.cache
def _known(names: tuple[str, ...]) -> frozenset[int]:
    """The characters that at least one of some fonts has."""
    files = [findfont(FontProperties(family=[name])) for name in names]
    return frozenset(code for file in files for code in get_font(file).get_charmap())
