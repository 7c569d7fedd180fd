"""Settings of the controller manager."""

from __future__ import annotations

import ipaddress
import re
from pathlib import Path
from typing import Annotated, Self

from pydantic import AfterValidator, Field, model_validator
from pydantic_settings import SettingsConfigDict

from kclient.election import Timing
from kcore.config import Address, Config, IpAddress


def _identity(value: str) -> str:
    if not re.fullmatch(r'[A-Za-z0-9]([A-Za-z0-9_.:-]{0,251}[A-Za-z0-9])?', value):
        raise ValueError('must be 1 to 253 letters, digits, "-", "_", "." or ":"')
    return value


def _cidr(value: str) -> str:
    try:
        network = ipaddress.IPv4Network(value)
    except ValueError as e:
        raise ValueError(f'must be an IPv4 network such as 127.64.0.0/16: {e}') from None
    if network.prefixlen > 24:
        raise ValueError('must hold at least one /24')
    return value


class ControlConfig(Config):
    """Run Kubeling's controllers and scheduler."""

    model_config = SettingsConfigDict(env_prefix='KCONTROL_', frozen=True, extra='forbid')

    kubeconfig: Path = Field(description='How to reach the API as the controller manager.')
    scheduler_kubeconfig: Path | None = Field(None, description='How to reach it as the scheduler; default: the same.')
    identity: Annotated[str, AfterValidator(_identity)] = Field(description='Unique name in leader election.')
    http: Address | None = Field(None, description='Serve /healthz, /metrics and /debug here.')
    cluster_cidr: Annotated[str, AfterValidator(_cidr)] = Field('127.64.0.0/16', description='Pod addresses.')
    cluster_dns: IpAddress = Field('', description='Address of the Service kube-system/kube-dns; empty: there is none.')
    controllers: tuple[str, ...] = Field(('*',), description='Names to run; * for all, -name to leave one out.')
    scheduler: bool = Field(True, description='Run the scheduler too.')
    lease_duration_s: float = Field(15.0, gt=0)
    renew_deadline_s: float = Field(10.0, gt=0)
    retry_period_s: float = Field(2.0, gt=0)
    node_monitor_period_s: float = Field(5.0, gt=0, description='How often node heartbeats are looked at.')
    node_monitor_grace_period_s: float = Field(50.0, gt=0, description='Silence after which a node is Unknown.')
    node_startup_grace_period_s: float = Field(60.0, gt=0, description='The same, for a node that never reported.')
    terminated_pod_gc_threshold: int = Field(12_500, ge=0, description='Finished pods kept; 0 keeps all.')

    legacy_service_account_token_clean_up_period_s: float = Field(
        365 * 86400.0, gt=0, description='How long a token of a Secret goes unused before it is invalid, then deleted.'
    )

    cluster_signing_cert_file: Path | None = Field(None, description='Authority that signs certificate requests.')
    cluster_signing_key_file: Path | None = Field(None, description='Its private key.')
    cluster_signing_duration_s: float = Field(365 * 86400.0, gt=0, description='How long certificates are valid.')

    @model_validator(mode='after')
    def _relations(self) -> Self:
        self.timing()
        if (self.cluster_signing_cert_file is None) != (self.cluster_signing_key_file is None):
            raise ValueError('cluster_signing_cert_file and cluster_signing_key_file belong together')
        if self.node_monitor_grace_period_s <= self.node_monitor_period_s:
            raise ValueError('node_monitor_grace_period_s must be greater than node_monitor_period_s')
        return self

    def timing(self) -> Timing:
        return Timing(self.lease_duration_s, self.renew_deadline_s, self.retry_period_s)

    def wants(self, name: str) -> bool:
        """Whether controller `name` is to run."""
        if f'-{name}' in self.controllers:
            return False
        return name in self.controllers or '*' in self.controllers
