"""Messages between the hub and the child that runs an isolated plugin: a length of 4 bytes, then JSON."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

LIMIT = 8 << 20  # bytes; a result of 1 MiB, escaped, is the longest message
_SIZE = 4


def pack(message: dict[str, Any]) -> bytes:
    """Raises ValueError for a message beyond the limit, and TypeError for one that is no JSON."""
    data = json.dumps(message, ensure_ascii=False).encode("utf-8", "surrogatepass")
    if len(data) > LIMIT:
        raise ValueError(f"{len(data)} bytes are too many for one message between a plugin and the hub")
    return len(data).to_bytes(_SIZE, "big") + data


class Unpacker:
    """Puts messages together from the pieces in which they arrive."""

    def __init__(self) -> None:
        self._data = bytearray()

    def feed(self, piece: bytes) -> Iterator[dict[str, Any]]:
        """The messages that `piece` completes. Raises ValueError for what cannot be one."""
        self._data += piece
        while len(self._data) >= _SIZE:
            size = int.from_bytes(self._data[:_SIZE], "big")
            if size > LIMIT:
                raise ValueError("no message is so long")
            if len(self._data) < _SIZE + size:
                return
            message = json.loads(self._data[_SIZE : _SIZE + size].decode("utf-8", "surrogatepass"))
            del self._data[: _SIZE + size]
            if not isinstance(message, dict):
                raise ValueError("a message is a JSON object")
            yield message
