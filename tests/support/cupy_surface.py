"""What of CuPy stages may use: names, parameters and dtypes, read in the sources of CuPy 14.0.1 and
14.2.0.

Listed is what exists there and answers as NumPy does. A name that is missing may be a function of
CuPy all the same: look it up (does it exist, with these parameters, with the same dtypes, exactly?)
and add it here.
"""

from __future__ import annotations

import numpy as np

# Parameters of each function: `name!` takes an array, `name*` a list of arrays, the others Python
# values alone.
FUNCTIONS = {
    "arange": "start stop step dtype",
    "zeros": "shape dtype order",
    "ones": "shape dtype",
    "empty": "shape dtype order",
    "full": "shape fill_value dtype",
    "zeros_like": "a! dtype",
    "ones_like": "a! dtype",
    "empty_like": "prototype! dtype",
    "full_like": "a! fill_value dtype",
    "concatenate": "tup* axis",
    "stack": "tup* axis",
    "repeat": "a! repeats axis",
    "tile": "A! reps",
    "broadcast_to": "array! shape",
    "reshape": "a! newshape",
    "ravel": "a!",
    "expand_dims": "a! axis",
    "squeeze": "a! axis",
    "flip": "a! axis",
    "roll": "a! shift axis",
    "where": "condition! x! y!",
    "take": "a! indices! axis",
    "take_along_axis": "a! indices! axis",
    "diff": "a! n axis prepend! append!",
    "clip": "a! a_min! a_max! out!",
    "sum": "a! axis dtype keepdims",
    "min": "a! axis keepdims",
    "max": "a! axis keepdims",
    "any": "a! axis keepdims",
    "all": "a! axis keepdims",
    "argmin": "a! axis keepdims",
    "argmax": "a! axis keepdims",
    "count_nonzero": "a! axis",
    "cumsum": "a! axis dtype out!",
    "sort": "a! axis kind",
    "argsort": "a! axis kind",
    "lexsort": "keys!",
    "searchsorted": "a! v! side",
    "nonzero": "a!",
    "flatnonzero": "a!",
    "unique": "ar! return_index return_inverse return_counts",
    "bincount": "x! weights! minlength",
    "isin": "element! test_elements!",
    "ascontiguousarray": "a! dtype",
    "packbits": "a! axis bitorder",
}
# fmt: off
# the functions that are methods of an array too, with the array as their first argument
METHODS = frozenset((
    "repeat", "ravel", "squeeze", "take", "clip", "sum", "min", "max", "any", "all", "argmin",
    "argmax", "cumsum",
    "argsort", "searchsorted", "nonzero",
))
UFUNCS = frozenset((  # no exp, log, sin or power: their last bit differs between machines
    "add", "subtract", "multiply", "divide", "true_divide", "floor_divide", "remainder", "mod",
    "negative", "absolute",
    "abs", "sign", "square", "sqrt", "rint", "floor", "ceil", "trunc", "maximum", "minimum",
    "isnan", "isinf", "isfinite",
    "equal", "not_equal", "less", "less_equal", "greater", "greater_equal",
    "logical_and", "logical_or", "logical_xor", "logical_not",
    "bitwise_and", "bitwise_or", "bitwise_xor", "invert", "left_shift", "right_shift",
))
CONSTANTS = frozenset((
    "bool_", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "float32",
    "float64",
    "dtype", "iinfo", "finfo", "newaxis", "nan", "inf", "pi",
))
# fmt: on
REMEDIES = {
    "array": "bring host values in with backend.from_host",
    "asarray": "bring host values in with backend.from_host",
    "asnumpy": "take arrays out with backend.to_host",
    "mean": "sum integers and divide: float sums depend on the order",
    **dict.fromkeys(
        ("exp", "expm1", "log", "log1p", "log2", "sin", "cos", "power"),
        "the last bit differs; make a table on the host",
    ),
}
DTYPES = frozenset(
    np.dtype(name) for name in CONSTANTS if name.startswith(("bool", "int", "uint", "float"))
)
AT_DTYPES = frozenset(
    np.dtype(t) for t in ("int32", "uint32", "uint64", "float32", "float64")
)  # int64 comes with 14.2
SYNCS = {
    "nonzero": 1,
    "flatnonzero": 1,
    "bincount": 2,
    "unique": 1,
}  # how often each waits for the device to know a size
