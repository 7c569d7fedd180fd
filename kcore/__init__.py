"""Foundation of Kubeling: time, chance, disk, network and processes behind one `Env`; tasks; logs; Kubernetes' nouns.

Knows no process of the cluster and no HTTP.
"""
