# ruff: noqa: E501 — shell scripts read better unbroken
"""What `scripts/compatibility.py` runs: shell scripts by kubectl verb, and snippets by Python client."""

from __future__ import annotations

DEPLOYMENT = """
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, labels: {app: web}}
spec:
  replicas: 1
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      terminationGracePeriodSeconds: 1
      containers: [{name: c, image: busybox, command: [sh, -c, 'echo ready; exec sleep 1000'], ports: [{containerPort: 80}]}]
"""

SETUP = f"""
$KUBECTL create namespace $NS
for i in $(seq 50); do $K get serviceaccount default >/dev/null 2>&1 && break; sleep 0.1; done
$K apply -f - <<'END'
{DEPLOYMENT}
END
$K rollout status deploy/web --timeout=60s
$K run p --image=busybox --restart=Never --command -- sh -c 'echo hello; exec sleep 1000'
$K wait --for=condition=Ready pod/p --timeout=60s
"""

# Several versions are tried at once on one machine: a server on every address would take the others' port.
_HTTP = """$K run http --image=python --restart=Never --command -- sh -c 'exec python3 -m http.server 8099 --bind $POD_IP'
$K wait --for=condition=Ready pod/http --timeout=60s
trap '$K delete pod http --now --timeout=30s' EXIT
for i in $(seq 100); do $KUBECTL get --raw /api/v1/namespaces/$NS/pods/http:8099/proxy/ >/dev/null 2>&1 && break; sleep 0.2; done
"""

VERBS: dict[str, str] = {
    'get (every output)': """for o in wide yaml json name jsonpath={.items[0].metadata.name} custom-columns=N:.metadata.name \
        'go-template={{len .items}}'; do $K get pods -o "$o" | grep . >/dev/null; done
$K get all | grep deployment.apps/web; $K get pods -A | grep $NS; $K get deploy web --show-labels | grep app=web
$K get pods --sort-by=.metadata.name; $K get pod p --show-managed-fields -o yaml | grep managedFields""",
    'get --watch': """(timeout 5 $K get cm -w >out || true) & sleep 1; $K create cm watched; wait; grep watched out""",
    'get --raw': '$KUBECTL get --raw /readyz | grep ok; $KUBECTL get --raw /metrics | grep -c apiserver_',
    'get -l, --field-selector, --chunk-size': """$K get pods -l app=web | grep web; $K get pods -l 'app notin (web)' | grep -v web
$K get pods --field-selector=status.phase=Running,metadata.name=p --chunk-size=1 | grep p""",
    'describe': """$K describe pod p | grep Status; $K describe deploy web | grep Replicas; $KUBECTL describe node | grep Capacity
$K describe sa default; $KUBECTL describe ns $NS; $K describe svc; $K describe rs | grep Replicas""",
    'apply (client side)': """echo '{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"ap"},"data":{"a":"1"}}' >f
$K apply -f f | grep created; $K apply -f f | grep unchanged; sed -i s/1\\"}/2\\"}/ f; $K apply -f f | grep configured
$K apply view-last-applied -f f | grep a; $K apply set-last-applied -f f""",
    'apply --server-side': """echo '{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"ss"},"data":{"a":"1"}}' >f
$K apply --server-side -f f | grep serverside-applied; $K apply --server-side --field-manager=other -f f
sed -i s/1\\"}/2\\"}/ f; ! $K apply --server-side -f f 2>err; grep conflict err; $K apply --server-side --force-conflicts -f f""",
    'apply --prune': """echo '{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"pr","labels":{"x":"prune"}}}' >f
$K apply -f f; sed -i s/\\"pr\\"/\\"pr2\\"/ f; $K apply --prune -l x=prune -f f | grep pruned""",
    'apply: mistakes in one line': """printf 'apiVersion: apps/v1\\nkind: Deploymint\\nmetadata: {name: x}\\n' >f
! $K apply -f f 2>err; grep 'no matches for kind "Deploymint" in version "apps/v1"' err
printf 'apiVersion: v1\\n kind: [' >f; ! $K apply -f f 2>err; grep -i yaml err; test $(wc -l <err) -le 2
printf 'apiVersion: none.example/v1\\nkind: X\\nmetadata: {name: x}\\n' >f; ! $K apply -f f 2>err; grep 'no matches for kind' err""",
    'create -f': 'echo \'{"apiVersion":"v1","kind":"ConfigMap","metadata":{"generateName":"g-"}}\' | $K create -f - | grep created',
    'create configmap, secret': """$K create configmap cm --from-literal=a=b; $K create secret generic se --from-literal=a=b
$K create secret tls t --cert=/dev/null --key=/dev/null 2>/dev/null || true
$K create secret docker-registry dr --docker-server=s --docker-username=u --docker-password=p""",
    'create deployment, job, cronjob': """$K create deployment cd --image=i --replicas=0; $K create job cj --image=i -- true
$K create cronjob cc --image=i --schedule='0 0 1 1 *' -- true; $K create job from-cj --from=cronjob/cc""",
    'create namespace, quota, limits': """$KUBECTL create namespace $NS-x; $K create quota q --hard=pods=100
$KUBECTL delete namespace $NS-x --wait=false""",
    'create role, rolebinding, cluster*': """$K create role r --verb=get --resource=pods; $K create rolebinding rb --role=r --user=u
$KUBECTL create clusterrole $NS --verb=get --resource=pods,deployments.apps; $KUBECTL create clusterrolebinding $NS --clusterrole=$NS --user=u
$KUBECTL delete clusterrole,clusterrolebinding $NS""",
    'create service, ingress, pdb, sa': """$K create service clusterip ci --tcp=80:80; $K create service nodeport np --tcp=80:80
$K create service loadbalancer lb --tcp=80; $K create service externalname en --external-name=example.com
$K create ingress in --rule=a.example/b=ci:80; $K create poddisruptionbudget pb --selector=a=b --min-available=1; $K create sa sa""",
    'create priorityclass': '$KUBECTL create priorityclass $NS --value=5; $KUBECTL delete priorityclass $NS',
    'create token': '$K create token default | grep -c [.]',
    'run': '$K run r1 --image=i --restart=Never --labels=a=b --env=A=B --port=80 --dry-run=server -o yaml | grep containerPort',
    'edit': """$K create cm ed --from-literal=a=1; printf '#!/bin/sh\\nsed -i s/1/2/ $1\\n' >e; chmod +x e
sed -i 's/"1"/"1"/' e; printf '#!/bin/sh\\nsed -i "s/a: .1./a: two/" $1\\n' >e; EDITOR=$PWD/e $K edit cm ed | grep edited
$K get cm ed -o jsonpath={.data.a} | grep two""",
    'patch (all types, --subresource)': """$K patch deploy web -p '{"metadata":{"annotations":{"x":"y"}}}'
$K patch deploy web --type=merge -p '{"metadata":{"annotations":{"x":"z"}}}'
$K patch deploy web --type=json -p '[{"op":"remove","path":"/metadata/annotations/x"}]'
$K patch deploy web --subresource=status --type=merge -p '{"status":{"observedGeneration":1}}'
$K patch deploy web --subresource=scale --type=merge -p '{"spec":{"replicas":1}}'""",
    'replace': """$K create cm re --from-literal=a=1; $K get cm re -o yaml | sed 's/a: "1"/a: "2"/' | $K replace -f - | grep replaced
$K get cm re -o yaml | $K replace --force -f - | grep replaced""",
    'delete': """$K create cm d1; $K create cm d2; $K label cm d1 d2 del=me; $K delete cm -l del=me | grep -c deleted | grep 2
$K delete cm none --ignore-not-found; ! $K delete cm none 2>err; grep NotFound err
$K create deployment dd --image=i --replicas=0; $K delete deploy dd --cascade=foreground --timeout=30s""",
    'delete pod (grace, force)': """for n in g1 g2; do $K run $n --image=busybox --command -- sleep 1000; done
$K delete pod g1 --grace-period=1 --timeout=60s; $K delete pod g2 --force --grace-period=0""",
    'label, annotate': """$K label deploy web l=1; $K label deploy web l=2 --overwrite; $K label deploy web l-; ! $K label deploy web app=x
$K annotate deploy web n=1; $K annotate deploy web n-; $K label deploy --all m=1 --list""",
    'scale': """$K scale deploy/web --replicas=2; $K scale deploy/web --current-replicas=2 --replicas=1
! $K scale deploy/web --current-replicas=7 --replicas=1""",
    'autoscale': '$K autoscale deploy web --min=1 --max=3 --cpu-percent=50; $K get hpa web | grep web; $K delete hpa web',
    'expose': '$K expose deploy web --port=80 --name=ex; $K expose pod p --port=80 --name=ex2; $K get ep ex',
    'rollout status, history, undo, pause, resume, restart': """$K set env deploy/web R=$RANDOM; $K rollout status deploy/web --timeout=60s
$K rollout history deploy/web | grep 2; $K rollout history deploy/web --revision=1 | grep Image; $K rollout pause deploy/web
$K rollout resume deploy/web; $K rollout undo deploy/web; $K rollout restart deploy/web; $K rollout status deploy/web --timeout=60s""",
    'set image, env, resources, selector, serviceaccount, subject': """$K set image deploy/web c=other --dry-run=server; $K set env deploy/web A=B
$K set resources deploy/web --limits=cpu=100m --dry-run=server; $K create service clusterip sel --tcp=80; $K set selector svc sel a=b
$K set serviceaccount deploy/web default --dry-run=server; $K create rolebinding sub --clusterrole=view --user=a
$K set subject rolebinding sub --user=b""",
    'wait': """$K wait --for=condition=Available deploy/web --timeout=60s; $K wait --for=jsonpath={.status.phase}=Running pod/p --timeout=30s
$K run w --image=busybox --command -- sleep 1000; $K delete pod w --now --wait=false; $K wait --for=delete pod/w --timeout=60s""",
    'diff': """echo '{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"df"},"data":{"a":"1"}}' >f; ! $K diff -f f; $K apply -f f; $K diff -f f
sed -i s/1\\"}/2\\"}/ f; ! $K diff -f f >out; grep '^+' out; ! $K diff --server-side --force-conflicts -f f""",
    'explain': """$K explain pod.spec.containers.livenessProbe | grep httpGet; $K explain deploy --recursive | grep replicas
$K explain cronjob.spec | grep schedule; $K explain hpa --api-version=autoscaling/v2 | grep spec""",
    'api-resources, api-versions': """$KUBECTL api-resources | grep deployments; $KUBECTL api-resources --namespaced=false -o name | grep nodes
$KUBECTL api-resources --api-group=apps -o wide | grep create; $KUBECTL api-versions | grep '^v1$'""",
    'auth can-i': """$K auth can-i get pods | grep yes; $K auth can-i --list | grep '\\*'; ! $K auth can-i get pods --as=nobody
$K auth can-i get pods --subresource=log""",
    'auth whoami': '$KUBECTL auth whoami | grep Username',
    'auth reconcile': """echo '{"apiVersion":"rbac.authorization.k8s.io/v1","kind":"Role","metadata":{"name":"rec","namespace":"'$NS'"},"rules":[]}' >f
$K auth reconcile -f f""",
    'certificate approve, deny': """openssl req -new -newkey rsa:2048 -nodes -keyout k -subj /CN=x -out csr 2>/dev/null
for n in a d; do $KUBECTL create -f - <<END
{"apiVersion":"certificates.k8s.io/v1","kind":"CertificateSigningRequest","metadata":{"name":"$NS-$n"},
 "spec":{"request":"$(base64 -w0 csr)","signerName":"kubernetes.io/kube-apiserver-client","usages":["client auth"]}}
END
done
$KUBECTL certificate approve $NS-a; $KUBECTL certificate deny $NS-d; $KUBECTL get csr $NS-d | grep Denied; $KUBECTL delete csr $NS-a $NS-d""",
    'cordon, uncordon': 'N=$($KUBECTL get nodes -o name | tail -1); flock /tmp/compat.node sh -c "$KUBECTL cordon $N; $KUBECTL uncordon $N"',
    'drain': """N=$($KUBECTL get nodes -o name | tail -1 | cut -d/ -f2)
flock /tmp/compat.node sh -c "$KUBECTL drain $N --dry-run=server --ignore-daemonsets --force --delete-emptydir-data" """,
    'taint': """N=$($KUBECTL get nodes -o name | tail -1 | cut -d/ -f2)
$KUBECTL taint node $N $NS=x:PreferNoSchedule; $KUBECTL taint node $N $NS=y:PreferNoSchedule --overwrite; $KUBECTL taint node $N $NS-""",
    'top node': '$KUBECTL top node | grep %; $KUBECTL top node --sort-by=cpu --no-headers | grep Mi',
    'top pod': """for i in $(seq 100); do $K top pod p >/dev/null 2>&1 && break; sleep 0.2; done  # until the first sample
$K top pod p | grep Mi; $K top pod --containers -l run=p | grep 'p *p '; $K top pod -A --sum | grep $NS""",
    'logs': """$K logs p | grep hello; $K logs deploy/web --tail=1 | grep ready; $K logs -l app=web --prefix; $K logs p --timestamps | grep T
(timeout 3 $K logs -f p || true) | grep hello; ! $K logs p -c none""",
    'exec': """head -c 10000000 /dev/urandom >r; $K exec -i p -- cat <r | cmp - r; $K exec p -- echo out | grep out; echo in | $K exec -i p -- cat | grep in; ! $K exec p -- false
rc=0; $K exec p -- sh -c 'exit 3' || rc=$?; test $rc = 3; $K exec deploy/web -- true""",
    'attach': """$K run at --image=busybox --restart=Never -i --attach=false --command -- sh -c 'read x; echo got $x; sleep 1'
$K wait --for=condition=Ready pod/at --timeout=60s; echo word | $K attach -i at | grep 'got word'
(timeout 3 $K attach p || true) >/dev/null 2>err; ! grep -i error err; $K delete pod at --now --wait=false""",
    'cp': 'echo content >a; $K cp a p:/tmp/$NS-copied; $K cp p:/tmp/$NS-copied b; grep content b',
    'port-forward': _HTTP
    + """$K port-forward pod/http :8099 >pf 2>&1 & PF=$!; trap 'kill $PF || true; $K delete pod http --now --wait=false' EXIT
for i in $(seq 100); do grep -q Forwarding pf && break; sleep 0.1; done
curl -sf http://127.0.0.1:$(sed -n 's/.*127.0.0.1:\\([0-9]*\\) .*/\\1/p' pf | head -1)/ | grep -i directory""",
    'proxy': """$KUBECTL proxy --port=0 >px & PX=$!; trap 'kill $PX' EXIT; for i in $(seq 100); do grep -q Starting px && break; sleep 0.1; done
curl -sf http://$(grep -o '127.*' px)/api/v1/namespaces/$NS | grep Namespace""",
    'proxy to a pod and a service': _HTTP
    + """$KUBECTL get --raw /api/v1/namespaces/$NS/pods/http:8099/proxy/ | grep -i directory
$K label pod http s=http; $K create service clusterip hs --tcp=80:8099; $K set selector svc hs s=http
for i in $(seq 50); do $K get endpoints hs -o jsonpath={.subsets[0].addresses[0].ip} | grep . && break; sleep 0.2; done
$KUBECTL get --raw /api/v1/namespaces/$NS/services/hs:80/proxy/ | grep -i directory""",
    'proxy to a node': """N=$($KUBECTL get nodes -o name | tail -1 | cut -d/ -f2); $KUBECTL get --raw /api/v1/nodes/$N/proxy/healthz | grep ok""",
    'debug (ephemeral container)': '$K debug p --image=busybox --container=dbg -- sleep 5; $K get pod p -o yaml | grep ephemeralContainers',
    'debug --copy-to': '$K debug p --image=busybox --copy-to=pcopy --container=x -- sleep 5; $K get pod pcopy; $K delete pod pcopy --now --wait=false',
    'events': '$K events >e; grep -i pod e; $K events --for pod/p >e; grep -i scheduled e; $K get events --sort-by=.lastTimestamp >e; grep . e',
    'cluster-info (dump)': '$KUBECTL cluster-info | grep -i running; $KUBECTL cluster-info dump --namespaces=$NS >d; grep -q PodList d',
    'version': '$KUBECTL version | grep -i server',
    'config': '$KUBECTL config view | grep server; $KUBECTL config current-context; $KUBECTL config get-contexts',
    'kustomize, apply -k': """mkdir kz; echo '{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"kz"}}' >kz/c.yaml
printf 'resources: [c.yaml]\\nnamePrefix: pre-\\n' >kz/kustomization.yaml; $KUBECTL kustomize kz | grep pre-kz; $K apply -k kz""",
    'options, completion, plugin': '$KUBECTL options | grep kubeconfig; $KUBECTL completion bash | grep -c kubectl; $KUBECTL plugin list || true',
}

KNOWN_MISSING: dict[str, str] = {}
"""Check → why it fails with some kubectl; anything else that fails is a defect."""

_LOAD = 'import os\nNS = "compat-clients"\n'
CLIENTS: dict[str, dict[str, str]] = {
    'kubernetes': {
        'create, read, patch, list, watch, delete': _LOAD
        + """
from kubernetes import client, config, watch
config.load_kube_config()
v1 = client.CoreV1Api()
name = 'py-sync'
v1.create_namespaced_config_map('default', {'metadata': {'name': name}, 'data': {'a': 'b'}})
assert v1.read_namespaced_config_map(name, 'default').data == {'a': 'b'}
v1.patch_namespaced_config_map(name, 'default', {'data': {'c': 'd'}})
v1.patch_namespaced_config_map(name, 'default', [{'op': 'remove', 'path': '/data/a'}])
assert any(c.metadata.name == name for c in v1.list_namespaced_config_map('default').items)
seen = next(iter(watch.Watch().stream(v1.list_namespaced_config_map, 'default', timeout_seconds=10)))
assert seen['type'] == 'ADDED'
v1.delete_namespaced_config_map(name, 'default')
assert client.VersionApi().get_code().minor == '33'
""",
        'dynamic client': """
from kubernetes import client, config, dynamic
d = dynamic.DynamicClient(config.new_client_from_config())
api = d.resources.get(api_version='apps/v1', kind='Deployment')
assert api.get(namespace='default') is not None
n = d.resources.get(api_version='v1', kind='Namespace')
assert n.get(name='default').metadata.name == 'default'
""",
        'logs and exec': """
from kubernetes import client, config, watch
from kubernetes.stream import stream
config.load_kube_config()
v1 = client.CoreV1Api()
container = {'name': 'c', 'image': 'busybox', 'command': ['sh', '-c', 'echo said; exec sleep 1000']}
spec = {'containers': [container], 'terminationGracePeriodSeconds': 0}
v1.create_namespaced_pod('default', {'metadata': {'name': 'py-exec'}, 'spec': spec})
w = watch.Watch()
for event in w.stream(v1.list_namespaced_pod, 'default', field_selector='metadata.name=py-exec', timeout_seconds=60):
    if event['object'].status.phase == 'Running':
        w.stop()
assert next(iter(w.stream(v1.read_namespaced_pod_log, 'py-exec', 'default', follow=True))) == 'said'
out = stream(v1.connect_get_namespaced_pod_exec, 'py-exec', 'default', command=['echo', 'hi'], stdout=True, stderr=True)
assert 'hi' in out, out
v1.delete_namespaced_pod('py-exec', 'default')
""",
        'leader election': """
import os
import threading
from kubernetes import client, config
from kubernetes.leaderelection import electionconfig, leaderelection
from kubernetes.leaderelection.resourcelock.leaselock import LeaseLock
config.load_kube_config()
led = threading.Event()
lock = LeaseLock('py-leader', 'default', 'me')
settings = electionconfig.Config(lock, lease_duration=3, renew_deadline=2, retry_period=1, onstarted_leading=led.set, onstopped_leading=None)
threading.Thread(target=leaderelection.LeaderElection(settings).run, daemon=True).start()
assert led.wait(20)
assert client.CoordinationV1Api().read_namespaced_lease('py-leader', 'default').spec.holder_identity == 'me'
os._exit(0)  # the election knows no end
""",
        'watch from a version, version to come': """
from kubernetes import client, config, watch
from kubernetes.client.rest import ApiException
config.load_kube_config()
v1 = client.CoreV1Api()
version = v1.list_namespaced_config_map('default').metadata.resource_version
for n in ('a', 'b'):
    v1.create_namespaced_config_map('default', {'metadata': {'name': f'py-resume-{n}'}})
w = watch.Watch()
first = next(iter(w.stream(v1.list_namespaced_config_map, 'default', resource_version=version, timeout_seconds=20)))
second = next(iter(w.stream(v1.list_namespaced_config_map, 'default', resource_version=first['object'].metadata.resource_version, timeout_seconds=20)))
assert [e['object'].metadata.name for e in (first, second)] == ['py-resume-a', 'py-resume-b']
for n in ('a', 'b'):
    v1.delete_namespaced_config_map(f'py-resume-{n}', 'default')
try:
    v1.list_namespaced_config_map('default', resource_version='999999999')
    raise AssertionError('a version to come was listed')
except ApiException as e:
    assert e.status == 504, e
""",
        'dynamic client: apply, patch, watch, delete': """
from kubernetes import config, dynamic
d = dynamic.DynamicClient(config.new_client_from_config())
api = d.resources.get(api_version='v1', kind='ConfigMap')
body = {'apiVersion': 'v1', 'kind': 'ConfigMap', 'metadata': {'name': 'py-dynamic', 'namespace': 'default'}, 'data': {'a': 'b'}}
made = api.server_side_apply(body=body, field_manager='dynamic', name='py-dynamic', namespace='default')
assert made.metadata.managedFields[0].operation == 'Apply'
api.patch(body={'data': {'c': 'd'}}, name='py-dynamic', namespace='default', content_type='application/merge-patch+json')
assert api.get(name='py-dynamic', namespace='default').data.to_dict() == {'a': 'b', 'c': 'd'}
seen = next(iter(api.watch(namespace='default', field_selector='metadata.name=py-dynamic', timeout=20)))
assert (seen['type'], seen['object'].metadata.name) == ('ADDED', 'py-dynamic')
api.delete(name='py-dynamic', namespace='default')
""",
    },
    'kubernetes_asyncio': {
        'create, list, watch, delete': """
import asyncio
from kubernetes_asyncio import client, config, watch
async def main():
    await config.load_kube_config()
    async with client.ApiClient() as api:
        v1 = client.CoreV1Api(api)
        await v1.create_namespaced_config_map('default', client.V1ConfigMap(metadata=client.V1ObjectMeta(name='py-async')))
        await v1.patch_namespaced_config_map('py-async', 'default', {'data': {'a': 'b'}})
        async with watch.Watch().stream(v1.list_namespaced_config_map, 'default', timeout_seconds=10) as events:
            async for event in events:
                assert event['type'] == 'ADDED'
                break
        await v1.delete_namespaced_config_map('py-async', 'default')
asyncio.run(main())
""",
    },
    'kr8s': {
        'create, get, patch, scale, delete': """
import kr8s
from kr8s.objects import ConfigMap, Pod
cm = ConfigMap({'apiVersion': 'v1', 'kind': 'ConfigMap', 'metadata': {'name': 'py-kr8s', 'namespace': 'default'}, 'data': {'a': 'b'}})
cm.create()
assert cm.exists()
cm.patch({'data': {'c': 'd'}})
cm.label({'x': 'y'})
cm.refresh()
assert cm.labels['x'] == 'y'
assert [c for c in kr8s.get('configmaps', namespace='default', label_selector={'x': 'y'})]
assert kr8s.api().version()['minor'] == '33'
cm.delete()
""",
    },
    'lightkube': {
        'create, apply, patch, list, watch, delete': """
from lightkube import Client
from lightkube.resources.core_v1 import ConfigMap, Pod
from lightkube.models.meta_v1 import ObjectMeta
from lightkube.types import PatchType
c = Client(field_manager='lightkube')
c.create(ConfigMap(metadata=ObjectMeta(name='py-light', namespace='default'), data={'a': 'b'}))
c.patch(ConfigMap, 'py-light', {'data': {'c': 'd'}}, namespace='default')
c.apply(ConfigMap(apiVersion='v1', kind='ConfigMap', metadata=ObjectMeta(name='py-light', namespace='default'), data={'e': 'f'}))
assert set(c.get(ConfigMap, 'py-light', namespace='default').data) == {'a', 'c', 'e'}
assert any(m.metadata.name == 'py-light' for m in c.list(ConfigMap, namespace='default'))
for op, found in c.watch(ConfigMap, namespace='default', server_timeout=10):
    assert op == 'ADDED'
    break
c.delete(ConfigMap, 'py-light', namespace='default')
""",
    },
    'kopf': {
        'an operator with create, update and delete handlers': """
import threading, time
import kopf
from kopf.testing import KopfRunner
from kubernetes import client, config
SOURCE = '''
import kopf
@kopf.on.create('', 'v1', 'configmaps', labels={'kopf': 'yes'})
def made(name, patch, logger, **_):
    patch.metadata.annotations['made'] = 'true'
@kopf.on.update('', 'v1', 'configmaps', labels={'kopf': 'yes'})
def changed(patch, **_):
    patch.metadata.annotations['changed'] = 'true'
@kopf.on.delete('', 'v1', 'configmaps', labels={'kopf': 'yes'})
def gone(**_):
    print('handler gone')
'''
import tempfile
f = tempfile.NamedTemporaryFile('w', suffix='.py', delete=False)
f.write(SOURCE)
f.close()
config.load_kube_config()
v1 = client.CoreV1Api()
def until(check):
    for _ in range(200):
        try:
            if check(): return
        except client.ApiException as e:
            if e.status == 404 and check is missing: return
            raise
        time.sleep(0.1)
    raise AssertionError(check)
read = lambda: v1.read_namespaced_config_map('py-kopf', 'default')
missing = lambda: not read()
with KopfRunner(['run', '--namespace=default', f.name], timeout=60) as runner:
    v1.create_namespaced_config_map('default', {'metadata': {'name': 'py-kopf', 'labels': {'kopf': 'yes'}}})
    until(lambda: (read().metadata.annotations or {}).get('made'))
    v1.patch_namespaced_config_map('py-kopf', 'default', {'data': {'a': 'b'}})
    until(lambda: (read().metadata.annotations or {}).get('changed'))
    v1.delete_namespaced_config_map('py-kopf', 'default')
    until(missing)
assert runner.exit_code == 0, runner.output
""",
    },
}
