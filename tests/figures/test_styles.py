"""Engines are told apart at a glance, whatever colours a reader sees, on both pages."""

from __future__ import annotations

import colorsys
from itertools import combinations

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.colors import to_rgb

from servebench.figures import styles, theme
from servebench.figures.styles import BACKENDS

# Machado, Oliveira and Fernandes (2009): what linear RGB looks like to those who lack one kind of cone.
VISION = {
    "usual": np.eye(3),
    "protanopia": np.array(
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]
    ),
    "deuteranopia": np.array(
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]
    ),
    "tritanopia": np.array(
        [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]]
    ),
}
TO_XYZ = np.array(
    [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
)
WHITE = np.array([0.95047, 1.0, 1.08883])
APART = 25  # CIE 1976 distance; 2.3 is just noticeable. vLLM and SGLang were 16 apart when both were blue


def linear(color: str) -> np.ndarray:
    """sRGB without its gamma. Shape (3,)."""
    parts = np.array(to_rgb(color))
    return np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)


def lab(color: str, vision: str) -> np.ndarray:
    """CIE L*a*b* of a colour as such a reader sees it. Shape (3,)."""
    xyz = TO_XYZ @ np.clip(VISION[vision] @ linear(color), 0, 1) / WHITE
    x, y, z = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


def contrast(a: str, b: str) -> float:
    """WCAG's ratio of luminances."""
    dark, light = sorted(float(TO_XYZ[1] @ linear(color)) for color in (a, b))
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("vision", VISION)
def test_every_two_engines_have_hues_far_apart(vision: str) -> None:
    for a, b in combinations(BACKENDS.values(), 2):
        distance = np.linalg.norm(lab(a.color, vision) - lab(b.color, vision))
        assert distance > APART, f"{a.label} and {b.label}: {distance:.1f}"


def test_every_engine_has_a_marker_of_its_own() -> None:
    looks = [*BACKENDS.values(), styles.ANY_OTHER]
    assert len({style.marker for style in looks}) == len(looks)


@pytest.mark.parametrize("name", ["light", "dark"])
def test_every_engine_stands_out_from_the_page(name: str) -> None:
    with theme.style(name):
        paper = plt.rcParams["axes.facecolor"]
    assert all(contrast(style.color, paper) > 2.5 for style in BACKENDS.values())


def test_variants_keep_hue_and_marker_and_differ_in_fill_and_line() -> None:
    variants = [styles.variant(BACKENDS["vllm"], number) for number in range(20)]
    assert variants[0] == BACKENDS["vllm"] and {style.marker for style in variants} == {"o"}
    hues = [colorsys.rgb_to_hls(*to_rgb(style.color))[0] for style in variants]
    assert max(hues) - min(hues) < 0.01
    assert len({(style.fillstyle, style.linestyle) for style in variants}) == 20
    assert "none" not in {style.fillstyle for style in variants}  # hollow: decides nothing
