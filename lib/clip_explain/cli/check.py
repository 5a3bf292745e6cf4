"""`clip-explain check`: a model's towers, their agreement with its own forward, the methods that fit, and one map."""

import argparse
from collections.abc import Sequence
from typing import Any

LEVELS = " .:-=+*#%@"  # the shades of a map in letters, from the lowest value to the highest


def main(argv: Sequence[str]) -> None:
    """Print the report of one model. ModelError if it cannot be loaded or does not agree."""
    from clip_explain.models import load

    arguments = parser().parse_args(argv)
    model = load(arguments.model, arguments.device, arguments.dtype)
    print("\n".join(report(model)))


def parser() -> argparse.ArgumentParser:
    found = argparse.ArgumentParser(
        "clip-explain check", description="What is read of a model, whether it agrees with it, and which methods fit."
    )
    found.add_argument("model", help="a name of --list, a weights file, hf:NAME or open_clip:ARCH/TAG")
    found.add_argument("--device", help="cpu, cuda, ... (default: cuda where there is one)")
    found.add_argument("--dtype", metavar="fp32|fp16|bf16", help="(default: fp16 on cuda, fp32 elsewhere)")
    return found


def report(model) -> list[str]:
    """The lines of the report: the towers, their agreement layer by layer, the methods, and a map of noise."""
    from clip_explain.explainers.method import TOWERS
    from clip_explain.explainers.registry import methods_for
    from clip_explain.models.agreement import agreement_by_layer

    lines = [
        f"{model.name}: {TOWERS[model.encoder]}, {model.image_size} px, cells of {model.patch_size} px, "
        f"embeddings of {model.embedding_size}"
    ]
    lines += [f"{name} tower: {described(tower)}" for name, tower in towers(model)]
    for tower, differences in agreement_by_layer(model.network).items():
        lines.append(f"{tower} agrees with the network's own forward, relative difference by layer:")
        lines += [f"  {place:>9} {difference:.1e}" for place, difference in differences.items()]
    methods = methods_for(model)
    lines.append(f"methods for images: {', '.join(methods)}")
    words = methods_for(model, words=True)
    lines.append(f"methods for words: {', '.join(words) or 'none, it has no text tower that can be read'}")
    return [*lines, *example(model, "grad_eclip" if "grad_eclip" in methods else "shapley")]


def towers(model) -> list[tuple[str, Any]]:
    """The towers that are read, by name; empty for a model of unknown layout."""
    from clip_explain.models.adapted import image_tower, text_tower

    found = [("image", image_tower(model.network))] if model.is_vit else []
    return [*found, ("text", text_tower(model.network))] if model.reading.has_text_tower else found


def described(tower) -> str:
    """A tower in one line: its layers, heads, activation, and how it pools."""
    layer = tower.layers[0]
    activation = getattr(type(layer.activation), "__name__", str(layer.activation))
    mask = ", causal" if tower.causal else ""
    return f"{len(tower.layers)} layers, {layer.heads} heads, {activation}, pooled by {tower.pooling}{mask}"


def example(model, method: str) -> list[str]:
    """The map of one image of noise towards its own embedding, in letters."""
    from clip_explain.explainers import explain
    from clip_explain.images import pixels
    from clip_explain.models.agreement import example_pixels

    image = pixels(model, example_pixels(model.network))
    options = {"samples": 64} if method == "shapley" else {}
    map = explain(model, image, model.embed_images(image), method, **options).maps[0, 0]
    return [f"{method} of noise, towards its own embedding, {float(map.max()):.2g} at most:", *in_letters(map)]


def in_letters(map) -> list[str]:
    """A map as lines of letters, its negative part left out."""
    shares = map.clamp(min=0) / map.max().clamp(min=1e-30)
    steps = (shares * (len(LEVELS) - 1)).round().int().tolist()
    return ["  " + "".join(LEVELS[step] for step in row) for row in steps]
