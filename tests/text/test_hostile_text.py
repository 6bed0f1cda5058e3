"""Damaged prototxts: each gives a result or a clear error, no traceback, no hang, or more than 1 GiB of memory."""

from __future__ import annotations

from pathlib import Path
from random import Random

import pytest
from click.testing import CliRunner
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from prototxt_gen.analysis import analyse, top_shapes
from prototxt_gen.checks import check_net
from prototxt_gen.cli import cli
from prototxt_gen.common.errors import PrototxtGenError
from prototxt_gen.net.prototxt_reader import net_from_tree
from prototxt_gen.net.render import net_text
from prototxt_gen.net.solver import is_solver, solver_from_tree
from prototxt_gen.text import format_fields, parse
from tests.net.test_prototxt_reader import V0, V1, V2
from tests.schema.test_unknown_fields import TREE

pytestmark = pytest.mark.fuzz

SECONDS = 20
SOLVER = f'base_lr: 0.1 type: "SGD" test_iter: 2 test_interval: 3 net_param {{ {V2} }} train_state {{ stage: "a" }}'
TEXTS = (V0, V1, V2, SOLVER, format_fields(TREE))
NUMBERS = (
    "-1",
    "0",
    "4294967295",
    "2147483648",
    "9223372036854775807",
    "-9223372036854775808",
    "1e308",
    "nan",
    "9" * 99,
)
WORDS = ("MAXX", "TRAIN", '"TRAIN"', "true", "{ }", "[1, 2]", "[]", "'", "0x1", "\0", "\udcff", "999")


def mutated(text: str, seed: int) -> str:
    """Return the text after one to four changes of the kinds that files suffer."""
    random = Random(seed)
    for _ in range(random.randint(1, 4)):
        text = random.choice(CHANGES)(text, random)
    return text


def _without_a_bracket(text: str, random: Random) -> str:
    places = [i for i, letter in enumerate(text) if letter in '{}":'] or [0]
    at = random.choice(places)
    return text[:at] + text[at + 1 :]


def _another_word(text: str, random: Random) -> str:
    words = text.split(" ")
    words[random.randrange(len(words))] = random.choice((*NUMBERS, *WORDS))
    return " ".join(words)


def _another_value(text: str, random: Random) -> str:
    """Change what stands after a colon: a number, an enum, the name of a blob."""
    colons = [i for i, letter in enumerate(text[:-1]) if letter == ":" and text[i + 1] == " "]
    if not colons:
        return text
    start = random.choice(colons) + 2
    return f"{text[:start]}{random.choice((*NUMBERS, *WORDS))} {text[start:].partition(' ')[2]}"


def _another_blob(text: str, random: Random) -> str:
    """Make bottoms and tops meet where they should not: cycles, missing blobs, blobs made twice."""
    names = ["data", "conv1", "conv", "pool", "ip", "nowhere", ""]
    for key in random.sample(["bottom: ", "top: ", "name: "], 2):
        before, found, after = text.partition(f'{key}"{random.choice(names)}"')
        text = f'{before}{key}"{random.choice(names)}"{after}' if found else text
    return text


def _a_piece(text: str, random: Random) -> str:
    """Lose, or repeat, a piece of it."""
    start = random.randrange(len(text) + 1)
    end = start + random.choice([1, 3, 20, 200])
    return text[:start] + text[start:end] * random.choice([0, 2, 3]) + text[end:]


CHANGES = (_without_a_bracket, _another_word, _another_value, _another_value, _another_blob, _a_piece)


def use(text: str | bytes) -> None:
    """Do all that can be done with a prototxt without writing a file."""
    tree = parse(text)
    if is_solver(tree):
        solver = solver_from_tree(tree)
        solver.read_train_net()
        solver.read_test_nets()
        return
    net = net_from_tree(tree)
    check_net(net, tree)
    assert net_from_tree(parse(net_text(net))) == net
    for phase in ("TRAIN", "TEST"):
        analysis = analyse(net.at(phase))
        assert analysis.macs >= 0 and analysis.parameters >= 0 and analysis.activation_bytes >= 0
    top_shapes(net)


@settings(max_examples=500, deadline=SECONDS * 1000, suppress_health_check=[HealthCheck.too_slow])
@given(st.sampled_from(TEXTS), st.integers(0, 2**32))
def test_damaged_texts_give_an_error_or_a_result(text: str, seed: int) -> None:
    damaged = mutated(text, seed)
    try:
        use(damaged.encode("utf-8", "surrogateescape"))
    except PrototxtGenError as error:
        assert str(error)


@settings(max_examples=300, deadline=SECONDS * 1000)
@given(st.binary(max_size=300) | st.text(st.sampled_from("{}<>[]:,;\"'\\#layer name: 1.-x\n"), max_size=120))
def test_random_characters_give_an_error_or_a_result(text: str | bytes) -> None:
    try:
        use(text)
    except PrototxtGenError as error:
        assert str(error)


COMMANDS = [
    ("summary",),
    ("summary", "--json", "--input-size", "64"),
    ("check",),
    ("check", "--strict", "--json"),
    ("draw", "-o", "out.dot", "--force", "--expand"),
    ("draw", "-o", "out.html", "--force"),
    ("convert", "prototxt", "-o", "out.prototxt", "--force"),
    ("convert", "prototxt", "-o", "out.prototxt", "--force", "--to-deploy"),
    ("convert", "prototxt", "-o", "out.prototxt", "--force", "--to-train-val"),
    ("convert", "prototxt", "-o", "out.prototxt", "--force", "--to-dialect", "ssd"),
]


def command(arguments: tuple[str, ...], text: str, folder: Path) -> None:
    """Run a command on a file with this text: it must end with a result, or with an error in words."""
    (folder / "net.prototxt").write_bytes(text.encode("utf-8", "surrogateescape"))
    paths = [str(folder / word) if word.startswith("out.") else word for word in arguments]
    result = CliRunner().invoke(cli, [*paths, str(folder / "net.prototxt")])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exc_info
    assert result.exit_code in (0, 1)
    assert result.exit_code == 0 or arguments[0] == "check" or result.stderr.startswith("error: ")


@pytest.mark.parametrize("arguments", COMMANDS, ids=" ".join)
def test_commands_on_damaged_files(arguments: tuple[str, ...], tmp_path: Path) -> None:
    for seed in range(40):
        command(arguments, mutated(TEXTS[seed % len(TEXTS)], seed), tmp_path)


HUGE = """
Convolution convolution_param { num_output: 4294967295 kernel_size: 1 }
Convolution convolution_param { num_output: 4 kernel_size: 4294967295 pad: 4294967295 }
Convolution convolution_param { num_output: 4 kernel_size: 3 stride: 4294967295 dilation: 4294967295 }
Convolution convolution_param { num_output: 4 kernel_size: 3 axis: -2147483648 }
Deconvolution convolution_param { num_output: 4 kernel_size: 4294967295 stride: 4294967295 }
Im2col convolution_param { kernel_size: 4294967295 pad: 4294967295 }
Pooling pooling_param { kernel_size: 4294967295 pad: 4294967294 }
Pooling pooling_param { kernel_size: 1 stride: 4294967295 }
SPP spp_param { pyramid_height: 4294967295 }
SPP spp_param { pyramid_height: 40 }
Interp interp_param { zoom_factor: 2147483647 }
Interp interp_param { shrink_factor: -5 }
Interp interp_param { pad_beg: 2147483647 }
Tile tile_param { tiles: 2147483647 }
Upsample upsample_param { scale: 4294967295 }
Permute permute_param { order: 4294967295 }
Permute permute_param { order: 0 order: 0 }
PixelShuffle pixelshuffle_param { upscale_factor: -1 }
Reshape reshape_param { shape { dim: 9223372036854775807 } }
Reshape reshape_param { axis: -2147483648 shape { dim: -1 } }
Reshape reshape_param { num_axes: 2147483647 shape { dim: 0 } }
InnerProduct inner_product_param { num_output: 4294967295 }
InnerProduct inner_product_param { num_output: 1 axis: 77 }
LRN lrn_param { local_size: 4294967295 norm_region: WITHIN_CHANNEL }
Slice slice_param { slice_point: 4294967295 }
PriorBox prior_box_param { min_size: 1e38 aspect_ratio: 1e-38 }
Crop crop_param { axis: -2147483648 offset: 4294967295 }
Embed embed_param { input_dim: 4294967295 num_output: 4294967295 }
LSTM recurrent_param { num_output: 4294967295 }
RNN recurrent_param { num_output: 4294967295 }
Flatten flatten_param { axis: -2147483648 end_axis: 2147483647 }
Softmax softmax_param { axis: 99 }
ArgMax argmax_param { top_k: 4294967295 }
Resize resize_param { height: 4294967295 }
ROIPooling roi_pooling_param { pooled_h: 4294967295 pooled_w: 4294967295 }
DetectionOutput detection_output_param { num_classes: 4294967295 }
Proposal proposal_param { feat_stride: 4294967295 scale: nan }
DummyData dummy_data_param { shape { dim: 9223372036854775807 dim: 9223372036854775807 } }
Input input_param { shape { dim: -9223372036854775808 } }
MemoryData memory_data_param { batch_size: 4294967295 channels: 4294967295 height: 4294967295 width: 4294967295 }
Data data_param { batch_size: 4294967295 } transform_param { crop_size: 4294967295 force_color: true }
"""


@pytest.mark.parametrize("line", HUGE.strip().splitlines())
@pytest.mark.parametrize("bottoms", [0, 1, 2])
def test_huge_numbers(line: str, bottoms: int) -> None:
    type_, _, params = line.partition(" ")
    taken = 'bottom: "data" ' * bottoms
    use(f"""input: "data" input_shape {{ dim: 3 dim: 2 dim: 9 dim: 9 }}
        layer {{ name: "x" type: "{type_}" {taken} top: "y" {params} }}
        layer {{ name: "after" type: "InnerProduct" bottom: "y" top: "z" inner_product_param {{ num_output: 2 }} }}
    """)


def test_huge_inputs() -> None:
    for dims in ("9223372036854775807", "2147483647 dim: 2147483647 dim: 3 dim: 4", "0"):
        use(f'input: "d" input_shape {{ dim: {dims} }} layer {{ name: "x" type: "ReLU" bottom: "d" top: "x" }}')
