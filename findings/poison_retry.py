"""Finding 2: how often a create that kills the target is repeated while someone (systemd) restarts the target.
usage: poison_retry.py OLLAMA_BIN PORT SECONDS"""
import asyncio, sys, tempfile, pathlib, time
sys.path[:0] = ['/work/atk5', '/tmp/real-ollama/m', '/work/atk5/findings']
from srv import Srv
import kill_ollama as K
from model_ingest.v1.resources_pb2 import File, Ingest
from model_ingest.v1.ingest_service_pb2 import GetIngestRequest
from tests.support.service import RunningService, settings_for
from tests.support.files import upload_messages, send
from tests.rpc.test_several_files import several
async def main(binary, port, seconds):
    d = pathlib.Path(tempfile.mkdtemp(prefix='atk5-poison')); (d / 'ollama').mkdir()
    s = Srv(binary, port, str(d / 'ollama')).start(); deaths = 0
    try:
        st = settings_for(d / 'data', f"sqlite+aiosqlite:///{d/'t.db'}", f'default=http://127.0.0.1:{port}', allow_safetensors=True)
        async with RunningService(st) as r:
            c = K.CASES['gptoss bias one dim']
            i = await r.ingests.CreateIngest(several([(n, File.ROLE_MODEL, b) for n, b in c.items()], 'poison'))
            for f, b in zip(i.files, c.values()): await send(r.ingests, upload_messages(f.name, b))
            t = time.time()
            while time.time() - t < seconds:
                await asyncio.sleep(.3)
                if s.p.poll() is not None: deaths += 1; print(f'{time.time()-t:5.1f}s death {deaths}', flush=True); s.start()
                i = await r.ingests.GetIngest(GetIngestRequest(name=i.name))
                if i.done: break
            x = i.deployments[0]; print('deaths', deaths, Ingest.State.Name(i.state), 'attempts', getattr(x, 'attempts', '?'), x.failure.message)
    finally: s.stop()
asyncio.run(main(sys.argv[1], int(sys.argv[2]), float(sys.argv[3])))
