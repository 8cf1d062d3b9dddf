"""Reads the safetensors format: an 8-byte header length, a JSON header, raw little-endian tensors.

Source: https://huggingface.co/docs/safetensors, "Format".
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

MAX_HEADER: Final = 100_000_000
"""Bytes; the limit of the reference implementation."""


def read(path: Path) -> dict[str, npt.NDArray[np.float32]]:
    """All floating-point tensors of a file as float32; those stored as float32 are views of a read-only map.

    Raises:
        ValueError: The file is torn, or not of this format.
    """
    import numpy as np

    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if not 2 <= length <= min(MAX_HEADER, size - 8):
            raise ValueError(f"{path} is not a safetensors file")
        header = json.loads(file.read(length))
    data = np.memmap(path, dtype=np.uint8, mode="r", offset=8 + length)
    return {
        name: _tensor(name, item, data)
        for name, item in header.items()
        if name != "__metadata__" and item["dtype"] in ("F16", "BF16", "F32", "F64")
    }


def _tensor(name: str, item: dict[str, Any], data: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    import numpy as np

    begin, end = item["data_offsets"]
    if not 0 <= begin <= end <= len(data):
        raise ValueError(f"tensor {name} lies outside of the file")
    raw = data[begin:end]
    if item["dtype"] == "BF16":
        # bfloat16 is the upper half of a float32.
        values = (raw.view("<u2").astype(np.uint32) << 16).view(np.float32)
    else:
        values = raw.view({"F16": "<f2", "F32": "<f4", "F64": "<f8"}[item["dtype"]])
    # The format does not promise alignment; onnxruntime needs it.
    return np.require(values, np.float32, ["C", "A"]).reshape(item["shape"])
