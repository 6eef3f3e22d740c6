"""Requests made up from our own OpenAPI document: none is answered with a 5xx."""

from __future__ import annotations

from collections import Counter
from contextlib import suppress

import pytest
import schemathesis
from endpoint_harness import Served
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode

EXAMPLES = {"post": 150, "get": 10}


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_no_request_made_up_from_the_document_is_answered_with_5xx(mixed: Served) -> None:
    schema = schemathesis.openapi.from_url(f"{mixed.endpoint.url}/openapi.json")
    statuses: Counter[int] = Counter()
    operations = [result.ok() for result in schema.get_all_operations()]
    assert {"/predict", "/invocations", "/model"} <= {o.path for o in operations}
    for operation in operations:
        for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE):

            @seed(0)
            @settings(
                max_examples=EXAMPLES[operation.method],
                deadline=None,
                database=None,
                suppress_health_check=list(HealthCheck),
                phases=[Phase.generate],
            )
            @given(case=operation.as_strategy(generation_mode=mode))
            def ask(case: schemathesis.Case) -> None:
                answer = case.call()
                statuses[answer.status_code] += 1
                assert answer.status_code < 500, (case.as_curl_command(), answer.text)

            with suppress(Unsatisfiable):  # a route without parameters cannot be asked wrongly
                ask()
    assert statuses.total() >= 1000, statuses
    assert statuses[200] >= 100, statuses
    assert statuses.keys() & {400, 422}
