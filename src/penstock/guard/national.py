"""Numbers that one country gives its people, such as `UK_NHS` or `ES_NIF`: by Presidio's recognisers, with a spaCy model of no language.

Only patterns and check digits are used, with the words around them; none of Presidio's recognisers that need a model of language.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, cast

from penstock.core.errors import ConfigError, closest, missing_extra
from penstock.guard.spans import Found

LEAST = 0.4  # Presidio's score of a shape with a check, or of a shape alone with a word beside it that speaks for it


class Presidio:
    """Finds `kinds`, by Presidio's names. Raises `ConfigError` for one that it has no pattern for, `MissingExtra`.

    The import takes seconds, and is done here.
    """

    def __init__(self, kinds: Sequence[str]) -> None:
        try:
            import spacy
            from presidio_analyzer.context_aware_enhancers import LemmaContextAwareEnhancer
            from presidio_analyzer.nlp_engine import SpacyNlpEngine
        except ImportError as error:
            raise missing_extra("finding national numbers", "guard") from error
        self._recognisers = _recognisers(kinds)
        self._words = SpacyNlpEngine()
        self._words.nlp = {"en": spacy.blank("en")}  # type: ignore[assignment]  # what load() would do, without a download
        self._enhancer = LemmaContextAwareEnhancer()
        self._kinds = list(kinds)

    def __call__(self, text: str) -> Iterator[Found]:
        found = [result for recogniser in self._recognisers for result in recogniser.analyze(text, self._kinds, None)]
        if not found:
            return
        artifacts = self._words.process_text(text, "en")
        for result in self._enhancer.enhance_using_context(text, found, artifacts, self._recognisers):
            if result.score >= LEAST:
                yield Found(result.start, result.end, result.entity_type, min(1.0, result.score))


def _recognisers(kinds: Iterable[str]) -> list[Any]:
    from presidio_analyzer import PatternRecognizer, predefined_recognizers

    known: dict[str, list[Any]] = {}
    for thing in vars(predefined_recognizers).values():
        if isinstance(thing, type) and issubclass(thing, PatternRecognizer) and thing is not PatternRecognizer:
            recogniser = cast(Callable[[], Any], thing)()
            for kind in recogniser.supported_entities:
                known.setdefault(kind, []).append(recogniser)
    for kind in kinds:
        if kind not in known:
            near = closest(kind, known)
            raise ConfigError(
                f"the rule 'pii' cannot find {kind!r}", hint=f"did you mean {near!r}?" if near else "Presidio has no pattern for it"
            )
    return [recogniser for kind in kinds for recogniser in known[kind]]
