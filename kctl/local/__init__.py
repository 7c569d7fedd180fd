"""A cluster of processes on this machine: layout, certificates, supervisor, up and down."""
