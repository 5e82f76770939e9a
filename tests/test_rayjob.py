"""The job for KubeRay in docs/clusters.md is one that Kubernetes would take."""

import copy
import json
import pathlib
import re

import pytest
import yaml

jsonschema = pytest.importorskip("jsonschema", reason="comes with Ray")

TESTS = pathlib.Path(__file__).parent


@pytest.fixture(scope="module")
def job():
    text = (TESTS.parent / "docs" / "clusters.md").read_text()
    (block,) = re.findall(r"```yaml\n(apiVersion.*?)```", text, re.DOTALL)
    return yaml.safe_load(block)


def refusals(job):
    """What the definition of RayJob says against a job; unknown names are refused."""
    schema = json.loads((TESTS / "rayjob_schema.json").read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    found = jsonschema.Draft202012Validator(schema).iter_errors(job)
    return [error.message for error in found]


def test_the_job_of_the_documentation_is_accepted(job):
    assert refusals(job) == []
    volumes = {"runs"}
    cluster = job["spec"]["rayClusterSpec"]
    groups = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
    for pod in (group["template"]["spec"] for group in groups):
        assert {volume["name"] for volume in pod["volumes"]} == volumes
        mounts = [mount for one in pod["containers"] for mount in one["volumeMounts"]]
        assert {mount["name"] for mount in mounts} == volumes


@pytest.mark.parametrize(
    ("where", "name", "value"),
    [
        ((), "entryPoint", "jaxlens"),
        (("rayClusterSpec",), "headGroup", {}),
        (("rayClusterSpec", "headGroupSpec"), "rayStartParams", {"num-cpus": 0}),
        (("rayClusterSpec", "workerGroupSpecs", 0), "replicas", "4"),
        (("rayClusterSpec", "workerGroupSpecs", 0, "template", "spec"), "volume", []),
        (
            ("rayClusterSpec", "workerGroupSpecs", 0, "template", "spec", "containers", 0),
            "resources",
            {"limit": {}},
        ),
    ],
)
def test_a_wrong_name_or_type_is_refused(job, where, name, value):
    wrong = copy.deepcopy(job)
    place = wrong["spec"]
    for step in where:
        place = place[step]
    place[name] = value
    assert len(refusals(wrong)) == 1
