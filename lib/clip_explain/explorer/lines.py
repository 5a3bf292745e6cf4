"""The explorer's lines of HTML around the pictures: what is loaded or computed, warnings, the legend, code, the file.

Below app.py, whose widgets show them.
"""

import base64
import html
from collections.abc import Sequence

from clip_explain.explorer import pictures
from clip_explain.models.model import Model

# About how many MB of weights a first use of OpenAI's models downloads.
SIZES = {
    "RN50": 260,
    "RN101": 290,
    "RN50x4": 420,
    "RN50x16": 660,
    "RN50x64": 1350,
    "ViT-B/32": 350,
    "ViT-B/16": 350,
    "ViT-L/14": 930,
    "ViT-L/14@336px": 930,
}


def named(model: str) -> str:
    """A model's name in the menu, with what it needs."""
    needs = SIZES.get(model)
    return f"{model} (OpenAI's: {needs} MB, downloaded once)" if needs else model


def legend(sign: str) -> str:
    """The colours of a map, and what they say."""
    strip = pictures.data_uri(pictures.colour_strip(sign))
    ends = ("against", "for") if sign == "both" else ("0", "most")
    bar = f'{ends[0]} <img class="cx-strip" src="{strip}" alt="colours from {ends[0]} to {ends[1]}"> {ends[1]}'
    return f'<div class="cx-legend"><span>{pictures.LEGEND[sign]}</span><span>{bar}</span></div>'


def banner(warnings: Sequence[str]) -> str:
    """The warning, above the pictures, about words and pictures outside the model's world."""
    said = "".join(f"<div>{html.escape(message)}.</div>" for message in warnings)
    return f'<div class="cx-warning" role="status">{said}</div>' if said else ""


def loading(name: str) -> str:
    """What is waited for while a model is loaded."""
    needs = f" ({SIZES[name]} MB, downloaded from OpenAI the first time)" if name in SIZES else ""
    return f"loading {name}{needs}"


def busy(said: str) -> str:
    """The line above the pictures while something is computed."""
    return f'<div class="cx-status" role="status"><span class="cx-spinner"></span>{html.escape(said)}</div>'


def copyable(lines: str) -> str:
    """Lines of Python below a button that copies them."""
    copy = "navigator.clipboard.writeText(this.nextElementSibling.innerText); this.innerText = 'Copied'"
    return f'<button class="cx-copy" onclick="{copy}">Copy</button><pre>{html.escape(lines)}</pre>'


def status(model: Model, seconds: float | None) -> str:
    took = "" if seconds is None else f", drawn in {seconds:.2f} s"
    return f'<div class="cx-status" role="status">{html.escape(model.name)} on {model.device}{took}</div>'


def link(png: bytes) -> str:
    """A link that saves a PNG from the page."""
    data = base64.b64encode(png).decode()
    return (
        f'<a download="explorer.png" href="data:image/png;base64,{data}">Save explorer.png ({len(png) // 1000} KB)</a>'
    )
