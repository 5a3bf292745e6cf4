"""Words of models that embed texts by a tower that is not read: what a text loses without each."""

import pytest
import torch
import torch.nn.functional as F

import clip_explain as cx
import open_clip_models
from clip_explain.errors import MethodError, TextError
from clip_explain.explainers.functions import SPOKEN_FUNCTIONS
from clip_explain.explainers.registry import METHODS, methods_for
from clip_explain.texts import spoken_words, without_each_word, without_said
from open_clip_models import PREPROCESS, roberta
from small_clip import relative_error


@pytest.fixture(scope="module")
def loaded(tmp_path_factory):
    network, tokenizer = open_clip_models.made(roberta, tmp_path_factory.mktemp("roberta"))
    return network, tokenizer, cx.load(network, preprocess=PREPROCESS, tokenizer=tokenizer)


def images():
    return F.normalize(torch.randn(2, 64, generator=torch.Generator().manual_seed(0)), dim=1)


def own(network, tokenizer, texts):
    with torch.no_grad():
        return F.normalize(network.encode_text(tokenizer(texts), normalize=False), dim=1)


@pytest.mark.parametrize(
    "text, words",
    [
        ("a red cube", ["a", "red", "cube"]),
        ("The cat's x-ray, 2 of them!", ["The", "cat's", "x-ray", ",", "2", "of", "them", "!"]),
        ("红色cube", ["红", "色", "cube"]),
        ("Ärger über\nUfer", ["Ärger", "über", "Ufer"]),
        ("  ", []),
    ],
)
def test_words_of_a_text_as_it_is_written(text, words):
    assert spoken_words(text) == words and len(without_each_word(text)) == len(words)


def test_a_text_without_each_of_its_words():
    assert without_each_word("a red, red cube") == ["red, red cube", "a , red cube", "a red red cube"] + [
        "a red, cube",
        "a red, red",
    ]
    assert without_said("A red cube and a red ring", "red") == "A cube and a ring"
    assert without_said("A red cube and a red ring", "a red") == "cube and ring"
    with pytest.raises(TextError, match="no word 're'"):
        without_said("a red cube", "re")
    with pytest.raises(TextError, match="no word"):
        without_said("a red cube", " ")


def test_weights_are_what_the_networks_own_score_loses(loaded):
    network, tokenizer, model = loaded
    texts = ["a red cube", "the blue ring"]
    found = cx.explain_words(model, images(), texts, "leave_one_out")
    for (words, weights), text in zip(found, texts, strict=True):
        assert words == text.split() and weights.shape == (2, 3)
        whole = own(network, tokenizer, [text])
        rest = own(network, tokenizer, [" ".join(words[:i] + words[i + 1 :]) for i in range(3)])
        assert relative_error(weights, images() @ (whole - rest).T) < 1e-5
    assert relative_error(found.scores, own(network, tokenizer, texts) @ images().T) < 1e-5
    again = cx.explain_words(model, images(), texts, "leave_one_out", batch_size=2, per="word")
    assert all(relative_error(one, other) < 1e-5 for (_, one), (_, other) in zip(found, again, strict=True))


def test_what_a_word_adds_is_a_direction(loaded):
    network, tokenizer, model = loaded
    expected = own(network, tokenizer, ["a red cube"]) - own(network, tokenizer, ["a cube"])
    assert relative_error(cx.without_word(model, "a red cube", "Red"), F.normalize(expected, dim=1)) < 1e-5


def test_only_methods_that_embed_texts_take_such_a_model(loaded):
    _, _, model = loaded
    assert methods_for(model, words=True) == ["leave_one_out"]
    assert {name for name, method in METHODS.items() if method.spoken} == set(SPOKEN_FUNCTIONS)
    with pytest.raises(MethodError, match="none that is read, its words .* for which fit: leave_one_out"):
        cx.explain_words(model, images(), "a red cube", "grad_eclip")
    with pytest.raises(MethodError, match="batch_size"):
        cx.explain_words(model, images(), "a red cube", "leave_one_out", batch_size=0)
    for nothing in ("", [], ["a cube", "  "]):
        with pytest.raises(TextError, match="at least one"):
            cx.explain_words(model, images(), nothing, "leave_one_out")
