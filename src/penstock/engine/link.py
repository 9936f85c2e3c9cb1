"""Messages on a byte stream: each is the number of its bytes, then these, msgpack. The engine's end of such a stream, too.

A plain socket pair needs no thread, no address and no rendezvous: a message is one system call on each side, nobody else can
reach it, and either end learns at once that the other is gone.
"""

from __future__ import annotations

import os
import select
import socket
import struct
from collections import deque

import msgspec

from penstock.engine.messages import FromEngine, ToEngine

_HEAD = struct.Struct("<I")
_READ_BYTES = 1 << 16  # at a time
_ROOM_BYTES = 1 << 20  # asked of the system for what the client has not read yet


class FrameWriter:
    """Encodes messages; what `frame` returns is overwritten by its next call."""

    def __init__(self) -> None:
        self._encoder = msgspec.msgpack.Encoder()
        self._buffer = bytearray()

    def frame(self, message: ToEngine | FromEngine) -> bytearray:
        buffer = self._buffer
        self._encoder.encode_into(message, buffer, _HEAD.size)
        _HEAD.pack_into(buffer, 0, len(buffer) - _HEAD.size)
        return buffer


class FrameReader:
    """Puts messages together again, however their bytes were cut."""

    def __init__(self) -> None:
        self._pending = bytearray()

    def feed(self, data: bytes) -> list[bytes]:
        """The messages that `data` completes."""
        self._pending += data
        pending, messages, begin = self._pending, [], 0
        while begin + _HEAD.size <= len(pending):
            end = begin + _HEAD.size + _HEAD.unpack_from(pending, begin)[0]
            if end > len(pending):
                break
            messages.append(bytes(pending[begin + _HEAD.size : end]))
            begin = end
        del pending[:begin]
        return messages


class EngineLink:
    """The engine's end. Its client is the process `parent`, which holds the other."""

    def __init__(self, connection: socket.socket, parent: int) -> None:
        connection.setblocking(True)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _ROOM_BYTES)
        self._socket = connection
        self._parent = parent
        self._closed = False  # by the other side
        self._poll = select.poll()
        self._poll.register(connection, select.POLLIN)
        self._decoder = msgspec.msgpack.Decoder(ToEngine)
        self._reader, self._writer = FrameReader(), FrameWriter()
        self._received: deque[bytes] = deque()

    def alive(self) -> bool:
        """Whether there is still somebody at the other end."""
        return not self._closed and os.getppid() == self._parent

    def receive(self, timeout_s: float | None) -> ToEngine | None:
        """The next message; None where there is none within `timeout_s`, or nobody is left to send one."""
        while not self._received:
            if not self.alive() or not self._poll.poll(None if timeout_s is None else timeout_s * 1000):
                return None
            data = self._socket.recv(_READ_BYTES)
            self._closed = not data
            self._received += self._reader.feed(data)
        message: ToEngine = self._decoder.decode(self._received.popleft())
        return message

    def emit(self, message: FromEngine) -> None:
        """Send a message; waits while the client has not read what came before."""
        try:
            self._socket.sendall(self._writer.frame(message))
        except (BrokenPipeError, ConnectionResetError):
            self._closed = True

    def close(self) -> None:
        self._socket.close()
