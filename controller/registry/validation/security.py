"""Security contexts of pods and containers.

Called by podspec and containers. Privileged containers are allowed (admission may forbid them). Source:
k8s.io/kubernetes/pkg/apis/core/validation, https://kubernetes.io/docs/tasks/configure-pod-container/security-context/.
"""

from __future__ import annotations

import re

from api.errors import duplicate, forbidden, invalid, not_supported, required, too_long
from controller.registry.validation.internal import internal
from controller.registry.validation.rules import (
    Errors,
    Value,
    check_descending_path,
    check_group,
    check_optional_choice,
    check_user,
)

_PROFILE_TYPES = ("Localhost", "RuntimeDefault", "Unconfined")
_LONGEST_PATH = 4095
_SYSCTL_PATTERN = r"^([a-z0-9]([-_a-z0-9]*[a-z0-9])?[\./])*[a-z0-9]([-_a-z0-9]*[a-z0-9])?$"
_match_sysctl = re.compile(_SYSCTL_PATTERN).fullmatch
_LONGEST_SYSCTL = 253
_SYSCTLS_OF_IPC = ("kernel.sem", "kernel.shm", "kernel.msg", "fs.mqueue.")


def check_container_security(errors: Errors, path: str, context: Value, *, host_users: bool) -> None:
    check_user(errors, f"{path}.runAsUser", context.get("runAsUser"))
    check_group(errors, f"{path}.runAsGroup", context.get("runAsGroup"))
    if (proc := context.get("procMount")) is not None:
        check_optional_choice(errors, f"{path}.procMount", proc, ("Default", "Unmasked"))
        if host_users and proc == "Unmasked":
            errors.append(invalid(f"{path}.procMount", proc, "`hostUsers` must be false to use `Unmasked`"))
    _check_seccomp(errors, f"{path}.seccompProfile", context.get("seccompProfile"))
    if context.get("allowPrivilegeEscalation") is False:
        _check_no_escalation(errors, path, context)
    _check_app_armor(errors, f"{path}.appArmorProfile", context.get("appArmorProfile"))


def check_pod_security(errors: Errors, path: str, spec: Value) -> None:
    """`spec.securityContext`, whose namespaces (hostPID ...) stand beside it in the spec."""
    context = spec.get("securityContext") or {}
    check_group(errors, f"{path}.fsGroup", context.get("fsGroup"))
    check_user(errors, f"{path}.runAsUser", context.get("runAsUser"))
    check_group(errors, f"{path}.runAsGroup", context.get("runAsGroup"))
    for index, group in enumerate(context.get("supplementalGroups") or ()):
        check_group(errors, f"{path}.supplementalGroups[{index}]", group)
    if spec.get("shareProcessNamespace") and spec.get("hostPID"):
        detail = "ShareProcessNamespace and HostPID cannot both be enabled"
        errors.append(invalid(f"{path}.shareProcessNamespace", True, detail))
    _check_sysctls(errors, f"{path}.sysctls", context.get("sysctls") or [], spec)
    choices = {
        "fsGroupChangePolicy": frozenset({"OnRootMismatch", "Always"}),
        "supplementalGroupsPolicy": frozenset({"Merge", "Strict"}),
        "seLinuxChangePolicy": frozenset({"Recursive", "MountOption"}),
    }
    check_optional_choice(
        errors, f"{path}.fsGroupChangePolicy", context.get("fsGroupChangePolicy"), choices["fsGroupChangePolicy"]
    )
    _check_seccomp(errors, f"{path}.seccompProfile", context.get("seccompProfile"))
    _check_app_armor(errors, f"{path}.appArmorProfile", context.get("appArmorProfile"))
    for field in ("supplementalGroupsPolicy", "seLinuxChangePolicy"):
        check_optional_choice(errors, f"{path}.{field}", context.get(field), choices[field])


def _check_no_escalation(errors: Errors, path: str, context: Value) -> None:
    shown = internal("core.v1.SecurityContext", context)
    if context.get("privileged"):
        detail = "cannot set `allowPrivilegeEscalation` to false and `privileged` to true"
        errors.append(invalid(path, shown, detail))
    for capability in (context.get("capabilities") or {}).get("add") or ():
        if capability == "CAP_SYS_ADMIN":
            detail = "cannot set `allowPrivilegeEscalation` to false and `capabilities.Add` CAP_SYS_ADMIN"
            errors.append(invalid(path, shown, detail))


def _check_seccomp(errors: Errors, path: str, profile: Value | None) -> None:
    if profile is None:
        return
    kind, local = profile.get("type") or "", profile.get("localhostProfile")
    if not kind:
        errors.append(required(f"{path}.type", "type is required when seccompProfile is set"))
    elif kind not in _PROFILE_TYPES:
        errors.append(not_supported(f"{path}.type", kind, _PROFILE_TYPES))
    if kind != "Localhost":
        if local is not None:
            shown = internal("core.v1.SeccompProfile", profile)
            errors.append(invalid(f"{path}.localhostProfile", shown, "can only be set when seccomp type is Localhost"))
    elif local is None:
        errors.append(required(f"{path}.localhostProfile", "must be set when seccomp type is Localhost"))
    else:
        check_descending_path(errors, f"{path}.localhostProfile", local)


def _check_app_armor(errors: Errors, path: str, profile: Value | None) -> None:
    if profile is None:
        return
    kind, local = profile.get("type") or "", profile.get("localhostProfile")
    here = f"{path}.localhostProfile"
    if kind == "Localhost":
        if local is not None and local.strip() != local:
            errors.append(invalid(here, local, "must not be padded with whitespace"))
        elif not local:
            errors.append(required(here, "must be set when AppArmor type is Localhost"))
        if local is not None and len(local) > _LONGEST_PATH:
            errors.append(too_long(here, "", _LONGEST_PATH))
    elif kind in _PROFILE_TYPES:
        if local is not None:
            errors.append(invalid(here, local, "can only be set when AppArmor type is Localhost"))
    elif kind:
        errors.append(not_supported(f"{path}.type", kind, _PROFILE_TYPES))
    else:
        errors.append(required(f"{path}.type", "type is required when appArmorProfile is set"))


def _check_sysctls(errors: Errors, path: str, sysctls: list[Value], spec: Value) -> None:
    seen: set[str] = set()
    for index, sysctl in enumerate(sysctls):
        here, name = f"{path}[{index}].name", sysctl.get("name") or ""
        if not name:
            errors.append(required(here))
        elif len(name) > _LONGEST_SYSCTL or not _match_sysctl(name):
            detail = f"must have at most {_LONGEST_SYSCTL} characters and match regex {_SYSCTL_PATTERN}"
            errors.append(invalid(here, name, detail))
        elif name in seen:
            errors.append(duplicate(here, name))
        dotted = name.replace("/", ".")
        if spec.get("hostNetwork") and dotted.startswith("net."):
            errors.append(invalid(here, name, "may not be specified when 'hostNetwork' is true"))
        elif spec.get("hostIPC") and dotted.startswith(_SYSCTLS_OF_IPC):
            errors.append(invalid(here, name, "may not be specified when 'hostIPC' is true"))
        seen.add(name)


def check_host_users(errors: Errors, path: str, spec: Value) -> None:
    """A pod with its own user namespace may share no other namespace with the host."""
    if spec.get("hostUsers") is not False:
        return
    for field, shown in (("hostNetwork", "hostNetwork"), ("hostPID", "HostPID"), ("hostIPC", "HostIPC")):
        if spec.get(field):
            errors.append(forbidden(f"{path}.{shown}", "when `pod.Spec.HostUsers` is false"))


_LINUX_OF_POD = (
    *("appArmorProfile", "seLinuxOptions", "hostUsers", "hostPID", "hostIPC", "seccompProfile", "fsGroup"),
    *("fsGroupChangePolicy", "sysctls", "shareProcessNamespace", "runAsUser", "runAsGroup", "supplementalGroups"),
    "supplementalGroupsPolicy",
)
_LINUX_OF_CONTAINER = (
    *("appArmorProfile", "seLinuxOptions", "seccompProfile", "capabilities", "readOnlyRootFilesystem", "privileged"),
    *("allowPrivilegeEscalation", "procMount", "runAsUser", "runAsGroup"),
)


def check_os_fields(errors: Errors, path: str, spec: Value) -> None:
    """A pod that names its system sets nothing that only the other one knows."""
    windows = spec["os"]["name"] == "windows"
    context = spec.get("securityContext") or {}
    if windows:
        for field in _LINUX_OF_POD:
            beside = field in ("hostUsers", "hostPID", "hostIPC", "shareProcessNamespace")
            value = (spec if beside else context).get(field)
            if value or (value is not None and field not in ("hostPID", "hostIPC", "sysctls")):
                where = f"{path}.{field}" if beside else f"{path}.securityContext.{field}"
                errors.append(forbidden(where, "cannot be set for a windows pod"))
    elif context.get("windowsOptions") is not None:
        detail = "windows options cannot be set for a linux pod"
        errors.append(forbidden(f"{path}.securityContext.windowsOptions", detail))
    foreign = _LINUX_OF_CONTAINER if windows else ("windowsOptions",)
    for kind in ("initContainers", "containers", "ephemeralContainers"):
        for index, container in enumerate(spec.get(kind) or ()):
            for field in foreign:
                if (container.get("securityContext") or {}).get(field) is not None:
                    detail = f"cannot be set for a {spec['os']['name']} pod"
                    errors.append(forbidden(f"{path}.{kind}[{index}].securityContext.{field}", detail))
