"""What a container leaves behind as its last words."""

from __future__ import annotations

import os

import pytest

from knode.pods.launch import Paths, termination_message

STAMP = b'2026-01-01T00:00:00.0Z'


@pytest.fixture
def words(tmp_path, make_record):
    """Takes what is in the file and in the log; the message of a container of a pod with so many containers."""
    paths = Paths(tmp_path)
    file, log = paths.termination('c', 0), tmp_path / '0.log'
    file.parent.mkdir(parents=True)

    def say(written: bytes = b'', logged: bytes = b'', *, of: int = 1, policy: str = 'File', code: int = 1) -> str:
        if written:
            file.write_bytes(written)
        log.write_bytes(logged)
        record = make_record(ended=code, log=str(log))
        return termination_message(paths, {'terminationMessagePolicy': policy}, record, of)

    say.file = file
    return say


def test_of_a_long_message_the_end_is_kept(words):
    assert words(b'a' * 5000 + b'b' * 4096) == 'b' * 4096


def test_the_containers_of_a_pod_share_twelve_kibibytes(words):
    assert [len(words(b'x' * 4096, of=n)) for n in (1, 3, 6, 60)] == [4096, 4096, 2048, 204]


LINES = b''.join(b'%s stdout F line %d\n' % (STAMP, n) for n in range(200))
LONG = b''.join(b'%s stdout P %s\n' % (STAMP, b'y' * 16_000) for _ in range(9))


@pytest.mark.parametrize(
    ('logged', 'given', 'expected'),
    [
        (LINES, {}, ''.join(f'line {n}\n' for n in range(120, 200))),
        (LONG, {}, 'y' * 2048),
        (LINES, {'code': 0}, ''),
        (LINES, {'written': b'mine'}, 'mine'),
        (LINES, {'policy': 'File'}, ''),
    ],
    ids=['the last 80 lines', 'the last 2 KiB', 'it ended well', 'it has spoken itself', 'not asked for'],
)
def test_the_end_of_the_log_stands_for_a_message_where_that_is_asked_for(words, logged, given, expected):
    assert words(logged=logged, **{'policy': 'FallbackToLogsOnError', **given}) == expected


@pytest.mark.parametrize('put', [os.mkfifo, os.mkdir, lambda path: path.symlink_to('/etc/passwd')])
def test_what_is_no_file_is_no_message_and_holds_nobody_up(words, put):
    put(words.file)
    assert words() == ''
