"""GGUF files that our reader accepts, created with `quantize`, on a real Ollama. usage: BIN PORT DIR"""
import sys, hashlib, struct; sys.path[:0] = ['/work/atk5', '/work/atk5/findings', '/tmp/real-ollama/m']
import httpx
from srv import Srv
from tests.formats.build import Gguf, Tensor, u32, text, texts, numbers, array, U32, I32, F32
from ingest_service.formats.inspect import FormatReader, FormatLimits
M = Gguf()
def g(tensors, **kv):
    f = M.but({'general.file_type': u32(1), **{k.replace('__', '.'): v for k, v in kv.items()}}, tensors=tuple(tensors))
    return f.file()
T = Tensor
C = {
 'control q': (g([T('token_embd.weight', (256, 3), 1), T('blk.0.attn_v.weight', (256, 2), 1)]), 'Q4_K_M'),
 **{f'type {k} q': (g([T('token_embd.weight', (256, 3), 1), T('blk.0.attn_q.weight', (256, 2), k)]), 'Q4_K_M') for k in (24, 26, 27, 28, 9, 15, 16, 17, 18, 19, 20, 21, 23, 29, 34, 35, 39, 40, 41, 42)},
 'name 2 dims only weight': (g([T('weight', (256, 2), 1)]), 'Q4_K_M'),
 'one dim': (g([T('output.weight', (3,), 0)]), 'Q4_K_M'),
 'four dims huge ne3': (g([T('blk.0.attn_q.weight', (32, 2, 2, 2), 0)]), 'Q4_K_M'),
 'empty dims': (g([T('blk.0.attn_q.weight', (), 0)]), 'Q4_K_M'),
 'empty dims no q': (g([T('output.weight', (), 0)]), ''),
 'source fp8': (g([T('blk.0.attn_q.weight', (256, 2), 0)], **{'llama.source_quantization': text('hf_fp8'), 'llama.source_fp8_tensors': texts(['blk.0.attn_q.weight'])}), 'Q8_0'),
 'blk names': (g([T('blk..', (256, 2), 0), T('blk.', (256, 2), 0), T('.', (256, 2), 0), T('v.blk', (4,), 0), T('mm.', (4,), 0)]), 'Q4_K_M'),
 'head_count empty kv array': (g([T('output.weight', (4, 4), 0)], **{'llama.attention.head_count_kv': array(U32, b'', 0), 'llama.feed_forward_length': array(U32, b'', 0)}), ''),
 'laguna': (g([T('blk.0.ffn_down_exps.weight', (256, 2), 1)], general__architecture=text('laguna'), **{f'laguna.{k}': u32(v) for k, v in dict(block_count=2, context_length=9, embedding_length=256, **{'attention.head_count': 8}).items()}), 'Q4_K_M'),
 'pooling/vision keys': (g([T('v.patch_embd.weight', (4, 4), 0), T('mm.0.weight', (4,), 0)], **{'llama.vision.block_count': u32(0), 'llama.pooling_type': u32(9)}), ''),
 'evil template': (M.but({'tokenizer.chat_template': text('{{' * 60000)}).file(), ''),
 'template 255K': (M.but({'tokenizer.chat_template': text('{% for m in messages %}' * 11000)}).file(), ''),
}
S = Srv(sys.argv[1], int(sys.argv[2]), sys.argv[3]).start()
import time
try:
    for n, (b, q) in C.items():
        r = FormatReader('m.gguf', len(b), FormatLimits()); r.feed(b)
        if r.error or not r.inspection: print('[refused]', n, r.error); continue
        d = 'sha256:' + hashlib.sha256(b).hexdigest(); t = time.time()
        try:
            u = f'http://127.0.0.1:{sys.argv[2]}'; httpx.post(u + '/api/blobs/' + d, content=b, trust_env=False)
            x = httpx.post(u + '/api/create', json={'model': 'q', 'files': {'model.gguf': d}} | ({'quantize': q} if q else {}), trust_env=False, timeout=60); out = x.text.strip().splitlines()[-1][:140]
        except Exception as e: out = repr(e)[:80]
        print('[accepted]', n, out, round(time.time() - t, 1), flush=True); S.ensure()
finally: S.stop()
