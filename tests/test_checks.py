"""The guards: what each takes, what it refuses, and what it says."""

from collections.abc import Callable, Iterable, Sequence

import numpy as np
import pytest
import torch
from jaxtyping import Bool, Float
from torch import Tensor

import clip_explain as cx
from clip_explain.checks import checked, count, finite, import_extra, number, one_of, seeded
from clip_explain.errors import OutputError


@checked()
def example(
    maps: Float[Tensor, "images grid_h grid_w"] | None = None,
    masks: Bool[Tensor, "images height width"] | None = None,
    layers: int | None = None,
    share: float = 0.5,
    flat: bool = False,
    name: str = "mean",
    texts: str | Sequence[str] = "",
    names: Sequence[str] = (),
    size: tuple[int, int] = (1, 1),
    readout: Callable[[Tensor], Tensor] = torch.relu,
    many: Iterable[str] = (),
    **others,
) -> str:
    return "ran"


RIGHT = [
    dict(maps=torch.zeros(2, 4, 4), masks=torch.zeros(2, 9, 9, dtype=torch.bool)),
    dict(layers=3),
    dict(layers=None, share=0.1, flat=True),
    dict(texts=["a", "b"], names=("a",), size=[3, 4]),
    dict(names=np.array(["a", "b"]), many=iter("ab"), anything=object()),
]
WRONG = [
    (dict(layers=1.5), cx.MethodError, r"got layers=1.5 \(float\), expected a whole number or None"),
    (dict(layers=True), cx.MethodError, "layers=True"),
    (dict(share="0.5"), cx.MethodError, "expected a finite number"),
    (dict(share=float("nan")), cx.MethodError, "share=nan"),
    (dict(share=None), cx.MethodError, "share=None"),
    (dict(flat=1), cx.MethodError, "expected True or False"),
    (dict(name=3), cx.MethodError, r"got name=3 \(int\), expected a text"),
    (dict(names="mean"), cx.MethodError, "expected a list of a text"),
    (dict(names=["a", 3]), cx.MethodError, "names="),
    (dict(size=(1, 2, 3)), cx.MethodError, "size="),
    (dict(size=(1, 2.5)), cx.MethodError, "size="),
    (dict(readout="mean"), cx.MethodError, "expected a function"),
    (dict(many=3), cx.MethodError, "many=3"),
    (dict(maps=[[0.0]]), cx.TensorError, r"expected a Float Tensor \(images, grid_h, grid_w\) or None"),
    (dict(maps=torch.zeros(4, 4)), cx.TensorError, r"got maps=a Tensor of shape \(4, 4\), float32"),
    (dict(masks=torch.zeros(1, 4, 4)), cx.TensorError, "expected a Bool Tensor"),
    (dict(maps=torch.zeros(2, 4, 4), masks=torch.zeros(3, 4, 4) > 0), cx.TensorError, "got masks=a Tensor of shape"),
]


@pytest.mark.parametrize("given", RIGHT)
def test_arguments_of_the_annotated_types_pass(given):
    assert example(**given) == "ran"


@pytest.mark.parametrize("given, error, message", WRONG)
def test_other_arguments_are_refused_by_name(given, error, message):
    with pytest.raises(error, match=message):
        example(**given)


def test_the_lengths_of_axes_belong_to_one_call():
    assert example(torch.zeros(2, 4, 4)) == example(torch.zeros(3, 4, 4)) == "ran"


def test_a_checked_function_keeps_its_name_and_signature():
    assert example.__name__ == "example" and "layers" in example.__wrapped__.__annotations__


@pytest.mark.parametrize("value", ["max", None, 1, ["mean"], torch.zeros(2)])
def test_a_choice_lists_the_others(value):
    assert one_of("pool", "mean", ("mean", "class")) == "mean"
    with pytest.raises(cx.MethodError, match=r"got pool=.*, expected one of 'mean', 'class'"):
        one_of("pool", value, ("mean", "class"))


@pytest.mark.parametrize("value", [0, -1, 4, 2.0, "2", None, True, float("nan")])
def test_a_count_is_a_whole_number_in_its_range(value):
    assert count("steps", np.int32(3), 1, 3) == 3
    with pytest.raises(cx.DatasetError, match="got steps=.*, expected 1 to 3"):
        count("steps", value, 1, 3, cx.DatasetError)


@pytest.mark.parametrize("value", [0, 1.5, float("inf"), float("nan"), "1", None, True])
def test_a_number_is_finite_and_in_its_range(value):
    assert number("keep", 1, 0, 1, above=True) == 1.0
    with pytest.raises(cx.MethodError, match="got keep=.*, expected a finite number above 0 and at most 1"):
        number("keep", value, 0, 1, above=True)


def test_values_that_are_not_finite():
    finite("maps", torch.zeros(2))
    with pytest.raises(cx.TensorError, match="got maps with NaN"):
        finite("maps", np.array([0.0, np.nan]))


@pytest.mark.parametrize("seed", [-1, 2**64, True])
def test_a_seed_is_a_whole_number(seed):
    assert seeded(3).initial_seed() == 3
    with pytest.raises(cx.MethodError, match="got generator="):
        seeded(seed)


def test_a_package_that_is_not_here_is_named_with_what_installs_it():
    assert import_extra("json.decoder", "sweeps", "x").JSONDecoder
    with pytest.raises(OutputError, match=r"^s3://x needs the package absent: pip install 'clip-explain\[cluster\]'$"):
        import_extra("absent.core", "cluster", "s3://x", OutputError)
