from __future__ import annotations

import pytest

from scistream.control_server.admission import Places, host_of_peer, take_place, was_recognised
from scistream.errors import Code, SciStreamError


def refused(places: Places, host: str) -> str:
    with pytest.raises(SciStreamError) as raised:
        places.take(host)
    assert (raised.value.code, raised.value.entry.status) == (Code.TOO_MANY_CALLS, "RESOURCE_EXHAUSTED")
    return raised.value.seen


def test_one_host_leaves_room_for_others_and_all_together_have_a_bound():
    places = Places(3, 2, "calls wait")
    mine = [places.take("a"), places.take("a")]
    assert refused(places, "a") == "2 calls wait for this host already"
    theirs = places.take("b")
    assert refused(places, "c") == "3 calls wait already"
    theirs()
    # Given back twice, it is given back once.
    theirs()
    again = places.take("c")
    assert refused(places, "b") == "3 calls wait already"
    for give_back in (*mine, again):
        give_back()
    assert vars(places)["_all"] == len(vars(places)["_taken"]) == 0


def test_a_caller_who_is_recognised_holds_no_place_any_more():
    places = Places(1, 1, "calls wait")
    give_back = take_place(places, "ipv4:192.0.2.7:41000")
    assert refused(places, "192.0.2.7")
    was_recognised()
    places.take("192.0.2.7")
    give_back()
    assert refused(places, "192.0.2.7")


@pytest.mark.parametrize(
    ("peer", "host"),
    [
        ("ipv4:192.0.2.7:41000", "192.0.2.7"),
        ("ipv6:%5B::ffff:192.0.2.7%5D:41000", "192.0.2.7"),
        ("ipv6:[2001:db8:1:2:3:4:5:6]:41000", "2001:db8:1:2::/64"),
        ("ipv6:%5B2001:db8:1:2::9%5D:41000", "2001:db8:1:2::/64"),
        ("ipv6:%5Bfe80::1%25eth0%5D:41000", "fe80::/64"),
        ("unix:/run/socket", "unix:/run/socket"),
        ("", ""),
    ],
)
def test_a_host_is_an_address_or_a_network_of_one_site(peer, host):
    assert host_of_peer(peer) == host
