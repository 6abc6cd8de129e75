"""Waiting for something to become true, for tests whose other half runs by itself."""

import asyncio
import time
from collections.abc import Callable
from typing import Any

POLL_S = 0.005


async def until(condition: Callable[[], Any], timeout_s: float, seen: Callable[[], str]) -> Any:
    """The first true value of `condition`; after `timeout_s` an `AssertionError` that says what was `seen`."""
    deadline = time.monotonic() + timeout_s
    while not (value := condition()):
        if time.monotonic() > deadline:
            raise AssertionError(f"it did not happen within {timeout_s} s; seen:\n{seen()}")
        await asyncio.sleep(POLL_S)
    return value
