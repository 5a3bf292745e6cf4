"""The files of a notebook as its checks want them, and nothing half-written."""

import csv
import json
import os
from dataclasses import replace

import matplotlib
import numpy as np
import pandas as pd
import pytest
from matplotlib import pyplot as plt
from PIL import Image

import run as runner
import small_clip
from clip_explain import papers
from clip_explain.errors import OutputError
from clip_explain.metrics.intervals import Interval

matplotlib.use("agg")
OURS = Interval(0.5, 0.4, 0.6, 30)
SUMMARY = pd.DataFrame({"method": ["game"], "mean": [0.123456]})
VERDICTS = pd.DataFrame({"claim": ['a "quoted", claim'], "paper": ["0.9"], "ours": [0.5], "verdict": ["undecided"]})


@pytest.fixture(scope="module")
def model():
    return replace(small_clip.wrap(small_clip.build(vlayers=1, tlayers=1, vocab=100)), sha256="ab")


@pytest.fixture
def figure():
    figure, ax = plt.subplots(figsize=(6.3, 2))
    ax.plot([0, 1])
    yield figure
    plt.close(figure)


def test_what_is_saved_passes_the_notebooks_checks(tmp_path, model, figure):
    folder = tmp_path / "new" / "01_test"
    record = papers.provenance(model, "scenes", 3, 30, {"hit": OURS, "chance": np.float32(0.25)}, {"texts": ["a"]})
    papers.save(folder, {"numbers": SUMMARY}, VERDICTS, record)
    papers.save_figure(figure, folder, "a")
    read = runner.check_results(folder)
    assert read == json.loads(json.dumps(record))
    assert (read["model"], read["weights_sha256"], read["seed"], read["n_images"]) == ("small", "ab", 3, 30)
    assert read["values"] == {"hit": 0.5, "hit low": 0.4, "hit high": 0.6, "chance": 0.25}
    assert set(papers.PACKAGES) | {"python"} == set(read["versions"])
    with (folder / "claims.csv").open(newline="") as file:
        (row,) = csv.DictReader(file)
    assert (row["claim"], row["ours"], row["verdict"]) == ('a "quoted", claim', "0.5", "undecided")
    assert (folder / "numbers.csv").read_text() == "method,mean\ngame,0.1235\n"


@pytest.mark.parametrize(("count", "value"), [(0, 0.5), (5, float("nan")), (5, float("inf"))])
def test_no_images_and_no_nan(model, count, value):
    with pytest.raises(OutputError, match="no image was processed" if count == 0 else "not finite: hit"):
        papers.provenance(model, "scenes", 0, count, {"hit": value}, {})


def test_a_figure_is_written_whole_at_its_size_and_the_same_again(tmp_path, figure):
    path = papers.save_figure(figure, tmp_path, "curve")
    with Image.open(path) as image:
        assert image.size == (1260, 400)
    first = path.read_bytes(), path.with_suffix(".pdf").read_bytes()
    papers.save_figure(figure, tmp_path, "curve")
    assert (path.read_bytes(), path.with_suffix(".pdf").read_bytes()) == first
    assert sorted(file.name for file in tmp_path.iterdir()) == ["curve.pdf", "curve.png"]


def test_axes_stand_for_their_figure(tmp_path, figure):
    whole = papers.save_figure(figure, tmp_path, "whole").read_bytes()
    ax = figure.axes[0]
    for number, axes in enumerate([ax, np.array([[ax]], dtype=object)]):
        assert papers.save_figure(axes, tmp_path, f"by axes {number}").read_bytes() == whole


def test_a_figure_keeps_every_pixel_as_it_is_drawn(tmp_path):
    """However many colours: noise of 200 x 200 colours drawn pixel by pixel at 200 dpi."""
    noise = np.random.default_rng(0).integers(0, 256, (200, 200, 3), dtype=np.uint8)
    figure = plt.figure(figsize=(1, 1))
    figure.add_axes((0, 0, 1, 1)).set_axis_off()
    figure.axes[0].imshow(noise, interpolation="nearest")
    with Image.open(papers.save_figure(figure, tmp_path, "noise")) as image:
        assert image.mode == "RGB" and np.array_equal(np.asarray(image), noise)
    plt.close(figure)


def test_a_place_that_cannot_be_written(tmp_path, figure):
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="cannot write .*claims.csv"):
        papers.save(tmp_path / "file", {}, VERDICTS, {})


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    papers.write(tmp_path / "a.txt", b"old")
    monkeypatch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OutputError, match="disk full"):
        papers.write(tmp_path / "a.txt", b"new")
    assert [(file.name, file.read_bytes()) for file in tmp_path.iterdir()] == [("a.txt", b"old")]


def test_a_file_that_holds_these_bytes_already_stays_but_is_of_now(tmp_path):
    path = tmp_path / "figure.png"
    papers.write(path, b"drawn")
    os.utime(path, (0, 0))
    first = path.stat().st_ino
    papers.write(path, b"drawn")
    assert path.stat().st_ino == first and path.stat().st_mtime > 0
    papers.write(path, b"drawn anew")
    assert path.read_bytes() == b"drawn anew" and path.stat().st_ino != first


def test_weights_of_several_models(model):
    assert papers.weights_of({"CLIP": model}) == {"CLIP": {"weights": model.name, "sha256": "ab"}}
