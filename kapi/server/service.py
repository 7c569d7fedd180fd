"""One API server: its parts, wired once, and the handler that aiohttp calls for every request."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any

from aiohttp import web

from kapi import kinds
from kapi.admission import plugins
from kapi.admission.webhooks.client import WebhookClient
from kapi.aggregation.aggregator import Aggregator
from kapi.aggregation.controller import ApiServices
from kapi.aggregation.endpoints import Resolver, Transport
from kapi.audit.audit import Rotation, audit_log
from kapi.authn.build import build as authentication
from kapi.authn.remote import from_kubeconfig
from kapi.authz.components import Components
from kapi.authz.masters import Masters
from kapi.authz.node import NodeAuthorizer
from kapi.authz.rbac import Rbac
from kapi.authz.union import Union as Authorizers
from kapi.authz.webhook import WebhookAuthorizer
from kapi.config import ApiConfig
from kapi.crd.controller import Definitions
from kapi.crd.registrar import Registrar
from kapi.errors import BadRequest
from kapi.flow import inflight, keeper
from kapi.flow.fairness import Fairness
from kapi.flow.stats import FlowCollector
from kapi.registry.addresses import ServiceAddresses
from kapi.registry.catalog import Catalog
from kapi.registry.kind import Kind
from kapi.registry.store import Registry
from kapi.server import requestinfo
from kapi.server.context import Context, Reply
from kapi.server.deadlines import Deadlines
from kapi.server.discovery import Discovery
from kapi.server.kubelet import Kubelets
from kapi.server.legacytokens import note_use
from kapi.server.metrics import Metrics
from kapi.server.openapi import OpenApi
from kapi.server.pipeline import serve
from kapi.server.respond import error_reply, finish
from kapi.server.schemas import Schemas
from kapi.storage.base import Storage, StorageError
from kapi.storage.cache import Cache
from kapi.usage.figures import Figures
from kcore.env import Env


class ApiServer:
    """Everything that a request can reach. Built before the loop runs; `cache.start` loads it."""

    def __init__(self, config: ApiConfig, env: Env, storage: Storage) -> None:
        self.config = config
        self.env = env
        self.cache = Cache(storage, env)
        self.catalog = Catalog((*kinds.KINDS, *kinds.GOVERNING, *kinds.VIRTUAL))
        self.schemas = Schemas()
        self.rbac = Rbac(self.cache)
        access = config.authorization_webhook_config_file
        self._access = from_kubeconfig(access, env) if access is not None else None
        webhook = (WebhookAuthorizer(self._access, env),) if self._access is not None else ()
        self.authz = Authorizers((Masters(), NodeAuthorizer(self.cache), Components(), self.rbac, *webhook))
        self.authentication = authentication(config, env, self.cache, partial(note_use, self))
        self.authn = self.authentication.union
        self.tokens = self.authentication.tokens
        self.webhooks = WebhookClient(self.cache, env)
        needs = plugins.Needs(
            self.cache, env, self.authz, self.rbac, self.tokens, self.catalog.by_kind, self.catalog.find,
            self.catalog.equivalents, lambda: env.disk.read(config.client_ca), self.webhooks,
            lambda body, obj: self.schemas.conform(body, obj, 'Ignore')[0], self.schemas.node, config.admission_modules,
        )  # fmt: skip
        self.admission = plugins.chain(needs)
        self.registry = Registry(self.cache, env, self.admission, self.schemas.node)
        ports = range(config.node_port_min, config.node_port_max + 1)
        self.addresses = ServiceAddresses(self.cache, env, config.service_cidr, ports)
        self.registry.hooks['services'] = self.addresses
        self.registry.ttl_s = {'events': config.event_ttl_s, 'events.events.k8s.io': config.event_ttl_s}
        self.deadlines = Deadlines()
        reads_max, writes_max = config.max_requests_inflight, config.max_mutating_requests_inflight
        self.in_flight = inflight.InFlight(reads_max, writes_max)
        self.fairness = Fairness(self.cache, reads_max + writes_max, env.clock.monotonic)
        rotation = Rotation(config.audit_log_maxsize * 2**20, config.audit_log_maxbackup)
        self.audit_log = audit_log(config.audit_policy_file, config.audit_log_path, env, rotation)
        self.metrics = Metrics()
        self.metrics.registry.register(FlowCollector(self.fairness))
        for kind in self.in_flight.counts:
            self.metrics.inflight.labels(kind).set_function(partial(self.in_flight.counts.__getitem__, kind))
        self.streams = 0
        """Upgraded connections passed on at this moment."""
        self.kubelets = Kubelets(config, env)
        self.figures = Figures(self.kubelets.summary, env.clock)
        self.transport = Transport(Resolver(self.cache, env.rng), env.disk, config.proxy_client_pair)
        self.custom = Registrar(self.cache, self.catalog, self.schemas, self.transport, env.new_uid)
        self.aggregator = Aggregator(self.cache, self.transport)
        self.discovery = Discovery(self.catalog, self.aggregator)
        self.openapi = OpenApi(self.catalog, self.schemas, self.aggregator)
        self.live_checks = {'ping': _ping}
        self.ready_checks = {'ping': _ping, 'storage': self._storage_check, 'watch-cache': self._cache_check}
        self.bootstrapped = False

    def is_builtin(self, kind: Kind) -> bool:
        return self.schemas.builtin(kind.resource)

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        try:
            info = requestinfo.of(request.method, request.raw_path)
        except ValueError:
            refusal = error_reply(BadRequest('too many query parameters'))
            return web.Response(status=refusal.status, body=refusal.body, content_type=refusal.content_type)
        audit_id = request.headers.get('Audit-Id') or self.env.new_uid()
        if (broken := _not_utf8(request)) is not None:
            return await finish(Context(self, request, info, self.env.new_uid()), broken)
        return await serve(Context(self, request, info, audit_id[:128]))

    async def close(self) -> None:
        await self.figures.close()
        self.deadlines.close()
        self.fairness.turns.deadlines.close()
        await self.kubelets.close()
        await self.transport.close()
        await self.authentication.close()
        await self.webhooks.close()
        if self._access is not None:
            await self._access.close()
        if self.audit_log is not None:
            self.audit_log.close()
        await self.cache.close()

    def background(self) -> tuple[tuple[str, Callable[[], Coroutine[Any, Any, object]]], ...]:
        """(name, task) of what runs beside the requests; each is started anew when it fails."""
        return (
            ('definitions', Definitions(self).run),
            ('apiservices', ApiServices(self).run),
            ('flow schemas', partial(keeper.keep, self)),
            ('seats', partial(keeper.lend, self)),
        )

    async def _storage_check(self) -> str:
        try:
            await self.cache.storage.current_revision()
        except StorageError as e:
            return str(e) or type(e).__name__
        return ''

    async def _cache_check(self) -> str:
        return '' if self.bootstrapped else 'the first objects are not there yet'


def _not_utf8(request: web.BaseRequest) -> Reply | None:
    """A refusal of headers that are no text: user names and managers from them are stored and shown as JSON."""
    for name, value in request.raw_headers:
        if not value.isascii():
            try:
                value.decode()
            except UnicodeDecodeError:
                return error_reply(BadRequest(f'header {name.decode(errors="replace")} is not UTF-8'))
    return None


async def _ping() -> str:
    return ''


__all__ = ['ApiServer', 'Reply']
