"""The rules of all sessions of a control server: one nftables table, with verdict maps in place of lists of rules.

A table for each session was measured: with 1,000 of them a stream gets a tenth of the rate. Here a packet is looked up
in a map, however many sessions there are.

The way of a connection: `arrive` (from outside) and `inside` (from this host itself) look its entry point up and go to
the session's chain `admit`, which holds the peer against the source list, sets the session's number as conntrack mark
and rewrites the target; `leave` gives it this host's address, so that the answers come back here. `forward`, `input`
and `output` look the mark up, and each packet passes one of these three. The maps' elements count; a SYN has no bytes
and longer options, and is left out. A named counter for each figure was measured too, and with 1,000 sessions took nft
a third of a second to list.

`strays` drops what conntrack finds no connection for, such as a segment that came late from far away: NAT leaves it
alone, and the host's own TCP would answer it with a reset that ends a healthy stream.

Source: nft(8).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from scistream.engines.nft_names import PROBE_NUMBER

__all__ = ["Patience", "base"]

_DAY: Final = 86400


@dataclass(frozen=True)
class Patience:
    """Seconds that a connection may be silent before it is forgotten, whatever the host's sysctls say.

    Attributes:
        tcp: where both ends are open, or one has closed its half: the kernel's own 120 s would cut those.
        unanswered: where an end does not acknowledge: more than the quarter of an hour for which TCP tries again.
        udp: a UDP flow that was answered; it has no other end than this.
        udp_unanswered: one that was never answered: all flows to a target share its ports, and a flood from invented
            addresses would take them from everybody.
    """

    tcp: int = 5 * _DAY
    unanswered: int = 1800
    udp: int = 3600
    udp_unanswered: int = 30


# As text: before 1.0.9 nft ignores the policies of ct timeout objects in JSON. Only numbers and our own names go in.
_BASE: Final = """
table inet {table} {{
  comment "sessions of a SciStream control server, which makes and removes all of it"
  ct timeout tcp_idle {{
    protocol tcp
    policy = {{ established: {tcp}, fin_wait: {tcp}, close_wait: {tcp}, retrans: {unanswered}, unack: {unanswered} }}
  }}
  ct timeout udp_idle {{
    protocol udp
    policy = {{ unreplied: {udp_unanswered}, replied: {udp} }}
  }}
  map at_ip {{ type ipv4_addr . inet_proto . inet_service : verdict; counter; }}
  map at_ip6 {{ type ipv6_addr . inet_proto . inet_service : verdict; counter; }}
  map any_ip {{ type inet_proto . inet_service : verdict; counter; }}
  map any_ip6 {{ type inet_proto . inet_service : verdict; counter; }}
  map carried {{ type mark . ct_dir : verdict; counter; }}
  map carried_bare {{ type mark . ct_dir : verdict; counter; }}
  set marks {{ type mark; }}
  set ports {{ type inet_proto . inet_service; }}
  set refused {{ type inet_proto . inet_service; counter; }}
  set late {{ type inet_proto . inet_service; counter; }}
  set targets_ip {{ type ipv4_addr . inet_proto . inet_service; }}
  set targets_ip6 {{ type ipv6_addr . inet_proto . inet_service; }}
  chain doors {{
    fib daddr type != local return
    ip daddr . meta l4proto . th dport vmap @at_ip
    ip6 daddr . meta l4proto . th dport vmap @at_ip6
    meta nfproto ipv4 meta l4proto . th dport vmap @any_ip
    meta nfproto ipv6 meta l4proto . th dport vmap @any_ip6
  }}
  chain stray {{
    fib daddr type != local return
    meta l4proto . th dport @ports drop
    ip saddr . meta l4proto . th sport @targets_ip drop
    ip6 saddr . meta l4proto . th sport @targets_ip6 drop
  }}
  chain tally {{
    tcp flags & syn == syn return
    tcp doff 5 ct mark . ct direction vmap @carried_bare
    ct mark . ct direction vmap @carried
  }}
  chain arrive {{ type nat hook prerouting priority -100; policy accept; jump doors; }}
  chain inside {{ type nat hook output priority -100; policy accept; jump doors; }}
  chain leave {{ type nat hook postrouting priority 100; policy accept; ct mark @marks masquerade; }}
  chain strays {{ type filter hook prerouting priority 0; policy accept; ct state invalid jump stray; }}
  chain forward {{ type filter hook forward priority 0; policy accept; jump tally; }}
  chain input {{ type filter hook input priority 0; policy accept; jump tally; }}
  chain output {{
    type filter hook output priority 0; policy accept;
    ct mark @marks fib daddr type != local jump tally
  }}
  chain probes {{ type filter hook output priority -300; policy accept; meta mark {probe} notrack; }}
}}
"""


def base(table: str, patience: Patience) -> str:
    """What makes a control server's empty table, for `nft -f`."""
    return _BASE.format(table=table, probe=PROBE_NUMBER, **vars(patience))
