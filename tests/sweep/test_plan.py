"""The settings of a sweep: written once, held against those of the next call, and named where they differ."""

import pytest

from clip_explain.errors import OutputError
from clip_explain.sweep import plan as plans
from clip_explain.sweep.run import sweep
from small_sweeps import contents, settings


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"seed": 1}, "seed was 0, is 1"),
        ({"shard_size": 3}, "shard_size was 2, is 3"),
        ({"methods": ["random", "rise"]}, "methods.self_attention was {}, is absent"),
        ({"metrics": ["pointing_game"]}, "metrics.energy_pointing_game was {}, is absent"),
        ({"options": {"scenes": {"size": 64}, "rise": {"masks": 9}}}, "methods.rise.masks was 8, is 9"),
        ({"options": {"rise": {"masks": 8}}}, "reader.size was 64, is absent"),
        ({"fit": "full"}, 'fit was "crop", is "full"'),
        ({"templates": "imagenet"}, 'templates was ["{}"], is "imagenet"'),
        ({"templates": "a photo of {}."}, 'templates was ["{}"], is ["a photo of {}."]'),
        ({"dataset": "objects", "options": {"rise": {"masks": 8}}}, 'dataset was "scenes", is "objects"'),
        ({"dtype": "bf16"}, 'dtype was "fp32", is "bf16"'),
    ],
)
def test_a_folder_of_other_settings_is_refused(whole, weights, changed, message):
    before = contents(whole[0])
    with pytest.raises(OutputError) as refused:
        sweep(**settings(weights, whole[0], **changed))
    assert message in str(refused.value)
    assert contents(whole[0]) == before


def test_other_weights_and_other_formulas_are_refused(whole, weights, tmp_path, monkeypatch):
    with pytest.raises(OutputError, match="sha256 was"):
        sweep(**settings("tiny-vit", whole[0]))
    here = plans.library_versions()
    monkeypatch.setattr(plans, "library_versions", lambda: here | {"formulas": "new"})
    with pytest.raises(OutputError, match='versions.formulas was ".*", is "new"'):
        sweep(**settings(weights, whole[0]))


def test_a_folder_with_other_files_is_refused(weights, tmp_path):
    (tmp_path / "thesis.tex").write_text("mine")
    with pytest.raises(OutputError, match="not a sweep's folder: it holds thesis.tex"):
        sweep(**settings(weights, tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]
