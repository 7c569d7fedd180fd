"""The cluster's name server: names of Services and pods from watch caches, everything else from the machine's own."""
