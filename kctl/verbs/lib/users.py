"""`kctl create user`: a key, a certificate that the cluster signs for it, and a kubeconfig with both."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kctl.verbs.lib.durations import seconds
from kctl.verbs.lib.errors import CliError, Refused
from kctl.verbs.lib.targets import Target
from kctl.verbs.lib.watching import states

if TYPE_CHECKING:
    from kctl.verbs.lib.session import Session

Obj = dict[str, Any]
SIGNED_WITHIN_S = 30.0


def create_user(session: Session, name: str, groups: tuple[str, ...], lasts: str) -> bytes:
    """The kubeconfig. Raises CliError, Refused (who may not approve requests cannot make users)."""
    from kclient import certificates  # noqa: PLC0415 — takes `cryptography` in
    from kctl.local.pki import kubeconfig  # noqa: PLC0415

    key = certificates.new_key()
    lasts_s = round(seconds(lasts)) if lasts else None
    wanted = certificates.request(key, name, groups, signer=certificates.CLIENT_SIGNER, lasts_s=lasts_s)
    csr = session.http.call('POST', certificates.REQUESTS.path(), None, wanted)
    target = Target(session.catalog.find(certificates.REQUESTS.qualified), csr['metadata']['name'])
    try:
        _approve(session, target, csr, name)
        pem = _signed(session, target)
    finally:
        session.http.call('DELETE', target.path)
    return kubeconfig(session.config.servers, session.config.ca_data or b'', pem, certificates.key_pem(key), name)


def _approve(session: Session, target: Target, csr: Obj, user: str) -> None:
    condition = {
        'type': 'Approved',
        'status': 'True',
        'reason': 'KctlCreateUser',
        'message': f'user {user} was created',
    }
    try:
        session.http.call(
            'PUT', f'{target.path}/approval', None, {**csr, 'status': {'conditions': [condition]}},
        )  # fmt: skip
    except Refused as e:
        raise CliError(f'the certificate of {user} may not be approved by you: {e.text()}') from e


def _signed(session: Session, target: Target) -> bytes:
    from kclient.certificates import NotIssued, issued  # noqa: PLC0415

    try:
        for csr in states(session, target, SIGNED_WITHIN_S):
            if csr is not None and (pem := issued(csr)) is not None:
                return pem
    except NotIssued as e:
        raise CliError(f'the certificate was not issued: {e}') from e
    raise CliError(f'nobody signed the certificate within {SIGNED_WITHIN_S:.0f} s: does a controller manager run?')
