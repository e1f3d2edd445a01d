"""Model files that nobody vouches for."""

import contextlib
import random
import struct
import tracemalloc

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from onnx_nets import LIGHT, MNIST, net, save

from nashc.errors import NashcError
from nashc.importer import import_ir
from nashc.passes import load, simplify

RELU = "(float[1,4] x) => (float[1,4] y)"


def test_missing_file_and_folder(tmp_path):
    with pytest.raises(NashcError, match="no such file"):
        load(tmp_path / "absent.onnx")
    with pytest.raises(NashcError, match="not a file"):
        load(tmp_path)


@pytest.mark.parametrize("data", [b"", b"hello", b"\x08\x07" * 50, b"\xff" * 1000])
def test_no_onnx(tmp_path, data):
    path = tmp_path / "x.onnx"
    path.write_bytes(data)
    with pytest.raises(NashcError, match="not an ONNX model"):
        load(path)


def test_too_large_is_refused_unread(tmp_path):
    path = tmp_path / "x.onnx"
    with path.open("wb") as file:
        file.truncate(2**31)
    tracemalloc.start()
    with pytest.raises(NashcError, match="2 GB"):
        load(path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2**24


@pytest.mark.parametrize("depth", [20, 20_000])
def test_deeply_nested_graph(tmp_path, depth):
    """Subgraphs within subgraphs: graph.node.attribute.g, again and again."""
    graph = b""
    for _ in range(depth):
        for tag in (b"\x32", b"\x2a", b"\x0a"):
            graph = tag + _varint(len(graph)) + graph
        if len(graph) > 200_000:
            break
    path = tmp_path / "x.onnx"
    path.write_bytes(b"\x3a" + _varint(len(graph)) + graph + b"\x42\x02\x10\x11")
    with pytest.raises(NashcError):
        import_ir(simplify(load(path), {}))


def _varint(n: int) -> bytes:
    out = b""
    while n > 127:
        out, n = out + struct.pack("B", n & 127 | 128), n >> 7
    return out + struct.pack("B", n)


def test_dangling_name(tmp_path):
    model = net(RELU, "y = Relu(x)")
    model.graph.node[0].input[0] = "xx"
    with pytest.raises(NashcError, match=r"reads 'xx', which nothing produces.*did you mean"):
        load(save(model, tmp_path))


def test_cycle(tmp_path):
    model = net(RELU, "a = Relu(x) b = Add(a, x) y = Relu(b)")
    model.graph.node[0].input[0] = "b"
    with pytest.raises(NashcError, match="cycle"):
        load(save(model, tmp_path))


def test_unsorted_nodes_are_sorted(tmp_path):
    model = net(RELU, "a = Abs(x) y = Relu(a)")
    model.graph.node.reverse()
    assert [node.op_type for node in load(save(model, tmp_path)).graph] == ["Abs", "Relu"]


def test_defined_twice(tmp_path):
    model = net(RELU, "a = Relu(x) y = Abs(a)")
    model.graph.node[0].output[0] = "y"
    with pytest.raises(NashcError, match="'y' is defined twice"):
        load(save(model, tmp_path))


def test_weights_stored_twice_or_made_by_a_node(tmp_path):
    model = net(RELU, "y = Add(x, w)", w=(4,))
    model.graph.initializer.append(model.graph.initializer[0])
    with pytest.raises(NashcError, match="'w' is stored twice; export the model again"):
        load(save(model, tmp_path))
    model = net(RELU, "w = Relu(x) y = Add(x, w)", w=(4,))
    with pytest.raises(NashcError, match="'w' is defined twice"):
        load(save(model, tmp_path))
    model = net("(float[1,4] x, float[4] w) => (float[1,4] y)", "y = Add(x, w)", w=(4,))
    assert load(save(model, tmp_path)).graph.initializers["w"].const_value is not None


def test_unknown_standard_operator(tmp_path):
    with pytest.raises(NashcError, match=r"node 'Relux_0'.*no such operator; did you mean 'Relu'"):
        simplify(load(save(net(RELU, "y = Relux(x)"), tmp_path)), {})


def test_unknown_operator_of_our_domain(tmp_path):
    with pytest.raises(NashcError, match=r"did you mean 'ShiftConv'"):
        simplify(load(save(net(RELU, "y = ai.nashc.ShiftCon(x)"), tmp_path)), {})


@pytest.mark.parametrize("version", [0, 999])
def test_opset_out_of_range(tmp_path, version):
    model = net(RELU, "y = Relu(x)")
    model.opset_import[0].version = version
    with pytest.raises(NashcError, match=f"opset {version} is not known"):
        load(save(model, tmp_path))


def test_tensor_shorter_than_its_shape(tmp_path):
    model = net("(float[1,4] x) => (float[1,4] y)", "y = Add(x, w)", w=(1, 4))
    model.graph.initializer[0].raw_data = b"1234"
    with pytest.raises(NashcError, match="tensor 'w'"):
        load(save(model, tmp_path))


def test_name_that_is_no_text(tmp_path):
    path = save(net(RELU, "y = Relu(x)"), tmp_path)
    path.write_bytes(path.read_bytes().replace(b"Relu", b"Re\xffu"))
    with pytest.raises(NashcError):
        simplify(load(path), {})


class TestExternalData:
    """Weights in another file: only below the model's folder."""

    @staticmethod
    def model(location: str, length: int = 16) -> onnx.ModelProto:
        model = net("(float[1,4] x) => (float[1,4] y)", "y = Add(x, w)")
        tensor = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[1, 4], data_location=TensorProto.EXTERNAL)
        tensor.external_data.add(key="location", value=location)
        tensor.external_data.add(key="length", value=str(length))
        model.graph.initializer.append(tensor)
        return model

    def test_below_the_folder(self, tmp_path):
        (tmp_path / "sub").mkdir()
        (tmp_path / "sub/w.bin").write_bytes(np.arange(4, dtype=np.float32).tobytes())
        model = load(save(self.model("sub/w.bin"), tmp_path))
        assert model.graph.initializers["w"].const_value.numpy().tolist() == [[0, 1, 2, 3]]

    @pytest.mark.parametrize("location", ["../w.bin", "/etc/hostname", "", "sub/../../w.bin", "..\\w.bin"])
    def test_outside_the_folder(self, tmp_path, location):
        inner = tmp_path / "inner"
        inner.mkdir()
        (tmp_path / "w.bin").write_bytes(bytes(16))
        with pytest.raises(NashcError, match="outside the model's folder"):
            load(save(self.model(location), inner))

    def test_link_that_leads_out(self, tmp_path):
        inner = tmp_path / "inner"
        inner.mkdir()
        (tmp_path / "w.bin").write_bytes(bytes(16))
        (inner / "w.bin").symlink_to(tmp_path / "w.bin")
        with pytest.raises(NashcError, match="leads out of the model's folder"):
            load(save(self.model("w.bin"), inner))

    def test_missing_or_short(self, tmp_path):
        with pytest.raises(NashcError, match=r"file 'w[.]bin' is missing"):
            load(save(self.model("w.bin"), tmp_path))
        (tmp_path / "w.bin").write_bytes(bytes(8))
        with pytest.raises(NashcError, match="too short"):
            load(save(self.model("w.bin"), tmp_path))
        with pytest.raises(NashcError, match="too short"):
            load(save(self.model("w.bin", 8), tmp_path))

    def test_name_that_no_file_can_have(self, tmp_path):
        with pytest.raises(NashcError, match=r"file 'w{300}\.\.\.' cannot be read: File name too long") as caught:
            load(save(self.model("w" * 10_000), tmp_path))
        assert "tensor 'w'" in caught.value.where


@pytest.mark.parametrize("seed", range(4))
def test_damaged_files_give_errors_that_we_wrote(tmp_path, seed):
    """Cut, flipped and rewired files import or raise NashcError. No safety net: import_model has one more."""
    rng = random.Random(seed)
    originals = [MNIST.read_bytes(), (LIGHT / "light_squeezenet.onnx").read_bytes()]
    path = tmp_path / "x.onnx"
    for _ in range(60):
        path.write_bytes(_damage(rng, rng.choice(originals)))
        with contextlib.suppress(NashcError):
            import_ir(simplify(load(path), {}))


def _damage(rng: random.Random, data: bytes) -> bytes:
    kind = rng.randrange(6)
    if kind == 0:
        return data[: rng.randrange(len(data))]
    if kind == 1:
        changed = bytearray(data)
        for _ in range(rng.choice([1, 4, 30])):
            changed[rng.randrange(len(changed))] = rng.randrange(256)
        return bytes(changed)
    model = onnx.ModelProto.FromString(data)
    graph = model.graph
    node = rng.choice(graph.node)
    if kind == 2:
        node.input[0] = rng.choice([o for n in graph.node for o in n.output])
    elif kind == 3:
        node.op_type = rng.choice(
            [
                "Conv",
                "Gemm",
                "Loop",
                "If",
                "LSTM",
                "Resize",
                "Concat",
                "Split",
                "Transpose",
                "Pad",
                "TopK",
                "ConvTranspose",
            ]
        )
    elif kind == 4 and node.attribute:
        attribute = rng.choice(node.attribute)
        attribute.CopyFrom(helper.make_attribute(attribute.name, rng.choice([-1, 0, [0], [2**40] * 4, "x", [1, 2]])))
    else:
        dims = graph.input[0].type.tensor_type.shape.dim
        dims[rng.randrange(len(dims))].dim_value = rng.choice([-1, 0, 1, 7, 2**23, 2**62])
    return model.SerializeToString()
