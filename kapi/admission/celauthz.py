"""CEL's `authorizer`: expressions ask what the requester may do, `authorizer.group('').resource('pods').check('get')`.

The evaluator knows only JSON-like values, so an authorizer, a check and a decision are maps with one private key. And
it cannot wait: an expression that needs a decision which nobody has made yet ends with `pending` set, the decision is
made, and the expression runs again. Source: apiserver pkg/cel/library/authz.go.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any, TypeVar

from kapi.admission.chain import Attributes
from kapi.authn.user import AUTHENTICATED, User
from kapi.authz import union
from kapi.errors import Forbidden
from kcore.meta.selectors import SelectorError, parse_field_selector

Obj = dict[str, Any]
T = TypeVar('T')
VARIABLE = 'authorizer'
DECISIONS_MAX = 100
"""Different questions that the expressions of one write may ask."""
_AUTHORIZER, _GROUP, _PATH, _CHECK, _DECISION = '@authorizer', '@group', '@path', '@check', '@decision'


class Undecided(Exception):
    """A decision is missing; it is made by `Decisions.settle`."""


class Decisions:
    """What the requester of one write may do, as far as somebody asked."""

    def __init__(self, authz: union.Union, a: Attributes) -> None:
        self._authz, self._a = authz, a
        self._made: dict[union.Attributes, Obj] = {}
        self.pending: union.Attributes | None = None

    @cached_property
    def functions(self) -> Mapping[str, Callable[..., Any]]:
        """What expressions may call; made when the first one asks, because nearly no write meets one."""
        return {
            'group': lambda v, name: {_GROUP: (*_of(v, _AUTHORIZER), name)},
            'resource': self._resource,
            'path': lambda v, path: {_PATH: (*_of(v, _AUTHORIZER), _full(path))},
            'serviceAccount': self._account,
            'subresource': lambda v, text: _with(v, subresource=text),
            'namespace': lambda v, text: _with(v, namespace=text),
            'name': lambda v, text: _with(v, name=text),
            'fieldSelector': lambda v, text: _with(v, field_selector=_fields(text)),
            'labelSelector': lambda v, _text: _with(v),  # no authorizer of ours judges by labels
            'check': self._check,
            'allowed': lambda v: _of(v, _DECISION)['allowed'],
            'reason': lambda v: _of(v, _DECISION)['reason'],
            'errored': lambda v: bool(_of(v, _DECISION)['error']),
            'error': lambda v: _of(v, _DECISION)['error'],
        }

    @property
    def value(self) -> Obj:
        """The variable."""
        a, r = self._a, self._a.asked.resource
        own = {
            'group': r.group, 'resource': r.plural, 'subresource': a.subresource, 'namespace': a.namespace,
            'name': a.name,
        }  # fmt: skip
        return {_AUTHORIZER: [None], 'requestResource': {_CHECK: {'account': None, **own}}}

    @staticmethod
    def _account(value: Obj, namespace: str, name: str) -> Obj:
        _of(value, _AUTHORIZER)
        return {_AUTHORIZER: [[namespace, name]]}

    @staticmethod
    def _resource(value: Obj, name: str) -> Obj:
        account, group = _of(value, _GROUP)
        return {_CHECK: {'account': account, 'group': group, 'resource': name}}

    def _check(self, value: Obj, verb: str) -> Obj:
        if _PATH in value:
            account, path = value[_PATH]
            asked = {'account': account, 'path': path}
        else:
            asked = dict(_of(value, _CHECK))
        user = self._user(asked.pop('account'))
        question = union.Attributes(user, verb, version='*' if asked.get('resource') else '', **asked)
        made = self._made.get(question)
        if made is None:
            self.pending = question
            raise Undecided
        return made

    async def settle(self) -> None:
        """Make the decision that was missing. Raises Forbidden when there are too many."""
        question, self.pending = self.pending, None
        assert question is not None
        if len(self._made) >= DECISIONS_MAX:
            raise Forbidden(f'expressions may ask for {DECISIONS_MAX} decisions of the authorizer', details={})
        try:
            decision = await self._authz.decide(question)
        except (OSError, TimeoutError) as e:
            self._made[question] = {_DECISION: {'allowed': False, 'reason': '', 'error': str(e) or type(e).__name__}}
            return
        found = {'allowed': decision.verdict == 'allow', 'reason': decision.reason, 'error': ''}
        self._made[question] = {_DECISION: found}

    def _user(self, account: Sequence[str] | None) -> User:
        """The requester, or the service account with this namespace and name."""
        if account is None:
            return self._a.user
        namespace, name = account
        groups = ('system:serviceaccounts', f'system:serviceaccounts:{namespace}', AUTHENTICATED)
        return User(f'system:serviceaccount:{namespace}:{name}', groups)

    async def during(self, work: Callable[[], T]) -> T:
        """What `work` returns, run again after each decision that it lacked; warnings and notes count once."""
        a = self._a
        warned, noted = list(a.warnings), dict(a.annotations)
        while True:
            try:
                return work()
            except Undecided:
                a.warnings[:] = warned
                a.annotations.clear()
                a.annotations.update(noted)
                await self.settle()


def _of(value: Any, key: str) -> Any:
    if not isinstance(value, Mapping) or key not in value:
        raise TypeError('no such overload')
    return value[key]


def _with(value: Obj, **more: str) -> Obj:
    return {_CHECK: {**_of(value, _CHECK), **more}}


def _full(path: str) -> str:
    if not path:
        raise ValueError('path must not be empty')
    return path


def _fields(text: str) -> str:
    try:
        parse_field_selector(text)
    except SelectorError:
        return ''  # upstream asks without a selector that it cannot read
    return text
