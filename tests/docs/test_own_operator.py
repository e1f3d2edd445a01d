"""The operator of docs/own-operator.md is what the page says: one file, and all forms of it agree."""

import importlib
import re
import sys
from pathlib import Path

import nashc.ops
import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nashc.ops import OPERATORS, embed_functions, native

from nashc.core.network import Unit
from nashc.importer import import_model

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tests" / "ops"))
from operator_cases import Case, assert_same, brute_force, evaluate, feeds, layers, model_of, stock  # noqa: E402

PAGE = (ROOT / "docs" / "own-operator.md").read_text()
MODULE = re.search(r"`ops/(\w+)\.py`:\n\n", PAGE)[1]


@pytest.fixture(scope="module")
def operator(tmp_path_factory):
    """The file of the page, found by the registry as any file in ops/ is."""
    folder = tmp_path_factory.mktemp("ops")
    (folder / f"{MODULE}.py").write_text(re.search(r"```python\n(.*?)```", PAGE, re.DOTALL)[1])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(nashc.ops, "__path__", [*nashc.ops.__path__, str(folder)])
        assert set(nashc.ops._discover()) - set(OPERATORS) == {"ScaledAdderConv"}
        found = importlib.import_module(f"nashc.ops.{MODULE}").OPERATOR
        patch.setitem(OPERATORS._values, found.name, found)
        yield found
    sys.modules.pop(f"nashc.ops.{MODULE}")


@settings(deadline=None, max_examples=30)
@given(layer=layers(), seed=st.integers(0, 999))
def test_all_forms_agree(operator, layer, seed):
    x_shape, w_shape, attributes = layer
    geometry = nashc.ops.conv_geometry(x_shape, w_shape, where="test", **attributes)
    inputs, own = operator.sample(np.random.default_rng(seed), geometry)
    case = Case(operator, tuple(inputs), attributes | own, geometry)
    expected, magnitude = brute_force(case)
    embedded = embed_functions(model_of(case))
    assert_same(case, operator.reference(*case.inputs, **case.attributes), expected, magnitude, "reference")
    assert_same(case, evaluate(embedded, feeds(case))[0], expected, magnitude, "functions in onnx")
    assert_same(case, stock(embedded, feeds(case))[0], expected, magnitude, "functions in onnxruntime")
    for name in native.instruction_sets():
        found = operator.run_native(*case.inputs, instruction_set=name, **case.attributes)
        assert_same(case, found, expected, magnitude, name)


def test_the_importer_gives_it_its_unit(operator, tmp_path):
    geometry = nashc.ops.conv_geometry((1, 6, 8, 8), (4, 6, 3, 3), where="test")
    inputs, _ = operator.sample(np.random.default_rng(0), geometry)
    onnx.save(model_of(Case(operator, tuple(inputs), {}, geometry)), tmp_path / "model.onnx")
    (layer,) = import_model(tmp_path / "model.onnx").network.layers
    assert (layer.op, layer.unit) == ("ScaledAdderConv", Unit.ADDER)
