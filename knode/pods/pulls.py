"""Image pulls of one pod: what `imagePullPolicy` and a missing image lead to, with the back-off that users know.

An image of the catalogue is there or it is not; only environments (`venv:`) are built when first asked for. A failed
pull shows ErrImagePull first, then ImagePullBackOff until the next try. Source: pkg/kubelet/images/image_manager.go.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import structlog

from kclient.errors import ClientError
from kcore.backoff import Backoff
from kcore.meta.gvk import SECRETS
from knode.errors import ImageError, InvalidImageName
from knode.images.catalogue import Image
from knode.pods.host import Host
from knode.pods.model import WHERE, Obj, Start, Wait

log = structlog.get_logger('knode.pulls')

PULL_BASE_S = 10.0
PULL_CAP_S = 300.0
LOOK_AGAIN_S = 60.0
"""A container whose image is being built looks again after this long, should the news of its end be lost."""
ERR_IMAGE_PULL_S = 1.0
"""How long ErrImagePull is shown before ImagePullBackOff takes its place."""


class Pulls:
    def __init__(self, host: Host, pulled: Callable[[str], None]) -> None:
        """pulled: called with a container's name when what it waited for is there, or will not come."""
        self._host, self._pulled = host, pulled
        self._failed: dict[tuple[str, str], tuple[Backoff, float, str]] = {}
        """Of failed pulls: their pauses, the end of the present one in wall seconds, why."""
        self._builds: dict[tuple[str, str], asyncio.Task[None]] = {}
        self._took: dict[tuple[str, str], float] = {}
        """Seconds that builds took which nobody has told of yet."""
        self.seconds = 0.0
        """What all builds took."""

    def image(self, pod: Obj, action: Start, now: float) -> Image | Wait:
        """The image, or why the container waits. now: wall seconds."""
        c = action.container
        name, reference = c['name'], c['image']
        key = name, reference

        def say(kind: str, reason: str, message: str) -> None:
            self._host.emit(pod, kind, reason, message, container=name, where=WHERE[action.kind])

        _, until, why = self._failed.get(key, (None, 0.0, ''))
        if until > now:
            message = f'Back-off pulling image "{reference}"'
            say('Normal', 'BackOff', message)
            say('Warning', 'Failed', 'Error: ImagePullBackOff')
            return Wait('ImagePullBackOff', f'{message}: ErrImagePull: {why}', until)
        policy = c.get('imagePullPolicy')
        try:
            build = self._builds.get(key)
            if build is not None and not build.done():
                return Wait('ContainerCreating', '', now + LOOK_AGAIN_S)
            if build is not None:
                del self._builds[key]
                build.result()
            image = self._host.images.find(reference)
            if image is None and policy != 'Never':
                say('Normal', 'Pulling', f'Pulling image "{reference}"')
                return self._pull(key, now)
        except InvalidImageName as e:
            say('Warning', 'InspectFailed', str(e))
            say('Warning', 'Failed', 'Error: InvalidImageName')
            return Wait('InvalidImageName', str(e), now + PULL_CAP_S)
        except ImageError as e:
            if policy != 'Never':
                return self._fail(key, str(e), now, say)
            image = None
        if image is None:
            message = f'Container image "{reference}" is not present with pull policy of Never'
            say('Warning', 'ErrImageNeverPull', message)
            say('Warning', 'Failed', 'Error: ErrImageNeverPull')
            return Wait('ErrImageNeverPull', message, now + PULL_BASE_S)
        self._failed.pop(key, None)
        if build is not None or policy == 'Always':
            seconds = self._took.pop(key, 0.0)
            self._host.metrics.image_pulled(seconds, image.size_bytes)
            took = duration(seconds)
            text = f'Successfully pulled image "{reference}" in {took} ({took} including waiting). '
            say('Normal', 'Pulled', f'{text}Image size: {image.size_bytes} bytes.')
        else:
            say('Normal', 'Pulled', f'Container image "{reference}" already present on machine')
        return image

    async def look_for_secrets(self, pod: Obj) -> None:
        """Nothing here needs them; that one is missing is told, as it would be where something does."""
        missing = []
        for ref in pod['spec'].get('imagePullSecrets') or ():
            try:
                found = await self._host.objects.read(SECRETS, ref['name'], pod['metadata']['namespace'])
            except ClientError as e:
                log.info('image pull secret not read', secret=ref['name'], err=str(e))
                found = None
            if found is None:
                missing.append(ref['name'])
        if missing:
            names = ', '.join(missing)
            text = (
                f'Unable to retrieve some image pull secrets ({names}); attempting to pull the image may not succeed.'
            )
            self._host.emit(pod, 'Warning', 'FailedToRetrieveImagePullSecret', text)

    def _pull(self, key: tuple[str, str], now: float) -> Wait:
        build = self._builds[key] = self._host.images.pull(key[1])
        began = self._host.env.clock.monotonic()

        def finished(_: asyncio.Task[None]) -> None:
            self._took[key] = self._host.env.clock.monotonic() - began
            self.seconds += self._took[key]
            self._pulled(key[0])

        build.add_done_callback(finished)
        return Wait('ContainerCreating', '', now + LOOK_AGAIN_S)

    def _fail(self, key: tuple[str, str], why: str, now: float, say: Callable[[str, str, str], None]) -> Wait:
        fresh = Backoff(PULL_BASE_S, PULL_CAP_S, self._host.env.rng, jitter=0.0)
        backoff, *_ = self._failed.get(key, (fresh,))
        self._failed[key] = backoff, now + backoff.next(), why
        say('Normal', 'Pulling', f'Pulling image "{key[1]}"')
        say('Warning', 'Failed', f'Failed to pull image "{key[1]}": {why}')
        say('Warning', 'Failed', 'Error: ErrImagePull')
        return Wait('ErrImagePull', why, now + ERR_IMAGE_PULL_S)


def duration(seconds: float) -> str:
    """As Go prints whole milliseconds of it: `0s`, `350ms`, `6.1s`, `1m2.5s`."""
    whole = int(seconds * 1000)
    if whole < 1000:
        return f'{whole}ms' if whole else '0s'
    minutes, rest = divmod(whole, 60_000)
    return f'{minutes}m{rest / 1000:g}s' if minutes else f'{rest / 1000:g}s'
