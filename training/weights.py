"""safetensors without a dependency: what PyTorch needs to read fixtures and to write Nano's files."""
import json
import struct

import numpy as np
import torch

TYPES = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16, "I64": torch.int64, "I32": torch.int32, "U8": torch.uint8, "BOOL": torch.bool}
NAMES = {dtype: name for name, dtype in TYPES.items()}


def load(path):
    """(tensors by name, metadata)."""
    with open(path, "rb") as file:
        data = file.read()
    length = struct.unpack("<Q", data[:8])[0]
    header = json.loads(data[8:8 + length])
    metadata = header.pop("__metadata__", {})
    tensors = {}
    for name, entry in header.items():
        start, end = (8 + length + offset for offset in entry["data_offsets"])
        dtype = TYPES[entry["dtype"]]
        tensors[name] = torch.frombuffer(bytearray(data[start:end]) or bytearray(8), dtype=dtype)[:max(0, (end - start) // torch.tensor([], dtype=dtype).element_size())].reshape(entry["shape"]).clone()
    return tensors, metadata


def save(path, tensors, metadata):
    """Writes tensors in name order; metadata values become text."""
    header, blobs, at = {"__metadata__": {key: str(value) for key, value in metadata.items()}}, [], 0
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        raw = tensor.view(torch.int16).numpy().tobytes() if tensor.dtype == torch.bfloat16 else tensor.numpy().tobytes()
        header[name] = {"dtype": NAMES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [at, at + len(raw)]}
        blobs.append(raw)
        at += len(raw)
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for raw in blobs:
            file.write(raw)
