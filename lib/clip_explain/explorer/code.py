"""The lines of Python that reproduce what the explorer shows, and the figure that these lines draw.

Above view.py, from whose `State` the lines are written; below app.py.
"""

import io
import json
from collections.abc import Sequence
from typing import Any

import matplotlib.pyplot as plt
import torch
from matplotlib.figure import Figure

import clip_explain as cx
from clip_explain.explorer.view import Panel, State
from clip_explain.models.model import Model
from clip_explain.plots.style import STYLE

LONGEST = 1024  # px: a larger image is drawn smaller


def code(state: State, model: str) -> str:
    """The lines of Python that make the figure of a state, from the import to the file."""
    return "\n".join([*opening(state, model), *drawing(state), 'axes[0, 0].figure.savefig("explorer.png")'])


def python(value: Any) -> str:
    """A value as Python writes it, texts in double quotes."""
    return json.dumps(value, ensure_ascii=False) if isinstance(value, str | list) else repr(value)


def opening(state: State, model: str) -> list[str]:
    """The lines that load the model and the image."""
    needs_torch = any("torch." in line for line in drawing(state))
    return [
        "import torch\n\nimport clip_explain as cx\n" if needs_torch else "import clip_explain as cx\n",
        "cx.plots.use_style()",
        f"model = cx.load({python(model)})",
        f"image = {state.source.python}",
    ]


def drawing(state: State) -> list[str]:
    """The lines from `model` and `image` to `axes`, those of the figure."""
    shown, lines = "image", []
    if max(state.source.image.size) > LONGEST:
        shown = "shown"
        lines.append("shown = cx.images.shrunk(image)")
    lines.append(f"texts = {python(list(state.texts))}")
    names = ("maps", "others")[: len(state.panels)]
    for number, (name, panel) in enumerate(zip(names, state.panels, strict=True)):
        towards, line = _towards(state, number)
        lines += [line] if line and line not in lines else []
        lines.append(f"{name} = {_maps(panel, towards, state)}")
    return [*lines, *_pairs(state), *_page(state, shown, names), *_shading(state)]


def _towards(state: State, number: int) -> tuple[str, str]:
    """The name of what a panel explains, and the line that makes it, if one is needed."""
    if any(state.picked) and state.pairs_of(number) is None:
        rows = [_direction(i, state) for i in range(len(state.texts))]
        return "towards", f"towards = torch.cat([{', '.join(rows)}])"
    return ("texts", "") if state.evidence == "for" else ("whole", "whole = cx.targets(model, texts)")


def _pairs(state: State) -> list[str]:
    """The lines that put the interactions of picked words in the places of their texts' maps."""
    if state.pairs is None or not any(state.picked):
        return []
    lines, sign = ["maps = list(maps)"], "-" if state.evidence == "against" else ""
    for index, (_, word) in enumerate(state.asked):
        if word:
            call = f"model, image, texts[{index}], {_call(state.pairs)}, fit={python(state.fit)}"
            lines.append(f"pairs = cx.explain_pair({call})")
            lines.append(f"maps[{index}] = {sign}pairs.pairs[pairs.names.index({python(word)})]")
    return lines


def _direction(index: int, state: State) -> str:
    word, text = state.word(index), f"texts[{index}]"
    if not word:
        return f"cx.targets(model, {text})"
    return (
        f"cx.without_word(model, {text}, {python(word)})"
        if state.way == "added"
        else f"cx.targets(model, {python(word)})"
    )


def _call(panel: Panel) -> str:
    return "".join([python(panel.method), *(f", {name}={python(value)}" for name, value in panel.options)])


def _maps(panel: Panel, towards: str, state: State) -> str:
    calls = [
        f"cx.explain(model, image, {sign}{towards}, {_call(panel)}, fit={python(state.fit)})[0]" for sign in ("", "-")
    ]
    return {"for": calls[0], "against": calls[1], "both": f"{calls[0]} - {calls[1]}"}[state.evidence]


def _page(state: State, shown: str, names: Sequence[str]) -> list[str]:
    """The lines that lay out the image and its maps: texts side by side, or in rows for two methods."""
    texts, methods = len(state.texts), [panel.method for panel in state.panels]
    columns = 1 + (texts if len(names) == 1 else 2)
    asked = "texts"
    if any(state.picked):
        asked = python([f"{word}, in: {text}" if word else text for text, word in state.asked])
    if len(names) == 1:
        maps, titles = f"[None, *{names[0]}]", f'["", *{asked}]'
    else:
        maps = "[map for pair in zip(maps, others) for map in (None, *pair)]"
        titles = f'[title for text in {asked} for title in (text, "{methods[0]}", "{methods[1]}")]'
    look = f"columns={columns}, fit={python(state.fit)}" + (", signed=True" if state.evidence == "both" else "")
    return [
        f"maps = {maps}",
        f"titles = {titles}",
        f"axes = cx.plots.grid([{shown}] * len(maps), maps, titles, {look})",
    ]


def _shading(state: State) -> list[str]:
    """The lines that write each text below its map, or below the image of its row, its words shaded."""
    if state.words is None:
        return []
    place = "axes.flat[1:]" if len(state.panels) == 1 else "axes[:, 0]"
    call = f'cx.explain_words(model, {{}}, texts, {_call(state.words)}, fit={python(state.fit)}, per="word")'
    if state.evidence == "for":
        return [
            f"words = {call.format('image')}",
            f"for ax, (text, weights) in zip({place}, words):",
            "    cx.plots.shaded(text, weights[0].cpu(), ax)",
        ]
    lines = [f"seen = cx.targets(model, cx.preprocess(model, image, {python(state.fit)}))"]
    lines.append(f"against = {call.format('-seen')}")
    if state.evidence == "against":
        shade = "weights[0].cpu()"
        return [*lines, f"for ax, (text, weights) in zip({place}, against):", f"    cx.plots.shaded(text, {shade}, ax)"]
    lines.append(f"words = {call.format('seen')}")
    lines.append(f"for ax, (text, plus), (_, minus) in zip({place}, words, against):")
    return [*lines, "    cx.plots.shaded(text, (plus - minus)[0].cpu(), ax)"]


def figure(model: Model, state: State) -> Figure:
    """The matplotlib figure of a state, made by running the lines that `code` returns."""
    known = {"cx": cx, "torch": torch, "model": model, "image": state.source.image}
    with plt.rc_context(STYLE):
        exec("\n".join(drawing(state)), known)
    return known["axes"][0, 0].figure


def png(model: Model, state: State) -> bytes:
    """The figure as the PNG file that the code's last line writes."""
    drawn, written = figure(model, state), io.BytesIO()
    with plt.rc_context(STYLE):
        drawn.savefig(written, format="png")
    plt.close(drawn)
    return written.getvalue()
