"""The cluster's certificates and kubeconfigs, by the openssl command: no Python package is needed."""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass, field
from pathlib import Path

from .settings import ADDRESS, API_SERVICE_IP, API_URL, DOMAIN, NAME
from .shell import run

DAYS = "3650"


@dataclass(frozen=True)
class Certificate:
    """What a certificate says: who (`name`, `group`), for which hosts, signed by which authority."""

    file: str
    name: str
    group: str = ""
    hosts: tuple[str, ...] = field(default=())
    authority: str = "ca"


API_HOSTS = (
    f"IP:{ADDRESS}",
    f"IP:{API_SERVICE_IP}",
    "IP:127.0.0.1",
    "DNS:localhost",
    "DNS:kubernetes",
    "DNS:kubernetes.default",
    "DNS:kubernetes.default.svc",
    f"DNS:kubernetes.default.svc.{DOMAIN}",
)
NODE_HOSTS = (f"IP:{ADDRESS}", f"DNS:{NAME}")
CERTIFICATES = (
    Certificate("apiserver", "kube-apiserver", hosts=API_HOSTS),
    Certificate("apiserver-kubelet", "kube-apiserver-kubelet", "system:masters"),
    Certificate("front-proxy", "front-proxy", authority="front-proxy-ca"),
    Certificate("kubelet-server", f"system:node:{NAME}", "system:nodes", hosts=NODE_HOSTS),
    Certificate("kubelet", f"system:node:{NAME}", "system:nodes"),
    Certificate("controller-manager", "system:kube-controller-manager"),
    Certificate("scheduler", "system:kube-scheduler"),
    Certificate("proxy", "system:kube-proxy"),
    Certificate("admin", "modelyard-admin", "system:masters"),
)
CLIENTS = ("kubelet", "controller-manager", "scheduler", "proxy", "admin")


def extensions(certificate: Certificate) -> str:
    """The X.509 extensions of a certificate, in openssl's words."""
    usage = "serverAuth,clientAuth" if certificate.hosts else "clientAuth"
    lines = [
        "basicConstraints=critical,CA:FALSE",
        "keyUsage=critical,digitalSignature,keyEncipherment",
        f"extendedKeyUsage={usage}",
    ]
    if certificate.hosts:
        lines.append("subjectAltName=" + ",".join(certificate.hosts))
    return "\n".join(lines) + "\n"


def subject(certificate: Certificate) -> str:
    """The certificate's subject, in openssl's words."""
    group = f"/O={certificate.group}" if certificate.group else ""
    return f"{group}/CN={certificate.name}"


def kubeconfig(authority: bytes, certificate: bytes, key: bytes) -> str:
    """A kubeconfig that holds its credentials itself, so that it can be copied."""

    def encoded(content: bytes) -> str:
        return base64.b64encode(content).decode()

    cluster = {"server": API_URL, "certificate-authority-data": encoded(authority)}
    user = {"client-certificate-data": encoded(certificate), "client-key-data": encoded(key)}
    return json.dumps(
        {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": NAME,
            "clusters": [{"name": NAME, "cluster": cluster}],
            "contexts": [{"name": NAME, "context": {"cluster": NAME, "user": NAME}}],
            "users": [{"name": NAME, "user": user}],
        },
        indent=1,
    )


def make(directory: Path, kubeconfig_path: Path) -> None:
    """Makes new authorities, certificates, kubeconfigs and the service accounts' key."""
    directory.mkdir(parents=True, exist_ok=True)
    directory.chmod(0o700)
    for authority in ("ca", "front-proxy-ca"):
        _key(directory / f"{authority}.key")
        run(
            [
                "openssl",
                "req",
                "-x509",
                "-new",
                "-key",
                directory / f"{authority}.key",
                "-sha256",
                "-days",
                DAYS,
                "-subj",
                f"/CN={NAME}-{authority}",
                "-out",
                directory / f"{authority}.crt",
                "-addext",
                "keyUsage=critical,digitalSignature,keyCertSign",
            ]
        )
    for certificate in CERTIFICATES:
        _sign(directory, certificate)
    _key(directory / "service-accounts.key")
    run(
        [
            "openssl",
            "pkey",
            "-in",
            directory / "service-accounts.key",
            "-pubout",
            "-out",
            directory / "service-accounts.pub",
        ]
    )
    authority_certificate = (directory / "ca.crt").read_bytes()
    for client in CLIENTS:
        text = kubeconfig(
            authority_certificate,
            (directory / f"{client}.crt").read_bytes(),
            (directory / f"{client}.key").read_bytes(),
        )
        path = kubeconfig_path if client == "admin" else directory / f"{client}.kubeconfig"
        path.write_text(text)
        path.chmod(0o600)


def _key(path: Path) -> None:
    run(["openssl", "genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out", path])
    path.chmod(0o600)


def _sign(directory: Path, certificate: Certificate) -> None:
    base = directory / certificate.file
    _key(base.with_suffix(".key"))
    run(
        [
            "openssl",
            "req",
            "-new",
            "-key",
            base.with_suffix(".key"),
            "-subj",
            subject(certificate),
            "-out",
            base.with_suffix(".csr"),
        ]
    )
    base.with_suffix(".ext").write_text(extensions(certificate))
    run(
        [
            "openssl",
            "x509",
            "-req",
            "-in",
            base.with_suffix(".csr"),
            "-sha256",
            "-days",
            DAYS,
            "-CA",
            directory / f"{certificate.authority}.crt",
            "-CAkey",
            directory / f"{certificate.authority}.key",
            "-CAcreateserial",
            "-extfile",
            base.with_suffix(".ext"),
            "-out",
            base.with_suffix(".crt"),
        ]
    )
