"""Whole conversations, frame by frame: what clients and servers really send, with retransmissions and reuse.

Lives here: what one side says after what the other one said. Each is a
script, a generator of frames; many run side by side, so that one's frames
come between another's. Services, clients and MACs are those of tests/noise.py,
so a new service, of whatever mode, has its conversations too.

What a backend says is made from what was forwarded to it: where nothing was,
it says nothing, and the client tries again. Under direct return its words do
not pass here, but both sides count its bytes.
"""

from __future__ import annotations

from collections.abc import Iterator
from random import Random

from l4raw.core.model import Mode, Service
from l4raw.wire import tcp
from l4raw.wire.abi import FORWARD
from tests.crafted import SPOILERS, TCP, Tuple5, build, make_partial, tcp_options, tuple_of
from tests.executors import Outcome
from tests.noise import CLIENT_MACS, CLIENTS, CLIENTS_V6, GOOD_MACS, SERVICES, Given, ports_for
from tests.tables import OUR_MACS

AT_ONCE = 40
"""Conversations under way."""
SPOILED = 0.03
"""Share of frames with something odd about them."""
RETURNED = (Mode.NAT, Mode.FULLNAT)
"""Modes in which the backend's frames pass the balancer."""

_WRAP = 0xFFFF_FFFF
SYN_ACK, FIN_ACK, PUSH = tcp.SYN | tcp.ACK, tcp.FIN | tcp.ACK, 0x08 | tcp.ACK


class Side:
    """One end of a TCP connection: what it will send next, and what it sent last."""

    def __init__(self, random: Random) -> None:
        # Now and then a connection's sequence numbers wrap.
        self.next = random.choice((random.randrange(1 << 32), _WRAP - random.randrange(2000)))
        self.last = (tcp.SYN, self.next, 0, b"")
        """Flags, sequence, acknowledgement, data: to be retransmitted."""

    def segment(self, other: Side, flags: int, body: bytes) -> None:
        """One more; a SYN and a FIN count as a byte (RFC 9293, section 3.4)."""
        self.last = flags, self.next, other.next if flags & tcp.ACK else 0, body
        self.next = self.next + len(body) + bool(flags & (tcp.SYN | tcp.FIN)) & _WRAP


class Life:
    """A client's 5-tuple, and all that happens on it until the script ends."""

    def __init__(self, random: Random, service: Service) -> None:
        self.random, self.service = random, service
        clients = CLIENTS if len(service.vip) == 4 else CLIENTS_V6
        number = random.randrange(len(clients))
        port = service.port or random.randrange(1, 40)
        sport = random.randrange(5000, 5000 + ports_for(service))
        self.of = Tuple5(clients[number], sport, service.vip, port, service.protocol)
        self.mac = CLIENT_MACS[number % GOOD_MACS]
        self.client, self.server = Side(random), Side(random)
        self.forwarded: bytes | None = None
        """The client's last frame, as the backend got it."""
        self.script = self._connections() if service.protocol == TCP else self._datagrams()

    def heard(self, outcome: Outcome) -> None:
        """What became of the last frame."""
        if outcome.verdict == FORWARD:
            self.forwarded = outcome.frame

    def _connections(self) -> Iterator[Given]:
        """One, or several one after the other on the same 5-tuple."""
        for _ in range(self.random.choice((1, 1, 1, 2, 3))):
            yield from self._connection()
            if self.random.random() < 0.2:  # an old segment comes late
                yield from self._again(self.client)
            self.client, self.server = Side(self.random), Side(self.random)
            self.forwarded = None

    def _connection(self) -> Iterator[Given]:
        random, client, server = self.random, self.client, self.server
        yield from self._say(client, tcp.SYN)
        while random.random() < 0.15:
            yield from self._again(client)
        yield from self._say(server, SYN_ACK)
        if random.random() < 0.1:  # never answered: a scan, or a flood
            return
        if random.random() < 0.1:
            yield from self._again(server)
        yield from self._say(client, tcp.ACK)
        for _ in range(random.choice((0, 1, 2, 5))):
            yield from self._exchange()
        yield from random.choice(
            (self._close, self._close, self._half_close, self._abort, self._fall_silent)
        )()

    def _exchange(self) -> Iterator[Given]:
        """A question and its answer; either may come twice. Or only a keep-alive."""
        random, client, server = self.random, self.client, self.server
        if random.random() < 0.15:
            yield from self._keep_alive()
            return
        yield from self._say(client, PUSH, self._body())
        if random.random() < 0.2:
            yield from self._again(client)
        yield from self._say(server, PUSH, self._body())
        if random.random() < 0.1:
            yield from self._again(server)
        yield from self._say(client, tcp.ACK)

    def _keep_alive(self) -> Iterator[Given]:
        """A segment of what was acknowledged long ago (RFC 9293, section 3.8.4)."""
        right = self.client.next
        self.client.next = right - 1 & _WRAP
        yield from self._say(self.client, tcp.ACK)
        self.client.next = right
        yield from self._say(self.server, tcp.ACK)

    def _close(self) -> Iterator[Given]:
        """By either side, in four segments or three."""
        first, second = self._either()
        yield from self._say(first, FIN_ACK)
        if self.random.random() < 0.3:
            yield from self._say(second, tcp.ACK)
        yield from self._say(second, FIN_ACK)
        yield from self._say(first, tcp.ACK)

    def _half_close(self) -> Iterator[Given]:
        """The client has said all; the server goes on for a while."""
        yield from self._say(self.client, FIN_ACK)
        for _ in range(self.random.randrange(4)):
            yield from self._say(self.server, PUSH, self._body())
            yield from self._say(self.client, tcp.ACK)
        yield from self._say(self.server, FIN_ACK)
        yield from self._say(self.client, tcp.ACK)

    def _abort(self) -> Iterator[Given]:
        """By RST, of either side; now and then there is one before that nobody can expect (RFC 5961)."""
        side, _ = self._either()
        if self.random.random() < 0.3:
            right, side.next = side.next, self.random.randrange(1 << 32)
            yield from self._say(side, tcp.RST)
            side.next = right
            yield from self._exchange()
        yield from self._say(side, self.random.choice((tcp.RST, tcp.RST | tcp.ACK)))

    def _fall_silent(self) -> Iterator[Given]:
        """Neither side says that it is over."""
        yield from ()

    def _datagrams(self) -> Iterator[Given]:
        """A name's look-up, or something longer, or a stream to who has asked once."""
        for _ in range(self.random.choice((1, 2, 4, 12, 20))):
            yield from self._datagram(self.client)
            while self.random.random() < 0.6:
                yield from self._datagram(self.server)
        for _ in range(self.random.choice((0, 0, 0, 20))):
            yield from self._datagram(self.server)

    def _either(self) -> tuple[Side, Side]:
        """Both sides, one of them first."""
        sides = self.client, self.server
        return sides if self.random.random() < 0.5 else sides[::-1]

    def _body(self) -> bytes:
        return self.random.randbytes(self.random.choice((1, 2, 7, 16, 33, 100, 536)))

    def _say(self, side: Side, flags: int, body: bytes = b"") -> Iterator[Given]:
        side.segment(self.server if side is self.client else self.client, flags, body)
        return self._again(side)

    def _again(self, side: Side) -> Iterator[Given]:
        """The last segment of this side, as far as it is to be seen here."""
        flags, seq, ack, body = side.last
        yield from self._sent(side, body, flags=flags, seq=seq, ack=ack)

    def _datagram(self, side: Side) -> Iterator[Given]:
        yield from self._sent(side, self._body())

    def _sent(self, side: Side, body: bytes, **of_tcp: int) -> Iterator[Given]:
        """The frame, if it passes the balancer."""
        if side is self.client:
            frame, arm = build(self.of, (OUR_MACS[0], self.mac), body=body, **of_tcp), 0
        elif (of := self._of_answer()) and self.forwarded:
            frame, arm = build(of, (OUR_MACS[1], self.forwarded[:6]), body=body, **of_tcp), 1
        else:
            return
        random = self.random
        if of_tcp.get("flags", 0) & tcp.SYN:
            frame = tcp_options(random, frame)
        if random.random() < SPOILED:
            frame = random.choice(SPOILERS)(random, frame)
        start = make_partial(frame) if random.random() < 0.15 else 0
        yield Given(bytes(frame), arm, start)

    def _of_answer(self) -> Tuple5 | None:
        """What the backend sends back through the balancer; None: it does not, or has been told nothing."""
        if self.forwarded is None or self.service.mode not in RETURNED:
            return None
        of = tuple_of(self.forwarded)
        return of and Tuple5(of.dst, of.dport, of.src, of.sport, of.protocol)


class Lives:
    """An endless source of frames; `heard` tells it what became of them."""

    def __init__(self, random: Random) -> None:
        self.random = random
        self._lives = [self._new() for _ in range(AT_ONCE)]
        self._last = self._lives[0]

    def _new(self) -> Life:
        return Life(self.random, self.random.choice(SERVICES))

    def frame(self) -> Given:
        """The next one of some conversation."""
        while True:
            place = self.random.randrange(AT_ONCE)
            self._last = self._lives[place]
            for given in self._last.script:
                return given
            self._lives[place] = self._new()

    def heard(self, outcome: Outcome) -> None:
        """What became of the last one."""
        self._last.heard(outcome)
