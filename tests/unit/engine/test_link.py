"""What the engine and its client say to each other arrives whole, however a stream of bytes is cut."""

from __future__ import annotations

import os
import random
import socket
import threading

import msgspec

from penstock.core.types import Sampling
from penstock.engine.link import EngineLink, FrameReader, FrameWriter
from penstock.engine.messages import Abort, FromEngine, Job, Loading, Stop, Submit


def submission(name: str, num_tokens: int) -> Submit:
    return Submit(jobs=(Job(id=name, prompt=tuple(range(num_tokens)), sampling=Sampling(max_tokens=1)),))


def test_messages_arrive_whole_and_in_order_however_their_bytes_are_cut() -> None:
    sent = [submission("a", 3), Abort(ids=()), submission("b", 50_000), Stop(), submission("c", 0)]
    writer = FrameWriter()
    stream = b"".join(bytes(writer.frame(message)) for message in sent)
    decoder = msgspec.msgpack.Decoder(Submit | Abort | Stop)
    for seed in range(20):
        rng, reader, begin = random.Random(seed), FrameReader(), 0
        received = []
        while begin < len(stream):
            end = begin + rng.choice([1, 2, 5, 1_000, 100_000])
            received += [decoder.decode(message) for message in reader.feed(stream[begin:end])]
            begin = end
        assert received == sent


def test_an_engine_hears_what_was_sent_before_its_client_left_and_then_that_it_left() -> None:
    ours, theirs = socket.socketpair()
    link = EngineLink(theirs, os.getppid())
    ours.sendall(FrameWriter().frame(Abort(ids=("a",))))
    ours.close()
    assert link.receive(0.0) == Abort(ids=("a",))
    assert link.alive()
    assert link.receive(None) is None
    assert not link.alive()
    link.emit(Loading(stage="weights", done=1, total=2))  # to nobody
    link.close()


def test_a_client_that_reads_late_gets_everything() -> None:
    ours, theirs = socket.socketpair()
    link = EngineLink(theirs, os.getppid())
    stages = [Loading(stage="x" * 1_000, done=number, total=5_000) for number in range(5_000)]
    engine = threading.Thread(target=lambda: [link.emit(stage) for stage in stages])
    engine.start()
    reader, decoder, received = FrameReader(), msgspec.msgpack.Decoder(FromEngine), []
    while len(received) < len(stages):
        received += [decoder.decode(message) for message in reader.feed(ours.recv(65_536))]
    engine.join()
    assert received == stages
    link.close()
    ours.close()
