"""Jobs and CronJobs: a Job's selector and labels are made from its uid, unless it asks to choose them itself.

Rules from k8s.io/kubernetes/pkg/registry/batch/{job,cronjob}/strategy.go.
"""

from __future__ import annotations

from dataclasses import replace

from api.objects import Object
from controller.registry.strategies.common import spec_and_status

_UID_LABEL, _NAME_LABEL = "batch.kubernetes.io/controller-uid", "batch.kubernetes.io/job-name"
_OLD_UID_LABEL, _OLD_NAME_LABEL = "controller-uid", "job-name"
ORPHANS_WARNING = (
    "child pods are preserved by default when jobs are deleted; set propagationPolicy=Background to remove them or set "
    "propagationPolicy=Orphan to suppress this warning"
)


def prepare_job(job: Object) -> None:
    metadata, spec = job["metadata"], job["spec"]
    metadata["generation"] = 1
    job["status"] = {}
    if spec.get("manualSelector"):
        return
    own = {_UID_LABEL: metadata["uid"], _NAME_LABEL: metadata.get("name") or ""}
    own |= {_OLD_UID_LABEL: metadata["uid"], _OLD_NAME_LABEL: metadata.get("name") or ""}
    template = spec.setdefault("template", {}).setdefault("metadata", {})
    shared = not metadata.get("labels") or metadata["labels"] is template.get("labels")
    template["labels"] = {**own, **(template.get("labels") or {})}
    selector = spec.get("selector") or {}
    spec["selector"] = {**selector, "matchLabels": {_UID_LABEL: own[_UID_LABEL], **(selector.get("matchLabels") or {})}}
    if shared:
        metadata["labels"] = dict(template["labels"])


CRON_JOB = spec_and_status({})
JOB = replace(CRON_JOB, prepare_create=prepare_job, garbage_collection="orphan", delete_warning=ORPHANS_WARNING)
