"""The Pod Security Standards: what a pod may not do on the levels baseline and restricted. Pure.

Called by `pod_security` with a pod's metadata and spec. Each check says nothing, or what is forbidden in Kubernetes'
words. Source: https://kubernetes.io/docs/concepts/security/pod-security-standards/ and k8s.io/pod-security-admission.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

View = Mapping[str, Any]
Check = Callable[[View, View], str]
"""(metadata, spec) -> what is wrong, or ""."""

_CAPABILITIES = frozenset(
    (
        *("AUDIT_WRITE", "CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "MKNOD", "NET_BIND_SERVICE"),
        *("SETFCAP", "SETGID", "SETPCAP", "SETUID", "SYS_CHROOT"),
    )
)
_SYSCTLS = frozenset(
    (
        *("kernel.shm_rmid_forced", "net.ipv4.ip_local_port_range", "net.ipv4.ip_unprivileged_port_start"),
        *("net.ipv4.tcp_syncookies", "net.ipv4.ping_group_range", "net.ipv4.ip_local_reserved_ports"),
        *("net.ipv4.tcp_keepalive_time", "net.ipv4.tcp_fin_timeout", "net.ipv4.tcp_keepalive_intvl"),
        *("net.ipv4.tcp_keepalive_probes", "net.ipv4.tcp_rmem", "net.ipv4.tcp_wmem"),
    )
)
_VOLUMES = frozenset(
    (
        *("configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected"),
        *("secret", "image", "name"),
    )
)
_SELINUX_TYPES = frozenset({"", "container_t", "container_init_t", "container_kvm_t", "container_engine_t"})
_APPARMOR = "container.apparmor.security.beta.kubernetes.io/"


def violations(level: str, metadata: View, spec: View) -> list[str]:
    """What keeps a pod from a level, in Kubernetes' order; [] for privileged."""
    return [found for check in _CHECKS.get(level, ()) if (found := check(metadata, spec))]


def _containers(spec: View) -> Iterator[View]:
    for section in ("initContainers", "containers", "ephemeralContainers"):
        yield from spec.get(section) or ()


def _security(container: View) -> View:
    return container.get("securityContext") or {}


def _pod_security(spec: View) -> View:
    return spec.get("securityContext") or {}


def _named(word: str, names: Iterable[str]) -> str:
    """`container "a"`, `containers "a", "b"`."""
    listed = list(dict.fromkeys(names))
    return f"{word}{'s' if len(listed) > 1 else ''} " + ", ".join(f'"{name}"' for name in listed)


def _containers_that(spec: View, wrong: Callable[[View], bool]) -> list[str]:
    return [container.get("name") or "" for container in _containers(spec) if wrong(container)]


def _quoted(values: Iterable[str]) -> str:
    return ", ".join(f'"{value}"' for value in sorted(set(values)))


# ---- baseline ----


def _host_namespaces(metadata: View, spec: View) -> str:
    used = [f"{name}=true" for name in ("hostNetwork", "hostPID", "hostIPC") if spec.get(name)]
    return f"host namespaces ({', '.join(used)})" if used else ""


def _privileged(metadata: View, spec: View) -> str:
    names = _containers_that(spec, lambda container: bool(_security(container).get("privileged")))
    return f"privileged ({_named('container', names)} must not set securityContext.privileged=true)" if names else ""


def _added(container: View) -> list[str]:
    return (_security(container).get("capabilities") or {}).get("add") or []


def _baseline_capabilities(metadata: View, spec: View) -> str:
    wrong = {each for container in _containers(spec) for each in _added(container)} - _CAPABILITIES
    if not wrong:
        return ""
    names = _containers_that(spec, lambda container: bool(set(_added(container)) - _CAPABILITIES))
    what = f"{_named('container', names)} must not include {_quoted(wrong)} in securityContext.capabilities.add"
    return f"non-default capabilities ({what})"


def _host_paths(metadata: View, spec: View) -> str:
    names = [volume.get("name") or "" for volume in spec.get("volumes") or () if "hostPath" in volume]
    return f"hostPath volumes ({_named('volume', names)})" if names else ""


def _host_ports(metadata: View, spec: View) -> str:
    def ports(container: View) -> list[int]:
        return [port["hostPort"] for port in container.get("ports") or () if port.get("hostPort")]

    found = sorted({port for container in _containers(spec) for port in ports(container)})
    if not found:
        return ""
    names = _containers_that(spec, lambda container: bool(ports(container)))
    verb, word = ("use", "hostPorts") if len(names) > 1 else ("uses", "hostPorts" if len(found) > 1 else "hostPort")
    return f"hostPort ({_named('container', names)} {verb} {word} {', '.join(map(str, found))})"


def _host_probes(metadata: View, spec: View) -> str:
    def hosts(container: View) -> list[str]:
        lifecycle = container.get("lifecycle") or {}
        handlers = [container.get(name) or {} for name in ("livenessProbe", "readinessProbe", "startupProbe")]
        handlers += [lifecycle.get(name) or {} for name in ("postStart", "preStop")]
        ways = [handler.get(how) or {} for handler in handlers for how in ("httpGet", "tcpSocket")]
        return [way["host"] for way in ways if way.get("host")]

    found = {host for container in _containers(spec) for host in hosts(container)}
    if not found:
        return ""
    names = _containers_that(spec, lambda container: bool(hosts(container)))
    verb = "use" if len(names) > 1 else "uses"
    word = "hosts" if len(found) > 1 else "host"
    return f"probe or lifecycle host ({_named('container', names)} {verb} probe or lifecycle {word} {_quoted(found)})"


def _app_armor(metadata: View, spec: View) -> str:
    wrong = []
    for name, value in sorted((metadata.get("annotations") or {}).items()):
        if name.startswith(_APPARMOR) and value not in ("", "runtime/default") and not value.startswith("localhost/"):
            wrong.append(f'{name}="{value}"')
    for security in (_pod_security(spec), *map(_security, _containers(spec))):
        if (security.get("appArmorProfile") or {}).get("type") == "Unconfined":
            wrong.append("Unconfined")
    if not wrong:
        return ""
    return f"forbidden AppArmor profile{'s' if len(wrong) > 1 else ''} ({', '.join(wrong)})"


def _selinux(metadata: View, spec: View) -> str:
    options = [security.get("seLinuxOptions") or {} for security in map(_security, _containers(spec))]
    options.append(_pod_security(spec).get("seLinuxOptions") or {})
    types = {each.get("type") or "" for each in options} - _SELINUX_TYPES
    wrong = [f"type {_quoted(types)}"] if types else []
    wrong += [f"{name} may not be set" for name in ("user", "role") if any(each.get(name) for each in options)]
    return f"seLinuxOptions ({'; '.join(wrong)})" if wrong else ""


def _proc_mount(metadata: View, spec: View) -> str:
    names = _containers_that(spec, lambda container: _security(container).get("procMount") not in (None, "", "Default"))
    what = f'{_named("container", names)} must not set securityContext.procMount to "Unmasked"'
    return f"procMount ({what})" if names else ""


def _seccomp_type(security: View) -> str:
    return str((security.get("seccompProfile") or {}).get("type") or "")


def _baseline_seccomp(metadata: View, spec: View) -> str:
    names = _containers_that(spec, lambda container: _seccomp_type(_security(container)) == "Unconfined")
    who = ["pod"] if _seccomp_type(_pod_security(spec)) == "Unconfined" else []
    who += [_named("container", names)] if names else []
    what = f'{" and ".join(who)} must not set securityContext.seccompProfile.type to "Unconfined"'
    return f"seccompProfile ({what})" if who else ""


def _sysctls(metadata: View, spec: View) -> str:
    wrong = [each["name"] for each in _pod_security(spec).get("sysctls") or () if each.get("name") not in _SYSCTLS]
    return f"forbidden sysctls ({', '.join(wrong)})" if wrong else ""


def _windows(metadata: View, spec: View) -> str:
    def hosted(security: View) -> bool:
        return bool((security.get("windowsOptions") or {}).get("hostProcess"))

    names = _containers_that(spec, lambda container: hosted(_security(container)))
    who = ["pod"] if hosted(_pod_security(spec)) else []
    who += [_named("container", names)] if names else []
    what = f"{' and '.join(who)} must not set securityContext.windowsOptions.hostProcess=true"
    return f"hostProcess ({what})" if who else ""


# ---- restricted ----


def _escalation(metadata: View, spec: View) -> str:
    names = _containers_that(spec, lambda container: _security(container).get("allowPrivilegeEscalation") is not False)
    what = f"{_named('container', names)} must set securityContext.allowPrivilegeEscalation=false"
    return f"allowPrivilegeEscalation != false ({what})" if names else ""


def _restricted_capabilities(metadata: View, spec: View) -> str:
    def keeps(container: View) -> bool:
        return "ALL" not in ((_security(container).get("capabilities") or {}).get("drop") or ())

    def extra(container: View) -> set[str]:
        return set(_added(container)) - {"NET_BIND_SERVICE"}

    said = []
    if names := _containers_that(spec, keeps):
        said.append(f'{_named("container", names)} must set securityContext.capabilities.drop=["ALL"]')
    if names := _containers_that(spec, lambda container: bool(extra(container))):
        wrong = {each for container in _containers(spec) for each in extra(container)}
        said.append(
            f"{_named('container', names)} must not include {_quoted(wrong)} in securityContext.capabilities.add"
        )
    return f"unrestricted capabilities ({'; '.join(said)})" if said else ""


def _volume_types(metadata: View, spec: View) -> str:
    wrong: dict[str, set[str]] = {}
    for volume in spec.get("volumes") or ():
        if kinds := set(volume) - _VOLUMES:
            wrong[volume.get("name") or ""] = kinds
    if not wrong:
        return ""
    kinds_found = {kind for kinds in wrong.values() for kind in kinds}
    verb = "use" if len(wrong) > 1 else "uses"
    word = "types" if len(kinds_found) > 1 else "type"
    what = f"{_named('volume', wrong)} {verb} restricted volume {word} {_quoted(kinds_found)}"
    return f"restricted volume types ({what})"


def _non_root(metadata: View, spec: View) -> str:
    said = []
    pod = _pod_security(spec).get("runAsNonRoot")
    if pod is False:
        said.append("pod must not set securityContext.runAsNonRoot=false")
    if names := _containers_that(spec, lambda container: _security(container).get("runAsNonRoot") is False):
        said.append(f"{_named('container', names)} must not set securityContext.runAsNonRoot=false")
    unset = _containers_that(spec, lambda container: _security(container).get("runAsNonRoot") is None)
    if not said and pod is not True and unset:
        said.append(f"pod or {_named('container', unset)} must set securityContext.runAsNonRoot=true")
    return f"runAsNonRoot != true ({'; '.join(said)})" if said else ""


def _root_user(metadata: View, spec: View) -> str:
    names = _containers_that(spec, lambda container: _security(container).get("runAsUser") == 0)
    who = ["pod"] if _pod_security(spec).get("runAsUser") == 0 else []
    who += [_named("container", names)] if names else []
    return f"runAsUser=0 ({' and '.join(who)} must not set runAsUser=0)" if who else ""


def _restricted_seccomp(metadata: View, spec: View) -> str:
    good = ("RuntimeDefault", "Localhost")
    pod = _seccomp_type(_pod_security(spec))
    allowed = '"RuntimeDefault" or "Localhost"'
    if pod and pod not in good:
        return f"seccompProfile (pod must not set securityContext.seccompProfile.type to {_quoted([pod])})"
    wrong = [_seccomp_type(_security(container)) for container in _containers(spec)]
    if bad := {each for each in wrong if each and each not in good}:
        names = _containers_that(spec, lambda container: _seccomp_type(_security(container)) in bad)
        return (
            f"seccompProfile ({_named('container', names)} must not set securityContext.seccompProfile.type "
            f"to {_quoted(bad)})"
        )
    names = _containers_that(spec, lambda container: not _seccomp_type(_security(container)))
    what = f"pod or {_named('container', names)} must set securityContext.seccompProfile.type to {allowed}"
    return f"seccompProfile ({what})" if names and not pod else ""


_BASELINE: tuple[Check, ...] = (
    *(_app_armor, _baseline_capabilities, _host_namespaces, _host_paths, _host_ports, _host_probes, _privileged),
    *(_proc_mount, _selinux, _baseline_seccomp, _sysctls, _windows),
)
_RESTRICTED: tuple[Check, ...] = (
    *(_escalation, _app_armor, _restricted_capabilities, _host_namespaces, _host_ports, _host_probes, _privileged),
    *(_proc_mount, _volume_types, _non_root, _root_user, _selinux, _restricted_seccomp, _sysctls, _windows),
)
_CHECKS: dict[str, tuple[Check, ...]] = {"baseline": _BASELINE, "restricted": _RESTRICTED}
