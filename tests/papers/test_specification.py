"""Sizes read off shapes: OpenAI's nine models against the report's tables, and a network of known sizes."""

import pytest

import small_clip
from clip_explain.errors import ModelError
from clip_explain.models.weights import clip
from clip_explain.papers.specification import OPENAI, against_report, openai_network, specification, wrong_numbers

# OpenAI's own notebook prints this for ViT-B/32; the others are the counts that OpenCLIP lists for the same weights.
PARAMETERS = {"ViT-B/32": 151_277_313, "ViT-B/16": 149_620_737, "ViT-L/14": 427_616_513, "RN50": 102_007_137}


def test_all_names_of_the_package_are_here():
    assert set(OPENAI) == set(clip.available_models())


@pytest.mark.parametrize("name", PARAMETERS)
def test_the_built_networks_have_openais_number_of_parameters(name):
    assert sum(parameter.numel() for parameter in openai_network(name).parameters()) == PARAMETERS[name]


def test_the_report_errs_in_a_resolution_and_in_the_heads_of_the_text_encoders():
    table = against_report({name: openai_network(name) for name in OPENAI})
    assert len(table) == 5 * 7 + 4 * 5 + 2 * 3 and set(table["model"]) == set(OPENAI)
    wrong = table[~table["agrees"]].drop(columns="agrees").to_numpy().tolist()
    assert sorted(wrong) == [
        ["Table II", "ViT-L/14@336px", "Input resolution", 224, 336],
        ["section IV", "RN101", "Text heads", 12, 8],
        ["section IV", "ViT-B/32", "Text heads", 12, 8],
    ]


def test_a_vit_of_known_sizes():
    state = small_clip.state_dict(embed=64, res=96, patch=16, vlayers=3, vwidth=128, tlayers=2, twidth=192, vocab=100)
    assert specification(clip.model.build_model(state)) == {
        "Embedding dimension": 64,
        "Input resolution": 96,
        "ViT layers": 3,
        "ViT width": 128,
        "ViT heads": 2,
        "Text layers": 2,
        "Text width": 192,
        "Text heads": 3,
    }


def test_an_unknown_name_is_told_the_known_ones():
    with pytest.raises(ModelError, match="RN50x4"):
        openai_network("RN50x5")


def test_wrong_numbers_are_counted_by_place():
    rows = wrong_numbers(against_report({name: openai_network(name) for name in OPENAI}))
    found = {row["method"]: row["value"] for row in rows}
    assert found == {
        "printed in Table I": 0,
        "printed in Table II": 1,  # the input of ViT-L/14-336px
        "printed of text layers and width": 0,
        "printed of text heads": 2,
    }
