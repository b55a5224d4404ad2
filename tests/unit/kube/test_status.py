"""Conditions keep their transition times; events of the same words are one event."""

from __future__ import annotations

import datetime

from modelyard.cluster.client import path_of
from modelyard.cluster.events import event_name
from modelyard.cluster.status import Condition, merge_conditions

T0 = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
T1 = T0 + datetime.timedelta(hours=1)


def test_transition_time_moves_with_the_status_only() -> None:
    first = merge_conditions([], [Condition("Ready", False, "Waiting", "for data")], T0)
    same = merge_conditions(first, [Condition("Ready", False, "Waiting", "for a GPU")], T1)
    assert same[0]["lastTransitionTime"] == "2026-01-01T00:00:00Z"
    assert same[0]["message"] == "for a GPU"
    turned = merge_conditions(same, [Condition("Ready", True, "Done")], T1)
    assert turned[0]["lastTransitionTime"] == "2026-01-01T01:00:00Z"


def test_conditions_of_others_stay() -> None:
    before = merge_conditions([], [Condition("Drifted", True, "Psi")], T0)
    after = merge_conditions(before, [Condition("Ready", True, "Done")], T1)
    assert [c["type"] for c in after] == ["Drifted", "Ready"]


def test_paths() -> None:
    assert path_of("Pod", "a", "b", "log") == "/api/v1/namespaces/a/pods/b/log"
    assert path_of("Model", None) == "/apis/modelyard.dev/v1alpha1/models"


def test_event_names_are_words() -> None:
    obj = {"metadata": {"name": "x", "uid": "u"}}
    assert event_name(obj, "A", "m") == event_name(obj, "A", "m")
    assert event_name(obj, "A", "m") != event_name(obj, "A", "n")
