"""ValidatingWebhookConfiguration: services that judge objects before they are stored."""

from __future__ import annotations

from kapi.kinds.admissionregistration.webhooks import COLUMNS, GROUP, WebhooksStrategy
from kapi.registry.kind import Kind
from kcore.meta.gvk import Resource

KIND = Kind(
    resource=Resource(
        GROUP, 'v1', 'validatingwebhookconfigurations', 'ValidatingWebhookConfiguration', namespaced=False
    ),
    strategy=WebhooksStrategy(),
    categories=('api-extensions',),
    columns=COLUMNS,
)
