"""The complete platform, started once for the journeys and the faults: gateway, apis, worker, relay, jobs, broker, databases."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from services.local.demo_cast import cast_of
from services.local.first_import import SHIPPED
from services.local.platform import Platform
from services.local.story import Cast
from tests.gateway.conftest import NO_RATES
from tests.journeys.people import Neighbours
from tests.journeys.stores import Stores


@pytest.fixture(scope="session")
def platform() -> Iterator[Platform]:
    """Everything of `make run`, in a folder of its own, with the small register of the repository and without rate limits."""
    with (
        tempfile.TemporaryDirectory(prefix="steward-platform-") as folder,
        Platform(Path(folder), port=0, environment=NO_RATES, say=lambda line: None) as whole,
    ):
        whole.start_stores()
        whole.migrate()
        whole.start()
        whole.wait_ready(seconds=120)
        whole.run(
            "first_import", [sys.executable, "-m", "services.residents.first_import", str(SHIPPED)], whole.environment("jobs"), seconds=120
        )
        yield whole


@pytest.fixture(scope="session")
def cast(platform: Platform) -> Cast:
    """Who plays the story, in 天府花园."""
    return cast_of(platform)


@pytest.fixture(scope="session")
def neighbours(platform: Platform) -> Iterator[Neighbours]:
    """The people of another estate, for tests that leave things behind: nothing they do is seen in 天府花园."""
    with Neighbours(platform) as found:
        yield found


@pytest.fixture(scope="session")
def stores(platform: Platform) -> Iterator[Stores]:
    with Stores(platform) as found:
        yield found
