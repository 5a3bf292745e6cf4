"""1,500 inputs and more, drawn by hypothesis: each has a right answer or a clear error within 10 s; maps are finite.

What is drawn is the same in every session. The last test prints how many answers and how many errors there were.
"""

import copy
import io
import json
import os
from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from trial import COUNTS, JUNK, bounded, report, tried

import clip_explain as cx
import small_datasets
from clip_explain import datasets, maps
from clip_explain.cli import main
from clip_explain.explainers import METHODS
from clip_explain.metrics import concentration, faithfulness, pointing, readouts, recognition, sanity, segmentation
from clip_explain.request import make_request

MODES = ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "HSV", "LAB", "I", "I;16", "F", "PA", "La", "RGBa")
TEXTS = st.one_of(
    st.text(max_size=40),
    st.text(alphabet="a猫é😀👩‍🚀 \u200d\ufeff<|endoftext|>&nbsp;!'0", max_size=30),
    st.sampled_from(
        ["<|endoftext|>", "&nbsp;", "\ufeff", "a photo of a cat", "一只红色的猫", "👨‍👩‍👧", "a" * 400, "e\u0301" * 30]
    ),
)
METHOD = dict(targets=torch.ones(1, 64))


@pytest.fixture(scope="module")
def model(weights):
    return cx.load(weights, device="cpu")


@pytest.fixture(scope="module")
def picture():
    noise = np.random.default_rng(0).integers(0, 256, (60, 90, 3), dtype=np.uint8)
    return Image.fromarray(noise)


# -- images


@st.composite
def pil_images(draw):
    mode = draw(st.sampled_from(MODES))
    size = draw(st.tuples(st.integers(0, 40), st.integers(0, 40)))
    image = Image.new(mode, size, draw(st.sampled_from([0, 1])) if mode in ("1", "L", "I", "P", "I;16", "F") else None)
    if draw(st.booleans()):
        image.info["exif"] = draw(st.binary(max_size=60))
    return image


@st.composite
def arrays(draw):
    shape = draw(st.lists(st.integers(0, 9), min_size=0, max_size=4))
    kind = draw(st.sampled_from([np.uint8, np.float32, np.float64, np.int64, bool, np.uint16, complex, object]))
    values = np.random.default_rng(0).random(shape) * draw(st.sampled_from([1, 255, -1, np.nan, 70_000]))
    with np.errstate(all="ignore"):
        return np.asarray(values).astype(kind)


def written(image, form, **options) -> bytes:
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


@st.composite
def spoilt_files(draw):
    exif = Image.Exif()
    exif[0x0112] = draw(st.sampled_from([0, 1, 6, 8, 9, 65535]))
    noise = Image.fromarray(np.random.default_rng(1).integers(0, 256, (20, 30, 3), dtype=np.uint8))
    form = draw(st.sampled_from(["PNG", "JPEG", "TIFF", "WEBP", "GIF", "BMP", "PPM", "TGA"]))
    content = bytearray(written(noise, form, **({"exif": exif} if form in ("PNG", "JPEG", "TIFF", "WEBP") else {})))
    for _ in range(draw(st.integers(0, 4))):
        content[draw(st.integers(0, len(content) - 1))] ^= 1 << draw(st.integers(0, 7))
    return bytes(content[: draw(st.integers(0, len(content)))] if draw(st.booleans()) else content)


@bounded(260)
@given(
    source=st.one_of(
        JUNK, pil_images(), arrays(), spoilt_files().map(io.BytesIO), st.binary(max_size=60).map(io.BytesIO)
    )
)
def test_images(source):
    found = tried("images", lambda: cx.read_image(source))
    assert found is None or (found.mode == "RGB" and min(found.size) > 0)


@bounded(80)
@given(content=spoilt_files(), name=st.sampled_from(["p.png", "p.eps", "p", "~p", "p q.jpg", "é猫.tiff", "a" * 300]))
def test_files(tmp_path, content, name):
    path = tmp_path / name
    if len(name) < 250:
        path.write_bytes(content)
    found = tried("files", lambda: cx.read_image(path))
    assert found is None or found.mode == "RGB"


@bounded(80)
@given(
    images=st.one_of(JUNK, st.lists(st.one_of(pil_images(), arrays(), JUNK), max_size=3)),
    fit=st.one_of(JUNK, st.sampled_from(["crop", "full", "squash"])),
)
def test_pixels(model, images, fit):
    found = tried("pixels", lambda: cx.pixels(model, images, fit))
    assert found is None or (isinstance(found, cx.Pixels) and torch.isfinite(found).all())


# -- targets, texts and words


@bounded(120)
@given(
    spec=st.one_of(JUNK, TEXTS, st.lists(st.one_of(TEXTS, JUNK, pil_images()), max_size=3)),
    templates=st.one_of(st.just("{}"), JUNK, TEXTS),
)
def test_targets(model, spec, templates):
    found = tried("targets", lambda: cx.targets(model, spec, templates))
    assert found is None or (found.shape[1] == 64 and torch.isfinite(found).all())


@bounded(200)
@given(text=TEXTS, per=st.sampled_from(["token", "word"]), truncate=st.booleans())
def test_words(model, text, per, truncate):
    call = partial(cx.explain_words, model, torch.ones(1, 64), text, per=per, truncate=truncate, layers=1)
    found = tried("words", call)
    if found is not None:
        ((words, weights),) = found
        assert not any("\ufffd" in word for word in words) or "\ufffd" in text
        assert weights.shape == (1, len(words)) and torch.isfinite(weights).all()


@bounded(100)
@given(text=TEXTS, word=st.one_of(TEXTS, JUNK))
def test_words_left_out(model, text, word):
    found = tried("words left out", lambda: cx.without_word(model, text, word))
    assert found is None or torch.isfinite(found).all()


# -- methods and their options


@st.composite
def asked_methods(draw):
    name = draw(st.sampled_from(sorted(METHODS)))
    words = METHODS[name].word_options is not None and draw(st.booleans())
    options = METHODS[name].options_for(words)
    given = (
        {option: draw(JUNK) for option in draw(st.sets(st.sampled_from(sorted(options)), max_size=2))}
        if options
        else {}
    )
    cheap = {key: value for key, value in CHEAP.items() if key in options}
    return name, words, cheap | given


CHEAP = dict(masks=4, samples=4, steps=2, batch_size=8, layer=0, images=8, texts=4)


@bounded(220)
@given(asked=asked_methods())
def test_options(model, picture, asked):
    name, words, options = asked
    if words:
        found = tried("options", lambda: cx.explain_words(model, torch.ones(1, 64), "a red cube", name, **options))
        assert found is None or all(torch.isfinite(weights).all() for _, weights in found)
    else:
        found = tried("options", lambda: cx.explain(model, picture, ["a cube", "a cat"], name, fit="crop", **options))
        assert found is None or torch.isfinite(torch.as_tensor(found.maps)).all()


@bounded(60)
@given(
    values=st.fixed_dictionaries(
        {}, optional=dict(model=JUNK, images=JUNK, targets=JUNK, method=JUNK, fit=JUNK, templates=JUNK, truncate=JUNK)
    )
)
def test_explain(model, picture, values):
    found = tried("explain", lambda: cx.explain(**(dict(model=model, images=picture, targets="a cube") | values)))
    assert found is None or torch.isfinite(torch.as_tensor(found.maps)).all()


# -- models


@bounded(60)
@given(
    name=st.one_of(JUNK, st.text(max_size=12)),
    prefix=st.sampled_from(["", "", "open_clip:", "torchvision:", "iclip:"]),
    device=st.sampled_from(["cpu", "meta", "x", 3.5]),
)
def test_names_of_models(name, prefix, device):
    tried("load", lambda: cx.load(prefix + name if prefix and isinstance(name, str) else name, device))


@bounded(60)
@given(data=st.data())
def test_spoilt_weights(weights, tmp_path, data):
    content = bytearray(weights.read_bytes())
    if data.draw(st.booleans()):
        content = content[: data.draw(st.integers(0, len(content)))]
    for _ in range(data.draw(st.integers(0, 3))):
        content[data.draw(st.integers(0, max(0, min(len(content), 4000) - 1)))] = (
            data.draw(st.integers(0, 255)) if content else 0
        )
    path = tmp_path / data.draw(st.sampled_from(["w.safetensors", "w.pt", "w.bin"]))
    path.write_bytes(content)
    tried("load", lambda: cx.load(path, "cpu"))


# -- datasets


@bounded(60)
@given(
    name=st.one_of(JUNK, st.sampled_from(["scenes", "objects", "faces", "paintings", "attributes"])),
    options=st.fixed_dictionaries(
        {},
        optional=dict(
            seed=JUNK, count=JUNK, root=JUNK, size=st.one_of(JUNK, st.integers(0, 40)), domain=JUNK, kinds=JUNK
        ),
    ),
)
def test_rendered_datasets(name, options):
    found = tried("datasets", lambda: datasets.load(name, **({"count": 1, "size": 24} | options))[0].image)
    assert found is None or found.mode == "RGB"


def places(content, at=()):
    """Where something stands in nested lists and dicts."""
    items = content.items() if isinstance(content, dict) else enumerate(content) if isinstance(content, list) else ()
    for key, value in items:
        yield (*at, key)
        yield from places(value, (*at, key))


VALUES = st.sampled_from(
    [
        None,
        0,
        -1,
        1e30,
        10**6,
        "",
        "x",
        "\ud800",
        [],
        [[]],
        {},
        [1e9] * 6,
        {"size": [10**6] * 2, "counts": [10**12]},
        True,
    ]
)
JSON_SETS = {
    "coco": (small_datasets.coco, "coco/annotations/instances_val2017.json"),
    "coco_captions": (small_datasets.coco, "coco/annotations/captions_val2017.json"),
    "coco_karpathy": (small_datasets.karpathy, "coco/dataset_coco.json"),
    "clevr": (small_datasets.clevr, "clevr/scenes/CLEVR_val_scenes.json"),
}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("datasets")
    for make in ("imagenet", "voc", "coco", "karpathy", "clevr", "artemis", "affectnet", "ms_cxr"):
        getattr(small_datasets, make)(folder)
    return folder


@bounded(160)
@given(name=st.sampled_from(sorted(JSON_SETS)), data=st.data())
def test_spoilt_annotations(root, name, data):
    path = root / JSON_SETS[name][1]
    if not path.is_file():
        return
    whole = path.read_text()
    content = json.loads(whole)
    for _ in range(data.draw(st.integers(1, 2))):
        *way, last = data.draw(st.sampled_from(list(places(content))))
        part = content
        for key in way:
            part = part[key]
        part[last] = copy.deepcopy(data.draw(VALUES))
    path.write_text(json.dumps(content))
    try:
        tried("annotations", lambda: [record.texts for record in datasets.load(name, root=root)])
    finally:
        path.write_text(whole)


TABLES = {
    "artemis": "artemis/artemis_dataset_release_v0.csv",
    "affectnet_csv": "affectnet/validation.csv",
    "imagenet": "imagenet/LOC_synset_mapping.txt",
    "ms_cxr": "ms-cxr/MS_CXR_Local_Alignment_v1.1.0.csv",
}


@bounded(80)
@given(name=st.sampled_from(sorted(TABLES)), at=st.floats(0, 1), put=st.binary(max_size=12), cut=st.integers(0, 20))
def test_spoilt_tables(root, name, at, put, cut):
    path = root / TABLES[name]
    whole = path.read_bytes()
    place = int(at * len(whole))
    path.write_bytes(whole[:place] + put + whole[place + cut :])
    try:
        tried("tables", lambda: [record.texts for record in datasets.load(name, root=root)])
    finally:
        path.write_bytes(whole)


# -- metrics

MAPS = torch.rand(2, 4, 4, generator=torch.Generator().manual_seed(0))
MASKS = torch.rand(2, 16, 16, generator=torch.Generator().manual_seed(1)) > 0.5
SCORES, PRESENT = torch.rand(5, 3), torch.tensor([[1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 0], [0, 1, 1]]) > 0
MASKED = dict(maps=MAPS, masks=MASKS)
METRICS = {
    pointing.pointing_game: MASKED | dict(tolerance=0, ignore=None),
    pointing.energy_pointing_game: MASKED | dict(energy="positive", ignore=None),
    pointing.points_at: MASKED,
    pointing.energy_in: MASKED,
    pointing.image_grid: dict(images=torch.rand(4, 3, 8, 8), columns=2, size=None),
    pointing.energy_in_cells: dict(maps=MAPS, rows=2, columns=2),
    pointing.grid_pointing: dict(maps=MAPS, cells=torch.tensor([0, 1]), rows=2, columns=2),
    segmentation.pixel_accuracy: MASKED | dict(threshold="mean", at=0.5, over="image", ignore=None),
    segmentation.average_precision: MASKED | dict(classes="foreground", ignore=None),
    segmentation.mask_iou: MASKED | dict(threshold="fixed", at=0.5, classes=None, mode="bilinear", ignore=None),
    segmentation.iou_curves: MASKED | dict(step=0.1, mode="bicubic", ignore=None),
    segmentation.foreground_minus_background: MASKED | dict(mode="bicubic", ignore=None),
    segmentation.mmiou: dict(curves=torch.rand(4, 5), classes=["a", "b", "a", "b"]),
    segmentation.mean_over_classes: dict(values=torch.rand(4), classes=["a", "b", "a", "b"]),
    concentration.mean_map: dict(maps=MAPS, size=(8, 8)),
    concentration.variance: dict(maps=MAPS),
    concentration.value_entropy: dict(maps=MAPS, bins=None),
    concentration.corner_bias: dict(maps=MAPS, part=0.2),
    concentration.overlap: dict(maps=MAPS, others=MAPS),
    concentration.mass_curve: dict(maps=MAPS),
    concentration.cells_for: dict(maps=MAPS, mass=0.9),
    concentration.entropy: dict(maps=MAPS, unit="share"),
    recognition.mean_average_precision: dict(scores=SCORES, present=PRESENT),
    recognition.top_k: dict(scores=SCORES, labels=torch.tensor([0, 1, 2, 0, 1]), k=1),
    recognition.recall_at_k: dict(similarity=SCORES, image_of=torch.tensor([0, 1, 2]), k=1),
    sanity.spearman: dict(maps=MAPS, others=MAPS),
    sanity.pearson: dict(maps=MAPS, others=MAPS),
    sanity.ssim: dict(maps=MAPS, others=MAPS, window=3),
    faithfulness.auc: dict(curve=torch.rand(2, 11), protocol="grad_eclip"),
    faithfulness.ranks: dict(maps=MAPS, size=(8, 8), lowest_first=False),
    readouts.classification: dict(texts=torch.eye(3), labels=torch.tensor([0, 1]), scale=100.0),
    maps.resize: dict(maps=MAPS, size=(8, 8), mode="bilinear"),
    maps.normalize: dict(maps=MAPS),
    maps.degenerate: dict(maps=MAPS),
}


@bounded(420)
@given(function=st.sampled_from(list(METRICS)), data=st.data())
def test_metrics(function, data):
    arguments = dict(METRICS[function])
    for name in data.draw(st.sets(st.sampled_from(sorted(arguments)), max_size=2)):
        arguments[name] = data.draw(JUNK)
    tried("metrics", lambda: function(**arguments))


@bounded(40)
@given(
    values=st.fixed_dictionaries(
        {}, optional=dict(pixels=JUNK, maps=JUNK, protocol=JUNK, mode=JUNK, every=JUNK, batch_size=JUNK, seed=JUNK)
    )
)
def test_curves(model, picture, values):
    request = make_request(model, picture, "a cube", "crop")
    read = readouts.classification(torch.eye(64)[:3], torch.tensor([0]))
    right = dict(pixels=request.pixels, maps=MAPS[:1, None], every=25, batch_size=16, seed=0)
    found = tried("curves", lambda: faithfulness.curves(model, readouts=read, **(right | values)))
    assert found is None or all(torch.isfinite(curve).all() for curve in found.values())


# -- the command line

WORDS = st.one_of(
    TEXTS,
    st.sampled_from(
        [
            "p.png",
            "nope.png",
            "--out",
            "o.txt",
            "--option",
            "layers=1",
            "layers=x",
            "--fit",
            "--method",
            "rise",
            "--device",
            "meta",
            "--model",
            "--truncate",
            "--words",
            "--direction",
            "f:x",
            "--templates",
            "{}",
            "-1",
            "=",
            "--",
            "data",
            "sweep",
        ]
    ),
)


@bounded(60)
@given(arguments=st.lists(WORDS, max_size=6))
def test_command_line(tmp_path, monkeypatch, capsys, picture, arguments):
    monkeypatch.chdir(tmp_path)
    picture.save("p.png")

    def call():
        try:
            code = main(["p.png", "a cube", "--out", "o.txt", *arguments])
        except SystemExit as stopped:  # argparse's own refusal
            code = stopped.code
        if code == 2:
            raise cx.ClipExplainError("said on stderr")
        assert code == 0

    tried("command line", call)
    assert "Traceback" not in capsys.readouterr().err


def test_there_were_enough(capsys):
    with capsys.disabled():
        print("\n" + report())
    assert sum(COUNTS.values()) >= 1500 or "PYTEST_XDIST_WORKER" in os.environ
