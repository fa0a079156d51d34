"""Webhook configurations, admission policies and their bindings.

Called by dispatch. Source: k8s.io/kubernetes/pkg/apis/admissionregistration/validation. Expressions are compiled here,
so that a policy that cannot work is refused when it is written.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable
from typing import Any
from urllib.parse import urlsplit

from cryptography.x509 import load_pem_x509_certificates

from api.errors import duplicate, forbidden, invalid, not_supported, required
from api.names import is_dns_subdomain, is_qualified_name
from api.schema.custom import rules as cel
from controller.registry.validation.meta import check_metadata, check_updated_metadata
from controller.registry.validation.rules import Errors, Value, check_label_selector

_OPERATIONS = frozenset({"*", "CREATE", "UPDATE", "DELETE", "CONNECT"})
_SCOPES = frozenset({"*", "Cluster", "Namespaced"})
_FAILURES, _MATCHES = frozenset({"Fail", "Ignore"}), frozenset({"Equivalent", "Exact"})
_SIDE_EFFECTS, _REINVOCATIONS = frozenset({"None", "NoneOnDryRun"}), frozenset({"IfNeeded", "Never"})
_ACTIONS = frozenset({"Audit", "Deny", "Warn"})
_REASONS = frozenset({"Unauthorized", "Forbidden", "Invalid", "RequestEntityTooLarge"})
_LONGEST_SECONDS, _MOST_CONDITIONS = 30, 64
_NO_CEL = "wherry cannot evaluate it: its extra `cel` is not installed (pip install 'wherry[cel]')"


def check_configuration(errors: Errors, obj: Value) -> None:
    check_metadata(errors, obj["metadata"], is_dns_subdomain, namespaced=False)
    seen: set[str] = set()
    for index, webhook in enumerate(obj.get("webhooks") or ()):
        path = f"webhooks[{index}]"
        _check_webhook(errors, path, webhook)
        name = webhook.get("name") or ""
        if name in seen:
            errors.append(duplicate(f"{path}.name", name))
        seen.add(name)


def check_configuration_update(errors: Errors, obj: Value, old: Value) -> None:
    check_updated_metadata(errors, obj["metadata"], old["metadata"])
    check_configuration(errors, obj)


def _check_webhook(errors: Errors, path: str, webhook: Value) -> None:
    name = webhook.get("name") or ""
    faults = is_dns_subdomain(name)
    if not name:
        errors.append(required(f"{path}.name"))
    elif faults:
        errors.append(invalid(f"{path}.name", name, ",".join(faults)))
    elif name.count(".") < 2:
        detail = "should be a domain with at least three segments separated by dots"
        errors.append(invalid(f"{path}.name", name, detail))
    for index, rule in enumerate(webhook.get("rules") or ()):
        _check_rule(errors, f"{path}.rules[{index}]", rule)
    _check_word(errors, f"{path}.failurePolicy", webhook.get("failurePolicy"), _FAILURES)
    _check_word(errors, f"{path}.matchPolicy", webhook.get("matchPolicy"), _MATCHES)
    _check_word(errors, f"{path}.reinvocationPolicy", webhook.get("reinvocationPolicy"), _REINVOCATIONS)
    if not webhook.get("sideEffects"):
        errors.append(required(f"{path}.sideEffects", f"must specify one of {', '.join(sorted(_SIDE_EFFECTS))}"))
    else:
        _check_word(errors, f"{path}.sideEffects", webhook["sideEffects"], _SIDE_EFFECTS)
    seconds = webhook.get("timeoutSeconds")
    if seconds is not None and not 1 <= seconds <= _LONGEST_SECONDS:
        detail = "the timeout value must be between 1 and 30 seconds"
        errors.append(invalid(f"{path}.timeoutSeconds", seconds, detail))
    _check_selectors(errors, path, webhook)
    _check_versions(errors, f"{path}.admissionReviewVersions", webhook.get("admissionReviewVersions") or [])
    check_client_config(errors, f"{path}.clientConfig", webhook.get("clientConfig") or {})
    _check_conditions(errors, f"{path}.matchConditions", webhook.get("matchConditions") or [])


def _check_word(errors: Errors, path: str, value: Any, choices: frozenset[str]) -> None:
    if value is not None and value not in choices:
        errors.append(not_supported(path, value, choices))


def _check_selectors(errors: Errors, path: str, holder: Value) -> None:
    for name in ("namespaceSelector", "objectSelector"):
        if holder.get(name) is not None:
            check_label_selector(errors, f"{path}.{name}", holder[name])


def _check_versions(errors: Errors, path: str, versions: list[str]) -> None:
    if not versions:
        errors.append(required(path, "must specify one of v1, v1beta1"))
    elif not {"v1", "v1beta1"} & set(versions):
        errors.append(invalid(path, versions, "must include at least one of v1, v1beta1"))


def check_client_config(errors: Errors, path: str, config: Value) -> None:
    """Exactly one of url and service."""
    url, service = config.get("url"), config.get("service")
    if (url is None) is (service is None):
        errors.append(required(path, "exactly one of url or service is required"))
    elif url is not None:
        _check_url(errors, f"{path}.url", url)
    else:
        _check_service(errors, f"{path}.service", service or {})


def check_bundle(errors: Errors, path: str, bundle: str) -> None:
    """Certificates in base64 of PEM, or none."""
    if not bundle:
        return
    try:
        load_pem_x509_certificates(base64.b64decode(bundle, validate=True))
    except ValueError:
        errors.append(invalid(path, bundle, "unable to load root certificates: unable to parse bytes as PEM block"))


def _check_url(errors: Errors, path: str, url: str) -> None:
    form = "; desired format: https://host[/path]"
    parts = urlsplit(url)
    if parts.scheme != "https":
        errors.append(invalid(path, parts.scheme, f"'https' is the only allowed URL scheme{form}"))
    if not parts.hostname:
        errors.append(invalid(path, parts.netloc, f"host must be specified{form}"))
    for part, word in ((parts.username, "user information"), (parts.fragment, "fragments"), (parts.query, "query")):
        if part:
            errors.append(invalid(path, part, f"{word} is not permitted in the URL{form}"))


def _check_service(errors: Errors, path: str, service: Value) -> None:
    missing = [name for name in ("name", "namespace") if not service.get(name)]
    errors += [required(f"{path}.{name}", f"service {name} is required") for name in missing]
    port = service.get("port")
    if port is not None and not 0 < port < 65536:
        errors.append(invalid(f"{path}.port", port, "port is not valid: must be between 1 and 65535, inclusive"))
    if (text := service.get("path")) and not text.startswith("/"):
        errors.append(invalid(f"{path}.path", text, "must start with a '/'"))


def _check_rule(errors: Errors, path: str, rule: Value) -> None:
    for name in ("operations", "apiGroups", "apiVersions", "resources"):
        values = rule.get(name) or []
        if not values:
            errors.append(required(f"{path}.{name}"))
        elif len(values) > 1 and "*" in values:
            detail = "if '*' is present, must not specify other values"
            errors.append(invalid(f"{path}.{name}", values, detail))
    for index, operation in enumerate(rule.get("operations") or ()):
        _check_word(errors, f"{path}.operations[{index}]", operation, _OPERATIONS)
    _check_word(errors, f"{path}.scope", rule.get("scope"), _SCOPES)


def _check_conditions(errors: Errors, path: str, conditions: list[Value]) -> None:
    if len(conditions) > _MOST_CONDITIONS:
        errors.append(invalid(path, len(conditions), f"must have at most {_MOST_CONDITIONS} items"))
    seen: set[str] = set()
    for index, condition in enumerate(conditions):
        where, name = f"{path}[{index}]", condition.get("name") or ""
        if not name:
            errors.append(required(f"{where}.name"))
        elif faults := is_qualified_name(name):
            errors.append(invalid(f"{where}.name", name, ",".join(faults)))
        elif name in seen:
            errors.append(duplicate(f"{where}.name", name))
        seen.add(name)
        _check_expression(errors, f"{where}.expression", condition.get("expression") or "")


def _check_expression(errors: Errors, path: str, text: str) -> None:
    if not text.strip():
        errors.append(required(path, "must specify an expression"))
    elif not cel.available():
        errors.append(forbidden(path, _NO_CEL))
    else:
        try:
            cel.compile_rule(text)
        except cel.BadRule as fault:
            errors.append(invalid(path, text, str(fault)))


def check_policy(errors: Errors, obj: Value) -> None:
    check_metadata(errors, obj["metadata"], is_dns_subdomain, namespaced=False)
    spec = obj.get("spec") or {}
    constraints = spec.get("matchConstraints")
    if constraints is None:
        errors.append(required("spec.matchConstraints"))
    else:
        _check_resources(errors, "spec.matchConstraints", constraints)
        if not constraints.get("resourceRules"):
            errors.append(required("spec.matchConstraints.resourceRules"))
    _check_word(errors, "spec.failurePolicy", spec.get("failurePolicy"), _FAILURES)
    _check_conditions(errors, "spec.matchConditions", spec.get("matchConditions") or [])
    for index, variable in enumerate(spec.get("variables") or ()):
        path = f"spec.variables[{index}]"
        if not (variable.get("name") or "").isidentifier():
            errors.append(invalid(f"{path}.name", variable.get("name"), "name is not a valid CEL identifier"))
        _check_expression(errors, f"{path}.expression", variable.get("expression") or "")
    _check_validations(errors, spec)
    kind = spec.get("paramKind")
    if kind is not None:
        errors += [required(f"spec.paramKind.{name}") for name in ("apiVersion", "kind") if not kind.get(name)]


def _check_validations(errors: Errors, spec: Value) -> None:
    validations: Iterable[Value] = spec.get("validations") or ()
    if not validations and not spec.get("auditAnnotations"):
        errors.append(required("spec.validations", "validations or auditAnnotations must be set"))
    for index, validation in enumerate(validations):
        path = f"spec.validations[{index}]"
        _check_expression(errors, f"{path}.expression", validation.get("expression") or "")
        if validation.get("messageExpression"):
            _check_expression(errors, f"{path}.messageExpression", validation["messageExpression"])
        _check_word(errors, f"{path}.reason", validation.get("reason"), _REASONS)
        message = validation.get("message")
        if message and "\n" in message:
            errors.append(invalid(f"{path}.message", message, "message must not contain line breaks"))


def check_policy_update(errors: Errors, obj: Value, old: Value) -> None:
    check_updated_metadata(errors, obj["metadata"], old["metadata"])
    check_policy(errors, obj)


def _check_resources(errors: Errors, path: str, resources: Value) -> None:
    _check_selectors(errors, path, resources)
    for name in ("resourceRules", "excludeResourceRules"):
        for index, rule in enumerate(resources.get(name) or ()):
            _check_rule(errors, f"{path}.{name}[{index}]", rule)
    _check_word(errors, f"{path}.matchPolicy", resources.get("matchPolicy"), _MATCHES)


def check_binding(errors: Errors, obj: Value) -> None:
    check_metadata(errors, obj["metadata"], is_dns_subdomain, namespaced=False)
    spec = obj.get("spec") or {}
    name = spec.get("policyName") or ""
    if not name:
        errors.append(required("spec.policyName"))
    elif faults := is_dns_subdomain(name):
        errors.append(invalid("spec.policyName", name, ",".join(faults)))
    if spec.get("matchResources") is not None:
        _check_resources(errors, "spec.matchResources", spec["matchResources"])
    actions = spec.get("validationActions") or []
    if not actions:
        errors.append(required("spec.validationActions", "at least one validation action is required"))
    for index, action in enumerate(actions):
        path = f"spec.validationActions[{index}]"
        if action not in _ACTIONS:
            errors.append(not_supported(path, action, _ACTIONS))
        elif action in actions[:index]:
            errors.append(duplicate(path, action))
    if {"Deny", "Warn"} <= set(actions):
        why = "repeating the same validation failure information in the API response and headers serves no purpose"
        detail = f"must not contain both Deny and Warn ({why})"
        errors.append(invalid("spec.validationActions", actions, detail))
    reference = spec.get("paramRef")
    if reference is not None and ("name" in reference) == (reference.get("selector") is not None):
        errors.append(required("spec.paramRef.name", "one of name or selector must be specified"))


def check_binding_update(errors: Errors, obj: Value, old: Value) -> None:
    check_updated_metadata(errors, obj["metadata"], old["metadata"])
    check_binding(errors, obj)
