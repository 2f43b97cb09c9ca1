#!/usr/bin/python
# Copyright: (c) 2026, SciStream maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: demo_traffic
short_description: Real bytes through a stream, checked on the far side
version_added: 0.1.0
description:
  - Runs two applications as the users of a stream run them, one that listens at the target and one that connects to
    the entry point. They know an address each, and nothing of SciStream.
  - With O(application=zeromq), a ZeroMQ PUSH socket sends detector frames or a file to a PULL socket. Both hash what
    they see with SHA-256. The task fails where the digests differ.
  - With O(application=iperf3), iperf3 measures the rate of the path. Its server listens on the target's address alone.
  - The progress is shown while bytes flow. Neither application outlives the task.
options:
  application:
    description: What runs.
    type: str
    choices: [zeromq, iperf3]
    default: zeromq
  target:
    description:
      - Where one application listens, C(HOST:PORT), an address of the controller. It is the inbound session's target.
    type: str
    required: true
  entry_point:
    description:
      - Where the other application connects to, C(HOST:PORT). It is an entry point of the outbound session.
    type: str
    required: true
  frames:
    description:
      - How many detector frames are sent, each 2048 x 2048 values of 16 bits (8 MiB). No two are equal.
    type: int
    default: 128
  file:
    description:
      - A file on the controller that is sent in place of frames, of any size.
    type: path
  seconds:
    description: How long iperf3 sends.
    type: int
    default: 2
  connections:
    description: How many connections iperf3 uses.
    type: int
    default: 1
  timeout:
    description: Seconds that may pass without a byte, until the task fails and says what was seen last.
    type: float
    default: 30
  entry_point_namespace:
    description:
      - The network namespace of the application that connects, a file as C(nsenter --net) takes it. It takes root.
      - Without it, the application runs in the controller's own.
    type: path
  target_namespace:
    description:
      - The network namespace of the application that listens, likewise.
    type: path
attributes:
  check_mode:
    support: none
    details: Bytes flow or they do not. The task is skipped in check mode.
  diff_mode:
    support: none
  idempotent:
    support: none
    details: Every run sends anew.
  platform:
    platforms: posix
requirements:
  - pyzmq and numpy (Python libraries; extra C(demo) of scistream), for O(application=zeromq)
  - iperf3, for O(application=iperf3)
extends_documentation_fragment:
  - scistream.core.attributes
  - scistream.core.library
seealso:
  - module: scistream.core.session
author:
  - SciStream maintainers (@scistream)
"""

EXAMPLES = r"""
- name: Stream 128 detector frames
  scistream.core.demo_traffic:
    target: 127.0.2.1:5074
    entry_point: 127.0.1.1:5100

- name: Stream a file
  scistream.core.demo_traffic:
    target: 127.0.2.1:5074
    entry_point: 127.0.1.1:5100
    file: /data/scan-0042.h5

- name: Measure the path
  scistream.core.demo_traffic:
    application: iperf3
    target: 127.0.2.1:5075
    entry_point: 127.0.1.1:5101
    seconds: 5
    connections: 4
  register: path
"""

RETURN = r"""
traffic:
  description: What both sides saw.
  returned: success
  type: dict
  contains:
    bytes:
      description: Bytes that arrived.
      returned: success
      type: int
      sample: 1073741824
    seconds:
      description: From the first message to the last, at the receiver.
      returned: success
      type: float
      sample: 1.412
    gbps:
      description: The rate in Gb/s of application bytes.
      returned: success
      type: float
      sample: 6.083
    messages:
      description: Frames, or pieces of the file.
      returned: O(application=zeromq)
      type: int
      sample: 128
    digest_sent:
      description: SHA-256 of what was sent.
      returned: O(application=zeromq)
      type: str
      sample: ab60a51527a2b9d2b87bf708d33490b27e8e317d1b2ffb83e554260bc086f976
    digest_received:
      description: SHA-256 of what arrived.
      returned: O(application=zeromq)
      type: str
      sample: ab60a51527a2b9d2b87bf708d33490b27e8e317d1b2ffb83e554260bc086f976
    whole:
      description: Whether the two are the same.
      returned: O(application=zeromq)
      type: bool
      sample: true
    connections:
      description: How many connections iperf3 used.
      returned: O(application=iperf3)
      type: int
      sample: 1
failure:
  description: The error of the catalogue, where the task failed.
  returned: failure
  type: dict
  contains:
    code:
      description: Its stable code.
      returned: failure
      type: str
      sample: STREAM_DAMAGED
    details:
      description: Its facts.
      returned: failure
      type: dict
      sample: {sent: 1073741824, received: 1065353216}
"""
