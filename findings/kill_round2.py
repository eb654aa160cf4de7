import sys; sys.path.insert(0, '/work/atk5/findings')
import kill_ollama as K
from kill_ollama import cfg, case, f32, TOK
tc = dict(num_attention_heads=1, hidden_size=32, num_hidden_layers=1)
ql = dict(num_hidden_layers=2, head_dim=4, layer_types=['linear_attention', 'full_attention'], linear_num_key_heads=1, linear_num_value_heads=2, linear_key_head_dim=4, linear_value_head_dim=4, linear_conv_kernel_dim=4, rope_theta=1e4, rms_norm_eps=1e-6, num_attention_heads=1, hidden_size=32, num_key_value_heads=1, intermediate_size=64, max_position_embeddings=128, partial_rotary_factor=0.25, num_experts=2, num_experts_per_tok=1, moe_intermediate_size=4, shared_expert_intermediate_size=4)
K.CASES.clear()
K.CASES.update({
 'qwen3vl patch_embd': case({'model.visual.patch_embed.proj.weight': f32(4)}, config=cfg('Qwen3VLForConditionalGeneration', **tc, vision_config={'depth': 1}), preprocessor_config__json=b'{}'),
 'qwen3vl gate_up two dims': case({'model.layers.0.mlp.experts.gate_up_proj': f32(4, 4)}, config=cfg('Qwen3VLMoeForConditionalGeneration', text_config=tc), preprocessor_config__json=b'{}'),
 'qwen3vl down two dims': case({'model.layers.0.mlp.experts.down_proj': f32(4, 4)}, config=cfg('Qwen3VLMoeForConditionalGeneration', text_config=tc), preprocessor_config__json=b'{}'),
 'qwen3next in_proj_qkvz': case({'model.layers.0.linear_attn.in_proj_qkvz.weight': f32(4)}, config=cfg('Qwen3NextForCausalLM', **{**ql})),
 'qwen3_5 patch_embed': case({'model.visual.patch_embed.proj.weight': f32(4)}, config=cfg('Qwen3_5ForConditionalGeneration', text_config=ql, vision_config={'depth': 1})),
 'qwen3_5 qkv': case({'model.language_model.layers.0.linear_attn.in_proj_qkv.weight': f32(4, 16)}, config=cfg('Qwen3_5ForConditionalGeneration', text_config={**ql})),
 'qwen3_5 norm two dims': case({'model.language_model.norm.weight': f32(4, 16)}, config=cfg('Qwen3_5ForConditionalGeneration', text_config={**ql})),
 'qwen3_5 experts gate_up one dim': case({'model.language_model.layers.0.mlp.experts.gate_up_proj': f32(4)}, config=cfg('Qwen3_5MoeForConditionalGeneration', text_config={**ql})),
 'glmocr head dim 0': case({'model.language_model.layers.0.self_attn.q_proj.weight': f32(4, 4)}, config=cfg('GlmOcrForConditionalGeneration', text_config={**tc, 'num_attention_heads': 64}, vision_config={'depth': 1}), preprocessor_config__json=b'{}'),
 'glmocr gate_up': case({'model.language_model.layers.0.mlp.gate_up_proj.weight': f32()}, config=cfg('GlmOcrForConditionalGeneration', text_config=tc, vision_config={'depth': 1}), preprocessor_config__json=b'{}'),
 'glmocr qkv': case({'model.visual.blocks.0.attn.qkv.weight': f32(2)}, config=cfg('GlmOcrForConditionalGeneration', text_config=tc, vision_config={'depth': 1}), preprocessor_config__json=b'{}'),
 'glmocr rotary 4.0': case({'model.language_model.layers.0.self_attn.q_proj.weight': f32(4, 4)}, config=cfg('GlmOcrForConditionalGeneration', text_config={**tc, 'head_dim': 4, 'rope_parameters': {'partial_rotary_factor': 40.0}}, vision_config={'depth': 1}), preprocessor_config__json=b'{}'),
 'gemma4 patch embed': case({'model.vision_tower.patch_embedder.input_proj.weight': f32(4, 4)}, config=cfg('Gemma4ForConditionalGeneration', text_config={**tc, 'layer_types': ['full_attention'], 'global_head_dim': 32}, vision_config={'num_hidden_layers': 1})),
 'gemma4 shared kv': case(config=cfg('Gemma4ForCausalLM', text_config={**tc, 'use_double_wide_mlp': True, 'num_kv_shared_layers': 4294967295})),
 'phi3 head': case(config=cfg('Phi3ForCausalLM', num_attention_heads=None, n_head=1)),
 'lfm2 heads list': case(config=cfg('Lfm2ForCausalLM')),
 'lfm2vl patch': case({'model.vision_tower.vision_model.embeddings.patch_embedding.weight': f32(4)}, config=cfg('Lfm2VlForConditionalGeneration', text_config={**tc, 'num_key_value_heads': 1}, vision_config={'patch_size': 16, 'num_channels': 3}), preprocessor_config__json=b'{}'),
 'lfm2vl patch 2dims 0': case({'model.vision_tower.vision_model.embeddings.patch_embedding.weight': f32(4, 4)}, config=cfg('Lfm2VlForConditionalGeneration', text_config={**tc, 'num_key_value_heads': 1}, vision_config={'patch_size': 4294967295, 'num_channels': 4294967295})),
 'nemotron': case({'backbone.layers.0.mixer.A_log': f32(0), 'backbone.layers.0.mixer.norm.weight': f32(0)}, config=cfg('NemotronHForCausalLM', hybrid_override_pattern='M', n_groups=1, conv_kernel=4, ssm_state_size=4, mamba_num_heads=4, mamba_head_dim=4)),
 'deepseek kv_b': case({'model.layers.0.self_attn.kv_b_proj.weight': f32(4)}, config=cfg('DeepseekV3ForCausalLM', qk_nope_head_dim=1, v_head_dim=1, kv_lora_rank=4, n_routed_experts=1)),
 'glm4 kv_b 2dims': case({'model.layers.0.self_attn.kv_b_proj.weight': f32(4, 4)}, config=cfg('Glm4MoeLiteForCausalLM', qk_nope_head_dim=0, v_head_dim=0, kv_lora_rank=0)),
 'mixtral merge': case({'model.layers.0.block_sparse_moe.experts.0.w1.weight': f32(4), 'model.layers.0.block_sparse_moe.experts.1.w1.weight': f32(400)}, config=cfg('MixtralForCausalLM', num_local_experts=2)),
 'gptoss mxfp4 wrong scales': case({'model.layers.0.mlp.experts.down_proj_blocks': ('U8', [1, 2, 2, 16], b'\0' * 64), 'model.layers.0.mlp.experts.down_proj_scales': ('U8', [1], b'\0')}, config=cfg('GptOssForCausalLM')),
 'mistral heads 0 kv': case({'language_model.model.layers.0.self_attn.k_proj.weight': f32(4, 4)}, config=cfg('Mistral3ForConditionalGeneration', text_config={**tc, 'num_key_value_heads': 0})),
 'mistral causal heads list': case({'model.layers.0.self_attn.k_proj.weight': f32(4, 4), 'model.layers.0.self_attn.q_proj.weight': f32(0, 4)}, config=cfg('Ministral3ForCausalLM')),
 'llama4 q': case({'language_model.model.layers.0.self_attn.q_proj.weight': f32(4, 4)}, config=cfg('Llama4ForConditionalGeneration', text_config={})),
 'commandr q': case({'model.layers.0.self_attn.q_proj.weight': f32(0, 4)}, config=cfg('CohereForCausalLM', num_attention_heads=None)),
 'gemma3 norm 2d': case({'language_model.model.norm.weight': f32(2, 2)}, config=cfg('Gemma3ForConditionalGeneration', text_config=tc)),
 'gemma2 norm 2d': case({'model.norm.weight': f32(2, 2)}, config=cfg('Gemma2ForCausalLM')),
 'gemma3n altup no elements': case({'model.language_model.altup_projections.0.weight': f32(0), 'model.language_model.layers.0.altup.prediction_coefs.weight': f32(0)}, config=cfg('Gemma3nForConditionalGeneration', text_config={**tc, 'altup_coef_clip': 1.0})),
 'embeddinggemma': case({'norm.weight': f32(2, 2)}, config=cfg('Gemma3TextModel'), modules__json=b'[{"type":"sentence_transformers.models.Dense","path":"."}]'),
 'odd bytes F32 in fp8 scale': case({'x.weight': ('F8_E4M3', [4, 4], b'\0' * 16), 'x.weight_scale_inv': ('F32', [0], b'')}, config=cfg(quantization_config={'quant_method': 'fp8', 'weight_block_size': [9223372036854775807, 9223372036854775807]})),
 'BF16 empty': case({'a': ('BF16', [0, 1], b'')}),
 'tokenizer null': case(tokenizer__json=b'{"model":null,"added_tokens":null}'),
 'qwen3vl depth 2^32-1': case({'model.visual.x': f32(4)}, config=cfg('Qwen3VLForConditionalGeneration', **tc, vision_config={'depth': 1}), preprocessor_config__json=b'{"depth":4294967295}'),
})
K.main()
