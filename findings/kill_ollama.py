"""Sets that our readers accept, put straight to a real Ollama. usage: kill_ollama.py BIN PORT DIR [only]
The verdict of the readers and of check_together is printed; then whether the server died of create."""
import sys, json, struct, hashlib, time, os
sys.path.insert(0, '/tmp/real-ollama/m'); sys.path.insert(0, '/work/atk5')
import httpx
from srv import Srv
from ingest_service.formats.inspect import FormatReader, FormatLimits
from ingest_service.ingests.agreement import check_together
from ingest_service.vocabulary.states import FileRole
from types import SimpleNamespace as NS

def st(tensors, meta=None):
    """tensors: name -> (dtype, shape, bytes)"""
    h, at, data = {}, 0, b''
    if meta is not None: h['__metadata__'] = meta
    for n, (d, s, b) in tensors.items():
        h[n] = {'dtype': d, 'shape': s, 'data_offsets': [at, at + len(b)]}; at += len(b); data += b
    t = json.dumps(h).encode()
    return struct.pack('<Q', len(t)) + t + data
def f32(*s):
    n = 1
    for x in s: n *= x
    return ('F32', list(s), b'\0' * (4 * n))
def cfg(arch='LlamaForCausalLM', **kw):
    return json.dumps({'architectures': [arch], 'hidden_size': 32, 'num_attention_heads': 1, 'num_key_value_heads': 1, 'num_hidden_layers': 1, 'vocab_size': 4, 'intermediate_size': 64, 'max_position_embeddings': 128, **kw}).encode()
TOK = b'{"model":{"type":"BPE","vocab":{"a":0,"b":1,"c":2,"d":3},"merges":[]},"added_tokens":[]}'
def spm():
    out = b''
    for i, t in enumerate([b'<unk>', b'a', b'b', b'c']):
        p = b'\x0a' + bytes([len(t)]) + t + b'\x15' + struct.pack('<f', 0.) + b'\x18' + (b'\x02' if i == 0 else b'\x01')
        out += b'\x0a' + bytes([len(p)]) + p
    return out
OK = {'x': f32(4, 4)}
Q, K = 'model.layers.0.self_attn.q_proj.weight', 'model.layers.0.self_attn.k_proj.weight'
def case(tensors=OK, meta=None, config=None, **files):
    base = {'model.safetensors': st(tensors, meta), 'config.json': config or cfg(), 'tokenizer.json': TOK}
    for k, v in files.items():
        k = k.replace('__', '.')
        if v is None: base.pop(k)
        else: base[k] = v
    return base
G = dict(hidden_size=32)
CASES = {
 'control': case(),
 'metadata says dtype': case(meta={'dtype': 'F32'}),
 'metadata says DTYPE': case(meta={'DTYPE': 'x'}),
 'q_proj of one dimension': case({Q: f32(32)}),
 'q_proj of no elements': case({Q: f32(0, 4)}),
 'q_proj BF16': case({Q: ('BF16', [2, 2], b'\0' * 8)}),
 'q_proj three dims': case({Q: f32(2, 2, 2)}),
 'q_proj scalar': case({Q: f32()}),
 'scalar': case({'x': f32()}),
 'special tokens other case': case(tokenizer__model=spm(), special_tokens_map__json=b'{"Additional_Special_Tokens":["a"]}', tokenizer__json=None),
 'gemma3n sparsity 2.0': case(config=cfg('Gemma3nForConditionalGeneration', text_config={'activation_sparsity_pattern': [2.0], 'num_hidden_layers': 1})),
 'gemma norm no elements': case({'model.norm.weight': f32(0)}, config=cfg('GemmaForCausalLM')),
 'gemma norm two dims': case({'model.norm.weight': f32(2, 3)}, config=cfg('GemmaForCausalLM')),
 'gptoss bias one dim': case({'model.layers.0.mlp.experts.gate_up_proj_bias': f32(4)}, config=cfg('GptOssForCausalLM')),
 'gptoss blocks two dims': case({'model.layers.0.mlp.experts.gate_up_proj_blocks': ('U8', [4, 4], b'\0' * 16), 'model.layers.0.mlp.experts.gate_up_proj_scales': ('U8', [4], b'\0' * 4)}, config=cfg('GptOssForCausalLM')),
 'gptoss blocks without scales': case({'model.layers.0.mlp.experts.gate_up_proj_blocks': ('U8', [4, 4, 4, 16], b'\0' * 1024)}, config=cfg('GptOssForCausalLM')),
 'llama4 gate_up one dim': case({'language_model.model.layers.0.feed_forward.experts.gate_up_proj': f32(4)}, config=cfg('Llama4ForConditionalGeneration')),
 'phi3 qkv one dim': case({'model.layers.0.self_attn.qkv_proj.weight': f32(4)}, config=cfg('Phi3ForCausalLM', original_max_position_embeddings=0)),
 'phi3 original 0 longrope': case(config=cfg('Phi3ForCausalLM', rope_scaling={'type': 'longrope', 'short_factor': [1.0], 'long_factor': [1.0]})),
 'qwen25vl qkv one dim': case({'visual.blocks.0.attn.qkv.weight': f32(4)}, config=cfg('Qwen2_5_VLForConditionalGeneration', vision_config={'depth': 1})),
 'qwen25vl qkv scalar': case({'visual.blocks.0.attn.qkv.bias': f32()}, config=cfg('Qwen2_5_VLForConditionalGeneration', vision_config={'depth': 1})),
 'qwen25vl patch_embed 2 dims': case({'visual.patch_embed.proj.weight': f32(4, 4)}, config=cfg('Qwen2_5_VLForConditionalGeneration', vision_config={'depth': 1})),
 'qwen3vl gate_up two dims': case({'model.language_model.layers.0.mlp.experts.gate_up_proj': f32(4, 4)}, config=cfg('Qwen3VLMoeForConditionalGeneration', text_config={'num_hidden_layers': 1, 'num_attention_heads': 1, 'hidden_size': 32})),
 'qwen3next ssm conv': case({'model.layers.0.linear_attn.in_proj_qkvz.weight': f32(4)}, config=cfg('Qwen3NextForCausalLM', layer_types=['linear_attention'], linear_num_key_heads=1, linear_num_value_heads=1, linear_key_head_dim=4, linear_value_head_dim=4)),
 'qwen3_5 in_proj_qkv 1 dim': case({'model.language_model.layers.0.linear_attn.in_proj_qkv.weight': f32(4), 'model.language_model.layers.0.linear_attn.in_proj_z.weight': f32(4)}, config=cfg('Qwen3_5ForConditionalGeneration', layer_types=['linear_attention'], linear_num_key_heads=1, linear_num_value_heads=2, linear_key_head_dim=4, linear_value_head_dim=4)),
 'mllama q 1 dim': case({'vision_model.transformer.layers.0.self_attn.q_proj.weight': f32(4)}, config=cfg('MllamaForConditionalGeneration', text_config={'num_attention_heads': 1, 'hidden_size': 32, 'num_hidden_layers': 1}, vision_config={'attention_heads': 1, 'num_hidden_layers': 1, 'hidden_size': 32, 'supported_aspect_ratios': [[1, 1]]})),
 'deepseek2 kv_b 1 dim': case({'model.layers.0.self_attn.kv_b_proj.weight': f32(4)}, config=cfg('DeepseekV3ForCausalLM')),
 'glm4 kv_b 1 dim': case({'model.layers.0.self_attn.kv_b_proj.weight': f32(4)}, config=cfg('Glm4MoeLiteForCausalLM', qk_nope_head_dim=1, v_head_dim=1, kv_lora_rank=1)),
 'glmocr': case({'model.language_model.layers.0.mlp.gate_up_proj.weight': f32(4)}, config=cfg('GlmOcrForConditionalGeneration', text_config={'num_attention_heads': 1, 'hidden_size': 32, 'num_hidden_layers': 1})),
 'glmocr qproj 1 dim': case({'model.language_model.layers.0.self_attn.q_proj.weight': f32(4)}, config=cfg('GlmOcrForConditionalGeneration', text_config={'num_attention_heads': 64, 'hidden_size': 32, 'num_hidden_layers': 1, 'head_dim': 0})),
 'gemma4 pos embd': case({'model.vision_tower.patch_embedder.position_embedding_table': f32(4), 'model.vision_tower.patch_embedder.input_proj.weight': f32(4)}, config=cfg('Gemma4ForConditionalGeneration', text_config={'num_hidden_layers': 1, 'layer_types': ['full_attention'], 'hidden_size': 32, 'global_head_dim': 32}, vision_config={'num_hidden_layers': 1})),
 'gemma4 experts 1 dim': case({'model.language_model.layers.0.experts.gate_up_proj': f32(4)}, config=cfg('Gemma4ForCausalLM', text_config={'num_hidden_layers': 1, 'layer_types': ['full_attention'], 'hidden_size': 32, 'global_head_dim': 32, 'num_experts': 2})),
 'gemma4 clamp bool': case({'model.vision_tower.layers.0.self_attn.q_proj.input_max': ('BF16', [], b'\0\0')}, config=cfg('Gemma4ForConditionalGeneration', text_config={'num_hidden_layers': 1, 'layer_types': ['full_attention'], 'hidden_size': 32, 'global_head_dim': 32}, vision_config={'num_hidden_layers': 1})),
 'gemma4 global head, partial rotary huge': case(config=cfg('Gemma4ForCausalLM', text_config={'num_hidden_layers': 1, 'layer_types': ['full_attention'], 'hidden_size': 32, 'global_head_dim': 1, 'rope_parameters': {'full_attention': {'partial_rotary_factor': 1e9, 'rope_theta': 1}}})),
 'nemotron A_log': case({'backbone.layers.0.mixer.A_log': f32(4), 'backbone.layers.0.mixer.norm.weight': f32(4), 'backbone.layers.0.mixer.conv1d.weight': f32(4), 'backbone.layers.0.mixer.D': f32(4)}, config=cfg('NemotronHForCausalLM', hybrid_override_pattern='M', n_groups=1, mamba_num_heads=0, mamba_head_dim=0, ssm_state_size=0)),
 'mistral q 1 dim': case({'language_model.model.layers.0.self_attn.q_proj.weight': f32(4)}, config=cfg('Mistral3ForConditionalGeneration', text_config={'num_attention_heads': 1, 'hidden_size': 32, 'num_hidden_layers': 1})),
 'mixtral q no elements': case({Q: f32(0)}, config=cfg('MixtralForCausalLM')),
 'bert': case({'a.query.weight': f32(4)}, config=cfg('BertModel'), modules__json=b'[{"type":"sentence_transformers.models.Pooling","path":"x"}]'),
 'nomic': case({'encoder.layers.0.attn.Wqkv.weight': f32(4)}, config=cfg('NomicBertModel')),
 'lfm2vl': case({'model.vision_tower.vision_model.embeddings.patch_embedding.weight': f32(4)}, config=cfg('Lfm2VlForConditionalGeneration', text_config={'num_attention_heads': 1, 'hidden_size': 32, 'num_hidden_layers': 1}, vision_config={'patch_size': 16, 'num_channels': 3}), processor_config__json=b'{}'),
 'lfm2 block_multiple_of': case(config=cfg('Lfm2ForCausalLM', block_multiple_of=0, block_auto_adjust_ff_dim=True)),
 'qwen3vl deepstack': case(config=cfg('Qwen3VLForConditionalGeneration', text_config={'num_hidden_layers': 1, 'num_attention_heads': 1, 'hidden_size': 32}, vision_config={'depth': 1, 'deepstack_visual_indexes': [-1, 5]})),
 'qwen35 deepstack': case(config=cfg('Qwen3_5ForConditionalGeneration', text_config={'num_hidden_layers': 1, 'num_attention_heads': 1, 'hidden_size': 32, 'linear_num_key_heads':1,'linear_num_value_heads':1}, vision_config={'depth': 1, 'deepstack_visual_indexes': [-1, 5]})),
 'olmo': case(config=cfg('Olmo3ForCausalLM', layer_types=['x'] * 3)),
 'laguna heads': case(config=cfg('LagunaForCausalLM', mlp_only_layers=[0], layer_types=['full_attention'])),
 'deepseekocr qkv': case({'model.vision_model.transformer.layers.0.self_attn.qkv_proj.weight': f32(4), 'model.sam_model.blocks.0.attn.qkv.weight': f32(4)}, config=cfg('DeepseekOCRForCausalLM', language_config={'num_hidden_layers': 1})),
 'commandr': case(config=cfg('CohereForCausalLM')),
 'negative rope in tokenizer id': case(tokenizer__json=b'{"model":{"type":"BPE","vocab":{"a":-1,"b":1},"merges":[]},"added_tokens":[{"id":-5,"content":"<s>"}]}'),
}
def verdict(files):
    together = []
    for n, b in files.items():
        r = FormatReader(n, len(b), FormatLimits()); r.feed(b)
        if r.error: return f"refused {n} {r.error.metadata.get('rule')}"
        if r.inspection is None: return f'{n}: wants more'
        together.append((NS(file_name=n, role=FileRole.MODEL), r.inspection.facts or {}))
    try: check_together(together)
    except Exception as e: return f'refused together {e}'
    return 'accepted'
def main():
    S = Srv(sys.argv[1], int(sys.argv[2]), sys.argv[3])
    v = {n: verdict(f) for n, f in CASES.items()}
    S.start(); c = httpx.Client(base_url=f'http://127.0.0.1:{sys.argv[2]}', trust_env=False, timeout=30)
    only = sys.argv[4] if len(sys.argv) > 4 else ''
    try:
        for n, files in CASES.items():
            if only and only not in n: continue
            if v[n] != 'accepted': print(f'[{v[n]}] {n}'); continue
            try:
                d = {}
                for k, b in files.items():
                    h = 'sha256:' + hashlib.sha256(b).hexdigest(); d[k] = h; c.post('/api/blobs/' + h, content=b)
                t0 = time.time()
                r = c.post('/api/create', json={'model': 'atk', 'files': d}); out = r.text.strip().splitlines()[-1][:110]
            except Exception as e: out = f'{type(e).__name__} {time.time()-t0:.1f}s'
            print(f'[accepted] {n}: {out}', flush=True)
            if S.ensure(): c.close(); c = httpx.Client(base_url=f'http://127.0.0.1:{sys.argv[2]}', trust_env=False, timeout=30)
    finally: S.stop()
if __name__ == '__main__': main()
