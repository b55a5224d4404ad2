"""From columns to a classifier, and from the classifier to ONNX with one input per feature.

Columns become one float32 matrix: numbers with NaN for null, categories as codes in alphabetical order with -1 for
null and for what training has not seen.  The ONNX model is built in the same two halves, a front that codes and
concatenates, and scikit-learn's own conversion behind it; so what the server computes can be compared number by
number with what was trained.  float32 on both sides, because a value that rounds differently falls on the other side
of a tree's threshold.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from modelyard.steps import tables
from modelyard.steps.context import StepError

Matrix = npt.NDArray[np.float32]
OPSET, ML_OPSET, IR_VERSION = 17, 3, 8
#: The categories of a null in strings: Arrow's null cannot be in an ONNX string tensor.
MISSING = ""
MAX_CATEGORIES = 1000


@dataclass
class Encoding:
    """How columns become a matrix."""

    columns: list[str]
    categories: dict[str, list[str]] = field(default_factory=dict)

    @classmethod
    def fit(cls, table: pa.Table, columns: list[str]) -> Encoding:
        """Learn the categories of the string columns."""
        found: dict[str, list[str]] = {}
        for name in columns:
            kind = table[name].type
            if tables.is_text(kind):
                values = {value for value in table[name].unique().to_pylist() if value not in (None, MISSING)}
                if len(values) > MAX_CATEGORIES:
                    raise StepError(
                        "TooManyCategories",
                        f"column {name} has {len(values)} different values; more than {MAX_CATEGORIES} is an "
                        "identifier, not a category: leave it out or aggregate over it",
                    )
                found[name] = sorted(values)
            elif not tables.is_number(kind) and not pa.types.is_null(kind):
                raise StepError("SchemaViolation", f"column {name}: {kind} is neither a number nor a string")
        return cls(columns, found)

    def matrix(self, table: pa.Table) -> Matrix:
        """One float32 column per feature."""
        result = np.empty((table.num_rows, len(self.columns)), np.float32)
        for place, name in enumerate(self.columns):
            if name not in self.categories:
                result[:, place] = tables.floats(table[name])
                continue
            codes = {value: float(code) for code, value in enumerate(self.categories[name])}
            encoded = table[name].combine_chunks().dictionary_encode()
            lookup = np.array([codes.get(value, -1.0) for value in encoded.dictionary.to_pylist()] + [-1.0])
            indices = encoded.indices.fill_null(len(lookup) - 1).to_numpy(zero_copy_only=False)
            result[:, place] = lookup[indices]
        return result


def build(learner: str, parameters: dict[str, Any], encoding: Encoding, seed: int) -> Any:
    """An untrained classifier."""
    from sklearn.compose import ColumnTransformer
    from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
    from sklearn.impute import SimpleImputer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    try:
        if learner == "hist_gradient_boosting":
            defaults = {
                "max_iter": 200,
                "learning_rate": 0.06,
                "max_leaf_nodes": 31,
                "l2_regularization": 1.0,
            }
            return HistGradientBoostingClassifier(
                **{**defaults, "early_stopping": False, "random_state": seed, **parameters}
            )
        if learner == "random_forest":
            defaults = {"n_estimators": 100, "min_samples_leaf": 20, "n_jobs": 2}
            forest = RandomForestClassifier(**{**defaults, "random_state": seed, **parameters})
            return make_pipeline(SimpleImputer(strategy="median", keep_empty_features=True), forest)
        if learner == "logistic_regression":
            texts = [place for place, name in enumerate(encoding.columns) if name in encoding.categories]
            numbers = [place for place in range(len(encoding.columns)) if place not in texts]
            scaled = make_pipeline(SimpleImputer(strategy="median", keep_empty_features=True), StandardScaler())
            one_hot = OneHotEncoder(
                categories=[
                    np.arange(-1, len(encoding.categories[encoding.columns[p]]), dtype=np.float32) for p in texts
                ],
                handle_unknown="ignore",
                sparse_output=False,
                dtype=np.float32,
            )
            parts = [("numbers", scaled, numbers)] * bool(numbers) + [("texts", one_hot, texts)] * bool(texts)
            model = LogisticRegression(**{"max_iter": 1000, "random_state": seed, **parameters})
            return make_pipeline(ColumnTransformer(parts), model)
    except TypeError as error:
        raise StepError("InvalidArgument", f"arguments.parameters: {error}") from error
    raise StepError(
        "InvalidArgument",
        f"argument learner: {learner!r}; there are hist_gradient_boosting, logistic_regression, random_forest",
    )


def to_onnx(model: Any, encoding: Encoding, inputs: dict[str, str]) -> bytes:
    """The classifier as ONNX: an input ``[N, 1]`` per column, outputs ``label`` and ``probabilities`` ``[N, 2]``."""
    from onnx import TensorProto, checker, compose, helper
    from skl2onnx import convert_sklearn
    from skl2onnx.common.data_types import FloatTensorType

    width = len(encoding.columns)
    back = convert_sklearn(
        model,
        initial_types=[("matrix", FloatTensorType([None, width]))],
        options={id(model): {"zipmap": False}},
        target_opset={"": OPSET, "ai.onnx.ml": ML_OPSET},
    )
    # skl2onnx writes the least version that does; LabelEncoder with floats needs more, and both halves the same.
    del back.opset_import[:]
    back.opset_import.extend([helper.make_opsetid("", OPSET), helper.make_opsetid("ai.onnx.ml", ML_OPSET)])
    nodes, infos, parts = [], [], []
    for place, name in enumerate(encoding.columns):
        text = name in encoding.categories
        kind = TensorProto.STRING if text else TensorProto.FLOAT
        infos.append(helper.make_tensor_value_info(inputs[name], kind, [None, 1]))
        part = inputs[name]
        if text:
            part = f"code_{place}"
            values = encoding.categories[name]
            nodes.append(
                helper.make_node(
                    "LabelEncoder",
                    [inputs[name]],
                    [part],
                    name=part,
                    domain="ai.onnx.ml",
                    # an encoder without keys is invalid: a column that was null throughout gets one that means null
                    keys_strings=values or [MISSING],
                    values_floats=[float(code) for code in range(len(values))] or [-1.0],
                    default_float=-1.0,
                )
            )
        parts.append(part)
    nodes.append(helper.make_node("Concat", parts, ["joined"], name="join_features", axis=1))
    output = helper.make_tensor_value_info("joined", TensorProto.FLOAT, [None, width])
    front = helper.make_model(
        helper.make_graph(nodes, "features", infos, [output]),
        opset_imports=list(back.opset_import),
        ir_version=back.ir_version,
    )
    # The back's own names must not meet those of features.
    names = [value.name for value in back.graph.output]
    merged = compose.merge_models(
        front, compose.add_prefix(back, "classifier/"), io_map=[("joined", "classifier/matrix")]
    )
    for value, name in zip(list(merged.graph.output), names, strict=True):
        merged.graph.node.append(helper.make_node("Identity", [value.name], [name], name=f"output_{name}"))
        value.name = name
    merged.ir_version = IR_VERSION
    merged.producer_name = "modelyard"
    # skl2onnx draws a random name, and equal models are to have equal digests.
    merged.graph.name, merged.graph.doc_string = "classifier", ""
    checker.check_model(merged)
    return bytes(merged.SerializeToString(deterministic=True))


def feed(table: pa.Table, inputs: dict[str, str], kinds: dict[str, str]) -> dict[str, npt.NDArray[Any]]:
    """Tensors ``[N, 1]`` for an ONNX session, from columns; ``kinds`` are the OIP datatypes by input name."""
    tensors: dict[str, npt.NDArray[Any]] = {}
    for column, name in inputs.items():
        if kinds[name] == "BYTES":
            values = [MISSING if value is None else str(value) for value in table[column].to_pylist()]
            tensors[name] = np.array(values, dtype=object).reshape(-1, 1)
        else:
            tensors[name] = tables.floats(table[column]).astype(np.float32).reshape(-1, 1)
    return tensors


def score(
    model: bytes | str, table: pa.Table, inputs: dict[str, str], kinds: dict[str, str]
) -> npt.NDArray[np.float64]:
    """The probability of the positive class by an ONNX model, in batches."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    name = "probabilities" if "probabilities" in {o.name for o in session.get_outputs()} else None
    results = []
    for start in range(0, table.num_rows, 16_384):
        part = table.slice(start, 16_384)
        answer = session.run([name] if name else None, feed(part, inputs, kinds))[-1]
        results.append(np.asarray(answer, np.float64)[:, -1])
    return np.concatenate(results) if results else np.empty(0)
