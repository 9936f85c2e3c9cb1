"""What may pass: a guard looks at each request before anything is computed and at each answer while it streams.

`rule` says what a guardrail is; `docs/guardrails.md` has the built-in ones.
"""

from penstock.guard.make import open_guard
from penstock.guard.protocol import AllowAll, Checked, Guard

__all__ = ["AllowAll", "Checked", "Guard", "open_guard"]
