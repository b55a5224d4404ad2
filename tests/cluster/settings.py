"""The local cluster's fixed addresses and names."""

from __future__ import annotations

NAME = "modelyard"
DOMAIN = "cluster.local"
# An address of the cluster's own, on the loopback device: pods and the host reach it alike, and it
# stays when the machine's own address changes.
ADDRESS = "10.200.0.1"
POD_CIDR = "10.201.0.0/22"
SERVICE_CIDR = "10.202.0.0/20"
API_SERVICE_IP = "10.202.0.1"
DNS_SERVICE_IP = "10.202.0.10"
DNS_PORT = 10053
API_PORT = 6443
ETCD_PORT = 23790
BRIDGE = "modelyard0"
CGROUP = "modelyard"
GPUS = 8
MAX_PODS = 250
PAUSE_IMAGE = "modelyard.test/pause:1"
NAMESPACE = "k8s.io"  # containerd's namespace for Kubernetes
API_URL = f"https://{ADDRESS}:{API_PORT}"
