"""The error catalogue: one class per kind of mistake. Messages name what was asked, what was found and the way out."""
from __future__ import annotations


class GlassgradError(Exception):
    """Base of all errors glassgrad raises on purpose."""


class ShapeError(GlassgradError, ValueError):
    """Shapes, axes or sizes do not fit the call."""


class DTypeError(GlassgradError, TypeError):
    """A data type does not fit the call."""


class ArgumentError(GlassgradError, TypeError):
    """An argument is of a kind the call cannot take: text for a number, a list for a Tensor."""


class IndexError_(GlassgradError, IndexError):
    """An index is out of range or of a kind that cannot index."""


class DeviceError(GlassgradError, RuntimeError):
    """A device is unknown, absent, out of memory, or refused a program."""


class UsageError(GlassgradError, ValueError):
    """A call that makes no sense as asked: missing data, a bad option, an empty reduction without identity."""


class FileError(GlassgradError, ValueError):
    """A file is not what its name says: truncated, corrupt, or asking for what is not allowed."""


class JitError(GlassgradError, RuntimeError):
    """Something inside a jitted function cannot be captured."""


class RewriteError(GlassgradError, RuntimeError):
    """A rewrite does not end; the message names the rules that undo each other."""


class CompilerBug(GlassgradError, AssertionError):
    """A mistake of ours: names the pass, the op and the smallest node that shows it."""
