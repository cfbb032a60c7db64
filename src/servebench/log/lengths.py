"""How long prompts and answers are: normal around a mean as in the original suite, uniform, fixed, or a scenario.

Scenarios are written as genai-bench has them, with tokens of prompt and answer: `D(100,32)` always these,
`N(480,240)/(300,150)` normal with mean and deviation, `U(50,100)/(200,250)` uniform between two lengths.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import numpy as np  # a load process does without


NUMBER = r"\s*(\d+(?:\.\d+)?)\s*"
PAIR = rf"\({NUMBER},{NUMBER}\)"
SCENARIO = re.compile(rf"([DNU]){PAIR}(?:/{PAIR})?")
MAX_TIMES_MEAN = 10  # no normal answer is longer than so many means


class Lengths(NamedTuple):
    """A distribution of tokens: normal (mean, deviation) or uniform (from a to b); a fixed one is uniform too."""

    normal: bool
    a: float
    b: float

    @property
    def mean(self) -> int:
        return round(self.a if self.normal else (self.a + self.b) / 2)

    @property
    def longest(self) -> int:
        """The longest of a few million draws."""
        return round(self.a + 5 * self.b if self.normal else self.b)

    def draw(self, n: int, longest: int, rng: np.random.Generator) -> np.ndarray:
        """n whole numbers within 1..longest. Shape (n,)."""
        import numpy as np

        if self.normal:
            return np.clip(np.rint(rng.normal(self.a, self.b, n)), 1, longest).astype(int)
        return np.minimum(rng.integers(round(self.a), round(self.b) + 1, size=n), longest)

    @classmethod
    def around(cls, mean: int, share: float, distribution: str) -> Lengths:
        """Of this mean, and standard deviation share * mean: a uniform one reaches sqrt(3) of it to each side."""
        if distribution == "normal":
            return cls(True, mean, share * mean)
        reach = 3**0.5 * share * mean if distribution == "uniform" else 0.0
        return cls(False, max(1, mean - reach), mean + reach)


def parse_scenario(text: str) -> tuple[Lengths, Lengths]:
    """(of prompts, of answers). Raises ValueError."""
    found = SCENARIO.fullmatch(text.strip())
    kind, *numbers = found.groups() if found else ("?",)
    values = [float(number) for number in numbers if number is not None]
    if len(values) != {"D": 2, "N": 4, "U": 4}.get(kind):
        raise ValueError(
            f"--scenario {text} is not a scenario; "
            "write D(100,32), N(480,240)/(300,150) or U(50,100)/(200,250), in quotes"
        )
    if kind == "D":
        values = [values[0], values[0], values[1], values[1]]
    prompt, generated = (Lengths(kind == "N", *values[i : i + 2]) for i in (0, 2))
    if kind != "N" and (prompt.a > prompt.b or generated.a > generated.b):
        raise ValueError(f"--scenario {text}: the minimum is above the maximum; swap them")
    if min(prompt.a, generated.a) < 1:
        raise ValueError(f"--scenario {text}: lengths are at least 1 token")
    return prompt, generated
