"""A tiny model file whose model says a script: each of its tokens is followed by the next one, whatever went before.

The embedding of a token is its own unit vector, attention and feed-forward are zero, and the output matrix maps each
token to its successor. So the last character of the prompt decides which script begins. llama.cpp loads it like any
other model.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gguf
import numpy as np

#: The prompt's last character where the model answers the user, and where it answers a tool's result.
AT_USER, AT_RESULT = ">", "]"
#: Tools first, then the messages; the Hermes form of a tool call, which llama.cpp recognises.
TEMPLATE = (
    "{%- if tools %}<|tools|>{% for tool in tools %}{{ tool | tojson }}{% endfor %}\n{% endif %}"
    "{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] or '' }}{% for call in m.tool_calls or [] %}"
    "<tool_call>\n{{ {'name': call.function.name, 'arguments': call.function.arguments} | tojson }}\n</tool_call>"
    "{% endfor %}\n{% endfor %}"
    "{% if messages[-1].role == 'tool' %}<|assistant|]{% else %}<|assistant|>{% endif %}"
)
_NORMAL, _UNKNOWN, _CONTROL, _BYTE = 1, 2, 3, 6
_BOS, _EOS = 1, 2
#: The first byte token. Each byte of a prompt is one token.
_BYTES = 3


def tool_call(name: str, arguments: dict[str, Any]) -> list[str]:
    """Return the script of a call of the tool `name`, in a few tokens as a model would have it.

    The arguments must be what the tool's schema allows, in its order: llama.cpp forces a call into it.
    """
    text = json.dumps({"name": name, "arguments": arguments})
    return ["<tool_call>", "\n", *(text[at : at + 8] for at in range(0, len(text), 8)), "\n", "</tool_call>"]


def write_model(path: Path, *, at_user: Sequence[str], at_result: Sequence[str] = ("done",)) -> Path:
    """Write the model and return its path. It says `at_user`, or `at_result` after a tool's result, and ends."""
    used: set[str] = set()
    scripts = {last: _distinct(said, used) for last, said in ((AT_USER, at_user), (AT_RESULT, at_result))}
    pieces = [piece for script in scripts.values() for piece in script]
    tokens = [b"<unk>", b"<s>", b"</s>", *(f"<0x{byte:02X}>".encode() for byte in range(256))]
    kinds = [_UNKNOWN, _CONTROL, _CONTROL, *[_BYTE] * 256]
    scores = [0.0] * len(tokens)
    follows: dict[int, int] = {}
    at = len(tokens)
    for last, script in scripts.items():
        follows[_BYTES + ord(last)] = at
        follows |= {number: number + 1 for number in range(at, at + len(script) - 1)}
        at += len(script)
        follows[at - 1] = _EOS
    for number, piece in enumerate(pieces):
        tokens.append(piece.encode())
        kinds.append(_NORMAL)
        scores.append(-1000.0 - number)  # so bad that the tokenizer takes it for no prompt
    width = -(-len(tokens) // 32) * 32
    embedding = np.eye(len(tokens), width, dtype=np.float32)
    output = np.zeros((len(tokens), width), np.float32)
    for one, other in follows.items():
        output[other, one] = 20.0
    writer = gguf.GGUFWriter(str(path), "llama")
    _describe(writer, width, len(tokens))
    writer.add_tokenizer_model("llama")
    writer.add_token_list(tokens)
    writer.add_token_scores(scores)
    writer.add_token_types(kinds)
    writer.add_bos_token_id(_BOS)
    writer.add_eos_token_id(_EOS)
    writer.add_unk_token_id(0)
    writer.add_add_space_prefix(False)
    writer.add_chat_template(TEMPLATE)
    writer.add_tensor("token_embd.weight", embedding)
    writer.add_tensor("output_norm.weight", np.ones(width, np.float32))
    writer.add_tensor("output.weight", output)
    shapes = {f"attn_{part}": (width, width) for part in ("q", "k", "v", "output")}
    shapes |= {"ffn_gate": (32, width), "ffn_up": (32, width), "ffn_down": (width, 32)}
    for name, shape in shapes.items():
        writer.add_tensor(f"blk.0.{name}.weight", np.zeros(shape, np.float32))
    for name in ("attn_norm", "ffn_norm"):
        writer.add_tensor(f"blk.0.{name}.weight", np.ones(width, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _distinct(script: Sequence[str], used: set[str]) -> list[str]:
    """Return the script in pieces that are not in `used`, to which they are added: a token has one successor."""
    found: list[str] = []
    piece = ""
    for part in script:
        piece += part
        if piece not in used:
            found.append(piece)
            used.add(piece)
            piece = ""
    if piece:
        found[-1] += piece
        used.add(found[-1])
    return found


def _describe(writer: gguf.GGUFWriter, width: int, tokens: int) -> None:
    """Write what llama.cpp reads of a model's form."""
    heads = 4
    writer.add_name("scripted")
    writer.add_context_length(1 << 20)
    writer.add_embedding_length(width)
    writer.add_block_count(1)
    writer.add_feed_forward_length(32)
    writer.add_head_count(heads)
    writer.add_head_count_kv(heads)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(width // heads)
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)
    writer.add_vocab_size(tokens)
