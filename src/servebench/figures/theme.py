"""Light and dark: the style sheets of every figure, and SVG that follows its reader's choice."""

from __future__ import annotations

import re
from collections.abc import Iterable
from contextlib import AbstractContextManager
from pathlib import Path

import matplotlib

matplotlib.use("Agg")  # figures are files; no window is ever opened

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.colors import to_hex, to_rgb

THEMES = ("light", "dark", "auto")
LIGHT, DARK = (Path(__file__).with_name(f"servebench{name}.mplstyle") for name in ("", "-dark"))


def style(theme: str) -> AbstractContextManager[None]:
    """Figures made within have this theme; auto is drawn light."""
    return plt.style.context([str(sheet) for sheet in ((LIGHT, DARK) if theme == "dark" else (LIGHT,))])


def readable(color: str, words: str) -> str:
    """A colour for words: half way from that of their curve to that of all words."""
    return to_hex(tuple((np.array(to_rgb(color)) + to_rgb(words)) / 2))


def follow_reader(svg: str, curves: Iterable[str] = ()) -> str:
    """A light SVG with its theme's colours as variables, which change where the reader prefers dark; also those of
    words beside curves of these colours."""
    light, dark = (matplotlib.rc_params_from_file(file, use_default_template=False) for file in (LIGHT, DARK))
    pairs = {to_hex(light[name]): to_hex(dark[name]) for name in dark}
    words = to_hex(light["text.color"]), to_hex(dark["text.color"])
    pairs |= {readable(color, words[0]): readable(color, words[1]) for color in curves}
    names = {color: f"--c{color[1:]}" for color in pairs}
    svg = re.sub("|".join(pairs), lambda found: f"var({names[found[0]]})", svg)
    day = "".join(f"{names[color]}:{color};" for color in pairs)
    night = "".join(f"{names[color]}:{other};" for color, other in pairs.items())
    rules = f":root{{{day}}}@media(prefers-color-scheme:dark){{:root{{{night}}}}}"
    return svg.replace('<style type="text/css">', f'<style type="text/css">{rules}', 1)
