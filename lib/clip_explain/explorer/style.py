"""How the explorer looks: its style sheet, its spinner, the small pictures on its buttons.

Below app.py. Colours follow JupyterLab's theme, if there is one.
"""

from collections.abc import Sequence

from PIL import Image, ImageOps

from clip_explain.explorer.pictures import data_uri

THUMBNAIL = 96  # px
MOST_WORDS = 60  # of a text, whose maps can be shown under the pointer

# A slider for how strongly the maps are laid over the image.
_FADE = "this.closest('.cx').style.setProperty('--cx-opacity', this.value)"
OPACITY = f'<label>opacity <input type="range" min="0" max="1" step="0.05" value="1" oninput="{_FADE}"></label>'

# A field onto which an image is dropped. It hands the files to the upload button, which asks for a file by clicking an
# input of its own.
_DROPPED = """
event.preventDefault();
const files = event.dataTransfer.files, click = HTMLInputElement.prototype.click;
HTMLInputElement.prototype.click = function () { this.files = files; this.dispatchEvent(new Event('change')); };
this.closest('.cx-upload').querySelector('button').click();
HTMLInputElement.prototype.click = click;
"""
DROP = f'<div class="cx-drop" ondragover="event.preventDefault()" ondrop="{_DROPPED}">or drop an image here</div>'

_BASE = """
.cx { --cx-line: var(--jp-border-color2, #ddd); --cx-soft: var(--jp-ui-font-color2, #666); --cx-opacity: 1;
  max-width: 1240px; }
.cx .cx-body { display: grid; grid-template: auto 1fr / 330px minmax(0, 1fr); gap: 8px 22px; overflow: visible;
  grid-template-areas: "given found" "chosen found"; }
.cx .cx-given { grid-area: given; overflow: visible; }
.cx .cx-chosen { grid-area: chosen; overflow: visible; }
.cx .cx-found { grid-area: found; overflow: visible; }
.cx .cx-upload > * { flex: 1 1 0; }
.cx .cx-drop { border: 1px dashed var(--cx-line); border-radius: 4px; text-align: center; color: var(--cx-soft);
  font-size: 12px; line-height: 26px; height: 26px; }
.cx .cx-look { flex-flow: row wrap; column-gap: 18px; align-items: center; margin: 0 0 8px 0; }
.cx .cx-legend { display: flex; flex-wrap: wrap; column-gap: 18px; }
.cx .cx-legend span, .cx .cx-look label { display: flex; align-items: center; gap: 6px; white-space: nowrap; }
.cx .cx-look input { width: 90px; }
.cx .cx-strip { width: 90px; height: 10px; border-radius: 2px; border: 1px solid var(--cx-line); }
.cx .cx-stage { flex-flow: row wrap; gap: 18px; align-items: flex-start; overflow: visible; }
.cx .cx-card { border: 1px solid var(--cx-line); border-radius: 8px; padding: 12px; overflow: visible;
  max-width: 100%; }
.cx .cx-old { opacity: 0.35; }
.cx .widget-html-content, .cx .jupyter-widgets-output-area { overflow: visible; }
.cx .cx-head { line-height: 1.35; margin-bottom: 8px; max-width: 336px; }
.cx .cx-head strong { display: block; font-size: 15px; }
.cx .cx-head span, .cx figcaption, .cx .cx-status, .cx .cx-look { color: var(--cx-soft); font-size: 12px; }
.cx .cx-pair { display: flex; gap: 10px; }
.cx figure { margin: 0; width: 250px; max-width: 100%; }
.cx figure img { width: 100%; height: auto; border-radius: 4px; display: block; }
.cx .cx-map { display: grid; background-size: 100% 100%; border-radius: 4px; overflow: hidden; }
.cx .cx-map img { grid-area: 1 / 1; visibility: hidden; opacity: var(--cx-opacity); }
.cx .cx-map img:first-child { visibility: visible; }
.cx figcaption { margin-top: 3px; }
.cx figcaption a { color: inherit; text-decoration: underline; margin-left: 4px; }
.cx .cx-words { max-width: 262px; margin: 2px 0 0 0; }
.cx .cx-card:has(figure + figure) .cx-words { max-width: 520px; }
.cx .cx-words button { width: auto; min-width: 0; height: 28px; line-height: 26px; padding: 0 7px;
  margin: 2px 3px 2px 0; border-radius: 4px; border: 1px solid transparent; box-shadow: none; }
.cx .cx-words button.mod-active { border: 1px solid currentColor; box-shadow: none; }
.cx button:focus-visible, .cx :focus-visible { outline: 2px solid #0072B2 !important; outline-offset: 1px; }
.cx .cx-thumbs { width: auto; margin: 0; }
.cx .cx-thumbs button { width: 96px; height: 96px; margin: 3px; padding: 0; border-radius: 6px; background-size: cover;
  color: transparent; font-size: 1px; }
.cx .cx-thumbs button.mod-active { outline: 3px solid #0072B2; outline-offset: 1px; box-shadow: none; }
.cx .cx-evidence { margin: 6px 0; }
.cx .cx-evidence button { width: 97px; }
.cx .cx-status { min-height: 20px; }
.cx .cx-spinner { display: inline-block; width: 11px; height: 11px; margin-right: 7px; border-radius: 50%;
  border: 2px solid var(--cx-line); border-top-color: #0072B2; animation: cx-turn 0.8s linear infinite; }
@keyframes cx-turn { to { transform: rotate(360deg); } }
@media (prefers-reduced-motion: reduce) { .cx .cx-spinner { animation: none; } }
.cx .cx-warning { border-left: 4px solid #E69F00; padding: 6px 10px; margin: 0 0 12px 0; line-height: 1.4;
  white-space: normal; }
.cx .cx-error { border-left: 4px solid #D55E00; padding: 6px 10px; margin: 0 0 12px 0; line-height: 1.4;
  white-space: normal; }
.cx pre { font-size: 11px; line-height: 1.45; white-space: pre-wrap; overflow-wrap: anywhere; margin: 8px 0 0 0; }
.cx .cx-copy { margin-top: 8px; }
.cx .cx-says { color: var(--cx-soft); font-size: 12px; line-height: 1.35; white-space: normal; margin: 0 0 4px 88px; }
.cx .cx-offers { flex-flow: row wrap; margin-left: 86px; }
.cx .cx-offers button { width: auto; height: 26px; line-height: 24px; padding: 0 8px; font-size: 12px; }
@media (max-width: 820px) {
  .cx .cx-body { grid-template: auto / minmax(0, 1fr); grid-template-areas: "given" "found" "chosen"; }
  .cx .cx-bare { display: none; }
  .cx .cx-thumbs button { width: 50px; height: 50px; margin: 2px; }
}
"""


def _hover(place: int) -> str:
    """CSS that shows a button's map while the pointer or the focus is on it; the first map is the pinned one."""
    button, image = f".cx-words button:nth-of-type({place})", f"img:nth-child({place + 1})"
    rules = ""
    for card in (f":has({button}:hover)", f":has({button}:focus-visible):not(:has(.cx-words button:hover))"):
        figure = f".cx .cx-card{card} figure:has({image})"
        rules += f"{figure} img {{ visibility: hidden; }}\n{figure} {image} {{ visibility: visible; }}\n"
    return rules


CSS = _BASE + "".join(_hover(place) for place in range(1, MOST_WORDS + 2))


def thumbnails(scope: str, images: Sequence[Image.Image]) -> str:
    """CSS that puts small pictures on the buttons that choose an image."""
    small = [ImageOps.fit(image, (THUMBNAIL, THUMBNAIL)) for image in images]
    return "".join(
        f"{scope} .cx-thumbs button:nth-of-type({place}) {{ background-image: url({data_uri(image)}); }}\n"
        for place, image in enumerate(small, 1)
    )
