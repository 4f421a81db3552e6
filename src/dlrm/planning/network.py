"""Links between devices, and how long it takes to exchange and to sum over them.

With W devices, latency a and bandwidth b of the link of each, of which n bytes leave the busiest:

    exchange   the lesser of  (W - 1) a + n / b                 pairwise
                         and  l a + W / (W - 1) n l / 2 / b     Bruck
    sum        the lesser of  2 l a + 2 (W - 1) / W s / b       Rabenseifner
                         and  l a + l s / b                     recursive doubling

where s are the bytes of a sum and l is log2 W, rounded up. Pairwise exchange sends one message to
each other device; Bruck's sends fewer, and some bytes more than once.

Source: Thakur, Rabenseifner, Gropp, "Optimization of Collective Communication Operations in MPICH",
International J. of High Performance Computing Applications 2005, sections 4.3 and 4.5.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Link:
    """A connection of a device with others."""

    bandwidth: float
    """Bytes a second, each way."""
    latency_s: float = 0.0
    """Seconds of a message, however short."""


@dataclass(frozen=True, slots=True)
class Network:
    """Links of equal devices."""

    exchanges: Link
    """Link of each device to those of other hosts."""
    sums: Link | None = None
    """Link of each device as all-reduces were measured to use it; None for that of exchanges."""
    devices_per_host: int = 1
    host: Link | None = None
    """Link of each device to those of its own host; None for that of exchanges."""

    def exchange_s(self, sent_bytes: float, world: int) -> float:
        """Return the seconds in which so many bytes leave, or reach, the busiest of W devices."""
        near = min(self.devices_per_host, world)
        if world == 1:
            return 0.0
        if near == 1 or self.host is None:
            return _exchange_s(self.exchanges, sent_bytes, world, world - 1)
        if near == world:
            return _exchange_s(self.host, sent_bytes, world, world - 1)
        # Both links are used at once.
        inside = sent_bytes * (near - 1) / (world - 1)
        return max(
            _exchange_s(self.host, inside, near, near - 1),
            _exchange_s(self.exchanges, sent_bytes - inside, world, world - near),
        )

    def sum_s(self, size_bytes: float, world: int) -> float:
        """Return the seconds until all of W devices have the sum of a buffer."""
        near = min(self.devices_per_host, world)
        link = self.sums or self.exchanges
        if near == 1 or self.host is None:
            return _sum_s(link, size_bytes, world)
        # A part for each device of a host, summed within the host, then between hosts, then spread.
        between = _sum_s(link, size_bytes / near, -(-world // near))
        return _sum_s(self.host, size_bytes, near) + between


def _exchange_s(link: Link, sent_bytes: float, world: int, messages: int) -> float:
    if world == 1:
        return 0.0
    rounds = (world - 1).bit_length()
    pairwise = messages * link.latency_s + sent_bytes / link.bandwidth
    whole = sent_bytes * world / (world - 1)
    return min(pairwise, rounds * (link.latency_s + whole / 2 / link.bandwidth))


def _sum_s(link: Link, size_bytes: float, world: int) -> float:
    if world == 1:
        return 0.0
    rounds = (world - 1).bit_length()
    halving = 2 * rounds * link.latency_s + 2 * (world - 1) / world * size_bytes / link.bandwidth
    return min(halving, rounds * (link.latency_s + size_bytes / link.bandwidth))
