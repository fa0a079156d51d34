"""An autoscaler read and written back as autoscaling/v1 is the one that was stored as v2."""

from __future__ import annotations

from api.kinds import by_gvk, by_resource
from api.objects import Object
from api.schema import unimplemented
from api.schema.unimplemented import idle
from controller.registry.autoscaler_views import to_v1, to_v2
from controller.registry.views import inward


def test_the_cpu_target_has_a_field_and_the_rest_an_annotation() -> None:
    shown = to_v1(stored())
    assert shown["apiVersion"] == "autoscaling/v1"
    assert shown["spec"] == {"maxReplicas": 3, "targetCPUUtilizationPercentage": 50}
    assert shown["status"] == {"desiredReplicas": 1, "currentReplicas": 0, "currentCPUUtilizationPercentage": 20}
    assert set(shown["metadata"]["annotations"]) == {
        "mine",
        *(
            f"autoscaling.alpha.kubernetes.io/{name}"
            for name in ("metrics", "behavior", "current-metrics", "conditions")
        ),
    }


def test_annotations_hold_the_metrics_of_v1_and_the_behavior_of_go() -> None:
    before = stored()
    target = {"type": "Value", "value": "2"}
    described = {"name": "s", "kind": "Service", "apiVersion": "v1"}
    measured = {"type": "Object", "object": {"describedObject": described, "metric": {"name": "m"}, "target": target}}
    before["spec"]["metrics"][1] = measured
    annotations = to_v1(before)["metadata"]["annotations"]
    assert annotations["autoscaling.alpha.kubernetes.io/metrics"] == (
        '[{"type":"Object","object":{"target":{"kind":"Service","name":"s","apiVersion":"v1"},'
        '"metricName":"m","targetValue":"2"}}]'
    )
    assert annotations["autoscaling.alpha.kubernetes.io/behavior"] == (
        '{"ScaleUp":null,"ScaleDown":{"StabilizationWindowSeconds":null,"SelectPolicy":"Max","Policies":null,"Tolerance":null}}'
    )
    assert to_v2(to_v1(before))["spec"]["metrics"] == [measured, before["spec"]["metrics"][0]]


def test_nothing_is_lost_on_the_way_there_and_back() -> None:
    before = stored()
    back = to_v2(to_v1(before))
    back["status"].pop("currentReplicas")
    back["spec"]["metrics"].reverse()  # the CPU target comes last
    assert back["status"]["currentMetrics"][0]["resource"]["current"].pop("averageValue") == "0"
    assert back == before == stored()


def test_annotations_that_a_person_broke_count_as_absent() -> None:
    shown = to_v1(stored())
    shown["metadata"]["annotations"]["autoscaling.alpha.kubernetes.io/metrics"] = "{"
    assert [metric["type"] for metric in to_v2(shown)["spec"]["metrics"]] == ["Resource"]


def test_an_autoscaler_that_names_no_target_gets_the_usual_one() -> None:
    view = by_gvk("autoscaling", "v1", "HorizontalPodAutoscaler")
    assert view is not None
    kept = inward(view, {"metadata": {"name": "x"}, "spec": {"maxReplicas": 3}})
    assert kept["spec"]["metrics"][0]["resource"]["target"] == {"type": "Utilization", "averageUtilization": 80}


def test_kinds_that_nothing_acts_on_say_so() -> None:
    assert idle(by_resource("batch", "jobs")) == ["wherry does not act on Job objects yet: no pods are made for it"]
    assert not idle(by_resource("apps", "deployments")) and not idle(
        by_resource("networking.k8s.io", "networkpolicies")
    )
    assert unimplemented(by_resource("", "secrets"), {}) == ([], [])


def stored() -> Object:
    target = {"type": "Utilization", "averageUtilization": 50}
    return {
        "apiVersion": "autoscaling/v2",
        "metadata": {"name": "x", "annotations": {"mine": "1"}},
        "spec": {
            "maxReplicas": 3,
            "metrics": [
                {"type": "Resource", "resource": {"name": "cpu", "target": target}},
                {"type": "Resource", "resource": {"name": "memory", "target": target}},
            ],
            "behavior": {"scaleDown": {"selectPolicy": "Max"}},
        },
        "status": {
            "desiredReplicas": 1,
            "currentMetrics": [
                {"type": "Resource", "resource": {"name": "cpu", "current": {"averageUtilization": 20}}}
            ],
            "conditions": [{"type": "AbleToScale", "status": "True"}],
        },
    }
