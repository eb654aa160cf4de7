"""Rule M9: sizes and counts of attention heads that do not fit each other.

llama.cpp loads such a model and aborts with its first token, for its tensors may have the shapes that these
numbers make. The architectures were tried one by one: others refuse the same in words, or take it.
"""

from __future__ import annotations

from ingest_service.formats.gguf.architectures import architectures
from ingest_service.formats.gguf.types import I32, U32
from ingest_service.formats.gguf.values import Metadata

_GROUPED = architectures(
    "afmoe arcee arctic baichuan bailingmoe bailingmoe2 bloom chatglm codeshell cogvlm cohere2"
    " command-r dbrx deci deepseek deepseek2-ocr dots1 dream ernie4_5 ernie4_5-moe exaone exaone-moe"
    " exaone4 falcon falcon-h1 gemma gemma-embedding gemma2 gemma3 glm4 glm4moe gpt-oss gpt2 gptneox"
    " granite granitemoe grok grovemoe hunyuan-dense hunyuan-moe hunyuan_vl internlm2 jais jais2 jamba"
    " lfm2 lfm2moe llada llada-moe llama llama-embed llama4 maincoder minicpm minicpm3 minimax-m2"
    " mistral3 mpt nemotron olmo olmo2 olmoe openelm orion paddleocr pangu-embedded phi2 phi3 phimoe"
    " plamo plamo3 qwen qwen2 qwen2moe qwen2vl qwen3 qwen3moe qwen3vl qwen3vlmoe refact rnd1 seed_oss"
    " smallthinker smollm3 stablelm starcoder starcoder2 t5encoder xverse"
)
#: Each head has keys and values of its own.
_NOT_GROUPED = architectures("deepseek2-ocr dots1 minicpm3 olmoe t5encoder")
_EQUAL_LENGTHS = architectures(
    "afmoe arcee arctic baichuan bailingmoe bailingmoe2 bloom chatglm codeshell cogvlm cohere2"
    " command-r dbrx deci deepseek deepseek2-ocr dots1 dream ernie4_5 ernie4_5-moe exaone exaone-moe"
    " exaone4 falcon falcon-h1 gemma gemma-embedding gemma2 gemma3 glm4 glm4moe gpt-oss gpt2 gptneox"
    " granite granitehybrid granitemoe grok grovemoe hunyuan-dense hunyuan-moe hunyuan_vl internlm2 jais"
    " jais2 jamba llada llada-moe llama llama-embed llama4 maincoder minicpm minimax-m2 mistral3 mpt"
    " nemotron olmo olmo2 olmoe openelm orion paddleocr pangu-embedded phi2 phi3 phimoe plamo qwen qwen2"
    " qwen2moe qwen2vl qwen3 qwen3moe qwen3vl qwen3vlmoe refact rnd1 seed_oss smallthinker smollm3"
    " stablelm starcoder starcoder2 t5encoder xverse"
)
#: All heads together are as wide as the embedding.
_AS_WIDE_AS_THE_EMBEDDING = architectures(
    "arctic baichuan bloom chatglm codeshell cogvlm cohere2 command-r dbrx deepseek deepseek2-ocr dream"
    " exaone4 falcon gpt2 gptneox grok internlm2 jais jamba lfm2 lfm2moe llada-moe mpt nemotron olmo"
    " olmo2 olmoe orion phi2 phi3 phimoe plamo qwen qwen2 qwen2moe qwen2vl stablelm starcoder starcoder2"
    " xverse"
)
_WHOLE_HEAD_ROPE = architectures(
    "arcee arctic baichuan bailingmoe codeshell cogvlm dbrx deepseek dots1 dream ernie4_5 ernie4_5-moe"
    " exaone exaone-moe exaone4 gpt-oss granite granitemoe grok grovemoe hunyuan-dense hunyuan-moe"
    " hunyuan_vl internlm2 jais2 llada llada-moe llama4 maincoder minicpm mistral3 olmo olmo2 olmoe"
    " orion paddleocr pangu-embedded plamo qwen2 qwen2moe qwen2vl qwen3 qwen3moe qwen3vl qwen3vlmoe rnd1"
    " seed_oss smallthinker smollm3 starcoder2 xverse"
)
_EVEN_ROPE = frozenset({"minicpm3"})
#: Heads are turned by sections.
_SECTIONS = architectures("glm4 glm4moe hunyuan_vl paddleocr qwen3vl qwen3vlmoe")
#: They have blocks without attention, which their numbers of heads tell of.
_HYBRID = architectures("jamba lfm2 lfm2moe")
#: Of their heads a part may be turned, of an even size.
_PARTIAL_ROPE = architectures(
    "afmoe bailingmoe2 chatglm cohere2 command-r falcon-h1 gemma gemma-embedding gemma2 gemma3 glm4"
    " glm4moe gptneox granitehybrid lfm2 lfm2moe minimax-m2 nemotron openelm phi2 phi3 phimoe plamo2"
    " plamo3 qwen stablelm"
)


def check_attention(metadata: Metadata) -> None:
    """The rule M9 of one model; of numbers that differ from block to block nothing is said."""
    prefix, architecture = metadata.architecture + ".", metadata.architecture
    heads = _heads(metadata, prefix + "attention.head_count")
    _check_groups(metadata, prefix, heads)
    if metadata.architecture in _HYBRID and metadata.integer(prefix + "attention.head_count_kv"):
        key = prefix + "attention.head_count_kv"
        message = f"{key} is one number: llama.cpp aborts unless some block of this architecture has 0."
        metadata.faults.add("M9", metadata.offset(key), key, message)
    width = metadata.integer(prefix + "embedding_length") or 0
    usual = width // heads if heads else 0
    key, value = prefix + "attention.key_length", prefix + "attention.value_length"
    key_length = _length(metadata, key, usual)
    value_length = _length(metadata, value, usual)
    # 0 is what some converters write for a number that they do not know.
    if not key_length or not value_length:
        return
    if architecture in _EQUAL_LENGTHS and key_length != value_length:
        field = value if value in metadata.values else key
        message = f"{value} is {value_length}, {key} {key_length}: llama.cpp aborts unless they are the same."
        metadata.faults.add("M9", metadata.offset(field), field, message)
    elif architecture in _AS_WIDE_AS_THE_EMBEDDING and heads and key_length != usual:
        message = f"{heads} heads of {key_length} in an embedding of {width}: llama.cpp would abort."
        metadata.faults.add("M9", metadata.offset(key), key, message)
    else:
        _check_rope(metadata, prefix, key_length)
        _check_sections(metadata, prefix, key_length)


def _heads(metadata: Metadata, key: str) -> int:
    """How many each block has that has any; 0 if they differ, or it is not known."""
    array = metadata.array(key)
    if array is None:
        return metadata.integer(key) or 0
    some = {number for number in array.numbers() if number} if array.element_type in (U32, I32) else set()
    return int(some.pop()) if len(some) == 1 else 0


def _length(metadata: Metadata, key: str, usual: int) -> int:
    """0 if it is not known."""
    return (metadata.integer(key) or 0) if key in metadata.values else usual


def _check_groups(metadata: Metadata, prefix: str, heads: int) -> None:
    key = prefix + "attention.head_count_kv"
    groups = _heads(metadata, key)
    if not heads or not groups or metadata.architecture not in _GROUPED:
        return
    if heads % groups or (groups != heads and metadata.architecture in _NOT_GROUPED):
        message = f"{heads} heads cannot share the keys and values of {groups}: llama.cpp would abort."
        metadata.faults.add("M9", metadata.offset(key), key, message)


def _check_rope(metadata: Metadata, prefix: str, head: int) -> None:
    key = prefix + "rope.dimension_count"
    rope = metadata.integer(key) or 0
    if not rope:
        return
    if metadata.architecture in _WHOLE_HEAD_ROPE and rope != head:
        message = f"{key} is {rope}: llama.cpp aborts unless it is the size of a head, {head}."
        metadata.faults.add("M9", metadata.offset(key), key, message)
    elif (metadata.architecture in _PARTIAL_ROPE and (rope > head or rope % 2)) or (
        metadata.architecture in _EVEN_ROPE and rope % 2
    ):
        message = f"{key} is {rope}: llama.cpp aborts unless it is even and within a head of {head}."
        metadata.faults.add("M9", metadata.offset(key), key, message)


def _check_sections(metadata: Metadata, prefix: str, head: int) -> None:
    key = prefix + "rope.dimension_sections"
    array = metadata.array(key)
    if metadata.architecture not in _SECTIONS or array is None or array.element_type not in (U32, I32):
        return
    together = sum(int(number) for number in array.numbers()[:4])
    if together > head:
        message = f"{key} are {together} together, more than a head of {head}: llama.cpp would abort."
        metadata.faults.add("M9", metadata.offset(key), key, message)
