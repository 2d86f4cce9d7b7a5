"""The kernel path beside what it could at most do, and beside the kernel's own NAT.

    python -m tests.bench.kernel [PART...]

Lives here: order and words; the cases are in kernel_cases.py and kernel_others.py. Exit code 1 if a bound is
missed. Root, two CPUs of a machine that does nothing else, and some five minutes.
"""

from __future__ import annotations

import os
import sys
import textwrap
from pathlib import Path

from l4raw.netns.process import temporary_folder

from l4raw.bench.bed import BALANCER_CPU, GENERATOR_CPU
from tests.bench import kernel_cases, kernel_others
from tests.bench.kernel_cases import Row
from tests.bench.run import machine

GROUPS = kernel_cases.GROUPS | kernel_others.GROUPS
NOTES = (
    f"Kernel path: everything is done on CPU {GENERATOR_CPU}, which is how veth works: the generator, the"
    " receiving softirq, the program under test, and the sink. So a ratio has the generator and the sink in"
    f" both of its terms. Python, and the queue's thread, have CPU {BALANCER_CPU}.",
    "Of XDP_TX: the balancer's program and one that only writes two MAC addresses change places under one"
    " flood, every 20 ms. The tables were filled before, by the same generator. Median of the pairs' ratios,"
    " with quartiles; the rates are those of the pair with the median ratio.",
    "Of nftables: DNAT with connection tracking, in a network of its own, without XDP at the balancer; turns"
    " of 0.25 s with a flood each. Frames go one way; both have an entry for each direction of each flow.",
    "Of the bare AF_XDP loop: the engine and the loop in networks of their own, turns of 0.25 s with a flood"
    f" each; both forward on CPU {BALANCER_CPU}.",
    "Added latency: see docs/performance.md. The point of DSR: all that the balancer's interfaces have"
    " received and sent, headers included, for what arrived at the client.",
    "Flow tables: the smallest power of two that holds the flows; under NAT twice as large.",
)


def main() -> int:
    """Measure and print; 1 if a bound is missed."""
    if os.geteuid() != 0 or (os.cpu_count() or 1) < 2:
        raise SystemExit("make bench needs root, to make network namespaces, and two CPUs")
    wanted = sys.argv[1:] or list(GROUPS)
    if unknown := set(wanted) - set(GROUPS):
        raise SystemExit(f"no such part: {', '.join(unknown)}; there are: {', '.join(GROUPS)}")
    subject = machine()
    print(f"kernel path: {subject}")
    rows: list[Row] = []
    with temporary_folder("l4raw-bench-") as folder:
        for name in wanted:
            print(f"\n{name}", flush=True)
            for row in GROUPS[name](Path(folder)):
                rows.append(row)
                print(f"  {row}", flush=True)
    print(f"\n{subject}; {os.getloadavg()[0]:.1f} after\n")
    print("| | measured | beside it | ratio | bound | |\n| --- | ---: | ---: | ---: | ---: | --- |")
    for row in rows:
        print(row.line())
    print()
    for note in NOTES:
        print(textwrap.fill(note, 110, initial_indent="- ", subsequent_indent="  "))
    missed = [row for row in rows if not row.met]
    for row in missed:
        print(f"missed: {row}")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
