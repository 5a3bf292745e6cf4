"""Texts about two objects, and how their parts compose, by hand."""

import numpy as np
import pytest
import torch
from PIL import Image

import clip_explain as cx
from clip_explain import papers
from clip_explain.datasets import Record, read


def scene(*texts: str) -> Record:
    """Each text's object is a column of the image, from left to right."""
    masks = np.eye(len(texts), dtype=bool)[:, None].repeat(2, axis=1)
    objects = [dict(zip(("color", "shape"), text.split()[1:], strict=True)) for text in texts]
    return Record("x", Image.new("RGB", (len(texts), 2)), texts, masks, facts={"objects": objects})


def test_texts_about_two_objects():
    """The second object shares neither word; what is absent is nowhere, what is strange in neither text."""
    one = scene("a red cube", "a red ring", "a blue cube", "a blue ring")
    (found,) = papers.compositions([scene("a red cube", "a red ring"), one], 0)
    texts = found.texts
    assert found.record is one and found.second == 3
    assert [texts[part] for part in ("phrase", "adjective", "noun", "other")] == [
        *("a red cube", "a red thing", "a cube", "a blue ring"),
    ]
    assert texts["swapped"] == "a blue cube" and found.swapped_is_there and found.of_shape == 2
    color = texts["absent"].split()[1]
    assert color not in ("red", "blue") and texts["absent pair"] == f"a {color} cube"
    strange = {word for part, text in texts.items() if part.startswith("strange") for word in text.split()}
    assert len(strange) > 4 and not strange & {"red", "blue", "cube", "ring"}
    assert (
        texts["relation"] == "a red cube left of a blue ring" and texts["reversed"] == "a blue ring left of a red cube"
    )
    (other,) = papers.compositions([scene("a blue ring", "a red cube")], 0)
    assert other.texts["place"] == "left of" and not other.swapped_is_there and other.of_shape == 1


def test_words_are_drawn_by_the_seed():
    records = [scene("a red cube", "a blue ring")] * 3
    one, same, other = ([each.texts for each in papers.compositions(records, seed)] for seed in (0, 0, 1))
    assert one == same and one != other


PARTS = ("phrase", "adjective", "noun", "relation", "other", "swapped", "absent")
STRANGE = tuple(f"strange {part}" for part in ("adjective", "noun", "phrase", "other"))


def composition(*texts: str) -> papers.Composition:
    return papers.compositions([scene(*texts)], 0)[0]


def numbers(rows: list[dict]) -> dict[str, float]:
    return {", ".join(filter(None, [row["method"], row["metric"], row["setting"]])): row["value"] for row in rows}


def test_sums_of_parts_by_hand():
    """A whole that is the sum of its parts, in the map as in the plane; and parts that explain nothing of it."""
    maps = {part: torch.tensor([[1.0, 0, 0, -1]]) for part in PARTS}
    maps |= {part: torch.tensor([[0.0, 1, -1, 0]]) for part in STRANGE}
    maps["relation"] = torch.tensor([[1.0, 1, -1, -1]])  # half of it is of its own parts
    vectors = {part: torch.tensor([0.6, 0.8, 0]) for part in PARTS} | {"adjective": torch.tensor([1.0, 0, 0])}
    vectors |= {"other": torch.tensor([1.0, 0, 0])}
    vectors |= {part: torch.tensor([0.0, 0, 1]) for part in STRANGE} | {"strange noun": torch.tensor([1.0, 0, 0])}
    vectors |= {"strange other": torch.tensor([1.0, 0, 0])}
    found = numbers(papers.rows_of_sums(composition("a red cube", "a blue ring"), maps, vectors))
    assert found == pytest.approx(
        {
            "own parts, explained, phrase": 1,
            "own parts, in the plane, phrase": 1,
            "own parts, explained, relation": 0.5,
            "own parts, in the plane, relation": 1,
            "strange parts, explained, phrase": 0,
            "strange parts, in the plane, phrase": 0.36,
            "strange parts, explained, relation": 0.5,
            "strange parts, in the plane, relation": 0.36,
        },
        abs=1e-6,
    )


def test_mixed_texts_by_hand():
    """Of three columns the first is the cube, the second the ring; a second cube lets the adjective pick."""
    maps = {part: torch.tensor([[0.5, 0.25, 0.25]]) for part in PARTS}
    maps |= {"noun": torch.tensor([[0.5, 0.0, 0.5]]), "absent": torch.tensor([[0.1, 0.0, 0.0]])}
    found = numbers(papers.rows_of_mixed(composition("a red cube", "a blue ring", "a pink cube"), maps))
    assert found == pytest.approx(
        {
            "noun kept, energy above chance": 0.5 - 1 / 3,
            "color kept, energy above chance": 0.25 - 1 / 3,
            "noun, energy_pointing_game, two of a shape": 0.5,
            "adjective and noun, energy_pointing_game, two of a shape": 0.5,
            "absent color, peak": 0.2,
        }
    )
    alone = numbers(papers.rows_of_mixed(composition("a red cube", "a blue ring", "a blue cube"), maps))
    assert "noun kept, energy above chance" not in alone  # what the swapped text names is there


def test_maps_of_parts_are_those_of_explain():
    clip = cx.load("tiny-vit")
    found = papers.compositions(list(read("scenes", 3, 0)), 0)[:1]
    (maps,), (vectors,) = papers.maps_of_parts(clip, found)
    text = found[0].texts["relation"]
    assert torch.allclose(maps["relation"], cx.explain(clip, found[0].record.image, text, fit="full")[0, 0], atol=1e-6)
    assert torch.allclose(vectors["noun"], cx.targets(clip, found[0].texts["noun"])[0], atol=1e-6)
