"""Attack 2: a 60 MiB header, resumed again and again by new streams; health latency and processor time meanwhile."""
import asyncio, sys, tempfile, pathlib, time, struct
sys.path[:0] = ['/work/atk5']
import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from tests.support.service import ServiceProcess, environment
from tests.support.stubs import ingest_stub
from tests.support.files import upload_messages
from tests.formats.build import Gguf, text, texts, array, STRING, counted
from model_ingest.v1.ingest_service_pb2 import CreateIngestRequest, FileSpec, UploadRequest
async def main():
    toks = [b'%08d' % i for i in range(1 << 20)]
    body = b''.join(counted(t) for t in toks)
    f = Gguf().but({'tokenizer.ggml.tokens': array(STRING, body, len(toks)), 'tokenizer.ggml.scores': None, 'tokenizer.ggml.token_type': None, 'tokenizer.ggml.merges': array(STRING, b''.join(counted(b'a b') for _ in range(3 << 20)), 3 << 20)}).file()
    print('header MiB', len(f) >> 20)
    d = pathlib.Path(tempfile.mkdtemp(prefix='atk5-res'))
    async with ServiceProcess(environment(d / 'data', f"sqlite+aiosqlite:///{d/'t.db'}", ''), d / 'log') as p:
        def cpu(): v = open(f'/proc/{p.process.pid}/stat').read().split(); return (int(v[13]) + int(v[14])) / 100
        async with grpc.aio.insecure_channel(p.address) as ch, grpc.aio.insecure_channel(p.address, options=[('grpc.use_local_subchannel_pool', 1)]) as ch2:
            ing, h = ingest_stub(ch), health_pb2_grpc.HealthStub(ch2); worst = 0.
            async def ping():
                nonlocal worst
                while True:
                    t = time.time(); await h.Check(health_pb2.HealthCheckRequest()); worst = max(worst, time.time() - t); await asyncio.sleep(.02)
            task = asyncio.create_task(ping())
            i = await ing.CreateIngest(CreateIngestRequest(model='r', files=[FileSpec(file_name='m.gguf', role=1, size_bytes=len(f))]))
            msgs = list(upload_messages(i.files[0].name, f))
            t, c = time.time(), cpu()
            async def part(k):
                for m in msgs[:k]: yield m
            try: await ing.Upload(part(len(msgs) - 2))
            except Exception as e: print('first', e.details())
            print('first stream', round(time.time() - t, 1), 's, cpu', round(cpu() - c, 1), 'worst health', round(worst, 2))
            worst = 0.; t, c = time.time(), cpu(); n = 0
            while time.time() - t < 8:
                try: await ing.Upload(part(1))
                except Exception as e: pass
                n += 1
            print(n, 'resumes in 8 s, cpu', round(cpu() - c, 1), 'worst health', round(worst, 2), [l.strip() for l in open(f'/proc/{p.process.pid}/status') if 'VmHWM' in l])
            task.cancel()
asyncio.run(main())
