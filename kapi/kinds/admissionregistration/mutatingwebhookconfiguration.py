"""MutatingWebhookConfiguration: services that change objects before they are stored."""

from __future__ import annotations

from kapi.kinds.admissionregistration.webhooks import COLUMNS, GROUP, WebhooksStrategy
from kapi.registry.kind import Kind
from kcore.meta.gvk import Resource

KIND = Kind(
    resource=Resource(GROUP, 'v1', 'mutatingwebhookconfigurations', 'MutatingWebhookConfiguration', namespaced=False),
    strategy=WebhooksStrategy(mutating=True),
    categories=('api-extensions',),
    columns=COLUMNS,
)
