"""The records of the methods: they say what the functions are, which models fit, and are light."""

import inspect
import subprocess
import sys

import pytest
import torch
from PIL import Image
from test_readers import resnet

import clip_explain as cx
import small_clip
from clip_explain.cli.listing import FAMILIES, listing
from clip_explain.explainers import METHODS, OLD_NAMES, check_fits, find_method, methods_for, names_of
from clip_explain.explainers.functions import IMAGE_FUNCTIONS, WORD_FUNCTIONS
from clip_explain.explainers.method import Option
from clip_explain.models import LOADERS, available_models
from clip_explain.models.embed import tokenize

BOTH = [(name, words) for words in (False, True) for name in names_of(words)]


def function_of(name, words):
    return METHODS[name].words if words else METHODS[name].image


def model():
    return small_clip.wrap(small_clip.build(**small_clip.SMALL))


def test_every_record_has_its_functions_and_every_function_its_record():
    assert list(IMAGE_FUNCTIONS) == names_of() and list(WORD_FUNCTIONS) == names_of(words=True)
    assert all(name == each.name for name, each in METHODS.items())


@pytest.mark.parametrize(("name", "words"), BOTH)
def test_a_records_options_are_those_of_the_signature(name, words):
    parameters = inspect.signature(function_of(name, words)).parameters.values()
    own = {each.name: each.default for each in parameters if each.kind is each.KEYWORD_ONLY}
    options = METHODS[name].options_for(words)
    assert {option.name: option.default for option in options.values()} == own
    assert list(options) == list(own)
    for option in options.values():
        option.check(option.default)
        if option.quick is not None:
            option.check(option.quick)


def short(options):
    """Options that make a method fit two layers, and short."""
    given = {"layers": 1, "samples": 4, "masks": 4, "steps": 1}
    return {name: value for name, value in given.items() if name in options} | (
        {"layer": 0} if "steps" in options else {}
    )


@pytest.mark.parametrize("name", names_of())
def test_a_function_takes_each_choice_of_the_record_and_no_other(name):
    clip, given = model(), small_clip.SMALL
    options = METHODS[name].options_for()
    request = cx.request.Request(clip, torch.rand(1, 3, given["res"], given["res"]), torch.eye(given["embed"])[:2])
    for option in options.values():
        if option.kind != "choice":
            continue
        for choice in option.choices:
            assert METHODS[name].image(request, **{**short(options), option.name: choice}).isfinite().all()
        with pytest.raises(cx.MethodError, match=f"got {option.name}='nothing'.*'{option.choices[-1]}'"):
            METHODS[name].image(request, **{**short(options), option.name: "nothing"})


DEEP = [(name, words) for name, words in BOTH if METHODS[name].defaults_in(2, words)]  # ask for more than 2 layers


def test_the_methods_of_deep_towers_are_these():
    assert {name for name, words in DEEP if words} == {"grad_eclip", "m2ib", "nib"}
    assert {name for name, words in DEEP if not words} == {"clip_surgery", "gem", "m2ib", "nib"}
    assert METHODS["grad_eclip"].defaults_in(4, words=True) == {"layers": 4}
    assert METHODS["m2ib"].defaults_in(5) == {"layer": 3}  # the noise enters before the last layer
    assert METHODS["grad_eclip"].defaults_in(12, words=True) == {}


@pytest.mark.parametrize(("name", "words"), DEEP)
def test_a_default_takes_no_more_layers_than_there_are(name, words):
    clip, options = model(), METHODS[name].options_for(words)
    quick = {option: value for option, value in (("samples", 2), ("steps", 1)) if option in options}
    targets = torch.eye(clip.embedding_size)[:2]
    pixels = torch.rand(1, 3, small_clip.SMALL["res"], small_clip.SMALL["res"])
    request = cx.request.Request(clip, pixels, targets)
    if words:
        request = cx.request.WordRequest(clip, tokenize(clip, ["a dog"]), targets)
    own = METHODS[name].defaults_in(2, words)
    found = function_of(name, words)(request, **quick)
    assert torch.equal(found, function_of(name, words)(request, **quick, **own))
    (option,) = own
    with pytest.raises(cx.MethodError, match=f"{option}=12"):
        function_of(name, words)(request, **quick, **{option: 12})


@pytest.mark.parametrize(
    ("option", "good", "bad"),
    [
        (Option("a", "switch", True, ""), [True, False], [1, "yes", None]),
        (Option("a", "choice", "x", "", ("x", "y")), ["x", "y"], ["z", 1, None]),
        (Option("a", "count", 1, "", least=1), [1, 9], [0, 1.0, True, "1", float("nan")]),
        (Option("a", "number", 1.0, "", above=0, most=1), [1, 0.5], [0, 1.5, float("nan"), "1", True, None]),
        (Option("a", "layers", None, "", none="all"), [None, 1, 12], [1.5, "2", True]),
        (Option("a", "count", 1, "", least=1, or_tensor=True), [2, torch.ones(1)], [0, "2"]),
        (Option("a", "text", None, "", none="none"), ["a", ["a", "b"], None], [1, True]),
        (Option("a", "seed", 0, "", least=0), [0, torch.Generator()], [-1, 0.5, "0", None]),
    ],
)
def test_an_option_refuses_what_it_does_not_allow(option, good, bad):
    for value in good:
        option.check(value)
    for value in bad:
        with pytest.raises(cx.MethodError, match="got a=.*, expected"):
            option.check(value)


def test_a_text_of_the_command_line_becomes_a_value():
    options = METHODS["grad_eclip"].options_for()
    assert options["layers"].read("2") == 2 and options["head"].read("None") is None
    assert METHODS["game"].options_for()["scale_logits"].read("no") is False
    assert METHODS["m2ib"].options_for()["lr"].read("1e-2") == 0.01
    assert METHODS["clip_surgery"].options_for()["redundant"].read("None") is None
    with pytest.raises(cx.MethodError, match="got layers='two', expected 1 to the number of layers"):
        options["layers"].read("two")


def test_the_methods_that_fit_a_model_run_on_it_and_the_others_are_refused():
    clip, image = resnet(), Image.effect_noise((64, 64), 50)
    targets = torch.eye(clip.embedding_size)[:1]
    fast = [name for name in methods_for(clip) if not METHODS[name].slow]
    assert "grad_cam" in fast and "game" not in fast
    for name in fast:
        assert cx.explain(clip, image, targets, name).isfinite().all()
    with pytest.raises(
        cx.MethodError, match="game needs a vision transformer .* for which fit: self_attention, grad_cam"
    ):
        check_fits(clip, "game")


def test_an_old_name_works_and_warns():
    assert OLD_NAMES["images"]["occlusion"] == "shapley"
    with pytest.warns(DeprecationWarning, match="'occlusion' is now called 'shapley'"):
        cx.explain(model(), Image.new("RGB", (64, 64)), torch.eye(64)[:1], "occlusion", samples=8)
    with pytest.warns(DeprecationWarning, match="'leave_one_out'"):
        assert find_method("occlusion", words=True).name == "leave_one_out"


@pytest.mark.parametrize("name", ["EXPLAINERS", "WORD_EXPLAINERS", "FOR_RESNETS", "FOR_CLASSIFIERS"])
def test_an_old_table_works_and_warns(name):
    with pytest.warns(DeprecationWarning, match=rf"{name} will go; write METHODS\[name\]"):
        table = getattr(cx.explainers, name)
    assert set(table) <= {*METHODS, "occlusion"}
    if name == "EXPLAINERS":
        assert table["occlusion"] is table["shapley"]


def test_a_method_for_words_alone_has_no_map():
    with pytest.raises(cx.MethodError, match="leave_one_out explains words, not images"):
        _ = METHODS["leave_one_out"].image
    with pytest.raises(cx.MethodError, match="unknown method 'leave_one_out'"):
        cx.explain(model(), Image.new("RGB", (64, 64)), torch.eye(64)[:1], "leave_one_out")


def test_the_listing_needs_no_torch():
    code = "import sys; from clip_explain.cli import main; main(['--list']); assert 'torch' not in sys.modules"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert shown.returncode == 0, shown.stderr
    assert shown.stdout.strip() == listing()


def test_the_listing_names_every_family_method_option_and_choice():
    text = listing()
    assert set(available_models()) <= {name for names in FAMILIES for name in names.split()}
    assert set(LOADERS) <= {name.partition(":")[0] for names in FAMILIES for name in names.split()}
    lines = [line.strip() for line in text.splitlines()]
    for name, words in BOTH:
        method = METHODS[name]
        assert sum(line.startswith(f"{name}: {method.title} ({method.paper}") for line in lines) >= 1
        for option in method.options_for(words).values():
            assert f"{option.name}={option.default}: {option.allowed}; {option.says}" in lines
            assert all(repr(choice) in option.allowed for choice in option.choices)
