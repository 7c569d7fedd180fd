"""What can go wrong on a node. All of it derives from `NodeError`; what users see of it are pod events and statuses."""

from __future__ import annotations

import os
from collections.abc import Sequence


def os_text(e: OSError) -> str:
    """As other runtimes print it: `/path: permission denied`."""
    text = os.strerror(e.errno).lower() if e.errno else str(e)
    return f'{e.filename}: {text}' if e.filename else text


class NodeError(Exception):
    """Base of the node agent's own errors; the text is for people."""


class ShimError(NodeError):
    """A shim refused an operation, or is gone."""


class ShimGone(ShimError):
    """The connection to the shim ended: its containers are dead or about to be adopted by nobody."""


class ImageError(NodeError):
    """An image that this node cannot provide."""


class ImageGcFailed(NodeError):
    """Images that nobody uses could not be removed, or not enough of them."""


class InvalidImageName(ImageError):
    """Not an image reference at all."""


class ContainerConfigError(NodeError):
    """A container cannot be described: a missing ConfigMap or Secret, a broken reference."""


class RunError(NodeError):
    """A container cannot be started as its spec demands (unsupported user, capability)."""


class ProbeError(NodeError):
    """A probe that could not be made: what it was to find out is not known."""


class NoAddress(NodeError):
    """The node's podCIDR is used up, or not given yet."""


class VolumeError(NodeError):
    """A volume cannot be set up."""


class ClaimError(VolumeError):
    """What a volume claims is not there, or not yet."""


class NotFoundError(NodeError):
    """A request to the node's server names a pod or container that is not here. HTTP 404."""


class BadRequestError(NodeError):
    """A request to the node's server that cannot be served. HTTP 400."""


class ProtocolRefused(NodeError):
    """A client and we speak no common streaming protocol. HTTP 403."""

    def __init__(self, message: str, headers: Sequence[tuple[str, str]]) -> None:
        """headers:  what we speak."""
        super().__init__(message)
        self.headers = headers
