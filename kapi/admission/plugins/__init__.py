"""The plugins and their order. Order is policy, so it is written down here and nowhere else."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from kapi.admission.cel import Expressions
from kapi.admission.chain import Chain
from kapi.admission.matching import Equivalents, Selection
from kapi.admission.plugins.certificates import CertificateRequests
from kapi.admission.plugins.claim_resize import ClaimResize
from kapi.admission.plugins.default_storage_class import DefaultStorageClass
from kapi.admission.plugins.default_toleration_seconds import DefaultTolerationSeconds
from kapi.admission.plugins.in_process import InProcess
from kapi.admission.plugins.limit_ranger import LimitRanger
from kapi.admission.plugins.mutating_policy import MutatingPolicies
from kapi.admission.plugins.namespace_lifecycle import NamespaceLifecycle
from kapi.admission.plugins.node_restriction import NodeRestriction
from kapi.admission.plugins.owner_references import Find, OwnerReferences
from kapi.admission.plugins.pod_security import PodSecurity
from kapi.admission.plugins.priority import Priority
from kapi.admission.plugins.rbac_escalation import RbacEscalation
from kapi.admission.plugins.resource_quota import ResourceQuota
from kapi.admission.plugins.runtime_class import RuntimeClass
from kapi.admission.plugins.service_account import ServiceAccount
from kapi.admission.plugins.taint_nodes import TaintNodesByCondition
from kapi.admission.plugins.token_secret import TokenSecret
from kapi.admission.plugins.validating_policy import ValidatingPolicies
from kapi.admission.plugins.webhooks import Conform, MutatingWebhooks, ValidatingWebhooks
from kapi.admission.typechecking import TypeChecking
from kapi.admission.webhooks.client import WebhookClient
from kapi.authn.tokens import Tokens
from kapi.authz.rbac import Rbac
from kapi.authz.union import Union
from kapi.registry.kind import Kind
from kapi.storage.cache import Cache
from kcore.env import Env
from kcore.meta.gvk import Resource
from kcore.meta.schema import Node


@dataclass(frozen=True, slots=True)
class Needs:
    """What plugins may use of the server."""

    cache: Cache
    env: Env
    authz: Union
    rbac: Rbac
    tokens: Tokens
    find_kind: Find
    find_resource: Callable[[str, str, str], Kind | None]
    """The kind of a group, version and plural."""
    equivalents: Equivalents
    authority: Callable[[], bytes]
    """The client CA (PEM), which token Secrets carry as `ca.crt`."""
    webhooks: WebhookClient
    conform: Conform
    """An object as its schema wants it, after a webhook changed it. Raises BadRequest."""
    node: Callable[[Resource], Node]
    """The structural schema of a type, by which apply configurations of policies merge."""
    modules: tuple[str, ...] = ()
    """Python modules with plugins of the operator's own."""


def chain(needs: Needs) -> Chain:
    cache = needs.cache
    authz, expressions = needs.authz, Expressions()
    selection = Selection(cache, needs.equivalents)
    return Chain((
        NamespaceLifecycle(cache),
        LimitRanger(cache),
        ServiceAccount(cache, needs.env),
        TokenSecret(cache, needs.tokens, needs.authority),
        NodeRestriction(cache, authz),
        TaintNodesByCondition(),
        PodSecurity(cache),
        Priority(cache),
        DefaultTolerationSeconds(),
        DefaultStorageClass(cache),
        ClaimResize(cache),
        RuntimeClass(cache),
        CertificateRequests(authz, needs.env),
        RbacEscalation(authz, needs.rbac),
        OwnerReferences(authz, needs.find_kind),
        InProcess.load(needs.modules),
        MutatingPolicies(
            cache, expressions, needs.find_kind, authz, conform=needs.conform, node=needs.node, selection=selection
        ),
        MutatingWebhooks(
            cache, needs.env, needs.webhooks, expressions, authz, selection=selection, conform=needs.conform
        ),
        ValidatingPolicies(
            cache, expressions, needs.find_kind, authz, selection=selection,
            checking=TypeChecking(needs.find_resource, needs.node),
        ),
        ValidatingWebhooks(cache, needs.env, needs.webhooks, expressions, authz, selection=selection),
        ResourceQuota(cache, needs.env),
    ))  # fmt: skip
