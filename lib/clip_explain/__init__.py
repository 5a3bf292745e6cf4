"""CLIP Explained: which pixels and which words made CLIP give this score?

    import clip_explain as cx
    model = cx.load("tiny-vit")
    maps = cx.explain(model, "photo.jpg", ["a red cube", "a green ball"], method="grad_eclip")

The public names stand in __init__.pyi; each is imported from its module at first use, so that this import is light.
"""

import importlib
import warnings

import lazy_loader

__version__ = "0.2.0"

_from_module, _dir, __all__ = lazy_loader.attach_stub(__name__, __file__)

# Names of the first edition -> where what they named stands now.
_RENAMED = {
    "Clip": "models:Model",
    "model": "models",
    "query": "request",
    "trace": "models.vit",
    "dino": "models.dino",
    "iclip": "models.iclip",
    "other_models": "models.adapters",
    "pages": "plots",
    "results": "papers",
    "scenes": "embedded.scenes",
    "templates": "texts",
}


def __getattr__(name: str):
    if name in _RENAMED:
        return _renamed(name)
    if name in ("EXPLAINERS", "WORD_EXPLAINERS"):
        from clip_explain.explainers import old_table

        return old_table(name)
    return _from_module(name)


def __dir__() -> list[str]:
    return _dir()


def _renamed(old: str):
    """What an old name stands for, with a warning that names the new one."""
    module, _, name = _RENAMED[old].partition(":")
    warnings.warn(
        f"clip_explain.{old} is now clip_explain.{module}{'.' + name if name else ''}", DeprecationWarning, stacklevel=3
    )
    found = importlib.import_module(f"{__name__}.{module}")
    return getattr(found, name) if name else found
