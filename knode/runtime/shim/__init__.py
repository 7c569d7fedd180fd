"""The pause shim: one small process a pod, parent of its containers, which outlives the node agent.

It imports nothing but the lean end of the standard library: hundreds of them run on one machine, each forked from
a warm zygote (`__main__`). See `core` for what it does and `knode.runtime.shim_client` for who talks to it.
"""
