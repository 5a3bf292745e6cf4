"""Which widget an explainer's option needs, read off its signature: a switch, a choice, a range of numbers, a text.

Below explorer.py, which makes the widgets; above the explainers. Ranges of layers and heads follow the model.
"""

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import NoneType
from typing import Any, Literal, get_args, get_origin

from clip_explain.errors import MethodError
from clip_explain.explainers import EXPLAINERS, FOR_CLASSIFIERS, FOR_RESNETS, WORD_EXPLAINERS
from clip_explain.models import vit as trace
from clip_explain.models.model import Model
from clip_explain.models.resnet import STAGES
from clip_explain.models.vit import image_tower, text_tower

# No widget: sizes of batches change no map, and a tensor cannot be typed.
HIDDEN = frozenset({"batch_size", "noise"})
# Methods that take long begin small here; what differs from the method's own default stands in the code shown.
SMALL: dict[str, dict[str, Any]] = {
    "m2ib": {"steps": 5, "samples": 4},
    "rise": {"masks": 200, "center": True},
    "occlusion": {"samples": 400},
}
EVERY = "all"  # heads: what None is in the widget
FROM_ZERO = frozenset({"iterations", "generator"})  # numbers that may be 0; all others start at 1


@dataclass(frozen=True)
class Control:
    """One option as a widget: `kind` is "switch", "choice", "slider", "number" (whole), "decimal" or "text".

    `value` is where it begins, `default` the explainer's own, which needs no mention in a call. `choices`, of a choice
    or a slider, are pairs of label and value; `low` and `high` bound a number. A number equal to `all` stands for None:
    all layers, or the last one.
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


def methods(model: Model, words: bool = False) -> list[str]:
    """The names of the (word) explainers that take this model."""
    if words:
        return [] if model.tokenizer is None else list(WORD_EXPLAINERS)
    fitting = set(EXPLAINERS) if model.is_vit else set(FOR_RESNETS)
    fitting &= set(EXPLAINERS) if model.head is None else FOR_CLASSIFIERS
    return [name for name in EXPLAINERS if name in fitting]


def controls(method: str, model: Model, words: bool = False) -> list[Control]:
    """A control for every option of a (word) explainer that a person can set, in the order of its signature."""
    explainer = (WORD_EXPLAINERS if words else EXPLAINERS)[method]
    size = measures(model, words)
    parameters = [each for each in inspect.signature(explainer).parameters.values() if each.kind is each.KEYWORD_ONLY]
    return [control(each, explainer, size) for each in parameters if each.name not in HIDDEN]


def measures(model: Model, words: bool = False) -> tuple[int, int]:
    """How many layers, or stages of a ResNet, and how many heads a tower has."""
    if not words and not model.is_vit:
        return STAGES, 1
    blocks = (text_tower if words else image_tower)(model.network).layers
    return len(blocks), blocks[0].heads


def control(option: inspect.Parameter, explainer: Callable[..., Any], size: tuple[int, int]) -> Control:
    """The control of one option, by its annotation, its name and the model's layers and heads."""
    kinds, name, default = kinds_of(option.annotation), option.name, option.default
    value = SMALL.get(explainer.__name__, {}).get(name, default)
    if bool in kinds:
        return Control(name, "switch", value, default)
    if name == "head":
        heads = ((EVERY, EVERY), *((str(head), head) for head in range(size[1])))
        return Control(name, "slider", EVERY, default, heads)
    if choices := choices_of(option, explainer):
        return Control(name, "choice", value, default, tuple((str(each), each) for each in choices))
    if int in kinds:
        low, high = bounds(name, value, explainer.__name__, size[0])
        every = high if default is None else None
        start = high if value is None else min(value, high)
        return Control(name, "number", start, default, low=low, high=high, all=every)
    return Control(name, "decimal" if float in kinds else "text", value, default, optional=NoneType in kinds)


def kinds_of(annotation: Any) -> tuple[Any, ...]:
    return (str,) if get_origin(annotation) is Literal else get_args(annotation) or (annotation,)


def choices_of(option: inspect.Parameter, explainer: Callable[..., Any]) -> Sequence[str]:
    """What an option of text may be: its Literal, or the constant of its name (HEADS for `heads`, POOLS for `pool`).

    Looked for in the explainer's module, then among a trace's options; none found, any text goes.
    """
    if get_origin(option.annotation) is Literal:
        return get_args(option.annotation)
    if str not in kinds_of(option.annotation):
        return ()
    for module in (inspect.getmodule(explainer), trace):
        for constant in (option.name.upper(), f"{option.name.upper()}S"):
            if hasattr(module, constant):
                return tuple(getattr(module, constant))
    return ()


def bounds(name: str, value: int | None, explainer: str, depth: int) -> tuple[int, int]:
    """The least and the largest whole number to choose from."""
    if name == "layer" and explainer.startswith("m2ib"):
        return 0, depth - 2  # counted from 0, and the last is too late
    if name in ("layer", "layers", "single"):
        return 1, depth
    return (0 if name in FROM_ZERO else 1), max(4 * (value or 0), 8)


def changed(found: Sequence[tuple[Control, Any]]) -> tuple[tuple[str, Any], ...]:
    """The options that a call must name: those whose value is not the explainer's own default."""
    pairs = [(each.name, each.default, option_value(each, value)) for each, value in found]
    return tuple((name, value) for name, default, value in pairs if value != default)


def option_value(control: Control, value: Any) -> Any:
    """A widget's value as the explainer takes it. MethodError for what is no number where one is needed."""
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
