"""The cases as ONNX models, built in memory and run by onnxruntime with all of its graph optimisations."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import cases
import models
import numpy as np
from frameworks import NETS, Absent, Calls, weights_of

OPSET, IR_VERSION = 21, 10
TRIAL_CALLS = 5  # of each way to run a model, to choose the faster


class Value:
    """A value of a graph under construction."""

    def __init__(self, graph: Graph, name: str) -> None:
        self.graph, self.name = graph, name

    def __add__(self, other: Value) -> Value:
        return self.graph.op("Add", self, other)


class Graph:
    """Collects nodes; arrays among the sources become initializers, each once."""

    def __init__(self) -> None:
        import onnx

        self.onnx, self.nodes, self.inputs, self.initializers = onnx, [], [], []
        self.known: dict[int, tuple[np.ndarray, str]] = {}

    def input(self, name: str, like: np.ndarray) -> Value:
        kind = self.onnx.helper.np_dtype_to_tensor_dtype(like.dtype)
        self.inputs.append(self.onnx.helper.make_tensor_value_info(name, kind, like.shape))
        return Value(self, name)

    def op(self, kind: str, *sources: Value | np.ndarray | None, outputs: int = 1, domain: str = "", **attributes: Any) -> Any:
        """A node; a Value, or a list if it has several outputs."""
        names = ["" if s is None else s.name if isinstance(s, Value) else self.constant(s) for s in sources]
        made = [Value(self, f"v{len(self.nodes)}_{i}") for i in range(outputs)]
        self.nodes.append(self.onnx.helper.make_node(kind, names, [v.name for v in made], domain=domain, **attributes))
        return made[0] if outputs == 1 else made

    def constant(self, x: np.ndarray) -> str:
        if id(x) not in self.known:
            self.known[id(x)] = (x, f"c{len(self.known)}")
            self.initializers.append(self.onnx.numpy_helper.from_array(x, self.known[id(x)][1]))
        return self.known[id(x)][1]

    def model(self, results: list[Value]) -> bytes:
        h = self.onnx.helper
        outputs = [h.make_empty_tensor_value_info(r.name) for r in results]
        graph = h.make_graph(self.nodes, "case", self.inputs, outputs, self.initializers)
        domains = [h.make_opsetid("", OPSET), h.make_opsetid("com.microsoft", 1)]
        return h.make_model(graph, opset_imports=domains, ir_version=IR_VERSION).SerializeToString()


def ints(*x: int) -> np.ndarray:
    return np.array(x, np.int64)


class OnnxOps:
    """The operations of the nets in ONNX."""

    def __init__(self, graph: Graph) -> None:
        self.op, self.turned = graph.op, {}

    def conv(self, x: Any, w: Any, stride: int, padding: int, groups: int = 1) -> Any:
        return self.op("Conv", x, w, strides=[stride] * 2, pads=[padding] * 4, group=groups)

    def batch_norm(self, x: Any, w: dict[str, Any], at: str) -> Any:
        parts = [w[f"{at}.{n}"] for n in ("weight", "bias", "running_mean", "running_var")]
        return self.op("BatchNormalization", x, *parts, epsilon=1e-5)

    def linear(self, x: Any, w: np.ndarray, b: Any) -> Any:
        """The weights are stored transposed, as exporters do."""
        turned = self.turned.setdefault(id(w), np.ascontiguousarray(w.T))
        y = self.op("MatMul", x, turned)
        return y if b is None else self.op("Add", y, b)

    def relu(self, x: Any) -> Any: return self.op("Relu", x)
    def max_pool(self, x: Any) -> Any: return self.op("MaxPool", x, kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4)
    def mean_space(self, x: Any) -> Any: return self.op("Flatten", self.op("GlobalAveragePool", x))
    def layer_norm(self, x: Any, w: Any, b: Any) -> Any: return self.op("LayerNormalization", x, w, b, epsilon=1e-5)
    def gelu(self, x: Any) -> Any: return self.op("FastGelu", x, domain="com.microsoft")
    def embedding(self, w: Any, i: Any) -> Any: return self.op("Gather", w, i)

    def heads(self, x: Any, n: int) -> Any:
        for part in self.op("Split", x, outputs=3, axis=2, num_outputs=3):
            yield self.op("Transpose", self.op("Reshape", part, ints(0, 0, n, -1)), perm=[0, 2, 1, 3])

    def join(self, x: Any) -> Any:
        return self.op("Reshape", self.op("Transpose", x, perm=[0, 2, 1, 3]), ints(0, 0, -1))

    def attention(self, q: Any, k: Any, v: Any, width: int, mask: np.ndarray | None = None) -> Any:
        """Scores that the mask forbids get -1e30 added."""
        turned = self.op("Transpose", k, perm=[0, 1, 3, 2])
        scores = self.op("Mul", self.op("MatMul", q, turned), np.array(width**-0.5, np.float32))
        if mask is not None:
            scores = self.op("Add", scores, np.where(mask, 0, np.float32(-1e30)).astype(np.float32))
        return self.op("MatMul", self.op("Softmax", scores, axis=-1), v)

    def causal_attention(self, q: Any, k: Any, v: Any) -> Any:
        g = models.GPT2
        return self.attention(q, k, v, g.dim // g.heads, np.tril(np.ones((g.tokens, g.tokens), bool)))


class Onnx:
    """onnxruntime. A model is run with its arrays bound, or plainly: whichever is faster."""

    def __init__(self, threads: int) -> None:
        import onnx  # noqa: F401  both are needed
        import onnxruntime

        self.ort, self.threads = onnxruntime, threads

    def load(self, x: np.ndarray, dtype: str = "float32") -> np.ndarray:
        if dtype == cases.BF16:
            raise Absent("NumPy has no bfloat16, and onnxruntime no kernels of it for the CPU")
        return x

    def read(self, x: Any) -> list[np.ndarray]:
        return [np.array(y.numpy() if hasattr(y, "numpy") else y) for y in x]

    def calls(self, case: cases.Case, inputs: list[np.ndarray]) -> Calls:
        if case.trains or case.family == "chain":
            raise Absent("onnxruntime does not train")
        g = Graph()
        names = [i.name for i in case.inputs]
        values = [g.input(n, x) for n, x in zip(names, inputs)] if case.family != "decode" else []
        if case.family == "decode":
            return {"session": self.decode(g, *inputs)}
        results = self.net(g, case.family, values) if case.family in NETS else self.function(g, case, values)
        return {"session": self.faster(g.model(results), dict(zip(names, inputs)))}

    def session(self, model: bytes) -> Any:
        options = self.ort.SessionOptions()
        options.graph_optimization_level = self.ort.GraphOptimizationLevel.ORT_ENABLE_ALL
        options.intra_op_num_threads, options.inter_op_num_threads = self.threads, 1
        options.log_severity_level = 3
        return self.ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])

    def faster(self, model: bytes, inputs: dict[str, np.ndarray]) -> Callable[[], Any]:
        session = self.session(model)
        binding = session.io_binding()
        for name, x in inputs.items():
            binding.bind_ortvalue_input(name, self.ort.OrtValue.ortvalue_from_numpy(x))
        for out in session.get_outputs():
            binding.bind_output(out.name)

        def bound() -> Any:
            session.run_with_iobinding(binding)
            return binding.get_outputs()

        ways = {"bound": bound, "plain": lambda: session.run(None, inputs)}
        return ways[min(ways, key=lambda way: best_of(ways[way]))]

    def function(self, g: Graph, case: cases.Case, x: list[Value]) -> list[Value]:
        f, how = OnnxOps(g), case.how
        n = x[0] if x else None

        def top(k: int, largest: int) -> Any:
            return g.op("TopK", n, ints(k), outputs=2, axis=0, largest=largest, sorted=1)

        made = {
            "matmul": lambda: g.op("MatMul", *x),
            "matmul_int8": lambda: g.op("MatMulInteger", *x),
            "conv": lambda: f.conv(*x, **how),
            "sum": lambda: g.op("ReduceSum", n, keepdims=0),
            "softmax": lambda: g.op("Softmax", n, axis=-1),
            "layernorm": lambda: f.layer_norm(*x),
            "gelu": lambda: f.gelu(n),
            "attention": lambda: f.attention(*x, 64),
            "embedding": lambda: f.embedding(*x),
            "cumsum": lambda: g.op("CumSum", n, ints(0)[0]),
            # a sort is a TopK of all, as exporters spell it
            "sort": lambda: top(cases.MIB, 0)[0],
            "argsort": lambda: top(cases.MIB, 0)[1],
            "topk": lambda: top(how["k"], 1),
            "add": lambda: g.op("Add", *x),
        }[case.family]()
        return made if isinstance(made, list) else [made]

    def net(self, g: Graph, family: str, x: list[Value]) -> list[Value]:
        w, f = weights_of(family), OnnxOps(g)
        return [models.gpt2(f, w, *x) if family == "gpt2" else models.resnet(f, w, x[0], family)]

    def decode(self, g: Graph, tokens: np.ndarray, cache: np.ndarray) -> Callable[[], Any]:
        """Each cache is an input and an output, bound to the same memory: only the new row is written."""
        w, f, width = weights_of("decode"), OnnxOps(g), models.GPT2.dim // models.GPT2.heads
        token, place, at = g.input("tokens", tokens), g.input("places", ints(0).reshape(1, 1)), g.input("at", ints(0))
        kept = [g.input(f"cache{i}", c) for i, c in enumerate(cache.reshape(-1, *cache.shape[2:]))]
        written: list[Value] = []
        mask = g.op("LessOrEqual", np.arange(models.CACHE_TOKENS), at)
        bias = g.op("Where", mask, np.float32(0), np.float32(-1e30))

        def attend(i: int, q: Any, k: Any, v: Any) -> Any:
            here = [self.write(g, old, new, at) for old, new in ((kept[2 * i], k), (kept[2 * i + 1], v))]
            written.extend(here)
            turned = g.op("Transpose", here[0], perm=[0, 1, 3, 2])
            scores = g.op("Add", g.op("Mul", g.op("MatMul", q, turned), np.float32(width**-0.5)), bias)
            return g.op("MatMul", g.op("Softmax", scores, axis=-1), here[1])

        logits = models.gpt2(f, w, token, place, attend)
        session = self.session(g.model([logits, *written]))
        binding, value = session.io_binding(), self.ort.OrtValue.ortvalue_from_numpy
        binding.bind_ortvalue_input("tokens", value(tokens))
        binding.bind_ortvalue_input("places", value(ints(models.POSITION).reshape(1, 1)))
        binding.bind_ortvalue_input("at", value(ints(models.POSITION)))
        binding.bind_output(logits.name)
        for name, out, c in zip([k.name for k in kept], written, cache.reshape(-1, *cache.shape[2:])):
            memory = value(c.copy())
            binding.bind_ortvalue_input(name, memory)
            binding.bind_ortvalue_output(out.name, memory)

        def call() -> Any:
            session.run_with_iobinding(binding)
            return binding.get_outputs()[:1]

        return call

    def write(self, g: Graph, old: Any, new: Any, at: Any) -> Any:
        """A row of each head: ScatterND at (0, head, position)."""
        heads = models.GPT2.heads
        rows = np.stack([np.zeros(heads, np.int64), np.arange(heads)], -1)
        index = g.op("Concat", rows.reshape(1, heads, 1, 2), g.op("Expand", at, ints(1, heads, 1, 1)), axis=3)
        return g.op("ScatterND", old, index, new)


def best_of(call: Callable[[], Any]) -> float:
    times = []
    call()
    for _ in range(TRIAL_CALLS):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return min(times)
