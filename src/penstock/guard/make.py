"""From the config to a guard. Each kind of rule is imported when it is asked for."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Mapping
from importlib import import_module
from importlib.metadata import entry_points
from types import MappingProxyType
from typing import cast

from penstock.core.config import GuardSettings, RuleSettings
from penstock.core.errors import ConfigError, closest
from penstock.embed import TextVectors
from penstock.guard.enforced import Enforced
from penstock.guard.protocol import AllowAll, Guard
from penstock.guard.rule import MakeRule, Means
from penstock.guard.rules import RuleGuard

PLUGINS = "penstock.rules"  # the group of entry points

KINDS: Mapping[str, str] = MappingProxyType(
    {
        "grounded": "penstock.guard.grounded:grounded",
        "injection": "penstock.guard.injection:injection",
        "json": "penstock.guard.wellformed:json_rule",
        "length": "penstock.guard.length:length",
        "pii": "penstock.guard.pii:pii",
        "regex": "penstock.guard.regex:regex",
        "topics": "penstock.guard.topics:topics",
        "toxicity": "penstock.guard.toxicity:toxicity",
    }
)


TAKES: Mapping[str, tuple[str, ...]] = MappingProxyType(  # of the settings that belong to some kinds only
    {
        "grounded": ("threshold", "calibration"),  # it says itself that it has no calibration
        "injection": ("threshold", "calibration"),
        "json": (),
        "length": ("max_chars",),
        "pii": ("patterns", "regions"),
        "regex": ("patterns",),
        "topics": ("patterns", "threshold"),
        "toxicity": ("threshold", "calibration"),
    }
)
OF_SOME = ("threshold", "calibration", "patterns", "regions", "max_chars")
NAME = re.compile(r"[\w .:/-]{1,64}")  # a placeholder and a metric carry it


def make_guard(settings: GuardSettings, vectors: Callable[[], TextVectors]) -> Guard:
    """The guard that `settings` describes; `vectors` opens the shared embedding. Raises ConfigError, MissingExtra."""
    rules = [rule for rule in settings.rules if rule.action != "allow" or any(action != "allow" for action in rule.keys.values())]
    names = [rule.name or rule.kind for rule in settings.rules]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise ConfigError(f"two guard.rules are called {twice!r}", hint="give each a `name` of its own")
    if settings.mode == "off" or not rules:
        return AllowAll()
    means = Means(vectors=vectors)
    return RuleGuard([_enforced(rule, means, settings) for rule in rules], settings.hold_chars)


async def open_guard(settings: GuardSettings, vectors: Callable[[], TextVectors]) -> Guard:
    """The same, with everything loaded that the first request would otherwise wait for. May raise whatever a rule raises."""
    guard = await asyncio.to_thread(make_guard, settings, vectors)
    if isinstance(guard, RuleGuard):
        await guard.warm()
    return guard


def _enforced(settings: RuleSettings, means: Means, guard: GuardSettings) -> Enforced:
    _check(settings)
    enforced = Enforced(maker(settings.kind)(settings, means), settings, shadow=guard.mode == "shadow")
    reads = enforced.reads
    if "redact" in (settings.action, *settings.keys.values()) and not reads.cuts:
        message = f"the rule {enforced.name!r} cannot redact: a rule of the kind {settings.kind!r} judges a text as a whole"
        raise ConfigError(message, hint='its actions are "refuse" and "allow"')
    if "output" in enforced.on and reads.unit == "span" and (reads.reach or 0) > guard.hold_chars:
        message = f"the rule {enforced.name!r} looks {reads.reach} characters ahead and guard.hold_chars is {guard.hold_chars}"
        raise ConfigError(message, hint=f'set guard.hold_chars to {reads.reach} or take "output" out of the rule\'s `on`')
    return enforced


def _check(settings: RuleSettings) -> None:
    """Raises ConfigError for a name that cannot be shown, and for settings that the rule would not look at."""
    name = settings.name or settings.kind
    if NAME.fullmatch(name) is None:
        message = f"the rule {name[:80]!r} has a name that cannot stand in a placeholder"
        raise ConfigError(message, hint="up to 64 letters, digits, spaces and . _ : / - go")
    given = [field for field in OF_SOME if getattr(settings, field) not in (None, "", [])]
    takes = TAKES.get(settings.kind, OF_SOME)  # a plugin's are its own matter
    if wrong := next((field for field in given if field not in takes), None):
        hint = f"its own are {', '.join(takes)}" if takes else "take it out"
        raise ConfigError(f"the rule {name!r} takes no {wrong}: it is of the kind {settings.kind!r}", hint=hint)
    if "calibration" in takes and settings.kind in TAKES and not 0 <= (settings.threshold or 0) <= 1:
        raise ConfigError(f"the rule {name!r} has the threshold {settings.threshold:g}; it is from 0 to 1")


def maker(kind: str) -> MakeRule:
    """What makes rules of a kind, built in or a plugin's. Raises ConfigError for one that is unknown."""
    if kind in KINDS:
        module, _, name = KINDS[kind].partition(":")
        return cast(MakeRule, getattr(import_module(module), name))
    plugins = {plugin.name: plugin for plugin in entry_points(group=PLUGINS)}
    if kind not in plugins:
        known = sorted({*KINDS, *plugins})
        near = closest(kind, known)
        hint = f"did you mean {near!r}?" if near else f"known: {', '.join(known)}"
        raise ConfigError(f"guard.rules has the unknown kind {kind!r}", hint=hint)
    return cast(MakeRule, plugins[kind].load())
