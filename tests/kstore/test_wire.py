"""Frames: what is written comes back whole, and no bytes do harm."""

from __future__ import annotations

import struct
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kstore import wire
from kstore.errors import BY_CODE, Compacted, ProtocolError, from_wire, to_wire


@given(st.lists(st.binary(max_size=300), max_size=8), st.integers(min_value=1, max_value=17))
def test_frames_survive_any_cut_of_the_stream(payloads: list[bytes], step: int):
    stream = b''.join(wire.frame(p) for p in payloads)
    reader = wire.FrameReader()
    received = [p for i in range(0, len(stream), step) for p in reader.feed(stream[i : i + step])]
    assert received == payloads


@given(st.binary(max_size=400))
def test_arbitrary_bytes_raise_protocol_error_or_give_values(data: bytes):
    reader = wire.FrameReader(limit=1000)
    try:
        for payload in reader.feed(data):
            wire.unpack(payload)
    except ProtocolError:
        pass


@given(st.binary(max_size=60))
def test_no_hello_but_our_own_is_accepted(data: bytes):
    with pytest.raises(ProtocolError):
        wire.Hello.decode(data)


def test_a_hello_comes_back_as_it_was():
    hello = wire.Hello(wire.Role.PEER, 99, 3)
    assert wire.Hello.decode(wire.FrameReader().feed(hello.encode())[0]) == hello


def test_a_length_over_the_limit_is_refused_before_its_bytes_arrive():
    reader = wire.FrameReader(limit=100)
    with pytest.raises(ProtocolError, match='over the limit of 100'):
        reader.feed(struct.pack('>I', 101))


def test_a_huge_claimed_array_is_refused():
    with pytest.raises(ProtocolError):
        wire.unpack(b'\xdd\xff\xff\xff\xff')


@pytest.mark.parametrize('what', [b'\xdd', b'\xdf', b'\xdb', b'\xc6', b'\xc9', b'\xdc\xff\xff' * 300 + b'\xdd'])
def test_a_claimed_size_reserves_nothing(what: bytes):
    """Array, map, text, bytes, extension of 4 GiB; arrays in arrays."""
    tracemalloc.start()
    try:
        with pytest.raises(ProtocolError):
            wire.unpack(what + b'\xff\xff\xff\xff')
        reader = wire.FrameReader()
        assert reader.feed(struct.pack('>I', wire.FRAME_BYTES_MAX) + b'x') == []
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


def test_deep_nesting_is_refused():
    with pytest.raises(ProtocolError):
        wire.unpack(b'\x91' * 5000 + b'\x01')


def test_a_reply_glues_a_packed_result():
    (payload,) = wire.FrameReader().feed(wire.reply(70000, wire.success(wire.pack([1, b'x']))))
    assert wire.unpack(payload) == [70000, 0, [1, b'x']]


def test_every_error_survives_the_wire():
    for code, cls in BY_CODE.items():
        error = from_wire(*to_wire(cls('text')))
        assert type(error) is cls
        assert error.code == code
        assert str(error) == 'text'
    compacted = from_wire(*to_wire(Compacted('gone', 42)))
    assert isinstance(compacted, Compacted)
    assert compacted.compact_revision == 42
