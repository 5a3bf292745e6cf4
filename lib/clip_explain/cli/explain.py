"""`clip-explain explain`: draws the maps and scores of one image for some texts.

The library is imported only when there is something to do, so that --help is quick.
"""

import argparse
import os
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from clip_explain.cli.listing import listing
from clip_explain.errors import OutputError
from clip_explain.explainers.registry import METHODS

FORMATS = (".png", ".pdf", ".svg")
COLUMNS = 4
TITLE_LETTERS = 120

EXAMPLES = """examples:
  clip-explain photo.png "a blue cone" "a red ring" --out map.png
  clip-explain photo.png "a blue cone" --method legrad --option layers=6
  clip-explain photo.png "a blue cone behind a red ring" --words

other commands, each with its own --help: clip-explain check, notebook, data, sweep, train, card
"""


def main(argv: Sequence[str]) -> None:
    """Explain one image, or print a list of what is available."""
    arguments = parse(argv)
    if arguments.list:
        print(listing())
    elif arguments.words:
        print_words(arguments)
    else:
        draw(arguments)


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        "clip-explain",
        description="Which pixels made CLIP give each text its score?",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("image", nargs="?", help="an image file")
    parser.add_argument("texts", nargs="*", help="one or more texts, each in quotes")
    parser.add_argument("--list", action="store_true", help="print the models and the methods with their options")
    parser.add_argument("--model", default="tiny-vit", help="a name of --list, a weights file, or open_clip:ARCH/TAG")
    parser.add_argument("--method", default="grad_eclip", help="a name of --list (default: grad_eclip)")
    parser.add_argument(
        "--option", action="append", default=[], metavar="NAME=VALUE", help="an option of the method; may be repeated"
    )
    parser.add_argument(
        "--fit",
        metavar="crop|full|squash",
        help="what of the image is looked at (default: full; of a ResNet crop, its middle square)",
    )
    parser.add_argument("--out", default="map.png", type=Path, help="a .png, .pdf or .svg (default: map.png)")
    parser.add_argument("--device", help="cpu, cuda, ... (default: cuda where there is one)")
    parser.add_argument("--dtype", metavar="fp32|fp16|bf16", help="(default: fp16 on cuda, fp32 elsewhere)")
    parser.add_argument("--truncate", action="store_true", help="cut a text that is too long for the model")
    add_target_options(parser)
    arguments = parser.parse_intermixed_args(argv)  # options may stand between the texts
    others = arguments.image_target or arguments.direction
    if not arguments.list and not (arguments.texts or (arguments.image and others)):
        parser.error("an image and at least one text, --image-target or --direction are needed, or --list")
    if arguments.without and (arguments.templates or not arguments.texts):
        parser.error("--without takes words out of the texts given, and no --templates")
    if arguments.words and (arguments.templates or others or arguments.without):
        parser.error(
            "--words weighs the words of the texts: --templates, --image-target, --direction and --without are for maps"
        )
    return arguments


def add_target_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that choose what is explained; the default is each text itself."""
    several = {"action": "append", "default": []}
    parser.add_argument(
        "--templates", **several, help="imagenet, clip_surgery, or 'a photo of a {}.'; the last may be repeated"
    )
    parser.add_argument("--image-target", **several, metavar="PATH", help="explain what is like this other image, too")
    parser.add_argument(
        "--direction",
        **several,
        metavar="FILE:LABEL",
        help="explain a direction of a file, as emotions.safetensors:awe",
    )
    parser.add_argument("--without", **several, metavar="WORD", help="explain what this word adds to each text")
    parser.add_argument("--negative", action="store_true", help="explain what speaks against, not for")
    parser.add_argument("--words", action="store_true", help="print each word's weight; no picture is drawn")


def draw(arguments: argparse.Namespace) -> None:
    """Compute the maps, print the scores and write the picture."""
    from clip_explain.explainers import explain
    from clip_explain.images import read_image, shrunk
    from clip_explain.models import load

    check_output(arguments.out)
    options = parse_options(arguments.method, arguments.option)
    image = read_image(arguments.image)
    model = load(arguments.model, arguments.device, arguments.dtype)
    names, targets = described(model, arguments)
    found = explain(model, image, targets, arguments.method, fit=arguments.fit, **options)
    titles = [f"{Path(arguments.image).name}\n{model.name}, {arguments.method}, fit {found.fit}"]
    for name, score in zip(names, scores_as_text(found, names == arguments.texts), strict=True):
        print(f"{score}  {name}")
        titles.append(f"{textwrap.shorten(name, TITLE_LETTERS)}\n{score}")
    label = f"{arguments.method} {options or ''}, fit {found.fit}, {model.name}, weights {model.sha256}"
    save_picture(shrunk(image), found, titles, arguments.out, label)


def described(model, arguments: argparse.Namespace) -> tuple[list[str], Any]:
    """The explained directions and a name for each: of texts, of other images, or from files."""
    import torch

    from clip_explain.directions import targets, without_word
    from clip_explain.texts import BARE

    names, parts, texts = [], [], arguments.texts
    if arguments.without:
        names += [f"{text}, less {word!r}" for text in texts for word in arguments.without]
        parts += [without_word(model, text, arguments.without, arguments.truncate) for text in texts]
    elif texts:
        templates = arguments.templates if len(arguments.templates) != 1 else arguments.templates[0]
        names += texts
        parts.append(targets(model, texts, templates or BARE, truncate=arguments.truncate))
    for path in map(Path, arguments.image_target):
        names.append(path.name)
        parts.append(targets(model, path, fit=arguments.fit))
    for spec in arguments.direction:
        from clip_explain.sweep.features import read_direction  # imported late, since it imports scikit-learn

        labels, vectors = read_direction(spec, model)
        names += labels
        parts.append(vectors)
    found = torch.cat(parts)
    return ([f"against: {name}" for name in names], -found) if arguments.negative else (names, found)


def print_words(arguments: argparse.Namespace) -> None:
    """Print the weight of every word of every text, for the image or, with --negative, against it."""
    from clip_explain.directions import targets
    from clip_explain.explainers import explain_words
    from clip_explain.images import preprocess
    from clip_explain.models import load

    options = parse_options(arguments.method, arguments.option, words=True)
    model = load(arguments.model, arguments.device, arguments.dtype)
    seen = targets(model, preprocess(model, arguments.image, arguments.fit))
    seen = -seen if arguments.negative else seen
    shared = dict(per="word", truncate=arguments.truncate)
    for words, weights in explain_words(model, seen, arguments.texts, arguments.method, **shared, **options):
        print("".join(f"{weight:8.4f}  {word}\n" for word, weight in zip(words, weights[0].tolist(), strict=True)))


def parse_options(method: str, pairs: Sequence[str], words: bool = False) -> dict[str, Any]:
    """The --option arguments, each with the type that the record of the method gives it.

    An unknown method or option is left as it is: `explain` refuses it, with the names it might have meant.
    """
    known = METHODS[method].options_for(words) if method in METHODS else {}
    given = {name: text for name, _, text in (pair.partition("=") for pair in pairs)}
    return {name: known[name].read(text) if name in known else text for name, text in given.items()}


def scores_as_text(found, rivals: bool) -> list[str]:
    """Each direction's score and, among several `rivals` or by a sigmoid of its own, its probability by the model."""
    scores, model = found.scores[0].float(), found.request.model
    shown = [f"{found.score} {score:.3f}" for score in scores.tolist()]
    if not rivals or (len(shown) == 1 and model.probability == "softmax"):
        return shown
    chances = model.probabilities(scores).tolist()
    digits = 1 if model.probability == "sigmoid" else 0  # SigLIP's are small
    return [f"{score}, {chance:.{digits}%}" for score, chance in zip(shown, chances, strict=True)]


def check_output(out: Path) -> None:
    """Raise OutputError now, before the work, if `out` cannot be written."""
    problem = None
    if out.suffix.lower() not in FORMATS:
        problem = f"its name must end in one of {', '.join(FORMATS)}"
    elif not os.path.isdir(out.parent):
        problem = f"there is no folder {out.parent}"
    elif os.path.isdir(out):
        problem = "it is a folder"
    elif not os.access(out.parent, os.W_OK):
        problem = f"the folder {out.parent} is read-only"
    if problem:
        raise OutputError(f"cannot write {out}: {problem}")


def save_picture(image, found, titles: Sequence[str], out: Path, label: str) -> None:
    """The image and its overlays, as a file that is complete or not there."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot as plt

    from clip_explain import files, plots
    from clip_explain.maps import has_sign

    plots.use_style()
    columns = min(COLUMNS, len(titles))
    look = {"panel": 3.0, "fit": found.fit, "signed": has_sign(found.maps), "bar": True}
    axes = plots.grid([image] * len(titles), [None, *found[0].cpu()], titles, columns, **look)
    figure = axes[0, 0].figure
    kind = out.suffix[1:].lower()
    try:
        files.write(out, lambda place: figure.savefig(place, format=kind, metadata={"Title": plots.drawable(label)}))
    finally:
        plt.close(figure)
