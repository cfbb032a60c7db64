"""The styles of curves: a folder's, by its backend or its plot_config.yaml, and variants of it for more curves."""

from __future__ import annotations

from itertools import cycle
from pathlib import Path
from typing import Any

import msgspec
import yaml
from matplotlib.colors import is_color_like, to_hex, to_rgb
from matplotlib.lines import Line2D
from msgspec.structs import asdict, replace

from servebench.errors import InputError
from servebench.log.schema import ENGINE_NAMES


class Style(msgspec.Struct, frozen=True):
    """How a curve is named and drawn. A folder's plot_config.yaml may set each of these fields.

    Its polyfit_degree, which the original suite reads, is ignored: points are joined, not fitted.
    """

    label: str
    color: str
    marker: str = "o"
    fillstyle: str = "full"
    linestyle: str = "-"
    x_max: float = float("inf")  # points beyond are left out of the throughput-latency figure
    y_max: float = float("inf")


# A hue and a marker for each engine. Any two hues are far apart for every kind of colour vision, on both pages
# (tests/figures/test_styles.py), and each stands out from both.
BACKENDS = {
    "fastgen": Style(ENGINE_NAMES["fastgen"], "#bb2a1f", "D"),
    "vllm": Style(ENGINE_NAMES["vllm"], "#1555e0", "o"),
    "llamacpp": Style(ENGINE_NAMES["llamacpp"], "#1daa69", "s"),
    "aml": Style(ENGINE_NAMES["aml"], "#c08af6", "P"),
    "openai": Style(ENGINE_NAMES["openai"], "#ae2288", "v"),
    "sglang": Style(ENGINE_NAMES["sglang"], "#df9312", "^"),
}
ANY_OTHER = Style("", "#7f7f7f", "X")
LINESTYLES = ("-", "--", ":", "-.")
FILLS = ("full", "left", "right", "top", "bottom")  # hollow is kept for points that decide nothing
PALER = (0.0, 0.3, 0.15, 0.4)  # share of white in the colours of one folder's curves
CHECKS = {
    "color": (is_color_like, "is not a colour; give a name or #RRGGBB"),
    "marker": (Line2D.markers.__contains__, "is not a marker of matplotlib; give one like o, s, D, ^"),
    "fillstyle": (FILLS.__contains__, f"is not one of {' '.join(FILLS)}"),
    "linestyle": (LINESTYLES.__contains__, f"is not one of {' '.join(LINESTYLES)}"),
}


def of_folders(folders: list[Path]) -> dict[Path, Style]:
    """A style for every folder, with a colour and a label that no other folder has."""
    names = [folder.name for folder in folders]
    unused = cycle([*(style for name, style in BACKENDS.items() if name not in names), ANY_OTHER])
    styles: dict[Path, Style] = {}
    for i, folder in enumerate(folders):
        if folder.name in names[:i]:
            style = replace(next(unused), label=str(folder))
        else:
            style = BACKENDS.get(folder.name) or replace(next(unused), label=folder.name)
        styles[folder] = _configured(style, folder / "plot_config.yaml")
    return styles


def _configured(style: Style, file: Path) -> Style:
    """The style with what its folder's plot_config.yaml sets. Raises InputError if a value there is wrong."""
    if not file.exists():
        return style
    try:
        given = msgspec.convert(yaml.safe_load(file.read_text()), dict[str, Any])
        style = msgspec.convert(asdict(style) | {k: v for k, v in given.items() if v is not None}, Style)
    except (OSError, yaml.YAMLError, msgspec.ValidationError) as error:
        raise InputError(f"{file}: {' '.join(str(error).split())}; correct it") from error
    for name, (is_valid, advice) in CHECKS.items():
        value = getattr(style, name)
        if not is_valid(value):
            raise InputError(f"{file}: {name} {value!r} {advice}")
    return style


def variant(style: Style, number: int) -> Style:
    """The style of a folder's curve with this number: the same hue and marker, another fill and line."""
    white = PALER[number % len(PALER)]
    red, green, blue = (part + (1 - part) * white for part in to_rgb(style.color))
    first = FILLS.index(style.fillstyle), LINESTYLES.index(style.linestyle)
    return replace(
        style,
        color=to_hex((red, green, blue)) if number else style.color,
        fillstyle=FILLS[(first[0] + number) % len(FILLS)],
        linestyle=LINESTYLES[(first[1] + number) % len(LINESTYLES)],
    )
