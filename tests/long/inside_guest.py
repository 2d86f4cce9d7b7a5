"""Runs in a guest: `l4raw up` in a network of namespaces there; prints what came of it.

    python -m tests.long.inside_guest dsr-l2|nat af_xdp|xdp

Prints one line of JSON: the pages that a client got, and the counters. Must
not live here: what they should be (test_guests.py).
"""

from __future__ import annotations

import json
import sys

from l4raw.netns import Log, dsr, nat
from l4raw.netns.clients import curl
from l4raw.netns.servers import web

from tests.integration import running
from tests.integration.napi import gro

REQUESTS = 5
SLOW_S = 150.0
"""As DEADLINE, for an emulated processor: it starts in 10 to 20 seconds."""


def main(mode: str, dataplane: str) -> None:
    running.DEADLINE = SLOW_S
    make = {"dsr-l2": dsr, "nat": nat}[mode]
    with make(backends=1, log=Log(silent=True)) as network, web(network.backends[0]):
        gro(network, "on" if dataplane == "xdp" else "off")
        with running.running(network, network.config_toml(dataplane=dataplane)) as balancer:
            url = f"http://{network.vip}/"
            pages = [curl(network.client, url, timeout=SLOW_S) for _ in range(REQUESTS)]
    told = [event for event in balancer.events if event["event"] == "kernel_path"]
    found = {"pages": pages, "dataplane": balancer.dataplane, "counters": balancer.counters, "told": told}
    print(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
