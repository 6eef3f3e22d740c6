"""The manifests for Kubernetes: by its schemas, by KubeRay's, by what else the project says."""

from __future__ import annotations

import copy
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml

from mlops.serving import deployment
from mlops.serving.endpoint.security import TOKEN_VARIABLE
from mlops.settings import flags as read_flags
from mlops.settings.serving import ServeSettings
from mlops.settings.study import TuneSettings

REPOSITORY = Path(__file__).parents[2]
FOLDER = REPOSITORY / "configs" / "clusters" / "kuberay"
# Where each keeps its cluster.
CLUSTER_IN = {
    "raycluster": ["spec"],
    "rayjob": ["spec", "rayClusterSpec"],
    "rayservice": ["spec", "rayClusterConfig"],
}
KUBERNETES = "1.34"
SCHEMA = yaml.safe_load(Path(__file__).with_name("kuberay_schema.yaml").read_text(encoding="utf-8"))


def manifest(name: str) -> dict[str, Any]:
    """Reads a manifest; what anchors share is copied, so that each part can be changed alone."""
    found = yaml.safe_load((FOLDER / f"{name}.yaml").read_text(encoding="utf-8"))
    return yaml.load(yaml.dump(found, Dumper=NoAliases), yaml.SafeLoader)


class NoAliases(yaml.SafeDumper):
    def ignore_aliases(self, data: Any) -> bool:
        return True


def cluster_of(given: dict[str, Any], name: str) -> dict[str, Any]:
    found: dict[str, Any] = given
    for key in CLUSTER_IN[name]:
        found = found[key]
    return found


def templates(cluster: dict[str, Any]) -> list[dict[str, Any]]:
    groups = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
    return [group["template"] for group in groups]


def container(template: dict[str, Any]) -> dict[str, Any]:
    (only,) = template["spec"]["containers"]
    return dict(only)


def check(given: dict[str, Any]) -> None:
    jsonschema.Draft202012Validator(SCHEMA).validate(given)


def check_pod(template: dict[str, Any]) -> None:
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "pod"}, "spec": template["spec"]}
    kubernetes_validate.validate(pod, KUBERNETES, strict=True)


def objects(given: Any) -> Iterator[dict[str, Any]]:
    """All mappings in it."""
    if isinstance(given, dict):
        yield given
    for item in given.values() if isinstance(given, dict) else given:
        if isinstance(item, dict | list):
            yield from objects(item)


def fields(given: Any, before: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The paths of all keys in it."""
    pairs = given.items() if isinstance(given, dict) else enumerate(given)
    for key, value in pairs:
        if isinstance(given, dict):
            yield (*before, key)
        if isinstance(value, dict | list):
            yield from fields(value, (*before, key))


def misspelt(given: dict[str, Any], path: tuple[Any, ...]) -> dict[str, Any]:
    changed = copy.deepcopy(given)
    place: Any = changed
    for key in path[:-1]:
        place = place[key]
    place[path[-1] + "s"] = place.pop(path[-1])
    return changed


def test_the_schema_is_one() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)


@pytest.mark.parametrize("name", CLUSTER_IN)
def test_a_manifest_passes_kuberays_schema_and_its_pods_that_of_kubernetes(name: str) -> None:
    given = manifest(name)
    check(given)
    for template in templates(cluster_of(given, name)):
        check_pod(template)


def test_the_claim_passes_the_schema_of_kubernetes() -> None:
    claim = manifest("studies")
    kubernetes_validate.validate(claim, KUBERNETES, strict=True)
    pod = templates(manifest("raycluster")["spec"])[0]["spec"]
    ((volume,), (mount,)) = pod["volumes"], pod["containers"][0]["volumeMounts"]
    assert volume["persistentVolumeClaim"]["claimName"] == claim["metadata"]["name"]
    assert volume["name"] == mount["name"]


@pytest.mark.parametrize("name", CLUSTER_IN)
def test_a_misspelt_field_is_refused(name: str) -> None:
    """Each field is misspelt in turn, KubeRay's and those of the pods."""
    given = manifest(name)
    paths = [path for path in fields(given) if "template" not in path[:-1]]
    paths = [path for path in paths if "rayStartParams" not in path[:-1]]
    assert len(paths) >= 15
    for path in paths:
        with pytest.raises(jsonschema.ValidationError):
            check(misspelt(given, path))
    for template in templates(cluster_of(given, name)):
        for path in fields(template["spec"]):
            # Resources have names of their own.
            if not {"limits", "requests"} & set(path[:-1]):
                with pytest.raises(kubernetes_validate.ValidationError):
                    check_pod({"spec": misspelt(template["spec"], path)})


def test_a_job_has_the_cluster_that_stands_alone() -> None:
    assert manifest("rayjob")["spec"]["rayClusterSpec"] == manifest("raycluster")["spec"]


def test_the_endpoint_has_that_cluster_but_for_what_it_says() -> None:
    expected = manifest("raycluster")["spec"]
    service = manifest("rayservice")["spec"]["rayClusterConfig"]
    head, worker = templates(expected)
    # It trains nothing, so it has nothing to keep.
    del head["spec"]["volumes"], head["spec"]["containers"][0]["volumeMounts"]
    # It computes on cores.
    del worker["spec"]["tolerations"]
    resources = {"limits": {"cpu": "2", "memory": "4Gi"}, "requests": {"cpu": "2", "memory": "4Gi"}}
    worker["spec"]["containers"][0]["resources"] = resources
    expected["workerGroupSpecs"][0].update(groupName="cpu", minReplicas=1)
    for template in templates(service):
        env = template["spec"]["containers"][0]["env"]
        (token,) = [entry for entry in env if entry["name"] == TOKEN_VARIABLE]
        # Not optional: without the Secret no pod starts.
        assert set(token["valueFrom"]["secretKeyRef"]) == {"name", "key"}
        env.remove(token)
    assert service == expected


# Ray Serve's own models.
@pytest.mark.filterwarnings("ignore:Using extra keyword arguments:DeprecationWarning")
def test_the_endpoint_is_that_of_ray_serve() -> None:
    from ray.serve.schema import ServeDeploySchema

    text = (REPOSITORY / "configs" / "ray_serve.yaml").read_text(encoding="utf-8")
    local = yaml.safe_load(text)
    deployed = yaml.safe_load(manifest("rayservice")["spec"]["serveConfigV2"])
    ServeDeploySchema.model_validate(deployed)
    assert deployed.pop("http_options") == {**local.pop("http_options"), "host": "0.0.0.0"}
    assert deployed.pop("proxy_location") == "EveryNode"
    assert local.pop("proxy_location") == "HeadOnly"
    assert deployed == local
    (application,) = deployed["applications"]
    (group,) = manifest("rayservice")["spec"]["rayClusterConfig"]["workerGroupSpecs"]
    assert application["import_path"] == f"{deployment.__name__}:{deployment.application.__name__}"
    settings = ServeSettings.model_validate(application["args"])
    cores = container(group["template"])["resources"]["limits"]["cpu"]
    assert settings.cpus_per_replica <= float(cores)
    assert settings.gpus_per_replica == 0


def test_the_job_is_one_that_this_version_takes() -> None:
    spec = manifest("rayjob")["spec"]
    python, dash_m, module, *flags = shlex.split(spec["entrypoint"])
    assert (python, dash_m, module) == ("python", "-m", "ray_jobs.tune")
    # KubeRay puts the command in a shell's as it is.
    assert re.fullmatch(r"[\w .:/=-]+", spec["entrypoint"])
    for more in ([], ["--resume"]):
        settings = read_flags.load(TuneSettings, [*flags, *more], name="tune")
        assert settings.study
    (group,) = spec["rayClusterSpec"]["workerGroupSpecs"]
    assert settings.resources.workers == group["maxReplicas"]
    gpus = container(group["template"])["resources"]["limits"]["nvidia.com/gpu"]
    assert settings.resources.gpus_per_worker == int(gpus)


@pytest.mark.parametrize("name", CLUSTER_IN)
def test_a_cluster_is_set_as_one_of_own_machines_is(name: str) -> None:
    cluster = cluster_of(manifest(name), name)
    own = yaml.safe_load((REPOSITORY / "cluster.yaml").read_text(encoding="utf-8"))
    start = own["head_start_ray_commands"][-1]
    env = {entry["name"]: entry.get("value") for entry in container(templates(cluster)[0])["env"]}
    for setting in ("RAY_health_check_", "RAY_USAGE_"):
        wanted = dict(re.findall(rf"({setting}\w+)=(\S+)", start))
        assert wanted
        assert wanted.items() <= env.items()
    # KubeRay sets it by autoscalerOptions.version, and refuses both.
    assert "RAY_enable_autoscaler_v2" not in env
    assert cluster["autoscalerOptions"]["idleTimeoutSeconds"] == own["idle_timeout_minutes"] * 60
    assert cluster["enableInTreeAutoscaling"]
    assert cluster["authOptions"] == {"mode": "token"}
    assert cluster["headGroupSpec"]["rayStartParams"] == {"num-cpus": "0"}
    pins = (REPOSITORY / "constraints.txt").read_text(encoding="utf-8")
    assert f"ray=={cluster['rayVersion']}\n" in pins
    assert len({container(template)["image"] for template in templates(cluster)}) == 1


@pytest.mark.parametrize("name", [*CLUSTER_IN, "studies"])
def test_a_manifest_holds_no_secret_and_opens_no_port(name: str) -> None:
    given = manifest(name)
    if name in CLUSTER_IN:
        assert cluster_of(given, name)["headGroupSpec"]["serviceType"] == "ClusterIP"
    for each in objects(given):
        keys = {"stringData", "data", "hostPort", "hostNetwork", "hostPath", "nodePort", "ports"}
        assert not keys & each.keys()
        assert each.get("kind") not in ("Secret", "Service", "Ingress")
        if re.search(r"TOKEN|PASSWORD|SECRET|KEY", str(each.get("name", ""))):
            assert "value" not in each
    assert not re.search(r"://[^/\s]*@", str(given))


def test_the_image_holds_the_pinned_project_and_what_kuberay_asks_of_it() -> None:
    text = (FOLDER / "Dockerfile").read_text(encoding="utf-8")
    python = yaml.safe_load((REPOSITORY / "python_env.yaml").read_text(encoding="utf-8"))["python"]
    assert f"\nFROM python:{python}-slim\n" in text
    assert "pip install --no-cache-dir -c constraints.txt -e ." in text
    assert "wget" in text
    copied = {name for line in re.findall(r"^COPY (.*) \S+$", text, re.M) for name in line.split()}
    wanted = {"pyproject.toml", "constraints.txt", "README.md", "configs", "mlops", "ray_jobs"}
    assert copied == wanted
    assert all((REPOSITORY / name).exists() for name in copied)
    (user,) = re.findall(r"^USER (\d+)$", text, re.M)
    (home,) = re.findall(r"^ENV HOME=(\S+)$", text, re.M)
    assert f"useradd --uid {user} --create-home --home-dir {home} " in text
    for name in CLUSTER_IN:
        cluster = cluster_of(manifest(name), name)
        for template in templates(cluster):
            assert template["spec"]["securityContext"]["runAsUser"] == int(user)
            assert container(template)["image"] in text
    # Studies are in the home of the job's user, on the claim.
    (mount,) = container(templates(manifest("raycluster")["spec"])[0])["volumeMounts"]
    assert mount["mountPath"] == f"{home}/{TuneSettings().storage}"
