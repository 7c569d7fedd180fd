"""Raft without I/O: what to send, store and apply is decided here; someone else does it.

`RaftCore` takes ticks, messages and proposals and hands out one `Ready` at a time: the duties, in order. It opens no
socket and no file, reads no clock and draws its randomness from a generator given to it, so that the same inputs
always give the same outputs. Theory: D. Ongaro, *Consensus: Bridging Theory and Practice*, 2014 ("the thesis").
"""
