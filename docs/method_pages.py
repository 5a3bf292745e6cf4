"""The site's pages of the methods, made from their records (explainers/registry.py) and docs/methods.toml.

A page: what the method is and where it is from, its idea, its equation, a picture, its options, where it fails.
"""

import tomllib
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import matplotlib
import matplotlib.pyplot as plt
from PIL import Image

import clip_explain as cx
from clip_explain.explainers.method import Method, Option
from clip_explain.explainers.registry import METHODS

if TYPE_CHECKING:
    from clip_explain.explainers.interactions import Interactions

DOCS = Path(__file__).resolve().parent
TEXTS = ["a blue cone", "a red ring"]
SENTENCE = "a blue cone behind a red ring"
IMAGE = 1  # of the scenes: a blue cone and a red ring among others
LAYER = 9  # of tiny-vit's 12, for exCLIP


def prose() -> dict[str, dict[str, str]]:
    """Of each method its idea, equation and faults, as methods.toml has them."""
    return tomllib.loads((DOCS / "methods.toml").read_text())


def page(method: Method, text: dict[str, str], picture: str | None) -> str:
    """The page of one method in Markdown; `picture` is the name of its file, beside the page."""
    source = f"{method.paper} {method.year}" if method.year else method.paper
    parts = [
        f"# {method.title}",
        f"`{method.name}`: {method.says}. {source}.",
        text["idea"],
        f"$$\n{text['equation']}\n$$",
        *([f"![What {method.title} shows on a rendered scene]({picture})"] if picture else []),
        *([f"*On the embedded model tiny-vit: {shown(method)}.*"] if picture else []),
        "## Options",
        *option_tables(method),
        "## What it takes, and what its values mean",
        f"It takes {method.needs}. {meaning(method)}",
        "## Where it fails",
        text["fails"],
    ]
    return "\n\n".join(parts) + "\n"


def shown(method: Method) -> str:
    """What the picture shows, in words."""
    if method.options is not None:
        return "the scene, and the map of each text"
    if method.pair_options is not None:
        return "the scene, and for each word the map of what patches and the word add together"
    return "the weight of each word, darker for more"


def meaning(method: Method) -> str:
    """How its values are to be read, and what it costs."""
    sign = "Values below 0 speak against the text." if method.signed else "Values are not below 0."
    slow = " It is slow: it takes many forwards or backward passes for each text." if method.slow else ""
    others = " A text's map depends on the other texts of the call." if method.by_set else ""
    return sign + slow + others


def option_tables(method: Method) -> list[str]:
    """A table of its options for images, for words and for pairs, where it has such a function."""
    kinds = {"images": method.options, "words": method.word_options, "pairs": method.pair_options}
    return [option_table(kind, options) for kind, options in kinds.items() if options is not None]


def option_table(kind: str, options: tuple[Option, ...]) -> str:
    if not options:
        return f"For {kind} it has none."
    lines = [f"| for {kind} | default | what it does | what it may be |", "|---|---|---|---|"]
    lines += [f"| `{each.name}` | `{each.default!r}` | {each.says} | {each.allowed} |" for each in options]
    return "\n".join(lines)


def quick(options: tuple[Option, ...] | None) -> dict[str, object]:
    """The values with which a slow method is tried quickly."""
    return {option.name: option.quick for option in options or () if option.quick is not None}


def draw(method: Method, model: cx.Model, path: Path) -> None:
    """Write a method's picture: maps of two texts; for methods of pairs maps of words; else the words' weights."""
    image = cx.datasets.load("scenes", size=480)[IMAGE].image
    if method.options is not None:
        cx.explain(model, image, TEXTS, method.name, **quick(method.options)).save(path)
    elif method.pair_options is not None:
        options = quick(method.pair_options) | ({"layer": LAYER} if method.name == "exclip" else {})
        found = cx.explain_pair(model, image, TEXTS[0], method.name, **options)
        save_pairs(found, image, path)
    else:
        cx.explain_words(model, image, SENTENCE, method.name, per="word").save(path)


def save_pairs(found: "Interactions", image: Image.Image, path: Path) -> None:
    """The maps of a text's words side by side."""
    maps, titles = [None, *found.pairs.cpu()], ["", *found.names]
    axes = cx.plots.grid([image] * len(maps), maps, titles, columns=len(maps), signed=True)
    axes[0, 0].figure.savefig(path, dpi=120)
    plt.close(axes[0, 0].figure)


def write(folder: Path, pictures: bool = True) -> list[str]:
    """Write a page for each method, and its picture, into a folder; the names of the pages."""
    matplotlib.use("agg")
    folder.mkdir(parents=True)
    model = cx.load("tiny-vit", "cpu") if pictures else None
    texts = prose()
    for name, method in METHODS.items():
        if model is not None:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # a window without a screen
                draw(method, model, folder / f"{name}.png")
        picture = f"{name}.png" if model is not None else None
        (folder / f"{name}.md").write_text(page(method, texts[name], picture))
    return list(METHODS)


def index() -> str:
    """The page that lists all methods."""
    lines = ["# Methods", "", "| method | in a sentence | source |", "|---|---|---|"]
    for name, method in METHODS.items():
        source = f"{method.paper} {method.year}" if method.year else method.paper
        lines.append(f"| [{method.title}](methods/{name}.md) | {method.says} | {source} |")
    entries = "\n".join(f"methods/{name}" for name in METHODS)
    return "\n".join([*lines, "", "```{toctree}", ":hidden:", "", entries, "```"]) + "\n"
