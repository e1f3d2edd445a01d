"""From a float model to a hybrid: a tiny CNN on a real board, everything that the result says measured anew."""

from dataclasses import replace

import numpy as np
import onnx
import pytest
from made import MODELS, images
from onnx_nets import net

from nashc.board import load_board
from nashc.core.options import Options
from nashc.errors import NashcError
from nashc.hybridize.fidelity import Fidelity, fidelity
from nashc.hybridize.original import OPSET, original
from nashc.hybridize.pipeline import DEFAULT_TYPES, HybridOptions, Judge, hybridize
from nashc.importer import import_ir
from nashc.passes import checked, simplify
from nashc.runtime import Session
from nashc.search.baselines import without_lut_macs
from nashc.search.solve import solve

BOARD = load_board("fpga-zc706")
SEARCH = Options(batch=1, max_lut=15_000, max_dsp=20, max_bram36=40)
"""So few resources that types matter in a network so small; without a time limit, so that searches repeat."""
OPTIONS = HybridOptions(search=SEARCH, searches=3, max_drop=0.1, workers=1)
MAPS = replace(OPTIONS, max_drop=None, searches=1)
BODY = """a = Conv<pads=[1,1,1,1]>(x, w1, b1) r = Relu(a) b = Conv<pads=[1,1,1,1]>(r, w2) s = Relu(b)
          d = Conv<pads=[1,1,1,1],group=8>(s, w3) c = Clip(d, lo, hi) e = Conv(c, w4) u = Add(e, r)
          m = MaxPool<kernel_shape=[2,2],strides=[2,2]>(u) f = Conv<pads=[1,1,1,1]>(m, w5, b5) h = Relu(f)
          g = GlobalMaxPool(h) v = Flatten(g) y = Gemm<transB=1>(v, w6, b6)"""
WEIGHTS = {"w1": (8, 3, 3, 3), "b1": (8,), "w2": (8, 8, 3, 3), "w3": (8, 1, 3, 3), "w4": (8, 8, 1, 1),
           "w5": (16, 8, 3, 3), "b5": (16,), "w6": (10, 16), "lo": 0.0, "hi": 6.0}  # fmt: skip
NODES = ["Conv_0", "Conv_2", "Conv_4", "Conv_6", "Conv_9"]


def run(model, x):
    session = Session(model, threads=1)
    found = [session.run({"x": image}) for image in x]
    return {name: np.stack([one[name] for one in found]) for name in found[0]}


def balanced():
    """Random weights, and a last bias with which every class is one of many images' class."""
    signature, b6 = "(float[N,3,16,16] x) => (float[N,10] y)", np.zeros(10, np.float32)
    scores = run(net(signature, BODY, 21, **WEIGHTS, b6=b6), images((1, 3, 16, 16), 40, seed=9))["y"]
    return net(signature, BODY, 21, **WEIGHTS, b6=b6 - scores.mean(axis=0)[0])


CLASSES = balanced()


@pytest.fixture(scope="module")
def source():
    return original(CLASSES, {}, "tiny", "tiny.onnx")


@pytest.fixture(scope="module")
def judge(source):
    x = images(source.shape, 40, seed=5)
    wanted = run(CLASSES, x)
    return Judge(x, None, wanted)


@pytest.fixture(scope="module")
def calibration(source):
    return images(source.shape, 32)


@pytest.fixture(scope="module")
def hybrid(source, calibration, judge):
    return hybridize(source, calibration, BOARD, OPTIONS, judge=judge)


def test_a_choice_that_misses_the_budget_on_more_images_is_none(source, calibration, judge, hybrid):
    asked = []

    def only_the_second(model):
        asked.append(model)
        return Fidelity(1000, 1 - OPTIONS.max_drop * (len(asked) < 2) * 2, None, None, {"y": 30.0})

    found = hybridize(source, calibration, BOARD, OPTIONS, judge=judge, confirm=only_the_second)
    assert len(asked) == 2
    assert found.model == asked[1] != asked[0]
    assert asked[0] == hybrid.model
    assert found.chosen.fidelity.images == 1000
    never = Fidelity(1000, 0.8, None, None, {"y": 30.0})
    with pytest.raises(NashcError, match=r"no choice of layer types keeps a drop of 10.00%; the best drops 20.00%"):
        hybridize(source, calibration, BOARD, OPTIONS, judge=judge, confirm=lambda _: never)


@pytest.mark.parametrize(
    ("body", "text"),
    [
        ("a = Conv<pads=[1,1,1,1]>(x, w1) b = Conv(a, w4) y = ArgMax<axis=1>(b)", "no output is float"),
        ("a = Conv<pads=[1,1,1,1]>(x, w1) b = Conv(a, w4) y = Log(b)", "output 'y' is not finite for 32 of 32 images"),
    ],
)
def test_outputs_that_cannot_be_compared_are_refused(body, text, calibration):
    kind = "int64[N,1,16,16]" if "ArgMax" in body else "float[N,8,16,16]"
    model = net(f"(float[N,3,16,16] x) => ({kind} y)", body, 21, w1=(8, 3, 3, 3), w4=(8, 8, 1, 1))
    with pytest.raises(NashcError, match=text):
        hybridize(original(model, {}, "m", "m.onnx"), calibration, BOARD, OPTIONS)


@pytest.mark.parametrize("limits", [{"max_lut": 0}, {"max_lut": 0, "max_dsp": 0}])
def test_a_board_without_luts_is_an_error(source, calibration, judge, limits):
    nothing = replace(OPTIONS, search=replace(SEARCH, **limits))
    with pytest.raises(NashcError, match="no choice of layer types fits fpga-zc706: no accelerator"):
        hybridize(source, calibration, BOARD, nothing, judge=judge)


def test_the_result_keeps_the_budget_measured_anew(hybrid, judge):
    measured = fidelity(judge.wanted, run(hybrid.model, judge.images))
    assert measured == hybrid.chosen.fidelity
    assert measured.drop <= OPTIONS.max_drop
    assert hybrid.classifies
    assert hybrid.images == len(judge.images)


def test_the_speed_is_that_of_the_model_that_comes_out(hybrid):
    network = import_ir(simplify(checked(hybrid.model), {}), "tiny").network
    assert solve(network, BOARD, SEARCH).fps == hybrid.chosen.fps


def test_the_chosen_point_is_the_fastest_within_the_budget(hybrid):
    assert hybrid.points[-1] == hybrid.chosen
    within = [p for p in hybrid.points[:-1] if p.fps is not None and p.fidelity.drop <= OPTIONS.max_drop]
    assert hybrid.chosen.fps == max(p.fps for p in within)
    assert hybrid.chosen.fps >= hybrid.floor["conv-only"]
    assert hybrid.multiplying >= hybrid.floor["conv-only"]


def test_what_is_not_ruled_out_is_what_an_interrupted_search_leaves_open(hybrid):
    assert hybrid.not_ruled_out is None  # without a time limit
    known = hybrid.originals["conv-only"]
    cut = replace(known.certificate, stopped="budget", bound=known.certificate.value / 3)
    other = replace(hybrid, originals={**hybrid.originals, "conv-only": replace(known, certificate=cut)})
    assert other.not_ruled_out == pytest.approx(3 * known.fps)
    assert other.floor == hybrid.floor


def test_choices_are_of_the_convolutions_behind_the_first(hybrid):
    for point in hybrid.points:
        assert list(point.choice) == NODES[1:]
        assert set(point.choice.values()) <= set(DEFAULT_TYPES)
    by_name = {n.name: n for n in hybrid.model.graph.node}
    assert by_name["Conv_0"].op_type == "Conv"
    for node, name in hybrid.chosen.choice.items():
        assert by_name[node].op_type == ("ShiftConv" if name.startswith("shift") else "Conv")
    assert {layer.node for layer in hybrid.layers} == set(hybrid.losses)


def test_the_model_is_valid_and_has_the_interface_of_the_original(hybrid):
    onnx.checker.check_model(hybrid.model)
    session = Session(hybrid.model)
    assert [(t.name, t.dtype, t.shape) for t in (*session.inputs, *session.outputs)] == [
        ("x", "float32", (None, 3, 16, 16)), ("y", "float32", (None, 10)),
    ]  # fmt: skip
    assert hybrid.model.graph.input[0].type.tensor_type.shape.dim[0].dim_param == "N"


def test_a_batch_gives_what_its_images_give(hybrid, judge):
    session = Session(hybrid.model, threads=1)
    together = session.run({"x": judge.images[:5, 0]})["y"]
    np.testing.assert_array_equal(together, run(hybrid.model, judge.images[:5])["y"][:, 0])


def test_the_same_input_gives_the_same_bytes(hybrid, source, calibration, judge):
    again = hybridize(source, calibration, BOARD, OPTIONS, judge=judge)
    assert again.model.SerializeToString() == hybrid.model.SerializeToString()
    assert again.points == hybrid.points


def test_types_keep_and_force(source, calibration, judge):
    force = {"Conv_9": "conv4", "Conv_4": "shift3"}
    search = replace(SEARCH, max_lut=60_000, max_bram36=None)
    options = replace(OPTIONS, types=("conv8", "shift2"), keep=("Conv_2",), force=force, max_drop=1.0, searches=1)
    options = replace(options, search=search)
    found = hybridize(source, calibration, BOARD, options, judge=judge)
    for point in found.points:
        assert list(point.choice) == ["Conv_4", "Conv_6", "Conv_9"]
        assert (point.choice["Conv_4"], point.choice["Conv_9"]) == ("shift3", "conv4")
        assert point.choice["Conv_6"] in ("conv8", "shift2")
    stored = {t.name: t for t in found.model.graph.initializer}
    codes = next(n.input[1] for n in found.model.graph.node if n.name == "Conv_4")
    assert stored[codes].dims[0] == 3


def test_labels_count_where_there_are_some(source, calibration, judge):
    """Labels that the float model gets wrong: whatever the hybrid says, it is no worse."""
    wrong = (judge.wanted["y"].reshape(40, -1).argmax(axis=1) + 1) % 10
    options = replace(OPTIONS, types=("shift1",), max_drop=0.0, searches=1)
    found = hybridize(source, calibration, BOARD, options, judge=Judge(judge.images, wrong, judge.wanted))
    assert {tuple(p.choice.values()) for p in found.points} == {("shift1",) * 4}
    assert found.chosen.name == "shift1"
    assert found.chosen.fidelity.float_accuracy == 0
    assert found.chosen.fidelity.drop <= 0


def test_maps_keep_their_signal_to_noise_ratio():
    source = original(MODELS["residual"], {}, "maps", "maps.onnx")
    options = replace(MAPS, min_sqnr_db=25.0, searches=2)
    x = images(source.shape, 8)
    found = hybridize(source, x, BOARD, options)
    measured = fidelity(run(MODELS["residual"], x), run(found.model, x))
    assert measured.least_sqnr_db == pytest.approx(found.chosen.fidelity.least_sqnr_db, abs=1e-3)
    assert measured.least_sqnr_db >= 25
    assert not found.classifies


@pytest.mark.parametrize(("changes", "text"), [
    ({"max_drop": -1.0}, r"no choice of layer types keeps a drop of -100.00%; the best drops .*%"),
    ({"types": ("conv8", "conv5")}, "unknown layer type 'conv5'; did you mean 'conv8'|unknown layer type 'conv5'"),
    ({"force": {"Conv_2": "shift9"}}, "unknown layer type 'shift9'"),
    ({"keep": ("Conf_2",)}, "--keep: no convolution is named 'Conf_2'; did you mean 'Conv_2'"),
    ({"force": {"nothing*": "conv4"}}, "--force: no convolution is named 'nothing"),
    ({"keep": ("*",)}, "no layer is left to choose"),
    ({"calibration": "max"}, "unknown calibration 'max'"),
    ({"search": replace(SEARCH, max_lut=500)}, "no choice of layer types fits fpga-zc706"),
])  # fmt: skip
def test_what_is_impossible_is_said(source, calibration, judge, changes, text):
    options = replace(OPTIONS, searches=1, types=("conv4",))
    with pytest.raises(NashcError, match=text):
        hybridize(source, calibration, BOARD, replace(options, **changes), judge=judge)


def test_maps_that_no_choice_keeps():
    source = original(MODELS["plain"], {}, "maps", "maps.onnx")
    options = replace(MAPS, min_sqnr_db=300.0, types=("conv4",))
    with pytest.raises(NashcError, match=r"no choice of layer types keeps 300 dB; the best has \d+\.\d dB"):
        hybridize(source, images(source.shape, 4), BOARD, options)


def test_progress_names_its_stages(calibration):
    source = original(MODELS["plain"], {}, "net", "net.onnx")
    heard = []
    options = replace(MAPS, min_sqnr_db=0.0, types=("conv4",))
    hybridize(
        source, images(source.shape, 4), BOARD, options, progress=lambda stage, share: heard.append((stage, share))
    )
    stages = [stage for stage, _ in heard]
    for stage in ("calibrate", "sensitivities", "search original", "search conv4", "last pass"):
        assert stage in stages
    assert all(0 <= share <= 1 for _, share in heard)


def test_older_opsets_are_converted_and_keep_their_metadata():
    proto = net("(float[N,3,8,8] x) => (float[N,4,8,8] y)", "a = Conv(x, w1) y = Clip(a, lo, hi)", 13,
                w1=(4, 3, 1, 1), lo=-1.0, hi=1.0)  # fmt: skip
    del proto.opset_import[1:]
    onnx.helper.set_model_props(proto, {"key": "value"})
    source = original(proto, {}, "old", "old.onnx")
    assert next(o.version for o in source.proto.opset_import if o.domain == "") == OPSET
    assert source.props == {"key": "value"}
    assert (source.input, source.shape, source.batch) == ("x", (1, 3, 8, 8), "N")


@pytest.mark.parametrize(("signature", "body", "text"), [
    ("(float[1,3,8,8] x, float[1,3,8,8] z) => (float[1,4,8,8] y)", "s = Add(x, z) y = Conv(s, w)", "has 2 inputs"),
    ("(float[1,3,8,8] x) => (float[1,4,8,8] y)",
     "q = QuantizeLinear(x, one, zero) d = DequantizeLinear(q, one, zero) y = Conv(d, w)", "is quantised already"),
])  # fmt: skip
def test_models_that_are_no_originals(signature, body, text):
    proto = net(signature, body, 21, w=(4, 3, 1, 1), one=1.0, zero=np.uint8(0))
    with pytest.raises(NashcError, match=f"x.onnx: .*{text}"):
        original(proto, {}, "x", "x.onnx")


def test_no_hybrid_is_slower_than_eight_bits(hybrid, source):
    """The original in 8 bits is always among the points, with the speed of its best search."""
    base = [point for point in hybrid.points if set(point.choice.values()) == {"conv8"}]
    assert base
    boards = BOARD, without_lut_macs(BOARD)
    assert {point.fps for point in base} == {max(solve(source.network, board, SEARCH).fps for board in boards)}
    if base[0].fidelity.drop <= OPTIONS.max_drop:
        assert hybrid.chosen.fps >= base[0].fps


def test_a_larger_budget_is_faster(source, calibration, judge):
    tight, loose = (
        hybridize(source, calibration, BOARD, replace(OPTIONS, max_drop=drop), judge=judge) for drop in (0.05, 1.0)
    )
    assert tight.chosen.fidelity.drop <= 0.05 + 1e-9 < loose.chosen.fidelity.drop
    assert loose.chosen.fps > tight.chosen.fps


def test_choices_that_only_multiply_are_searched_too(source, calibration, judge):
    """Even where only one accelerator is to be searched: a gain has to be one over them."""
    made = hybridize(source, calibration, BOARD, replace(OPTIONS, max_drop=1.0, searches=1), judge=judge)
    assert any("conv4" in (types := set(p.choice.values())) and types <= {"conv4", "conv8"} for p in made.points)
