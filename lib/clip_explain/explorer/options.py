"""Which widget a method's option needs, by its record: a switch, a choice, a range of numbers, a text.

Below widgets.py, which makes the widgets; above the explainers. Ranges of layers and heads depend on the model.
"""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from clip_explain.errors import MethodError
from clip_explain.explainers import METHODS
from clip_explain.explainers.method import Option
from clip_explain.explainers.registry import check_fits, names_of_pairs
from clip_explain.models.adapted import image_tower, text_tower
from clip_explain.models.model import Model
from clip_explain.models.resnet import stages_of

# Options without a widget: batch sizes do not change a map, and a tensor cannot be typed.
HIDDEN = frozenset({"batch_size", "noise"})
EVERY = "all"  # heads: what None is in the widget


@dataclass(frozen=True)
class Control:
    """One option as a widget: `kind` is "switch", "choice", "slider", "number" (whole), "decimal" or "text".

    `value` is where it begins, `default` the explainer's own, which needs no mention in a call. `choices`, of a choice
    or a slider, are pairs of label and value; `low` and `high` bound a number. A number equal to `all` stands for None:
    all layers, or the last one. `says` is the record's sentence on what the option does.
    """

    name: str
    kind: str
    value: Any
    default: Any
    choices: tuple[tuple[str, Any], ...] = ()
    low: int = 0
    high: int = 0
    all: int | None = None
    optional: bool = False
    says: str = ""


def controls(method: str, model: Model, words: bool = False) -> list[Control]:
    """A control for every option of a (word) method that a person can set, in the order of its record."""
    options = METHODS[method].options_for(words).values()
    size = measures(model, words)
    return [replace(control(option, size), says=option.says) for option in options if option.name not in HIDDEN]


def quick_pairs(method: str, model: Model) -> tuple[tuple[str, Any], ...]:
    """The options with which a method for pairs answers a click: quick ones, and a layer that both towers have."""
    found = []
    for option in METHODS[method].pair_options or ():
        value = option.default if option.quick is None else option.quick
        if option.kind == "layer":
            value = min(value, measures(model)[0] - 1, measures(model, words=True)[0] - 1)
        if value != option.default:
            found.append((option.name, value))
    return tuple(found)


def pair_methods(model: Model) -> list[str]:
    """The names of the methods for pairs that take this model."""
    found = []
    for name in names_of_pairs():
        with suppress(MethodError):
            check_fits(model, name)
            found.append(name)
    return found


def measures(model: Model, words: bool = False) -> tuple[int, int]:
    """The number of layers, or of stages of a convolutional network, and the number of heads of a tower."""
    if not words and not model.is_vit:
        return (1 if model.encoder == "other" else len(stages_of(model.network).stages)), 1
    if words and not model.tokenizer:
        return 1, 1
    blocks = (text_tower if words else image_tower)(model.network).layers
    return len(blocks), blocks[0].heads


def control(option: Option, size: tuple[int, int]) -> Control:
    """The control of one option, by its kind and the model's layers and heads. Slow methods start with small values."""
    name, default = option.name, option.default
    value = default if option.quick is None else option.quick
    if option.kind == "switch":
        return Control(name, "switch", value, default)
    if option.kind == "head":
        heads = ((EVERY, EVERY), *((str(head), head) for head in range(size[1])))
        return Control(name, "slider", EVERY, default, heads)
    if option.kind == "choice":
        return Control(name, "choice", value, default, tuple((each, each) for each in option.choices))
    if option.kind in ("number", "text"):
        return Control(
            name, "decimal" if option.kind == "number" else "text", value, default, optional=bool(option.none)
        )
    low, high = bounds(option, value, size[0])
    every = high if default is None else None
    start = high if value is None else min(value, high)
    return Control(name, "number", start, default, low=low, high=high, all=every)


def bounds(option: Option, value: int | None, depth: int) -> tuple[int, int]:
    """The least and the largest whole number to choose from."""
    if option.kind in ("layers", "layer"):
        return option.bounds(depth)
    return int(option.least or 0), max(4 * (value or 0), 8)


def changed(found: Sequence[tuple[Control, Any]]) -> tuple[tuple[str, Any], ...]:
    """The options whose value differs from the explainer's default, which a call must name."""
    pairs = [(each.name, each.default, option_value(each, value)) for each, value in found]
    return tuple((name, value) for name, default, value in pairs if value != default)


def option_value(control: Control, value: Any) -> Any:
    """A widget's value as the explainer takes it. MethodError for a text where a number is needed."""
    if control.kind == "number":
        return None if value == control.all else int(value)
    if control.kind == "slider":
        return None if value == EVERY else value
    if control.optional and isinstance(value, str) and not value.strip():
        return None
    if control.kind == "decimal":
        try:
            return float(value)
        except ValueError:
            raise MethodError(f"the option {control.name} takes a number, or nothing; got {value!r}") from None
    return value
