// The lab's Node servers: `node server.js CERTS PORT=KIND ...`
const fs = require('fs');
const http = require('http');
const http2 = require('http2');
const https = require('https');
const net = require('net');
const tls = require('tls');

const [certs, ...specs] = process.argv.slice(2);
const pair = (name) => ({ cert: fs.readFileSync(`${certs}/${name}.pem`), key: fs.readFileSync(`${certs}/${name}.key`) });
const answer = (request, response) => {
  request.resume();
  request.on('end', () => response.end('ok\n'));
};

// A server that speaks TLS and does this with the nth request of a connection. `raw` is the connection underneath.
const inside = (conduct, options = {}) => () => {
  const secureContext = tls.createSecureContext({ ...pair('good'), ...options });
  return net.createServer((raw) => {
    const socket = new tls.TLSSocket(raw, { isServer: true, secureContext, ...options });
    let seen = '';
    let count = 0;
    socket.on('data', (bytes) => {
      seen += bytes.toString('latin1');
      if (seen.includes('\r\n\r\n')) {
        seen = '';
        count += 1;
        conduct(socket, raw, count);
      }
    });
    for (const one of [socket, raw]) {
      one.on('error', () => raw.destroy());
    }
  });
};
const well = 'HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nok\n';
const own502 = 'HTTP/1.1 502 Bad Gateway\r\nServer: lab\r\nContent-Length: 4\r\n\r\nbad\n';
const half = 'HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Le';
const big = `HTTP/1.1 200 OK\r\nX-Big: ${'x'.repeat(200000)}\r\nContent-Length: 3\r\n\r\nok\n`;
const closes = (socket) => socket.end();

// A server of HTTP/2 that does this with each stream.
const streams = (conduct, server = http2.createServer()) => {
  server.on('stream', (stream) => {
    stream.on('error', () => {});
    conduct(stream);
  });
  server.on('sessionError', () => {});
  return server;
};

const resets = (stream) => stream.close(http2.constants.NGHTTP2_INTERNAL_ERROR);
const goes = (stream) => {
  stream.session.goaway(http2.constants.NGHTTP2_ENHANCE_YOUR_CALM, 0);
  stream.session.destroy();
};
const says = (status) => (stream) => stream.respond({ ':status': status, server: 'lab' }, { endStream: true });
// Greets, and closes when it is asked something.
const greets = (socket) => {
  socket.write('\0\0\0\x04\0\0\0\0\0', 'latin1');
  socket.once('data', () => setTimeout(() => socket.end(), 100));
  socket.on('data', () => {});
  socket.on('error', () => socket.destroy());
};
const secure = () => http2.createSecureServer(pair('good'));

const kinds = {
  http: () => http.createServer(answer),
  // Closes idle connections after a second, like many a default that is shorter than its proxy's.
  brief: () => Object.assign(http.createServer(answer), { keepAliveTimeout: 1000 }),
  h2: () => http2.createServer(answer),
  'h2-resets': () => streams(resets),
  h2s: () => http2.createSecureServer(pair('good'), answer),
  'h2-502': () => streams(says(502)),
  'h2-503': () => streams(says(503)),
  'h2-504': () => streams(says(504)),
  'h2s-502': () => streams(says(502), secure()),
  'h2s-503': () => streams(says(503), secure()),
  'h2-goes': () => streams(goes),
  'h2-closes': () => net.createServer(greets),
  'h2s-resets': () => streams(resets, secure()),
  'h2s-goes': () => streams(goes, secure()),
  'h2s-closes': () => tls.createServer({ ...pair('good'), ALPNProtocols: ['h2'] }, greets),
  'https-good': () => https.createServer(pair('good'), answer),
  'https-self': () => https.createServer(pair('self'), answer),
  'https-other': () => https.createServer(pair('other'), answer),
  'https-expired': () => https.createServer(pair('expired'), answer),
  'tls-closes': inside(closes),
  'tls12-closes': inside(closes, { maxVersion: 'TLSv1.2' }),
  'tls-resets': inside((_, raw) => raw.resetAndDestroy()),
  'tls-silent': inside(() => {}),
  'tls-half': inside((socket) => socket.end(half)),
  'tls-big': inside((socket) => socket.write(big)),
  'tls-502': inside((socket) => socket.write(own502)),
  'tls-ssh': inside((socket) => socket.end('SSH-2.0-OpenSSH_9.2p1 Debian-2\r\n')),
  // Answers the first request; does not read the second, and closes.
  'tls-raced': inside((socket, raw) => {
    socket.write(well);
    socket._handle.readStop();
    setTimeout(() => raw.destroy(), 500);
  }),
  // Offers no version that a proxy of today accepts.
  'https-ancient': () => https.createServer(
    { ...pair('good'), minVersion: 'TLSv1', maxVersion: 'TLSv1', ciphers: 'DEFAULT:@SECLEVEL=0' }, answer),
};

for (const spec of specs) {
  const [port, kind] = spec.split('=');
  kinds[kind]().listen(Number(port), '127.0.0.1');
}
