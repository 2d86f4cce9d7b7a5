"""l4raw: a layer-4 load balancer that a person can read.

Each package may import only those above it:

    wire      bytes: where each field is, checksums, the shared ABI
    core      decisions: services, rings, flows; core/steer.py is the page to read first
    engine    I/O: moves frames and obeys the verdict
    control   what may be slow: configuration, neighbours, ARP, the undo journal
    cli       words in, words out

Beside it: native/ has the header that C and Python share, netns/ the test networks.
"""

__version__ = "0.1.0"
