"""Times and ages as Kubernetes writes them."""

from datetime import UTC, datetime

import pytest

from kcore.meta import times

MOMENT = datetime(2026, 1, 2, 3, 4, 5, 67, tzinfo=UTC)


def test_both_formats_have_their_fixed_fractions():
    assert times.format_time(MOMENT) == '2026-01-02T03:04:05Z'
    assert times.format_micro(MOMENT) == '2026-01-02T03:04:05.000067Z'


@pytest.mark.parametrize('text', ['2026-01-02T03:04:05.000067Z', '2026-01-02T05:04:05.000067999+02:00'])
def test_any_fraction_and_offset_is_read(text):
    assert times.parse_time(text) == MOMENT


@pytest.mark.parametrize('text', ['', '2026-01-02', '2026-13-02T03:04:05Z', 'x'])
def test_other_texts_are_no_times(text):
    with pytest.raises(ValueError):  # noqa: PT011 — the message is the parser's or the calendar's
        times.parse_time(text)


@pytest.mark.parametrize(
    ('seconds', 'shown'),
    [
        (-5, '<invalid>'),
        (-1, '0s'),
        (0, '0s'),
        (119, '119s'),
        (120, '2m'),
        (200, '3m20s'),
        (599, '9m59s'),
        (600, '10m'),
        (10799, '179m'),
        (10800, '3h'),
        (10860, '3h1m'),
        (28800, '8h'),
        (172799, '47h'),
        (172800, '2d'),
        (176400, '2d1h'),
        (86400 * 8, '8d'),
        (86400 * 729, '729d'),
        (86400 * 731, '2y1d'),
        (86400 * 365 * 9, '9y'),
    ],
)
def test_ages_get_coarser_with_time(seconds, shown):
    assert times.human_duration(seconds) == shown


def test_an_age_needs_a_timestamp():
    assert times.age(None, MOMENT) == '<unknown>'
    assert times.age('2026-01-02T03:03:05Z', MOMENT) == '60s'
