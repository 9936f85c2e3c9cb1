"""What may change an answer, and so who may share one.

A request has two digests. Its `key` is over everything that could change the answer, and over whose it is. Its `scope` is over the
same without the text of the last user turn: only within one scope are two texts ever compared by meaning. A scope is a hard
partition, so that nothing in it is left to a similarity: tenant, model and the models that the key may use, system prompt, tools,
tool choice, response format, sampling, options, earlier turns, the encoder, and the operator's version of it all, `cache.policy`.
"""

from __future__ import annotations

import hashlib

import msgspec
from msgspec.structs import replace

from penstock.core.errors import Bug
from penstock.core.types import Principal, Request, Sampling

GREEDY = Sampling(temperature=0.0)
DIGEST_BYTES = 32
_PLAIN = msgspec.msgpack.Encoder(order="sorted")  # dicts that are equal are written alike


def key_of(request: Request, policy: str) -> bytes:
    """Of everything that could change the answer, under this version of the policy."""
    return _digest(b"key", (policy, _bare(request)))


def scope_of(request: Request, policy: str, encoder: str) -> bytes:
    """The same without the last turn's text, for the vectors of this encoder (its digest). Raises Bug where there is no turn."""
    if not request.messages:
        raise Bug("only a chat has a last turn")
    turns = (*request.messages[:-1], replace(request.messages[-1], content=""))
    return _digest(b"scope", (policy, encoder, replace(_bare(request), messages=turns)))


def last_user_text(request: Request) -> str | None:
    """What a chat's user says last, where that is the end of it and not blank."""
    if not request.messages or request.messages[-1].role != "user" or request.continue_final_message:
        return None
    return request.messages[-1].content if request.messages[-1].content.strip() else None


def repeats(request: Request) -> bool:
    """Whether asking again could not give another answer."""
    return request.inputs is not None or request.sampling.temperature == 0.0 or request.sampling.seed is not None


def _bare(request: Request) -> Request:
    """All but what cannot change the answer: who exactly asks, under which id, how urgently, in how many pieces, how the cache is used."""
    sampling = request.sampling
    if request.inputs is not None:
        sampling = GREEDY
    elif sampling.temperature == 0.0:  # no chance is involved
        sampling = replace(sampling, seed=None, top_k=None, top_p=1.0, min_p=0.0)
    return replace(
        request,
        id="",
        principal=Principal(models=request.principal.models),
        priority=0,
        deadline_s=None,
        streams=True,
        sampling=sampling,
        options=replace(request.options, cache=None),
    )


def _digest(purpose: bytes, value: object) -> bytes:
    return hashlib.blake2b(_PLAIN.encode(value), digest_size=DIGEST_BYTES, person=purpose).digest()
