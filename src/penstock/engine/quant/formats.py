"""Names of weight formats, and what they stand for. Does not load torch.

    int8 | int4   bits of a weight
    -g32          inputs of a row that share one scale: g16, g32, g64, g128, or `channel` for the whole row (default: g32)
    -asym         each group has a zero point of its own, instead of codes symmetrical about zero

So `int4` is `int4-g32`, and `int4-g128-asym` is what most GPTQ and AWQ checkpoints hold. In every format the embedding and
the output layer are `HEAD`: they are a large part of a small model's error and, but for the last row of logits, none of its time.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from penstock.core.errors import UserError, closest

DEFAULT_GROUP = 32
GROUPS = (16, 32, 64, 128)
NAMES = tuple(f"int{bits}{group}{asym}" for bits in (8, 4) for group in ("", "-channel", "-g16", "-g64", "-g128") for asym in ("", "-asym"))
_NAME = re.compile(r"int(?P<bits>[48])(-(?P<group>channel|g16|g32|g64|g128))?(?P<asym>-asym)?")


@dataclass(frozen=True, slots=True)
class WeightFormat:
    """Codes of `bits` bits with a float16 scale for each group of inputs, and a zero point where `asymmetrical`."""

    bits: int  # 4 or 8
    group: int | None = DEFAULT_GROUP  # None: the whole row
    asymmetrical: bool = False

    @property
    def name(self) -> str:
        group = {None: "-channel", DEFAULT_GROUP: ""}.get(self.group, f"-g{self.group}")
        return f"int{self.bits}{group}{'-asym' if self.asymmetrical else ''}"

    @property
    def levels(self) -> int:
        """The highest code."""
        return (1 << self.bits) - 1

    def fits(self, cols: int) -> bool:
        """Whether rows of `cols` inputs divide into groups. A matrix whose rows do not stays in float."""
        return self.group is None or cols % self.group == 0


INT8 = WeightFormat(8)
INT4 = WeightFormat(4)
HEAD = INT8  # of embedding and output layer, whatever the layers have


def parse_format(name: str) -> WeightFormat:
    """The format of that name. UserError names what there is."""
    match = _NAME.fullmatch(name)
    if match is None:
        near = closest(name, NAMES)
        raise UserError(
            f"unknown weight format {name!r}",
            hint=(f"did you mean {near!r}? " if near else "")
            + "a format is int8 or int4, then perhaps -channel, -g16, -g32, -g64 or -g128, then perhaps -asym",
        )
    group = match["group"] or f"g{DEFAULT_GROUP}"
    return WeightFormat(int(match["bits"]), None if group == "channel" else int(group[1:]), match["asym"] is not None)
