"""Finding: what maximal templates do to GetModel, ListModels, DeleteModel and to everybody else (health latency)."""
import asyncio, sys, tempfile, pathlib, time, resource
sys.path[:0] = ['/work/atk5', '/work/atk5/findings', '/tmp/real-ollama/m']
from model_ingest.v1.resources_pb2 import File
from model_ingest.v1.catalog_service_pb2 import GetModelRequest, ListModelsRequest, DeleteModelRequest
from grpc_health.v1 import health_pb2
from tests.support.service import ServiceProcess, RunningService, settings_for, environment
from tests.support.stubs import catalog_stub, ingest_stub
from tests.support.files import upload_messages, send
from tests.rpc.test_several_files import several
from tests.support.models import model, shard, MODEL
import grpc
def say(e): return f"{e.code().name} {e.details()[:160]!r}" if hasattr(e, 'code') else repr(e)[:200]
async def main():
    d = pathlib.Path(tempfile.mkdtemp(prefix='atk5-big'))
    async with ServiceProcess(environment(d / 'data', f"sqlite+aiosqlite:///{d/'t.db'}", ''), d / 'log') as p:
        def rss(): return [l for l in open(f'/proc/{p.process.pid}/status') if 'VmRSS' in l or 'VmHWM' in l]
        async with grpc.aio.insecure_channel(p.address, options=[('grpc.max_receive_message_length', -1)]) as ch, grpc.aio.insecure_channel(p.address, options=[('grpc.use_local_subchannel_pool', 1)]) as ch2:
            ing, cat = ingest_stub(ch), catalog_stub(ch)
            from grpc_health.v1 import health_pb2_grpc
            h = health_pb2_grpc.HealthStub(ch2)
            worst = 0.0
            async def ping():
                nonlocal worst
                while True:
                    t = time.time(); await h.Check(health_pb2.HealthCheckRequest()); worst = max(worst, time.time() - t); await asyncio.sleep(.02)
            pinger = asyncio.create_task(ping())
            T = '{' * (255 * 1024)
            async def push(name, contents, role=File.ROLE_MODEL):
                i = await ing.CreateIngest(several([(n, role, b) for n, b in contents.items()], name))
                for f, b in zip(i.files, contents.values()): await send(ing, upload_messages(f.name, b))
            t = time.time()
            await push('a-small', {'m.gguf': model(seed=5)})
            for k in range(60): await push(f'b{k:04}', {'m.gguf': model(kv=MODEL | {'tokenizer.chat_template': T + str(k)})})
            n = 60
            await push('c-shards', {f'm-{k+1:05}-of-{n:05}.gguf': model(kv=shard(k, n, n) | {'tokenizer.chat_template': T + str(k)}) for k in range(n)}, File.ROLE_SHARD)
            await push('d-small', {'m.gguf': model(seed=6)})
            print('pushed in', round(time.time() - t, 1), 'worst health', round(worst, 2), *rss())
            for what, call in {'GetModel c-shards': lambda: cat.GetModel(GetModelRequest(name='models/c-shards:latest')), 'ListModels 500': lambda: cat.ListModels(ListModelsRequest(page_size=500))}.items():
                worst = 0.0; t = time.time()
                try: x = await call(); out = x.ByteSize()
                except Exception as e: out = say(e)
                await asyncio.sleep(.3); print(what, out, 'seconds', round(time.time() - t, 2), 'worst health', round(worst, 2), *rss())
            seen, token = [], ''
            try:
                while True:
                    x = await cat.ListModels(ListModelsRequest(page_size=500, page_token=token)); seen += [m.name for m in x.models]; token = x.next_page_token
                    if not token: break
            except Exception as e: print('list walk', say(e))
            print('models seen', len(seen), 'last', seen[-1:], 'd-small listed', 'models/d-small:latest' in seen, 'worst health', round(worst, 2))
            worst = 0.0; t = time.time()
            x = await asyncio.gather(*(cat.ListModels(ListModelsRequest(page_size=500)) for _ in range(20)), return_exceptions=True)
            print('20 ListModels at once: seconds', round(time.time() - t, 2), 'worst health', round(worst, 2), *rss())
            try: await cat.DeleteModel(DeleteModelRequest(name='models/c-shards:latest')); print('delete ok')
            except Exception as e: print('DeleteModel', say(e))
            try: await cat.GetModel(GetModelRequest(name='models/c-shards:latest'))
            except Exception as e: print('GetModel after', say(e))
            pinger.cancel()
asyncio.run(main())
