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
    "Model": "models",
    "available_models": "models",
    "difference": "directions",
    "encode_image": "images",
    "encode_text": "models.embed",
    "EXPLAINERS": "explainers",
    "WORD_EXPLAINERS": "explainers",
    "explain": "explainers",
    "explain_words": "explainers",
    "linear_probe": "sweep.features",
    "load": "models",
    "load_dino": "models.dino",
    "preprocess": "images",
    "read_image": "images",
    "targets": "directions",
    "tokenize": "models.tokenizer",
    "without_word": "directions",
}
_MODULES = (
    "datasets",
    "embedded",
    "explainers",
    "images",
    "maps",
    "metrics",
    "models",
    "papers",
    "plots",
    "request",
    "sweep",
    "texts",
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
