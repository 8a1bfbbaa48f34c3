"""Makes the ONNX graph of all-MiniLM-L6-v2 without its weights, which come from elsewhere when it is loaded.

python tools/minilm.py    write agents/weft/agents/memory/embedding/minilm.onnx; needs the package onnx 1.23

The graph is that of BERT (Devlin et al. 2018, https://arxiv.org/abs/1810.04805) with mean pooling and vectors of length 1
(Reimers and Gurevych 2019, https://arxiv.org/abs/1908.10084). Its initializers have the names and shapes of the published
file model.safetensors.
"""

from __future__ import annotations

import pathlib

import numpy as np
from onnx import TensorProto, helper, numpy_helper

LAYERS, WIDTH, HEADS, WORDS, INNER = 6, 384, 12, 30_522, 1_536
OUT = pathlib.Path(__file__).resolve().parent.parent / (
    "agents/weft/agents/memory/embedding/minilm.onnx"
)


class Graph:
    """A graph that grows node by node."""

    def __init__(self) -> None:
        self.nodes: list[object] = []
        self.constants: list[object] = []
        self.weights: list[object] = []

    def node(self, kind: str, *inputs: str, out: str = "", **attributes: object) -> str:
        """Adds a node and returns the name of its output."""
        name = out or f"{kind}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(inputs), [name], **attributes))
        return name

    def constant(self, name: str, value: object, kind: type = np.int64) -> str:
        """Adds a small constant."""
        self.constants.append(numpy_helper.from_array(np.array(value, kind), name))
        return name

    def weight(self, name: str, *shape: int) -> str:
        """Names a tensor of the weights: its data is elsewhere."""
        tensor = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=shape)
        tensor.data_location = TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value="model.safetensors")
        self.weights.append(tensor)
        return name

    def dense(self, x: str, name: str, out: int, into: int) -> str:
        """A layer x W^T + b."""
        turned = self.node("Transpose", self.weight(f"{name}.weight", out, into), perm=[1, 0])
        return self.node("Add", self.node("MatMul", x, turned), self.weight(f"{name}.bias", out))

    def norm(self, x: str, name: str) -> str:
        """A layer normalization."""
        gain, bias = self.weight(f"{name}.weight", WIDTH), self.weight(f"{name}.bias", WIDTH)
        return self.node("LayerNormalization", x, gain, bias, axis=-1, epsilon=1e-12)

    def gelu(self, x: str) -> str:
        """The function x / 2 (1 + erf(x / sqrt(2)))."""
        return self.node("Gelu", x, approximate="none")


def embedded(g: Graph) -> str:
    """Words, places and kinds, summed."""
    words = g.node(
        "Gather", g.weight("embeddings.word_embeddings.weight", WORDS, WIDTH), "input_ids"
    )
    places = g.weight("embeddings.position_embeddings.weight", 512, WIDTH)
    length = g.node("Slice", g.node("Shape", "input_ids"), "one", "two")
    here = g.node("Slice", places, "zero", length, "zero")
    kinds = g.weight("embeddings.token_type_embeddings.weight", 2, WIDTH)
    kind = g.node("Slice", kinds, "zero", "one", "zero")
    summed = g.node("Add", g.node("Add", words, kind), here)
    return g.norm(summed, "embeddings.LayerNorm")


def attended(g: Graph, x: str, layer: str, mask: str) -> str:
    """Self-attention with its residual."""
    heads = {}
    for part in ("query", "key", "value"):
        flat = g.dense(x, f"{layer}.attention.self.{part}", WIDTH, WIDTH)
        split = g.node("Reshape", flat, "heads")
        heads[part] = g.node(
            "Transpose", split, perm=[0, 2, 3, 1] if part == "key" else [0, 2, 1, 3]
        )
    scores = g.node("Mul", g.node("MatMul", heads["query"], heads["key"]), "scale")
    weights = g.node("Softmax", g.node("Add", scores, mask), axis=-1)
    seen = g.node("Transpose", g.node("MatMul", weights, heads["value"]), perm=[0, 2, 1, 3])
    joined = g.node("Reshape", seen, "flat")
    out = g.dense(joined, f"{layer}.attention.output.dense", WIDTH, WIDTH)
    return g.norm(g.node("Add", out, x), f"{layer}.attention.output.LayerNorm")


def encoded(g: Graph) -> str:
    """What comes out of the last layer."""
    seen = g.node("Cast", g.node("Unsqueeze", "attention_mask", "between"), to=TensorProto.FLOAT)
    mask = g.node("Mul", g.node("Sub", "unit", seen), "nothing")
    x = embedded(g)
    for number in range(LAYERS):
        layer = f"encoder.layer.{number}"
        x = attended(g, x, layer, mask)
        inner = g.gelu(g.dense(x, f"{layer}.intermediate.dense", INNER, WIDTH))
        out = g.dense(inner, f"{layer}.output.dense", WIDTH, INNER)
        x = g.norm(g.node("Add", out, x), f"{layer}.output.LayerNorm")
    return x


def pooled(g: Graph, x: str) -> None:
    """The mean of the words that are there, of length 1."""
    counted = g.node("Cast", g.node("Unsqueeze", "attention_mask", "last"), to=TensorProto.FLOAT)
    total = g.node("ReduceSum", g.node("Mul", x, counted), "one", keepdims=0)
    mean = g.node("Div", total, g.node("ReduceSum", counted, "one", keepdims=0))
    length = g.node("ReduceL2", mean, "one", keepdims=1)
    g.node("Div", mean, g.node("Max", length, "least"), out="embedding")


def main() -> None:
    """Writes the graph."""
    g = Graph()
    for name, value in (("zero", [0]), ("one", [1]), ("two", [2]), ("last", [2])):
        g.constant(name, value)
    g.constant("between", [1, 2])
    g.constant("heads", [0, 0, HEADS, WIDTH // HEADS])
    g.constant("flat", [0, 0, WIDTH])
    g.constant("unit", 1.0, np.float32)
    g.constant("nothing", -1e9, np.float32)
    g.constant("least", 1e-12, np.float32)
    g.constant("scale", (WIDTH // HEADS) ** -0.5, np.float32)
    pooled(g, encoded(g))
    tokens = ["texts", "words"]
    graph = helper.make_graph(
        g.nodes,
        "all-MiniLM-L6-v2",
        [
            helper.make_tensor_value_info(name, TensorProto.INT64, tokens)
            for name in ("input_ids", "attention_mask")
        ],
        [helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["texts", WIDTH])],
        [*g.constants, *g.weights],
    )
    model = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10, producer_name="weft"
    )
    OUT.write_bytes(model.SerializeToString(deterministic=True))
    print(f"minilm: {len(g.nodes)} nodes, {OUT.stat().st_size} bytes")


if __name__ == "__main__":
    main()
