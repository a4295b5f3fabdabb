"""Nothing that is sent to the REST API makes it fall over, and its own document says all that it does."""

import json
from pathlib import Path
from urllib.parse import quote

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings

from cluster.service.app import Settings, create
from sweeps.history import END_STATES
from tests.cluster.served import shelf_of

pytestmark = pytest.mark.usefixtures("state")


OPERATIONS = [
    (method.upper(), path)
    for path, item in create(Path("nowhere")).openapi()["paths"].items()
    for method in item
    if not path.endswith("events")  # streams do not end
]


@pytest.fixture(scope="module")
def fuzzed(tmp_path_factory: pytest.TempPathFactory) -> schemathesis.schemas.BaseSchema:
    app = create(
        shelf_of(tmp_path_factory.mktemp("fuzzed")), Settings(hosts=frozenset({"testserver"}), rate=1e9, failures=1e9)
    )
    return schemathesis.openapi.from_asgi("/api/v1/openapi.json", app)


@pytest.mark.parametrize(("method", "path"), OPERATIONS, ids=lambda part: part.removeprefix("/api/v1"))
def test_nothing_that_is_sent_is_a_fault_of_ours(
    fuzzed: schemathesis.schemas.BaseSchema, method: str, path: str
) -> None:
    tried = set()

    @settings(
        max_examples=25, derandomize=True, deadline=None, database=None, phases=[Phase.explicit, Phase.generate],
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(case=fuzzed[path][method].as_strategy())
    def send(case: schemathesis.Case) -> None:
        given_id = (case.path_parameters or {}).get("id_")
        if (
            method == "GET" and given_id is not None and len(str(given_id)) % 3
        ):  # else there is hardly ever such a sweep
            case.path_parameters["id_"] = ("done", "cut", "best")[len(str(given_id)) % 3]
        if not path.endswith("version"):  # who does not get in does not get far
            (case.headers or {}).pop("Authorization", None)
            (case.cookies or {}).clear()
        answer = case.call()
        tried.add(answer.status_code)
        assert answer.status_code < 500, (case.as_curl_command(), answer.text)
        if answer.status_code >= 400:
            assert answer.json()["status"] == answer.status_code
        CASES[0] += 1

    send()
    print(f"{method} {path}: {sorted(tried)}; {CASES[0]} cases so far")


CASES = [0]


def test_the_document_is_whole(root: Path) -> None:
    document = create(root).openapi()
    assert document["components"]["securitySchemes"].keys() == {"token", "session"}
    for path, item in document["paths"].items():
        for method, told in item.items():
            assert told.get("description") or told.get("summary"), (method, path)
            if path != "/api/v1/health":
                assert {"401", "403", "404", "409", "422", "429"} <= told["responses"].keys(), (method, path)
            for code, answer in told["responses"].items():
                if code.startswith("4"):
                    assert "application/problem+json" in answer["content"], (method, path, code)
    text = json.dumps(document)
    assert set(END_STATES) <= set(document["components"]["schemas"]["TrialRow"]["properties"]["state"]["enum"])
    assert quote(str(root)) not in text
