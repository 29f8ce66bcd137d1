from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from services.chassis.testing import Api, Tree, a_tree
from tests.notifications.inboxes import Inboxes


@pytest.fixture(scope="session")
def inboxes(database_of: Callable[[str], Any]) -> Inboxes:
    return Inboxes(database_of("notifications"))


@pytest.fixture
def tree(inboxes: Inboxes) -> Tree:
    """An estate of the test's own, somebody in every role."""
    return a_tree(inboxes.database)


@pytest.fixture
def api(serving_of: Callable[[str], tuple[Any, Api]]) -> Api:
    return serving_of("notifications")[1]
