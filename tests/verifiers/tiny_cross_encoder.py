"""A cross-encoder small enough to reckon by hand: its logits tell what it was fed."""

from __future__ import annotations

import json
from pathlib import Path

from semcache.embedders._bert_graph import FLOAT, INT64, _field, _Graph, _value

WORDS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "a", "b", "c", "d")


def write_folder(folder: Path, *, labels: tuple[str, ...] = ("LABEL_0",), length: int | None = None) -> Path:
    """A model folder. Logit ``n`` is ``(n + 1) *`` the sum of ids times types, less 5: the second text alone counts.

    Args:
        length: The one length in tokens that the graph takes; ``None`` takes any.
    """
    (folder / "onnx").mkdir(parents=True)
    (folder / "onnx" / "model.onnx").write_bytes(_graph(len(labels), length))
    (folder / "config.json").write_text(json.dumps({"id2label": dict(enumerate(labels))}))
    (folder / "tokenizer.json").write_text(json.dumps(_tokenizer()))
    return folder


def _graph(outputs: int, length: int | None) -> bytes:
    graph = _Graph()
    graph.node("Mul", ["input_ids", "token_type_ids"], "second")
    graph.node("Mul", ["second", "attention_mask"], "kept")
    graph.node("ReduceSum", ["kept", graph.ints("axis", [1])], "sum", keepdims=1)
    graph.node("Cast", ["sum"], "number", to=FLOAT)
    columns = []
    for at in range(outputs):
        scaled = graph.node("Mul", ["number", graph.scalar(f"times{at}", at + 1.0)], f"scaled{at}")
        columns.append(graph.node("Sub", [scaled, graph.scalar(f"less{at}", 5.0)], f"column{at}"))
    graph.node("Concat", columns, "logits", axis=1)
    body = _body(graph, outputs, length)
    return _field(1, 9) + _field(7, body) + _field(8, _field(1, "") + _field(2, 20))


def _body(graph: _Graph, outputs: int, length: int | None) -> bytes:
    inputs = ("input_ids", "attention_mask", "token_type_ids")
    return b"".join(
        [
            *(_field(1, node) for node in graph._nodes),
            _field(2, "tiny"),
            *(_field(5, tensor) for tensor in graph._tensors),
            *(_field(11, _value(name, INT64, ["n", length or "l"])) for name in inputs),
            _field(12, _value("logits", FLOAT, ["n", outputs])),
        ]
    )


def _tokenizer() -> dict[str, object]:
    special = [
        {"id": at, "content": word, "special": True, "normalized": False, "lstrip": False, "rstrip": False,
         "single_word": False}
        for at, word in enumerate(WORDS[:4])
    ]  # fmt: skip
    piece = {"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}
    start = {"SpecialToken": {"id": "[CLS]", "type_id": 0}}
    end = [{"SpecialToken": {"id": "[SEP]", "type_id": at}} for at in (0, 1)]
    return {
        "version": "1.0",
        "truncation": {"direction": "Right", "max_length": 6, "strategy": "LongestFirst", "stride": 0},
        "padding": {"strategy": {"Fixed": 9}, "direction": "Right", "pad_to_multiple_of": None, "pad_id": 0,
                    "pad_type_id": 0, "pad_token": "[PAD]"},
        "added_tokens": special,
        "normalizer": None,
        "pre_tokenizer": {"type": "Whitespace"},
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [start, piece[0], end[0]],
            "pair": [start, piece[0], end[0], piece[1], end[1]],
            "special_tokens": {w: {"id": w, "ids": [WORDS.index(w)], "tokens": [w]} for w in ("[CLS]", "[SEP]")},
        },
        "decoder": None,
        "model": {"type": "WordLevel", "vocab": {word: at for at, word in enumerate(WORDS)}, "unk_token": "[UNK]"},
    }  # fmt: skip
