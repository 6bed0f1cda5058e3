"""Activations and arithmetic, element by element or along an axis."""

from __future__ import annotations

from prototxt_gen.layers.example import literal, positive
from tests.behaviours.notation import B


def act(name: str, line: str, inputs: str = "data 2 3 4 4", **more: object) -> B:
    type_, _, rest = line.partition(" ")
    return B(name, inputs, f"act: {type_} data > act" + (f" | {rest}" if rest else ""), **more)  # type: ignore[arg-type]


def positively(name: str, line: str) -> B:
    return act(name, line, draws={"data": positive})


ACTIVATIONS = (
    act("relu", "ReLU"),
    act("relu: negative slope", "ReLU relu_param { negative_slope: 0.1 }"),
    act("relu: negative slope below 0", "ReLU relu_param { negative_slope: -0.5 }"),
    act("relu: slope 1", "ReLU relu_param { negative_slope: 1 }"),
    act("prelu", "PReLU"),
    act("prelu: channel_shared", "PReLU prelu_param { channel_shared: true }"),
    act("prelu: two axes", "PReLU", "data 4 3"),
    act("prelu: three axes", "PReLU", "data 2 3 5"),
    act("elu", "ELU"),
    act("elu: alpha", "ELU elu_param { alpha: 0.3 }"),
    act("sigmoid", "Sigmoid"),
    act("sigmoid: large numbers", "Sigmoid", "data 8", draws={"data": literal([-200, -90, -30, -1, 1, 30, 90, 200])}),
    act("tanh", "TanH"),
    act("absval", "AbsVal"),
    act("bnll", "BNLL"),
    act("bnll: large numbers", "BNLL", "data 8", draws={"data": literal([-100, -60, -5, -0.5, 0.5, 5, 60, 100])}),
    act("threshold", "Threshold threshold_param { threshold: 0.3 }"),
    act(
        "threshold: default, a zero among the numbers", "Threshold", "data 4", draws={"data": literal([-1, 0, 1e-9, 2])}
    ),
    act("dropout", "Dropout dropout_param { dropout_ratio: 0.7 }"),
    act("swish", "Swish"),
    act("swish: beta", "Swish swish_param { beta: 2.5 }"),
    act("clip", "Clip clip_param { min: -0.5 max: 0.75 }"),
)

POWERS = (
    positively("power: all three", "Power power_param { power: 2.5 scale: 3 shift: 1 }"),
    act("power: square of negative numbers", "Power power_param { power: 2 scale: -1.5 shift: 0.5 }"),
    act("power: cube of negative numbers", "Power power_param { power: 3 }"),
    act("power: 0", "Power power_param { power: 0 scale: 2 shift: 1 }"),
    act("power: scale 0", "Power power_param { power: 3 scale: 0 shift: 2 }"),
    act("power: scale and shift alone", "Power power_param { scale: 0.017 shift: -1.7 }"),
    positively("power: root", "Power power_param { power: 0.5 }"),
    positively("power: reciprocal", "Power power_param { power: -1 shift: 0.1 }"),
    act("power: defaults", "Power"),
    act("exp: base e", "Exp"),
    act("exp: base 2", "Exp exp_param { base: 2 }"),
    act("exp: base, scale, shift", "Exp exp_param { base: 3 scale: 0.5 shift: -1 }"),
    act("exp: base e, scale, shift", "Exp exp_param { scale: 0.5 shift: -1 }"),
    act("exp: base below 1", "Exp exp_param { base: 0.5 shift: 1 }"),
    act("exp: scale 0", "Exp exp_param { base: 2 scale: 0 shift: 3 }"),
    positively("log: base e", "Log"),
    positively("log: base 2", "Log log_param { base: 2 }"),
    positively("log: base 10, scale, shift", "Log log_param { base: 10 scale: 3 shift: 1 }"),
    positively("log: base e, scale, shift", "Log log_param { scale: 2 shift: 0.5 }"),
    positively("log: base below 1", "Log log_param { base: 0.5 }"),
    act("log: of what is below 0", "Log log_param { shift: 0.25 }"),
)


def eltwise(name: str, params: str, count: int = 2, **more: object) -> B:
    names = "abcd"[:count]
    inputs = "; ".join(f"{one} 2 3 4 4" for one in names)
    line = f"sum: Eltwise {' '.join(names)} > sum | eltwise_param {{ {params} }}"
    return B(f"eltwise: {name}", inputs, line, **more)  # type: ignore[arg-type]


ELTWISES = (
    eltwise("sum", "operation: SUM"),
    eltwise("sum of three", "operation: SUM", 3),
    eltwise("sum, coeff 1 and -1", "operation: SUM coeff: 1 coeff: -1"),
    eltwise("sum, coeff of three", "coeff: 0.5 coeff: -2 coeff: 3", 3),
    eltwise("sum, a coeff of 0", "operation: SUM coeff: 0 coeff: 1.5"),
    eltwise("product", "operation: PROD"),
    eltwise("product of three", "operation: PROD", 3),
    eltwise("product, stable_prod_grad off", "operation: PROD stable_prod_grad: false"),
    eltwise("maximum", "operation: MAX"),
    eltwise("maximum of four", "operation: MAX", 4),
    B(
        "eltwise: one blob twice",
        "data 2 3 4 4",
        "sum: Eltwise data data > sum | eltwise_param { coeff: 2 coeff: 0.5 }",
    ),
    B("eltwise: sum of shapes equal but for their meaning", "a 2 3; b 2 3", "sum: Eltwise a b > sum"),
)

SOFTMAXES = (
    act("softmax", "Softmax", "data 3 5"),
    act("softmax: of an image", "Softmax"),
    act("softmax: axis 2", "Softmax softmax_param { axis: 2 }"),
    act("softmax: last axis", "Softmax softmax_param { axis: -1 }"),
    act("softmax: axis 0", "Softmax softmax_param { axis: 0 }"),
    act("softmax: large numbers", "Softmax", "data 1 4", draws={"data": literal([1000, 999, -1000, 998])}),
    act("softmax: one axis", "Softmax softmax_param { axis: 0 }", "data 5"),
)

ARGMAXES = (
    act("argmax: of each image, no axis", "ArgMax", "data 3 10"),
    act("argmax: no axis, of an image", "ArgMax", "data 2 3 2 2"),
    act("argmax: no axis, out_max_val", "ArgMax argmax_param { out_max_val: true }", "data 3 10"),
    act("argmax: no axis, top 3", "ArgMax argmax_param { top_k: 3 }", "data 3 10"),
    act("argmax: no axis, top 3, out_max_val", "ArgMax argmax_param { top_k: 3 out_max_val: true }", "data 3 10"),
    act("argmax: axis 1", "ArgMax argmax_param { axis: 1 }"),
    act("argmax: axis 1, out_max_val", "ArgMax argmax_param { axis: 1 out_max_val: true }"),
    act("argmax: last axis, top 2", "ArgMax argmax_param { axis: -1 top_k: 2 }"),
    act("argmax: axis 2, top 2, out_max_val", "ArgMax argmax_param { axis: 2 top_k: 2 out_max_val: true }"),
    act("argmax: ties", "ArgMax", "data 2 4", draws={"data": literal([[1, 3, 3, 2], [0, 0, 0, 0]])}),
    act("argmax: ties, axis 1", "ArgMax argmax_param { axis: 1 top_k: 2 }", "data 2 4",
        draws={"data": literal([[1, 3, 3, 2], [0, 0, 0, 0]])}),
)  # fmt: skip


def reduction(name: str, params: str, **more: object) -> B:
    return act(f"reduction: {name}", f"Reduction reduction_param {{ {params} }}", "data 2 3 4 5", **more)


REDUCTIONS = (
    act("reduction: defaults, everything into one number", "Reduction"),
    reduction("sum, coeff", "operation: SUM coeff: 2.5"),
    reduction("sum, axis 1", "axis: 1"),
    reduction("sum, axis 2, coeff", "operation: SUM axis: 2 coeff: -0.5"),
    reduction("mean", "operation: MEAN axis: 1"),
    reduction("mean, coeff", "operation: MEAN axis: 2 coeff: 3"),
    reduction("sum of absolute values", "operation: ASUM axis: 1"),
    reduction("sum of absolute values, coeff", "operation: ASUM axis: -1 coeff: 0.25"),
    reduction("sum of squares", "operation: SUMSQ axis: 1"),
    reduction("sum of squares, coeff, last axis", "operation: SUMSQ axis: -1 coeff: 2"),
    reduction("everything, mean", "operation: MEAN axis: 0 coeff: 4"),
    reduction("first axis from the back", "operation: SUM axis: -4"),
)

INTERPS = (
    act("interp: zoom", "Interp interp_param { zoom_factor: 2 }"),
    act("interp: shrink", "Interp interp_param { shrink_factor: 2 }", "data 1 2 9 9"),
    act("interp: shrink an even size", "Interp interp_param { shrink_factor: 2 }", "data 1 2 8 6"),
    act("interp: size", "Interp interp_param { height: 7 width: 11 }"),
    act("interp: to one pixel", "Interp interp_param { height: 1 width: 1 }", "data 1 2 5 5"),
    act("interp: from one pixel", "Interp interp_param { height: 5 width: 4 }", "data 2 3 1 1"),
    act("interp: same size", "Interp interp_param { height: 4 width: 4 }"),
    act("interp: cropped first", "Interp interp_param { height: 6 width: 6 pad_beg: -1 pad_end: -1 }", "data 1 2 7 7"),
    B(
        "interp: size of the second bottom",
        "data 2 3 4 4; like 2 1 7 9",
        "up: Interp data like > up | interp_param { }",
    ),
)

BEHAVIOURS = ACTIVATIONS + POWERS + ELTWISES + SOFTMAXES + ARGMAXES + REDUCTIONS + INTERPS
