"""Queries: what is asked, and that a user's query cannot leave its namespace."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelyard.serving import promql
from modelyard.serving.promql import QueryRefused, Target, enforce_namespace, user_query

TARGET = Target("flights", "flight-delay", 7)
OURS = 'namespace="flights"'


def test_our_queries_name_their_target():
    assert promql.router_requests(TARGET) == (
        "sum by (instance, version, envoy_response_code_class) (envoy_cluster_upstream_rq_xx"
        '{namespace_name="flights",serving_deployment="flight-delay",version="7"})'
    )
    assert promql.drift_counts(TARGET, "1h") == (
        "sum by (feature, bucket) (increase(modelyard_feature_values_total"
        '{namespace="flights",serving_deployment="flight-delay",version="7"}[1h]))'
    )
    assert promql.quality(Target("flights", "flight-delay"), "roc_auc") == (
        "max by (version) (modelyard_quality"
        '{namespace="flights",serving_deployment="flight-delay",metric="roc_auc"})'
    )


@pytest.mark.parametrize("window", ["", "1h]) or vector(1", "1", "h"])
def test_a_window_is_a_duration(window):
    with pytest.raises(ValueError, match="duration"):
        promql.drift_counts(TARGET, window)


def test_a_target_is_a_name():
    with pytest.raises(ValueError, match="name"):
        Target('x"} or {a="', "y")


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("up", "up{%s}"),
        ("up{}", "up{%s}"),
        ('up{job="a"}', 'up{%s,job="a"}'),
        ('{__name__="up"}', '{%s,__name__="up"}'),
        ('{"odd.name"}', '{%s,"odd.name"}'),
        ("rate(up[5m])", "rate(up{%s}[5m])"),
        ("sum(up)", "sum(up{%s})"),
        ("sum by (job) (up)", "sum by (job) (up{%s})"),
        ("sum(up) by (job, pod)", "sum(up{%s}) by (job,pod)"),
        ("a / on (pod) group_left b", "a{%s}/ on (pod)  group_left b{%s}"),
        ("a > bool 1", "a{%s}> bool 1"),
        ("a and b unless c", "a{%s} and b{%s} unless c{%s}"),
        ("a offset 5m", "a{%s} offset 5m"),
        ("max_over_time(a[1h:5m])", "max_over_time(a{%s}[1h:5m])"),
        ("a # } comment\n+ b", "a{%s}+b{%s}"),
        ('label_replace(a, "x", "$1", "y", "(.*)")', 'label_replace(a{%s},"x","$1","y","(.*)")'),
        ("sum", "sum{%s}"),
        ("a * 1e-3 + Inf", "a{%s}*1e-3+Inf"),
        ('a{b="}"}', 'a{%s,b="}"}'),
        ("up @ end()", "up{%s}@end()"),
    ],
)
def test_every_selector_gets_the_namespace(query, expected):
    assert enforce_namespace(query, "flights").replace("  ", " ") == expected.replace("%s", OURS).replace(
        "  ", " "
    )


@pytest.mark.parametrize(
    "query",
    [
        "",
        "a{",
        'a{b="c" or namespace="other"}',
        "WITH (x = secret) x",
        "offset",
        "and",
        "a and and",
        "by (x)",
        "a{b}",
        "a[5m",
        "a[secret]",
        "a ; b",
        'a{b="c}',
        "sum by (a + b) (c)",
    ],
)
def test_what_is_not_certain_is_refused(query):
    with pytest.raises(QueryRefused):
        enforce_namespace(query, "flights")


def test_placeholders():
    filled = user_query('x{v="$(version)"}[$(window)]', namespace="flights", version=7, window="5m")
    assert filled == 'x{namespace="flights",v="7"}[5m]'
    with pytest.raises(QueryRefused, match="unknown placeholder"):
        user_query("x{v='$(secret)'}", namespace="flights", version=7, window="5m")


@given(
    st.lists(
        st.sampled_from(
            [
                "sum",
                "by",
                "(",
                ")",
                "{",
                "}",
                "[",
                "]",
                "up",
                "5m",
                ",",
                "and",
                "on",
                '"x"',
                "a=",
                '="b"',
                " ",
                "or",
            ]
        ),
        max_size=12,
    ).map(" ".join)
)
def test_no_braces_are_left_without_the_matcher(query):
    try:
        enforced = enforce_namespace(query, "flights")
    except QueryRefused:
        return
    assert all(inner.startswith(OURS) for inner in re.findall(r"{([^}]*)", enforced))
