"""The interactive explorer, made of ipywidgets: for JupyterLab, and as a page of its own by Voila.

Above view.py and code.py, which compute and draw everything that is shown. A single thread computes, always for the
newest state; changes that arrive during a computation are combined.
"""

import html
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import ipywidgets as widgets
from IPython.display import display

from clip_explain.errors import ClipExplainError
from clip_explain.explainers import METHODS
from clip_explain.explorer import code as explorer_code
from clip_explain.explorer import lines, pictures
from clip_explain.explorer import view as explorer_view
from clip_explain.explorer.options import pair_methods, quick_pairs
from clip_explain.explorer.sources import examples, own_images, uploaded
from clip_explain.explorer.style import CSS, DROP, OPACITY, thumbnails
from clip_explain.explorer.view import EVIDENCE, WAYS, Found, Panel, Source, State
from clip_explain.explorer.widgets import FULL, STYLE, Card, Chooser, Newest
from clip_explain.models import available_models, load
from clip_explain.models.model import Model

OTHER = "another ..."
FITS = {"the whole image": "full", "its middle square": "crop", "squashed to a square": "squash"}


class Explorer:
    """The explorer. A cell that ends with it shows it; `wait()` returns when it is drawn; `figure()` is its figure."""

    def __init__(
        self,
        model: str = "tiny-vit",
        device: str | None = None,
        images: str | Path | Sequence[str | Path] = "",
        texts: Sequence[str] = (),
        method: str = "grad_eclip",
    ):
        self._name, self._device = f"cx-{id(self):x}", device
        self._models: dict[str, Model] = {}
        self._memory: dict = {}
        self._model: Model | None = None
        self._sources = own_images(images, texts) if images else examples()
        self._drawn: tuple[str, State] | None = None  # the model's name, and what was drawn last
        self._named, self._listing = model, False
        self._export = False
        self._newest = Newest(self._draw)
        self._make(model, method)
        self._newest.ask()

    def wait(self) -> None:
        """Wait until everything that was asked for is drawn."""
        self._newest.wait()

    def figure(self) -> Any:
        """The matplotlib figure of what is shown, made by the lines that `code` gives."""
        self.wait()
        return explorer_code.figure(self._model, self._read())

    def code(self) -> str:
        """The lines of Python that make what is shown."""
        self.wait()
        return explorer_code.code(self._read(), self._model_name())

    def save(self, folder: str | Path) -> Path:
        """Write what is shown as explorer_figure.png, and a PDF beside it; the PNG's path."""
        from clip_explain.papers import (
            save_figure,
        )  # brings pandas and scikit-learn, seconds that the page need not wait

        return save_figure(self.figure(), folder, "explorer_figure")

    def _ipython_display_(self, **_: Any) -> None:
        """Show the explorer, and return when it is drawn.

        Voila's page copies the widgets as the last cell leaves them. What a thread changes during the copying never
        reaches the page, and a widget that it makes then is an error there.
        """
        display(self.box)
        self.wait()

    # -- the widgets

    def _make(self, model: str, method: str) -> None:
        self._image = widgets.ToggleButtons()
        self._image.add_class("cx-thumbs")
        self._thumbs = widgets.HTML()
        self._upload = widgets.FileUpload(accept="image/*", description="Upload", multiple=True, layout=FULL)
        self._uploads: list[dict] = []  # all that were read, without their contents: the button counts them
        self._fit = widgets.Dropdown(options=list(FITS.items()), description="look at", style=STYLE, layout=FULL)
        self._texts = widgets.Textarea(
            "\n".join(self._sources[0].texts), description="texts", rows=3, style=STYLE, layout=FULL
        )
        self._texts.placeholder = "one text a line"
        self._offers = widgets.HBox()
        self._offers.add_class("cx-offers")
        self._offer(self._sources[0])
        names = list(dict.fromkeys([model, *available_models()]))
        labels = [(lines.named(name), name) for name in names]
        self._choice = widgets.Dropdown(
            options=[*labels, (OTHER, OTHER)], description="model", style=STYLE, layout=FULL
        )
        self._other = widgets.Text(description="name, path", placeholder="ViT-B/16", continuous_update=False)
        self._other.style, self._other.layout = STYLE, widgets.Layout(width="auto", display="none")
        self._first = Chooser("method", self._changed, value=method)
        self._two = widgets.Checkbox(description="compare with a second method", indent=False, layout=FULL)
        self._second = Chooser("second", self._changed, value="game")
        self._evidence = widgets.ToggleButtons(options=list(EVIDENCE.items()), description="")
        self._evidence.add_class("cx-evidence")
        self._legend = widgets.HTML(lines.legend("for"))
        self._words = Chooser("words by", self._changed, words=True)
        self._way = widgets.Dropdown(options=list(WAYS.items()), description="a word is", style=STYLE, layout=FULL)
        self._save = widgets.Button(description="Make the figure (PNG)", layout=FULL)
        self._file, self._code = widgets.HTML(), widgets.HTML()
        self._status, self._error, self._warning = widgets.HTML(), widgets.HTML(), widgets.HTML()
        self._bare, self._cards = widgets.HTML(), []
        self._list_images(0)
        self._observe()
        self._lay_out()

    def _observe(self) -> None:
        for widget in (self._texts, self._fit, self._two, self._evidence, self._way, self._choice, self._other):
            widget.observe(self._changed, "value")
        self._image.observe(self._another_image, "index")
        self._upload.observe(self._uploaded, "value")
        self._save.on_click(self._wants_file)

    def _lay_out(self) -> None:
        upload = widgets.HBox([self._upload, widgets.HTML(DROP)])
        given = widgets.VBox([self._thumbs, self._image, upload, self._texts, self._offers])
        options = [self._fit, self._first.options, self._two, self._second.menu, self._second.options]
        words = [self._words.menu, self._words.options]
        out = [self._save, self._file, self._code]
        folds = widgets.Accordion(
            [widgets.VBox(each) for each in (options, words, out)],
            titles=("Options, and a second method", "Words", "Figure and code"),
        )
        chosen = widgets.VBox([self._choice, self._other, self._first.menu, self._way, self._evidence, folds])
        bare = widgets.VBox([self._bare])
        self._stage = widgets.HBox([bare])
        look = widgets.HBox([self._legend, widgets.HTML(OPACITY)])
        found = widgets.VBox([self._status, self._error, self._warning, look, self._stage])
        body = widgets.Box([given, found, chosen])
        self.box = widgets.VBox([widgets.HTML(f"<style>{CSS}</style>"), body])
        for widget, names in (
            (self.box, "cx"),
            (body, "cx-body"),
            (given, "cx-given"),
            (found, "cx-found"),
            (chosen, "cx-chosen"),
            (upload, "cx-upload"),
            (look, "cx-look"),
            (self._stage, "cx-stage"),
            (bare, "cx-card cx-bare"),
        ):
            for name in names.split():
                widget.add_class(name)
        self.box.add_class(self._name)
        self._show_second()

    def _show_second(self) -> None:
        for widget in (self._second.menu, self._second.options):
            widget.layout.display = "" if self._two.value else "none"

    def _list_images(self, chosen: int) -> None:
        self._thumbs.value = f"<style>{thumbnails(f'.{self._name}', [each.image for each in self._sources])}</style>"
        self._listing = True  # new options choose the first one for a moment
        self._image.options = [(each.name, index) for index, each in enumerate(self._sources)]
        self._image.tooltips = [each.name for each in self._sources]
        self._image.index = chosen
        self._listing = False

    # -- the user's actions

    def _changed(self, change: Any = None) -> None:
        if self._newest.here():  # widgets that the drawing itself has set
            return
        self._other.layout.display = "" if self._choice.value == OTHER else "none"
        self._show_second()
        self._legend.value = lines.legend(self._evidence.value)
        self._stage.add_class("cx-old")  # what is still shown is not what is asked for
        self._newest.ask()

    def _another_image(self, change: Any) -> None:
        if self._listing or change["new"] is None:
            return
        said = tuple(self._texts.value.splitlines())
        if said in {source.texts for source in self._sources} and (texts := self._sources[change["new"]].texts):
            self._texts.value = "\n".join(texts)  # texts of the user's own stay
        self._offer(self._sources[change["new"]])
        self._changed()

    def _offer(self, source: Source) -> None:
        """A button for each text that fits the image: a click puts it alone into the box."""
        buttons = [widgets.Button(description=text, layout=FULL) for text in source.texts]
        for button in buttons:
            button.on_click(lambda pressed: setattr(self._texts, "value", pressed.description))
        self._offers.children = buttons

    def _uploaded(self, change: Any) -> None:
        new = [each for each in change["new"] if each["content"]]  # the others are those that are only counted
        for each in new:
            try:
                source = uploaded(each["name"], bytes(each["content"]))
            except ClipExplainError as error:
                self._say_error(str(error))
                continue
            self._uploads.append({**each, "content": b""})
            self._sources = [*self._sources, source]
            self._list_images(len(self._sources) - 1)
            self._changed()
        if new:
            self._upload.value = tuple(self._uploads)

    def _wants_file(self, _: Any) -> None:
        self._export = True
        self._newest.ask()

    # -- drawing, on the thread that works

    def _draw(self, stale: Callable[[], bool]) -> None:
        name = self._model_name()
        if name not in self._models:
            self._status.value = lines.busy(lines.loading(name))
        start = time.perf_counter()
        try:
            model = self._loaded(name)
            if model is not self._model:
                self._adopt(model)
            state = self._read()
            self._status.value = lines.busy(explorer_view.waiting(state))
            for draft, said in explorer_view.drafts(state):
                found = explorer_view.compute(model, draft, self._memory, stale)
                if found is None or stale():
                    return
                self._show(name, state, found)
                self._status.value = lines.busy(said) if said else lines.status(model, time.perf_counter() - start)
                self._say_error("")
            self._follow(model, state, found, stale)
        except ClipExplainError as error:
            if not stale():
                self._say_error(str(error))
        except Exception as error:  # whatever it is, the page must say so and live on
            self._say_error(f"This went wrong unexpectedly: {type(error).__name__}: {error}")

    def _follow(self, model: Model, state: State, found: Found, stale: Callable[[], bool]) -> None:
        """Draw what may come after the pictures: the words' maps, which a pointer reveals, and the file."""
        if self._export:
            self._export = False
            self._status.value = lines.busy("drawing the figure")
            self._file.value = lines.link(explorer_code.png(model, state))
            self._status.value = lines.status(model, None)
        for index, (words, _) in enumerate(found.words):
            hover = explorer_view.word_maps(model, state, index, words, self._memory, stale)
            if hover is None or stale():
                return
            if any(hover):
                self._cards[index].show(state, found, index, hover)

    def _show(self, name: str, state: State, found: Found) -> None:
        while len(self._cards) < len(state.texts):
            self._cards.append(Card(f"{self._name}-{len(self._cards)}", self._changed))
        for index in range(len(state.texts)):
            self._cards[index].show(state, found, index)
        self._bare.value = pictures.source_card(state)
        self._warning.value = lines.banner(found.warnings)
        shown = (self._stage.children[0], *(card.box for card in self._cards[: len(state.texts)]))
        if self._stage.children != shown:
            self._stage.children = shown
        if self._drawn != (name, state):
            self._file.value = ""
        self._drawn, self._named = (name, state), name
        self._code.value = lines.copyable(explorer_code.code(state, name))

    def _read(self) -> State:
        """The state that the user has chosen."""
        texts = explorer_view.texts_of(self._texts.value)
        panels = [self._first.read(), self._second.read() if self._two.value else None]
        known = self._drawn[1].texts if self._drawn else ()
        picked = [card.picked() if known[i : i + 1] == (text,) else "" for i, (text, card) in self._paired(texts)]
        return State(
            self._sources[self._image.index or 0],
            texts,
            tuple(panel for panel in panels if panel),
            self._words.read(),
            self._fit.value,
            self._evidence.value,
            "added" if self._way.value in METHODS else self._way.value,
            tuple(picked),
            self._pairs(),
        )

    def _pairs(self) -> Panel | None:
        """The method for pairs of patches and words, if a word's map is to come from one."""
        method = self._way.value
        return Panel(method, quick_pairs(method, self._model)) if method in METHODS and self._model else None

    def _paired(self, texts: Sequence[str]) -> Any:
        return enumerate(zip(texts, self._cards, strict=False))

    def _model_name(self) -> str:
        """The name of the chosen model, or of the previous one while a new name is being typed."""
        chosen = str(self._choice.value)
        return chosen if chosen != OTHER else str(self._other.value).strip() or self._named

    def _loaded(self, name: str) -> Model:
        if name not in self._models:
            self._models[name] = load(name, self._device)
        return self._models[name]

    def _adopt(self, model: Model) -> None:
        """Offer the methods and ranges of this model."""
        self._model = model
        for chooser in (self._first, self._second, self._words):
            chooser.adopt(model)
        pairs = {f"its pairs with patches, {METHODS[name].title}": name for name in pair_methods(model)}
        way, ways = self._way.value, WAYS | pairs
        self._way.options = list(ways.items())
        self._way.value = way if way in ways.values() else "added"

    def _say_error(self, message: str) -> None:
        said = f'<div class="cx-error" role="alert">{html.escape(message)}</div>' if message else ""
        if message:
            self._status.value = ""
            self._stage.add_class("cx-old")
        else:
            self._stage.remove_class("cx-old")
        self._error.value = said
