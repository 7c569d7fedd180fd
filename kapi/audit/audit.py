"""Audit: the policy file decides by its first matching rule, and each stage of a request becomes one line.

Whatever a policy says, requests that carry a Secret or a token are kept at Metadata (`secret`). Lines are buffered by
the kernel only. Source: apiserver pkg/audit/policy, audit.k8s.io/v1.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import orjson
import structlog
import yaml

from kapi.authn.user import User
from kapi.server.requestinfo import RequestInfo
from kcore.env import AppendFile, Env
from kcore.meta.times import format_micro

Obj = dict[str, Any]
Level = Literal['None', 'Metadata', 'Request', 'RequestResponse']
LEVELS = frozenset({'None', 'Metadata', 'Request', 'RequestResponse'})
log = structlog.get_logger('kapi.audit')
FILE_BYTES_MAX = 100 * 1024 * 1024
"""A fuller log is renamed to `<name>.1`, over the one before it."""


_SECRET = frozenset({('', 'secrets'), ('authentication.k8s.io', 'tokenreviews')})


class BadPolicy(Exception):
    """A policy file that cannot be used; the text names the rule."""


@dataclass(frozen=True, slots=True)
class Decision:
    """What is kept of one request; `omitted` are stages."""

    level: Level = 'None'
    omitted: frozenset[str] = frozenset()
    omit_managed_fields: bool = False

    @property
    def request_body(self) -> bool:
        return self.level in {'Request', 'RequestResponse'}

    @property
    def response_body(self) -> bool:
        return self.level == 'RequestResponse'


UNHEARD = Decision()


@dataclass(frozen=True, slots=True)
class Policy:
    rules: tuple[Obj, ...]
    omitted: frozenset[str] = frozenset()
    omit_managed_fields: bool = False

    @staticmethod
    def load(path: Path, env: Env) -> Policy:
        """Raises BadPolicy."""
        try:
            document = yaml.safe_load(env.disk.read(path))
            rules = tuple(document['rules'])
            for i, rule in enumerate(rules):
                if rule.get('level') not in LEVELS:
                    raise BadPolicy(f'{path}: rules[{i}].level: one of {", ".join(sorted(LEVELS))} expected')
        except (OSError, KeyError, TypeError, AttributeError, yaml.YAMLError) as e:
            raise BadPolicy(f'{path}: no audit policy ({type(e).__name__}: {e})') from None
        omitted = frozenset(document.get('omitStages') or ())
        return Policy(rules, omitted, document.get('omitManagedFields') is True)

    def decide(self, info: RequestInfo, user: User) -> Decision:
        """By the first rule that matches; a rule's word on managed fields goes before the policy's."""
        for rule in self.rules:
            if _matches(rule, info, user):
                level: Level = rule['level']
                if level not in {'None', 'Metadata'} and (not info.is_resource or secret(info)):
                    level = 'Metadata'
                said = rule.get('omitManagedFields')
                omit = self.omit_managed_fields if said is None else said is True
                return Decision(level, self.omitted | frozenset(rule.get('omitStages') or ()), omit)
        return UNHEARD


EVERYTHING = Policy(({'level': 'Metadata'},), frozenset({'RequestReceived'}))


def secret(info: RequestInfo) -> bool:
    """Whether bodies of the request may carry what must never be in a log."""
    return (info.group, info.plural) in _SECRET or info.subresource == 'token'


def _matches(rule: Obj, info: RequestInfo, user: User) -> bool:
    if rule.get('users') and user.name not in rule['users']:
        return False
    if rule.get('userGroups') and not set(rule['userGroups']) & set(user.groups):
        return False
    if rule.get('verbs') and info.verb not in rule['verbs']:
        return False
    if not info.is_resource:
        paths: Sequence[str] = rule.get('nonResourceURLs') or ()
        if rule.get('resources') or rule.get('namespaces'):
            return False
        return not paths or any(
            p in {'*', info.path} or (p[-1:] == '*' and info.path.startswith(p[:-1])) for p in paths
        )
    if rule.get('nonResourceURLs') or (rule.get('namespaces') and info.namespace not in rule['namespaces']):
        return False
    listed = rule.get('resources')
    return not listed or any(_resource(r, info) for r in listed)


def _resource(rule: Obj, info: RequestInfo) -> bool:
    if (rule.get('group') or '') not in {info.group, '*'}:
        return False
    full = f'{info.plural}/{info.subresource}' if info.subresource else info.plural
    names = rule.get('resources') or ()
    wild = {'*', full, f'{info.plural}/*', f'*/{info.subresource}' if info.subresource else full}
    return (not names or bool(wild & set(names))) and (
        not rule.get('resourceNames') or info.name in rule['resourceNames']
    )


class AuditLog:
    """Writes events; a write that fails is told once a line and never fails the request."""

    def __init__(self, policy: Policy, path: Path, env: Env) -> None:
        self.policy = policy
        self._path = path
        self._env = env
        self._file: AppendFile = env.disk.open_append(path)

    def write(self, stage: str, request: Mapping[str, Any]) -> None:
        event = {
            'kind': 'Event', 'apiVersion': 'audit.k8s.io/v1', 'stage': stage, **request,
            'stageTimestamp': format_micro(self._env.clock.wall()),
        }  # fmt: skip
        try:
            self._file.append(orjson.dumps(event) + b'\n')
            if self._file.size > FILE_BYTES_MAX:
                self._file.close()
                self._env.disk.rename(self._path, self._path.with_name(f'{self._path.name}.1'))
                self._file = self._env.disk.open_append(self._path)
        except OSError as e:
            log.error('audit event was not written', err=str(e))

    def close(self) -> None:
        self._file.close()


def audit_log(policy_file: Path | None, path: Path | None, env: Env) -> AuditLog | None:
    """None without a path. Without a policy all requests are kept. Raises BadPolicy, OSError."""
    if path is None:
        return None
    return AuditLog(Policy.load(policy_file, env) if policy_file is not None else EVERYTHING, path, env)
