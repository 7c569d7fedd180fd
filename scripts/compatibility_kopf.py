# ruff: noqa: E501 — shell scripts read better unbroken
"""kopf's own example operators against a cluster: taken from kopf's source distribution when this runs.

Nothing of theirs is kept here: `fetched` asks pip for the sdist of the installed version, and for the libraries that
the examples import. Each check runs one example with `kopf run` in a namespace of its own and looks at what its
handlers did: log lines, status, events, children.
"""

from __future__ import annotations

import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

LIBRARIES = ('pykube-ng', 'pyyaml')
"""What the examples import beside kopf itself."""

PRELUDE = r"""
export PYTHONPATH=$LIBRARIES PYTHONUNBUFFERED=1
PIDS=; trap 'kill $PIDS 2>/dev/null || true; wait || true' EXIT
start() { (cd "$EXAMPLES" && exec "$@") >log 2>&1 & PID=$!; PIDS="$PIDS $PID"; }
operator() { start "$PYTHON" -m kopf run -n "$NS" --verbose "${@:2}" "$1/example.py"; }
begun() { log 'Starting the watch-stream for kopfexamples'; }
log() { for want; do
    for i in $(seq 300); do grep -qE -- "$want" log && continue 2; sleep 0.2; done
    { echo "never said: $want"; tail -5 log; } >&2; return 1
done; }
never() { for unwanted; do if grep -E -- "$unwanted" log >&2; then return 1; fi; done; }
is() { for i in $(seq 100); do got=$($K get kex kopf-example-1 -o jsonpath="$1"); [[ $got == $2 ]] && return; sleep 0.2; done
    echo "$1 is $got, not $2" >&2; return 1; }
event() { for i in $(seq 100); do $K get events -o jsonpath='{range .items[*]}{.type} {.reason} {.message}{"\n"}{end}' | grep -qE -- "$1" && return; sleep 0.2; done
    echo "no event $1" >&2; return 1; }
made() { $K apply -f "$EXAMPLES/obj.yaml"; }
changed() { $K patch kex kopf-example-1 --type=merge -p "$1"; }
gone() { $K delete kex --all --timeout=60s; }
stopped() { kill $PID; wait $PID; }
"""

SETUP = r"""
$KUBECTL apply -f "$EXAMPLES/crd.yaml"
$KUBECTL wait --for=condition=Established crd/kopfexamples.kopf.dev --timeout=30s
$KUBECTL apply -f "$EXAMPLES/../peering.yaml" || true  # its objects may come before their definitions are served
$KUBECTL wait --for=condition=Established crd/kopfpeerings.kopf.dev crd/clusterkopfpeerings.kopf.dev --timeout=30s
$KUBECTL apply -f "$EXAMPLES/../peering.yaml"
"""

NAMESPACE = r"""
$KUBECTL create namespace $NS
for i in $(seq 50); do $K get serviceaccount default >/dev/null 2>&1 && break; sleep 0.1; done
"""

TOGETHER: dict[str, str] = {
    '01-minimal': r"""operator 01-minimal --standalone; begun; made; log 'And here we are! Creating: ' "Handler 'create_fn' succeeded"
is {.status.create_fn.message} 'hello world'; gone; log 'Deleted, really deleted'; stopped""",
    '02-children': r"""operator 02-children --standalone; begun; made; log "Handler 'create_fn' succeeded"
POD=$($K get pods -o jsonpath={.items[0].metadata.name}); $K get pod $POD -o jsonpath='{.metadata.ownerReferences[0].name}' | grep kopf-example-1
is '{.status.create_fn.children[0]}' $($K get pod $POD -o jsonpath={.metadata.uid}); $K wait --for=condition=Ready pod/$POD --timeout=60s
$K logs $POD | grep FIELD=value; gone; $K wait --for=delete pod/$POD --timeout=90s; stopped""",
    '03-exceptions': r"""operator 03-exceptions --standalone; begun; made
log "'instant_failure_with_only_a_message' failed permanently: Fail once and for all" "'eventual_success_with_a_few_messages' succeeded" \
    "'eventual_failure_with_tracebacks' failed" "'instant_failure_with_traceback' failed" 'Creation is processed: 1 succeeded; 3 failed'
gone; stopped""",
    '04-events': r"""operator 04-events --standalone; begun; made; log "Handler 'create_fn' succeeded"
event 'SomeType SomeReason Some message'; event 'Normal SomeReason Some message'; event 'Warning SomeReason Some message'
event 'Error SomeReason Some exception: Exception text'; gone; stopped""",
    '05-handlers': r"""operator 05-handlers --standalone; begun; made; log 'CREATED 1st' 'CREATED 2nd'; never RESUMED UPDATED; log 'Creation is processed'; stopped
operator 05-handlers --standalone; log 'RESUMED 1st' 'RESUMED 2nd'; never CREATED
changed '{"spec":{"field":"other"}}'; log UPDATED 'FIELD CHANGED: value -> other'; gone; log 'DELETED 1st' 'DELETED 2nd' 'Deleted, really deleted'; stopped""",
    '06-peering': r"""sed "s/namespace: default/namespace: $NS/" "$EXAMPLES/../peering.yaml" | $K apply -f -
operator 06-peering --peering=default --priority=1; begun; FIRST=$PID; mv log first
operator 06-peering --peering=default --priority=100; SECOND=$PID; begun
for i in $(seq 100); do grep -qE 'Pausing operations' first && break; sleep 0.2; done; grep 'Pausing operations' first
made; log "Handler 'create_fn' succeeded"; ! grep "Handler 'create_fn' succeeded" first; kill $SECOND; wait $SECOND
for i in $(seq 300); do grep -qE 'Resuming operations' first && break; sleep 0.2; done; grep 'Resuming operations' first
kill $FIRST; wait $FIRST; gone""",
    '07-subhandlers': r"""operator 07-subhandlers --standalone; begun; made; log '=== Handling creation for item1. ===' '=== Handling creation for item2. ===' "'create_fn/item2' succeeded"
gone; stopped""",
    '08-events': r"""operator 08-events --standalone; begun; made; log "Event received: .*'type': 'ADDED'" 'Oops!'; changed '{"spec":{"field":"other"}}'
log "Event received: .*'type': 'MODIFIED'"; gone; log "Event received: .*'type': 'DELETED'"; stopped""",
    '09-testing': """operator 09-testing --standalone; begun; made; log 'Something was logged here.' 'Creation is processed: 1 succeeded; 0 failed'; gone; stopped""",
    '10-builtins': r"""operator 10-builtins --standalone; log 'Starting the watch-stream for pods'
$K run killed --image=busybox --restart=Never --command -- sh -c 'exec sleep 100'; log 'Creation is in progress' '=== Pod killing happens in 30'
$K get pod killed -o jsonpath={.metadata.finalizers} | grep kopf; $K delete pod killed --now --timeout=60s; log 'Deletion is in progress' '=== Pod killing is cancelled!'; stopped""",
    '11-filtering-handlers': r"""operator 11-filtering-handlers --standalone; begun; made
log 'Label is matching.' 'Label is present.' 'Label is absent.' 'Label callback matching.' 'Annotation is matching.' 'Annotation is present.' 'Annotation is absent.' \
    'Filter satisfied.' 'Field value is satisfied.' 'Field presence is satisfied.' 'Field daemon is satisfied.' 'Creation is processed'
changed '{"spec":{"field":"changed"}}'; log 'Field change is satisfied.'; gone
never 'Annotation callback mismatch.' 'Filter not satisfied.' 'Field value is not satisfied.' 'Field presence is not satisfied.'; stopped""",
    '13-hooks': r"""operator 13-hooks --standalone --liveness=http://127.0.0.1:$PORT/healthz
log 'Initialising the task-lock' 'Going to succeed in 3s' 'Starting retried' 'Logging in in 2s'; $K run p --image=busybox --restart=Never --command -- sh -c 'exec sleep 100'
log 'Served by the background task.'; for i in $(seq 75); do curl -s http://127.0.0.1:$PORT/healthz >probe && grep -q '"p"' probe && break; sleep 0.2; done; grep '"p"' probe
stopped; log 'Cleaning up' 'All pod-tasks are requested to stop'""",
    '14-daemons': r"""operator 14-daemons --standalone; begun; made; log 'Simulated failure'; is {.status.message} 'Failed 3 times.'
log "=> Ping from a sync daemon: field='value', retry=3" "=> Ping from an async daemon: field='value'"; gone; log "'background_async' is cancelled|'background_async' has exited"; stopped""",
    '15-timers': r"""operator 15-timers --standalone; begun; made; log "Ping from a sync timer: field='value'" "Ping from an async timer: field='value'"; gone; stopped""",
    '16-indexing': r"""NS=default; K="$KUBECTL -n default"; $K run kopf-indexed --image=busybox --restart=Never --labels=kopf=indexed --command -- sh -c 'exec sleep 100'
$K wait --for=condition=Ready pod/kopf-indexed --timeout=60s; operator 16-indexing --standalone; begun; made
is '{.status.running-pods}' '*default::kopf-indexed*'; log "\('kopf', 'indexed'\): .*kopf-indexed"; gone; $K delete pod kopf-indexed --now; stopped""",
    '99-all-at-once': r"""operator 99-all-at-once --standalone; log 'Starting retried'; begun; made
log "Handler 'create_1' succeeded" "'create_2' failed with an exception" "Handler 'create_2' succeeded" "Handler 'create_pod' succeeded" 'This pod is special for us' 'Creation is processed'
is '{.status.create_1.job1-status}{.status.create_2.job2-status}' 100100; event 'Normal AnyReason'; event 'Warning SomeReason Cannot do something'
changed '{"spec":{"lst":["a"]}}'; log 'Handling the FIELD = None -> ' 'Handling the diff'; gone; log 'Deleted, really deleted'; stopped""",
}
"""Example → check; these may run at once."""

ALONE: dict[str, str] = {
    '12-embedded': r"""start "$PYTHON" 12-embedded/example.py; log 'Hello, kopf-example-0!' 'Good bye, kopf-example-0!' 'Hello, kopf-example-1!' 'Exiting the main app'
wait $PID""",
    '17-admission': r"""openssl req -x509 -newkey rsa:2048 -nodes -keyout key.pem -out cert.pem -days 1 -subj /CN=localhost -addext subjectAltName=DNS:localhost 2>/dev/null
cat >ours.py <<PY
import kopf
@kopf.on.startup()
def ours(settings, **_):
    settings.admission.server = kopf.WebhookServer(addr='127.0.0.1', port=$PORT, host='localhost', certfile='$PWD/cert.pem', pkeyfile='$PWD/key.pem', cafile='$PWD/cert.pem')
PY
trap 'kill $PIDS 2>/dev/null || true; wait || true; $KUBECTL delete mutatingwebhookconfiguration,validatingwebhookconfiguration auto.kopf.dev' EXIT
start "$PYTHON" -m kopf run -n "$NS" --verbose --standalone 17-admission/example.py "$PWD/ours.py"; for k in mutating validating; do
    for i in $(seq 200); do $KUBECTL get ${k}webhookconfiguration auto.kopf.dev -o jsonpath={.webhooks[0].name} 2>/dev/null | grep . && break; sleep 0.2; done
done
made 2>warned; grep 'Accessing as user-agent' warned; grep 'Also update status.field' warned; is {.spec.injected} 123
! changed '{"spec":{"field":"wrong"}}' 2>err; grep "Meh! I don't like it" err; ! changed '{"spec":{"field":"not-allowed"}}' 2>err; grep "too lazy anyway" err
! $K patch kex kopf-example-1 --subresource=status --type=merge -p '{"status":{"field":"x"}}' 2>err; grep 'status.field MUST be equal' err
$K patch kex kopf-example-1 --subresource=status --type=merge -p '{"status":{"field":"value"}}'; is {.status.field} value; gone; stopped""",
}
"""These act on every namespace: one after the other, after the rest."""


@contextmanager
def fetched() -> Iterator[tuple[Path | None, Path, str]]:
    """(directory of the examples or None, directory of their libraries, why there are none)."""
    with tempfile.TemporaryDirectory() as place:
        root = Path(place)
        release = f'kopf=={version("kopf")}'
        pip = [sys.executable, '-m', 'pip', '--disable-pip-version-check', '-q']
        for arguments in (
            ['download', '--no-deps', '--no-binary', ':all:', '-d', str(root), release],
            ['install', '--target', str(root / 'libraries'), *LIBRARIES],
        ):
            done = subprocess.run([*pip, *arguments], capture_output=True, text=True, check=False)
            if done.returncode:
                yield None, root, f'pip could not fetch {arguments[-1]}: {done.stderr.strip().splitlines()[-1]}'
                return
        with tarfile.open(next(root.glob('kopf-*.tar.gz'))) as archive:
            archive.extractall(root / 'source', filter='data')
        yield next((root / 'source').glob('kopf-*/examples')), root / 'libraries', ''
