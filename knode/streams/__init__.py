"""Streams of the kubelet API: exec and attach over WebSockets, in the channel protocols of Kubernetes."""
