"""The cleaner of legacy tokens: looks at all of them once a day."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import NoReturn

import structlog

from kclient.errors import ApiError, Conflict, NotFound
from kclient.model import Obj
from kcontrol.controller import Ctx, loop
from kcontrol.controllers.legacytokens.plan import plan, tracked_long_enough
from kcore.meta.gvk import CONFIGMAPS, PODS, SECRETS, SERVICEACCOUNTS
from kcore.meta.objects import annotations_of, key_of, name_of, namespace_of
from kcore.meta.podrefs import named_in
from kcore.meta.tokensecrets import ACCOUNT, INVALID_SINCE, TRACKING, TYPE, day

log = structlog.get_logger('kcontrol.legacytokens')

NEEDS = SECRETS, SERVICEACCOUNTS, PODS
PERIOD_S = 86_400.0


@loop('legacy-serviceaccount-token-cleaner', needs=NEEDS)
async def run(c: Ctx) -> NoReturn:
    for informer in [c.informer(resource) for resource in NEEDS]:
        await informer.synced()
    while True:
        await sweep(c)
        await asyncio.sleep(PERIOD_S)


async def sweep(c: Ctx) -> None:
    """One pass; what fails is done by the next one."""
    now, period = c.now(), timedelta(seconds=c.config.legacy_service_account_token_clean_up_period_s)
    try:
        tracking = await c.client.get(CONFIGMAPS, TRACKING, 'kube-system')
    except ApiError as e:
        log.warning('it is not known since when uses of tokens are noted', err=str(e))
        return
    if not tracked_long_enough(tracking, now, period):
        return
    for secret in c.list(SECRETS):
        if secret.get('type') != TYPE:
            continue
        account = c.get(SERVICEACCOUNTS, f'{namespace_of(secret)}/{annotations_of(secret).get(ACCOUNT)}')
        match plan(secret, account, _mounted(c, namespace_of(secret)), now, period):
            case 'mark':
                await _mark(c, secret, day(now))
            case 'delete':
                await _delete(c, secret)


def _mounted(c: Ctx, namespace: str) -> set[str]:
    found = (ref for pod in c.in_namespace(PODS, namespace) for ref in named_in(pod.get('spec') or {}, name_of(pod)))
    return {name for resource, name in found if resource == 'secrets'}


async def _mark(c: Ctx, secret: Obj, today: str) -> None:
    log.info('token is invalid from now on: nobody has used it', object=key_of(secret))
    try:
        await c.patch(SECRETS, secret, {'metadata': {'labels': {INVALID_SINCE: today}}}, conditional=False)
    except ApiError as e:
        log.warning('token was not marked', object=key_of(secret), err=str(e))


async def _delete(c: Ctx, secret: Obj) -> None:
    log.info('token is deleted: nobody has used it', object=key_of(secret))
    version = secret['metadata']['resourceVersion']
    try:
        await c.client.delete(SECRETS, name_of(secret), namespace_of(secret), resource_version=version)
    except (NotFound, Conflict):
        return  # gone, or used a moment ago
    except ApiError as e:
        log.warning('token was not deleted', object=key_of(secret), err=str(e))
