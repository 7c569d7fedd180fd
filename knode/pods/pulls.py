"""Image pulls of one pod: what `imagePullPolicy` and a missing image lead to, with the back-off that users know.

Nothing is downloaded: an image of the catalogue is there or it is not. A failed pull shows ErrImagePull first, then
ImagePullBackOff until the next try. Source: pkg/kubelet/images/image_manager.go.
"""

from __future__ import annotations

from kcore.backoff import Backoff
from knode.errors import ImageError, InvalidImageName
from knode.images.catalogue import Image, resolve
from knode.pods.host import Host
from knode.pods.model import WHERE, Obj, Start, Wait

PULL_BASE_S = 10.0
PULL_CAP_S = 300.0
ERR_IMAGE_PULL_S = 1.0
"""How long ErrImagePull is shown before ImagePullBackOff takes its place."""


class Pulls:
    def __init__(self, host: Host) -> None:
        self._host = host
        self._failed: dict[str, tuple[Backoff, float]] = {}

    def image(self, pod: Obj, action: Start, now: float) -> Image | Wait:
        """The image, or why the container waits. now: wall seconds."""
        c = action.container
        name, reference = c['name'], c['image']

        def say(kind: str, reason: str, message: str) -> None:
            self._host.emit(pod, kind, reason, message, container=name, where=WHERE[action.kind])

        backoff, until = self._failed.get(name, (Backoff(PULL_BASE_S, PULL_CAP_S, self._host.env.rng, jitter=0.0), 0.0))
        if until > now:
            message = f'Back-off pulling image "{reference}"'
            say('Normal', 'BackOff', message)
            say('Warning', 'Failed', 'Error: ImagePullBackOff')
            return Wait('ImagePullBackOff', message, until)
        try:
            image = resolve(reference)
        except InvalidImageName as e:
            say('Warning', 'InspectFailed', str(e))
            say('Warning', 'Failed', 'Error: InvalidImageName')
            return Wait('InvalidImageName', str(e), now + PULL_CAP_S)
        except ImageError as e:
            if c.get('imagePullPolicy') == 'Never':
                message = f'Container image "{reference}" is not present with pull policy of Never'
                say('Warning', 'ErrImageNeverPull', message)
                say('Warning', 'Failed', 'Error: ErrImageNeverPull')
                return Wait('ErrImageNeverPull', message, now + PULL_BASE_S)
            self._failed[name] = (backoff, now + backoff.next())
            say('Normal', 'Pulling', f'Pulling image "{reference}"')
            say('Warning', 'Failed', f'Failed to pull image "{reference}": {e}')
            say('Warning', 'Failed', 'Error: ErrImagePull')
            return Wait('ErrImagePull', str(e), now + ERR_IMAGE_PULL_S)
        self._failed.pop(name, None)
        say('Normal', 'Pulled', f'Container image "{reference}" already present on machine')
        return image
