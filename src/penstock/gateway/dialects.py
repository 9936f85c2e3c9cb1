"""Every dialect that is spoken here."""

from __future__ import annotations

from penstock.gateway.wire.chat import ChatFields, chat_call
from penstock.gateway.wire.chat_answer import ChatShape
from penstock.gateway.wire.collect import Chunks, Whole
from penstock.gateway.wire.completions import CompletionFields, completion_call
from penstock.gateway.wire.dialect import Dialect
from penstock.gateway.wire.embeddings import EMBEDDING_NEUTRAL, EmbeddingFields, WholeEmbeddings, embedding_call
from penstock.gateway.wire.fields import CHAT_NEUTRAL, COMPLETION_NEUTRAL, RESPONSES_NEUTRAL
from penstock.gateway.wire.messages import messages_call
from penstock.gateway.wire.messages_answer import MessageEvents, WholeMessage
from penstock.gateway.wire.messages_fields import MESSAGES_NEUTRAL, MESSAGES_RECORDED, MessagesFields
from penstock.gateway.wire.responses import ResponsesFields, responses_call
from penstock.gateway.wire.responses_writer import ResponseEvents, WholeResponse
from penstock.gateway.wire.text_answer import TextShape

CHAT = Dialect(
    fields=ChatFields,
    neutral=CHAT_NEUTRAL,
    make_call=chat_call,
    whole=lambda call: Whole(call, ChatShape(call)),
    stream=lambda call: Chunks(call, ChatShape(call)),
)
TEXT = Dialect(
    fields=CompletionFields,
    neutral=COMPLETION_NEUTRAL,
    make_call=completion_call,
    whole=lambda call: Whole(call, TextShape(call)),
    stream=lambda call: Chunks(call, TextShape(call)),
)
RESPONSES = Dialect(
    fields=ResponsesFields,
    neutral=RESPONSES_NEUTRAL,
    make_call=responses_call,
    whole=WholeResponse,
    stream=ResponseEvents,
)
MESSAGES = Dialect(
    fields=MessagesFields,
    neutral=MESSAGES_NEUTRAL,
    make_call=messages_call,
    whole=WholeMessage,
    stream=MessageEvents,
    recorded=MESSAGES_RECORDED,
)
EMBEDDINGS = Dialect(
    fields=EmbeddingFields,
    neutral=EMBEDDING_NEUTRAL,
    make_call=embedding_call,
    whole=WholeEmbeddings,
    stream=None,
    recorded=("user",),
)
