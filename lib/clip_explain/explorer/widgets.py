"""The explorer's building blocks: a thread for the newest request, a menu of methods with their options, a text's card.

Below app.py, which puts them together; above options.py and view.py.
"""

import html
import threading
from collections.abc import Callable, Sequence
from typing import Any

import ipywidgets as widgets
from torch import Tensor

from clip_explain.explainers import METHODS, methods_for
from clip_explain.explorer import pictures
from clip_explain.explorer.options import Control, changed, controls
from clip_explain.explorer.view import Found, Panel, State
from clip_explain.models.model import Model

FULL = widgets.Layout(width="auto")
STYLE = {"description_width": "84px"}
INSTEAD = "grad_cam"  # for a method that does not support the model, such as a ResNet


class Newest:
    """Runs `work(stale)` on one thread. Requests that arrive while it runs are combined into one further run."""

    def __init__(self, work: Callable[[Callable[[], bool]], None]):
        self._work, self._lock = work, threading.Lock()
        self._asked, self._thread = False, None

    def ask(self) -> None:
        with self._lock:
            self._asked = True
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, daemon=True)
                self._thread.start()

    def stale(self) -> bool:
        return self._asked

    def here(self) -> bool:
        """Whether the caller is on the working thread."""
        return threading.current_thread() is self._thread

    def wait(self) -> None:
        """Wait until no work is left."""
        while (thread := self._thread) is not None:
            thread.join()

    def _run(self) -> None:
        while True:
            with self._lock:
                if not self._asked:
                    self._thread = None
                    return
                self._asked = False
            self._work(self.stale)


class Chooser:
    """A `menu` of methods, and in `options` a widget for each option of the chosen one, with the record's sentence."""

    def __init__(self, label: str, change: Callable[[Any], None], words: bool = False, value: str = "grad_eclip"):
        self.words, self._change, self._model, self._wished = words, change, None, value
        self.method = widgets.Dropdown(description=label, style=STYLE, layout=FULL)
        self.says = widgets.HTML()
        self.options = widgets.VBox()
        self.menu = widgets.VBox([self.method, self.says])
        self._rows: list[tuple[Control, widgets.Widget]] = []
        self.method.observe(self._chosen, "value")

    def adopt(self, model: Model) -> None:
        """Offer the methods that support this model; keep the chosen method and its options if they fit."""
        self._model, names = None, methods_for(model, self.words)
        self.method.options = names
        fitting = [name for name in (self._wished, INSTEAD, *names) if name in names]
        self.method.value = fitting[0] if fitting else None
        self._model = model
        self._fill()

    def read(self) -> Panel | None:
        """The chosen method and its options; None if no method supports the model."""
        if self.method.value is None:
            return None
        return Panel(self.method.value, changed([(each, widget.value) for each, widget in self._rows]))

    def _chosen(self, change: Any) -> None:
        if self._model is not None and self.method.value is not None:  # otherwise `adopt` changed it
            self._wished = self.method.value
            self._fill()
            self._change(change)

    def _fill(self) -> None:
        self.says.value = "" if self.method.value is None else sentence(METHODS[self.method.value].says)
        names = [] if self.method.value is None else controls(self.method.value, self._model, self.words)
        if names == [each for each, _ in self._rows]:
            return
        self._rows = [(each, control_widget(each)) for each in names]
        rows = []
        for each, widget in self._rows:
            widget.observe(self._change, "value")
            rows.append(widgets.VBox([widget, widgets.HTML(sentence(each.says))]))
        old, self.options.children = self.options.children, rows
        for row in old:
            for widget in (*row.children, row):
                widget.close()


def sentence(says: str) -> str:
    """A record's sentence, in small letters below a menu."""
    return f'<div class="cx-says">{html.escape(says, quote=False)}</div>'


def control_widget(control: Control) -> widgets.Widget:
    """The widget of one option."""
    shared = {"description": control.name, "style": STYLE, "layout": FULL}
    if control.kind == "switch":
        return widgets.Checkbox(value=control.value, description=control.name, indent=False, layout=FULL)
    if control.kind == "choice":
        return widgets.Dropdown(options=control.choices, value=control.value, **shared)
    if control.kind == "slider":
        return widgets.SelectionSlider(options=control.choices, value=control.value, **shared)
    if control.kind == "number":
        return widgets.IntSlider(control.value, control.low, control.high, **shared)
    if control.kind == "decimal" and not control.optional:
        return widgets.FloatText(control.value, step=0.1, **shared)
    value = "" if control.value is None else str(control.value)
    return widgets.Text(value, placeholder="its own default", continuous_update=False, **shared)


def tooltips(words: Sequence[str], values: Tensor, unknown: Sequence[str]) -> list[str]:
    """What the pointer is told of each word."""
    found = []
    for word, value in zip(words, values.tolist(), strict=True):
        mark = "; the model never learned it" if word in unknown else ""
        found.append(f"{word}: weight {value:.4f}{mark}; click to see its patches")
    return found


class Card:
    """One text: its pictures, and a button for each of its words."""

    def __init__(self, scope: str, change: Callable[[Any], None]):
        self.scope = f".{scope}"
        self.style, self.picture = widgets.HTML(), widgets.HTML()
        self.style.layout.display = "none"
        self.words = widgets.ToggleButtons()
        self.words.add_class("cx-words")
        self.box = widgets.VBox([self.style, self.picture, self.words])
        for name in ("cx-card", scope):
            self.box.add_class(name)
        self.words.observe(change, "index")

    def picked(self) -> str:
        """The word that is picked, "" for the whole text."""
        return str(self.words.value or "")

    def show(self, state: State, found: Found, index: int, hover: list | None = None) -> None:
        words, values = found.words[index] if found.words else ([], None)
        options = [("whole text", ""), *zip(pictures.unlike(words), words, strict=True)]
        if list(self.words.options) != options:
            self.words.options = options
        places = [place for place, (_, word) in enumerate(options) if word == state.word(index)]
        if self.words.index not in places:
            self.words.index = places[0] if places else 0
        self.words.layout.display = "" if words else "none"
        if values is not None:
            self.words.tooltips = ["", *tooltips(words, values, found.unknown)]
            colours = pictures.word_colours(f"{self.scope} .cx-words", words, values, found.unknown)
            self.style.value = f"<style>{colours}</style>"
        self.picture.value = pictures.card(state, found, index, hover)
