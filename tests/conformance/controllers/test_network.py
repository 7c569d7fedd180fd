"""Upstream's conformance tests of services and their endpoints that need controllers, but no data plane."""

from __future__ import annotations

import pytest

from kcore.meta.gvk import CONFIGMAPS, ENDPOINTS, ENDPOINTSLICES, NAMESPACES, SERVICES

conformance = pytest.mark.conformance


@pytest.fixture
def slices_of(admin):
    """All addresses and ports of a service's slices, sorted."""

    async def ask(service: str) -> tuple[list[str], list[tuple[str, int]]]:
        found = (
            await admin.list(ENDPOINTSLICES, 'default', label_selector=f'kubernetes.io/service-name={service}')
        ).items
        addresses = sorted(a for s in found for e in s.get('endpoints') or () for a in e['addresses'])
        return addresses, sorted({(p['name'], p['port']) for s in found for p in s.get('ports') or ()})

    return ask


@conformance('EndpointSlice should have Endpoints and EndpointSlices pointing to API Server')
async def test_endpoints_and_slices_point_to_the_api_server(admin, until, exists, slices_of):
    async def published():
        found = await exists(admin, ENDPOINTS, 'kubernetes', 'default')
        return (found or {}).get('subsets')

    [subset] = await until(published)
    port = int(admin.config.servers[0].rpartition(':')[2])
    assert ([a['ip'] for a in subset['addresses']], [p['port'] for p in subset['ports']]) == (['127.0.0.1'], [port])
    await until(lambda: _is(slices_of('kubernetes'), (['127.0.0.1'], [('https', port)])))


async def _is(asked, wanted) -> bool:
    return await asked == wanted


@conformance('EndpointSliceMirroring should mirror a custom Endpoints resource through create update and delete')
async def test_endpoints_written_by_hand_are_mirrored(admin, controllers, until, slices_of):
    await controllers('endpointslicemirroring', 'gc')
    meta = {'name': 'example-custom-endpoints', 'namespace': 'default'}
    await admin.create(
        SERVICES, {'metadata': meta, 'spec': {'ports': [{'name': 'example', 'port': 80, 'protocol': 'TCP'}]}}
    )
    ports = [{'name': 'example', 'port': 80, 'protocol': 'TCP'}]
    made = await admin.create(
        ENDPOINTS, {'metadata': meta, 'subsets': [{'addresses': [{'ip': '10.1.2.3'}], 'ports': ports}]}
    )
    await until(lambda: _is(slices_of(meta['name']), (['10.1.2.3'], [('example', 80)])))
    [mirror] = (
        await admin.list(ENDPOINTSLICES, 'default', label_selector=f'kubernetes.io/service-name={meta["name"]}')
    ).items
    assert (
        mirror['metadata']['labels']['endpointslice.kubernetes.io/managed-by']
        == 'endpointslicemirroring-controller.k8s.io'
    )
    made['subsets'][0]['addresses'][0]['ip'] = '10.2.3.4'
    await admin.update(ENDPOINTS, made)
    await until(lambda: _is(slices_of(meta['name']), (['10.2.3.4'], [('example', 80)])))
    await admin.delete(ENDPOINTS, meta['name'], 'default')
    await until(lambda: _is(slices_of(meta['name']), ([], [])))


@conformance('Namespaces [Serial] should ensure that all services are removed when a namespace is deleted')
async def test_a_deleted_namespace_takes_its_services(admin, controllers, until, exists):
    await controllers('namespace')
    await admin.create(NAMESPACES, {'metadata': {'name': 'nsdeletetest'}})
    spec = {'selector': {'foo': 'bar'}, 'ports': [{'port': 80}]}
    await admin.create(SERVICES, {'metadata': {'name': 'test-service', 'namespace': 'nsdeletetest'}, 'spec': spec})
    await admin.delete(NAMESPACES, 'nsdeletetest')

    async def gone() -> bool:
        return await exists(admin, NAMESPACES, 'nsdeletetest') is None

    await until(gone)
    await admin.create(NAMESPACES, {'metadata': {'name': 'nsdeletetest'}})
    assert (await admin.list(SERVICES, 'nsdeletetest')).items == []


@conformance('ServiceAccounts should guarantee kube-root-ca.crt exist in any namespace')
async def test_every_namespace_has_the_root_certificate(admin, controllers, until, exists):
    await controllers('rootca')
    name = 'kube-root-ca.crt'

    async def right() -> bool:
        found = await exists(admin, CONFIGMAPS, name, 'default')
        return found is not None and 'BEGIN CERTIFICATE' in (found.get('data') or {}).get('ca.crt', '')

    await until(right)
    first = (await admin.get(CONFIGMAPS, name, 'default'))['metadata']['uid']
    await admin.delete(CONFIGMAPS, name, 'default')

    async def again() -> bool:
        return await right() and (await admin.get(CONFIGMAPS, name, 'default'))['metadata']['uid'] != first

    await until(again)
    await admin.patch(CONFIGMAPS, name, {'data': {'ca.crt': ''}}, 'default')
    await until(right)
