"""Findings: odd unicode in JSON headers; GetModel and ListModels with large templates. usage: surrogates_and_sizes.py [DATABASE_URL]"""
import asyncio, json, sys, tempfile, pathlib, hashlib, time
sys.path[:0] = ['/work/atk5', '/work/atk5/findings', '/tmp/real-ollama/m']
import kill_ollama as K
from model_ingest.v1.resources_pb2 import File, Ingest
from model_ingest.v1.ingest_service_pb2 import GetIngestRequest
from model_ingest.v1.catalog_service_pb2 import GetModelRequest, ListModelsRequest
from tests.support.service import RunningService, settings_for
from tests.support.files import upload_messages, send
from tests.rpc.test_several_files import several
from tests.support.models import model, shard
def say(e): return f"{e.code().name} {e.details()[:160]!r}" if hasattr(e, 'code') else repr(e)[:200]
async def main():
    d = pathlib.Path(tempfile.mkdtemp(prefix='atk5-sur'))
    st = settings_for(d / 'data', sys.argv[1] if len(sys.argv) > 1 else f"sqlite+aiosqlite:///{d/'t.db'}", '', allow_safetensors=True)
    async with RunningService(st) as r:
        async def push(name, contents, role=File.ROLE_MODEL):
            i = await r.ingests.CreateIngest(several([(n, role, b) for n, b in contents.items()], name))
            for f, b in zip(i.files, contents.values()):
                if f.state != File.STATE_STORED: await send(r.ingests, upload_messages(f.name, b))
            return await r.ingests.GetIngest(GetIngestRequest(name=i.name))
        async def attempt(what, c):
            try: x = await c; print(what, '-> OK', getattr(x, 'state', ''), len(x.SerializeToString()) if hasattr(x, 'SerializeToString') else '')
            except Exception as e: print(what, '->', say(e))
        S = '\ud800'
        for what, files in {
            'sur-modeltype': K.case(config=K.cfg(model_type=S)),
            'sur-arch': K.case(config=K.cfg(S)),
            'sur-path': K.case(config=K.cfg(**{S: {'num_hidden_layers': 999}})),
            'sur-twice': K.case(config=b'{"architectures":["x"],"\\ud800":1,"\\ud800":2}'),
            'sur-tensor': K.case({S: ('F99', [1], b'x')}),
            'sur-added': K.case(added_tokens__json=json.dumps({S: -1}).encode()),
            'sur-rope': K.case(config=K.cfg('Phi3ForCausalLM', rope_scaling={'type': S})),
            'sur-tmpl': K.case(tokenizer_config__json=json.dumps({'chat_template': S + '{{ x.__class__ }}'}).encode()),
            'bigint': K.case(config=K.cfg(num_hidden_layers=10**4400 if False else 10**60)),
            'hugeint': K.case(config=b'{"architectures":["x"],"a":' + b'9' * 100 + b'}'),
            'deep-names': K.case(config=K.cfg(**{'n' * 60000: {'num_hidden_layers': 999}})),
        }.items():
            await attempt('push ' + what, push(what, files))
            for i in (await r.ingests.ListIngests(__import__('model_ingest.v1.ingest_service_pb2', fromlist=['x']).ListIngestsRequest(model=what))).ingests: print('     ', Ingest.State.Name(i.state), [(f.file_name, File.State.Name(f.state)) for f in i.files if f.state != File.STATE_STORED])
        await attempt('GetModel sur-modeltype', r.catalog.GetModel(GetModelRequest(name='models/sur-modeltype:latest')))
        await attempt('ListModels', r.catalog.ListModels(ListModelsRequest()))
        T = '{' * (255 * 1024)
        for n in (12, 40):
            await attempt(f'push {n} shards', push(f'shards{n}', {f'm-{k+1:05}-of-{n:05}.gguf': model(kv=shard(k, n, n) | {'tokenizer.chat_template': T[:-k-1]}) for k in range(n)}, File.ROLE_SHARD))
            t = time.time(); await attempt(f'GetModel {n} shards', r.catalog.GetModel(GetModelRequest(name=f'models/shards{n}:latest'))); print('   seconds', round(time.time()-t, 2))
            t = time.time(); await attempt('ListModels', r.catalog.ListModels(ListModelsRequest())); print('   seconds', round(time.time()-t, 2))
asyncio.run(main())
