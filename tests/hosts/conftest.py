"""Sites on real hosts, for the tests that provision them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from hosts import require
from hosts.sites import Site, site_at


@pytest.fixture(scope="module")
def bare_site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Two facilities of one module's own, whose hosts have nothing but SSH, Python and packages."""
    require()
    with site_at(tmp_path_factory.mktemp("site")) as site:
        yield site
