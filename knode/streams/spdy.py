"""SPDY/3.1 framing, as much as Kubernetes clients speak. Sans-IO: bytes in, frames out.

Source: the SPDY Protocol, draft 3.1, §2; the compression dictionary is its §2.6.10.1.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

SYN_STREAM, SYN_REPLY, RST_STREAM, PING, GOAWAY = 1, 2, 3, 6, 7
DATA = 0
FIN = 1
FRAME_BYTES_MAX = 1 << 20
"""Longest frame taken; a longer one ends the connection."""
HEADER_BYTES_MAX = 1 << 16
"""Longest header block after inflation."""

_WORDS = """options head post put delete trace accept accept-charset accept-encoding accept-language accept-ranges age
allow authorization cache-control connection content-base content-encoding content-language content-length
content-location content-md5 content-range content-type date etag expect expires from host if-match if-modified-since
if-none-match if-range if-unmodified-since last-modified location max-forwards pragma proxy-authenticate
proxy-authorization range referer retry-after server te trailer transfer-encoding upgrade user-agent vary via warning
www-authenticate method get status 200_OK version HTTP/1.1 url public set-cookie keep-alive origin"""
_TAIL = (
    '100101201202205206300302303304305306307402405406407408409410411412413414415416417502504505'
    '203 Non-Authoritative Information204 No Content301 Moved Permanently400 Bad Request401 Unauthorized403 Forbidden'
    '404 Not Found500 Internal Server Error501 Not Implemented503 Service Unavailable'
    'Jan Feb Mar Apr May Jun Jul Aug Sept Oct Nov Dec 00:00:00 Mon, Tue, Wed, Thu, Fri, Sat, Sun, GMT'
    'chunked,text/html,image/png,image/jpg,image/gif,application/xml,application/xhtml+xml,text/plain,text/javascript,'
    'publicprivatemax-age=gzip,deflate,sdchcharset=utf-8charset=iso-8859-1,utf-,*,enq=0.'
)
DICTIONARY = b''.join(struct.pack('>I', len(w)) + w.replace('_', ' ').encode() for w in _WORDS.split()) + _TAIL.encode()


class SpdyError(Exception):
    """The other side broke the protocol."""


@dataclass(frozen=True, slots=True)
class Frame:
    kind: int
    stream: int
    """Stream id; a ping's id for PING."""
    flags: int = 0
    data: bytes = b''
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def fin(self) -> bool:
        return bool(self.flags & FIN)


class Spdy:
    """One connection's framing; header compression has one context in each direction."""

    def __init__(self) -> None:
        self._inflate = zlib.decompressobj(zdict=DICTIONARY)
        self._deflate = zlib.compressobj(zdict=DICTIONARY)
        self._rest = b''

    def receive(self, data: bytes) -> Iterator[Frame]:
        """Complete frames. Raises SpdyError."""
        data, at = self._rest + data, 0
        while len(data) - at >= 8:
            first, second = struct.unpack_from('>II', data, at)
            flags, length = second >> 24, second & 0xFFFFFF
            if length > FRAME_BYTES_MAX:
                raise SpdyError('frame is too long')
            if len(data) - at < 8 + length:
                break
            payload = data[at + 8 : at + 8 + length]
            at += 8 + length
            if not first >> 31:
                yield Frame(DATA, first, flags, payload)
            else:
                yield self._control(first & 0xFFFF, flags, payload)
        self._rest = data[at:]

    def _control(self, kind: int, flags: int, payload: bytes) -> Frame:
        if len(payload) < 4:
            return Frame(kind, 0, flags)
        (stream,) = struct.unpack('>I', payload[:4])
        if kind == SYN_STREAM:
            return Frame(kind, stream & 0x7FFFFFFF, flags, headers=self._headers(payload[10:]))
        if kind == SYN_REPLY:
            return Frame(kind, stream & 0x7FFFFFFF, flags, headers=self._headers(payload[4:]))
        return Frame(kind, stream, flags, payload[4:])

    def _headers(self, block: bytes) -> dict[str, str]:
        try:
            raw = self._inflate.decompress(block, HEADER_BYTES_MAX)
            if self._inflate.unconsumed_tail:
                raise SpdyError('headers are too long')
            (count,) = struct.unpack_from('>I', raw)
            found, at = {}, 4
            for _ in range(count):
                parts = []
                for _ in range(2):
                    (length,) = struct.unpack_from('>I', raw, at)
                    parts.append(raw[at + 4 : at + 4 + length].decode())
                    at += 4 + length
                found[parts[0].lower()] = parts[1]
        except (zlib.error, struct.error, UnicodeDecodeError) as e:
            raise SpdyError(f'broken headers: {e}') from e
        return found

    def syn(self, kind: int, stream: int, headers: Mapping[str, str]) -> bytes:
        """SYN_STREAM or SYN_REPLY."""
        pairs = b''.join(_text(k) + _text(v) for k, v in headers.items())
        block = self._deflate.compress(struct.pack('>I', len(headers)) + pairs)
        block += self._deflate.flush(zlib.Z_SYNC_FLUSH)
        head = struct.pack('>I', stream) + (struct.pack('>IH', 0, 0) if kind == SYN_STREAM else b'')
        return control(kind, 0, head + block)


def _text(value: str) -> bytes:
    raw = value.encode()
    return struct.pack('>I', len(raw)) + raw


def control(kind: int, flags: int, payload: bytes) -> bytes:
    return struct.pack('>II', 0x80030000 | kind, flags << 24 | len(payload)) + payload


def data_frame(stream: int, data: bytes, *, fin: bool = False) -> bytes:
    return struct.pack('>II', stream, (FIN if fin else 0) << 24 | len(data)) + data
