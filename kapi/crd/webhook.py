"""Strategy Webhook: another server converts, all objects of a request in one ConversionReview.

Source: apiextensions-apiserver pkg/apiserver/conversion/webhook_converter.go.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import aiohttp
import orjson

from kapi.admission.webhooks.client import shown_url
from kapi.aggregation.endpoints import Backend, EndpointUnknown, Transport
from kapi.crd.conversion import check_converted
from kapi.dialed import said
from kapi.errors import InternalError

Obj = dict[str, Any]

TIMEOUT_S = 30.0
"""Upstream's deadline of one conversion."""
RESPONSE_BYTES_MAX = 64 * 1024 * 1024
"""A larger answer is an error; a list of objects may be large."""
REVIEW_VERSIONS = ('v1', 'v1beta1')


class Webhook:
    """One definition's conversion webhook."""

    def __init__(self, crd: Obj, transport: Transport, new_uid: Callable[[], str]) -> None:
        self._name = crd['metadata']['name']
        webhook = crd['spec']['conversion']['webhook']
        self._shown = shown_url(webhook['clientConfig'], int(TIMEOUT_S))
        self._backend = Backend.of_client_config(webhook['clientConfig'])
        self._version = next((v for v in webhook.get('conversionReviewVersions') or () if v in REVIEW_VERSIONS), 'v1')
        self._transport = transport
        self._new_uid = new_uid

    async def convert(self, objects: Sequence[Obj], api_version: str) -> list[Obj]:
        """Raises InternalError: unreachable, failed, or changed what it must not."""
        pending = [i for i, o in enumerate(objects) if o.get('apiVersion') != api_version]
        result = list(objects)
        if not pending:
            return result
        uid = self._new_uid()
        review = {
            'apiVersion': f'apiextensions.k8s.io/{self._version}',
            'kind': 'ConversionReview',
            'request': {'uid': uid, 'desiredAPIVersion': api_version, 'objects': [objects[i] for i in pending]},
        }
        first = objects[pending[0]]
        what = f'{first.get("apiVersion")}, Kind={first.get("kind")}'
        answer = await self._ask(review, what)
        converted = self._read(answer, uid, len(pending), what)
        for i, after in zip(pending, converted, strict=True):
            result[i] = check_converted(objects[i], after, api_version)
        return result

    async def _ask(self, review: Obj, what: str) -> Any:
        try:
            async with asyncio.timeout(TIMEOUT_S):
                async with self._transport.request(
                    self._backend, 'POST', self._backend.path, data=orjson.dumps(review),
                    headers={'Content-Type': 'application/json', 'Accept': 'application/json'},
                ) as reply:  # fmt: skip
                    body = await reply.content.read(RESPONSE_BYTES_MAX)
                    if reply.status != 200:
                        raise InternalError(self._failed(what, f'the server answered {reply.status}'))
            return orjson.loads(body)
        except TimeoutError as e:
            raise InternalError(self._failed(what, f'Post "{self._shown}": context deadline exceeded')) from e
        except (aiohttp.ClientError, EndpointUnknown, OSError) as e:
            raise InternalError(self._failed(what, f'Post "{self._shown}": {said(e)}')) from e
        except orjson.JSONDecodeError as e:
            raise InternalError(self._failed(what, f'the answer is not JSON: {e}')) from e

    def _failed(self, what: str, why: str) -> str:
        return f'conversion webhook for {what} failed: {why}'

    def _read(self, answer: Any, uid: str, count: int, what: str) -> list[Any]:
        response = answer.get('response') if isinstance(answer, dict) else None
        if not isinstance(response, dict):
            raise InternalError(self._failed(what, 'the response is missing'))
        if response.get('uid') != uid:
            raise InternalError(self._failed(what, f'expected response.uid={uid}, got {response.get("uid")}'))
        result = response.get('result') or {}
        if result.get('status') != 'Success':
            raise InternalError(self._failed(what, result.get('message') or 'unknown reason'))
        converted = response.get('convertedObjects')
        if not isinstance(converted, list) or len(converted) != count:
            got = len(converted) if isinstance(converted, list) else 0
            raise InternalError(self._failed(what, f'expected {count} converted objects, got {got}'))
        return converted
