"""The configuration and command line of every program on the node."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .paths import Paths
from .settings import (
    ADDRESS,
    BRIDGE,
    CGROUP,
    DNS_PORT,
    DNS_SERVICE_IP,
    DOMAIN,
    ETCD_PORT,
    GPUS,
    MAX_PODS,
    NAME,
    PAUSE_IMAGE,
    POD_CIDR,
    SERVICE_CIDR,
)


@dataclass(frozen=True)
class Program:
    """One of the node's programs: its command, extra environment, and the URL that says it is ready."""

    name: str
    command: Callable[[Paths], list[str]]
    ready: str = ""
    env: Callable[[Paths], dict[str, str]] = lambda _: {}


def containerd_config(paths: Paths, cni_plugins: Path) -> str:
    """containerd's configuration: everything of its own, so that it can run beside the host's."""
    return f"""\
version = 2
root = "{paths.containerd}"
state = "{paths.containerd_state}"
oom_score = 0
disabled_plugins = ["io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.btrfs",
  "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.zfs",
  "io.containerd.internal.v1.opt", "io.containerd.tracing.processor.v1.otlp"]
[grpc]
address = "{paths.socket}"
[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "{PAUSE_IMAGE}"
restrict_oom_score_adj = true
netns_mounts_under_state_dir = true
stream_server_address = "127.0.0.1"
max_concurrent_downloads = 1
[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "{cni_plugins}"
conf_dir = "{paths.config}/cni"
[plugins."io.containerd.grpc.v1.cri".containerd]
snapshotter = "overlayfs"
default_runtime_name = "runc"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
SystemdCgroup = false
Root = "{paths.containerd_state}/runc"
"""


def cni_config(paths: Paths, mtu: int) -> dict[str, Any]:
    """The pods' network: a bridge of the cluster's own, masqueraded towards everything else."""
    return {
        "cniVersion": "0.4.0",
        "name": NAME,
        "plugins": [
            {
                "type": "bridge",
                "bridge": BRIDGE,
                "isGateway": True,
                "ipMasq": True,
                "hairpinMode": True,
                "mtu": mtu,
                "ipam": {
                    "type": "host-local",
                    "dataDir": f"{paths.containerd_state}/ipam",
                    "ranges": [[{"subnet": POD_CIDR}]],
                    "routes": [{"dst": "0.0.0.0/0"}],
                },
            },
            {"type": "portmap", "capabilities": {"portMappings": True}},
        ],
    }


def kubelet_config(paths: Paths, resolv_conf: str) -> dict[str, Any]:
    """The kubelet's configuration: nothing throttled, nothing that needs raised privileges."""
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "address": ADDRESS,
        "healthzBindAddress": ADDRESS,
        "tlsCertFile": f"{paths.pki}/kubelet-server.crt",
        "tlsPrivateKeyFile": f"{paths.pki}/kubelet-server.key",
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": True, "cacheTTL": "2m"},
            "x509": {"clientCAFile": f"{paths.pki}/ca.crt"},
        },
        "authorization": {"mode": "Webhook"},
        "containerRuntimeEndpoint": f"unix://{paths.socket}",
        "clusterDNS": [DNS_SERVICE_IP],
        "clusterDomain": DOMAIN,
        "resolvConf": resolv_conf,
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": f"/{CGROUP}",
        "failCgroupV1": False,
        "failSwapOn": False,
        "oomScoreAdj": 0,
        "maxPods": MAX_PODS,
        "podLogsDir": f"{paths.logs}/pods",
        "volumePluginDir": f"{paths.kubelet}/volume-plugins",
        "evictionHard": {"memory.available": "200Mi", "nodefs.available": "1%", "imagefs.available": "1%"},
        # Images come only by `load`: what the kubelet deletes could not be pulled again.
        "imageGCHighThresholdPercent": 100,
        "imageGCLowThresholdPercent": 99,
        "serializeImagePulls": False,
        "registryPullQPS": 0,
        "eventRecordQPS": 0,
        "kubeAPIQPS": 200,
        "kubeAPIBurst": 400,
        "nodeStatusUpdateFrequency": "10s",
        "rotateCertificates": False,
        "shutdownGracePeriod": "0s",
        "featureGates": {},
    }


def proxy_config(paths: Paths) -> dict[str, Any]:
    """kube-proxy's configuration; it leaves the host's connection tracking as it is."""
    return {
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "bindAddress": ADDRESS,
        "healthzBindAddress": f"{ADDRESS}:10256",
        "metricsBindAddress": f"{ADDRESS}:10249",
        "clientConnection": {"kubeconfig": f"{paths.pki}/proxy.kubeconfig", "qps": 200, "burst": 400},
        "mode": "iptables",
        "clusterCIDR": POD_CIDR,
        "hostnameOverride": NAME,
        "nodePortAddresses": [f"{ADDRESS}/32"],
        "conntrack": {
            "maxPerCore": 0,
            "min": 0,
            "tcpEstablishedTimeout": "0s",
            "tcpCloseWaitTimeout": "0s",
        },
        "iptables": {"localhostNodePorts": False, "minSyncPeriod": "0.2s", "syncPeriod": "30s"},
        "oomScoreAdj": 0,
    }


def corefile(paths: Paths, resolv_conf: str) -> str:
    """CoreDNS's configuration: the cluster's names, and the host's resolvers for all others."""
    return f"""\
.:{DNS_PORT} {{
    bind {ADDRESS}
    errors
    ready {ADDRESS}:18181
    kubernetes {DOMAIN} in-addr.arpa ip6.arpa {{
        kubeconfig {paths.kubeconfig}
        pods insecure
        fallthrough in-addr.arpa ip6.arpa
        ttl 5
    }}
    forward . {resolv_conf}
    cache 30 {{
        disable success {DOMAIN}
        disable denial {DOMAIN}
    }}
}}
"""


def add_ons() -> list[dict[str, Any]]:
    """What every cluster has besides: the default storage class, and the DNS service's address."""
    labels = {"k8s-app": "kube-dns", "kubernetes.io/name": "CoreDNS"}
    ports = [
        {"name": "dns", "port": 53, "protocol": "UDP", "targetPort": DNS_PORT},
        {"name": "dns-tcp", "port": 53, "protocol": "TCP", "targetPort": DNS_PORT},
    ]
    return [
        {
            "apiVersion": "storage.k8s.io/v1",
            "kind": "StorageClass",
            "metadata": {
                "name": "standard",
                "annotations": {"storageclass.kubernetes.io/is-default-class": "true"},
            },
            "provisioner": "modelyard.test/hostpath",
            "reclaimPolicy": "Delete",
            "volumeBindingMode": "WaitForFirstConsumer",
        },
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": "kube-dns", "namespace": "kube-system", "labels": labels},
            "spec": {"clusterIP": DNS_SERVICE_IP, "ports": ports},
        },
        {
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {
                "name": "kube-dns-node",
                "namespace": "kube-system",
                "labels": {
                    "kubernetes.io/service-name": "kube-dns",
                    "endpointslice.kubernetes.io/managed-by": "modelyard.test",
                },
            },
            "addressType": "IPv4",
            "ports": [{"name": p["name"], "port": DNS_PORT, "protocol": p["protocol"]} for p in ports],
            "endpoints": [{"addresses": [ADDRESS], "conditions": {"ready": True}}],
        },
    ]


def write_configs(paths: Paths, cni_plugins: Path, mtu: int, resolv_conf: str) -> None:
    """Writes every program's configuration file."""
    (paths.config / "cni").mkdir(parents=True, exist_ok=True)
    files = {
        "containerd.toml": containerd_config(paths, cni_plugins),
        "cni/10-modelyard.conflist": json.dumps(cni_config(paths, mtu), indent=1),
        "kubelet.json": json.dumps(kubelet_config(paths, resolv_conf), indent=1),
        "proxy.json": json.dumps(proxy_config(paths), indent=1),
        "Corefile": corefile(paths, resolv_conf),
    }
    for name, text in files.items():
        (paths.config / name).write_text(text)


def _etcd(paths: Paths) -> list[str]:
    # On the loopback address, out of the pods' reach: whoever reaches etcd is past all authorization.
    client, peer = f"http://127.0.0.1:{ETCD_PORT}", f"http://127.0.0.1:{ETCD_PORT + 1}"
    return [
        f"{paths.bin}/etcd",
        f"--data-dir={paths.etcd}",
        f"--listen-client-urls={client}",
        f"--advertise-client-urls={client}",
        f"--listen-peer-urls={peer}",
        f"--initial-advertise-peer-urls={peer}",
        f"--initial-cluster=default={peer}",
        "--unsafe-no-fsync",  # a cluster cut off in the middle starts anew, with nothing to recover
        "--log-level=warn",
        "--auto-compaction-retention=10m",
        "--quota-backend-bytes=4294967296",
    ]


def _apiserver(paths: Paths) -> list[str]:
    pki = paths.pki
    return [
        f"{paths.bin}/kube-apiserver",
        f"--etcd-servers=http://127.0.0.1:{ETCD_PORT}",
        f"--bind-address={ADDRESS}",
        f"--advertise-address={ADDRESS}",
        f"--cert-dir={pki}",
        f"--tls-cert-file={pki}/apiserver.crt",
        f"--tls-private-key-file={pki}/apiserver.key",
        f"--client-ca-file={pki}/ca.crt",
        "--anonymous-auth=false",
        "--authorization-mode=Node,RBAC",
        "--enable-admission-plugins=NodeRestriction",
        "--allow-privileged=true",
        f"--service-cluster-ip-range={SERVICE_CIDR}",
        f"--service-account-issuer=https://kubernetes.default.svc.{DOMAIN}",
        f"--service-account-key-file={pki}/service-accounts.pub",
        f"--service-account-signing-key-file={pki}/service-accounts.key",
        f"--kubelet-certificate-authority={pki}/ca.crt",
        f"--kubelet-client-certificate={pki}/apiserver-kubelet.crt",
        f"--kubelet-client-key={pki}/apiserver-kubelet.key",
        # Else `kubectl logs` looks the node's name up in the host's DNS.
        "--kubelet-preferred-address-types=InternalIP",
        f"--requestheader-client-ca-file={pki}/front-proxy-ca.crt",
        "--requestheader-allowed-names=front-proxy",
        "--requestheader-username-headers=X-Remote-User",
        "--requestheader-group-headers=X-Remote-Group",
        "--requestheader-extra-headers-prefix=X-Remote-Extra-",
        f"--proxy-client-cert-file={pki}/front-proxy.crt",
        f"--proxy-client-key-file={pki}/front-proxy.key",
        "--enable-aggregator-routing=true",
        "--profiling=false",
    ]


def _controllers(paths: Paths) -> list[str]:
    config = f"{paths.pki}/controller-manager.kubeconfig"
    return [
        f"{paths.bin}/kube-controller-manager",
        f"--kubeconfig={config}",
        f"--authentication-kubeconfig={config}",
        f"--authorization-kubeconfig={config}",
        f"--bind-address={ADDRESS}",
        f"--cert-dir={paths.pki}",
        f"--root-ca-file={paths.pki}/ca.crt",
        f"--service-account-private-key-file={paths.pki}/service-accounts.key",
        f"--cluster-signing-cert-file={paths.pki}/ca.crt",
        f"--cluster-signing-key-file={paths.pki}/ca.key",
        f"--flex-volume-plugin-dir={paths.kubelet}/volume-plugins",
        "--use-service-account-credentials=true",
        "--leader-elect=false",
        "--kube-api-qps=200",
        "--kube-api-burst=400",
        "--concurrent-gc-syncs=20",
        "--concurrent-job-syncs=20",
        "--concurrent-deployment-syncs=20",
        "--concurrent-replicaset-syncs=20",
        "--concurrent-statefulset-syncs=20",
        "--profiling=false",
    ]


def _scheduler(paths: Paths) -> list[str]:
    config = f"{paths.pki}/scheduler.kubeconfig"
    return [
        f"{paths.bin}/kube-scheduler",
        f"--kubeconfig={config}",
        f"--authentication-kubeconfig={config}",
        f"--authorization-kubeconfig={config}",
        f"--bind-address={ADDRESS}",
        f"--cert-dir={paths.pki}",
        "--leader-elect=false",
        "--kube-api-qps=200",
        "--kube-api-burst=400",
        "--profiling=false",
    ]


def _kubelet(paths: Paths) -> list[str]:
    return [
        f"{paths.bin}/kubelet",
        f"--config={paths.config}/kubelet.json",
        f"--kubeconfig={paths.pki}/kubelet.kubeconfig",
        f"--root-dir={paths.kubelet}",
        f"--cert-dir={paths.pki}",
        f"--hostname-override={NAME}",
        f"--node-ip={ADDRESS}",
    ]


PROGRAMS = (
    Program("etcd", _etcd, f"http://127.0.0.1:{ETCD_PORT}/health"),
    Program("containerd", lambda paths: ["containerd", "--config", f"{paths.config}/containerd.toml"]),
    Program("kube-apiserver", _apiserver),
    Program("kube-controller-manager", _controllers),
    Program("kube-scheduler", _scheduler),
    Program("kubelet", _kubelet, f"http://{ADDRESS}:10248/healthz"),
    Program(
        "kube-proxy",
        lambda paths: [f"{paths.bin}/kube-proxy", f"--config={paths.config}/proxy.json"],
        f"http://{ADDRESS}:10249/healthz",
    ),
    Program(
        "coredns",
        lambda paths: [f"{paths.bin}/coredns", "-conf", f"{paths.config}/Corefile"],
        f"http://{ADDRESS}:18181/ready",
    ),
    Program(
        "node-agent",
        lambda paths: [f"{paths.bin}/node-agent"],
        env=lambda paths: {
            "KUBECONFIG": str(paths.kubeconfig),
            "VOLUMES_DIR": str(paths.volumes),
            "GPUS": str(GPUS),
        },
    ),
)
