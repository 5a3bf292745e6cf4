"""How the explorer looks: its style sheet, its spinner, the small pictures on its buttons.

Below app.py. Colours follow JupyterLab's theme, if there is one.
"""

from collections.abc import Sequence

from PIL import Image, ImageOps

from clip_explain.explorer.view import data_uri

THUMBNAIL = 96  # px
MOST_WORDS = 60  # of a text, whose maps can be shown under the pointer

SPINNER = '<div class="cx-status" role="status"><span class="cx-spinner"></span>computing</div>'

_BASE = """
.cx { --cx-line: var(--jp-border-color2, #ddd); --cx-soft: var(--jp-ui-font-color2, #666); max-width: 1240px; }
.cx .cx-left { flex: 0 0 330px; width: 330px; padding: 0 20px 0 0; overflow: visible; }
.cx .cx-right { flex: 1 1 auto; min-width: 0; overflow: visible; }
.cx .cx-stage { flex-flow: row wrap; gap: 18px; align-items: flex-start; overflow: visible; }
.cx .cx-card { border: 1px solid var(--cx-line); border-radius: 8px; padding: 12px; overflow: visible;
  max-width: 100%; }
.cx .cx-old { opacity: 0.35; }
.cx .widget-html-content, .cx .jupyter-widgets-output-area { overflow: visible; }
.cx .cx-heading { margin: 10px 0 2px 2px; font-size: 13px; }
.cx .cx-head { line-height: 1.35; margin-bottom: 8px; max-width: 336px; }
.cx .cx-head strong { display: block; font-size: 15px; }
.cx .cx-head span, .cx figcaption, .cx .cx-status, .cx .cx-legend { color: var(--cx-soft); font-size: 12px; }
.cx .cx-pair { display: flex; gap: 10px; }
.cx figure { margin: 0; display: grid; }
.cx figure img { width: 250px; max-width: 100%; height: auto; border-radius: 4px; grid-area: 1 / 1;
  visibility: hidden; }
.cx figure img:first-child { visibility: visible; }
.cx figcaption { margin-top: 3px; grid-row: 2; }
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
@media (max-width: 800px) { .cx > .widget-hbox { flex-flow: column; } .cx .cx-left { width: auto; } }
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
