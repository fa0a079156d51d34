"""/livez, /readyz and /healthz: is this process worth talking to.

Called by app.py. Live means that the event loop turns; ready means that etcd answers and we are not on our way out.
Invariant: losing etcd never makes the process look dead, or a supervisor would restart it in a circle.
Rules: https://kubernetes.io/docs/reference/using-api/health-checks/
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from controller.server.reply import Reply, reply_text

Check = Callable[[], bool]


def answer_health(path: str, params: Mapping[str, str], checks: Mapping[str, Check]) -> Reply | None:
    """The reply to a health path (`/readyz`, `/readyz/etcd`, `?verbose`, `?exclude=`), None for an unknown check."""
    endpoint, _, single = path.strip("/").partition("/")
    wanted = {"ping": _ping, **({} if endpoint == "livez" else checks)}
    if single:
        if single not in {"ping", *checks}:
            return None
        wanted = {single: checks.get(single, _ping)}
    wanted.pop(params.get("exclude", ""), None)
    results = {name: check() for name, check in wanted.items()}
    passed = all(results.values())
    if passed and "verbose" not in params:
        return reply_text("ok")
    lines = [f"[{'+' if good else '-'}]{name} {'ok' if good else 'failed'}" for name, good in results.items()]
    lines.append(f"{endpoint} check {'passed' if passed else 'failed'}")
    return reply_text("\n".join(lines) + "\n", 200 if passed else 500)


def _ping() -> bool:
    return True
