"""Small pieces of Python that a written model.py may need beside its classes."""

from __future__ import annotations

CHECK = '''def checked(name, blob, shape):
    """Refuse a blob of other sizes than the file was written for; None stands for any."""
    if len(shape) != blob.dim() or any(want not in (None, have) for want, have in zip(shape, blob.shape)):
        raise ValueError(f"{name} is {tuple(blob.shape)}; this net takes {shape}, None being any size")
'''
HOLDING = '''def holding(module, parameters, buffers=None, **attributes):
    """Return a module that holds zeros of these shapes until `load` fills them."""
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
    """Return the module that a dotted path leads into, made where it is not there, and the path's last name."""
    *way, name = path.split(".")
    for part in way:
        if not hasattr(module, part):
            module.add_module(part, nn.Module())
        module = getattr(module, part)
    return module, name
'''
LOAD = '''def load(path=None):
    """Return the net with its weights, in eval mode. `path`: model.safetensors, or its folder; this one unless told."""
    from safetensors.torch import load_file

    file = Path(path) if path is not None else Path(__file__).parent
    net = Net()
    net.load_state_dict(load_file(file / "model.safetensors" if file.is_dir() else file))
    return net.eval()
'''
STUBS = '''class Parameters:
    """The parameters of a layer as its prototxt has them, with defaults."""

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
