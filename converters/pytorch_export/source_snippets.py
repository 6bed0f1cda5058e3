"""Functions and classes that are copied into a model.py if its code needs them.

Their names and arguments are part of the output format.
"""

from __future__ import annotations

CHECK_SHAPE = '''def checked(name, blob, shape):
    """Raise ValueError if a blob has another shape than the net accepts; None means any size."""
    if len(shape) != blob.dim() or any(want not in (None, have) for want, have in zip(shape, blob.shape)):
        raise ValueError(f"{name} is {tuple(blob.shape)}; this net takes {shape}, None being any size")
'''
ADD_TENSORS = '''def holding(module, parameters, buffers=None, **attributes):
    """Return the module with parameters and buffers of these shapes added; they are zeros until `load` sets them."""
    for path, shape in parameters.items():
        place, name = within(module, path)
        place.register_parameter(name, nn.Parameter(torch.zeros(shape)))
    for path, shape in (buffers or {}).items():
        place, name = within(module, path)
        shape, dtype = shape if shape and isinstance(shape[-1], torch.dtype) else (shape, torch.float32)
        place.register_buffer(name, torch.zeros(shape, dtype=dtype))
    for name, value in attributes.items():
        setattr(module, name, value)
    return module


def within(module, path):
    """Return the inner module that a dotted path begins with, created if missing, and the last part of the path."""
    *way, name = path.split(".")
    for part in way:
        if not hasattr(module, part):
            module.add_module(part, nn.Module())
        module = getattr(module, part)
    return module, name
'''
LOAD_WEIGHTS = '''def load(path=None):
    """Return the net with its weights, in eval mode.

    `path`: model.safetensors or its folder. Default: the folder of this file.
    """
    from safetensors.torch import load_file

    file = Path(path) if path is not None else Path(__file__).parent
    net = Net()
    net.load_state_dict(load_file(file / "model.safetensors" if file.is_dir() else file))
    return net.eval()
'''
LAYER_PARAMETERS = '''class Parameters:
    """The parameters of a layer as in its prototxt, with defaults."""

    def __init__(self, set_fields=(), **fields):
        self.__dict__.update(fields, set_fields=set_fields)

    def has(self, name):
        return name in self.set_fields


class LayerParameters:
    """A layer's name, type and parameters."""

    def __init__(self, name, type, **messages):
        self.name, self.type, self.messages = name, type, messages

    def get(self, kind):
        return self.messages[kind]

    def error(self, problem):
        return ValueError(f"layer {self.name!r} ({self.type}): {problem}")
'''
