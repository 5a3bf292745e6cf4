"""The guards at the library's edges: arguments of the types that a signature says, choices, counts, numbers, memory."""

import functools
import importlib
import inspect
import math
import types
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from numbers import Integral, Real
from typing import Annotated, Any, ParamSpec, TypeVar, Union, get_args, get_origin, no_type_check

import numpy as np
import torch
from jaxtyping import AbstractArray, jaxtyped
from torch import Tensor

from clip_explain.errors import ClipExplainError, MethodError, ModelError, TensorError, brief

P = ParamSpec("P")
R = TypeVar("R")
Error = type[ClipExplainError]
MOST = 10**9  # of anything that is counted

# How a type is called in an error message; any other goes by its own name.
SPOKEN: dict[Any, str] = {
    int: "a whole number",
    float: "a finite number",
    bool: "True or False",
    str: "a text",
    types.NoneType: "None",
}


def checked(error: Error = MethodError) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """A decorator that holds each argument against its annotation before the function runs.

    A whole number has no fraction and is not a bool, a float is finite, a list of texts is not a single text, and a
    tensor has the axes of its annotation: an axis that is named twice has one length. A refused argument raises
    TensorError where a tensor or an array is expected, ModelError where a model is, and `error` otherwise. The type
    Annotated[TYPE, ERROR, WORDS] raises its own ERROR with these WORDS. The function itself checks what an annotation
    cannot express, such as a range or a choice.
    """

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        signature = inspect.signature(function)

        @functools.wraps(function)
        def call(*args: P.args, **kwargs: P.kwargs) -> R:
            args, kwargs = tuple(map(as_tensor, args)), {name: as_tensor(value) for name, value in kwargs.items()}
            check_arguments(signature, signature.bind(*args, **kwargs).arguments, error)
            return function(*args, **kwargs)

        return call

    return decorate


def as_tensor(value: Any) -> Any:
    """The maps of an `Explanation`; any other value unchanged."""
    stands_for = hasattr(type(value), "__torch_function__") and not isinstance(value, Tensor)
    return value.maps if stands_for else value


def check_arguments(signature: inspect.Signature, given: Mapping[str, Any], error: Error = MethodError) -> None:
    """Raise an error for the first argument that does not fit its annotation; see `checked`."""
    with jaxtyped("context"):  # a fresh one: the lengths of axes belong to this call alone
        for name, value in given.items():
            parameter = signature.parameters[name]
            hint = parameter.annotation
            variadic = parameter.kind in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL)
            if not variadic and hint is not parameter.empty and not fits(value, hint):
                raise error_for(hint, error)(f"got {name}={told(value)}, expected {spoken(hint)}")


@no_type_check  # the tests' own checks would open a context of axes within the call's
def fits(value: Any, hint: Any) -> bool:
    """Whether a value is of a type. Every item of a list is checked. A type that is unknown here accepts any value."""
    origin, inner = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return any(fits(value, each) for each in inner)
    if origin is Annotated:
        return fits(value, inner[0])
    if origin is Callable:
        return callable(value)
    if hint is Any:
        return True
    if hint is None:
        return value is None
    if hint is int:
        return isinstance(value, Integral) and not isinstance(value, bool)
    if hint is float:
        return isinstance(value, Real) and not isinstance(value, bool) and -math.inf < value < math.inf
    if isinstance(origin, type) and issubclass(origin, Iterable) and not issubclass(origin, Mapping):
        return fits_items(value, origin, inner)
    kind = origin or hint
    return isinstance(value, kind) if isinstance(kind, type) else True


@no_type_check
def fits_items(value: Any, origin: type, inner: tuple[Any, ...]) -> bool:
    """Whether a list, or another iterable, holds items of these types. A single text is not a list of texts.

    A generator, which can be iterated only once, fits an annotation that asks for no more than an iterable.
    """
    if isinstance(value, str | bytes | Mapping) or not isinstance(value, Iterable):
        return False
    if isinstance(value, Tensor | np.ndarray) and not value.ndim:
        return False
    if not isinstance(value, Collection):
        return not issubclass(origin, Collection)
    if origin is tuple and inner[-1] is not Ellipsis:
        return len(value) == len(inner) and all(map(fits, value, inner))
    return all(fits(item, inner[0]) for item in value)


def spoken(hint: Any) -> str:
    """A type in the words of an error message: "a whole number or None"."""
    origin, inner = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return " or ".join(spoken(each) for each in inner)
    if origin is Annotated:
        return inner[2]
    if origin is Callable:
        return "a function"
    if isinstance(origin, type) and issubclass(origin, Collection) and not issubclass(origin, Mapping):
        each = [spoken(item) for item in inner if item is not Ellipsis]
        return f"a list of {each[0]}" if len(set(each)) == 1 else f"({', '.join(each)})"
    kind = origin or hint
    if isinstance(kind, type) and issubclass(kind, AbstractArray):
        numbers = hint.__name__.partition("[")[0]
        return f"a {numbers} {hint.array_type.__name__} ({', '.join(hint.dim_str.split())})"
    return SPOKEN.get(kind, f"a {getattr(kind, '__name__', kind)}")


def told(value: Any) -> str:
    """A short description of a refused value: a tensor's or an array's shape and dtype, or else Python's `repr`."""
    if isinstance(value, Tensor | np.ndarray):
        return f"a {type(value).__name__} of shape {tuple(value.shape)}, {str(value.dtype).removeprefix('torch.')}"
    return f"{brief(value)} ({type(value).__name__})"


def error_for(hint: Any, error: Error) -> Error:
    """The error type for a value that does not fit a type; `error` where neither a tensor nor a model is expected."""
    kinds = get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)
    for kind in kinds:
        if get_origin(kind) is Annotated:
            return get_args(kind)[1]
        if isinstance(kind, type) and issubclass(kind, AbstractArray | Tensor | np.ndarray):
            return TensorError
        if getattr(kind, "__name__", "") == "Model":
            return ModelError
    return error


# -- one value


def one_of(name: str, value: Any, allowed: Iterable[Any], error: Error = MethodError) -> Any:
    """The value, if it is one of those allowed; otherwise `error`, which lists them."""
    options = list(allowed)
    if not any(type(value) is type(option) and value == option for option in options):
        got = brief(value) if isinstance(value, str) else told(value)
        raise error(f"got {name}={got}, expected one of {', '.join(map(repr, options))}")
    return value


def count(name: str, value: Any, low: int = 1, high: int | None = None, error: Error = MethodError) -> int:
    """A whole number from `low` to `high`, as an int. None stands for a billion, more than any count needs."""
    inside = fits(value, int) and low <= value <= (MOST if high is None else high)
    if not inside:
        allowed = f"at least {low}, and no more than a billion" if high is None else f"{low} to {high}"
        raise error(f"got {name}={brief(value)}, expected {allowed}")
    return int(value)


def number(
    name: str,
    value: Any,
    low: int | float = -math.inf,
    high: int | float = math.inf,
    above: bool = False,
    error: Error = MethodError,
) -> float:
    """A finite number from `low` to `high`, without `low` itself if `above`; `error` for any other value."""
    inside = fits(value, float) and low <= value <= high and not (above and value == low)
    if not inside:
        least = f"{'above' if above else 'at least'} {low:g}"
        parts = [least] if low > -math.inf else []
        parts += [f"at most {high:g}"] if high < math.inf else []
        raise error(f"got {name}={brief(value)}, expected a finite number {' and '.join(parts)}".rstrip())
    return float(value)


def finite(name: str, values: Tensor | np.ndarray, error: Error = TensorError) -> None:
    """`error` if any of the values is NaN or infinite."""
    if not torch.isfinite(torch.as_tensor(values)).all():
        raise error(f"got {name} with NaN or infinite values, expected finite ones")


def guarded(method: Callable[P, Tensor]) -> Callable[P, Tensor]:
    """The method, made independent of the caller's torch modes; MethodError if its maps are not finite.

    Inference mode allows no gradients, and torch's anomaly detection does not support gradients of several targets at
    once, so both are off during the call.
    """

    @functools.wraps(method)
    def call(*args: P.args, **kwargs: P.kwargs) -> Tensor:
        with torch.inference_mode(False), torch.autograd.set_detect_anomaly(False):
            maps = method(*args, **kwargs)
        finite(f"maps of {method.__name__}", maps, MethodError)
        return maps

    return call


def check_counts(**counts: int) -> None:
    """MethodError for the first value that is not a whole number or is below 1."""
    for name, value in counts.items():
        count(name, value)


def seeded(generator: torch.Generator | int) -> torch.Generator:
    """The generator itself, or a new one on the CPU for a seed: the same draws whatever the model's device."""
    if isinstance(generator, torch.Generator):
        return generator
    return torch.Generator().manual_seed(count("generator", generator, 0, 2**63 - 1))


# -- memory


@contextmanager
def out_of_memory(size: int, batch: str = "batch_size={}") -> Iterator[None]:
    """Turns torch's running out of memory, on any device, into a MethodError that names a smaller `batch`."""
    try:
        yield
    except RuntimeError as error:
        if not isinstance(error, torch.OutOfMemoryError) and "can't allocate memory" not in str(error):
            raise
        advice = f"try {batch.format(size // 2)}" if size > 1 else "use smaller images or a larger machine"
        raise MethodError(f"out of memory with {batch.format(size)}: {advice}") from error


def import_extra(package: str, extra: str, needed_by: str, error: Error = ModelError) -> Any:
    """A package of an optional extra; `error` says how to install it."""
    try:
        return importlib.import_module(package)
    except ImportError as missing:
        name = package.partition(".")[0]
        raise error(f"{needed_by} needs the package {name}: pip install 'clip-explain[{extra}]'") from missing
