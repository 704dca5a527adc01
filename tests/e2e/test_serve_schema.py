"""The server against requests made from its own OpenAPI description, fitting and unfitting ones."""

from __future__ import annotations

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from report_scene import make_scene
from schemathesis import GenerationMode
from schemathesis.specs.openapi.checks import positive_data_acceptance

from urbandelta.web import create_app, find_source

pytestmark = pytest.mark.slow

EXAMPLES = settings(
    max_examples=20,
    deadline=None,
    derandomize=True,
    database=None,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)


@pytest.fixture(scope="module")
def described(tmp_path_factory):
    folder = tmp_path_factory.mktemp("described")
    make_scene(folder)
    app = create_app(find_source(str(folder)), allowed_hosts=["testserver"])
    return schemathesis.openapi.from_asgi("/api/openapi.json", app)


@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE])
def test_the_server_keeps_to_its_description(described, mode):
    operations = [found.ok() for found in described.get_all_operations()]
    assert len(operations) == 14
    statuses: set[int] = set()
    for operation in operations:

        @EXAMPLES
        @given(case=operation.as_strategy(generation_mode=mode))
        def holds(case):
            # A description cannot say which months there are, or that `since` comes before `until`.
            answer = case.call_and_validate(excluded_checks=[positive_data_acceptance])
            statuses.add(answer.status_code)

        if mode is GenerationMode.POSITIVE or operation.path_parameters or operation.query:
            holds()
    assert statuses >= ({200, 404} if mode is GenerationMode.POSITIVE else {422})
    assert max(statuses) < 500
