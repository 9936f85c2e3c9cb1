"""Attacks and innocent look-alikes in many wordings of our own, so that a head learns the manner and not a benchmark's rows."""

from __future__ import annotations

from training.guards.templates.attacks import edit, extraction, jailbreak, override
from training.guards.templates.everyday import letter, task
from training.guards.templates.guarded import guarded
from training.guards.templates.pasted import pasted
from training.guards.templates.traps import innocent

__all__ = ["edit", "extraction", "guarded", "innocent", "jailbreak", "letter", "override", "pasted", "task"]
