"""How others verify our service account tokens: the OpenID discovery document and the key set. Public halves only."""

from __future__ import annotations

import orjson

from kapi.authn.tokens import Tokens
from kapi.server.context import Reply

DISCOVERY, KEYS = '/.well-known/openid-configuration', '/openid/v1/jwks'
PATHS = frozenset({DISCOVERY, KEYS})


def document(path: str, tokens: Tokens) -> Reply:
    verifiers = tokens.keys.verifiers.values()
    headers = {'Cache-Control': 'public, max-age=3600'}
    if path == KEYS:
        body = orjson.dumps({'keys': [v.jwk() for v in verifiers]})
        return Reply(body, content_type='application/jwk-set+json', headers=headers)
    about = {
        'issuer': tokens.issuer,
        'jwks_uri': f'{tokens.issuer}{KEYS}',
        'response_types_supported': ['id_token'],
        'subject_types_supported': ['public'],
        'id_token_signing_alg_values_supported': sorted({v.algorithm for v in verifiers}),
    }
    return Reply(orjson.dumps(about), headers=headers)
