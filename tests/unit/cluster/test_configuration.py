"""The programs' configuration, certificates and command lines, as rendered."""

from __future__ import annotations

import base64
import json
import tarfile
from pathlib import Path

import pytest
from tests.cluster import ClusterError, archive, build, chosen_kind, images, kind, node, pki, settings
from tests.cluster.cli import parser
from tests.cluster.paths import HERE, Paths, cache_root

try:
    import tomllib
except ModuleNotFoundError:  # Python 3.10
    tomllib = None  # type: ignore[assignment]


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    return Paths(tmp_path)


def test_the_cache_is_where_the_environment_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/x")
    monkeypatch.delenv("MODELYARD_CACHE", raising=False)
    assert cache_root() == Path("/x/modelyard")
    monkeypatch.setenv("MODELYARD_CACHE", "/y")
    assert cache_root() == Path("/y")


@pytest.mark.skipif(tomllib is None, reason="tomllib comes with Python 3.11")
def test_containerd_has_everything_of_its_own(paths: Paths) -> None:
    config = tomllib.loads(node.containerd_config(paths, Path("/plugins")))
    cri = config["plugins"]["io.containerd.grpc.v1.cri"]
    assert config["root"] == str(paths.containerd)
    assert config["grpc"]["address"] == str(paths.socket)
    assert cri["restrict_oom_score_adj"] is True  # works without CAP_SYS_RESOURCE
    assert cri["cni"] == {"bin_dir": "/plugins", "conf_dir": f"{paths.config}/cni"}
    assert cri["containerd"]["runtimes"]["runc"]["options"]["SystemdCgroup"] is False


def test_the_kubelet_throttles_nothing_and_needs_no_raised_privileges(paths: Paths) -> None:
    config = node.kubelet_config(paths, "/etc/resolv.conf")
    assert (config["registryPullQPS"], config["eventRecordQPS"], config["oomScoreAdj"]) == (0, 0, 0)
    assert config["maxPods"] == 250
    assert config["cgroupRoot"] == "/modelyard"
    assert config["authentication"]["anonymous"] == {"enabled": False}


def test_kube_proxy_leaves_connection_tracking_alone(paths: Paths) -> None:
    conntrack = node.proxy_config(paths)["conntrack"]
    assert set(conntrack.values()) == {0, "0s"}


def test_etcd_listens_out_of_the_pods_reach(paths: Paths) -> None:
    etcd = next(program for program in node.PROGRAMS if program.name == "etcd")
    listening = [word for word in etcd.command(paths) if word.startswith("--listen")]
    assert listening
    assert all("//127.0.0.1:" in word for word in listening)


def test_every_program_of_the_binary_is_linked() -> None:
    started = {program.name for program in node.PROGRAMS}
    assert started - {"containerd"} <= set(build.NAMES)
    source = (HERE / "node" / "main.go").read_text()
    assert all(f'case "{name}":' in source for name in build.NAMES)


def test_the_default_class_and_the_dns_service_are_added() -> None:
    by_kind = {item["kind"]: item for item in node.add_ons()}
    assert by_kind["StorageClass"]["provisioner"] in (HERE / "node" / "agent.go").read_text()
    assert by_kind["Service"]["spec"]["clusterIP"] == settings.DNS_SERVICE_IP
    assert [port["port"] for port in by_kind["EndpointSlice"]["ports"]] == [settings.DNS_PORT] * 2


def test_coredns_answers_for_the_cluster_and_asks_the_host_for_the_rest(paths: Paths) -> None:
    text = node.corefile(paths, "/etc/resolv.conf")
    assert f"kubernetes {settings.DOMAIN} " in text
    assert "forward . /etc/resolv.conf" in text


def test_certificates_name_the_addresses_they_serve() -> None:
    server, client = pki.CERTIFICATES[0], pki.CERTIFICATES[-1]
    assert f"IP:{settings.ADDRESS}" in pki.extensions(server)
    assert "extendedKeyUsage=clientAuth\n" in pki.extensions(client)
    assert pki.subject(client) == "/O=system:masters/CN=modelyard-admin"


def test_a_kubeconfig_holds_its_own_credentials() -> None:
    config = json.loads(pki.kubeconfig(b"authority", b"certificate", b"key"))
    assert base64.b64decode(config["users"][0]["user"]["client-key-data"]) == b"key"
    assert config["clusters"][0]["cluster"]["server"] == settings.API_URL


def test_the_binarys_name_follows_its_sources(tmp_path: Path) -> None:
    for name in build.SOURCES:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    first = build.source_hash(tmp_path)
    assert build.source_hash(tmp_path) == first
    (tmp_path / "go.sum").write_text("other")
    assert build.source_hash(tmp_path) != first


def test_every_source_of_the_binary_counts() -> None:
    found = {str(path.relative_to(HERE / "node")) for path in (HERE / "node").rglob("*") if path.is_file()}
    assert found == set(build.SOURCES)


def test_programs_tell_their_release() -> None:
    flags = build.version_flags("1.34.4")
    assert "-X k8s.io/component-base/version.gitVersion=v1.34.4" in flags
    assert "-X k8s.io/client-go/pkg/version.gitMinor=34" in flags


def test_an_archive_of_one_layer_is_what_docker_save_writes(tmp_path: Path) -> None:
    program, layer, image = tmp_path / "pause", tmp_path / "layer.tar", tmp_path / "image.tar"
    program.write_text("#!/bin/true")
    archive.single_file(layer, program, "pause")
    archive.write(image, ["example.org/pause:1"], layer, {"Entrypoint": ["/pause"]})
    with tarfile.open(image) as tar:
        manifest = json.load(tar.extractfile("manifest.json"))[0]  # type: ignore[arg-type]
        config = json.load(tar.extractfile(manifest["Config"]))  # type: ignore[arg-type]
        assert manifest["RepoTags"] == ["example.org/pause:1"]
        assert manifest["Layers"][0] in tar.getnames()
    assert config["rootfs"]["diff_ids"] == [f"sha256:{manifest['Layers'][0].split('/')[0]}"]


def test_a_build_asks_no_registry_and_mounts_its_settings() -> None:
    words = images.bud_arguments(Path("D"), "n:1", {"B": "2", "A": "1"}, "stage", ["/a:/b:ro"])
    assert "--pull-never" in words
    assert words[words.index("--build-arg") :][:4] == ["--build-arg", "A=1", "--build-arg", "B=2"]
    assert words[-6:] == ["--target", "stage", "--volume", "/a:/b:ro", "--tag", "n:1"]


def test_the_hosts_pip_settings_become_a_file() -> None:
    environment = {
        "PIP_CERT": "/c",
        "PIP_INDEX_URL": "https://example.org/s",
        "PIP_NO_INDEX": "1",
        "PATH": "/",
    }
    assert images.pip_settings(environment) == "[global]\nindex-url = https://example.org/s\nno-index = 1\n"


def test_pips_variables_win_over_its_file() -> None:
    merged = images.merge_settings("[global]\ncert = /c\nindex-url = a\n", "[global]\nindex-url = b\n")
    assert merged == "[global]\nindex-url = b\n\n"


def test_wheels_on_the_host_are_mounted(tmp_path: Path) -> None:
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    volumes = images.pip_volumes(tmp_path, {"PIP_FIND_LINKS": f"{wheels} /no/such"})
    assert volumes == [f"{tmp_path}/pip.conf:/etc/pip.conf:ro", f"{wheels}:{wheels}:ro"]


def test_every_stand_in_has_its_stage() -> None:
    text = (HERE / "stand-ins" / "Dockerfile").read_text()
    assert all(f" AS {stage}\n" in text for stage in images.STAND_INS.values())


def test_kinds_commands(tmp_path: Path) -> None:
    assert kind.create_command("kind", Path("/c"), Path("/k"))[:5] == [
        "kind",
        "create",
        "cluster",
        "--name",
        "modelyard",
    ]
    assert kind.load_command("kind", "a:1")[1:4] == ["load", "docker-image", "a:1"]
    assert kind.load_command("kind", Path("/a.tar"))[1:4] == ["load", "image-archive", "/a.tar"]
    assert kind.build_command(Path("ctx"), Path("D"), "a:1", {"X": "1"}, "t") == [
        *["docker", "build", "--tag", "a:1", "--file", "D", "--build-arg", "X=1", "--target", "t", "ctx"]
    ]
    assert json.loads(kind.gpu_patch(8))["status"]["allocatable"] == {"nvidia.com/gpu": "8"}
    assert kind.cluster_config()["name"] == "modelyard"


def test_the_kind_of_cluster_can_be_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODELYARD_CLUSTER", "kind")
    assert chosen_kind() == "kind"
    monkeypatch.setenv("MODELYARD_CLUSTER", "cloud")
    with pytest.raises(ClusterError, match="kind or local"):
        chosen_kind()


def test_the_commands_words() -> None:
    options = parser().parse_args(["build", ".", "-t", "a:1", "--build-arg", "A=1", "--load"])
    assert (options.tag, options.build_arg, options.load) == ("a:1", ["A=1"], True)
    assert parser().parse_args(["run", "kubectl", "get", "-A"]).words == ["kubectl", "get", "-A"]
