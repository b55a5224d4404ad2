"""The questions that the operator asks Prometheus, as strings.

Everything of ours is a plain sum, so that replicas merge and no query is longer than its answer needs.
Counters are read *raw and by instance*: `rate` and `increase` extrapolate to fractions of requests and a
test needs whole ones, so resets are undone in `modelyard.serving.analysis`, which keeps the last value of
every series.

A user's own query runs with the operator's access to Prometheus, which sees every namespace. `user_query`
therefore gives each selector a matcher on the namespace. It does not understand PromQL; it splits the
text into tokens, knows which of them select series, and refuses whatever it does not know. A matcher that
the user wrote for another namespace stays and matches nothing.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

# The labels that Envoy's tag extraction takes from the cluster name `<namespace>/<sd>/<version>`.
_ROUTER = 'namespace_name="{namespace}",serving_deployment="{name}"'
_SERVER = 'namespace="{namespace}",serving_deployment="{name}"'

_DURATION = re.compile(r"(\d+(ms|[smhdwy]))+")
_NAME = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")


class QueryRefused(ValueError):
    """A user's query that cannot be shown to stay within its namespace; the message says why."""


@dataclass(frozen=True)
class Target:
    """Whose series: a ServingDeployment and, where given, one version of it."""

    namespace: str
    name: str
    version: int | None = None

    def __post_init__(self) -> None:
        # The names come from objects that the API server has checked; they are checked again since they
        # land in quotes.
        if not _NAME.fullmatch(self.namespace) or not _NAME.fullmatch(self.name):
            raise ValueError(f"not a Kubernetes name: {self.namespace}/{self.name}")

    def router(self, *more: str) -> str:
        """The matchers of Envoy's series."""
        return self._matchers(_ROUTER, more)

    def server(self, *more: str) -> str:
        """The matchers of the inference server's and the monitor's series."""
        return self._matchers(_SERVER, more)

    def _matchers(self, template: str, more: tuple[str, ...]) -> str:
        matchers = [template.format(namespace=self.namespace, name=self.name)]
        if self.version is not None:
            matchers.append(f'version="{self.version}"')
        return "{" + ",".join([*matchers, *more]) + "}"


def router_requests(target: Target) -> str:
    """Answered requests by router, version and class of the code (`2`, `4`, `5`), cumulative."""
    by = "instance, version, envoy_response_code_class"
    return f"sum by ({by}) (envoy_cluster_upstream_rq_xx{target.router()})"


def router_latency(target: Target) -> str:
    """Requests by router, version and upper bound `le` in *milliseconds*, cumulative; `+Inf` counts all."""
    return f"sum by (instance, version, le) (envoy_cluster_upstream_rq_time_bucket{target.router()})"


def parity_checked(target: Target) -> str:
    """Vectors recomputed by the monitor, cumulative."""
    return f"sum by (instance, version) (modelyard_parity_checked_total{target.server()})"


def parity_mismatched(target: Target) -> str:
    """Recomputed vectors that differ from what was served, cumulative."""
    return f"sum by (instance, version) (modelyard_parity_mismatched_total{target.server()})"


def quality(target: Target, metric: str) -> str:
    """A quality gauge by version, such as `roc_auc`, from joined labels."""
    return f"max by (version) (modelyard_quality{target.server(f'metric={quote(metric)}')})"


def labels_joined(target: Target) -> str:
    """Predictions whose label has arrived, by version."""
    return f"sum by (version) (modelyard_labels_joined_total{target.server()})"


def drift_counts(target: Target, window: str) -> str:
    """Values counted in the window, by feature and bucket (`0`…`k`, `null`, a category, `other`)."""
    values = f"modelyard_feature_values_total{target.server()}[{_window(window)}]"
    return f"sum by (feature, bucket) (increase({values}))"


def drift_nulls(target: Target, window: str) -> str:
    """Nulls and NaN counted in the window, by feature."""
    return f"sum by (feature) (increase(modelyard_feature_nulls_total{target.server()}[{_window(window)}]))"


def drift_reference(target: Target) -> str:
    """The training data's share of each feature's buckets; every replica says the same."""
    return f"max by (feature, bucket) (modelyard_feature_reference_ratio{target.server()})"


def drift_limits(target: Target) -> str:
    """The limit by feature that the reference's own variation sets."""
    return f"max by (feature) (modelyard_drift_limit{target.server()})"


def prediction_counts(target: Target, window: str) -> str:
    """Predictions in the window by version and bucket, on the Model's one grid."""
    values = f"modelyard_prediction_values_total{target.server()}[{_window(window)}]"
    return f"sum by (version, bucket) (increase({values}))"


def event_time(target: Target) -> str:
    """The latest event time that requests have named, in seconds: the logical time of a drift run."""
    return f"max(modelyard_event_time_seconds{target.server()})"


def quote(text: str) -> str:
    """A PromQL string literal.

    >>> print(quote('a"b'))
    "a\\"b"
    """
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'


def user_query(query: str, *, namespace: str, version: int, window: str) -> str:
    """The user's query for one version, with placeholders filled in and held to the namespace.

    >>> user_query('sales{version="$(version)"}[$(window)]', namespace="shop", version=7, window="5m")
    'sales{namespace="shop",version="7"}[5m]'
    """
    if not _NAME.fullmatch(namespace):
        raise ValueError(f"not a Kubernetes name: {namespace}")
    values = {"version": str(version), "window": _window(window), "namespace": namespace}

    def fill(match: re.Match[str]) -> str:
        if match[1] not in values:
            raise QueryRefused(
                f"unknown placeholder {match[0]}: there are $(version), $(window) and $(namespace)"
            )
        return values[match[1]]

    return enforce_namespace(re.sub(r"\$\(([^)]*)\)", fill, query), namespace)


_TOKEN = re.compile(
    r"""(?P<space>\s+)|(?P<comment>\#[^\n]*)
    |(?P<string>"(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*'|`[^`]*`)
    |(?P<name>[A-Za-z_:][A-Za-z0-9_:]*)
    |(?P<number>(?:\d|\.\d)[A-Za-z0-9_.]*)
    |(?P<operator>=~|!~|==|!=|<=|>=|[-+*/%^<>=@(),{}\[\]])""",
    re.VERBOSE,
)
# Words that may stand before a list of labels in parentheses.
_LISTS = frozenset({"by", "without", "on", "ignoring", "group_left", "group_right"})
_BINARY = frozenset({"and", "or", "unless", "atan2"})
_WORDS = _BINARY | {"group_left", "group_right", "offset", "bool"}
_OPERATORS = frozenset(["+", "-", "*", "/", "%", "^", "==", "!=", "<", ">", "<=", ">="])
_AGGREGATIONS = frozenset(
    ("sum", "avg", "count", "min", "max", "group", "stddev", "stdvar", "topk", "bottomk", "count_values")
) | {"quantile", "limitk", "limit_ratio"}
# Not of Prometheus but of systems that speak PromQL, where it would define names that hide selectors.
_REFUSED = frozenset({"with"})


@dataclass(frozen=True)
class _Token:
    kind: str
    text: str


def enforce_namespace(query: str, namespace: str) -> str:
    """The query with `namespace="…"` in every selector; `QueryRefused` where that is not certain."""
    tokens = _tokens(query)
    matcher = f"namespace={quote(namespace)}"
    out: list[str] = []
    at = 0
    previous: _Token | None = None
    while at < len(tokens):
        token = tokens[at]
        following = tokens[at + 1].text if at + 1 < len(tokens) else ""
        end = at + 1
        if token.text == "{" and token.kind == "operator":
            end = _matchers_end(tokens, at)
            inner = "".join(part.text for part in tokens[at + 1 : end - 1])
            out.append("{" + matcher + ("," + inner if inner else "") + "}")
        elif token.text == "[" and token.kind == "operator":
            end = _range_end(tokens, at)
            out.append("".join(part.text for part in tokens[at:end]))
        elif token.kind == "name":
            word = token.text.lower()
            if word in _LISTS and following == "(" and _may_follow(word, previous):
                end = _labels_end(tokens, at + 1)
                out.append(
                    f" {word} (" + ",".join(t.text for t in tokens[at + 2 : end - 1] if t.text != ",") + ") "
                )
            elif word in _WORDS and _may_follow(word, previous):
                out.append(f" {word} ")
                previous, at = _Token("keyword", word), end
                continue
            elif word in _LISTS | _BINARY | _REFUSED | {"offset", "bool"}:
                raise QueryRefused(f"{token.text!r} is not expected here")
            elif following in {"(", "{"} or word in {"inf", "nan"}:
                # A function, a selector whose braces come next, or a number.
                out.append(token.text)
            elif word in _AGGREGATIONS and following.lower() in {"by", "without"}:
                out.append(token.text)
            else:
                out.append(token.text + "{" + matcher + "}")
        else:
            out.append(token.text)
        previous = tokens[end - 1]
        at = end
    return "".join(out).strip()


def _tokens(query: str) -> list[_Token]:
    tokens = []
    at = 0
    while at < len(query):
        match = _TOKEN.match(query, at)
        if match is None:
            raise QueryRefused(f"character {query[at]!r} at {at} is not understood")
        if match.lastgroup not in {"space", "comment"}:
            tokens.append(_Token(str(match.lastgroup), match[0]))
        at = match.end()
    if not tokens:
        raise QueryRefused("the query is empty")
    return tokens


def _ends_operand(token: _Token | None) -> bool:
    if token is None:
        return False
    return token.kind in {"name", "number", "string"} or token.text in {")", "}", "]"}


def _may_follow(word: str, previous: _Token | None) -> bool:
    """Whether the word is a keyword after that token; elsewhere it could be a metric of that name."""
    if previous is None:
        return False
    if word in {"on", "ignoring"}:
        return previous.kind == "keyword" or (previous.kind == "operator" and previous.text in _OPERATORS)
    if word in {"group_left", "group_right"}:
        return previous.text == ")"
    if word == "bool":
        return previous.text in {"==", "!=", "<", ">", "<=", ">="}
    return _ends_operand(previous)


def _matchers_end(tokens: list[_Token], start: int) -> int:
    """One past the brace that closes; inside are only matchers and commas (some dialects know `or` there)."""
    at = start + 1
    while at < len(tokens) and tokens[at].text != "}":
        if tokens[at].kind == "string" and tokens[at + 1 : at + 2] and tokens[at + 1].text in {",", "}"}:
            at += 1  # a metric's name in quotes
        elif (
            len(tokens) > at + 3
            and tokens[at].kind in {"name", "string"}
            and tokens[at + 1].text in {"=", "!=", "=~", "!~"}
            and tokens[at + 2].kind == "string"
        ):
            at += 3
        else:
            raise QueryRefused('a selector may hold only matchers, such as {code="200"}')
        if tokens[at].text == ",":
            at += 1
        elif tokens[at].text != "}":
            raise QueryRefused("matchers are separated by commas")
    if at >= len(tokens):
        raise QueryRefused("a selector is not closed")
    return at + 1


def _range_end(tokens: list[_Token], start: int) -> int:
    for at in range(start + 1, len(tokens)):
        if tokens[at].text == "]":
            return at + 1
        if tokens[at].kind not in {"number", "name"} or (
            tokens[at].kind == "name" and tokens[at].text[0] != ":"
        ):
            raise QueryRefused("a range holds only durations, such as [5m]")
    raise QueryRefused("a range is not closed")


def _labels_end(tokens: list[_Token], start: int) -> int:
    for at in range(start + 1, len(tokens)):
        if tokens[at].text == ")":
            return at + 1
        if tokens[at].kind != "name" and tokens[at].text != ",":
            raise QueryRefused("a list of labels holds only names")
    raise QueryRefused("a list of labels is not closed")


def _window(window: str) -> str:
    if not _DURATION.fullmatch(window):
        raise ValueError(f"not a duration: {window}")
    return window
