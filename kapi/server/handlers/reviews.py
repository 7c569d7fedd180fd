"""Resources that are questions: access reviews and `SelfSubjectReview`. POST in, the answer in `status`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import orjson

from kapi.authn.tokens import BadToken
from kapi.authn.user import User
from kapi.authz.rbac import Rule
from kapi.authz.union import Attributes
from kapi.errors import BadRequest, InvalidObject, NotAcceptable
from kapi.registry.kind import Kind
from kapi.registry.options import write_options
from kapi.server.context import Context, Reply
from kapi.server.decoding import read_object
from kapi.server.negotiation import ACCEPTED
from kcore.meta.times import format_time

Obj = dict[str, Any]


def attributes_of(spec: Obj, user: User) -> Attributes:
    """The question of a review. Raises InvalidObject unless it names exactly one of resource and path."""
    resource, path = spec.get('resourceAttributes'), spec.get('nonResourceAttributes')
    if (resource is None) == (path is None):
        why = 'Invalid value: exactly one of nonResourceAttributes or resourceAttributes must be specified'
        raise InvalidObject.single('SubjectAccessReview', 'authorization.k8s.io', 'spec', why, 'FieldValueInvalid')
    if path is not None:
        return Attributes(user, path.get('verb') or '', path=path.get('path') or '')
    assert resource is not None

    def at(field: str) -> str:
        return str(resource.get(field) or '')

    return Attributes(
        user, at('verb'), at('group'), at('version'), at('resource'), at('subresource'), at('namespace'), at('name')
    )


async def _answer(ctx: Context, review: Obj, user: User) -> Reply:
    decision = await ctx.server.authz.decide(attributes_of(review.get('spec') or {}, user))
    status: Obj = {'allowed': decision.verdict == 'allow'}
    if decision.verdict == 'deny':
        status['denied'] = True
    if decision.reason:
        status['reason'] = decision.reason
    review['status'] = status
    return Reply(orjson.dumps(review), 201)


async def self_access(ctx: Context, review: Obj) -> Reply:
    return await _answer(ctx, review, ctx.user)


async def access(ctx: Context, review: Obj) -> Reply:
    """Also the local form, whose namespace must be the URL's."""
    spec = review.get('spec') or {}
    local = ctx.info.plural == 'localsubjectaccessreviews'
    if local and (spec.get('resourceAttributes') or {}).get('namespace') != ctx.info.namespace:
        raise BadRequest(f'spec.resourceAttributes.namespace must match namespace: {ctx.info.namespace}')
    if not spec.get('user') and not spec.get('groups'):
        why = 'Invalid value: at least one of user or group must be specified'
        raise InvalidObject.single('SubjectAccessReview', 'authorization.k8s.io', 'spec.user', why, 'FieldValueInvalid')
    extra = {str(k): tuple(map(str, v)) for k, v in (spec.get('extra') or {}).items()}
    user = User(spec.get('user') or '', tuple(spec.get('groups') or ()), spec.get('uid') or '', extra)
    return await _answer(ctx, review, user)


async def self_rules(ctx: Context, review: Obj) -> Reply:
    """`kubectl auth can-i --list`: what RBAC grants; `system:masters` may do everything."""
    namespace = (review.get('spec') or {}).get('namespace') or ''
    if not namespace:
        raise BadRequest('no namespace on request')
    rules = list(ctx.server.rbac.rules_for(ctx.user, namespace))
    if 'system:masters' in ctx.user.groups:
        rules.append(Rule(('*',), ('*',), ('*',)))
        rules.append(Rule(('*',), paths=('*',)))
    resource = [_resource_rule(r) for r in rules if r.resources]
    paths = [{'verbs': list(r.verbs), 'nonResourceURLs': list(r.paths)} for r in rules if r.paths]
    review['status'] = {'resourceRules': resource, 'nonResourceRules': paths, 'incomplete': False}
    return Reply(orjson.dumps(review), 201)


def _resource_rule(rule: Rule) -> Obj:
    found: Obj = {'verbs': list(rule.verbs), 'apiGroups': list(rule.groups), 'resources': list(rule.resources)}
    if rule.names:
        found['resourceNames'] = list(rule.names)
    return found


async def whoami(ctx: Context, review: Obj) -> Reply:
    review['metadata'] = {'creationTimestamp': format_time(ctx.server.env.clock.wall())}
    review['status'] = {'userInfo': ctx.user.info()}
    return Reply(orjson.dumps(review), 201)


async def token(ctx: Context, review: Obj) -> Reply:
    """Whose token it is. A bad one is no error of the request: the answer says so."""
    spec = review.get('spec') or {}
    if not spec.get('token'):
        raise BadRequest('token is required for TokenReview in authentication')
    bearer = ctx.server.authentication.bearer
    try:
        found = await bearer.identify(str(spec['token']), spec.get('audiences') or bearer.audiences)
        error = 'invalid bearer token'
    except BadToken as e:
        found, error = None, f'[invalid bearer token, {e}]'
    review['status'] = {'user': {}, 'error': error}
    if found is not None:
        review['status'] = {'authenticated': True, 'user': found.user.info(), 'audiences': list(found.audiences)}
    # The token itself is not sent back.
    review['spec'] = {k: v for k, v in spec.items() if k != 'token'}
    return Reply(orjson.dumps(review), 201)


REVIEWS: Mapping[tuple[str, str], Callable[[Context, Obj], Awaitable[Reply]]] = {
    ('authorization.k8s.io', 'selfsubjectaccessreviews'): self_access,
    ('authorization.k8s.io', 'subjectaccessreviews'): access,
    ('authorization.k8s.io', 'localsubjectaccessreviews'): access,
    ('authorization.k8s.io', 'selfsubjectrulesreviews'): self_rules,
    ('authentication.k8s.io', 'selfsubjectreviews'): whoami,
    ('authentication.k8s.io', 'tokenreviews'): token,
}


async def review(ctx: Context, kind: Kind) -> Reply:
    """Answer a question. A Table of it makes no sense: 406."""
    if ctx.form.transform:
        raise NotAcceptable(f'only the following media types are accepted: {ACCEPTED}')
    options = write_options(ctx.info.query, 'CreateOptions', ctx.user_agent)
    body = await read_object(ctx, kind, options)
    return await REVIEWS[kind.resource.group, kind.resource.plural](ctx, body)
