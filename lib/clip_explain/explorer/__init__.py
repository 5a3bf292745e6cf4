"""The interactive explorer, made of ipywidgets: for JupyterLab, and as a page of its own by Voila."""

from clip_explain.explorer.app import Explorer

__all__ = ["Explorer"]
