# The inside of package relay, for python3.
import asyncio, os, struct, sys, time
LISTEN, DIAL, DONE, FAIL, OPEN, DATA, EOF, RESET, CREDIT, PING = range(1, 11)
WINDOW, MOST, PATIENCE = 512 * 1024, 64 * 1024, 60
ends = {}
tasks = set()
state = {"next": 2, "heard": time.monotonic()}


def spawn(coro):
    task = asyncio.ensure_future(coro)
    tasks.add(task)
    task.add_done_callback(tasks.discard)


class End:
    def __init__(self, reader, writer):
        self.reader, self.writer = reader, writer
        self.credit = WINDOW
        self.more = asyncio.Event()
        self.inbox = asyncio.Queue()
        self.told = self.finished = False


def split(address):
    host, _, port = address.rpartition(":")
    return host.strip("[]"), int(port)


async def main():
    loop = asyncio.get_running_loop()
    out = asyncio.Queue()

    def send(kind, number, payload=b""):
        out.put_nowait(struct.pack(">BII", kind, number, len(payload)) + payload)

    async def carry_out(number, end):
        try:
            while True:
                while end.credit <= 0:
                    end.more.clear()
                    await end.more.wait()
                chunk = await end.reader.read(min(MOST, end.credit))
                if not chunk:
                    break
                end.credit -= len(chunk)
                send(DATA, number, chunk)
            end.told = True
            send(EOF, number)
            if end.finished and ends.get(number) is end:
                del ends[number]
        except (OSError, asyncio.CancelledError):
            if ends.pop(number, None) is end:
                send(RESET, number)
                end.writer.close()

    async def carry_in(number, end):
        owed = 0
        try:
            while True:
                item = await end.inbox.get()
                if item is None:
                    end.finished = True
                    end.writer.write_eof()
                    await end.writer.drain()
                    if end.told:
                        ends.pop(number, None)
                        end.writer.close()
                        return
                elif item is False:
                    end.writer.close()
                    return
                else:
                    end.writer.write(item)
                    await end.writer.drain()
                    owed += len(item)
                    if owed >= WINDOW // 2:
                        send(CREDIT, number, struct.pack(">I", owed))
                        owed = 0
        except (OSError, RuntimeError):
            if ends.pop(number, None) is end:
                send(RESET, number)
                end.writer.close()

    def adopt(number, reader, writer):
        end = End(reader, writer)
        ends[number] = end
        spawn(carry_in(number, end))
        return end

    async def listen(number, address):
        async def accepted(reader, writer):
            mine = state["next"]
            state["next"] += 2
            end = adopt(mine, reader, writer)
            send(OPEN, number, struct.pack(">I", mine))
            spawn(carry_out(mine, end))
        try:
            host, port = split(address)
            server = await asyncio.start_server(accepted, host, port)
        except (OSError, ValueError) as err:
            send(FAIL, number, str(err).encode())
            return
        ends[number] = server
        name = server.sockets[0].getsockname()
        send(DONE, number, (("[%s]:%d" if ":" in name[0] else "%s:%d") % name[:2]).encode())

    async def dial(number, address):
        try:
            host, port = split(address)
            reader, writer = await asyncio.open_connection(host, port)
        except (OSError, ValueError) as err:
            send(FAIL, number, str(err).encode())
            return
        end = adopt(number, reader, writer)
        send(DONE, number)
        spawn(carry_out(number, end))

    def handle(kind, number, payload):
        if kind == LISTEN:
            spawn(listen(number, payload.decode()))
        elif kind == DIAL:
            spawn(dial(number, payload.decode()))
        elif number in ends:
            end = ends[number]
            if kind == RESET:
                del ends[number]
                if isinstance(end, End):
                    end.inbox.put_nowait(False)
                else:
                    end.close()
            elif kind == DATA:
                end.inbox.put_nowait(payload)
            elif kind == EOF:
                end.inbox.put_nowait(None)
            elif kind == CREDIT:
                end.credit += struct.unpack(">I", payload)[0]
                end.more.set()

    async def write():
        while True:
            batch = [await out.get()]
            while not out.empty():
                batch.append(out.get_nowait())
            data = memoryview(b"".join(batch))
            while data:
                n = await loop.run_in_executor(None, os.write, 1, data[:1 << 20])
                data = data[n:]

    async def watch():
        while time.monotonic() - state["heard"] < PATIENCE:
            await asyncio.sleep(PATIENCE / 4)
        os._exit(0)

    reader = asyncio.StreamReader(limit=1 << 20)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    spawn(write())
    spawn(watch())
    while True:
        try:
            kind, number, size = struct.unpack(">BII", await reader.readexactly(9))
            payload = await reader.readexactly(size)
        except asyncio.IncompleteReadError:
            os._exit(0)
        state["heard"] = time.monotonic()
        handle(kind, number, payload)


asyncio.run(main())
