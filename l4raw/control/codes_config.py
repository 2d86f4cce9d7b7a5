"""The codes of the configuration, L4R-1xx. The rules for codes are in codes.py."""

from __future__ import annotations

from l4raw.control.codes_entry import Code

CONFIG = (
    Code(
        "L4R-101",
        "no configuration file was found",
        "l4raw does nothing to a host that a file does not ask for.",
        "try `l4raw up --demo dsr`, or start a file with `l4raw config template > l4raw.toml`",
    ),
    Code(
        "L4R-102",
        "the configuration file cannot be read",
        "the file that was named does not exist, is not a plain text file, or may not be read by this user.",
        "check the path and the permissions",
    ),
    Code(
        "L4R-103",
        "the file is not TOML",
        "the text breaks the grammar of TOML 1.0 here, so nothing after this place could be read.",
        "compare with `l4raw config template`; strings need quotes, list items need commas",
    ),
    Code(
        "L4R-104",
        "a required key is missing",
        "this key has no default that would be right on every network.",
        "add it; `l4raw config template` shows every key",
    ),
    Code(
        "L4R-105",
        "a value has the wrong type",
        'values are not converted silently: 80 and "80" are different things in TOML.',
        "write the value as the type that the message names",
    ),
    Code(
        "L4R-106",
        "a list has the wrong length",
        "one interface means one-arm, two mean clients on the first and backends on the second.",
        'write one or two names, like interfaces = ["eth1", "eth2"]',
    ),
    Code(
        "L4R-107",
        "a number is out of range",
        "the value is outside of what the tables can hold or what makes sense.",
        "choose a value inside the range that the message gives",
    ),
    Code(
        "L4R-108",
        "unknown key",
        "a key that is not understood would be ignored, and a misspelled setting would go unnoticed.",
        "correct the spelling or remove the key; `l4raw config template` shows every key",
    ),
    Code(
        "L4R-109",
        "not an IP address",
        "IPv4 addresses are four numbers from 0 to 255 without leading zeros, IPv6 ones are as RFC 4291 has"
        " them; names are not looked up.",
        "write the address as in 10.77.0.11 or 2001:db8::11",
    ),
    Code(
        "L4R-110",
        "not a VIP",
        "a service is found by address, port and protocol, so all three are written.",
        'write vip = "ADDRESS:PORT/PROTOCOL", as in "10.77.0.100:80/tcp"; port 0 is every port',
    ),
    Code(
        "L4R-111",
        "port out of range",
        "TCP and UDP ports have 16 bits (RFC 9293 section 3.1, RFC 768).",
        "use a port from 1 to 65535; a VIP may also have port 0, every port",
    ),
    Code(
        "L4R-112",
        "unknown value",
        "this key takes one of a few words, and this is none of them.",
        "use one of the words that the message lists",
    ),
    Code(
        "L4R-113",
        "not in this version",
        "the name is part of the configuration's contract, but this version cannot honour it.",
        "docs/supported.md lists what is supported and what is not yet",
    ),
    Code(
        "L4R-114",
        "not a size or a duration",
        "a number without a unit could be read in two ways, and every unit has one name.",
        'sizes: "64MiB" (KiB, MiB, GiB); durations: "60s" (ms, s, m, h)',
    ),
    Code(
        "L4R-115",
        "not a usable name",
        "names appear in tables, logs and metrics; interface names have at most 15 bytes in Linux.",
        "use 1 to 64 letters, digits, dots, dashes or underscores",
    ),
    Code(
        "L4R-116",
        "not a range of ports",
        "a SNAT pool takes ports that follow each other, from the first to the last.",
        'write ports = "1024-65535", or one port: ports = "5000"',
    ),
    Code(
        "L4R-130",
        "two services have the same name",
        "counters and commands find a service by its name.",
        "rename one of them",
    ),
    Code(
        "L4R-131",
        "two services have the same VIP, port and protocol",
        "a frame could belong to both; a service is found by exactly these three.",
        "merge the two services, or change the port or the protocol of one",
    ),
    Code(
        "L4R-132",
        "two backends of a service have the same name",
        "counters and commands find a backend by its name.",
        "rename one of them",
    ),
    Code(
        "L4R-133",
        "two backends of a service have the same address and port",
        "it would be one server with two shares, and its counters would be split.",
        "remove one; to give a server a larger share, use weight",
    ),
    Code(
        "L4R-134",
        "a service without backends",
        "every new connection would be dropped.",
        'add at least one: backends = [{ name = "b1", address = "10.77.0.11" }]',
    ),
    Code(
        "L4R-135",
        "port on a backend under direct server return",
        "dsr-l2, dsr-ipip and dsr-gue deliver the client's packet as it is. The backend answers the client"
        " itself, so it must see the port that the client used.",
        'remove port and let the server listen on the port of the VIP, or use mode = "nat"',
    ),
    Code(
        "L4R-136",
        "weights with a scheduler that has none",
        "rr, lc and modulo give every backend the same share; only 0, no new flows, has a meaning there.",
        "use wrr instead of rr, wlc instead of lc, maglev instead of modulo; or remove weight",
    ),
    Code(
        "L4R-137",
        "every backend has weight 0",
        "weight 0 takes no new connections, so every new connection would be dropped.",
        "give at least one backend a weight of 1 to 100",
    ),
    Code(
        "L4R-138",
        "an address is both a VIP and a backend",
        "l4raw answers ARP for a VIP, so two machines would claim the address.",
        "give the backend its own address; under DSR it also has the VIP on lo, which is not written here",
    ),
    Code(
        "L4R-139",
        "not an address that a host can have",
        "0.0.0.0/8, loopback, multicast, broadcast and reserved addresses cannot be a VIP or a backend"
        " (RFC 1122 section 3.2.1.3, RFC 5771, RFC 6890).",
        "use the unicast address of the service or the server",
    ),
    Code(
        "L4R-140",
        "one interface named twice",
        "two interfaces mean two arms; one interface in both roles is one-arm.",
        "write one name for one-arm, two different names for two-arm",
    ),
    Code(
        "L4R-141",
        "nat with one interface: clients near the backends get no answer",
        "a backend answers a client of its own subnet directly, not through the balancer. That reply still"
        " has the backend's address, and the client refuses it.",
        'keep clients in another subnet, or use mode = "dsr-l2" or "fullnat", which have no such condition',
        warning=True,
    ),
    Code(
        "L4R-142",
        "a VIP in no subnet of the interfaces",
        "l4raw answers ARP for a VIP, but only who is in the VIP's subnet asks for it there. Others need a"
        " route that leads here.",
        "correct the VIP if it is a typo; else give the router a route to it, by an address of this host",
        warning=True,
    ),
    Code(
        "L4R-143",
        "a backend of another IP version than the VIP",
        "a frame keeps its IP version: no mode translates one into the other. In a tunnel"
        " (dsr-ipip, dsr-gue) either version travels in either.",
        "give the backend an address of the VIP's version, or make a second service",
    ),
)
