"""Topics that are not to be talked about: by their words, and by what a sentence is about."""

from __future__ import annotations

import re

import numpy as np

from penstock.core.config import RuleSettings
from penstock.core.errors import ConfigError
from penstock.embed import TextVectors
from penstock.guard.rule import Means, Opinion, Reads, Text
from penstock.guard.sentences import sentences

THRESHOLD = 0.5  # cosine; nobody's measurement: topics are yours, so measure with `dry_run`
MOST_SENTENCES = 64  # of one text; what comes after them is compared as one


class Topics:
    """Objects to a text of which a sentence is about one of `topics`, or names it.

    A topic is a few words ("weapons", "medical advice"). It is named by its very words; a sentence is about it when the cosine of their
    embeddings is at least `threshold`.
    """

    def __init__(self, topics: list[str], threshold: float, vectors: TextVectors) -> None:
        self._topics = topics
        self._threshold = threshold
        self._vectors = vectors
        self._named = re.compile("|".join(rf"(?<!\w){re.escape(topic)}(?!\w)" for topic in topics), re.IGNORECASE)
        self.reads = Reads(where=("input",), roles=("user",), parts=("text",), unit="sentence", cuts=False)

    async def judge(self, text: Text) -> Opinion:
        if (match := self._named.search(text.text)) is not None:
            topic = next(topic for topic in self._topics if topic.lower() == match[0].lower())
            return Opinion(why=f"it names the topic {topic!r}", score=1.0)
        stretches = [text.text[start:end].strip() for start, end in sentences(text.text)]
        asked = [stretch for stretch in stretches if stretch]
        if not asked:
            return Opinion()
        if len(asked) > MOST_SENTENCES:
            asked = [*asked[: MOST_SENTENCES - 1], " ".join(asked[MOST_SENTENCES - 1 :])]
        vectors = await self._vectors.of([*self._topics, *asked])
        alike = vectors[len(self._topics) :] @ vectors[: len(self._topics)].T  # [sentences, topics]
        best = np.unravel_index(int(np.argmax(alike)), alike.shape)
        score = float(alike[best])
        if score < self._threshold:
            return Opinion(score=score)
        return Opinion(why=f"it is about the topic {self._topics[int(best[1])]!r}", score=score)


def topics(settings: RuleSettings, means: Means) -> Topics:
    """The rule `kind = "topics"`."""
    if not settings.patterns or not all(topic.strip() for topic in settings.patterns):
        raise ConfigError(f"the rule {settings.name or settings.kind!r} names no topics", hint='write patterns = ["weapons", …]')
    threshold = THRESHOLD if settings.threshold is None else settings.threshold
    if not -1 <= threshold <= 1:
        raise ConfigError(f"the rule {settings.name or settings.kind!r} has the threshold {threshold}; a cosine is from -1 to 1")
    return Topics([topic.strip() for topic in settings.patterns], threshold, means.vectors())
