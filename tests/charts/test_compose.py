"""The compose stack and the scripts that make secrets, as far as they can be judged without an engine."""

from __future__ import annotations

import base64
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from gateway import settings as gateway_settings
from services.chassis import settings as process_settings
from services.chassis.__main__ import ROLES, SERVICES
from services.chassis.settings import NEEDED, OF_RESIDENTS, READ_BY
from tests.charts.rendering import ROOT

DOCKER = ROOT / "docker"
STACK: dict[str, dict[str, Any]] = yaml.safe_load((DOCKER / "compose.yaml").read_text())["services"]
OURS = {name: service for name, service in STACK.items() if service["image"].startswith("steward:")}


def role_of(service: dict[str, Any]) -> tuple[str, list[str]]:
    command = service["command"]
    return ("gateway", []) if command == ["gateway"] else (command[1], command[2:])


def test_every_role_runs_for_every_service_once() -> None:
    roles = [role_of(service) for service in OURS.values()]
    for role in ROLES:
        assert sorted(name for one, names in roles if one == role for name in names) == sorted(SERVICES), role
    assert ("gateway", []) in roles


@pytest.mark.parametrize("name", OURS)
def test_every_process_is_told_what_it_needs_and_nothing_that_it_does_not_read(name: str) -> None:
    role, services = role_of(OURS[name])
    said = OURS[name]["environment"]
    needed = NEEDED[role] + (OF_RESIDENTS.get(role, ()) if "residents" in services else ())
    assert [one for one in needed if f"STEWARD_{one.upper()}" not in said] == []
    known = {f"STEWARD_{one.upper()}" for one, readers in READ_BY.items() if role in readers.split()}
    if role == "gateway":
        known |= {
            gateway_settings.OTHER_NAMES.get(one, f"STEWARD_GATEWAY_{one.upper()}") for one in gateway_settings.GatewaySettings.__slots__
        }
    assert set(said) <= known
    config = process_settings.read(said)
    assert not config.development
    for service, address in config.addresses.items():
        host, _, port = address.partition(":")
        assert service in role_of(OURS[host])[1], f"{host} does not serve {service}"
        assert OURS[host]["environment"]["STEWARD_GRPC_PORT"] == port


@pytest.mark.parametrize("name", OURS)
def test_our_containers_are_closed_and_watched(name: str) -> None:
    service = OURS[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["tmpfs"] == ["/tmp"]  # noqa: S108 - of the container
    assert name == "migrate" or "9100/readyz" in service["healthcheck"]["test"][-1]
    assert name == "migrate" or service["depends_on"] == {"migrate": {"condition": "service_completed_successfully"}}


def test_ports_are_open_to_this_machine_alone() -> None:
    assert all(port.startswith("127.0.0.1:") for service in STACK.values() for port in service.get("ports", []))


def test_prometheus_reads_every_process_and_the_rules_of_the_chart() -> None:
    config = yaml.safe_load((DOCKER / "prometheus.yml").read_text())
    targets = {target for job in config["scrape_configs"] for one in job["static_configs"] for target in one["targets"]}
    assert {f"{name}:9100" for name in OURS if name != "migrate"} <= targets
    assert "../charts/steward/files/rules:/etc/prometheus/rules:ro" in STACK["prometheus"]["volumes"]
    assert "../charts/steward/files/dashboards:/var/lib/grafana-dashboards:ro" in STACK["grafana"]["volumes"]


def test_the_env_file_has_what_the_stack_asks_for_and_is_made_once(tmp_path: Path) -> None:
    script = shutil.copy(DOCKER / "secrets.sh", tmp_path)
    subprocess.run(["/bin/sh", script], check=True, capture_output=True, timeout=30)
    text = (tmp_path / ".env").read_text()
    assert (tmp_path / ".env").stat().st_mode & 0o777 == 0o600
    values = {name: plain or quoted for name, quoted, plain in re.findall(r'^([A-Z_]+)=(?:"([^"]*)"|(\S+))$', text, re.MULTILINE)}
    asked = set(re.findall(r"\$\{([A-Z_]+):\?", (DOCKER / "compose.yaml").read_text()))
    assert set(values) == asked
    assert len(base64.b64decode(values["DATA_KEY"])) == 32
    judge_keys(values["IDENTITY_KEY"], values["IDENTITY_PUBLIC_KEYS"])
    assert all(re.fullmatch(r"[0-9a-f]{20,}", values[name]) for name in asked if name.endswith("_PASSWORD")), (
        "they stand in URLs as they are"
    )

    subprocess.run(["/bin/sh", script], check=True, capture_output=True, timeout=30)
    assert (tmp_path / ".env").read_text() == text


def test_the_secrets_of_the_chart_are_those_that_it_reads() -> None:
    script = str(ROOT / "charts" / "secrets.sh")

    def made(what: str) -> list[dict[str, Any]]:
        done = subprocess.run(["/bin/sh", script, what], check=True, capture_output=True, text=True, timeout=30)
        return [found for found in yaml.safe_load_all(done.stdout) if found]

    [keys] = made("keys")
    assert keys["metadata"]["name"] == "steward-keys"
    assert set(keys["stringData"]) == {"internal-token", "data-key", "identity-key", "identity-public-keys"}
    assert len(base64.b64decode(keys["stringData"]["data-key"])) == 32
    judge_keys(keys["stringData"]["identity-key"], keys["stringData"]["identity-public-keys"])
    roles = {one["stringData"]["username"]: one for one in made("roles")}
    assert set(roles) == set(SERVICES)
    for service, one in roles.items():
        assert (one["type"], one["metadata"]["name"]) == ("kubernetes.io/basic-auth", f"steward-{service.replace('_', '-')}-role")
    assert subprocess.run(["/bin/sh", script], check=False, capture_output=True, timeout=30).returncode == 2


def test_the_databases_of_the_stack_are_those_of_the_services() -> None:
    [listed] = re.findall(r"^for service in (.+); do$", (DOCKER / "roles.sh").read_text(), re.MULTILINE)
    assert listed.split() == list(SERVICES)


def judge_keys(private: str, public: str) -> None:
    """They belong together, and are of the kind that residents signs with."""
    key = serialization.load_pem_private_key(private.encode(), password=None)
    assert isinstance(key, Ed25519PrivateKey)
    theirs = serialization.load_pem_public_key(public.encode())
    raw = (serialization.Encoding.Raw, serialization.PublicFormat.Raw)
    assert theirs.public_bytes(*raw) == key.public_key().public_bytes(*raw)
