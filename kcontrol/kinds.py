"""Resources that controllers ask for and that the rest of the cluster's components need not know."""

from __future__ import annotations

from kcore.meta.gvk import Resource

CONTROLLERREVISIONS = Resource('apps', 'v1', 'controllerrevisions', 'ControllerRevision')
DAEMONSETS = Resource('apps', 'v1', 'daemonsets', 'DaemonSet')
STATEFULSETS = Resource('apps', 'v1', 'statefulsets', 'StatefulSet')
REPLICATIONCONTROLLERS = Resource('', 'v1', 'replicationcontrollers', 'ReplicationController')
JOBS = Resource('batch', 'v1', 'jobs', 'Job')
CRONJOBS = Resource('batch', 'v1', 'cronjobs', 'CronJob')
PODDISRUPTIONBUDGETS = Resource('policy', 'v1', 'poddisruptionbudgets', 'PodDisruptionBudget')
RESOURCEQUOTAS = Resource('', 'v1', 'resourcequotas', 'ResourceQuota')
STORAGECLASSES = Resource('storage.k8s.io', 'v1', 'storageclasses', 'StorageClass', namespaced=False)
VOLUMEATTACHMENTS = Resource('storage.k8s.io', 'v1', 'volumeattachments', 'VolumeAttachment', namespaced=False)
CSIDRIVERS = Resource('storage.k8s.io', 'v1', 'csidrivers', 'CSIDriver', namespaced=False)
CSISTORAGECAPACITIES = Resource('storage.k8s.io', 'v1', 'csistoragecapacities', 'CSIStorageCapacity')
HORIZONTALPODAUTOSCALERS = Resource('autoscaling', 'v2', 'horizontalpodautoscalers', 'HorizontalPodAutoscaler')
CERTIFICATESIGNINGREQUESTS = Resource(
    'certificates.k8s.io', 'v1', 'certificatesigningrequests', 'CertificateSigningRequest', namespaced=False
)
CLUSTERROLES = Resource('rbac.authorization.k8s.io', 'v1', 'clusterroles', 'ClusterRole', namespaced=False)
