// The inside of package relay, for node.
const net = require('net');
const LISTEN = 1, DIAL = 2, DONE = 3, FAIL = 4, OPEN = 5, DATA = 6, EOF = 7, RESET = 8, CREDIT = 9, PING = 10;
const WINDOW = 512 * 1024, MOST = 64 * 1024, PATIENCE = 60000;
const ends = new Map();
let next = 2, heard = Date.now();

function send(kind, id, payload) {
  const body = payload || Buffer.alloc(0);
  const head = Buffer.alloc(9);
  head[0] = kind;
  head.writeUInt32BE(id >>> 0, 1);
  head.writeUInt32BE(body.length, 5);
  process.stdout.write(Buffer.concat([head, body]));
}

function number(n) {
  const b = Buffer.alloc(4);
  b.writeUInt32BE(n);
  return b;
}

function split(address) {
  const at = address.lastIndexOf(':');
  return { host: address.slice(0, at).replace(/^\[|\]$/g, ''), port: Number(address.slice(at + 1)) };
}

// adopt carries a socket's bytes. What is read is sent while there is credit.
function adopt(id, socket) {
  const end = { socket, credit: WINDOW, owed: 0, queue: [], ended: false };
  ends.set(id, end);
  socket.setNoDelay(true);
  end.pump = () => {
    while (end.queue.length > 0 && end.credit > 0) {
      const chunk = end.queue[0], n = Math.min(chunk.length, end.credit, MOST);
      send(DATA, id, chunk.subarray(0, n));
      end.credit -= n;
      if (n < chunk.length) end.queue[0] = chunk.subarray(n); else end.queue.shift();
    }
    if (end.queue.length > 0) socket.pause();
    else if (end.ended) {
      if (!end.told) { end.told = true; send(EOF, id); }
      if (end.closed) ends.delete(id);
    } else socket.resume();
  };
  socket.on('data', (chunk) => { end.queue.push(chunk); end.pump(); });
  socket.on('end', () => { end.ended = true; end.pump(); });
  socket.on('error', () => {});
  socket.on('close', () => {
    if (ends.get(id) !== end) return;
    if (end.ended && end.finished && !end.told) { end.closed = true; return; } // there is more to send
    ends.delete(id);
    if (!end.told || !end.finished) send(RESET, id);
  });
  return end;
}

function listen(id, address) {
  const server = net.createServer({ allowHalfOpen: true }, (socket) => {
    const mine = next;
    next += 2;
    const end = adopt(mine, socket);
    send(OPEN, id, number(mine));
    end.pump();
  });
  server.on('error', (err) => { ends.delete(id); send(FAIL, id, Buffer.from(String(err.message))); });
  server.listen(split(address), () => {
    const a = server.address();
    send(DONE, id, Buffer.from(a.family === 'IPv6' ? `[${a.address}]:${a.port}` : `${a.address}:${a.port}`));
  });
  ends.set(id, { server });
}

function dial(id, address) {
  const socket = net.connect({ ...split(address), allowHalfOpen: true });
  const refused = (err) => { ends.delete(id); send(FAIL, id, Buffer.from(String(err.message))); };
  ends.set(id, { waiting: socket });
  socket.once('error', refused);
  socket.once('connect', () => {
    socket.removeListener('error', refused);
    adopt(id, socket);
    send(DONE, id);
  });
}

function handle(kind, id, payload) {
  if (kind === LISTEN) return listen(id, payload.toString());
  if (kind === DIAL) return dial(id, payload.toString());
  const end = ends.get(id);
  if (!end) return;
  if (kind === RESET) {
    ends.delete(id);
    if (end.server) end.server.close();
    // What was written before still goes out.
    else if (end.socket) { end.socket.end(); end.socket.destroySoon(); }
    else if (end.waiting) end.waiting.destroy();
  } else if (kind === DATA) {
    end.socket.write(payload, () => {
      end.owed += payload.length;
      if (end.owed >= WINDOW / 2 && ends.get(id) === end) { send(CREDIT, id, number(end.owed)); end.owed = 0; }
    });
  } else if (kind === EOF) {
    end.finished = true;
    end.socket.end();
  } else if (kind === CREDIT) {
    end.credit += payload.readUInt32BE(0);
    end.pump();
  }
}

let held = [], size = 0;
process.stdin.on('data', (chunk) => {
  heard = Date.now();
  held.push(chunk);
  size += chunk.length;
  if (size < 9) return;
  let all = Buffer.concat(held), at = 0;
  while (all.length - at >= 9) {
    const n = all.readUInt32BE(at + 5);
    if (all.length - at < 9 + n) break;
    handle(all[at], all.readUInt32BE(at + 1), Buffer.from(all.subarray(at + 9, at + 9 + n)));
    at += 9 + n;
  }
  all = all.subarray(at);
  held = all.length > 0 ? [all] : [];
  size = all.length;
});
process.stdin.on('end', () => process.exit(0));
process.stdout.on('error', () => process.exit(0));
setInterval(() => { if (Date.now() - heard > PATIENCE) process.exit(0); }, PATIENCE / 4);
