"""SPDY framing and exit statuses."""

from __future__ import annotations

import zlib

import pytest

from knode.streams.remote import exit_status
from knode.streams.spdy import DATA, DICTIONARY, PING, SYN_STREAM, Spdy, SpdyError, control, data_frame


def test_the_dictionary_is_the_one_of_the_draft():
    assert (len(DICTIONARY), zlib.adler32(DICTIONARY)) == (1423, 0xE3C6A7C2)


def test_frames_survive_any_cut_of_the_byte_stream():
    sender, receiver = Spdy(), Spdy()
    wire = sender.syn(SYN_STREAM, 1, {'streamtype': 'error', 'port': '80'})
    wire += sender.syn(SYN_STREAM, 3, {'streamtype': 'data', 'port': '80'}) + data_frame(3, b'hello', fin=True)
    wire += control(PING, 0, b'\0\0\0\1')
    frames = [f for n in range(len(wire)) for f in receiver.receive(wire[n : n + 1])]
    assert [(f.kind, f.stream) for f in frames] == [(SYN_STREAM, 1), (SYN_STREAM, 3), (DATA, 3), (PING, 1)]
    assert frames[1].headers == {'streamtype': 'data', 'port': '80'}
    assert (frames[2].data, frames[2].fin) == (b'hello', True)


@pytest.mark.parametrize(
    'wire', [b'\x80\x03\x00\x01\x00\x00\x00\x0e' + b'\xff' * 14, b'\x00\x00\x00\x01\x00\xff\xff\xff']
)
def test_garbage_is_a_protocol_error(wire):
    with pytest.raises(SpdyError):
        list(Spdy().receive(wire))


def test_an_exit_code_becomes_the_status_that_kubectl_reads():
    assert exit_status(0)['status'] == 'Success'
    assert exit_status(3)['details'] == {'causes': [{'reason': 'ExitCode', 'message': '3'}]}
