"""Bytes: where each field of a frame is, and nothing else.

No policy, no input or output, no state. Each module draws its header as the
RFC does and names every offset once; no other part of l4raw writes one.

A frame that carries TCP over IPv4 over Ethernet, offsets in bytes:

     0        6        12   14                       34            54
     +--------+--------+----+------------------------+-------------+---------
     | dst    | src    |type| IPv4 header            | TCP header  | payload
     | MAC    | MAC    |    | ttl 22, sum 24,        | ports 34,36 |
     |        |        |    | src 26, dst 30         | sum 50      |
     +--------+--------+----+------------------------+-------------+---------

Numbers are host integers, addresses are `bytes` in network order.
"""
