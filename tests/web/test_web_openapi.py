"""Whatever follows from the OpenAPI document, and whatever does not, is answered without a 5xx."""

from __future__ import annotations

import warnings

import httpx
import pytest
from hypothesis import HealthCheck, Phase, given, settings

from tests.serving import AUTHORIZED, server

schemathesis = pytest.importorskip("schemathesis", reason="schemathesis is not installed")
ROUTES = {
    "/healthz",
    "/metrics",
    "/v1/query",
    "/v1/references/{row_id}/thumbnail",
    "/v1/banks",
    "/v1/banks/map",
    "/v1/banks/references",
    "/v1/banks/references/{plan}",
    "/v1/banks/rollback",
    "/v1/token",
}
ASKED = ROUTES - {"/healthz", "/metrics", "/v1/banks", "/v1/banks/map", "/v1/token"}
"""Those that take something, so that there is something to get wrong."""


def test_the_document_names_every_route(web):
    assert set(web.get("/openapi.json").json()["paths"]) == ROUTES


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize(
    ("mode", "path"),
    [*(("positive", path) for path in sorted(ROUTES)), *(("negative", path) for path in sorted(ASKED))],
)
def test_nothing_makes_it_fail(folder, mode, path):
    with server(folder) as url:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            schema = schemathesis.openapi.from_dict(httpx.get(f"{url}/openapi.json").json())
            (method,) = schema[path]
            operation = schema[path][method]
        strategy = operation.as_strategy(generation_mode=schemathesis.GenerationMode(mode))

        @settings(
            max_examples=12,
            deadline=None,
            database=None,
            derandomize=True,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(strategy)
        def ask(case):
            answer = case.call(base_url=url, headers=AUTHORIZED)
            assert answer.status_code < 500, answer.text

        ask()
        assert httpx.get(f"{url}/healthz").json()["status"] in ("ok", "stale")
