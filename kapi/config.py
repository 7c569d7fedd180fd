"""Settings of the API server process."""

from __future__ import annotations

import ipaddress
from pathlib import Path
from typing import Self

from pydantic import Field, field_validator, model_validator
from pydantic_settings import SettingsConfigDict

from kcore.config import Address, Config

OIDC_ALGORITHMS = ('RS256', 'RS384', 'RS512', 'ES256', 'ES384', 'ES512', 'PS256', 'PS384', 'PS512')


class ApiConfig(Config):
    """The Kubernetes API over a replicated store."""

    model_config = SettingsConfigDict(env_prefix='KAPI_')

    listen: Address = Field('127.0.0.1:6443', description='Address to serve HTTPS on.')
    advertise: Address | None = Field(None, description='Address that others reach this server at; default: --listen.')
    storage: str = Field('memory://', description='Where objects live: kstore://host:port,host:port or memory://.')
    tls_cert: Path = Field(description='Serving certificate (PEM, chain).')
    tls_key: Path = Field(description='Key of the serving certificate.')
    client_ca: Path = Field(description='CA whose client certificates are believed: CN is the user, O the groups.')
    kubelet_client_cert: Path | None = Field(None, description='Certificate shown to node agents.')
    kubelet_client_key: Path | None = Field(None, description='Key of --kubelet-client-cert.')
    proxy_client_cert_file: Path | None = Field(
        None, description='Certificate shown to aggregated servers; default: --kubelet-client-cert.'
    )
    proxy_client_key_file: Path | None = Field(None, description='Key of --proxy-client-cert-file.')
    kubelet_ca: Path | None = Field(None, description='CA of the node agents; default: --client-ca.')
    service_cidr: str = Field('127.96.0.0/16', description='Addresses for Services; the first is the API itself.')
    node_port_min: int = Field(30000, ge=1, le=65535, description='First port for NodePort Services.')
    node_port_max: int = Field(32767, ge=1, le=65535, description='Last port for NodePort Services.')
    service_account_issuer: str = Field(
        'https://kubernetes.default.svc.cluster.local', description='Issuer of service account tokens.'
    )
    service_account_signing_key_file: Path | None = Field(
        None, description='Private key (PEM) that signs service account tokens; default: one for this process only.'
    )
    service_account_key_file: tuple[Path, ...] = Field((), description='Further keys whose tokens are believed.')
    api_audiences: tuple[str, ...] = Field((), description='Audiences of the API; default: the issuer.')
    anonymous_auth: bool = Field(True, description='Whether requests without credentials are system:anonymous.')
    token_auth_file: Path | None = Field(None, description='Static tokens: token,user,uid,"group,group" a line.')
    requestheader_client_ca_file: Path | None = Field(None, description='CA of front proxies.')
    requestheader_allowed_names: tuple[str, ...] = Field((), description='Common names of front proxies; none: any.')
    authentication_token_webhook_config_file: Path | None = Field(None, description='Kubeconfig of a token webhook.')
    authorization_webhook_config_file: Path | None = Field(
        None, description='Kubeconfig of an access webhook, asked when nobody else has an opinion.'
    )
    oidc_issuer_url: str = Field('', description='URL of an OpenID Connect provider.')
    oidc_client_id: str = Field('', description='Audience that ID tokens must have.')
    oidc_ca_file: Path | None = Field(None, description='CA of the OpenID Connect provider.')
    oidc_username_claim: str = Field('sub', description='Claim that names the user.')
    oidc_username_prefix: str = Field(
        '', description='Put before user names; default: the issuer and "#" unless the claim is email; "-": nothing.'
    )
    oidc_groups_claim: str = Field('', description='Claim that lists the groups.')
    oidc_groups_prefix: str = Field('', description='Put before group names.')
    oidc_required_claim: tuple[str, ...] = Field((), description='claim=value pairs that ID tokens must hold.')
    oidc_signing_algs: tuple[str, ...] = Field(('RS256',), description='Algorithms that ID tokens may be signed with.')
    admission_modules: tuple[str, ...] = Field((), description='Python modules with admission plugins.')
    encryption_key_file: Path | None = Field(None, description='Keys that encrypt Secrets at rest; none: clear text.')
    audit_policy_file: Path | None = Field(None, description='Audit policy (YAML).')
    audit_log_path: Path | None = Field(None, description='File for audit events, one JSON object a line.')
    audit_log_maxsize: int = Field(100, ge=1, description='MiB after which the audit log is renamed to <name>.1.')
    audit_log_maxbackup: int = Field(1, ge=0, le=1000, description='Renamed audit logs that are kept.')
    event_ttl_s: int = Field(3600, ge=10, description='Seconds that Events are kept.')
    max_requests_inflight: int = Field(400, ge=1, description='Concurrent reads before 429.')
    max_mutating_requests_inflight: int = Field(200, ge=1, description='Concurrent writes before 429.')
    request_timeout_s: float = Field(60.0, gt=0, description='Deadline of requests that are neither watch nor stream.')

    @field_validator('service_cidr')
    @classmethod
    def _network(cls, value: str) -> str:
        if ipaddress.ip_network(value).num_addresses < 16:
            raise ValueError('must hold at least 16 addresses')
        return value

    @property
    def proxy_client_pair(self) -> tuple[str, str] | None:
        """(certificate, key) files by which aggregated servers know us."""
        if self.proxy_client_cert_file is not None and self.proxy_client_key_file is not None:
            return str(self.proxy_client_cert_file), str(self.proxy_client_key_file)
        if self.kubelet_client_cert is not None and self.kubelet_client_key is not None:
            return str(self.kubelet_client_cert), str(self.kubelet_client_key)
        return None

    def _check_provider(self) -> None:
        if bad := [c for c in self.oidc_required_claim if '=' not in c or c.startswith('=')]:
            raise ValueError(f'oidc-required-claim: {", ".join(bad)}: claim=value expected')
        if bad := [a for a in self.oidc_signing_algs if a not in OIDC_ALGORITHMS]:
            raise ValueError(f'oidc-signing-algs: {", ".join(bad)}: one of {", ".join(OIDC_ALGORITHMS)} expected')
        if self.oidc_issuer_url and not self.oidc_issuer_url.startswith('https://'):
            raise ValueError('oidc-issuer-url must be an https URL')
        if bool(self.oidc_issuer_url) != bool(self.oidc_client_id):
            raise ValueError('oidc-issuer-url and oidc-client-id belong together')

    @model_validator(mode='after')
    def _relations(self) -> Self:
        if (self.kubelet_client_cert is None) != (self.kubelet_client_key is None):
            raise ValueError('kubelet-client-cert and kubelet-client-key belong together')
        if (self.proxy_client_cert_file is None) != (self.proxy_client_key_file is None):
            raise ValueError('proxy-client-cert-file and proxy-client-key-file belong together')
        self._check_provider()
        if self.service_account_key_file and self.service_account_signing_key_file is None:
            raise ValueError('service-account-key-file needs service-account-signing-key-file')
        if self.audit_policy_file is not None and self.audit_log_path is None:
            raise ValueError('audit-policy-file needs audit-log-path')
        if self.node_port_min > self.node_port_max:
            raise ValueError('node-port-min must not exceed node-port-max')
        return self
