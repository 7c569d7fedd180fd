"""Claims and volumes: each bound claim has one volume, each bound volume one claim."""
