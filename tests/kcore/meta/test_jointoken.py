"""Join tokens vouch for the cluster's description."""

from __future__ import annotations

import pytest

from kcore.meta.jointoken import detached_signature, vouched

TOKEN = 'abcdef.0123456789abcdef'


def test_only_the_holder_of_the_token_can_have_signed():
    signature = detached_signature('content', *TOKEN.split('.'))
    assert vouched('content', signature, TOKEN)
    for content, token in (('other', TOKEN), ('content', 'abcdef.0123456789abcdee'), ('content', 'nonsense')):
        assert not vouched(content, signature, token)


@pytest.mark.parametrize('signature', ['', 'eyJhbGciOiJub25lIn0..', 'x'])
def test_no_signature_vouches_for_nothing(signature: str):
    assert not vouched('content', signature, TOKEN)
