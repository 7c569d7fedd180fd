"""`serviceaccounts/token`: a token for an account, perhaps bound to a pod, secret or node. Source: TokenREST."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import orjson

from kapi.authn.tokens import Bound
from kapi.errors import BadRequest, Conflict, InvalidObject
from kapi.registry.kind import Kind
from kapi.registry.options import write_options
from kapi.registry.strategy import Invalid
from kapi.server.context import Context, Reply
from kapi.server.decoding import read_object
from kapi.server.handlers.admit import admit
from kcore.meta.gvk import NODES, PODS, SECRETS, Resource
from kcore.meta.times import format_time

Obj = dict[str, Any]
TOKEN_REQUESTS = Kind(Resource('authentication.k8s.io', 'v1', 'tokenrequests', 'TokenRequest'))
LIFETIME_S = 3_600
LIFETIME_S_MIN = 600
LIFETIME_S_MAX = 1 << 32
_BINDABLE = {('v1', 'Pod'): PODS, ('v1', 'Secret'): SECRETS, ('v1', 'Node'): NODES}


async def token(ctx: Context, kind: Kind) -> Reply:
    """Raises InvalidObject, NotFound, BadRequest, Conflict."""
    options = write_options(ctx.info.query, 'CreateOptions', ctx.user_agent)
    request = await read_object(ctx, kind, options, what=TOKEN_REQUESTS)
    namespace, name = ctx.info.namespace, ctx.info.name
    meta = request['metadata']
    for field, wanted in (('name', name), ('namespace', namespace)):
        if meta.get(field) not in {None, '', wanted}:
            raise BadRequest(f'metadata.{field} of the TokenRequest must be {wanted}')
    account = (await ctx.server.registry.get(kind, namespace, name)).obj
    spec = request.setdefault('spec', {})
    lifetime_s = spec['expirationSeconds'] = spec.get('expirationSeconds') or LIFETIME_S
    _check_lifetime(name, lifetime_s)
    await admit(ctx, kind, TOKEN_REQUESTS.resource, request, options=options)
    spec['audiences'] = spec.get('audiences') or list(ctx.server.tokens.audiences)
    bound = await _bound(ctx, namespace, name, spec.get('boundObjectRef'))
    expires = ctx.server.env.clock.wall() + timedelta(seconds=lifetime_s)
    created = format_time(ctx.server.env.clock.wall())
    request['metadata'] = {'name': name, 'namespace': namespace, 'creationTimestamp': created}
    if options.dry_run:
        request['status'] = {'token': '', 'expirationTimestamp': format_time(expires)}
    else:
        made = ctx.server.tokens.issue(account, spec['audiences'], lifetime_s, bound)
        request['status'] = {'token': made, 'expirationTimestamp': format_time(expires)}
    return Reply(orjson.dumps(request), 201)


def _check_lifetime(name: str, lifetime_s: int) -> None:
    why = ''
    if lifetime_s < LIFETIME_S_MIN:
        why = 'may not specify a duration less than 10 minutes'
    elif lifetime_s > LIFETIME_S_MAX:
        why = 'may not specify a duration larger than 2^32 seconds'
    if why:
        broken = Invalid('spec.expirationSeconds', f'Invalid value: {lifetime_s}: {why}')
        raise InvalidObject('TokenRequest', 'authentication.k8s.io', name, [broken])


async def _bound(ctx: Context, namespace: str, account: str, ref: Obj | None) -> tuple[Bound, ...]:
    """What the token dies with; a pod brings the node that it runs on."""
    if not ref:
        return ()
    kind_name, name, uid = str(ref.get('kind')), str(ref.get('name') or ''), str(ref.get('uid') or '')
    resource = _BINDABLE.get((ref.get('apiVersion') or 'v1', kind_name))
    if resource is None:
        what = f'{ref.get("apiVersion")}, Kind={kind_name}'
        raise BadRequest(f'cannot bind token for serviceaccount "{account}" to object of type {what}')
    kind = ctx.server.catalog.find('', 'v1', resource.plural)
    assert kind is not None, 'pods, secrets and nodes are built in'
    # The account was read a moment ago: what the cache holds since then is new enough for the rest.
    obj = (await ctx.server.registry.get(kind, namespace if resource.namespaced else '', name, any_version=True)).obj
    if uid and obj['metadata']['uid'] != uid:
        why = f'the UID in the bound object reference ({uid}) does not match the UID in record'
        raise Conflict.of(resource, name, f'{why}. The object might have been deleted and then recreated')
    found = Bound(kind_name, name, obj['metadata']['uid'])
    if resource is not PODS:
        return (found,)
    if (obj['spec'].get('serviceAccountName') or 'default') != account:
        why = 'to pod running with different serviceaccount name.'
        raise BadRequest(f'cannot bind token for serviceaccount "{account}" {why}')
    node = _node(ctx, obj)
    return (found, node) if node is not None else (found,)


def _node(ctx: Context, pod: Obj) -> Bound | None:
    name = pod['spec'].get('nodeName')
    entry = ctx.server.cache.peek(f'/registry/nodes/{name}') if name else None
    return Bound('Node', name, entry.obj['metadata']['uid']) if entry is not None else None
