"""Who a request comes from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

MASTERS = 'system:masters'
AUTHENTICATED = 'system:authenticated'
UNAUTHENTICATED = 'system:unauthenticated'


@dataclass(frozen=True, slots=True)
class User:
    name: str
    groups: tuple[str, ...] = ()
    uid: str = ''
    extra: Mapping[str, tuple[str, ...]] = field(default_factory=dict, hash=False)

    def info(self) -> dict[str, object]:
        """The UserInfo object of reviews and admission."""
        found: dict[str, object] = {'username': self.name, 'groups': list(self.groups)}
        if self.uid:
            found['uid'] = self.uid
        if self.extra:
            found['extra'] = {k: list(v) for k, v in self.extra.items()}
        return found


ANONYMOUS = User('system:anonymous', (UNAUTHENTICATED,))
SYSTEM = User('system:apiserver', (MASTERS, AUTHENTICATED))
"""The API server's own writes (bootstrap objects)."""
