"""When the kernel path forwards: while every interface sends what an XDP program redirects to it.

A veth does only while its peer receives by NAPI, that is with GRO or an XDP
program; without it, frames vanish, and only the driver counts them. The kernel
knows (Documentation/netlink/specs/netdev.yaml, NETDEV_XDP_ACT_NDO_XMIT); Linux
6.3 and later tell. As netlink.py, this imports pyroute2, and only in functions.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Self

from l4raw.control.errors import L4Error
from l4raw.control.netlink import Interface

if TYPE_CHECKING:
    from l4raw.engine.afxdp import AfXdpEngine

_GET_DEVICE: Final = 1  # NETDEV_CMD_DEV_GET
_VERSION: Final = 1
_SENDS_REDIRECTED: Final = 4  # NETDEV_XDP_ACT_NDO_XMIT


class XdpFeatures:
    """Questions, each answered at once. A context manager."""

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
        """Close the socket."""
        self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Forwards(NamedTuple):
    """Whether the kernel path forwards now."""

    forwards: bool
    reasons: tuple[str, ...]
    """Why it does not."""

    def __str__(self) -> str:
        if self.forwards:
            return "the kernel forwards"
        return f"the kernel forwards nothing, all frames go over af_xdp: {'; '.join(self.reasons)}"


class KernelPath:
    """Lets the kernel forward, or not, as the interfaces are."""

    def __init__(self, interfaces: Sequence[Interface], engine: AfXdpEngine) -> None:
        """The engine is told what `look` finds."""
        self._interfaces, self._engine = interfaces, engine
        self._state: tuple[str, ...] | None = None
        self._features: XdpFeatures | None = None
        self._unknown = ""
        try:
            self._features = XdpFeatures()
        except L4Error as error:
            self._unknown = error.what

    def look(self) -> Forwards | None:
        """Ask all of them, and do as they say. The answer, if it is another one than before."""
        blocked = self._blocked()
        if blocked == self._state:
            return None
        self._state = blocked
        self._engine.forward_in_kernel(not blocked)
        return Forwards(not blocked, blocked)

    def _blocked(self) -> tuple[str, ...]:
        if not self._features:
            return (self._unknown,)
        try:
            return self._not_sending(self._features)
        except L4Error as error:  # it may be better the next time; who lost an interface says so himself
            return (error.what,)

    def _not_sending(self, features: XdpFeatures) -> tuple[str, ...]:
        return tuple(
            f"{each.name} does not send what XDP redirects to it (a veth does while its other end has GRO:"
            f" `ethtool -K PEER gro on` there; `ip -d link show {each.name}` tells where it is)"
            for each in self._interfaces
            if not features.sends_redirected(each.index)
        )

    def close(self) -> None:
        """Close the socket."""
        if self._features:
            self._features.close()
