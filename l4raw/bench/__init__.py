"""The benchmark: networks, load, sink, candidates in turns, and what is made of the figures.

Lives here: what `l4raw bench` and `make bench` share. Must not live here: how the command line looks, and
anything that a running balancer needs.
"""
