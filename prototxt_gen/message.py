"""Another path to the message classes, for plugins written before they moved to `prototxt_gen.schema.message`."""

from prototxt_gen.schema.message import *  # noqa: F403
