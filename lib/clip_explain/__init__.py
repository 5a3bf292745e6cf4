"""CLIP Explained: which pixels and which words made CLIP give this score?

    import clip_explain as cx
    model = cx.load("tiny-vit")
    maps = cx.explain(model, "photo.jpg", ["a red cube", "a green ball"], method="grad_eclip")

The public interface; each name is imported from its module at first use, so that this import is light.
"""

import importlib

from clip_explain.errors import (
    ClipExplainError,
    DatasetError,
    ImageError,
    MethodError,
    ModelError,
    OutputError,
    TensorError,
    TextError,
    WeightsError,
    WorkerError,
)

_HOME = {
    "Clip": "model",
    "available_models": "model",
    "encode_image": "model",
    "encode_text": "model",
    "load": "model",
    "load_dino": "dino",
    "preprocess": "model",
    "read_image": "model",
    "tokenize": "model",
    "EXPLAINERS": "explainers",
    "WORD_EXPLAINERS": "explainers",
    "explain": "explainers",
    "explain_words": "explainers",
    "difference": "query",
    "targets": "query",
    "without_word": "query",
}
_MODULES = (
    "datasets",
    "metrics",
    "results",
    "scenes",
    "sweep",
    "dino",
    "explainers",
    "iclip",
    "maps",
    "model",
    "other_models",
    "plots",
    "query",
    "templates",
    "trace",
)

__all__ = [
    "ClipExplainError",
    "DatasetError",
    "ImageError",
    "MethodError",
    "ModelError",
    "OutputError",
    "TensorError",
    "TextError",
    "WeightsError",
    "WorkerError",
    *_HOME,
]


def __getattr__(name: str):
    if name in _MODULES:
        return importlib.import_module(f"clip_explain.{name}")
    if name in _HOME:
        return getattr(importlib.import_module(f"clip_explain.{_HOME[name]}"), name)
    raise AttributeError(f"module 'clip_explain' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*__all__, *_MODULES])
