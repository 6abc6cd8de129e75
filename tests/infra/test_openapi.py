"""The API's own document, and whatever it lets through: no request of any shape is answered with an error of ours."""

import os
from collections import Counter
from collections.abc import Iterator

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis.checks import not_a_server_error

from infra.cli.compose import open_twin
from infra.desk.server import make_app
from infra.settings import load_settings
from memory.remember import exchange_event, remember
from tests.infra.running import lend_small, served, small_settings
from tests.memory.making import taught
from tests.people import CREATOR

# Requests of each kind; more where somebody looks for longer.
EACH = int(os.environ.get("UNDERSTUDY_TEST_FUZZ", "25"))
TOKEN = "a-token-for-the-api"


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A whole twin behind its API and its token, on one layer of the base."""
    home = tmp_path_factory.mktemp("fuzzed")
    (home / "understudy.toml").write_text(small_settings(f'[voice]\nmax_tokens = 8\n[api]\ntoken = "{TOKEN}"\n'))
    chosen = load_settings(home)
    lend_small(chosen)
    with open_twin(chosen) as here:
        remember(here.memory.journal, [exchange_event(taught("Which flour?", "Strong white."))], creator=CREATOR)
        with served(make_app(chosen, here)) as url:
            yield url


def test_the_document_is_for_whoever_has_the_token(address: str) -> None:
    assert httpx.get(f"{address}/openapi.json").status_code == 401
    document = httpx.get(f"{address}/openapi.json", headers={"Authorization": f"Bearer {TOKEN}"}).json()
    assert {"/api/ask", "/v1/chat/completions", "/metrics", "/admin/voices/promote"} <= set(document["paths"])


def test_no_request_is_answered_with_an_error_of_ours(address: str) -> None:
    """Whatever fits the document, and much that does not: a status that means something, and never a traceback."""
    headers = {"Authorization": f"Bearer {TOKEN}"}
    schema = schemathesis.openapi.from_url(f"{address}/openapi.json", headers=headers)
    tried: Counter[str] = Counter()
    for found in schema.get_all_operations():
        operation = found.ok()

        @given(case=operation.as_strategy())
        @settings(
            max_examples=EACH, deadline=None, database=None, derandomize=True, phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )  # fmt: skip
        def fuzz(case) -> None:
            tried[case.operation.label] += 1
            response = case.call(headers=headers, timeout=60)
            # What is down is told as such; anything else above 500 is ours.
            if response.status_code != 503:
                case.validate_response(response, checks=[not_a_server_error])

        fuzz()

    assert len(tried) > 20
    assert sum(tried.values()) >= len(tried) * min(EACH, 2)
    # It is what it was: it knows what it was taught, and somebody can speak.
    recalled = httpx.get(f"{address}/api/recall", params={"question": "Which flour?"}, headers=headers)
    assert "Strong white" in recalled.text
    assert httpx.get(f"{address}/readyz", headers=headers).json()["status"] == "ready"
