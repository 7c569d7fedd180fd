"""The settings of one store member; every relation between them is checked here, before anything starts."""

from __future__ import annotations

from pathlib import Path
from typing import Self

from pydantic import Field, field_validator, model_validator
from pydantic_settings import SettingsConfigDict

from kcore.config import Address, Config


class StoreConfig(Config):
    """Run one member of the replicated store; `python -m kstore help` lists the verbs that talk to running ones."""

    model_config = SettingsConfigDict(
        env_prefix='KSTORE_', frozen=True, extra='forbid', nested_model_default_partial_update=False
    )

    id: int = Field(1, gt=0, lt=1 << 31, description='This member; a key of --peers.')
    data_dir: Path = Field(description='Where log and state live; made when missing.')
    listen: Address = Field('127.0.0.1:2390', description='HOST:PORT for clients and peers alike.')
    peers: dict[int, Address] = Field(
        default_factory=dict, description='All members as ID=HOST:PORT,...; empty for a single member.'
    )
    join: bool = Field(False, description='Join a running cluster, after `members add`; --peers names its members.')
    cluster: str = Field('kubeling', min_length=1, description='Name of the cluster; members of another are refused.')
    http: Address | None = Field(None, description='HOST:PORT for /health and /metrics; none by default.')
    tls_cert: Path | None = Field(None, description='Certificate of this member (PEM), for clients and peers.')
    tls_key: Path | None = Field(None, description='Private key of --tls-cert.')
    tls_ca: Path | None = Field(None, description='CA that signs every client and peer; certificates are demanded.')
    tick_ms: int = Field(25, ge=5, le=1_000, description='Length of one logical tick of Raft.')
    election_ticks: int = Field(12, ge=3, description='Silence of the leader, in ticks, before an election.')
    heartbeat_ticks: int = Field(2, ge=1, description='Ticks between heartbeats of the leader.')
    request_timeout_s: float = Field(5.0, gt=0, description='Longest wait for a leader or a commit.')
    flush_ms: int = Field(
        250, ge=10, le=60_000, description='How long applied writes stay in memory only (the log has them).'
    )
    compact_age_s: int = Field(300, ge=0, description='Old revisions are kept this long; 0 for ever.')
    quota_mb: int = Field(
        2048, ge=0, description='Size of the state at which puts are refused until there is room again; 0: no limit.'
    )
    hash_check_s: int = Field(
        600, ge=0, description='How often a follower compares its contents with the leader; 0: never.'
    )
    trace_ms: float = Field(
        0.0, ge=0, description='Log each write that takes longer at the leader, and where it spent the time; 0: off.'
    )
    compact_count: int = Field(1_000_000, ge=0, description='At most this many old revisions are kept; 0: no limit.')

    @field_validator('peers')
    @classmethod
    def _ids(cls, peers: dict[int, str]) -> dict[int, str]:
        if any(not 0 < member < 1 << 31 for member in peers):
            raise ValueError('member ids must be positive integers')
        if len(set(peers.values())) < len(peers):
            raise ValueError('two members have the same address')
        return peers

    @model_validator(mode='after')
    def _relations(self) -> Self:
        if self.peers and self.id not in self.peers:
            raise ValueError(f'--peers must name this member, id {self.id}')
        if self.election_ticks < 3 * self.heartbeat_ticks:
            raise ValueError('--election-ticks must be at least 3 times --heartbeat-ticks')
        if len({bool(self.tls_cert), bool(self.tls_key), bool(self.tls_ca)}) > 1:
            raise ValueError('--tls-cert, --tls-key and --tls-ca go together')
        return self

    @property
    def members(self) -> dict[int, str]:
        return self.peers or {self.id: self.listen}
