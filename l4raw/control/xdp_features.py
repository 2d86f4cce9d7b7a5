"""What the kernel says of interfaces and XDP, and when it says something else.

It knows which interfaces send what XDP redirects to them, and tells of changes
(Documentation/netlink/specs/netdev.yaml; Linux 6.3 and later). As netlink.py,
this imports pyroute2, and only in functions. Must not live here: what follows.
"""

from __future__ import annotations

import socket
from typing import Any, Final, Self

from l4raw.control.errors import L4Error

_GET_DEVICE: Final = 1  # NETDEV_CMD_DEV_GET
_VERSION: Final = 1
_SENDS_REDIRECTED: Final = 4  # NETDEV_XDP_ACT_NDO_XMIT
_CHANGES: Final = "mgmt"  # the family's group for NETDEV_CMD_DEV_CHANGE_NTF


class XdpFeatures:
    """Questions, each answered at once, and news. For one thread. A context manager."""

    def __init__(self) -> None:
        """Raises L4R-304 on a kernel that has not the family, L4R-306 where it cannot be asked."""
        from pyroute2.netlink import NLM_F_REQUEST, genlmsg
        from pyroute2.netlink.exceptions import NetlinkError
        from pyroute2.netlink.generic import GenericNetlinkSocket

        class Device(genlmsg):  # type: ignore[misc]
            """struct nlattr of NETDEV_A_DEV_*."""

            prefix = "NETDEV_A_DEV_"
            nla_map = (
                ("NETDEV_A_DEV_UNSPEC", "none"),
                ("NETDEV_A_DEV_IFINDEX", "uint32"),
                ("NETDEV_A_DEV_PAD", "none"),
                ("NETDEV_A_DEV_XDP_FEATURES", "uint64"),
            )

        self._message, self._flags = Device, NLM_F_REQUEST
        self._refused = NetlinkError, OSError
        try:
            self._socket: Any = GenericNetlinkSocket()
        except self._refused as error:
            raise L4Error("L4R-306", what=f"opening a generic netlink socket: {error}") from error
        try:
            self._socket.bind("netdev", Device)
        except (*self._refused, KeyError) as error:
            self._socket.close()
            what = "this kernel does not tell which interfaces send what XDP redirects (Linux 6.3 does)"
            raise L4Error("L4R-304", what=what) from error
        self.news = _news(self._socket.mcast_groups.get(_CHANGES))
        """Can be read when the features of some interface have changed; None: nobody tells."""

    def take_news(self) -> None:
        """Forget them: all are asked again, which also does where some were lost."""
        try:
            while self.news and self.news.recv(1 << 16):
                pass
        except OSError:  # no more, or ENOBUFS
            pass

    def sends_redirected(self, index: int) -> bool:
        """Whether the interface with this index does now. Raises L4R-306 if the kernel does not say."""
        message = self._message()
        message["cmd"], message["version"] = _GET_DEVICE, _VERSION
        message["attrs"] = [("NETDEV_A_DEV_IFINDEX", index)]
        try:
            answers = list(
                self._socket.nlm_request(message, msg_type=self._socket.prid, msg_flags=self._flags)
            )
        except self._refused as error:
            raise L4Error("L4R-306", what=f"asking for XDP features: {error.args[-1]}") from error
        return bool(answers and answers[0].get_attr("NETDEV_A_DEV_XDP_FEATURES") & _SENDS_REDIRECTED)

    def close(self) -> None:
        """Close the sockets."""
        self._socket.close()
        if self.news:
            self.news.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _news(group: int | None) -> socket.socket | None:
    """A socket of its own: news and answers do not mix, and a thread can wait for it and for its own end."""
    from pyroute2.netlink import NETLINK_ADD_MEMBERSHIP, NETLINK_GENERIC, SOL_NETLINK

    if group is None:
        return None
    made = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK, NETLINK_GENERIC)
    try:
        made.bind((0, 0))
        made.setsockopt(SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, group)
    except OSError:  # then who asks now and then has to do
        made.close()
        return None
    return made
