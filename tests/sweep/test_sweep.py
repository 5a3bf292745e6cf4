"""Sweeps: the same table however the work is cut; refusals that name what is wrong."""

import errno
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from clip_explain import datasets
from clip_explain.cli import main
from clip_explain.datasets import Dataset, Record, Source
from clip_explain.directions import targets
from clip_explain.errors import DatasetError, MethodError, OutputError
from clip_explain.explainers import explain
from clip_explain.images import preprocess
from clip_explain.metrics.faithfulness import auc, curves
from clip_explain.metrics.localization import LOCALIZATION, pointing_game
from clip_explain.metrics.readouts import classification
from clip_explain.models import load
from clip_explain.models.head import Head
from clip_explain.sweep import measures, shard
from clip_explain.sweep.plan import Asked, make_plan
from clip_explain.sweep.run import sweep
from small_sweeps import METRICS, SMALL_SCENES, contents, settings

# -- the table


def test_table_has_a_row_for_each_image_target_method_and_metric(whole):
    table = pd.read_parquet(whole[0] / "table.parquet")
    records = list(datasets.read("scenes", 4, 0, size=64))
    expected = [
        (record.id, target, text, method, metric)
        for record in records
        for method in ["self_attention", "rise", "random"]
        for metric in ["pointing_game", "energy_pointing_game"]
        for target, text in enumerate(record.texts)
    ]
    assert table.columns.tolist() == ["image", "target", "text", "setting", "method", "metric", "value"]
    assert list(table.drop(columns=["setting", "value"]).itertuples(index=False, name=None)) == expected
    assert set(table.setting) == {"scenes"}
    assert len(pd.read_parquet(whole[0] / "errors.parquet")) == 0
    assert sorted(path.name for path in whole[0].rglob("*") if ".tmp" in path.name) == []


def test_values_are_those_of_the_plain_calls(whole, weights):
    table, model = pd.read_parquet(whole[0] / "table.parquet"), load(weights, "cpu")
    for record in datasets.read("scenes", 2, 0, size=64):
        hits = pointing_game(explain(model, record.image, list(record.texts), "self_attention")[0], record.masks)
        mine = table[
            (table.image == record.id) & (table.method == "self_attention") & (table.metric == "pointing_game")
        ]
        assert mine.value.tolist() == hits.tolist()


def test_texts_and_classes_are_put_into_the_templates(weights, tmp_path):
    prompts, given = ["a photo of {}.", "{}, drawn"], {"images": 1, "methods": ["itsm"], "dataset": "objects"}
    given["metrics"] = ["deletion_score", "rise_deletion"]
    options = {"objects": {"size": 64}, "deletion_score": {"every": 50}, "rise_deletion": {"every": 32}}
    sweep(**settings(weights, tmp_path, **given, options=options, templates=prompts))
    table, model = pd.read_parquet(tmp_path / "table.parquet").set_index("metric"), load(weights, "cpu")
    data = datasets.load("objects", 1, 0, size=64)
    pixels, own = preprocess(model, data[0].image), targets(model, list(data[0].texts), prompts)
    maps = explain(model, pixels, list(data[0].texts), "itsm", templates=prompts).maps
    seed = measures.image_seed(0, data[0].id, "metrics")
    read = {"score": lambda embedded: embedded @ own[0]}
    drawn = curves(model, pixels, maps, read, every=50, seed=seed)["score"]
    assert float(table.value["deletion_score"]) == pytest.approx(auc(drawn).item(), abs=1e-6)
    classes = targets(model, list(data.classes), prompts)
    read = classification(classes, torch.tensor([data[0].label]), float(model.logit_scale))
    drawn = curves(model, pixels, maps, read, "rise", every=32)["probability"]
    assert float(table.value["rise_deletion"]) == pytest.approx(auc(drawn).item(), abs=1e-6)


def test_pixels_left_undecided_are_not_counted(weights, tmp_path, monkeypatch):
    """Of a wide image seen through the middle square: the crop of what is to be ignored is the crop of the masks."""
    masks, ignore = np.zeros((1, 64, 96), bool), np.zeros((64, 96), bool)
    masks[:, :, :40], ignore[:, 40:72] = True, True
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 96, 3), np.uint8))

    def reader(seed=0):
        return Dataset(
            "bordered", ("a cube",), range(1), lambda i: Record("it", image, ("a cube",), masks, ignore=ignore)
        )

    monkeypatch.setitem(datasets.DATASETS, "bordered", Source(reader, "one image"))
    metrics, model = (
        ["energy_pointing_game", "average_precision", "iou_mean", "pixel_accuracy_mask"],
        load(weights, "cpu"),
    )
    for fit, seen in (("crop", slice(16, 80)), ("full", slice(0, 96))):
        changed = dict(dataset="bordered", methods=["itsm"], metrics=metrics, options={}, images=1, fit=fit)
        sweep(**settings(weights, tmp_path / fit, **changed))
        table = pd.read_parquet(tmp_path / fit / "table.parquet").set_index("metric")
        maps = explain(model, image, "a cube", "itsm", fit=fit)[0]
        expected = {name: LOCALIZATION[name](maps, masks[..., seen], ignore[:, seen]).item() for name in metrics}
        assert table.value.to_dict() == pytest.approx(expected, rel=1e-4)
        plain = LOCALIZATION["average_precision"](maps, masks[..., seen]).item()
        assert float(table.value["average_precision"]) != pytest.approx(plain, abs=1e-3)


def test_summary_is_the_mean_over_images_of_their_means(whole):
    table, summary = pd.read_parquet(whole[0] / "table.parquet"), whole[1]
    assert summary[["metric", "method"]].to_numpy().tolist()[:2] == [
        ["pointing_game", "self_attention"],
        ["pointing_game", "rise"],
    ]
    for row in summary.itertuples():
        mine = table[(table.method == row.method) & (table.metric == row.metric)]
        assert row.mean == pytest.approx(np.mean([part.value.mean() for _, part in mine.groupby("image")]))
        assert row.low <= row.mean <= row.high and (row.images, row.left_out, row.better) == (4, 0, "higher")
    pd.testing.assert_frame_equal(pd.read_csv(whole[0] / "summary.csv"), summary)


def test_numbers_do_not_depend_on_shards_order_or_the_other_methods(whole, weights, tmp_path):
    sweep(**settings(weights, tmp_path, shard_size=3, methods=["random", "rise"], metrics=METRICS[::-1]))
    table = pd.read_parquet(whole[0] / "table.parquet")
    table = table[table.method != "self_attention"].reset_index(drop=True)
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "table.parquet"), table, check_exact=True)


def test_random_maps_differ_by_image_and_target_and_constant_ones_find_nothing(whole, weights, tmp_path):
    summary = sweep(**settings(weights, tmp_path, methods=["constant"], images=2, options={"scenes": {"size": 64}}))
    assert summary["mean"].tolist() == [0, 0]
    table = pd.read_parquet(whole[0] / "table.parquet")
    noise = table[(table.method == "random") & (table.metric == "energy_pointing_game")].value
    assert noise.nunique() == len(noise)


def test_faithfulness_metrics_share_one_set_of_forwards(weights, tmp_path, monkeypatch):
    calls = []
    inner = measures.perturbed_embeddings
    monkeypatch.setattr(measures, "perturbed_embeddings", lambda *a, **k: calls.append(a[-1]) or inner(*a, **k))
    names = ["deletion", "deletion_top5", "deletion_score", "insertion"]
    options = SMALL_SCENES | {name: {"every": 50} for name in names}
    del options["rise"]
    summary = sweep(**settings(weights, tmp_path, methods=["random"], metrics=names, images=1, options=options))
    assert calls == ["deletion", "insertion"]
    assert summary["better"].tolist() == ["lower"] * 3 + ["higher"] and summary["mean"].between(-1, 1).all()


def test_an_explainer_beats_random_maps_on_the_embedded_model(tmp_path):
    methods, metrics = ["grad_eclip", "random"], ["pointing_game", "energy_pointing_game", "iou_mean"]
    summary = sweep("tiny-vit", "scenes", methods, metrics, tmp_path, images=8, device="cpu", progress=False)
    means = summary.pivot(index="metric", columns="method", values="mean")
    assert (means["grad_eclip"] > means["random"]).all(), means


# -- what goes wrong


@pytest.fixture
def broken(tmp_path, monkeypatch):
    """A dataset of four image files, the second cut off, the third without masks."""
    noise, masks = np.random.default_rng(0).integers(0, 256, (4, 64, 64, 3), np.uint8), np.zeros((1, 64, 64), bool)
    masks[:, :30] = True
    paths = [tmp_path / f"{i}.png" for i in range(4)]
    for path, image in zip(paths, noise, strict=True):
        Image.fromarray(image).save(path)
    paths[1].write_bytes(paths[1].read_bytes()[:500])

    def reader(seed=0):
        given = [masks, masks, None, masks]
        return Dataset("broken", ("a cube",), range(4), lambda i: Record(f"image {i}", paths[i], ("a cube",), given[i]))

    monkeypatch.setitem(datasets.DATASETS, "broken", Source(reader, "four files"))
    return paths


def test_a_corrupt_image_is_a_row_with_its_error(broken, weights, tmp_path):
    out = tmp_path / "run"
    summary = sweep(**settings(weights, out, dataset="broken", images=4, options={}, methods=["random"]))
    errors, table = pd.read_parquet(out / "errors.parquet"), pd.read_parquet(out / "table.parquet")
    assert errors["index"].tolist() == [1, 2] and errors.image.tolist() == ["image 1", "image 2"]
    assert errors.error[0].startswith("ImageError: ") and str(broken[1]) in errors.error[0]
    assert errors.error[1].startswith("DatasetError: image 2 has no masks, which pointing_game needs")
    assert set(table.image) == {"image 0", "image 3"}
    assert summary.images.tolist() == [2, 2] and summary.left_out.tolist() == [2, 2]


def test_an_image_that_is_lost_while_the_sweep_runs_is_a_row_with_its_error(broken, weights, tmp_path, monkeypatch):
    """The last file is deleted when the first is measured."""
    measure, out = shard.measure, tmp_path / "run"

    def loses_a_file(*case):
        broken[3].unlink(missing_ok=True)
        return measure(*case)

    monkeypatch.setattr(shard, "measure", loses_a_file)
    summary = sweep(**settings(weights, out, dataset="broken", images=4, options={}, methods=["random"]))
    errors = pd.read_parquet(out / "errors.parquet")
    assert errors["index"].tolist() == [1, 2, 3] and summary.left_out.tolist() == [3, 3]
    assert errors.error[2].startswith("ImageError: ") and str(broken[3]) in errors.error[2]


def test_no_usable_image_is_an_error(broken, weights, tmp_path):
    for path in broken:
        path.write_bytes(b"")
    with pytest.raises(DatasetError, match="no image could be used.*the file is empty"):
        sweep(**settings(weights, tmp_path / "run", dataset="broken", images=4, options={}, methods=["random"]))


def test_a_full_disk_leaves_nothing_half_written(whole, weights, tmp_path, monkeypatch):
    def fails(path, content):
        if path.parent.name == "shards":
            path.open("wb").write(content[:100])
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write_bytes(path, content)

    write_bytes = Path.write_bytes
    with monkeypatch.context() as patched:
        patched.setattr(Path, "write_bytes", fails)
        with pytest.raises(OutputError, match="0000000-0000002.parquet: No space left on device"):
            sweep(**settings(weights, tmp_path))
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["settings.json"]
    sweep(**settings(weights, tmp_path))
    assert contents(tmp_path) == contents(whole[0])


@pytest.mark.parametrize(
    ("changed", "error", "message"),
    [
        ({"methods": ["rize"]}, MethodError, "unknown method 'rize': did you mean 'rise'"),
        ({"metrics": ["pointgame"]}, MethodError, "did you mean 'pointing_game'"),
        ({"metrics": []}, MethodError, "no metrics"),
        ({"options": {"rise": {"mask": 2}}}, MethodError, "no option 'mask': did you mean 'masks'"),
        ({"options": {"gem": {}}}, MethodError, "options of 'gem'"),
        ({"options": {"rise": {"masks": torch.ones(1)}}}, MethodError, "rise.masks of Tensor"),
        ({"options": {"rise": {"keep": 2.0}}}, MethodError, "keep=2.0, expected a number above 0 and of at most 1"),
        ({"dataset": "scene"}, DatasetError, "did you mean 'scenes'"),
        ({"images": 0}, DatasetError, "at least 1"),
        ({"shard_size": 0}, MethodError, "shard_size=0"),
        ({"out": "nowhere://x"}, OutputError, "nowhere"),
        ({"images": "4"}, MethodError, "images='4'"),
        ({"seed": None}, MethodError, "seed=None"),
        ({"processes": 1.5}, MethodError, "processes=1.5"),
        ({"methods": None}, MethodError, "methods=None"),
        ({"options": {"rise": 8}}, MethodError, "got 8 as the options of rise"),
        ({"options": {"scenes": {"size": {1}}}}, MethodError, "scenes.size of set"),
    ],
)
def test_bad_arguments_are_named_before_anything_is_written(weights, tmp_path, changed, error, message):
    with pytest.raises(error, match=message):
        sweep(**settings(weights, tmp_path / "run") | changed)
    assert not list(tmp_path.iterdir())


def test_a_method_that_explains_no_logit_is_not_planned_for_a_classifier(weights, tmp_path):
    clip = load(weights, "cpu")
    classifier = replace(clip, head=Head(torch.eye(2, clip.embedding_size), torch.zeros(2), ("cone", "ring")))
    with pytest.raises(MethodError, match="maskclip does not explain a class logit .* is a classifier"):
        make_plan(Asked(str(weights), "scenes", ["maskclip"], METRICS, tmp_path, images=1), classifier)


def test_a_method_by_its_old_name_is_planned_by_its_new_one(weights, tmp_path):
    given = settings(weights, tmp_path / "run", methods=["occlusion"], options={"occlusion": {"samples": 8}}, images=1)
    with pytest.warns(DeprecationWarning, match="'occlusion' is now called 'shapley'"):
        found = sweep(**given)
    assert set(found["method"]) == {"shapley"}


def test_the_command_line(whole, weights, tmp_path, capsys):
    command = (
        f"sweep --model {weights} --methods random,rise,self_attention --metrics pointing_game,energy_pointing_game"
    )
    command += f" --images 4 --option rise.masks=8 --option scenes.size=64 --shard-size 2 --device cpu --out {tmp_path}"
    assert main(command.split()) == 0
    assert contents(tmp_path) == contents(whole[0])
    shown = capsys.readouterr()
    assert "self_attention" in shown.out and "4/4" in shown.err and "image/s" in shown.err
    assert main([*command.split(), "--seed", "1"]) == 2
    assert "seed was 0, is 1" in capsys.readouterr().err
    assert main([*command.split(), "--templates", "a {}", "--templates", "{}, drawn"]) == 2
    assert 'templates was ["{}"], is ["a {}", "{}, drawn"]' in capsys.readouterr().err
    assert main([*command.split(), "--templates", "imagnet"]) == 2
    assert "did you mean 'imagenet'" in capsys.readouterr().err


def test_an_fsspec_url_gets_the_same_files(whole, weights):
    import fsspec

    sweep(**settings(weights, "memory://sweeps/run"))
    files = fsspec.filesystem("memory")
    assert {name: files.cat(f"/sweeps/run/{name}") for name in contents(whole[0])} == contents(whole[0])
    assert len(files.ls("/sweeps/run/shards")) == 2
