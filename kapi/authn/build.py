"""The authenticators of one server, in order, as its settings want them. Read `build` from top to bottom."""

from __future__ import annotations

import ssl
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import structlog

from kapi.authn import keys
from kapi.authn.bearer import Bearer, TokenAuthenticator
from kapi.authn.oidc import Oidc, OidcSettings
from kapi.authn.remote import BadRemote, Remote, from_kubeconfig
from kapi.authn.service_account import ServiceAccountTokens
from kapi.authn.static import BootstrapTokens, StaticTokens
from kapi.authn.tokens import Tokens
from kapi.authn.union import Authenticator, Union
from kapi.authn.webhook import WebhookTokens
from kapi.authn.x509 import ClientCertificate, FrontProxy, Peers
from kapi.storage.cache import Cache
from kcore.env import Env

if TYPE_CHECKING:
    from kapi.config import ApiConfig

log = structlog.get_logger('kapi.authn')


@dataclass(frozen=True, slots=True)
class Authentication:
    """Who asks (`union`), whose token it is (`bearer`), and the issuer of tokens."""

    union: Union
    bearer: Bearer
    tokens: Tokens
    remotes: tuple[Remote, ...]

    async def close(self) -> None:
        for remote in self.remotes:
            await remote.close()


def build(
    config: ApiConfig, env: Env, cache: Cache, note_use: Callable[[dict[str, Any]], Awaitable[None]]
) -> Authentication:
    """note_use: hears of Secrets whose token is shown.

    Raises BadKey, BadTokenFile, BadRemote and OSError, each naming the file.
    """
    tokens = _tokens(config, env)
    remotes: list[Remote] = []
    known: list[TokenAuthenticator] = []
    if config.token_auth_file is not None:
        known.append(StaticTokens(config.token_auth_file, env))
    known += [ServiceAccountTokens(tokens, cache, env, note_use), BootstrapTokens(cache, env)]
    if config.oidc_issuer_url:
        try:
            tls = ssl.create_default_context(cafile=_text(config.oidc_ca_file))
        except (OSError, ssl.SSLError) as e:
            raise BadRemote(f'--oidc-ca-file {config.oidc_ca_file}: no authority in PEM form ({e})') from None
        remote = Remote(config.oidc_issuer_url, tls)
        remotes.append(remote)
        known.append(Oidc(_oidc(config), remote, env))
    if config.authentication_token_webhook_config_file is not None:
        remotes.append(from_kubeconfig(config.authentication_token_webhook_config_file, env))
        known.append(WebhookTokens(remotes[-1], env))
    bearer = Bearer(known, tokens.audiences)
    peers = Peers(env, config.requestheader_client_ca_file)
    asked: list[Authenticator] = []
    if config.requestheader_client_ca_file is not None:
        asked.append(FrontProxy(peers, config.requestheader_allowed_names))
    asked += [ClientCertificate(peers), bearer]
    return Authentication(Union(asked, anonymous=config.anonymous_auth), bearer, tokens, tuple(remotes))


def _oidc(config: ApiConfig) -> OidcSettings:
    prefix = config.oidc_username_prefix
    if not prefix and config.oidc_username_claim != 'email':
        prefix = f'{config.oidc_issuer_url}#'  # nobody else's user by accident
    claims = (c.partition('=') for c in config.oidc_required_claim)
    return OidcSettings(
        config.oidc_issuer_url.rstrip('/'), config.oidc_client_id, config.oidc_username_claim,
        '' if prefix == '-' else prefix, config.oidc_groups_claim, config.oidc_groups_prefix,
        tuple((name, value) for name, _, value in claims), config.oidc_signing_algs,
    )  # fmt: skip


def _tokens(config: ApiConfig, env: Env) -> Tokens:
    file = config.service_account_signing_key_file
    if file is None:
        log.warning('no key for service account tokens was given; tokens end with this process')
        source: keys.KeySource = keys.FixedKeys(keys.key_set(keys.new_key()))
    else:
        source = keys.KeyFiles(file, config.service_account_key_file, env)
    issuer = config.service_account_issuer
    return Tokens(source, issuer, config.api_audiences or (issuer,), env)


def _text(path: object) -> str | None:
    return str(path) if path is not None else None
