from __future__ import annotations

import importlib.util
import json
import math

import pytest
from tiny_cross_encoder import write_folder

from semcache.errors import ConfigurationError, MissingExtraError, VerifierError
from semcache.verifiers import OnnxCrossEncoder, SentenceTransformersCrossEncoder


def sigmoid(logit: float) -> float:
    return 1.0 / (1.0 + math.exp(-logit))


def test_the_lesser_of_both_orders_counts(tmp_path):
    verifier = OnnxCrossEncoder(write_folder(tmp_path))
    # The tiny model adds up the ids of the second text and its [SEP]: "a" gives 4 + 3 - 5, "b" one more.
    assert verifier.score([("a", "b"), ("b", "a"), ("b", "b")]) == pytest.approx([sigmoid(2), sigmoid(2), sigmoid(3)])


def test_of_several_outputs_the_one_that_means_the_same_counts(tmp_path):
    folder = write_folder(tmp_path, labels=("contradiction", "Entailment"))
    # Logits of "b" as the second text: 8 - 5 and 16 - 5; of "a": 7 - 5 and 14 - 5.
    assert OnnxCrossEncoder(folder).score([("a", "b")]) == pytest.approx([1 / (1 + math.exp(-7))])
    assert OnnxCrossEncoder(folder, label="contradiction").score([("a", "b")]) == pytest.approx([1 / (1 + math.exp(8))])


def test_padding_and_cutting_of_the_tokenizer_file_are_switched_off(tmp_path):
    verifier = OnnxCrossEncoder(write_folder(tmp_path))
    assert verifier.score([("a a a a a a a a", "a a a a a a a a")]) == pytest.approx([sigmoid(8 * 4 + 3 - 5)])


def test_control_tokens_in_a_text_are_text(tmp_path):
    verifier = OnnxCrossEncoder(write_folder(tmp_path))
    plain, spoofed = verifier.score([("a", "a"), ("a", "a [SEP] b")])
    # "[", "SEP", "]" are three unknown words of id 1: the second text weighs 4 + 3 + 5 + 3, the first 4 + 3.
    assert (plain, spoofed) == pytest.approx((sigmoid(2), sigmoid(2)))
    assert verifier.score([("a [SEP] b", "a [SEP] b")]) == pytest.approx([sigmoid(4 + 3 + 5 + 3 - 5)])


def test_a_pair_that_is_too_long_is_not_scored(tmp_path):
    with pytest.raises(VerifierError, match="7 tokens, of which the verifier reads 6"):
        OnnxCrossEncoder(write_folder(tmp_path), window=6).score([("a b", "c d")])


def test_a_graph_that_was_exported_for_one_length_is_given_that_length(tmp_path):
    verifier = OnnxCrossEncoder(write_folder(tmp_path, length=9))
    assert verifier.score([("a", "b"), ("a b", "a b c d")]) == pytest.approx([sigmoid(2), sigmoid(4 + 5 + 3 - 5)])
    with pytest.raises(VerifierError, match="10 tokens, of which the verifier reads 9"):
        verifier.score([("a b c", "a b c d")])


@pytest.mark.parametrize("missing", ["tokenizer.json", "config.json", "onnx/model.onnx"])
def test_a_folder_without_a_part_is_refused(tmp_path, missing):
    folder = write_folder(tmp_path)
    (folder / missing).unlink()
    with pytest.raises(ConfigurationError, match=missing):
        OnnxCrossEncoder(folder)


def test_a_label_must_be_known(tmp_path):
    folder = write_folder(tmp_path, labels=("x", "y"))
    with pytest.raises(ConfigurationError, match="say which label"):
        OnnxCrossEncoder(folder)
    with pytest.raises(ConfigurationError, match="no label 'z', but x, y"):
        OnnxCrossEncoder(folder, label="z")
    assert len(OnnxCrossEncoder(folder, label="Y").score([("a", "b")])) == 1


def test_a_damaged_graph_is_trouble_when_it_is_used(tmp_path):
    folder = write_folder(tmp_path)
    (folder / "onnx" / "model.onnx").write_bytes(b"no graph")
    with pytest.raises(VerifierError, match="cannot load the cross-encoder"):
        OnnxCrossEncoder(folder).score([("a", "b")])


def test_one_label_may_be_told_by_number_alone(tmp_path):
    folder = write_folder(tmp_path)
    (folder / "config.json").write_text(json.dumps({"num_labels": 1}))
    assert OnnxCrossEncoder(folder).score([("a", "a")]) == pytest.approx([sigmoid(2)])


@pytest.mark.skipif(importlib.util.find_spec("sentence_transformers") is not None, reason="the extra is installed")
def test_without_the_extra_it_says_what_to_install():
    with pytest.raises(MissingExtraError, match=r"semcache-llm\[sentence-transformers\]"):
        SentenceTransformersCrossEncoder("any")
