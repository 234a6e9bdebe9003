"""Unpickling of untrusted files of number arrays, without running code that a pickle may contain."""

from __future__ import annotations

import io
import pickle
from typing import Any

import numpy as np
import numpy.typing as npt


def unpickle_arrays(content: bytes) -> Any:
    """The content of a pickle of numpy arrays of numbers, lists, dictionaries and strings; Python 2 strings as bytes.

    Raises:
        pickle.UnpicklingError: the pickle refers to another name. A damaged file can raise almost any exception.
    """
    return _ArrayUnpickler(io.BytesIO(content), encoding="bytes").load()


class _ArrayUnpickler(pickle.Unpickler):
    """Accepts old and new names of numpy's modules, because the official files were written by Python 2."""

    def find_class(self, module: str, name: str) -> Any:
        if module in ("numpy.core.multiarray", "numpy._core.multiarray") and name == "_reconstruct":
            return _empty_array
        if module == "numpy" and name == "dtype":
            return _number_dtype
        if module == "numpy" and name == "ndarray":
            return np.ndarray
        if (module, name) == ("_codecs", "encode"):  # how Python 3 writes bytes at protocol 2
            return _encode_latin1
        raise pickle.UnpicklingError(f"it refers to {module}.{name}, which image batches do not need")


def _empty_array(kind: Any, shape: Any, typecode: Any) -> npt.NDArray[Any]:
    return np.empty(0, np.uint8)  # the state that follows sets shape, type and bytes


def _number_dtype(name: Any, *flags: Any) -> np.dtype[Any]:
    dtype = np.dtype(name.decode() if isinstance(name, bytes) else name)
    if dtype.kind not in "biuf":
        raise pickle.UnpicklingError(f"an array of type {dtype}")
    return dtype


def _encode_latin1(text: str, encoding: str) -> bytes:
    return text.encode("latin1")
