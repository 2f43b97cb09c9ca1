"""The test hosts: real machines on this one (systemd-nspawn), for tests and by hand.

`python -m tests.hosts up` makes four that stay, with their state in .state/hosts; `Hosts` is for tests (hosts.py).
"""

from .abilities import lacking, require
from .hosts import Host, Hosts
from .programs import HostsError

__all__ = ["Host", "Hosts", "HostsError", "lacking", "require"]
