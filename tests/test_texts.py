"""Texts at the edge: what is refused, and words beyond ASCII."""

import pytest
import torch

import clip_explain as cx
import small_clip

NOTHING_LEFT = ["&nbsp;", "\ufeff", "&#65279;", " \t\n"]
MARKS = ["<|endoftext|>", "a dog <|endoftext|> on a mat", "<|startoftext|>", "&lt;|endoftext|&gt; a dog"]


@pytest.fixture(scope="module")
def model():
    return small_clip.wrap(small_clip.build(vlayers=1, tlayers=1))


@pytest.mark.parametrize("text", NOTHING_LEFT)
def test_a_text_of_which_nothing_is_left_is_refused(model, text):
    for call in (cx.tokenize, cx.encode_text, cx.targets, lambda m, t: cx.explain_words(m, torch.ones(1, 64), t)):
        with pytest.raises(cx.TextError, match=r"empty"):
            call(model, text)


@pytest.mark.parametrize("text", MARKS)
def test_the_tokenizers_own_marks_are_no_text(model, text):
    with pytest.raises(cx.TextError, match="holds a mark that the tokenizer keeps"):
        cx.tokenize(model, ["a cat", text])


@pytest.mark.parametrize("texts", [None, 3, b"a dog", ["a dog", None], [["a dog"]], {"a dog": 1}, 0.5])
def test_what_is_no_text_is_refused(model, texts):
    for call in (cx.tokenize, cx.encode_text, lambda m, t: cx.explain_words(m, torch.ones(1, 64), t)):
        with pytest.raises(cx.TextError, match="expected a text or a list of texts"):
            call(model, texts)


def test_a_text_of_a_million_letters_is_refused_at_once_or_cut(model):
    with pytest.raises(cx.TextError, match="1000000 letters"):
        cx.tokenize(model, "ab " * 333_333 + "c")
    assert cx.tokenize(model, "ab " * 333_333 + "c", truncate=True)[0, -1] == 49407


@pytest.mark.parametrize(
    "text, characters, words",
    [
        ("café zürich", ["caf", "é", "zürich"], ["café", "zürich"]),
        ("一只红色的猫", ["一", "只", "红", "色", "的", "猫"], ["一只红色的猫"]),
        ("赤い 車", ["赤", "い", "車"], ["赤い", "車"]),
        ("a 🦖!", ["a", "🦖", "!"], ["a", "🦖!"]),
    ],
)
def test_tokens_are_whole_characters_and_add_up_to_words(model, text, characters, words):
    ((tokens, weights),) = cx.explain_words(model, torch.ones(1, 64), text, layers=1, spatial="none")
    ((spelled, sums),) = cx.explain_words(model, torch.ones(1, 64), text, layers=1, spatial="none", per="word")
    assert "".join(tokens) == "".join(characters) and spelled == words
    assert not any("\ufffd" in token for token in tokens)
    assert weights.shape == (1, len(tokens)) and torch.allclose(weights.sum(), sums.sum(), rtol=1e-5)


def test_a_character_that_truncation_cuts_is_an_ellipsis(model):
    ((tokens, _),) = cx.explain_words(model, torch.ones(1, 64), "猫" * 60, truncate=True, layers=1)
    assert set(tokens) <= {"猫", "…"} and tokens[0] == "猫"


def test_a_word_is_found_by_its_characters(model):
    assert cx.without_word(model, "一只 猫", "猫").shape == (1, 64)
    with pytest.raises(cx.TextError, match="no word '狗' in the text '一只 猫'"):
        cx.without_word(model, "一只 猫", "狗")
